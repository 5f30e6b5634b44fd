//! A restore that is killed somewhere and run again ends as one that was never killed, and touches nothing it finds.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fleet_tests::harness::build::binaries;
use fleet_tests::tree::compare::{Tolerance, compare_trees, list};
use fleet_tests::tree::{awkward, mutate};

/// Restores, each killed twice and then run to its end.
const ROUNDS: u64 = 5;
/// How the names begin that only a running restore has.
const OWN: &[u8] = b".coord-restore-";
/// Kills must hit running restores; this many have to.
const LEAST_KILLED: u32 = 6;
/// What a restore ends with that left existing files alone which differ.
const DIFFERENT: i32 = 3;

/// A source, its full and its differential.
struct Backup {
    folder: tempfile::TempDir,
    names: usize,
}

impl Backup {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir(&source).unwrap();
        for left_out in awkward::make(&source).unwrap() {
            eprintln!("left out: {left_out}");
        }
        // Enough to be killed in: many files, and some that take a while.
        for number in 0..60 {
            let below = source.join(format!("many/{number}/deep"));
            fs::create_dir_all(&below).unwrap();
            for file in 0..30 {
                fs::write(below.join(file.to_string()), vec![b'x'; number * 100 + file]).unwrap();
            }
        }
        for number in 0..4 {
            fs::write(source.join(format!("large-{number}")), vec![number; 24 << 20]).unwrap();
        }
        let names = list(&source).unwrap().len();
        let backup = Self { folder, names };
        backup.agent(&["create", "--source", "source", "--output", "full", "--level", "1"]);
        mutate::change_everything(&source).unwrap();
        fs::write(source.join("many/7/deep/7"), "changed").unwrap();
        fs::remove_file(source.join("many/8/deep/8")).unwrap();
        backup.agent(&["diff", "--base", "full", "--source", "source", "--output", "differential"]);
        backup
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries().unwrap().agent);
        command.arg("archive").args(arguments).current_dir(self.folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn agent(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn restore(&self) -> Command {
        self.command(&["extract", "full", "differential", "--target", "target"])
    }
}

/// Names below a folder, while somebody makes more of them.
fn count(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let below = |entry: fs::DirEntry| 1 + if is_folder(&entry) { count(&entry.path()) } else { 0 };
    entries.filter_map(Result::ok).map(below).sum()
}

/// Kills a restore when so many names are there: a place in its work, however busy the machine is. Says whether it ran.
fn kill_at(mut restore: Child, target: &Path, names: usize) -> bool {
    let begun = Instant::now();
    while restore.try_wait().unwrap().is_none() && count(target) < names {
        assert!(begun.elapsed() < Duration::from_mins(2), "the restore does not get to {names} names");
    }
    restore.kill().unwrap();
    // SIGKILL, unless it was done by itself.
    restore.wait().unwrap().signal() == Some(9)
}

/// What makes a file the same file: whoever writes it again or replaces it changes one of these.
type State = (u64, i64, i64, u64);

/// The regular files that are in place; what a restore calls its own is not.
fn files(target: &Path) -> BTreeMap<Vec<u8>, State> {
    let all = list(target).unwrap().into_iter();
    let is_in_place = |path: &[u8]| !path.split(|byte| *byte == b'/').any(|name| name.starts_with(OWN));
    let files = all.filter(|(path, metadata)| metadata.is_file() && is_in_place(path));
    files.map(|(path, it)| (path, (it.ino(), it.mtime(), it.mtime_nsec(), it.size()))).collect()
}

/// Puts into the empty target what an operator may have there: a file that differs, one that is equal, one of their own.
fn furnish(backup: &Backup) {
    let target = backup.at("target");
    fs::create_dir(&target).unwrap();
    backup.agent(&["extract", "full", "differential", "--target", "target", "--path", "many/3/deep/3"]);
    fs::write(target.join("large-1"), "newer work").unwrap();
    fs::write(target.join("mine"), "in no backup").unwrap();
}

#[test]
fn a_restore_killed_anywhere_and_run_again_brings_the_same_tree_and_touches_nothing_that_is_there() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let backup = Backup::make();
    let (source, target) = (backup.at("source"), backup.at("target"));
    let tolerance = Tolerance { ignore_owners: !awkward::is_root(), ignore_root: true, ..Tolerance::default() };
    let (mut dice, mut killed) = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, 0);
    for round in 0..ROUNDS {
        furnish(&backup);
        let mut in_place = files(&target);
        for _ in 0..2 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let names = usize::try_from(dice % backup.names as u64).unwrap();
            killed += u32::from(kill_at(backup.restore().spawn().unwrap(), &target, names));
            let now = files(&target);
            for (path, state) in &in_place {
                assert_eq!(now.get(path), Some(state), "{}: round {round} of seed {seed}", path.escape_ascii());
            }
            in_place = now;
        }
        let output = backup.restore().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(DIFFERENT), "round {round} of seed {seed}: {said}");
        let now = files(&target);
        let touched: Vec<_> = in_place.iter().filter(|(path, state)| now.get(*path) != Some(state)).collect();
        assert!(touched.is_empty(), "round {round} of seed {seed}: {touched:?}");
        assert_eq!(fs::read(target.join("large-1")).unwrap(), b"newer work");
        assert_eq!(fs::read(target.join("mine")).unwrap(), b"in no backup");
        let differences = compare_trees(&source, &target, tolerance).unwrap();
        let others = differences.iter().filter(|it| ![&b"large-1"[..], b"mine"].contains(&&it.path[..]));
        let lines: Vec<_> = others.map(ToString::to_string).collect();
        assert!(lines.is_empty(), "round {round} of seed {seed}: {}", lines.join("\n"));
        fs::remove_dir_all(&target).unwrap();
    }
    println!("{killed} restores of {} were killed while they ran", 2 * ROUNDS);
    assert!(killed >= LEAST_KILLED, "{killed} restores were killed, which proves little");
}
