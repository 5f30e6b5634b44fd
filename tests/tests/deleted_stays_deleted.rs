//! A deleted file stays deleted at every later point, and is there at every earlier one.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use fleet_tests::story::OneHost;

#[test]
fn added_then_removed_between_differentials_it_does_not_come_back() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("old"), b"from the full").unwrap();
    host.back_up().unwrap();

    fs::write(host.source.join("added"), b"between").unwrap();
    host.back_up().unwrap();
    let with_it = jiff::Timestamp::now().to_string();

    fs::remove_file(host.source.join("added")).unwrap();
    fs::remove_file(host.source.join("old")).unwrap();
    host.back_up().unwrap();

    assert_eq!(host.restored_differs_from(&host.source, None).unwrap(), vec![]);
    let shown = host.coordctl(&["cat", "web-1/srv/added", "--at", &with_it]).unwrap().success().unwrap();
    assert_eq!(shown.bytes, b"between");
    let gone = host.coordctl(&["cat", "web-1/srv/added"]).unwrap();
    assert_eq!(gone.code, 5, "{gone:?}");
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
