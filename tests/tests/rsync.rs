//! An outside judge: after a restore `rsync -naHAX --checksum --delete --itemize-changes` has nothing to say.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use fleet_tests::harness::build::binaries;
use fleet_tests::tree::{awkward, mutate};

/// What rsync would change in `restored` to make it equal to `source`.
fn rsync(source: &Path, restored: &Path) -> String {
    let output = Command::new("rsync")
        .args(["-naHAX", "--checksum", "--delete", "--itemize-changes"])
        .arg(format!("{}/", source.display()))
        .arg(format!("{}/", restored.display()))
        .output()
        .unwrap_or_else(|error| panic!("rsync: {error}; install the Debian package rsync"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the engine alone.
fn archive(arguments: &[&Path]) {
    let output = Command::new(binaries().unwrap().agent).arg("archive").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_system_folder_comes_back_as_rsync_sees_it() {
    if !awkward::is_root() {
        eprintln!("left out: only root reads all of /etc and restores its owners");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (file, target) = (scratch.path().join("etc.tar.zst"), scratch.path().join("restored"));
    let source = Path::new("/etc");
    archive(&[Path::new("create"), Path::new("--source"), source, Path::new("--output"), &file]);
    archive(&[Path::new("extract"), &file, Path::new("--target"), &target]);
    assert_eq!(rsync(source, &target), "");
}

#[test]
fn awkward_files_come_back_as_rsync_sees_them_after_a_differential() {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for left_out in awkward::make(&source).unwrap() {
        eprintln!("left out: {left_out}");
    }
    let (full, differential) = (scratch.path().join("full.tar.gz"), scratch.path().join("differential.tar.gz"));
    let [create, diff, extract] = ["create", "diff", "extract"].map(Path::new);
    let [from, to, base, target, codec, gzip] =
        ["--source", "--output", "--base", "--target", "--codec", "gzip"].map(Path::new);
    archive(&[create, from, &source, to, &full, codec, gzip]);
    mutate::change_everything(&source).unwrap();
    archive(&[diff, base, &full, from, &source, to, &differential, codec, gzip]);
    let restored = scratch.path().join("restored");
    archive(&[extract, &full, &differential, target, &restored]);
    assert_eq!(rsync(&source, &restored), "");
}
