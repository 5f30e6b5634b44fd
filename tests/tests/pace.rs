//! How fast runs go, and how soon they end when somebody wants it: limits of a policy, and cancelling in every phase.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use fleet_tests::harness::wait::wait_for;
use fleet_tests::story::{OneHost, SRV_POLICY};
use jiff::Timestamp;
use serde_json::Value;

/// At [`SLOW`], so much takes two minutes to read.
const BYTES: usize = 64 * 1024 * 1024;
const SLOW_BYTES: u64 = 512 * 1024;
const SLOW: &str = "limits = { read = \"512KiB/s\" }\n";
/// How soon a run ends after somebody has asked for it.
const SOON: Duration = Duration::from_secs(5);

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..bytes / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}

fn limited(host: &OneHost, limits: &str) {
    host.fleet.apply_policy(&format!("{SRV_POLICY}{limits}")).unwrap().success().unwrap();
}

fn json(host: &OneHost, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
    host.coordctl(&arguments).unwrap().success().unwrap().json().unwrap()
}

fn begin(host: &OneHost, arguments: &[&str]) -> String {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--detach"]).collect();
    let started = json(host, &arguments);
    started["id"].as_str().unwrap().to_owned()
}

fn wait_until(host: &OneHost, run: &str, what: &str, seen: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("run {run} to be {what}"), Duration::from_secs(120), || {
        let now = json(host, &["run", "show", run]);
        if seen(&now) { Ok(now) } else { Err(now.to_string()) }
    })
    .unwrap()
}

fn phase(host: &OneHost, run: &str, phase: &str) -> Value {
    wait_until(host, run, phase, |now| now["progress"]["phase"] == phase && now["progress"]["bytes_done"] != 0)
}

fn instant(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// Cancels the run; it has ended soon after, by its own record.
fn cancel(host: &OneHost, run: &str, told: &str) {
    let asked = Timestamp::now();
    host.coordctl(&["run", "cancel", run]).unwrap().success().unwrap();
    let ended = wait_until(host, run, "over", |now| now["state"] == "cancelled" || now["state"] == "succeeded");
    assert_eq!(ended["state"], "cancelled", "{told}: {ended}");
    let took = instant(&ended["ended_at"]).duration_since(asked).unsigned_abs();
    assert!(took < SOON, "{told}: it went on for {took:?}");
}

#[test]
fn a_limit_slows_a_run_and_taking_it_away_acts_while_the_run_goes_on() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("large"), noise(BYTES)).unwrap();
    limited(&host, SLOW);
    let run = begin(&host, &["job", "run", "web-1/srv"]);
    let now = phase(&host, &run, "packing");
    let since = Timestamp::now().duration_since(instant(&now["started_at"])).unsigned_abs();
    let done = now["progress"]["bytes_done"].as_u64().unwrap();
    // What was read, the burst, and the frame that was read before the first wait.
    let allowed = SLOW_BYTES * (since.as_secs() + 2) + 8 * 1024 * 1024;
    assert!(done <= allowed, "{done} bytes in {since:?}");

    limited(&host, "");
    let ended = wait_until(&host, &run, "over", |now| now["state"] == "succeeded");
    let took = instant(&ended["ended_at"]).duration_since(instant(&ended["started_at"])).unsigned_abs();
    let slowly = Duration::from_secs(BYTES as u64 / SLOW_BYTES);
    assert!(took < slowly / 2, "it took {took:?}, and {slowly:?} at the limit");
    assert_eq!(host.restored_differs_from(&host.source, None).unwrap(), vec![]);
}

#[test]
fn a_run_that_is_cancelled_ends_within_five_seconds_in_every_phase() {
    let host = OneHost::start().unwrap();
    let large = host.source.join("large");
    fs::write(&large, noise(BYTES)).unwrap();
    // So that a restore can be met in its middle; the other phases do without it.
    let huge = host.source.join("huge");
    fs::write(&huge, noise(3 * BYTES)).unwrap();
    host.back_up().unwrap();
    fs::remove_file(&huge).unwrap();
    limited(&host, SLOW);

    let run = begin(&host, &["job", "run", "web-1/srv", "--level", "full"]);
    phase(&host, &run, "packing");
    cancel(&host, &run, "in the middle of packing");

    // Touched and not changed: the scan reads it to find that out.
    for mode in [0o640, 0o644] {
        fs::set_permissions(&large, fs::Permissions::from_mode(mode)).unwrap();
    }
    let run = begin(&host, &["job", "run", "web-1/srv"]);
    phase(&host, &run, "scanning");
    cancel(&host, &run, "in the middle of scanning");

    // Ten seconds of packing, ten of reading back: a heartbeat falls into both.
    limited(&host, "limits = { read = \"6MiB/s\" }\n");
    let run = begin(&host, &["job", "run", "web-1/srv", "--level", "full"]);
    phase(&host, &run, "verifying");
    cancel(&host, &run, "in the middle of verifying");

    let run = begin(&host, &["restore", "web-1", "--to-dir", "/back"]);
    wait_until(&host, &run, "running", |now| now["state"] == "running");
    cancel(&host, &run, "in the middle of a restore");
    let kept = json(&host, &["backup", "list"]);
    assert_eq!(kept["backups"].as_array().unwrap().len(), 1, "only the first backup is left: {kept}");
}

#[test]
fn a_run_that_waits_ends_at_once() {
    let mut host = OneHost::start().unwrap();
    host.fleet.agent_process("web-1").unwrap().stop().unwrap();
    let run = begin(&host, &["job", "run", "web-1/srv"]);
    cancel(&host, &run, "while it is queued");
}
