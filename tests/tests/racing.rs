//! Folders swapped for links, while root restores into them or backs them up, lead nobody outside.
//!
//! The long form makes a million swaps on either side: `cargo test -p fleet-tests --test racing -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coord_archive::digest::Digest;
use coord_archive::reader::ArchiveReader;
use coord_archive::unpack::{Covers, Overwrite, UnpackOptions, unpack};
use fleet_tests::harness::build::binaries;
use fleet_tests::racers::Racer;
use fleet_tests::tree::compare;

const SHORT: u64 = 10_000;
const LONG: u64 = 1_000_000;

/// Folders that are swapped; each of them is in `outside` as well.
const VICTIMS: [&str; 4] = ["one", "one/two", "one/two/three", "four"];
const FILES: usize = 24;

/// A tree, and another one of the same names beside it that is nobody's business.
struct Scene {
    folder: tempfile::TempDir,
    seed: u64,
}

impl Scene {
    fn new() -> Self {
        // Before anything moves: a build may take long.
        binaries().unwrap();
        let scene = Self { folder: tempfile::tempdir().unwrap(), seed: u64::from(std::process::id()) };
        println!("seed {}", scene.seed);
        for (tree, content) in [("inside", "of the tree"), ("outside", "of nobody's business")] {
            for victim in VICTIMS {
                let folder = scene.at(tree).join(victim);
                fs::create_dir_all(&folder).unwrap();
                for file in 0..FILES {
                    fs::write(folder.join(format!("file-{file}")), format!("{content} {file}")).unwrap();
                }
                fs::write(folder.join(format!("only-{tree}")), content).unwrap();
            }
        }
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A link that leads here leads to names that the tree has below any of its folders.
    fn outside(&self) -> PathBuf {
        let outside = self.at("outside");
        for victim in ["two", "three", "two/three"] {
            fs::create_dir_all(outside.join(victim)).unwrap();
            fs::write(outside.join(victim).join("only-outside"), "of nobody's business").unwrap();
        }
        fs::write(outside.join("only-outside"), "of nobody's business").unwrap();
        outside
    }

    /// Everything that a restore could change outside.
    fn facts(&self) -> BTreeMap<Vec<u8>, String> {
        let fact = |found: &fs::Metadata| {
            let ctime = (found.ctime(), found.ctime_nsec());
            format!("{:o} {}:{} {} {} {ctime:?}", found.mode(), found.uid(), found.gid(), found.nlink(), found.ino())
        };
        compare::list(&self.at("outside")).unwrap().iter().map(|(path, found)| (path.clone(), fact(found))).collect()
    }
}

fn agent(words: &[&str], paths: &[&Path]) -> Output {
    let mut command = Command::new(binaries().unwrap().agent);
    command.arg("archive").args(words).args(paths).output().unwrap()
}

/// Restores into a target whose folders are swapped, until there were so many swaps.
fn restore_under_fire(swaps: u64) {
    let scene = Scene::new();
    let (full, target, outside) = (scene.at("full"), scene.at("target"), scene.outside());
    let made = agent(&["create", "-q", "--source"], &[&scene.at("inside"), Path::new("--output"), &full]);
    assert!(made.status.success(), "{made:?}");
    fs::create_dir(&target).unwrap();
    let archive = ArchiveReader::open_path(&full).unwrap();
    let before = scene.facts();
    let (mut restores, mut whole) = (0_u64, 0_u64);
    let racer = Racer::start(&target, &VICTIMS, &outside, scene.seed);
    while racer.swaps() < swaps {
        let overwrite = [Overwrite::Always, Overwrite::IfChanged, Overwrite::Never][restores as usize % 3];
        let covers = |_: &[u8]| true;
        let delete_extra: Option<Covers<'_>> = (restores % 2 == 0).then_some(&covers);
        let options = UnpackOptions { overwrite, delete_extra, ..UnpackOptions::default() };
        // It may fail in any way but one.
        let ended = unpack(&archive, None, fs::File::open(&target).unwrap().into(), &options, &());
        whole += u64::from(ended.is_ok());
        restores += 1;
    }
    let made = racer.swaps();
    drop(racer);
    let after = scene.facts();
    let escapes = after.iter().filter(|(path, fact)| before.get(*path) != Some(fact)).count()
        + before.keys().filter(|path| !after.contains_key(*path)).count();
    println!("{made} swaps during {restores} restores, {whole} of which came to their end: {escapes} escapes");
    assert!(whole > 0, "no restore came to its end, which proves nothing");
    assert_eq!(escapes, 0, "{before:?}\n{after:?}");
}

/// Backs up a source whose folders are swapped, until there were so many swaps.
fn back_up_under_fire(swaps: u64) {
    let scene = Scene::new();
    let (source, full, differential) = (scene.at("inside"), scene.at("full"), scene.at("differential"));
    let outside = scene.outside();
    let racer = Racer::start(&source, &VICTIMS, &outside, scene.seed);
    let (mut archives, mut names, mut escapes) = (0, 0, 0);
    while racer.swaps() < swaps {
        let made = agent(&["create", "-q", "--source"], &[&source, Path::new("--output"), &full]);
        let base = [full.as_path(), Path::new("--source"), &source, Path::new("--output"), &differential];
        let changed = agent(&["diff", "-q", "--base"], &base);
        for (archive, ended) in [(&full, made), (&differential, changed)] {
            assert!(matches!(ended.status.code(), Some(0 | 3)), "{ended:?}");
            if !archive.exists() {
                // The racer had everything back in its place: there is no difference to archive.
                assert_eq!(archive, &differential, "{ended:?}");
                continue;
            }
            let (listed, escaped) = judge(archive);
            archives += 1;
            names += listed;
            escapes += escaped;
            fs::remove_file(archive).unwrap();
        }
    }
    let made = racer.swaps();
    drop(racer);
    println!("{made} swaps during {archives} backups of {names} names: {escapes} escapes");
    assert!(names > 10 * archives, "nothing was backed up, which proves nothing");
    assert_eq!(escapes, 0);
}

/// How many names an archive has, and how many of them come from outside.
fn judge(archive: &Path) -> (usize, usize) {
    let archive = ArchiveReader::open_path(archive).unwrap();
    let foreign: Vec<Digest> = (0..FILES)
        .map(|file| Digest::of(format!("of nobody's business {file}").as_bytes()))
        .chain([Digest::of(b"of nobody's business")])
        .collect();
    let (mut names, mut escaped) = (0, 0);
    for entry in archive.entries() {
        let entry = entry.unwrap();
        let is_foreign = entry.digest.is_some_and(|digest| foreign.contains(&digest));
        escaped += usize::from(is_foreign || entry.path.ends_with(b"only-outside"));
        names += 1;
    }
    (names, escaped)
}

#[test]
fn folders_swapped_for_links_under_a_restore_lead_it_nowhere() {
    restore_under_fire(SHORT);
}

#[test]
fn folders_swapped_for_links_under_a_backup_lead_it_nowhere() {
    back_up_under_fire(SHORT);
}

#[test]
#[ignore = "long: a million swaps"]
fn a_million_swaps_under_a_restore_lead_it_nowhere() {
    restore_under_fire(LONG);
}

#[test]
#[ignore = "long: a million swaps"]
fn a_million_swaps_under_a_backup_lead_it_nowhere() {
    back_up_under_fire(LONG);
}
