//! Edits of every kind, and edits that hide.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use coord_agent::scan::tree::{Clear, Lens, Stat};
use coord_archive::entry::{Flags, Kind};
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Timespec, Timestamps, XattrFlags};

use crate::support::{Bench, Made, differences, entry, long_after, paths, state};

pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// The overlay of full and differential is what a new full of the same tree would say.
pub fn assert_is_the_tree(bench: &Bench, full: &Made, differential: &Made) {
    let found = differences(&state(full, Some(differential)), &state(&bench.full(), None));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_deleted_file_stays_deleted_through_the_next_differential() {
    let bench = Bench::new();
    bench.write("keep", "keep");
    let full = bench.full();
    bench.write("sub/added", "added");
    let (found, first) = bench.differential(&full, None);
    assert_eq!(found.figures.changed_files, 1);
    assert!(state(&full, Some(&first)).contains_key(&b"sub/added"[..]));

    fs::remove_file(bench.at("sub/added")).unwrap();
    fs::remove_file(bench.at("keep")).unwrap();
    let (found, second) = bench.differential(&full, Some(&first));
    assert!(!found.equals_newest && !found.equals_full);
    assert_eq!(found.figures.removed, 1, "what the full never had needs no tombstone");
    let now = state(&full, Some(&second));
    assert!(!now.contains_key(&b"sub/added"[..]) && !now.contains_key(&b"keep"[..]));
    assert_eq!(entry(&second, "keep").unwrap().kind, Kind::Tombstone);
    assert_is_the_tree(&bench, &full, &second);
}

#[test]
fn a_tree_that_did_not_change_has_an_empty_differential() {
    let bench = Bench::new();
    bench.write("a/b", "b");
    symlink("b", bench.at("a/link")).unwrap();
    let full = bench.full();
    let (found, _) = bench.compare(&full, None);
    assert!(found.equals_full && found.equals_newest);
    assert_eq!(found.figures.entries, 0);
    assert_eq!(found.figures.source_files, 1);
}

#[test]
fn the_newest_backup_is_recognised_and_so_is_the_way_back_to_the_full() {
    let bench = Bench::new();
    bench.write("a", "before");
    bench.write("gone", "gone");
    let mtime = fs::metadata(bench.at("a")).unwrap();
    let folder = fs::metadata(bench.at("")).unwrap();
    let full = bench.full();
    bench.write("a", "after!");
    fs::remove_file(bench.at("gone")).unwrap();
    let (found, first) = bench.differential(&full, None);
    assert!(!found.equals_newest);
    let (found, _) = bench.compare(&full, Some(&first));
    assert!(found.equals_newest && !found.equals_full, "{:?}", found.figures);

    bench.write("a", "before");
    set_mtime(&bench.at("a"), mtime.mtime(), mtime.mtime_nsec());
    bench.write("gone", "gone");
    set_mtime(&bench.at("gone"), 1, 1);
    let (found, _) = bench.compare(&full, Some(&first));
    assert!(!found.equals_newest && !found.equals_full, "the mtime of `gone` is another");
    let gone = entry(&full, "gone").unwrap().attributes.mtime;
    set_mtime(&bench.at("gone"), gone.seconds, gone.nanos.into());
    set_mtime(&bench.at(""), folder.mtime(), folder.mtime_nsec());
    let (found, _) = bench.compare(&full, Some(&first));
    assert!(found.equals_full && !found.equals_newest, "{:?}", found.figures);
}

#[test]
fn an_edit_that_keeps_size_and_mtime_is_found() {
    let bench = Bench::new();
    bench.write("a", "before");
    let mtime = fs::metadata(bench.at("a")).unwrap();
    let full = bench.full();
    bench.write("a", "after!");
    set_mtime(&bench.at("a"), mtime.mtime(), mtime.mtime_nsec());
    let (found, made) = bench.differential(&full, None);
    assert_eq!(found.figures.changed_files, 1);
    assert_is_the_tree(&bench, &full, &made);
}

/// Gives a file other times than it has: what a coarse clock would show.
struct SameTick(coord_archive::entry::FileTime);

impl Lens for SameTick {
    fn stat(&self, path: &[u8], seen: std::io::Result<Stat>) -> std::io::Result<Stat> {
        seen.map(|mut stat| {
            if path == b"a" {
                stat.mtime = self.0;
                stat.ctime = self.0;
            }
            stat
        })
    }
}

#[test]
fn an_edit_in_the_same_tick_is_found_because_a_racy_entry_is_never_trusted() {
    let bench = Bench::new();
    bench.write("a", "before");
    let now = Timestamp::now();
    let tick = coord_archive::entry::FileTime { seconds: now.as_second() - 1, nanos: 0 };
    let full = bench.full_through(now, Box::new(SameTick(tick))).unwrap();
    assert!(entry(&full, "a").unwrap().flags.contains(Flags::RACY));
    // In place: same inode, and by the lens the same times.
    File::options().write(true).open(bench.at("a")).unwrap().write_all_at(b"after!", 0).unwrap();
    let (found, _) = bench.compare_through(&full, None, long_after(), Box::new(SameTick(tick))).unwrap();
    assert!(!found.equals_full);
}

#[test]
fn an_entry_that_was_not_racy_is_trusted_without_reading() {
    struct NoReading;
    impl Lens for NoReading {
        fn open(&self, path: &[u8]) -> std::io::Result<()> {
            assert_ne!(path, b"a", "an unchanged file is not opened");
            Ok(())
        }
    }
    let bench = Bench::new();
    bench.write("a", "a");
    let full = bench.full();
    assert!(!entry(&full, "a").unwrap().flags.contains(Flags::RACY));
    let (found, _) = bench.compare_through(&full, None, long_after(), Box::new(NoReading)).unwrap();
    assert!(found.equals_full);
}

#[test]
fn other_device_numbers_after_a_reboot_change_nothing() {
    struct Rebooted;
    impl Lens for Rebooted {
        fn stat(&self, _path: &[u8], seen: std::io::Result<Stat>) -> std::io::Result<Stat> {
            seen.map(|mut stat| {
                stat.file_system = (stat.file_system.0 + 7, 99);
                stat
            })
        }
    }
    let bench = Bench::new();
    bench.write("a", "a");
    fs::hard_link(bench.at("a"), bench.at("b")).unwrap();
    let full = bench.full();
    let (found, _) = bench.compare_through(&full, None, long_after(), Box::new(Rebooted)).unwrap();
    assert!(found.equals_full, "{:?}", found.figures);
}

#[test]
fn a_touched_file_is_metadata_only_and_a_copied_back_one_is_nothing() {
    let bench = Bench::new();
    bench.write("touched", vec![1; 5 << 20]);
    bench.write("copied", "same");
    let folder = fs::metadata(bench.at("")).unwrap();
    let full = bench.full();
    set_mtime(&bench.at("touched"), 1_000_000_000, 5);
    let copied = fs::metadata(bench.at("copied")).unwrap();
    fs::remove_file(bench.at("copied")).unwrap();
    bench.write("copied", "same");
    set_mtime(&bench.at("copied"), copied.mtime(), copied.mtime_nsec());
    set_mtime(&bench.at(""), folder.mtime(), folder.mtime_nsec());
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.metadata_only), (0, 1));
    assert_eq!(paths(&made), ["touched"]);
    assert!(entry(&made, "touched").unwrap().flags.contains(Flags::CONTENT_IN_BASE));
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn where_only_the_change_time_differs_content_is_read_once_and_then_remembered() {
    struct Count(std::sync::Arc<std::sync::atomic::AtomicU32>);
    impl Lens for Count {
        fn open(&self, path: &[u8]) -> std::io::Result<()> {
            if path == b"a" {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        }
    }
    let bench = Bench::new();
    bench.write("a", "a");
    let full = bench.full();
    let mode = fs::metadata(bench.at("a")).unwrap().mode();
    fs::set_permissions(bench.at("a"), Permissions::from_mode(mode)).unwrap();
    let opened = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    for times in [1, 1] {
        let lens = Box::new(Count(std::sync::Arc::clone(&opened)));
        let (found, _) = bench.compare_through(&full, None, long_after(), lens).unwrap();
        assert!(found.equals_full);
        assert_eq!(opened.load(std::sync::atomic::Ordering::Relaxed), times);
    }
    // A racy scan reads, and remembers nothing.
    bench.write("b", "b");
    let full = bench.full();
    fs::set_permissions(bench.at("a"), Permissions::from_mode(mode)).unwrap();
    for times in [2, 3] {
        let lens = Box::new(Count(std::sync::Arc::clone(&opened)));
        bench.compare_through(&full, None, Timestamp::now(), lens).unwrap();
        assert_eq!(opened.load(std::sync::atomic::Ordering::Relaxed), times);
    }
}

#[test]
fn modes_and_extended_attributes_alone_are_metadata_only() {
    let bench = Bench::new();
    bench.write("mode", "mode");
    bench.write("attribute", "attribute");
    bench.write("folder/in", "in");
    let attribute = bench.at("attribute");
    // The scratch folder has to be on a file system that keeps user attributes.
    rustix::fs::setxattr(&attribute, "user.old", b"1", XattrFlags::empty()).unwrap();
    let full = bench.full();
    fs::set_permissions(bench.at("mode"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(bench.at("folder"), Permissions::from_mode(0o700)).unwrap();
    rustix::fs::removexattr(&attribute, "user.old").unwrap();
    rustix::fs::setxattr(&attribute, "user.new", b"2", XattrFlags::empty()).unwrap();
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.metadata_only), (0, 3));
    assert_eq!(paths(&made), ["attribute", "folder", "mode"]);
    assert_is_the_tree(&bench, &full, &made);
    let (found, _) = bench.compare(&full, Some(&made));
    assert!(found.equals_newest);
}

#[test]
fn a_name_that_changes_its_kind_is_replaced_with_all_that_was_below_it() {
    let bench = Bench::new();
    bench.write("folder/deep/file", "x");
    bench.write("file", "x");
    symlink("file", bench.at("link")).unwrap();
    let full = bench.full();
    fs::remove_dir_all(bench.at("folder")).unwrap();
    bench.write("folder", "a file now");
    fs::remove_file(bench.at("file")).unwrap();
    bench.write("file/inside", "a folder now");
    fs::remove_file(bench.at("link")).unwrap();
    bench.write("link", "a file now");
    let (found, made) = bench.differential(&full, None);
    assert_eq!(found.figures.removed, 2, "what was below the folder");
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn a_renamed_folder_is_found_though_its_files_kept_their_times() {
    let bench = Bench::new();
    bench.write("old/a", "a");
    bench.write("old/b/c", "c");
    let full = bench.full();
    fs::rename(bench.at("old"), bench.at("new")).unwrap();
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.removed), (2, 4));
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn one_changed_piece_of_a_large_file_is_enough() {
    let bench = Bench::new();
    bench.write("large", vec![3; 9 << 20]);
    let mtime = fs::metadata(bench.at("large")).unwrap();
    let full = bench.full();
    let file = OpenOptions::new().write(true).open(bench.at("large")).unwrap();
    file.write_all_at(b"!", 8 << 20).unwrap();
    set_mtime(&bench.at("large"), mtime.mtime(), mtime.mtime_nsec());
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.changed_bytes), (1, 9 << 20));
    assert_is_the_tree(&bench, &full, &made);
}

