//! `cargo measure` on corpora of a thousandth: every row is prepared, held and judged, the figures are kept, and the bound on
//! memory is one.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

use fleet_tests::harness::build::binaries;
use serde_json::Value;

/// Every row of the table, in its order, with what it compares: ours, and the peer where there is one.
const TABLE: &[(&str, &[(&str, &str)])] = &[
    ("full-zstd3", &[("coord", "tar, zstd -T0 -3"), ("coord, verified", "tar, zstd -T0 -3")]),
    ("full-zstd1", &[("coord", "tar | zstd -T2 -1"), ("coord, verified", "tar | zstd -T2 -1")]),
    ("full-default", &[("coord, verified", "restic"), ("coord, verified", "rustic")]),
    ("full-gzip6", &[("coord, verified", "tar | pigz -6"), ("coord", "tar | pigz -6"), ("coord", "tar | pigz -6")]),
    ("small-zstd3", &[("coord, verified", "tar, zstd -T0 -3"), ("coord", "tar, zstd -T0 -3")]),
    ("large-zstd3", &[("coord, verified", "zstd -T2 -3"), ("coord", "zstd -T2 -3")]),
    ("no-change-a", &[("coord", "find -printf"), ("coord", "restic")]),
    ("no-change-b", &[("coord", "find -printf"), ("coord", "restic")]),
    ("differential", &[("coord, verified", "tar, zstd -T0 -3"), ("coord, verified", "restic")]),
    ("restore", &[("coord", "tar, zstd -T0 -3"), ("coord", "restic"), ("coord", "rustic")]),
    ("restore-ext4", &[("coord", "tar, zstd -T0 -3"), ("coord", "restic"), ("coord", "rustic")]),
    ("one-file", &[("coord", ""), ("coord", "restic")]),
    ("verify", &[("coord", "zstd -t")]),
    ("stored", &[("coord, (a)", "tar, (a)"), ("coord, (b)", "tar, (b)")]),
    ("memory", &[("coord, full", ""), ("coord, scan", ""), ("coord, restore", "")]),
];

fn measure(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_measure"));
    command.args(arguments).current_dir(folder);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_row_is_measured_on_small_corpora_and_its_figures_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let agent = binaries().unwrap().agent;
    let scratch = folder.path().join("scratch");
    let options = ["--rounds", "1", "--scale", "0.001", "--corpus-dir", "corpora", "--out", "figures", "-o", "json"];
    let named = ["--agent", agent.to_str().unwrap(), "--scratch-dir", scratch.to_str().unwrap()];
    let output = measure(&[&options[..], &named].concat(), folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let reports: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let found: Vec<_> = reports.iter().map(|report| report["row"].as_str().unwrap()).collect();
    assert_eq!(found, TABLE.iter().map(|(row, _)| *row).collect::<Vec<_>>());
    for (report, (row, compared)) in reports.iter().zip(TABLE) {
        let absent = report["absent"].to_string();
        eprintln!("{row}: not measured: {absent}");
        // What cannot be had here is named; all else was compared.
        let mut left: Vec<(&str, &str)> = compared.to_vec();
        for outcome in report["outcomes"].as_array().unwrap() {
            assert!(outcome["figure"]["median"].as_f64().unwrap() > 0.0, "{row}: {outcome}");
            let pair = (outcome["ours"].as_str().unwrap(), outcome["peer"].as_str().unwrap_or_default());
            left.remove(left.iter().position(|it| *it == pair).unwrap());
        }
        let is_named = |peer: &str| {
            let program = peer.rsplit('|').next().unwrap().split_whitespace().next().unwrap_or_default();
            absent.contains("no journaled ext4") || absent.contains(&format!("{program} is not installed"))
        };
        let unexplained: Vec<_> = left.iter().filter(|(_, peer)| !is_named(peer)).collect();
        assert!(unexplained.is_empty(), "{row}: nothing says why these were not measured: {unexplained:?}");
        for taken in report["taken"].as_array().unwrap() {
            assert!(taken["samples"][0]["wall_s"].as_f64().unwrap() > 0.0, "{row}: {taken}");
        }
    }
    let stored = reports.iter().find(|report| report["row"] == "stored").unwrap();
    let ratio = stored["outcomes"][1]["figure"]["median"].as_f64().unwrap();
    assert!((0.9..2.0).contains(&ratio), "ours over tar's bytes of (b): {ratio}");
    assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 0, "the scratch folder goes with the measurement");

    let table = text(&measure(&["table", "--out", "figures"], folder.path()).stdout);
    assert!(table.contains("mean nothing"), "{table}");
    for row in ["| verify (a) | coord | zstd -t |", "| peak memory, (a) | coord, scan | - |"] {
        assert!(table.contains(row), "{row}: {table}");
    }
}

/// In memory where there is room for a hundred thousand files twice: on some disks making and deleting them takes minutes.
fn many_files_folder() -> tempfile::TempDir {
    const ROOM: u64 = 2 << 30;
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |found| found.f_bavail * found.f_frsize);
    if room > ROOM { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

#[test]
fn memory_follows_from_the_settings_and_not_from_names_or_sizes() {
    // Held in memory, a hundred thousand entries would be some forty megabytes more than the buffers that a command has anyway, and
    // the file would be eight gigabytes. What is promised is 64.
    const ALLOWED_MIB: &str = "56";
    let folder = many_files_folder();
    let agent = binaries().unwrap().agent;
    let sizes = ["--names", "100000", "--folder", "100000", "--file", "8", "--scratch-dir", "."];
    let command = [&["size", "--agent", agent.to_str().unwrap(), "--allowed", ALLOWED_MIB][..], &sizes].concat();
    let output = measure(&command, folder.path());
    println!("{}", text(&output.stdout));
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn a_command_that_takes_more_memory_than_is_allowed_is_a_failure_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let agent = binaries().unwrap().agent;
    let sizes = ["--names", "10000", "--folder", "10", "--file", "1", "--scratch-dir", "."];
    let command = [&["size", "--agent", agent.to_str().unwrap(), "--allowed", "1"][..], &sizes].concat();
    let output = measure(&command, folder.path());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let said = text(&output.stderr);
    let named = said.lines().filter(|line| line.contains("MiB, where 1 MiB are allowed")).count();
    assert!(named >= 7, "{said}");
    assert!(said.contains("full of 10 names in one folder took "), "{said}");
}
