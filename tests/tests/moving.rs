//! Files that move under our feet: backups of a tree that eight threads keep changing.
//!
//! The long form runs for ten minutes: `cargo test -p fleet-tests --test moving -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use coord_archive::digest::Digest;
use fleet_tests::harness::build::binaries;
use fleet_tests::mutators::{self, Mutators};
use serde_json::Value;

const THREADS: u64 = 8;
/// The short form goes on until a file was caught in the middle, but no longer than this.
const PATIENCE: Duration = Duration::from_mins(3);

/// What all backups of one torture came to.
#[derive(Debug, Default)]
struct Seen {
    archives: u32,
    files: u64,
    flagged: u64,
    mixed: u64,
    by_tar: u64,
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

    /// Backs up and judges until `time` has passed, at least once with each codec, and until a file was caught in the middle.
    fn run(&mut self, time: Duration) {
        let begun = Instant::now();
        let mut round = 0;
        let is_enough = |seen: &Seen| seen.flagged > 0 || begun.elapsed() > PATIENCE.max(time);
        while round < 2 || begun.elapsed() < time || !is_enough(&self.seen) {
            let codec = if round % 2 == 0 { "zstd" } else { "gzip" };
            let (full, differential) = (self.at("full"), self.at("differential"));
            let (source, codec) = (self.source(), ["--codec", codec, "--level", "1"]);
            agent(&["create", "--source"], &[&source, Path::new("--output"), &full], &codec);
            self.judge(&full, None);
            if round < 2 {
                self.compare_with_stock_tar(&full);
            }
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

    /// What stock tar brings back of every file is what the index has a digest of, whatever happened to it meanwhile.
    fn compare_with_stock_tar(&mut self, full: &Path) {
        let by_tar = self.at("by-tar");
        fs::create_dir(&by_tar).unwrap();
        let tar = Command::new("tar").arg("-xf").arg(full).arg("-C").arg(&by_tar).output().unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        let mut files = 0;
        for entry in listed(full).iter().filter(|entry| entry["kind"] == "file") {
            let content = fs::read(by_tar.join(entry["path"].as_str().unwrap())).unwrap();
            assert_eq!(entry["size_bytes"].as_u64(), Some(content.len() as u64), "{entry}");
            let digest = entry["digest"].as_str().map(str::to_owned);
            assert_eq!(
                digest.unwrap_or_else(|| Digest::of(b"").to_string()),
                Digest::of(&content).to_string(),
                "{entry}"
            );
            files += 1;
        }
        assert!(files >= mutators::calm_files().len(), "{files} files only");
        fs::remove_dir_all(by_tar).unwrap();
        self.seen.by_tar += files as u64;
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

/// The index of an archive.
fn listed(archive: &Path) -> Vec<Value> {
    let listed = agent(&["list"], &[archive], &["-o", "json"]);
    serde_json::Deserializer::from_slice(&listed).into_iter().map(Result::unwrap).collect()
}

/// Names that the index of an archive flags as changed while they were read.
fn flagged(archive: &Path) -> HashSet<String> {
    let words = |entry: &Value| {
        entry["flags"].as_array().is_some_and(|flags| flags.iter().any(|word| word == "changed_while_read"))
    };
    listed(archive)
        .iter()
        .filter(|entry| words(entry))
        .map(|entry| entry["path"].as_str().unwrap().to_owned())
        .collect()
}

fn torture(time: Duration) {
    let seed = std::process::id();
    println!("seed {seed}");
    // Before anything moves: a build may take longer than the torture.
    binaries().unwrap();
    let mut torture = Torture::new();
    let mutators = Mutators::start(&torture.source(), THREADS, seed.into());
    torture.run(time);
    let changes = mutators.done();
    drop(mutators);
    let Seen { archives, files, flagged, mixed, by_tar } = torture.seen;
    println!(
        "{changes} changes, {archives} archives, {files} files judged, {flagged} flagged, {mixed} of them mixed, \
         {by_tar} compared with stock tar's"
    );
    assert!(changes > 0 && files > 0, "the tree did not move");
    assert!(flagged > 0, "no file was caught in the middle, which proves nothing: {changes} changes, {files} files");
}

#[test]
fn backups_of_a_tree_that_keeps_changing_lose_no_folder_and_flag_what_is_mixed() {
    torture(Duration::from_secs(8));
}

#[test]
#[ignore = "long: ten minutes"]
fn ten_minutes_of_changes_leave_no_archive_unreadable_and_no_mixture_unflagged() {
    torture(Duration::from_mins(10));
}
