//! `cargo measure` on corpora of a thousandth: rows are prepared, held and judged, and the figures are kept.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

use fleet_tests::harness::build::binaries;
use serde_json::Value;

fn measure(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_measure"));
    command.args(arguments).args(["--out", "figures"]).current_dir(folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn rows_are_measured_on_small_corpora_and_their_figures_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let agent = binaries().unwrap().agent;
    let rows = ["full-zstd3", "restore", "verify", "stored"];
    let scratch = folder.path().join("scratch");
    let options = ["--rounds", "1", "--scale", "0.001", "--corpus-dir", "corpora", "-o", "json"];
    let named = ["--agent", agent.to_str().unwrap(), "--scratch-dir", scratch.to_str().unwrap()];
    let output = measure(&[&rows[..], &options, &named].concat(), folder.path());
    let reports: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let found: Vec<_> = reports.iter().map(|report| report["row"].as_str().unwrap()).collect();
    assert_eq!(found, rows);
    for report in &reports {
        let taken = report["taken"].as_array().unwrap();
        assert!(taken.iter().all(|taken| taken["samples"][0]["wall_s"].as_f64().unwrap() > 0.0), "{report}");
        // A peer that is not installed is said; the others are compared with.
        let judged = report["outcomes"].as_array().unwrap().len();
        assert!(judged + report["absent"].as_array().unwrap().len() >= 1, "{report}");
    }
    let stored = reports.last().unwrap();
    let ratio = stored["outcomes"][1]["figure"]["median"].as_f64().unwrap();
    assert!((0.9..2.0).contains(&ratio), "ours over tar's bytes of (b): {ratio}");
    assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 0, "the scratch folder goes with the measurement");

    let table = measure(&["table"], folder.path());
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("mean nothing"), "{table}");
    assert!(table.contains("| verify (a) | coord | zstd -t |"), "{table}");
}
