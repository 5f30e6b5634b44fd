//! Hostile archives: whatever somebody writes into an archive, nothing outside the target is touched, nothing panics, memory, disk and time
//! are bounded, and what is wrong is said.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleet_tests::hostile::trial::Ground;
use fleet_tests::hostile::{Case, content, header, kinds, links, names, own, structure, tar_lies};

/// Fewest cases that all groups together have.
const FEWEST: usize = 200;

/// Tries the cases on all cores; what there is to say against them is all in one message.
fn withstand(cases: &[Case]) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let complaints: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let ground = Ground::new().unwrap();
            let mut said = Vec::new();
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                said.extend(ground.try_case(case).unwrap());
            }
            said
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn names_that_lead_elsewhere_are_refused_and_odd_ones_come_back() {
    withstand(&names::cases());
}

#[test]
fn nothing_goes_through_a_planted_link() {
    withstand(&links::cases());
}

#[test]
fn things_of_odd_kinds_are_refused_or_contained() {
    withstand(&kinds::cases());
}

#[test]
fn sizes_and_holes_that_no_file_has_cost_nothing() {
    withstand(&content::cases());
}

#[test]
fn parts_that_do_not_agree_are_refused() {
    withstand(&structure::cases());
}

#[test]
fn headers_that_are_none_are_refused() {
    withstand(&header::cases());
}

#[test]
fn a_tar_that_says_something_else_than_the_index_is_found() {
    withstand(&tar_lies::cases());
}

#[test]
fn what_pretends_to_be_ours_is_found_and_never_run() {
    withstand(&own::cases());
}

#[test]
fn every_case_is_one_of_its_kind() {
    let groups: [fn() -> Vec<Case>; 8] = [
        names::cases,
        links::cases,
        kinds::cases,
        content::cases,
        structure::cases,
        header::cases,
        tar_lies::cases,
        own::cases,
    ];
    let all: Vec<Case> = groups.iter().flat_map(|group| group()).collect();
    let distinct: BTreeSet<&str> = all.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(distinct.len(), all.len(), "two cases have one name");
    assert!(all.len() >= FEWEST, "{} cases", all.len());
}
