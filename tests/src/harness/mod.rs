//! A fleet of real processes on this machine, for tests and the demo.

pub mod build;
pub mod fleet;
pub mod postgres;
pub mod process;
pub mod wait;
