//! The rules of backing up: pure and synchronous, so that every one of them can be tried without a machine.
//!
//! Nothing here reads a clock, a file, the network or the catalog; what a rule needs to know it is given, and what it
//! decides it returns together with the reason.

pub mod bottleneck;
pub mod chain;
pub mod decision;
pub mod forecast;
pub mod full_days;
pub mod host_plan;
pub mod levelling;
pub mod objectives;
pub mod pace;
pub mod policy;
pub mod queue;
pub mod rates;
pub mod replay;
pub mod restore_plan;
pub mod schedule;
pub mod timing;
