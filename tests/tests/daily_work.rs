//! A day's work at the command line: runs that are followed, contexts, and what a shell completes.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::Command;

use fleet_tests::story::OneHost;
use serde_json::Value;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn a_run_is_followed_to_its_end_with_the_exit_code_of_its_result() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), vec![7; 3_000_000]).unwrap();
    let detached = host.coordctl(&["job", "run", "web-1/srv", "--detach"]).unwrap().success().unwrap();
    let run = detached.stdout.trim().to_owned();
    assert!(detached.stderr.contains("coordctl run watch"), "{}", detached.stderr);

    let events = lines(&host.coordctl(&["run", "watch", &run, "-o", "jsonl"]).unwrap().success().unwrap().stdout);
    let (last, before) = events.split_last().unwrap();
    assert_eq!((&last["event"], &last["document"]["state"]), (&"result".into(), &"succeeded".into()), "{last}");
    assert!(before.iter().all(|event| event["event"] == "progress" && event["document"]["id"] == run), "{before:?}");

    let ended = host.coordctl(&["run", "watch", &run[..8], "--fields", "state", "-o", "jsonl"]).unwrap();
    assert_eq!(ended.success().unwrap().stdout, "{\"document\":{\"state\":\"succeeded\"},\"event\":\"result\"}\n");

    fs::remove_dir_all(&host.source).unwrap();
    let failing = host.coordctl(&["job", "run", "web-1/srv", "--detach"]).unwrap().success().unwrap();
    let failed = host.coordctl(&["run", "watch", failing.stdout.trim()]).unwrap();
    assert_eq!(failed.code, 1, "the source is gone: {failed:?}");
    assert!(failed.stderr.contains("backup ") && failed.stderr.contains("error:"), "{}", failed.stderr);
    assert_eq!(host.coordctl(&["run", "watch", "ffffffff"]).unwrap().code, 5);
}

