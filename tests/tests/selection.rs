//! What a policy leaves out is in no backup, comes back with none, and is told.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use fleet_tests::story::{OneHost, SRV_POLICY};
use serde_json::json;

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
