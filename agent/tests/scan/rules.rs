//! What is left out by rules: each does what it says, in fulls and in differentials, and counts what it did.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use coord_agent::scan::Notes;
use coord_archive::entry::{Flags, Kind};
use coord_archive::rules::Rules;
use coord_shared::left_out::LeftOutBy;
use rustix::fs::IFlags;

use crate::places::Mounted;
use crate::support::{Bench, Made, differences, entry, paths, state};

pub const SIGNATURE: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";

/// What a scan says it left out: rule, text, files, folders, bytes.
fn told(notes: &Notes) -> Vec<(LeftOutBy, &str, u64, u64, u64)> {
    notes.counts().map(|rule| (rule.by, rule.text.as_str(), rule.files, rule.folders, rule.bytes)).collect()
}

/// A differential brings the full to the state that a full of now has.
fn differential_is_exact(bench: &Bench, full: &Made) -> Made {
    let (_, made) = bench.differential(full, None);
    let wrong = differences(&state(full, Some(&made)), &state(&bench.full(), None));
    assert!(wrong.is_empty(), "{wrong:#?}");
    made
}

#[test]
fn of_a_cache_only_its_folder_and_its_tag_are_taken() {
    let mut bench = Bench::new();
    bench.rules = Rules { caches: true, ..Rules::default() };
    for name in ["a", "cache/big", "cache/deep/er", "plain/file"] {
        bench.write(name, name);
    }
    bench.write("cache/CACHEDIR.TAG", SIGNATURE);
    bench.write("plain/CACHEDIR.TAG", "not the signature");
    let full = bench.full();
    assert_eq!(paths(&full), ["", "a", "cache", "cache/CACHEDIR.TAG", "plain", "plain/CACHEDIR.TAG", "plain/file"]);
    assert_eq!(told(&full.notes), [(LeftOutBy::Cache, "", 0, 1, 0)]);
    assert!(full.archive.header().rules.caches);
    bench.write("cache/big", "changed, and nobody cares");
    fs::remove_file(bench.at("cache/deep/er")).unwrap();
    let (found, notes) = bench.compare(&full, None);
    assert!(found.figures.changed_files == 0 && found.figures.removed == 0, "{:?}", found.figures);
    assert_eq!(told(&notes), [(LeftOutBy::Cache, "", 0, 1, 0)]);
}

#[test]
fn a_folder_that_becomes_a_cache_is_emptied_in_the_next_backup_and_kept_in_the_last() {
    let mut bench = Bench::new();
    bench.rules = Rules { caches: true, ..Rules::default() };
    bench.write("build/out", "out");
    let full = bench.full();
    bench.write("build/CACHEDIR.TAG", SIGNATURE);
    let made = differential_is_exact(&bench, &full);
    assert!(!state(&full, Some(&made)).contains_key(&b"build/out"[..]));
    assert!(state(&full, None).contains_key(&b"build/out"[..]));
    fs::remove_file(bench.at("build/CACHEDIR.TAG")).unwrap();
    assert!(state(&full, Some(&differential_is_exact(&bench, &full))).contains_key(&b"build/out"[..]));
}

#[test]
fn a_marker_leaves_out_its_folder_and_never_a_source() {
    let mut bench = Bench::new();
    bench.rules = Rules { if_present: vec![".nobackup".to_owned(), ".skip".to_owned()], ..Rules::default() };
    bench.sources = vec![b"srv".to_vec()];
    for name in ["srv/.nobackup", "srv/a", "srv/x/.nobackup/inner", "srv/x/y", "srv/z/.skip", "srv/z/y"] {
        bench.write(name, name);
    }
    let full = bench.full();
    let wanted = [
        "",
        "srv",
        "srv/.nobackup",
        "srv/a",
        "srv/x",
        "srv/x/.nobackup",
        "srv/x/.nobackup/inner",
        "srv/z",
        "srv/z/.skip",
    ];
    assert_eq!(paths(&full), wanted);
    let counted = [(LeftOutBy::IfPresent, ".nobackup", 0, 1, 0), (LeftOutBy::IfPresent, ".skip", 0, 1, 0)];
    assert_eq!(told(&full.notes), counted);
}