/// Does something to a file the moment the packer opens it.
struct AtOpen {
    file: std::path::PathBuf,
    what: fn(&Path),
}

impl Lens for AtOpen {
    fn open(&self, path: &[u8]) -> std::io::Result<()> {
        if path == b"a" {
            (self.what)(&self.file);
        }
        Ok(())
    }
}

#[test]
fn files_that_grow_shrink_or_vanish_before_they_are_read_leave_a_valid_archive() {
    type Act = fn(&Path);
    let grow = |path: &Path| OpenOptions::new().append(true).open(path).unwrap().write_all(&[7; 9999]).unwrap();
    let shrink = |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(10).unwrap();
    let vanish = |path: &Path| fs::remove_file(path).unwrap_or_default();
    let acts: [(Act, bool); 3] = [(grow, true), (shrink, true), (vanish, false)];
    for (what, stays) in acts {
        let bench = Bench::new();
        bench.write("a", vec![5; 5000]);
        bench.write("b", "after it");
        let lens = Box::new(AtOpen { file: bench.at("a"), what });
        let made = bench.full_through(long_after(), lens).unwrap();
        let now = state(&made, None);
        assert_eq!(now.contains_key(&b"a"[..]), stays);
        assert!(now.contains_key(&b"b"[..]));
        let verified = coord_archive::verify::verify(&made.path, &Default::default(), &()).unwrap();
        assert!(verified.is_ok(), "{verified:?}");
    }
}

