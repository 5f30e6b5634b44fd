//! A dead agent neither blocks its run nor doubles it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use fleet_tests::harness::wait::wait_for;
use fleet_tests::story::OneHost;

/// Bytes that take a while to pack, so that the run can be met in the middle.
const LARGE_BYTES: usize = 192 * 1024 * 1024;

fn noise() -> Vec<u8> {
    noise_of(1)
}

fn noise_of(seed: u64) -> Vec<u8> {
    let mut state = seed;
    (0..LARGE_BYTES / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}

fn show(host: &OneHost, run: &str) -> Result<Value, String> {
    host.coordctl(&["run", "show", run, "-o", "json"])?.success()?.json()
}

fn wait_until(host: &OneHost, run: &str, states: &[&str]) -> Value {
    wait_for(&format!("run {run} to be {states:?}"), Duration::from_secs(120), || {
        let run = show(host, run)?;
        if states.iter().any(|state| run["state"] == **state) { Ok(run) } else { Err(run.to_string()) }
    })
    .unwrap()
}

#[test]
fn an_agent_killed_in_mid_run_gives_its_run_back_and_finishes_it_after_its_return() {
    let mut host = OneHost::start().unwrap();
    fs::write(host.source.join("large"), noise()).unwrap();
    let started = host.coordctl(&["job", "run", "web-1/srv", "--detach", "-o", "json"]).unwrap().success().unwrap();
    let run = started.json().unwrap()["id"].as_str().unwrap().to_owned();
    wait_until(&host, &run, &["running", "verifying"]);

    host.fleet.agent_process("web-1").unwrap().kill().unwrap();
    host.fleet.start_agent("web-1").unwrap();
    let ended = wait_until(&host, &run, &["succeeded", "failed"]);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["attempt"], 2, "the first attempt died with its agent: {ended}");

    let backups = host.coordctl(&["backup", "list", "-o", "json"]).unwrap().success().unwrap().json().unwrap();
    assert_eq!(backups["backups"].as_array().unwrap().len(), 1, "{backups}");
    let partial: Vec<_> = fleet_tests::tree::compare::list(&host.fleet.agent("web-1").unwrap().state)
        .unwrap()
        .into_keys()
        .filter(|path| String::from_utf8_lossy(path).contains("partial"))
        .collect();
    assert!(partial.is_empty(), "{partial:?}");
    assert_eq!(host.restored_differs_from(&host.source, None).unwrap(), vec![]);
}

#[test]
fn a_coordinator_killed_in_mid_run_loses_nothing() {
    let mut host = OneHost::start().unwrap();
    fs::write(host.source.join("large"), noise()).unwrap();
    let started = host.coordctl(&["job", "run", "web-1/srv", "--detach", "-o", "json"]).unwrap().success().unwrap();
    let run = started.json().unwrap()["id"].as_str().unwrap().to_owned();
    wait_until(&host, &run, &["running", "verifying"]);

    host.fleet.coordinator_process().unwrap().kill().unwrap();
    host.fleet.start_coordinator().unwrap();
    let ended = wait_until(&host, &run, &["succeeded", "failed"]);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["attempt"], 1, "the agent went on with the same attempt: {ended}");
    assert_eq!(host.restored_differs_from(&host.source, None).unwrap(), vec![]);
}

#[test]
fn a_database_stopped_or_killed_in_mid_run_and_started_again_loses_nothing() {
    let host = OneHost::start_on_private_database().unwrap();
    let file = host.fleet.coordinator_state().join("postgres/data/postmaster.pid");
    let server = || -> Option<Pid> { Pid::from_raw(fs::read_to_string(&file).ok()?.lines().next()?.parse().ok()?) };
    // PostgreSQL's fast shutdown, then what a power cut does.
    for (signal, seed) in [(Signal::INT, 1), (Signal::KILL, 2)] {
        fs::write(host.source.join("large"), noise_of(seed)).unwrap();
        let arguments = ["job", "run", "web-1/srv", "--level", "full", "--detach", "-o", "json"];
        let started = host.coordctl(&arguments).unwrap().success().unwrap();
        let run = started.json().unwrap()["id"].as_str().unwrap().to_owned();
        wait_until(&host, &run, &["running", "verifying"]);
        let before = server().unwrap();
        kill_process(before, signal).unwrap();
        let again = || server().filter(|pid| *pid != before).ok_or_else(|| "no other server".to_owned());
        wait_for("the database to be started again", Duration::from_secs(60), again).unwrap();

        let ended = wait_until(&host, &run, &["succeeded", "failed"]);
        assert_eq!(ended["state"], "succeeded", "{ended}");
        assert_eq!(ended["attempt"], 1, "the agent went on with the same attempt: {ended}");
        assert_eq!(host.restored_differs_from(&host.source, None).unwrap(), vec![]);
    }
}

#[test]
fn a_cancelled_run_stops_and_leaves_no_archive() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("large"), noise()).unwrap();
    let started = host.coordctl(&["job", "run", "web-1/srv", "--detach", "-o", "json"]).unwrap().success().unwrap();
    let run = started.json().unwrap()["id"].as_str().unwrap().to_owned();
    wait_until(&host, &run, &["running"]);
    host.coordctl(&["run", "cancel", &run]).unwrap().success().unwrap();
    wait_until(&host, &run, &["cancelled"]);
    let held = fleet_tests::tree::compare::list(&host.fleet.agent("web-1").unwrap().state).unwrap();
    // One that was sealed just before the host heard of it is set aside for a week.
    let counts = |path: &[u8]| path.ends_with(b".tar.zst") && !String::from_utf8_lossy(path).contains(".set-aside/");
    let left: Vec<_> = held.keys().filter(|path| counts(path)).map(|path| String::from_utf8_lossy(path)).collect();
    assert!(left.is_empty(), "archives of a cancelled run are left: {left:?}");
}
