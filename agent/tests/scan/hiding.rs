//! Changes that hide behind equal times, equal names or another file system.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use coord_agent::scan::tree::{Lens, Stat};
use coord_archive::entry::{FileTime, Flags};
use jiff::{SignedDuration, Timestamp};

use crate::edits::{assert_is_the_tree, set_mtime};
use crate::places::Mounted;
use crate::support::{Bench, differences, entry, long_after, paths, state};

/// Shows one file with the change time that the host's clock gave it, whatever the clock of this machine says.
struct ClockSaid(FileTime);

impl Lens for ClockSaid {
    fn stat(&self, path: &[u8], seen: std::io::Result<Stat>) -> std::io::Result<Stat> {
        seen.map(|mut stat| {
            if path == b"a" {
                (stat.mtime, stat.ctime) = (self.0, self.0);
            }
            stat
        })
    }
}

fn time_of(at: Timestamp) -> FileTime {
    FileTime { seconds: at.as_second(), nanos: 0 }
}

/// The clock ran an hour ahead when the file was written, and was set back before the full. When the hour has passed
/// again, an edit can bear the very time that the full recorded.
#[test]
fn an_edit_that_bears_a_time_the_clock_had_before_it_was_set_back_is_found() {
    let bench = Bench::new();
    bench.write("a", "before");
    let full_at = Timestamp::now();
    let ahead = time_of(full_at + SignedDuration::from_hours(1));
    let full = bench.full_through(full_at, Box::new(ClockSaid(ahead))).unwrap();
    assert!(entry(&full, "a").unwrap().flags.contains(Flags::RACY), "a time to come is never trusted");
    File::options().write(true).open(bench.at("a")).unwrap().write_all(b"after!").unwrap();
    let later = full_at + SignedDuration::from_hours(2);
    let (found, made) = bench.differential_through(&full, None, later, Box::new(ClockSaid(ahead)));
    assert_eq!(found.figures.changed_files, 1);
    assert_eq!(state(&full, Some(&made))[&b"a"[..]].content, state(&bench.full(), None)[&b"a"[..]].content);
}

/// An edit after the clock was set back looks older than the full, and than the file it replaces.
#[test]
fn an_edit_that_looks_older_than_the_full_is_found() {
    let bench = Bench::new();
    bench.write("a", "before");
    let full = bench.full();
    assert!(!entry(&full, "a").unwrap().flags.contains(Flags::RACY));
    File::options().write(true).open(bench.at("a")).unwrap().write_all(b"after!").unwrap();
    let older = time_of(Timestamp::now() - SignedDuration::from_hours(48));
    let (found, _) = bench.differential_through(&full, None, long_after(), Box::new(ClockSaid(older)));
    assert_eq!(found.figures.changed_files, 1);
}

#[test]
fn a_file_replaced_by_another_of_the_same_size_and_mtime_is_found() {
    let bench = Bench::new();
    bench.write("a", "before");
    let folder = fs::metadata(bench.at("")).unwrap();
    let mtime = fs::metadata(bench.at("a")).unwrap();
    let full = bench.full();
    bench.write("a.new", "after!");
    set_mtime(&bench.at("a.new"), mtime.mtime(), mtime.mtime_nsec());
    fs::rename(bench.at("a.new"), bench.at("a")).unwrap();
    set_mtime(&bench.at(""), folder.mtime(), folder.mtime_nsec());
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, paths(&made)), (1, vec!["a".to_owned()]));
    assert_is_the_tree(&bench, &full, &made);
}

