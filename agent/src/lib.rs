//! The agent of a protected host: it dials out, scans, archives, verifies and restores, and remembers what it has to report.
//!
//! Floors: `scan`, `store` and `journal` stand side by side; `engine` owns all runs on this host and stands on them; `session` carries
//! messages between engine and coordinator; `daemon` builds the process. `archive_cli` is the engine alone, with no coordinator.

pub mod archive_cli;
pub mod chain;
pub mod config;
pub mod contact;
pub mod daemon;
pub mod engine;
pub mod identity;
pub mod join;
pub mod journal;
pub mod plan;
pub mod printable;
pub mod renewal;
pub mod scan;
pub mod session;
pub mod state;
pub mod status;
pub mod store;
