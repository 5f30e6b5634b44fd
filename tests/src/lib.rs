//! The system seen from outside: what tests, the demo and measurements share.
//!
//! Nothing here reaches into a package of the product: fleets are real processes, trees are real files.

pub mod bench;
pub mod checker;
pub mod demo;
pub mod exact;
pub mod faults;
pub mod fuzz;
pub mod harness;
pub mod hostile;
pub mod mutators;
pub mod racers;
pub mod random;
pub mod scratch;
pub mod sim;
pub mod story;
pub mod tree;
