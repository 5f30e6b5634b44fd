//! Every way for coordctl to end that a script can rely on, where no other story has it. `coordctl help exit-codes` lists them all.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use fleet_tests::story::OneHost;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The last object on standard error, which has nothing but objects.
fn told(stderr: &str) -> Value {
    let line = stderr.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

#[test]
fn a_wrong_command_line_is_2_and_one_object_where_json_is_asked_for() {
    let host = OneHost::start().unwrap();
    for arguments in [
        vec!["-o", "json", "backups", "list"],
        vec!["--output=jsonl", "job", "run"],
        vec!["restore", "web-1", "--overwrite", "perhaps", "-ojson"],
        vec!["status", "--nonsense", "-o=json"],
    ] {
        let answer = host.coordctl(&arguments).unwrap();
        assert_eq!((answer.code, answer.stdout.as_str()), (2, ""), "{arguments:?}: {answer:?}");
        assert_eq!(answer.stderr.lines().count(), 1, "{arguments:?}: {answer:?}");
        let told = told(&answer.stderr);
        assert_eq!((&told["exit"], &told["code"]), (&2.into(), &"invalid_argument".into()), "{told}");
        assert!(!told["message"].as_str().unwrap().starts_with("error:"), "{told}");
        assert!(!told["hint"].as_str().unwrap().is_empty(), "{told}");
    }
    let plain = host.coordctl(&["status", "--nonsense"]).unwrap();
    assert_eq!(plain.code, 2);
    assert!(plain.stderr.contains("error: unexpected argument '--nonsense'"), "{}", plain.stderr);
    let help = host.coordctl(&["job", "run", "--help", "-o", "json"]).unwrap().success().unwrap();
    assert!(help.stdout.contains("Usage: coordctl job run"), "help is no error: {help:?}");
}

#[test]
fn a_check_that_says_no_is_6_until_all_is_well() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), b"content").unwrap();
    let check = |arguments: &[&str]| host.coordctl(arguments).unwrap().code;
    assert_eq!(check(&["status", "--check"]), 6, "nothing was backed up yet");
    host.back_up().unwrap();
    assert_eq!(check(&["status", "--check"]), 0);
}

#[test]
fn waiting_that_ends_before_the_run_is_7_or_130_and_the_run_goes_on() {
    let mut host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), b"content").unwrap();
    host.fleet.agent_process("web-1").unwrap().stop().unwrap();
    let late = host.coordctl(&["job", "run", "web-1/srv", "--timeout", "1s"]).unwrap();
    assert_eq!(late.code, 7, "{late:?}");
    let runs = host.coordctl(&["run", "list", "-o", "json"]).unwrap().success().unwrap().json().unwrap();
    let run = runs["runs"][0]["id"].as_str().unwrap().to_owned();
    let continues = format!("run continues: coordctl run watch {}", &run[..8]);
    assert!(late.stderr.contains(&continues), "{}", late.stderr);

    let mut waiting = Command::new(host.fleet.coordctl_path())
        .args(["run", "watch", &run])
        .env("XDG_CONFIG_HOME", host.fleet.config_home())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says which run it waits for, then waits.
    let mut stderr = waiting.stderr.take().unwrap();
    let mut said = String::new();
    let mut byte = [0];
    while !said.contains("queued") {
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "ended early: {said}");
        said.push(char::from(byte[0]));
    }
    kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains(&continues), "{said}");

    host.fleet.start_agent("web-1").unwrap();
    host.coordctl(&["run", "watch", &run, "--timeout", "120s"]).unwrap().success().unwrap();
}

#[test]
fn a_coordinator_that_cannot_be_reached_is_8_for_operators_and_for_hosts() {
    let mut host = OneHost::start().unwrap();
    let token = host.fleet.token("role=web").unwrap();
    host.fleet.coordinator_process().unwrap().stop().unwrap();
    let away = host.coordctl(&["status", "-o", "json"]).unwrap();
    assert_eq!(away.code, 8, "{away:?}");
    let told = told(&away.stderr);
    assert_eq!(told["exit"], 8, "{told}");
    assert!(!told["hint"].as_str().unwrap().is_empty(), "{told}");

    let (state, file) = (host.beside("late"), host.beside("token"));
    fs::create_dir(&state).unwrap();
    fs::write(&file, token).unwrap();
    let (state, file) = (state.to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
    let endpoint = host.fleet.enrol_endpoint();
    let arguments = ["join", "--endpoint", endpoint, "--name", "web-2", "--token-file", &file, "--state", &state];
    let join = host.fleet.agent_tool(&arguments).unwrap();
    assert_eq!(join.code, 8, "{join:?}");
    assert!(join.stderr.contains("hint:"), "{}", join.stderr);
}

#[test]
fn a_restore_before_a_run_brings_back_what_was_there_when_it_began() {
    let host = OneHost::start().unwrap();
    let file = host.source.join("file");
    fs::write(&file, b"before").unwrap();
    host.back_up().unwrap();
    fs::write(&file, b"spoilt").unwrap();
    let spoilt = host.back_up().unwrap()["id"].as_str().unwrap().to_owned();

    let before = format!("before {}", &spoilt[..8]);
    let arguments =
        ["restore", "web-1/srv/file", "--at", &before, "--overwrite", "always", "--confirm=web-1", "-o", "json"];
    host.coordctl(&arguments).unwrap().success().unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"before");
    let shown = host.coordctl(&["cat", "web-1/srv/file"]).unwrap().success().unwrap();
    assert_eq!(shown.bytes, b"spoilt", "the latest backup is what it was");
    let first = host.coordctl(&["run", "list", "--kind", "backup", "-o", "json"]).unwrap().success().unwrap();
    let first = first.json().unwrap()["runs"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let none = host.coordctl(&["restore", "web-1", "--at", &format!("before {first}"), "--to-dir", "/out"]).unwrap();
    assert_eq!(none.code, 5, "{none:?}");
    assert!(!host.root().join("out").exists());
}
