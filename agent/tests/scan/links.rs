//! Hard links that come, go, split and join.

use std::fs;

use crate::support::{Bench, Made, differences, entry, state};

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
