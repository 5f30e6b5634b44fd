//! Hard links that come, go, split and join.

use std::fs;

use coord_agent::scan::tree::Lens;
use coord_archive::digest::Digest;

use crate::support::{AtOpen, Bench, LENGTHS, Made, State, differences, entry, long_after, state};

fn assert_is_the_tree(bench: &Bench, full: &Made, differential: &Made) {
    let found = differences(&state(full, Some(differential)), &state(&bench.full(), None));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn bench_with_group() -> (Bench, Made) {
    let bench = Bench::new();
    bench.write("first", "content");
    fs::hard_link(bench.at("first"), bench.at("second")).unwrap();
    fs::create_dir(bench.at("sub")).unwrap();
    fs::hard_link(bench.at("first"), bench.at("sub/third")).unwrap();
    bench.write("alone", "alone");
    let full = bench.full();
    (bench, full)
}

#[test]
fn a_full_keeps_which_names_are_one_file() {
    let (_bench, full) = bench_with_group();
    let names = state(&full, None)[&b"second"[..]].names.clone();
    assert_eq!(names, [b"first".to_vec(), b"second".to_vec(), b"sub/third".to_vec()]);
    assert_eq!(full.report.files, 2, "content is stored once");
}

#[test]
fn a_name_added_to_a_group_stores_no_content() {
    let (bench, full) = bench_with_group();
    fs::hard_link(bench.at("first"), bench.at("fourth")).unwrap();
    let (found, made) = bench.differential(&full, None);
    assert_eq!(found.figures.changed_files, 0);
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn a_name_split_off_with_equal_content_is_its_own_file_again() {
    let (bench, full) = bench_with_group();
    fs::remove_file(bench.at("second")).unwrap();
    bench.write("second", "content");
    let (_, made) = bench.differential(&full, None);
    assert!(state(&full, Some(&made))[&b"second"[..]].names.is_empty());
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn files_that_were_joined_are_one_file_whatever_they_were_before() {
    let (bench, full) = bench_with_group();
    bench.write("zed", "alone");
    fs::remove_file(bench.at("zed")).unwrap();
    fs::hard_link(bench.at("alone"), bench.at("zed")).unwrap();
    let (found, made) = bench.differential(&full, None);
    assert_eq!(found.figures.changed_files, 0, "the content is in the base");
    assert_is_the_tree(&bench, &full, &made);
    let (found, _) = bench.compare(&full, Some(&made));
    assert!(found.equals_newest);
}

#[test]
fn a_group_whose_content_changed_is_stored_once() {
    let (bench, full) = bench_with_group();
    bench.write("sub/third", "other content");
    let (found, made) = bench.differential(&full, None);
    assert_eq!(found.figures.changed_files, 1);
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn the_first_name_may_go_and_the_others_stay_linked() {
    let (bench, full) = bench_with_group();
    fs::remove_file(bench.at("first")).unwrap();
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.changed_files, found.figures.removed), (0, 1));
    assert_eq!(entry(&made, "second"), None, "nothing of it changed");
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn two_groups_that_swap_a_member_end_up_as_they_are_now() {
    let (bench, full) = bench_with_group();
    fs::hard_link(bench.at("alone"), bench.at("alone-too")).unwrap();
    let (_, first) = bench.differential(&full, None);
    fs::remove_file(bench.at("second")).unwrap();
    fs::hard_link(bench.at("alone"), bench.at("second")).unwrap();
    fs::remove_file(bench.at("alone-too")).unwrap();
    fs::hard_link(bench.at("first"), bench.at("alone-too")).unwrap();
    let (_, made) = bench.differential(&full, Some(&first));
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn half_of_a_group_on_a_new_inode_is_a_group_of_its_own() {
    let (bench, full) = bench_with_group();
    for name in ["second", "sub/third"] {
        fs::remove_file(bench.at(name)).unwrap();
    }
    bench.write("second", "content");
    fs::hard_link(bench.at("second"), bench.at("sub/third")).unwrap();
    let (_, made) = bench.differential(&full, None);
    assert_is_the_tree(&bench, &full, &made);
}

#[test]
fn symbolic_links_may_be_hard_linked_too() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("target", bench.at("a")).unwrap();
    fs::hard_link(bench.at("a"), bench.at("b")).unwrap();
    let full = bench.full();
    assert_eq!(state(&full, None)[&b"b"[..]].names.len(), 2);
    fs::remove_file(bench.at("b")).unwrap();
    std::os::unix::fs::symlink("target", bench.at("b")).unwrap();
    let (_, made) = bench.differential(&full, None);
    assert_is_the_tree(&bench, &full, &made);
}

/// Gives the name to another file just before it is opened for the so-many-th time.
fn replaced_at_open(bench: &Bench, name: &'static str, open: usize) -> Box<impl Lens + use<>> {
    let (by, at) = (bench.scratch().join("another"), bench.at(name));
    fs::write(&by, "another file").unwrap();
    AtOpen::of(name, open, move || if by.exists() { fs::rename(&by, &at) } else { Ok(()) })
}

fn assert_only_the_first_name_is_another_file(now: &State, content: &[u8]) {
    let (first, second, third) = (&now[&b"first"[..]], &now[&b"second"[..]], &now[&b"sub/third"[..]]);
    assert_eq!((first.content, &first.names), (Some(Digest::of(b"another file")), &Vec::new()));
    assert_eq!(second.content, Some(Digest::of(content)));
    assert_eq!(third, second);
    assert_eq!(second.names, [b"second".to_vec(), b"sub/third".to_vec()]);
}

fn bench_with_group_of(content: &[u8]) -> Bench {
    let bench = Bench::new();
    write_group(&bench, content);
    bench
}

fn write_group(bench: &Bench, content: &[u8]) {
    bench.write("first", content);
    fs::create_dir_all(bench.at("sub")).unwrap();
    for name in ["second", "sub/third"] {
        let _was_there = fs::remove_file(bench.at(name));
        fs::hard_link(bench.at("first"), bench.at(name)).unwrap();
    }
}

#[test]
fn a_name_that_is_another_file_when_it_is_read_takes_no_other_name_along() {
    for length in LENGTHS {
        let content = vec![7; length];
        let bench = bench_with_group_of(&content);
        let full = bench.full_through(long_after(), replaced_at_open(&bench, "first", 1)).unwrap();
        assert_only_the_first_name_is_another_file(&state(&full, None), &content);
        assert_eq!((full.report.files, full.report.warning_count), (2, 0));
        let (_, made) = bench.differential(&full, None);
        assert_is_the_tree(&bench, &full, &made);
    }
}

#[test]
fn a_name_that_is_another_file_when_a_differential_reads_it_takes_no_other_name_along() {
    for length in LENGTHS {
        let content = vec![7; length];
        let bench = bench_with_group_of(b"before");
        let full = bench.full();
        write_group(&bench, &content);
        // The comparison opens it once, to see that it can.
        let lens = replaced_at_open(&bench, "first", 2);
        let (_, made) = bench.differential_through(&full, None, long_after(), lens);
        assert_only_the_first_name_is_another_file(&state(&full, Some(&made)), &content);
    }
}
