//! Places that are not plain: mounted file systems, and trees deeper than a path may be long.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use coord_agent::scan::ScanError;
use coord_agent::scan::tree::Clear;
use coord_archive::entry::{Flags, Kind};
use rustix::fs::{CWD, Mode, OFlags};

use crate::support::{Bench, differences, entry, long_after, paths, state};

/// A file system mounted for one test.
pub struct Mounted(PathBuf);

impl Mounted {
    /// `None` when this user may not mount; the test says what it leaves out.
    pub fn new(kind: &str, at: &Path) -> Option<Self> {
        Self::mount(Command::new("mount").args(["-t", kind, kind]), at)
    }

    /// A folder shown at a second place.
    pub fn bind(folder: &Path, at: &Path) -> Option<Self> {
        Self::mount(Command::new("mount").arg("--bind").arg(folder), at)
    }

    fn mount(command: &mut Command, at: &Path) -> Option<Self> {
        let output = command.arg(at).output().unwrap();
        if !output.status.success() {
            assert!(!rustix::process::geteuid().is_root(), "{}", String::from_utf8_lossy(&output.stderr));
            eprintln!("not root: what is mounted below a source is left out of this test");
            return None;
        }
        Some(Self(at.to_path_buf()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_kernel_file_system_is_left_out_and_its_folder_is_kept() {
    let bench = Bench::new();
    bench.write("a", "a");
    fs::create_dir(bench.at("proc")).unwrap();
    let Some(mounted) = Mounted::new("proc", &bench.at("proc")) else { return };
    let full = bench.full();
    assert_eq!(paths(&full), ["", "a", "proc"]);
    assert_eq!(full.notes.left_out[0].0, b"proc");
    let folder = entry(&full, "proc").unwrap();
    assert!(folder.kind == Kind::Folder && folder.flags.contains(Flags::ANCESTOR));
    assert!(full.archive.header().mounts.iter().all(|mount| mount.path != b"proc"));
    let (found, _) = bench.compare(&full, None);
    assert!(found.equals_full, "{:?}", found.figures);
    drop(mounted);
}

#[test]
fn what_a_kernel_file_system_hides_is_not_taken_for_deleted() {
    let bench = Bench::new();
    bench.write("place/hidden", "hidden");
    let full = bench.full();
    let Some(mounted) = Mounted::new("proc", &bench.at("place")) else { return };
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.stale, found.figures.removed), (1, 0));
    assert!(state(&full, Some(&made)).contains_key(&b"place/hidden"[..]));
    drop(mounted);
}

#[test]
fn other_file_systems_are_entered_and_remembered_and_missed_when_they_are_gone() {
    let mut bench = Bench::new();
    fs::create_dir(bench.at("data")).unwrap();
    let Some(mounted) = Mounted::new("tmpfs", &bench.at("data")) else { return };
    bench.write("data/a", "a");
    let full = bench.full();
    assert_eq!(paths(&full), ["", "data", "data/a"]);
    let mounts = full.archive.header().mounts.clone();
    assert!(mounts.iter().any(|mount| mount.path == b"data" && mount.file_system == "tmpfs"), "{mounts:?}");
    bench.expected_mounts = mounts;
    assert!(bench.compare(&full, None).0.equals_full);
    drop(mounted);
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.stale, found.figures.removed), (1, 0), "not mounted is not deleted");
    assert!(state(&full, Some(&made)).contains_key(&b"data/a"[..]));
}

#[test]
fn a_source_that_was_a_bind_mount_and_is_a_plain_folder_of_the_same_file_system_fails_the_scan() {
    let mut bench = Bench::new();
    bench.write("elsewhere/a", "a");
    bench.write("data/left behind", "x");
    bench.sources = vec![b"/data".to_vec()];
    let Some(mounted) = Mounted::bind(&bench.at("elsewhere"), &bench.at("data")) else { return };
    let full = bench.full();
    assert_eq!(paths(&full), ["", "data", "data/a"]);
    bench.expected_mounts = full.archive.header().mounts.clone();
    assert!(bench.compare(&full, None).0.equals_full);
    drop(mounted);
    let failed = bench.compare_through(&full, None, long_after(), Box::new(Clear)).unwrap_err();
    assert!(matches!(&failed, ScanError::SourceMoved { path, .. } if path == b"data"), "{failed:?}");
    assert!(failed.to_string().contains("elsewhere"), "{failed}");
    assert!(bench.full_through(long_after(), Box::new(Clear)).is_err(), "a full too, until it is asked for");
}

#[test]
fn a_mount_that_only_protects_a_source_comes_and_goes_without_a_word() {
    let mut bench = Bench::new();
    bench.write("data/a", "a");
    bench.sources = vec![b"/data".to_vec()];
    let Some(mounted) = Mounted::bind(&bench.at("data"), &bench.at("data")) else { return };
    let full = bench.full();
    bench.expected_mounts = full.archive.header().mounts.clone();
    drop(mounted);
    assert!(bench.compare(&full, None).0.equals_full);
}

#[test]
fn a_tree_deeper_than_a_path_may_be_long_is_walked_to_its_bottom() {
    const DEPTH: usize = 300;
    let bench = Bench::new();
    let name = "d".repeat(60);
    let open = |at: &OwnedFd, name: &str| {
        rustix::fs::openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    };
    let mut at = rustix::fs::openat(CWD, bench.at(""), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for depth in 0..DEPTH {
        rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = open(&at, &name);
        // Names on both sides of the way down: they are looked at on the way back too.
        for side in ["a", "z"] {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            let file = rustix::fs::openat(&at, side, flags, Mode::RUSR | Mode::WUSR).unwrap();
            rustix::io::write(&file, format!("{side}{depth}").as_bytes()).unwrap();
        }
    }
    let full = bench.full();
    assert_eq!(full.notes.warning_count, 0, "{:?}", full.notes.warnings);
    assert_eq!((full.notes.source_files, full.report.files), (2 * DEPTH as u64, 2 * DEPTH as u64));
    let bottom = [name.as_str(); DEPTH].join("/");
    assert!(entry(&full, &format!("{bottom}/z")).is_some());
    let file = rustix::fs::openat(&at, "z", OFlags::WRONLY, Mode::empty()).unwrap();
    rustix::io::write(&file, b"changed").unwrap();
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.entries), (1, 1));
    let wrong = differences(&state(&full, Some(&made)), &state(&bench.full(), None));
    assert!(wrong.is_empty(), "{}", wrong.len());
}