#[test]
fn contexts_are_added_chosen_and_explained_and_a_logout_leaves_no_key() {
    let host = OneHost::start().unwrap();
    let json = |arguments: &[&str]| host.coordctl(arguments).unwrap().success().unwrap().json().unwrap();
    let me = json(&["whoami", "-o", "json"]);
    assert_eq!((&me["role"], &me["fleet"]), (&"admin".into(), &"demo".into()), "{me}");
    let current = me["context"].as_str().unwrap().to_owned();

    let shown = json(&["context", "show", "-o", "json"]);
    let setting = |shown: &Value, name: &str, field: &str| {
        let found = shown["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name).unwrap();
        found[field].as_str().unwrap().to_owned()
    };
    assert_eq!(setting(&shown, "endpoints", "from"), format!("context {current}"));
    assert_eq!(setting(&shown, "output", "from"), "--output");
    let flag = json(&["context", "show", "-o", "json", "--endpoint", "elsewhere:1"]);
    assert_eq!(
        (setting(&flag, "endpoints", "value"), setting(&flag, "endpoints", "from")),
        ("elsewhere:1".into(), "--endpoint".into())
    );

    let (endpoint, files) = (setting(&shown, "endpoints", "value"), ["authority", "certificate", "key"]);
    let [ca, certificate, key] = files.map(|file| setting(&shown, file, "value"));
    let add = ["context", "add", "lab", &endpoint, "--ca", &ca, "--certificate", &certificate, "--key", &key];
    host.coordctl(&add).unwrap().success().unwrap();
    assert_eq!(host.coordctl(&add).unwrap().code, 1, "the name is taken");
    let crossed = ["context", "add", "bad", &endpoint, "--ca", &key, "--certificate", &certificate, "--key", &key];
    assert_eq!(host.coordctl(&crossed).unwrap().code, 2, "a key is no authority");
    assert_eq!(json(&["whoami", "-o", "json"])["context"], current.as_str(), "adding chooses nothing");
    host.coordctl(&["context", "use", "lab"]).unwrap().success().unwrap();
    assert_eq!(json(&["whoami", "-o", "json"])["context"], "lab");
    assert_eq!(host.coordctl(&["context", "use", "nowhere"]).unwrap().code, 2);

    for unsaid in [&["logout"][..], &["logout", "--dry-run"], &["context", "use", &current, "-n"]] {
        assert_eq!(host.coordctl(unsaid).unwrap().code == 0, unsaid.len() > 1, "{unsaid:?}");
    }
    assert_eq!(json(&["whoami", "-o", "json"])["context"], "lab", "only said");
    let would = host.coordctl(&[&add[..2], &["more"], &add[3..], &["-n"]].concat()).unwrap().success().unwrap();
    assert!(would.stdout.contains("add context more"), "{}", would.stdout);
    host.coordctl(&["logout", "--yes"]).unwrap().success().unwrap();
    let out = host.coordctl(&["status"]).unwrap();
    assert_eq!(out.code, 4, "{out:?}");
    assert!(out.stderr.contains("lab is logged out"), "{}", out.stderr);
    assert_eq!(json(&["whoami", "--context", &current, "-o", "json"])["context"], current.as_str());
    assert_eq!(host.coordctl(&["context", "remove", "lab"]).unwrap().code, 2, "nobody said yes");
    host.coordctl(&["context", "remove", "lab", "--yes"]).unwrap().success().unwrap();
    let left = json(&["context", "list", "-o", "json"]);
    let names: Vec<&str> =
        left["contexts"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, [current.as_str()], "{left}");
    let kept = fs::read_dir(host.fleet.config_home().join("coordctl")).unwrap();
    assert!(!kept.flatten().any(|file| file.file_name().to_string_lossy().starts_with("lab")), "its files are gone");
}

#[test]
fn a_shell_is_offered_hosts_and_paths_as_they_were_at_a_time() {
    let host = OneHost::start().unwrap();
    fs::create_dir(host.source.join("conf")).unwrap();
    fs::write(host.source.join("conf/early"), b"1").unwrap();
    let first = host.back_up().unwrap();
    fs::remove_file(host.source.join("conf/early")).unwrap();
    fs::write(host.source.join("conf/late"), b"2").unwrap();
    host.back_up().unwrap();
    host.coordctl(&["ls", "web-1/srv"]).unwrap().success().unwrap();

    let offered = |words: &[&str]| -> Vec<String> {
        let mut shell = Command::new(host.fleet.coordctl_path());
        shell.env("XDG_CONFIG_HOME", host.fleet.config_home()).env("COORDCTL_COMPLETE", "bash");
        shell.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", (words.len()).to_string());
        shell.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "false");
        let output = shell.arg("--").arg("coordctl").args(words).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    assert_eq!(offered(&["host", "show", "we"]), ["web-1"]);
    assert_eq!(offered(&["ls", "we"]), ["web-1/"]);
    assert_eq!(offered(&["ls", "web-1/s"]), ["web-1/srv/"]);
    assert_eq!(offered(&["cat", "web-1/srv/conf/"]), ["web-1/srv/conf/late"]);
    let at = format!("before {}", host.back_up().unwrap()["id"].as_str().unwrap());
    assert_eq!(offered(&["ls", "--at", &at, "web-1/srv/conf/"]), ["web-1/srv/conf/late"]);
    let captured = host.coordctl(&["run", "show", first["id"].as_str().unwrap(), "-o", "json", "--fields", "ended_at"]);
    let at = captured.unwrap().json().unwrap()["ended_at"].as_str().unwrap().to_owned();
    assert_eq!(offered(&["ls", "--at", &at, "web-1/srv/conf/"]), ["web-1/srv/conf/early"]);
    assert_eq!(offered(&["job", "run", ""]).first().map(String::as_str), Some("web-1/srv"));
    assert_eq!(offered(&["ls", "--endpoint", "127.0.0.1:1", "web-1/"]), Vec::<String>::new(), "no error on the line");
    assert!(offered(&["context", "use", "web-1"]).is_empty(), "a host is no context");
}

#[test]
fn the_past_is_compared_told_and_brought_back_by_a_plan() {
    let host = OneHost::start().unwrap();
    fs::create_dir(host.source.join("conf")).unwrap();
    fs::write(host.source.join("conf/app"), b"one").unwrap();
    fs::write(host.source.join("conf/old"), b"old").unwrap();
    let first = host.back_up().unwrap();
    let early = first["ended_at"].as_str().unwrap().to_owned();
    fs::write(host.source.join("conf/app"), b"two, longer").unwrap();
    fs::remove_file(host.source.join("conf/old")).unwrap();
    let second = host.back_up().unwrap();
    host.coordctl(&["ls", "web-1/srv"]).unwrap().success().unwrap();

    let diff = host.coordctl(&["diff", "web-1/srv", "--from", &early]).unwrap().success().unwrap();
    assert_eq!(diff.stdout, "~ srv/conf/app  (content, mtime)\n- srv/conf/old\n");
    assert!(diff.stderr.contains("0 added (0 B), 1 removed (3 B), 1 changed"), "{}", diff.stderr);
    assert_eq!(host.coordctl(&["diff", "web-1", "--from", &early, "--exit-code", "--stat"]).unwrap().code, 6);
    let same = host.coordctl(&["diff", "web-1", "--from", "latest", "--exit-code"]).unwrap().success().unwrap();
    assert_eq!(same.stdout, "");
    let rows = lines(&host.coordctl(&["diff", "web-1", "--from", &early, "-o", "jsonl"]).unwrap().stdout);
    assert_eq!((rows.len(), &rows[1]["path"], &rows[1]["after"]), (2, &"srv/conf/old".into(), &Value::Null));

    let history = host.coordctl(&["history", "web-1/srv/conf/app", "-o", "json"]).unwrap().success().unwrap();
    let versions = history.json().unwrap()["versions"].as_array().unwrap().clone();
    let ends: Vec<&str> = versions.iter().map(|version| version["end"].as_str().unwrap()).collect();
    assert_eq!(ends, ["current", "changed"], "{versions:?}");
    assert_eq!(versions[1]["last_backup_id"], first["backup_id"]);
    assert_eq!(host.coordctl(&["history", "web-1/srv/never"]).unwrap().code, 5);

    let logs = host.coordctl(&["run", "logs", second["id"].as_str().unwrap(), "-f"]).unwrap().success().unwrap();
    for step in ["queued: asked for by", "leased", "decided: ", "succeeded"] {
        assert!(logs.stdout.contains(step), "{step}: {}", logs.stdout);
    }

    let restore = ["restore", "web-1/srv/conf/old", "--to-dir", "/out", "-o", "json"];
    let at = format!("before {}", second["id"].as_str().unwrap());
    let plan = host.coordctl(&[&restore[..], &["--at", &at, "--plan"]].concat()).unwrap().success().unwrap();
    let digest = plan.json().unwrap()["digest"].as_str().unwrap().to_owned();
    assert!(!host.root().join("out").exists(), "a plan touches nothing");
    let other = host.coordctl(&["restore", "web-1/srv/conf", "--to-dir", "/out", "--apply", &digest]).unwrap();
    assert_eq!(other.code, 9, "another restore is not what the plan says: {other:?}");
    host.coordctl(&[&restore[..], &["--at", &at, "--apply", &digest]].concat()).unwrap().success().unwrap();
    assert_eq!(fs::read(host.root().join("out/srv/conf/old")).unwrap(), b"old");
}
