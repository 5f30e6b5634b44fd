//! A deleted file stays deleted at every later point, and is there at every earlier one.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::time::Duration;

use fleet_tests::harness::wait::wait_for;
use fleet_tests::story::OneHost;

#[test]
fn added_then_removed_between_differentials_it_does_not_come_back() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("old"), b"from the full").unwrap();
    fs::write(host.source.join("stays"), b"everywhere").unwrap();
    host.back_up().unwrap();

    fs::write(host.source.join("added"), b"between").unwrap();
    host.back_up().unwrap();
    let with_it = jiff::Timestamp::now().to_string();

    fs::remove_file(host.source.join("added")).unwrap();
    fs::remove_file(host.source.join("old")).unwrap();
    host.back_up().unwrap();

    let same_as_before = |host: &OneHost| {
        assert_eq!(host.restored_differs_from(&host.source, None).unwrap(), vec![]);
        let shown = host.coordctl(&["cat", "web-1/srv/added", "--at", &with_it]).unwrap().success().unwrap();
        assert_eq!(shown.bytes, b"between");
        for (at, names) in [("latest", vec!["stays"]), (with_it.as_str(), vec!["added", "old", "stays"])] {
            let arguments = ["ls", "web-1/srv", "--at", at, "-o", "name"];
            let listed = host.coordctl(&arguments).unwrap().success().unwrap().stdout;
            let listed: Vec<&str> = listed.lines().filter_map(|path| path.rsplit('/').next()).collect();
            assert_eq!(listed, names, "{at}");
        }
        let gone = host.coordctl(&["cat", "web-1/srv/added"]).unwrap();
        assert_eq!(gone.code, 5, "{gone:?}");
    };
    same_as_before(&host);

    let before = contents(&host);
    let counted = |key: &str| before["jobs"][0][key].as_u64().unwrap();
    assert_eq!((counted("backups"), counted("searchable"), counted("pending")), (3, 3, 0), "{before}");
    let rebuilt = host.coordctl(&["catalog", "rebuild", "--yes", "web-1", "--timeout", "60s", "-o", "json"]).unwrap();
    let rebuilt = rebuilt.success().unwrap().json().unwrap();
    assert_eq!(rebuilt["jobs"], before["jobs"], "every index was taken in again");
    same_as_before(&host);
}

fn contents(host: &OneHost) -> serde_json::Value {
    host.coordctl(&["catalog", "status", "-o", "json"]).unwrap().success().unwrap().json().unwrap()
}

#[test]
fn an_archive_that_is_away_during_a_rebuild_is_waited_for_and_taken_in_when_it_is_back() {
    let mut host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), b"content").unwrap();
    host.back_up().unwrap();
    let archives = host.fleet.agent("web-1").unwrap().state.join("archives");
    let away = host.beside("unmounted");
    fs::rename(archives.join("web-1"), &away).unwrap();

    let late = host.coordctl(&["catalog", "rebuild", "--yes", "--all", "--timeout", "3s"]).unwrap();
    assert_eq!(late.code, 7, "{late:?}");
    assert!(late.stderr.contains("rebuild continues: coordctl catalog status"), "{}", late.stderr);
    let status = contents(&host);
    let job = &status["jobs"][0];
    assert_eq!((&job["pending"], &job["not_searchable"]), (&1.into(), &0.into()), "{status}");
    assert!(job["why"].as_str().unwrap().contains("web-1 says: the archive cannot be found"), "{status}");

    fs::rename(&away, archives.join("web-1")).unwrap();
    // Begun again, it asks at once instead of at the end of its pause.
    host.coordctl(&["catalog", "rebuild", "--yes", "web-1/srv", "--timeout", "60s"]).unwrap().success().unwrap();
    let shown = host.coordctl(&["cat", "web-1/srv/file"]).unwrap().success().unwrap();
    assert_eq!(shown.bytes, b"content");

    host.fleet.agent_process("web-1").unwrap().stop().unwrap();
    wait_for("the host to be away", Duration::from_secs(30), || {
        let shown = contents(&host)["jobs"][0]["connected"].clone();
        if shown == false { Ok(()) } else { Err(shown.to_string()) }
    })
    .unwrap();
    let alone = host.coordctl(&["catalog", "rebuild", "--yes", "--all"]).unwrap();
    assert_eq!(alone.code, 3, "{alone:?}");
    assert!(alone.stderr.contains("web-1/srv is left out: the host is not connected"), "{}", alone.stderr);
    assert_eq!(contents(&host)["jobs"][0]["searchable"], 1, "its entries stay");
}

#[test]
fn a_restore_with_delete_extra_removes_only_what_the_selection_covers() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("protected"), b"protected").unwrap();
    host.back_up().unwrap();
    fs::write(host.source.join("extra"), b"made later").unwrap();
    fs::write(host.root().join("elsewhere"), b"not of the policy").unwrap();

    let arguments = ["restore", "web-1", "--delete-extra", "--confirm=web-1", "--wait"];
    host.coordctl(&arguments).unwrap().success().unwrap();
    assert!(!host.source.join("extra").exists());
    assert!(host.source.join("protected").exists());
    assert!(host.root().join("elsewhere").exists());
}