/// Two files exchanged: each name has the size, mode and mtime it had.
#[test]
fn two_files_that_trade_places_are_both_found() {
    let bench = Bench::new();
    bench.write("a", "one of 6");
    bench.write("b", "two of 6");
    for name in ["a", "b"] {
        set_mtime(&bench.at(name), 1_700_000_000, 1);
    }
    let full = bench.full();
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        bench.at("a"),
        rustix::fs::CWD,
        bench.at("b"),
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
    let (found, made) = bench.differential(&full, None);
    assert_eq!(found.figures.changed_files, 2);
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn a_folder_moved_in_with_times_older_than_the_full_is_found() {
    let bench = Bench::new();
    bench.write("place/keep", "keep");
    let outside = bench.scratch().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("deep/file"), "moved in").unwrap();
    for path in ["deep/file", "deep", ""] {
        set_mtime(&outside.join(path), 1_000_000_000, 0);
    }
    let folder = fs::metadata(bench.at("place")).unwrap();
    let full = bench.full();
    fs::rename(&outside, bench.at("place/moved")).unwrap();
    // Not even the folder it was moved into shows it.
    set_mtime(&bench.at("place"), folder.mtime(), folder.mtime_nsec());
    let (found, made) = bench.differential(&full, None);
    assert_eq!(found.figures.changed_files, 1);
    assert!(state(&full, Some(&made)).contains_key(&b"place/moved/deep/file"[..]));
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn a_new_owner_alone_stores_no_content() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: a change of owner is left out");
        return;
    }
    let bench = Bench::new();
    bench.write("folder/a", "a");
    let full = bench.full();
    chown(bench.at("folder/a"), Some(4_000_000_001), Some(7)).unwrap();
    chown(bench.at("folder"), None, Some(8)).unwrap();
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.metadata_only), (0, 2));
    assert_eq!(entry(&made, "folder/a").unwrap().attributes.uid, 4_000_000_001);
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn a_file_that_becomes_a_folder_and_a_file_again_is_the_tree_each_time() {
    let bench = Bench::new();
    bench.write("a", "file");
    bench.write("b/below", "below");
    let full = bench.full();
    fs::remove_file(bench.at("a")).unwrap();
    bench.write("a/below", "now a folder");
    fs::remove_dir_all(bench.at("b")).unwrap();
    bench.write("b", "now a file");
    let (_, there) = bench.differential(&full, None);
    assert_is_the_tree(&bench, &full, &there);
    fs::remove_dir_all(bench.at("a")).unwrap();
    bench.write("a", "file");
    fs::remove_file(bench.at("b")).unwrap();
    bench.write("b/below", "below");
    let (_, back) = bench.differential(&full, Some(&there));
    let now = state(&full, Some(&back));
    assert!(!now.contains_key(&b"a/below"[..]) && now.contains_key(&b"b/below"[..]));
    assert_is_the_tree(&bench, &full, &back);
}

#[test]
fn names_that_differ_only_in_case_are_different_names() {
    let bench = Bench::new();
    bench.write("Readme", "one");
    bench.write("stays", "one");
    let full = bench.full();
    fs::rename(bench.at("Readme"), bench.at("README")).unwrap();
    bench.write("Stays", "two");
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.removed), (2, 1));
    let now = state(&full, Some(&made));
    assert!(!now.contains_key(&b"Readme"[..]) && now.contains_key(&b"README"[..]));
    assert!(now.contains_key(&b"stays"[..]) && now.contains_key(&b"Stays"[..]));
    assert_is_the_tree(&bench, &full, &made);
}

/// Writes one file of a fixed size and mtime, as both sides of a swap have it.
fn fill(folder: &Path, content: &str) {
    fs::write(folder.join("a"), content).unwrap();
    set_mtime(&folder.join("a"), 1_700_000_000, 7);
}

#[test]
fn another_folder_bound_over_a_part_of_the_source_is_read_as_what_is_there_now() {
    let bench = Bench::new();
    let [one, two] = ["one", "two"].map(|name| bench.scratch().join(name));
    for (folder, content) in [(&one, "first!"), (&two, "second")] {
        fs::create_dir(folder).unwrap();
        fill(folder, content);
        set_mtime(folder, 1_700_000_000, 7);
    }
    fs::create_dir(bench.at("place")).unwrap();
    let Some(bound) = Mounted::bind(&one, &bench.at("place")) else { return };
    let full = bench.full();
    drop(bound);
    let Some(bound) = Mounted::bind(&two, &bench.at("place")) else { return };
    let (found, made) = bench.differential(&full, None);
    assert_eq!(found.figures.changed_files, 1, "same name, size, mode and mtime; another file");
    let wrong = differences(&state(&full, Some(&made)), &state(&bench.full(), None));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(bound);
}

/// Fresh file systems of one kind give out the same inode numbers.
#[test]
fn a_file_system_swapped_for_another_with_equal_names_sizes_and_inodes_hides_nothing() {
    let mut bench = Bench::new();
    fs::create_dir(bench.at("place")).unwrap();
    let Some(mounted) = Mounted::new("tmpfs", &bench.at("place")) else { return };
    fill(&bench.at("place"), "first!");
    let inode = fs::metadata(bench.at("place/a")).unwrap().ino();
    let full = bench.full();
    bench.expected_mounts.clone_from(&full.archive.header().mounts);
    drop(mounted);
    let Some(mounted) = Mounted::new("tmpfs", &bench.at("place")) else { return };
    fill(&bench.at("place"), "second");
    assert_eq!(fs::metadata(bench.at("place/a")).unwrap().ino(), inode, "the story needs equal inode numbers");
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.stale), (1, 0));
    let wrong = differences(&state(&full, Some(&made)), &state(&bench.full(), None));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(mounted);
}
