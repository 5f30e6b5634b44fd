//! A backup serves more than the host that made it: another folder, another host that reaches the archive.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use fleet_tests::story::OneHost;
use fleet_tests::tree::awkward;
use fleet_tests::tree::compare::{Tolerance, compare_trees};

#[test]
fn another_host_that_reaches_the_archives_brings_back_a_lost_one() {
    let mut host = OneHost::start().unwrap();
    for left_out in awkward::make(&host.source).unwrap() {
        eprintln!("left out: {left_out}");
    }
    host.back_up().unwrap();
    let second_root = host.beside("second-root");
    fs::create_dir(&second_root).unwrap();
    host.fleet.add_host("spare", &second_root, "role=spare").unwrap();
    // The first host is gone for good; its archives lie in a folder that the spare reaches.
    host.fleet.agent_process("web-1").unwrap().kill().unwrap();

    let arguments = ["restore", "web-1", "--to", "spare", "--to-dir", "/rescued", "--wait"];
    host.coordctl(&arguments).unwrap().success().unwrap();
    let differences = compare_trees(&host.source, &second_root.join("rescued/srv"), Tolerance::default()).unwrap();
    assert_eq!(differences, vec![]);
}

#[test]
fn a_dry_run_says_what_would_happen_and_touches_nothing() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), b"content").unwrap();
    host.back_up().unwrap();
    fs::remove_file(host.source.join("file")).unwrap();
    let plan = host.coordctl(&["restore", "web-1/srv", "--dry-run", "-o", "json"]).unwrap().success().unwrap();
    let plan = plan.json().unwrap();
    assert_eq!(plan["points"].as_array().unwrap().len(), 1, "{plan}");
    assert_eq!(plan["archives"], 1, "{plan}");
    assert!(!host.source.join("file").exists());
}

#[test]
fn a_severe_restore_without_a_confirmation_is_refused_and_changes_nothing() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), b"content").unwrap();
    host.back_up().unwrap();
    fs::write(host.source.join("file"), b"newer").unwrap();
    let refused = host.coordctl(&["restore", "web-1", "--overwrite", "always"]).unwrap();
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("--confirm=web-1"), "{}", refused.stderr);
    assert_eq!(fs::read(host.source.join("file")).unwrap(), b"newer");
}

#[test]
fn names_of_any_byte_are_listed_escaped_and_read_exactly() {
    let host = OneHost::start().unwrap();
    for name in awkward::ODD_NAMES {
        use std::os::unix::ffi::OsStrExt;
        fs::write(host.source.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    host.back_up().unwrap();
    let listed = host.coordctl(&["ls", "web-1/srv"]).unwrap().success().unwrap();
    assert!(!listed.stdout.contains('\x1b'), "a terminal control got through: {}", listed.stdout.escape_debug());
    assert_eq!(listed.stdout.lines().count(), awkward::ODD_NAMES.len(), "{}", listed.stdout.escape_debug());
    let shown = host.coordctl(&["cat", "web-1/srv/new\nline"]).unwrap().success().unwrap();
    assert_eq!(shown.bytes, b"new\nline");
}
