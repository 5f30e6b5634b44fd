//! Files that go, or cannot be read any more, between the scan and the packing of a differential.

use std::fs;
use std::io;

use coord_archive::digest::Digest;
use coord_archive::entry::{Flags, Kind};
use coord_archive::pack::Reason;

use crate::support::{AtOpen, Bench, LENGTHS, Made, differences, entry, long_after, paths, state};

/// The comparison opens a file of another size once, to see that it can.
const PACKER: usize = 2;

/// A full of a file, its folder and its neighbour; then the file gets another content of `length`.
fn bench_with_changed_file(length: usize) -> (Bench, Made) {
    let bench = Bench::new();
    bench.write("folder/file", "as the full has it");
    bench.write("neighbour", "neighbour");
    let full = bench.full();
    bench.write("folder/file", vec![7; length]);
    (bench, full)
}

#[test]
fn a_file_that_goes_before_a_differential_reads_it_does_not_come_back_with_the_base() {
    for length in LENGTHS {
        let (bench, full) = bench_with_changed_file(length);
        let at = bench.at("folder/file");
        let going = AtOpen::of("folder/file", PACKER, move || fs::remove_file(&at));
        let (found, made) = bench.differential_through(&full, None, long_after(), going);
        assert_eq!(found.figures.changed_files, 1, "it was there for the scan");
        assert_eq!(entry(&made, "folder/file").unwrap().kind, Kind::Tombstone);
        assert!(!state(&full, Some(&made)).contains_key(&b"folder/file"[..]));
        assert_eq!(made.report.warnings.len(), 1);
        assert_eq!(made.report.warnings[0].reason, Reason::Vanished);
        let (found, _) = bench.compare(&full, Some(&made));
        assert_eq!(found.figures.removed, 1);
    }
}

#[test]
fn a_new_file_that_goes_before_it_is_read_leaves_no_trace() {
    let (bench, full) = bench_with_changed_file(10);
    bench.write("new", "new");
    let at = bench.at("new");
    let going = AtOpen::of("new", 1, move || fs::remove_file(&at));
    let (_, made) = bench.differential_through(&full, None, long_after(), going);
    assert_eq!(paths(&made), ["", "folder/file"], "what the base never had needs no tombstone");
    assert_eq!(made.report.warnings[0].reason, Reason::Vanished);
}

#[test]
fn a_file_that_cannot_be_opened_any_more_keeps_its_base_state_and_is_stale() {
    // Access denied, I/O error, stale file handle.
    for error in [13, 5, 116] {
        for length in LENGTHS {
            let (bench, full) = bench_with_changed_file(length);
            let failing = AtOpen::of("folder/file", PACKER, move || Err(io::Error::from_raw_os_error(error)));
            let (_, made) = bench.differential_through(&full, None, long_after(), failing);
            let (now, before) = (state(&full, Some(&made)), state(&full, None));
            let (kept, base) = (&now[&b"folder/file"[..]], &before[&b"folder/file"[..]]);
            assert_eq!((kept.content, &kept.attributes), (base.content, &base.attributes));
            assert_eq!(kept.flags, ["stale"]);
            assert!(matches!(made.report.warnings[0].reason, Reason::Unreadable(_)));
            assert_eq!(made.report.files, 0);

            let (found, next) = bench.differential(&full, Some(&made));
            assert!(!found.equals_newest, "readable again is another state");
            let found = differences(&state(&full, Some(&next)), &state(&bench.full(), None));
            assert!(found.is_empty(), "{}", found.join("\n"));
        }
    }
}

#[test]
fn a_file_that_took_the_place_of_a_folder_and_cannot_be_read_is_unread() {
    let (bench, full) = bench_with_changed_file(10);
    fs::remove_dir_all(bench.at("folder")).unwrap();
    bench.write("folder", "a file now");
    let failing = AtOpen::of("folder", 1, || Err(io::Error::from_raw_os_error(5)));
    let (_, made) = bench.differential_through(&full, None, long_after(), failing);
    let now = state(&full, Some(&made));
    assert_eq!((now[&b"folder"[..]].kind, now[&b"folder"[..]].flags.as_slice()), (Kind::File, &["unread"][..]));
    assert!(!now.contains_key(&b"folder/file"[..]));
    assert_eq!(made.report.warning_count, 1);
}

#[test]
fn a_stale_file_handle_is_no_proof_that_a_file_is_gone() {
    let (bench, _) = bench_with_changed_file(700);
    let failing = AtOpen::of("folder/file", 1, || Err(io::Error::from_raw_os_error(116)));
    let full = bench.full_through(long_after(), failing).unwrap();
    assert!(entry(&full, "folder/file").unwrap().flags.contains(Flags::UNREAD));
    assert!(matches!(full.report.warnings[0].reason, Reason::Unreadable(_)));
}

#[test]
fn a_name_that_stands_in_for_a_lost_one_keeps_the_group_together() {
    for length in LENGTHS {
        let bench = Bench::new();
        for (name, content) in [("a", "before"), ("alone", "before")] {
            bench.write(name, content);
        }
        for name in ["b", "c"] {
            fs::hard_link(bench.at("a"), bench.at(name)).unwrap();
        }
        let full = bench.full();
        bench.write("a", vec![7; length]);
        let failing = AtOpen::of("a", PACKER, || Err(io::Error::from_raw_os_error(13)));
        let (_, made) = bench.differential_through(&full, None, long_after(), failing);
        let now = state(&full, Some(&made));
        assert_eq!((now[&b"a"[..]].content, &now[&b"a"[..]].flags), (Some(Digest::of(b"before")), &vec!["stale"]));
        assert_eq!(now[&b"b"[..]].content, Some(Digest::of(&vec![7; length])));
        assert_eq!(now[&b"b"[..]], now[&b"c"[..]]);
        assert_eq!(now[&b"b"[..]].names, [b"b".to_vec(), b"c".to_vec()]);
    }
}