#[test]
fn files_larger_than_the_limit_are_left_out_by_their_size_now() {
    let mut bench = Bench::new();
    bench.rules = Rules { larger_than: Some(1000), ..Rules::default() };
    bench.write("exact", vec![1; 1000]);
    bench.write("large", vec![1; 1001]);
    bench.write("grows", vec![1; 10]);
    let sparse = File::create(bench.at("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    let full = bench.full();
    assert_eq!(paths(&full), ["", "exact", "grows"]);
    assert_eq!(told(&full.notes), [(LeftOutBy::LargerThan, "1000", 2, 0, 1001 + (1 << 20))], "holes count too");
    OpenOptions::new().write(true).open(bench.at("grows")).unwrap().set_len(5000).unwrap();
    bench.write("large", "small now");
    let made = differential_is_exact(&bench, &full);
    let now = state(&full, Some(&made));
    assert!(now.contains_key(&b"large"[..]) && !now.contains_key(&b"grows"[..]));
    assert!(state(&full, None).contains_key(&b"grows"[..]), "the earlier restore point keeps it");
}

/// Sets the flag *no dump*; false where the file system has no such flag, which is said.
pub fn set_nodump(path: &Path) -> bool {
    let file = File::open(path).unwrap();
    let set =
        rustix::fs::ioctl_getflags(&file).and_then(|flags| rustix::fs::ioctl_setflags(&file, flags | IFlags::NODUMP));
    if let Err(error) = &set {
        eprintln!("{}: no flag 'no dump' here ({error}): it is left out of this test", path.display());
    }
    set.is_ok()
}

#[test]
fn what_asks_not_to_be_dumped_is_left_out_with_everything_below_it() {
    let mut bench = Bench::new();
    for name in ["a", "b", "folder/c", "kept/d"] {
        bench.write(name, name);
    }
    let all = bench.full();
    if !set_nodump(&bench.at("b")) || !set_nodump(&bench.at("folder")) {
        return;
    }
    assert_eq!(paths(&bench.full()), paths(&all), "the flag alone means nothing");
    bench.rules = Rules { nodump: true, ..Rules::default() };
    let full = bench.full();
    assert_eq!(paths(&full), ["", "a", "kept", "kept/d"]);
    assert_eq!(told(&full.notes), [(LeftOutBy::Nodump, "", 1, 1, 1)]);
    assert!(set_nodump(&bench.at("kept/d")) && set_nodump(&bench.at("")));
    let made = differential_is_exact(&bench, &full);
    assert!(!state(&full, Some(&made)).contains_key(&b"kept/d"[..]));
    assert!(set_nodump(&bench.at("kept")));
    bench.sources.push(b"kept/d".to_vec());
    assert_eq!(paths(&bench.full()), ["", "a", "kept", "kept/d"], "a source, and the way to it, are always taken");
}

#[test]
fn what_is_mounted_below_a_source_is_left_out_when_one_file_system_is_asked_for() {
    let mut bench = Bench::new();
    bench.write("plain/a", "a");
    bench.write("over", "hidden by a file that is mounted on it");
    fs::create_dir(bench.at("data")).unwrap();
    let (Some(mounted), Some(over)) =
        (Mounted::new("tmpfs", &bench.at("data")), Mounted::bind(&bench.at("plain/a"), &bench.at("over")))
    else {
        return;
    };
    bench.write("data/b", "b");
    bench.expected_mounts = bench.full().archive.header().mounts.clone();
    bench.rules = Rules { one_file_system: true, ..Rules::default() };
    let full = bench.full();
    assert_eq!(paths(&full), ["", "data", "plain", "plain/a"]);
    assert!(entry(&full, "data").unwrap().flags.contains(Flags::ANCESTOR));
    assert_eq!(told(&full.notes), [(LeftOutBy::OtherFileSystem, "", 1, 1, 1)]);
    let listed: Vec<_> = full.notes.left_out.iter().map(|(path, by)| (path.as_slice(), *by)).collect();
    assert_eq!(listed, [(&b"data"[..], LeftOutBy::OtherFileSystem), (&b"over"[..], LeftOutBy::OtherFileSystem)]);
    assert!(bench.expected_mounts.iter().any(|mount| mount.path == b"data"), "{:?}", bench.expected_mounts);
    assert!(full.archive.header().mounts.iter().all(|mount| mount.path != b"data"));
    assert!(bench.compare(&full, None).0.equals_full);
    drop((mounted, over));
    bench.write("data/c", "c");
    let made = differential_is_exact(&bench, &full);
    assert!(state(&full, Some(&made)).contains_key(&b"data/c"[..]), "nothing is expected to be mounted there any more");
}

#[test]
fn what_another_file_system_hides_is_not_taken_for_deleted() {
    let mut bench = Bench::new();
    bench.rules = Rules { one_file_system: true, ..Rules::default() };
    bench.write("place/hidden", "hidden");
    let full = bench.full();
    let Some(mounted) = Mounted::new("tmpfs", &bench.at("place")) else { return };
    let (found, made) = bench.differential(&full, None);
    assert_eq!((found.figures.stale, found.figures.removed), (1, 0));
    assert!(state(&full, Some(&made)).contains_key(&b"place/hidden"[..]));
    drop(mounted);
}

#[test]
fn a_kernel_object_mounted_on_a_file_is_left_out_whatever_the_selection_says() {
    let bench = Bench::new();
    bench.write("netns", "");
    let Some(mounted) = Mounted::bind(Path::new("/proc/self/ns/net"), &bench.at("netns")) else { return };
    let full = bench.full();
    assert_eq!((full.notes.warning_count, paths(&full)), (0, vec![String::new()]));
    assert_eq!(told(&full.notes), [(LeftOutBy::KernelFileSystem, "", 1, 0, 0)]);
    drop(mounted);
}

#[test]
fn every_rule_counts_what_it_left_out_once_and_a_full_counts_as_a_differential_does() {
    let mut bench = Bench::new();
    bench.excludes = vec!["*.tmp".to_owned(), "!keep.tmp".to_owned(), "out/".to_owned(), "never".to_owned()];
    bench.rules =
        Rules { caches: true, if_present: vec![".nobackup".to_owned()], larger_than: Some(100), ..Rules::default() };
    for name in ["a", "1.tmp", "x/22.tmp", "x/keep.tmp", "out/not-counted", "m/.nobackup", "m/not-counted"] {
        bench.write(name, name);
    }
    bench.write("big", vec![0; 500]);
    bench.write("big.tmp", vec![0; 500]);
    bench.write("c/CACHEDIR.TAG", SIGNATURE);
    let _socket = std::os::unix::net::UnixListener::bind(bench.at("socket")).unwrap();
    let wanted = [
        (LeftOutBy::Pattern, "*.tmp", 3, 0, 5 + 8 + 500),
        (LeftOutBy::Pattern, "out/", 0, 1, 0),
        (LeftOutBy::IfPresent, ".nobackup", 0, 1, 0),
        (LeftOutBy::Cache, "", 0, 1, 0),
        (LeftOutBy::LargerThan, "100", 1, 0, 500),
        (LeftOutBy::Socket, "", 1, 0, 0),
    ];
    let full = bench.full();
    assert_eq!(told(&full.notes), wanted);
    assert_eq!(told(&bench.compare(&full, None).1), wanted);
    assert_eq!(fs::symlink_metadata(bench.at("big")).unwrap().size(), 500);
    assert_eq!(entry(&full, "x/keep.tmp").unwrap().kind, Kind::File);
}

#[test]
fn a_file_that_was_mounted_over_is_counted_once_though_it_is_the_same_file() {
    let mut bench = Bench::new();
    bench.rules = Rules { one_file_system: true, ..Rules::default() };
    bench.write("a", "a");
    let full = bench.full();
    let Some(mounted) = Mounted::bind(&bench.at("a"), &bench.at("a")) else { return };
    let (_, notes) = bench.compare(&full, None);
    assert_eq!(told(&notes), [(LeftOutBy::OtherFileSystem, "", 1, 0, 1)]);
    drop(mounted);
}
