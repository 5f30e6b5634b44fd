//! What a policy leaves out is in no backup, comes back with none, and is told.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::time::Duration;

use fleet_tests::harness::wait::wait_for;
use fleet_tests::story::{OneHost, SRV_POLICY};
use serde_json::json;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(30);

const RULES: &str = r#"exclude = ["*.tmp", "!keep.tmp"]
exclude_caches = true
exclude_if_present = [".nobackup"]
exclude_larger_than = "1KB""#;

/// A tree of which each rule leaves out something.
fn tree(host: &OneHost) {
    let tag = "Signature: 8a477f597d28d172789f06886806bc55";
    for (name, text) in [
        ("a", "a"),
        ("a.tmp", "no"),
        ("keep.tmp", "yes"),
        ("cache/CACHEDIR.TAG", tag),
        ("cache/page", "no"),
        ("scratch/.nobackup", ""),
        ("scratch/work", "no"),
    ] {
        let path = host.source.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::write(host.source.join("large"), vec![0; 1001]).unwrap();
}

fn names_in_the_backup(host: &OneHost) -> Vec<String> {
    let listed = host.coordctl(&["ls", "web-1/srv", "-R", "-o", "json"]).unwrap().success().unwrap().json().unwrap();
    let files = listed["files"].as_array().unwrap();
    files.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_rules_of_a_policy_decide_what_its_backups_hold_and_what_a_restore_may_remove() {
    let host = OneHost::start().unwrap();
    tree(&host);
    host.fleet.apply_policy(&SRV_POLICY.replace("exclude = []", RULES)).unwrap().success().unwrap();
    let run = host.back_up().unwrap();
    let taken = ["a", "cache", "cache/CACHEDIR.TAG", "keep.tmp", "scratch", "scratch/.nobackup"];
    assert_eq!(names_in_the_backup(&host), taken.map(|name| format!("srv/{name}")));

    let id = run["id"].as_str().unwrap();
    let shown = host.coordctl(&["run", "show", id, "-o", "json"]).unwrap().success().unwrap().json().unwrap();
    let wanted = json!([
        { "rule": "pattern", "detail": "*.tmp", "files": 1, "folders": 0, "bytes": 2 },
        { "rule": "if_present", "detail": ".nobackup", "files": 0, "folders": 1, "bytes": 0 },
        { "rule": "cache", "detail": null, "files": 0, "folders": 1, "bytes": 0 },
        { "rule": "larger_than", "detail": "1000", "files": 1, "folders": 0, "bytes": 1001 },
    ]);
    assert_eq!(shown["left_out"], wanted);
    let told = host.coordctl(&["run", "show", id]).unwrap().success().unwrap().stdout;
    assert!(told.contains("1 files (2 B) and 0 folders left out by *.tmp\n"), "{told}");

    fs::write(host.source.join("extra"), "made since").unwrap();
    let restore = ["restore", "web-1", "--delete-extra", "--confirm=web-1", "--wait"];
    host.coordctl(&restore).unwrap().success().unwrap();
    assert!(!host.source.join("extra").exists());
    for name in ["a.tmp", "cache/page", "scratch/work", "large"] {
        assert!(host.source.join(name).exists(), "{name} is in no backup, so it is not extra");
    }

    let run = host.back_up().unwrap();
    let unchanged = host.coordctl(&["run", "show", run["id"].as_str().unwrap(), "-o", "json"]).unwrap();
    assert_eq!(
        unchanged.success().unwrap().json().unwrap()["left_out"],
        wanted,
        "a run that stored nothing counts too"
    );

    let larger = RULES.replace("1KB", "1MB");
    host.fleet.apply_policy(&SRV_POLICY.replace("exclude = []", &larger)).unwrap().success().unwrap();
    let run = host.back_up().unwrap();
    assert_eq!(run["level"], "full", "another selection needs another full: {run}");
    assert!(names_in_the_backup(&host).contains(&"srv/large".to_owned()));
}

#[test]
fn a_preview_says_what_the_next_backup_would_take_and_changes_nothing() {
    let mut host = OneHost::start().unwrap();
    tree(&host);
    let file = host.beside("next.toml");
    let next = SRV_POLICY.replace("exclude = []", RULES);
    fs::write(&file, &next).unwrap();
    let file = file.to_str().unwrap();
    let preview = ["policy", "preview", "-f", file, "--host", "web-1"];
    let found = host.coordctl(&[&preview[..], &["-o", "json"]].concat()).unwrap().success().unwrap().json().unwrap();
    let version = |host: &OneHost| {
        host.coordctl(&["policy", "show", "srv", "-o", "json"]).unwrap().json().unwrap()["version"].clone()
    };
    assert_eq!((&found["selected"], &found["warnings_total"], version(&host)), (&json!(true), &json!(0), json!(1)));
    let totals = json!({ "names": 7, "files": 4, "folders": 3, "others": 0, "bytes": 1 + 3 + 43 });
    assert_eq!(found["totals"], totals);

    let listed = host.coordctl(&[&preview[..], &["--limit", "2"]].concat()).unwrap().success().unwrap();
    assert!(listed.stdout.contains("file     1 B  /srv/a\n"), "{}", listed.stdout);
    assert!(listed.stdout.contains("takes 4 files (47 B), 3 folders, 0 others\n"), "{}", listed.stdout);
    assert!(listed.stdout.contains("1 files (2 B) and 0 folders left out by *.tmp\n"), "{}", listed.stdout);
    assert!(listed.stderr.contains("2 of 7 names are listed"), "{}", listed.stderr);

    host.fleet.apply_policy(&next).unwrap().success().unwrap();
    let run = host.back_up().unwrap();
    let run = host.coordctl(&["run", "show", run["id"].as_str().unwrap(), "-o", "json"]).unwrap().json().unwrap();
    assert_eq!(run["left_out"], found["left_out"]);
    let previewed = found["names"].as_array().unwrap().iter().map(|name| name["path"].as_str().unwrap().to_owned());
    // `ls` does not repeat the folder that it was asked for.
    assert_eq!(previewed.skip(1).collect::<Vec<_>>(), names_in_the_backup(&host));

    host.fleet.agent_process("web-1").unwrap().kill().unwrap();
    let gone = || {
        let answer = host.coordctl(&preview)?;
        if answer.stderr.contains("not connected") { Ok(answer) } else { Err(format!("{answer:?}")) }
    };
    let gone = wait_for("the coordinator to miss the agent", DEADLINE, gone).unwrap();
    assert_eq!(gone.code, 1, "{gone:?}");
    assert!(gone.stderr.contains("hint: ") && gone.stderr.contains("coord-agent run"), "{}", gone.stderr);
}

#[test]
fn a_preview_that_cannot_be_is_refused_with_what_to_do() {
    let host = OneHost::start().unwrap();
    let write = |name: &str, text: &str| {
        let file = host.beside(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let good = write("good.toml", SRV_POLICY);
    let wrong = write("wrong.toml", &SRV_POLICY.replace("exclude = []", "exclude_cache = true"));
    let elsewhere = write("elsewhere.toml", &SRV_POLICY.replace("/srv", "/no-such-folder"));
    for (file, name, code, hint) in [
        (good.as_str(), "web-2", 5, "did you mean web-1?"),
        (wrong.as_str(), "web-1", 2, "did you mean exclude_caches?"),
        (elsewhere.as_str(), "web-1", 1, "take it out of the policy"),
        ("/no/such/file", "web-1", 2, "coordctl policy init"),
    ] {
        let answer = host.coordctl(&["policy", "preview", "-f", file, "--host", name]).unwrap();
        assert_eq!(answer.code, code, "{file} on {name}: {answer:?}");
        assert!(answer.stderr.contains("error: ") && answer.stderr.contains(hint), "{file} on {name}: {answer:?}");
    }
    let many = host.coordctl(&["policy", "preview", "-f", &good, "--host", "web-1", "--limit", "10001"]).unwrap();
    assert_eq!(many.code, 2, "{many:?}");
}
