//! Injected faults over fleets of processes and of containers: what is lost, what is done twice, and what a restore gives back.
//!
//! docs/FAULTS.md has the table. Short forms run with `cargo test`; `cargo faults` runs the long forms, which print their seeds and figures.

#![expect(clippy::unwrap_used, reason = "tests")]

mod agent_killed;
mod checking;
mod clock;
mod coordinator_killed;
mod coordinators;
mod database;
mod machines;
mod network;
mod paused;

use std::time::Duration;

use fleet_tests::faults::host::Host;
use fleet_tests::harness::wait::wait_for;

/// Some points are passed once a minute only.
const DIES_WITHIN: Duration = Duration::from_secs(90);

/// Waits until a program has died of a planned fault.
fn await_death(host: &mut dyn Host) {
    let name = host.name().to_owned();
    wait_for(&format!("{name} to die as planned"), DIES_WITHIN, || {
        if host.is_running() { Err(host.last_lines()) } else { Ok(()) }
    })
    .unwrap();
}
