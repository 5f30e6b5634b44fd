//! Bad input gets a clear error, a documented exit code, and loses nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use fleet_tests::story::{OneHost, SRV_POLICY};

#[test]
fn a_policy_that_cannot_work_is_refused_by_name() {
    let host = OneHost::start().unwrap();
    for (what, from, to, named) in [
        ("an unknown key", "exclude = []", "excludes = []", "excludes"),
        ("a key that is not built yet", "exclude = []", "retention = { days = 30 }", "retention"),
        ("no source", "sources = [\"/srv\"]", "sources = []", "sources"),
        ("a bad cron line", "0 2 1 1 *", "61 2 * * *", "cron"),
        ("an impossible day", "0 2 1 1 *", "0 2 30 2 *", "cron"),
        ("an unknown zone", "zone = \"UTC\"", "zone = \"Europe/Atlantis\"", "zone"),
        ("a bad selector", "role=web", "role in web", "hosts"),
        ("a bad name", "name = \"srv\"", "name = \"Not A Slug\"", "name"),
    ] {
        let answer = host.fleet.apply_policy(&SRV_POLICY.replace(from, to)).unwrap();
        assert_eq!(answer.code, 2, "{what}: {answer:?}");
        assert!(answer.stderr.contains(named), "{what} must name {named}: {}", answer.stderr);
        assert!(answer.stderr.contains("error:"), "{what}: {}", answer.stderr);
    }
    let policies = host.coordctl(&["policy", "list", "-o", "json"]).unwrap().success().unwrap().json().unwrap();
    assert_eq!(policies["policies"].as_array().unwrap().len(), 1, "nothing was applied: {policies}");
    assert_eq!(policies["policies"][0]["version"], 1, "{policies}");
}

#[test]
fn tokens_are_used_once_and_pin_their_authority() {
    let mut host = OneHost::start().unwrap();
    let token = host.fleet.token("role=web").unwrap();
    let join = |host: &OneHost, name: &str, token: &str| {
        let state = host.beside(name);
        fs::create_dir_all(&state).unwrap();
        let file = host.beside(&format!("{name}-token"));
        fs::write(&file, token).unwrap();
        let (state, file) = (state.to_string_lossy().into_owned(), file.to_string_lossy().into_owned());
        let arguments = [
            "join",
            "--endpoint",
            host.fleet.enrol_endpoint(),
            "--name",
            name,
            "--token-file",
            &file,
            "--state",
            &state,
        ];
        host.fleet.agent_tool(&arguments).unwrap()
    };
    assert_eq!(join(&host, "web-2", &token).code, 0);
    let again = join(&host, "web-3", &token);
    assert_eq!(again.code, 4, "a used token: {again:?}");
    assert!(again.stderr.contains("hint:"), "{}", again.stderr);

    let fresh = host.fleet.token("role=web").unwrap();
    let taken = join(&host, "web-1", &fresh);
    assert_ne!(taken.code, 0, "a name that another host has: {taken:?}");
    assert!(taken.stderr.contains("web-1"), "{}", taken.stderr);

    // The last part of a token is the digest of the CA's key: another authority is not spoken to.
    let mut parts: Vec<&str> = fresh.trim().split('.').collect();
    let other = "0".repeat(parts.last().unwrap().len());
    *parts.last_mut().unwrap() = &other;
    let pinned = join(&host, "web-4", &parts.join("."));
    assert_ne!(pinned.code, 0, "{pinned:?}");

    let root = host.root().to_owned();
    host.fleet.add_host("web-5", &root, "role=web").unwrap();
    let hosts = host.coordctl(&["host", "list", "-o", "json"]).unwrap().success().unwrap().json().unwrap();
    let names: Vec<_> =
        hosts["hosts"].as_array().unwrap().iter().map(|h| h["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["web-1", "web-2", "web-5"]);
}

#[test]
fn asking_for_what_is_not_there_says_what_is() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), b"content").unwrap();
    let before = host.coordctl(&["restore", "web-1", "--to-dir", "/out"]).unwrap();
    assert_eq!(before.code, 5, "nothing to restore from yet: {before:?}");
    host.back_up().unwrap();

    for (what, arguments) in [
        ("an unknown host", vec!["restore", "web-9"]),
        ("a path outside every policy", vec!["restore", "web-1/var/lib"]),
        ("a time before the first full", vec!["restore", "web-1", "--at", "2001-01-01"]),
        ("a file that never was", vec!["cat", "web-1/srv/nothing"]),
        ("an unknown run", vec!["run", "show", "ffffffff"]),
        ("an unknown policy", vec!["policy", "show", "nothing"]),
    ] {
        let answer = host.coordctl(&arguments).unwrap();
        assert_eq!(answer.code, 5, "{what}: {answer:?}");
        assert!(answer.stderr.contains("error:"), "{what}: {}", answer.stderr);
    }
    let usage = host.coordctl(&["restore", "web-1", "--at", "the other day"]).unwrap();
    assert_eq!(usage.code, 2, "{usage:?}");
    assert!(!host.root().join("out").exists(), "a refused restore touches nothing");
}