#[test]
fn excluded_names_and_the_agents_own_are_left_out_and_told() {
    let mut bench = Bench::new();
    bench.excludes = vec!["*.tmp".to_owned(), "cache/".to_owned()];
    for path in ["a", "b.tmp", "sub/c.tmp", "cache/x", "state/journal"] {
        bench.write(path, path);
    }
    let _socket = std::os::unix::net::UnixListener::bind(bench.at("socket")).unwrap();
    let mut request = bench.request(long_after());
    request.own = vec![bench.at("state")];
    let scan = coord_agent::scan::Scan::begin_through(&request, Box::new(Clear)).unwrap();
    let seen: Vec<String> = scan
        .full()
        .map(|step| match step.unwrap() {
            coord_archive::pack::Step::Item(item) => item.entry.path.escape_ascii().to_string(),
            other => panic!("a full has items only: {other:?}"),
        })
        .collect();
    assert_eq!(seen, ["", "a", "sub"]);
    let notes = scan.notes();
    let left_out: Vec<_> = notes.rules.iter().take(2).map(|rule| (rule.files, rule.bytes, rule.folders)).collect();
    assert_eq!(left_out, [(2, 14, 0), (0, 0, 1)]);
    assert_eq!(notes.left_out_count, 2, "the socket and the state folder");
}

