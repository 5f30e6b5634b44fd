//! Trees of real files: comparing two exactly, making awkward ones, and changing them.

pub mod awkward;
pub mod compare;
pub mod mutate;
