//! `cargo demo [PATH ...]`: the main job of coord on real data of this machine, through the real parts.

use std::process::ExitCode;

use clap::Parser;
use fleet_tests::demo::{self, Options};

fn main() -> ExitCode {
    demo::run(&Options::parse())
}
