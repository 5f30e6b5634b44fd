//! What was backed up comes back bit for bit and attribute for attribute, through the real parts.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsStr;
use std::fs::{File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use fleet_tests::story::{OneHost, keep};
use fleet_tests::tree::compare::{Tolerance, compare_trees};
use fleet_tests::tree::{awkward, mutate};

#[test]
fn awkward_files_come_back_exactly_from_the_full_and_from_the_differential() {
    let host = OneHost::start().unwrap();
    for left_out in awkward::make(&host.source).unwrap() {
        eprintln!("left out: {left_out}");
    }
    let full = host.back_up().unwrap();
    assert_eq!(full["level"], "full", "{full}");
    let before = host.beside("before");
    keep(&host.source, &before).unwrap();
    let between = jiff::Timestamp::now().to_string();

    mutate::change_everything(&host.source).unwrap();
    let differential = host.back_up().unwrap();
    assert_eq!(differential["level"], "differential", "{differential}");

    assert_eq!(host.restored_differs_from(&host.source, None).unwrap(), vec![]);
    assert_eq!(host.restored_differs_from(&before, Some(&between)).unwrap(), vec![]);
}

#[test]
fn an_unchanged_source_leaves_a_restore_point_without_an_archive() {
    let host = OneHost::start().unwrap();
    std::fs::write(host.source.join("file"), b"content").unwrap();
    let full = host.back_up().unwrap();
    let second = host.back_up().unwrap();
    assert_eq!(second["state"], "succeeded", "{second}");
    let backup = host.coordctl(&["backup", "show", second["backup_id"].as_str().unwrap(), "-o", "json"]).unwrap();
    let backup = backup.success().unwrap().json().unwrap();
    assert_eq!(backup["same_as"], full["backup_id"], "{backup}");
    let count = walk(&host.fleet.agent("web-1").unwrap().state);
    assert_eq!(count, 1, "one archive only");
    assert_eq!(host.restored_differs_from(&host.source, None).unwrap(), vec![]);
}

/// How many archives lie below a folder.
fn walk(folder: &std::path::Path) -> usize {
    fleet_tests::tree::compare::list(folder)
        .unwrap()
        .keys()
        .filter(|path| path.ends_with(b".tar.zst") || path.ends_with(b".tar.gz"))
        .count()
}

#[test]
fn one_file_is_read_and_restored_alone() {
    let host = OneHost::start().unwrap();
    std::fs::create_dir(host.source.join("etc")).unwrap();
    std::fs::write(host.source.join("etc/wanted"), b"wanted").unwrap();
    std::fs::write(host.source.join("etc/other"), b"other").unwrap();
    host.back_up().unwrap();
    std::fs::remove_file(host.source.join("etc/wanted")).unwrap();
    std::fs::write(host.source.join("etc/other"), b"changed since").unwrap();

    let shown = host.coordctl(&["cat", "web-1/srv/etc/wanted"]).unwrap().success().unwrap();
    assert_eq!(shown.bytes, b"wanted");
    host.coordctl(&["restore", "web-1/srv/etc/wanted", "--wait"]).unwrap().success().unwrap();
    assert_eq!(std::fs::read(host.source.join("etc/wanted")).unwrap(), b"wanted");
    assert_eq!(std::fs::read(host.source.join("etc/other")).unwrap(), b"changed since");
}

#[test]
fn one_path_alone_brings_the_folders_that_lead_to_it_as_they_were() {
    let host = OneHost::start().unwrap();
    let name = OsStr::from_bytes(b"inner \xff");
    let inner = host.source.join("outer").join(name);
    std::fs::create_dir_all(inner.join("beside")).unwrap();
    for file in ["wanted", "other"] {
        std::fs::write(inner.join(file), file).unwrap();
    }
    std::fs::set_permissions(&inner, Permissions::from_mode(0o2751)).unwrap();
    std::fs::set_permissions(host.source.join("outer"), Permissions::from_mode(0o700)).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789);
    for folder in [inner.clone(), host.source.join("outer"), host.source.clone()] {
        let times = FileTimes::new().set_modified(long_ago).set_accessed(long_ago);
        File::open(folder).unwrap().set_times(times).unwrap();
    }
    host.back_up().unwrap();
    std::fs::create_dir(host.root().join("out")).unwrap();
    let place = [&b"web-1/srv/outer/"[..], name.as_bytes(), b"/wanted"].concat();
    let restored = Command::new(host.fleet.coordctl_path())
        .args(["restore", "--to-dir", "/out", "--quiet"])
        .arg(OsStr::from_bytes(&place))
        .env("XDG_CONFIG_HOME", host.fleet.config_home())
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");

    let differences = compare_trees(&host.source, &host.root().join("out/srv"), Tolerance::default()).unwrap();
    let missing: Vec<&[u8]> =
        differences.iter().filter(|one| one.what == "only_left").map(|one| one.path.as_slice()).collect();
    assert_eq!(missing, [&b"outer/inner \xff/beside"[..], b"outer/inner \xff/other"]);
    assert_eq!(differences.len(), missing.len(), "{differences:?}");
}

#[test]
fn what_is_there_and_different_is_left_and_reported() {
    let host = OneHost::start().unwrap();
    std::fs::write(host.source.join("kept"), b"as backed up").unwrap();
    host.back_up().unwrap();
    std::fs::write(host.source.join("kept"), b"newer work").unwrap();

    let left = host.coordctl(&["restore", "web-1/srv", "--wait"]).unwrap();
    assert_eq!(left.code, 3, "{left:?}");
    assert_eq!(std::fs::read(host.source.join("kept")).unwrap(), b"newer work");
    let arguments = ["restore", "web-1/srv", "--overwrite", "always", "--confirm=web-1", "--wait"];
    host.coordctl(&arguments).unwrap().success().unwrap();
    assert_eq!(std::fs::read(host.source.join("kept")).unwrap(), b"as backed up");
}
