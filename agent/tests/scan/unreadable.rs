//! Absent is not deleted: what could not be read keeps its state, and is named.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use coord_agent::scan::ScanError;
use coord_agent::scan::tree::{Clear, Lens, Stat};
use coord_archive::entry::{Flags, Kind};
use coord_archive::header::Mount;

use crate::support::{Bench, Made, differences, entry, long_after, paths, state};

/// Cannot open one name. Root reads everything, so a test that shall fail for root too looks through this.
struct Closed(&'static [u8]);

impl Lens for Closed {
    fn open(&self, path: &[u8]) -> io::Result<()> {
        if path == self.0 { Err(io::Error::from_raw_os_error(13)) } else { Ok(()) }
    }
}

/// lstat of one name fails.
struct Invisible(&'static [u8]);

impl Lens for Invisible {
    fn stat(&self, path: &[u8], seen: io::Result<Stat>) -> io::Result<Stat> {
        if path == self.0 { Err(io::Error::from_raw_os_error(5)) } else { seen }
    }
}

fn bench_with_folder() -> (Bench, Made) {
    let bench = Bench::new();
    bench.write("folder/a", "a");
    bench.write("folder/deep/b", "b");
    bench.write("z", "z");
    let full = bench.full();
    (bench, full)
}

#[test]
fn a_folder_that_cannot_be_listed_keeps_its_base_state_and_is_stale() {
    let (bench, full) = bench_with_folder();
    fs::remove_file(bench.at("folder/a")).unwrap();
    bench.write("z", "changed");
    let (found, made) = bench.differential_through(&full, None, long_after(), Box::new(Closed(b"folder")));
    assert_eq!((found.figures.stale, found.figures.removed, found.figures.changed_files), (1, 0, 1));
    assert_eq!(paths(&made), ["folder", "z"]);
    let now = state(&full, Some(&made));
    assert!(now.contains_key(&b"folder/a"[..]) && now.contains_key(&b"folder/deep/b"[..]));
    assert_eq!(now[&b"folder"[..]].flags, ["stale"]);
    assert_eq!(made.notes.warning_count, 1);

    let (found, _) = bench.compare_through(&full, Some(&made), long_after(), Box::new(Closed(b"folder"))).unwrap();
    assert!(found.equals_newest, "stale again is the same state");
    let (found, _) = bench.compare(&full, Some(&made));
    assert!(!found.equals_newest, "readable again is another state");
    assert_eq!(found.figures.removed, 1, "now it is known to be gone");
}

#[test]
fn a_name_that_lstat_fails_on_keeps_its_base_state() {
    let (bench, full) = bench_with_folder();
    for (name, below) in [(&b"folder"[..], &b"folder/deep/b"[..]), (b"z", b"z")] {
        let lens = Box::new(Invisible(if name == b"z" { b"z" } else { b"folder" }));
        let (found, made) = bench.differential_through(&full, None, long_after(), lens);
        assert_eq!((found.figures.stale, found.figures.removed), (1, 0));
        assert!(state(&full, Some(&made)).contains_key(below));
    }
}

#[test]
fn a_changed_file_that_cannot_be_opened_keeps_its_base_state() {
    let (bench, full) = bench_with_folder();
    for content in ["changed in size", "Z"] {
        bench.write("z", content);
        let (found, made) = bench.differential_through(&full, None, long_after(), Box::new(Closed(b"z")));
        assert_eq!((found.figures.stale, found.figures.changed_files), (1, 0));
        let now = state(&full, Some(&made));
        assert_eq!(now[&b"z"[..]].content, state(&full, None)[&b"z"[..]].content);
    }
}

#[test]
fn what_was_never_read_is_unread_in_a_full_and_changed_in_the_next_differential() {
    let bench = Bench::new();
    bench.write("folder/a", "a");
    bench.write("z", "z");
    let full = bench.full_through(long_after(), Box::new(Closed(b"folder"))).unwrap();
    let folder = entry(&full, "folder").unwrap();
    assert!(folder.flags.contains(Flags::UNREAD) && folder.kind == Kind::Folder);
    assert_eq!(full.notes.warning_count, 1);
    let (found, made) = bench.differential(&full, None);
    assert!(!found.equals_full);
    let found = differences(&state(&full, Some(&made)), &state(&bench.full(), None));
    assert!(found.is_empty(), "{}", found.join("\n"));

    let full = bench.full_through(long_after(), Box::new(Closed(b"z"))).unwrap();
    assert!(entry(&full, "z").unwrap().flags.contains(Flags::UNREAD));
    assert_eq!(full.report.warning_count, 1);
    let (_, made) = bench.differential(&full, None);
    let found = differences(&state(&full, Some(&made)), &state(&bench.full(), None));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_new_folder_that_cannot_be_listed_is_unread() {
    let (bench, full) = bench_with_folder();
    bench.write("new/x", "x");
    let (found, made) = bench.differential_through(&full, None, long_after(), Box::new(Closed(b"new")));
    assert_eq!((found.figures.unread, found.figures.stale), (1, 0));
    assert!(entry(&made, "new").unwrap().flags.contains(Flags::UNREAD));
    let (found, _) = bench.compare_through(&full, Some(&made), long_after(), Box::new(Closed(b"new"))).unwrap();
    assert!(found.equals_newest);
    let (found, _) = bench.compare(&full, Some(&made));
    assert!(!found.equals_newest);
}

#[test]
fn a_missing_source_fails_the_scan_and_deletes_nothing() {
    let mut bench = Bench::new();
    bench.sources = vec![b"/srv/data".to_vec()];
    bench.write("srv/data/a", "a");
    let full = bench.full();
    fs::rename(bench.at("srv/data"), bench.at("srv/away")).unwrap();
    let failed = bench.compare_through(&full, None, long_after(), Box::new(Clear)).unwrap_err();
    assert!(matches!(&failed, ScanError::SourceMissing { path } if path == b"srv/data"), "{failed:?}");
    let failed = bench.full_through(long_after(), Box::new(Clear)).err().unwrap();
    assert!(matches!(failed, ScanError::SourceMissing { .. }));
    fs::remove_dir_all(bench.at("srv")).unwrap();
    let failed = bench.compare_through(&full, None, long_after(), Box::new(Clear)).unwrap_err();
    assert!(matches!(failed, ScanError::SourceMissing { .. }));
}

#[test]
fn a_source_on_another_file_system_than_before_fails_the_scan() {
    let mut bench = Bench::new();
    bench.sources = vec![b"/data".to_vec()];
    bench.write("data/a", "a");
    let full = bench.full();
    assert_eq!(full.archive.header().mounts[0].path, b"data");
    bench.expected_mounts = full.archive.header().mounts.clone();
    assert!(bench.compare_through(&full, None, long_after(), Box::new(Clear)).unwrap().0.equals_full);
    bench.expected_mounts[0].identity = "4dfe-another".to_owned();
    let failed = bench.compare_through(&full, None, long_after(), Box::new(Clear)).unwrap_err();
    assert!(matches!(&failed, ScanError::SourceMoved { path, .. } if path == b"data"), "{failed:?}");
    assert!(bench.full_through(long_after(), Box::new(Clear)).is_err(), "a full too, until it is asked for");
}

#[test]
fn a_source_that_cannot_be_listed_at_all_fails_the_scan() {
    let (bench, full) = bench_with_folder();
    let failed = bench.compare_through(&full, None, long_after(), Box::new(Closed(b""))).unwrap_err();
    assert!(matches!(failed, ScanError::SourceUnreadable { .. }), "{failed:?}");
}

#[test]
fn a_mount_point_that_is_a_plain_folder_now_keeps_what_was_mounted_there() {
    let (mut bench, full) = bench_with_folder();
    let mount = |path: &[u8]| Mount {
        path: path.to_vec(),
        file_system: "ext4".to_owned(),
        identity: "x".to_owned(),
        mount_point: Vec::new(),
        place: Vec::new(),
    };
    bench.expected_mounts = vec![mount(b"folder")];
    fs::remove_dir_all(bench.at("folder")).unwrap();
    fs::create_dir(bench.at("folder")).unwrap();
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.stale, found.figures.removed), (1, 0));
    assert!(state(&full, Some(&made)).contains_key(&b"folder/deep/b"[..]));
    assert!(made.archive.header().mounts.contains(&mount(b"folder")), "it stays expected");

    let full = bench.full();
    assert!(entry(&full, "folder").unwrap().flags.contains(Flags::UNREAD), "a full has no state to keep");
    assert!(!full.archive.header().mounts.contains(&mount(b"folder")), "from now on it is a plain folder");
}

#[test]
fn unread_again_is_the_same_state() {
    let (bench, full) = bench_with_folder();
    bench.write("new", "new");
    let (_, made) = bench.differential_through(&full, None, long_after(), Box::new(Closed(b"new")));
    assert!(entry(&made, "new").unwrap().flags.contains(Flags::UNREAD));
    let (found, _) = bench.compare_through(&full, Some(&made), long_after(), Box::new(Closed(b"new"))).unwrap();
    assert!(found.equals_newest, "{:?}", found.figures);
    let (found, _) = bench.compare(&full, Some(&made));
    assert!(!found.equals_newest);
}

#[test]
fn a_symbolic_link_is_never_followed_out_of_the_tree() {
    let bench = Bench::new();
    symlink("/etc", bench.at("link")).unwrap();
    bench.write("real/a", "a");
    let full = bench.full();
    assert_eq!(paths(&full), ["", "link", "real", "real/a"]);
    let mut bench = bench;
    bench.sources = vec![b"/link/ssl".to_vec()];
    assert!(bench.full_through(long_after(), Box::new(Clear)).is_err(), "no way to a source leads over a link");
    bench.sources = vec![b"/link".to_vec()];
    let full = bench.full();
    assert_eq!(entry(&full, "link").unwrap().kind, Kind::Symlink);
}

#[test]
fn names_that_vanish_while_they_are_looked_at_do_not_disturb_their_neighbours() {
    struct Vanishing;
    impl Lens for Vanishing {
        fn stat(&self, path: &[u8], seen: io::Result<Stat>) -> io::Result<Stat> {
            if path == b"folder/a" { Err(io::Error::from_raw_os_error(2)) } else { seen }
        }
    }
    let (bench, full) = bench_with_folder();
    let (found, notes) = bench.compare_through(&full, None, long_after(), Box::new(Vanishing)).unwrap();
    assert_eq!((found.figures.removed, notes.vanished), (1, 1));
    assert_eq!(found.figures.source_files, 2);
}
