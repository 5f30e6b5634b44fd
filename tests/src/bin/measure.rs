//! `cargo measure [ROW ...]`: our engine beside the tools a user would take instead.

use std::process::ExitCode;

use clap::Parser;
use fleet_tests::bench::{self, Options};

fn main() -> ExitCode {
    bench::run(&Options::parse())
}
