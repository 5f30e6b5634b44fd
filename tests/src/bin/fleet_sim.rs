//! `cargo fleet-sim`: thousands of simulated agents against one real coordinator.

use std::process::ExitCode;

use clap::Parser;
use fleet_tests::sim::{self, Options};

fn main() -> ExitCode {
    sim::run(&Options::parse())
}