#[test]
fn a_source_that_disappears_fails_the_run_and_deletes_nothing() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), b"content").unwrap();
    host.back_up().unwrap();
    fs::rename(&host.source, host.root().join("moved-away")).unwrap();

    let failed = host.coordctl(&["job", "run", "web-1/srv", "--wait", "-o", "json"]).unwrap();
    assert_eq!(failed.code, 1, "{failed:?}");
    let fault = &failed.json().unwrap()["fault"];
    assert_eq!((&fault["code"], &fault["message"]), (&"source_missing".into(), &"source /srv is missing".into()));
    assert!(fault["hint"].as_str().unwrap().contains("take it out of the policy"), "{fault}");
    let shown = host.coordctl(&["cat", "web-1/srv/file"]).unwrap().success().unwrap();
    assert_eq!(shown.bytes, b"content");

    let (nowhere, output) = (host.beside("nowhere"), host.beside("a.tar.zst"));
    let (nowhere, output) = (nowhere.to_string_lossy().into_owned(), output.to_string_lossy().into_owned());
    let alone = host.fleet.agent_tool(&["archive", "create", "--source", &nowhere, "--output", &output]).unwrap();
    assert_eq!(alone.code, 1, "{alone:?}");
    assert!(alone.stderr.contains("hint:") && alone.stderr.contains(&nowhere), "{}", alone.stderr);
}

#[test]
fn a_damaged_archive_is_found_and_never_restored_from_in_silence() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), vec![7; 300_000]).unwrap();
    host.back_up().unwrap();
    let state = host.fleet.agent("web-1").unwrap().state.clone();
    let archive = fleet_tests::tree::compare::list(&state)
        .unwrap()
        .into_keys()
        .find(|path| path.ends_with(b".tar.zst"))
        .map(|path| state.join(String::from_utf8(path).unwrap()))
        .unwrap();
    let whole = fs::read(&archive).unwrap();
    let third = whole.len() / 3;
    let flipped: Vec<u8> =
        whole.iter().enumerate().map(|(at, byte)| if at / 64 == third / 64 { !byte } else { *byte }).collect();
    let (elsewhere, other) = (host.beside("elsewhere"), host.beside("other.tar.zst"));
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("file"), vec![8; 300_000]).unwrap();
    let (elsewhere, other) = (elsewhere.to_string_lossy().into_owned(), other.to_string_lossy().into_owned());
    let made = host.fleet.agent_tool(&["archive", "create", "--source", &elsewhere, "--output", &other]).unwrap();
    made.success().unwrap();
    for (what, bytes, found) in [
        ("bits flipped", flipped, 10),
        ("cut short", whole[..third].to_vec(), 10),
        ("swapped with another, which is sound", fs::read(&other).unwrap(), 0),
    ] {
        fs::write(&archive, bytes).unwrap();
        let verify = host.fleet.agent_tool(&["archive", "verify", &archive.to_string_lossy()]).unwrap();
        assert_eq!(verify.code, found, "{what}: {verify:?}");
        let restore = host.coordctl(&["restore", "web-1", "--to-dir", "/out", "--wait"]).unwrap();
        assert_eq!(restore.code, 10, "{what}: {restore:?}");
        assert!(
            !host.root().join("out/srv/file").exists(),
            "{what}: nothing comes back that is not what was backed up"
        );
    }
    fs::write(&archive, whole).unwrap();
    host.coordctl(&["restore", "web-1", "--to-dir", "/out", "--wait"]).unwrap().success().unwrap();
}

#[test]
fn a_protected_context_changes_nothing_unasked_and_a_dry_run_nothing_at_all() {
    let host = OneHost::start().unwrap();
    let config = host.fleet.config_home().join("coordctl/config.toml");
    let open = fs::read_to_string(&config).unwrap();
    assert!(open.contains("protected = false"), "{open}");
    let role = |host: &OneHost| {
        let shown = host.coordctl(&["host", "show", "web-1", "-o", "json"]).unwrap().success().unwrap().json().unwrap();
        shown["labels"]["role"].as_str().unwrap().to_owned()
    };
    for arguments in [
        vec!["host", "label", "web-1", "role=db", "--dry-run"],
        vec!["job", "run", "web-1/srv", "--dry-run"],
        vec!["token", "create", "--dry-run"],
    ] {
        let answer = host.coordctl(&arguments).unwrap().success().unwrap();
        assert!(answer.stderr.contains("dry run: nothing was changed"), "{arguments:?}: {answer:?}");
    }
    fs::write(&config, open.replace("protected = false", "protected = true")).unwrap();
    for arguments in
        [vec!["host", "label", "web-1", "role=db"], vec!["job", "run", "web-1/srv"], vec!["token", "create"]]
    {
        let answer = host.coordctl(&arguments).unwrap();
        assert_eq!(answer.code, 2, "{arguments:?}: {answer:?}");
        assert!(answer.stderr.contains("protected") && answer.stderr.contains("--yes"), "{}", answer.stderr);
    }
    assert_eq!(role(&host), "web", "nothing was changed");
    let runs = host.coordctl(&["run", "list", "-o", "json"]).unwrap().success().unwrap().json().unwrap();
    assert!(runs["runs"].as_array().unwrap().is_empty(), "{runs}");

    host.coordctl(&["host", "label", "web-1", "role=db", "--yes"]).unwrap().success().unwrap();
    assert_eq!(role(&host), "db");
}
