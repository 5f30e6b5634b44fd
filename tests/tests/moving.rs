//! Files that move under our feet: backups of a tree that eight threads keep changing.
//!
//! The long form runs for ten minutes: `cargo test --test moving -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fleet_tests::harness::build::binaries;
use fleet_tests::mutators::{self, Mutators};

const THREADS: u64 = 8;

/// What all backups of one torture came to.
#[derive(Debug, Default)]
struct Seen {
    archives: u32,
    files: u64,
    flagged: u64,
    mixed: u64,
}

struct Torture {
    folder: tempfile::TempDir,
    seen: Seen,
}

impl Torture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("source")).unwrap();
        mutators::make(&folder.path().join("source")).unwrap();
        Self { folder, seen: Seen::default() }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Backs up and judges until `time` has passed, at least once each way.
    fn run(&mut self, time: Duration) {
        let begun = Instant::now();
        let mut round = 0;
        while round == 0 || begun.elapsed() < time {
            let codec = if round % 2 == 0 { "zstd" } else { "gzip" };
            let (full, differential) = (self.at("full"), self.at("differential"));
            let (source, codec) = (self.source(), ["--codec", codec, "--level", "1"]);
            agent(&["create", "--source"], &[&source, Path::new("--output"), &full], &codec);
            self.judge(&full, None);
            let base = [full.as_path(), Path::new("--source"), &source, Path::new("--output"), &differential];
            agent(&["diff", "--base"], &base, &codec);
            self.judge(&full, Some(&differential));
            fs::remove_file(full).unwrap();
            fs::remove_file(differential).unwrap();
            round += 1;
        }
    }

    /// Stock tar reads it, our own verification accepts it, no folder and no calm file is missing, and every file of two
    /// writings is flagged.
    fn judge(&mut self, full: &Path, differential: Option<&Path>) {
        let newest = differential.unwrap_or(full);
        let tar = Command::new("tar").arg("-tf").arg(newest).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
        agent(&["verify"], &[newest], &[]);
        let flagged = flagged(newest);
        let restored = self.at("restored");
        let archives: Vec<&Path> = [full].into_iter().chain(differential).collect();
        agent(&["extract"], &archives, &["--target", restored.to_str().unwrap()]);
        for folder in mutators::folders() {
            assert!(restored.join(&folder).is_dir(), "{folder} is lost");
        }
        for file in mutators::calm_files() {
            assert!(restored.join(&file).is_file() && !flagged.contains(&file), "{file}");
        }
        for folder in fs::read_dir(restored.join("hot")).unwrap() {
            for file in fs::read_dir(folder.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let name = path.strip_prefix(&restored).unwrap().to_str().unwrap().to_owned();
                let is_mixed = mutators::is_mixed(&fs::read(&path).unwrap());
                assert!(!is_mixed || flagged.contains(&name), "{name} is of two writings and nothing says so");
                self.seen.mixed += u64::from(is_mixed);
                self.seen.files += 1;
            }
        }
        fs::remove_dir_all(restored).unwrap();
        self.seen.flagged += flagged.len() as u64;
        self.seen.archives += 1;
    }
}

/// Runs the engine alone. Exit code 3 says that something changed while it was read.
fn agent(command: &[&str], paths: &[&Path], more: &[&str]) -> Vec<u8> {
    let output =
        Command::new(binaries().unwrap().agent).arg("archive").args(command).args(paths).args(more).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{command:?}: {:?} {error}", output.status);
    output.stdout
}

/// Names that the index of an archive flags as changed while they were read.
fn flagged(archive: &Path) -> HashSet<String> {
    let listed = agent(&["list"], &[archive], &["-o", "json"]);
    let entries = serde_json::Deserializer::from_slice(&listed).into_iter::<serde_json::Value>().map(Result::unwrap);
    let words = |entry: &serde_json::Value| {
        entry["flags"].as_array().is_some_and(|flags| flags.iter().any(|word| word == "changed_while_read"))
    };
    entries.filter(words).map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
}

fn torture(time: Duration) -> BTreeMap<&'static str, u64> {
    let seed = std::process::id();
    println!("seed {seed}");
    // Before anything moves: a build may take longer than the torture.
    binaries().unwrap();
    let mut torture = Torture::new();
    let mutators = Mutators::start(&torture.source(), THREADS, seed.into());
    torture.run(time);
    let changes = mutators.done();
    drop(mutators);
    let Seen { archives, files, flagged, mixed } = torture.seen;
    println!("{changes} changes, {archives} archives, {files} files judged, {flagged} flagged, {mixed} of them mixed");
    assert!(changes > 0 && files > 0, "the tree did not move");
    BTreeMap::from([("changes", changes), ("archives", archives.into()), ("flagged", flagged), ("mixed", mixed)])
}

#[test]
fn backups_of_a_tree_that_keeps_changing_lose_no_folder_and_flag_what_is_mixed() {
    torture(Duration::from_secs(8));
}

#[test]
#[ignore = "long: ten minutes"]
fn ten_minutes_of_changes_leave_no_archive_unreadable_and_no_mixture_unflagged() {
    let seen = torture(Duration::from_mins(10));
    assert!(seen["flagged"] > 0, "ten minutes without one file caught in the middle prove nothing: {seen:?}");
}
