//! Trees of many names: they are compared in parts, on several threads, and nothing is lost where parts meet.

use std::fs;
use std::io;

use coord_agent::scan::tree::{Lens, Stat};
use coord_archive::entry::{Flags, Kind};

use crate::support::{Bench, entry, long_after, paths};

/// Enough for several blocks of the index.
const FILES: usize = 7500;
/// More than one thread takes at once.
const NEW: usize = 4200;

fn names(folder: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{folder}/n{number:05}")).collect()
}

#[test]
fn whole_parts_that_vanish_and_parts_that_swell_are_all_found() {
    let bench = Bench::new();
    for number in 0..FILES {
        bench.write(&format!("f{}/n{number:05}", number / 2500), "x");
    }
    let full = bench.full();
    assert!(full.archive.block_count() > 4, "{} blocks are too few for this story", full.archive.block_count());
    let (found, _) = bench.compare(&full, None);
    assert!(found.equals_full && found.equals_newest);
    assert_eq!(found.figures.source_files, FILES as u64);

    // One block goes with all of its names, and another one gets more than a batch holds.
    fs::remove_dir_all(bench.at("f1")).unwrap();
    let new = names("f2/n06000", 0..NEW);
    fs::create_dir(bench.at("f2/n06000-")).unwrap();
    let new: Vec<String> = new.iter().map(|name| name.replace("n06000/", "n06000-/")).collect();
    for name in new.iter().map(String::as_str).chain(["f2/n06999", "a first name", "z last name"]) {
        bench.write(name, "longer than it was");
    }
    let (found, first) = bench.differential(&full, None);
    assert_eq!((found.figures.removed, found.figures.changed_files), (2501, NEW as u64 + 3));
    assert_eq!(found.figures.source_files, (FILES - 2500 + NEW + 2) as u64);
    let mut expected = vec![String::new(), "a first name".to_owned(), "f1".to_owned()];
    expected.extend(names("f1", 2500..5000));
    expected.extend(["f2".to_owned(), "f2/n06000-".to_owned()]);
    expected.extend(new);
    expected.extend(["f2/n06999".to_owned(), "z last name".to_owned()]);
    assert_eq!(paths(&first), expected);

    // The state of the newest backup, which spans parts in its own way.
    let (found, _) = bench.compare(&full, Some(&first));
    assert!(found.equals_newest && !found.equals_full);
    fs::remove_file(bench.at("f2/n06000-/n04199")).unwrap();
    fs::remove_file(bench.at("f2/n07499")).unwrap();
    let (found, second) = bench.differential(&full, Some(&first));
    assert!(!found.equals_newest);
    assert_eq!((found.figures.removed, found.figures.changed_files), (2502, NEW as u64 + 2));
    assert_eq!(entry(&second, "f2/n07499").unwrap().kind, Kind::Tombstone);
    assert!(entry(&second, "f2/n06000-/n04199").is_none() && entry(&second, "f2/n06000-/n04198").is_some());
}

#[test]
fn a_name_that_became_a_folder_after_it_was_listed_keeps_its_base_state_and_is_stale() {
    struct Turned(Stat);
    impl Lens for Turned {
        fn stat(&self, path: &[u8], seen: io::Result<Stat>) -> io::Result<Stat> {
            if path == b"f/name" { Ok(self.0) } else { seen }
        }
    }
    let bench = Bench::new();
    bench.write("f/name", "x");
    bench.write("f/other", "y");
    let full = bench.full();
    let tree = coord_agent::scan::tree::Tree::open(&bench.at("")).unwrap();
    let folder = tree.stat(b"f").unwrap();
    let (found, notes) = bench.compare_through(&full, None, long_after(), Box::new(Turned(folder))).unwrap();
    assert_eq!((found.figures.stale, found.figures.removed), (1, 0));
    assert_eq!(notes.warning_count, 1, "{:?}", notes.warnings);
    let kept = found.changes.steps().find_map(|step| match step.unwrap() {
        coord_archive::pack::Step::Item(item) if item.entry.path == b"f/name" => Some(item.entry),
        _ => None,
    });
    let kept = kept.unwrap();
    assert!(kept.kind == Kind::File && kept.flags.contains(Flags::STALE));
    assert_eq!(kept.digest, entry(&full, "f/name").unwrap().digest);
}