#[test]
fn the_way_to_a_source_is_recorded_and_its_own_changes_are_none() {
    let mut bench = Bench::new();
    bench.write("srv/web/page", "1");
    bench.write("srv/other", "not protected");
    bench.sources = vec![b"/srv/web".to_vec()];
    let full = bench.full();
    assert_eq!(paths(&full), ["", "srv", "srv/web", "srv/web/page"]);
    assert!(entry(&full, "srv").unwrap().flags.contains(Flags::ANCESTOR));
    assert!(!entry(&full, "srv/web").unwrap().flags.contains(Flags::ANCESTOR));
    fs::set_permissions(bench.at("srv"), Permissions::from_mode(0o711)).unwrap();
    bench.write("srv/another", "not protected either");
    let (found, _) = bench.compare(&full, None);
    assert!(found.equals_full, "{:?}", found.figures);
    bench.write("srv/web/page", "2!");
    let (_, made) = bench.differential(&full, None);
    assert_eq!(paths(&made), ["srv/web/page"]);
}

#[test]
fn a_touched_sparse_file_is_compared_without_reading_its_holes() {
    let bench = Bench::new();
    let file = File::create(bench.at("sparse")).unwrap();
    file.write_all_at(b"data", 5 << 20).unwrap();
    file.set_len(40 << 20).unwrap();
    let full = bench.full();
    set_mtime(&bench.at("sparse"), 5, 5);
    let (found, _) = bench.compare(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.metadata_only), (0, 1));
    // Data where there was a hole, and a hole where there was data.
    for (at, bytes) in [(30 << 20, &b"new"[..]), (5 << 20, b"\0\0\0\0")] {
        file.write_all_at(bytes, at).unwrap();
        set_mtime(&bench.at("sparse"), 5, 5);
        let (found, made) = bench.differential(&full, None);
        assert_eq!(found.figures.changed_files, 1);
        assert_is_the_tree(&bench, &full, &made);
    }
}

#[test]
fn holes_that_come_and_go_alone_are_carried() {
    let zeros = [0; 64 << 10];
    let bench = Bench::new();
    let file = File::create(bench.at("sparse")).unwrap();
    file.set_len(4 << 20).unwrap();
    file.write_all_at(&[7; 64 << 10], 0).unwrap();
    file.write_all_at(&zeros, 1 << 20).unwrap();
    let full = bench.full();
    let times = fs::metadata(bench.at("sparse")).unwrap();
    let keep_time = || set_mtime(&bench.at("sparse"), times.mtime(), times.mtime_nsec());

    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 1 << 20, 64 << 10).unwrap();
    keep_time();
    let (found, first) = bench.differential(&full, None);
    assert_eq!(paths(&first), ["sparse"]);
    assert!(!found.equals_newest);
    assert_is_the_tree(&bench, &full, &first);
    // The differential has it, so nothing is new; and it stays in the next one.
    bench.write("other", "other");
    let (_, second) = bench.differential(&full, Some(&first));
    assert_is_the_tree(&bench, &full, &second);
    let (found, _) = bench.compare(&full, Some(&second));
    assert!(found.equals_newest, "{:?}", found.figures);

    file.write_all_at(&zeros, 1 << 20).unwrap();
    keep_time();
    let (found, third) = bench.differential(&full, Some(&second));
    assert!(!found.equals_newest);
    assert!(!paths(&third).contains(&"sparse".to_owned()), "it is as in the full again");
    assert_is_the_tree(&bench, &full, &third);
}

#[test]
fn a_scan_stops_when_it_is_asked_to() {
    struct Stop;
    impl coord_archive::progress::Progress for Stop {
        fn advance(&self, _: coord_archive::progress::Advance<'_>) -> std::ops::ControlFlow<()> {
            std::ops::ControlFlow::Break(())
        }
    }
    let bench = Bench::new();
    bench.write("large", vec![3; 9 << 20]);
    let full = bench.full();
    set_mtime(&bench.at("large"), 5, 5);
    let scan = coord_agent::scan::Scan::begin(&bench.request(long_after())).unwrap();
    let scratch = bench.scratch();
    let against = coord_agent::scan::Against { base: &full.archive, newest: None, cache: None, scratch: &scratch };
    let stopped = scan.compare(&against, &Stop).unwrap_err();
    assert!(matches!(stopped, coord_agent::scan::ScanError::Cancelled), "{stopped:?}");
}
