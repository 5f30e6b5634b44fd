//! The one checker that every injected fault ends with: catalog, archives and restored trees, each held against the others.
//!
//! It asks the catalog itself and reads the archives where they are; it takes nobody's word. What it can find is [`Rule`]; a test plants a
//! violation of each kind and sees it found. A fleet is checked when it has settled: then an open run is a violation too.

mod archives;
mod catalog;
mod points;
mod question;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::faults::host::Host;
use crate::tree::compare::{Tolerance, compare_trees};

pub use catalog::{NEVER, catalog};
pub use question::{Catalog, unfinished};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A due instant of a job has one run of a kind.
    DueOnce,
    /// No due instant between the first and the newest of a job is without its run.
    DueInstantKept,
    /// Every run has an end.
    RunEnded,
    /// A run that did not succeed says why.
    ReasonGiven,
    /// A run leaves at most one backup.
    OneBackup,
    /// A backup run that succeeded left a backup.
    SuccessHasBackup,
    /// A backup's run succeeded.
    BackupHasSuccess,
    /// A run's attempts are 1, 2, 3, ..., and the run's own number is the last of them.
    AttemptsInOrder,
    /// Only the newest attempt of a run commits, and it is the one that the backup names.
    NewestAttemptCommits,
    /// A run's events follow each other in attempts that only grow.
    EventsInOrder,
    /// A backup is searchable, or says why not.
    SearchableOrReason,
    /// A backup's archive is where the catalog says.
    ArchiveThere,
    /// It is the one that the catalog names, by digest and length.
    ArchiveSame,
    /// Every byte of it passes verification.
    ArchiveGood,
    /// A sealed archive belongs to a backup.
    ArchiveWanted,
    /// Nothing half-written is left.
    NothingHalfWritten,
    /// A restore point has the tree that was there at its time.
    PointExact,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 17] = [
        Rule::DueOnce,
        Rule::DueInstantKept,
        Rule::RunEnded,
        Rule::ReasonGiven,
        Rule::OneBackup,
        Rule::SuccessHasBackup,
        Rule::BackupHasSuccess,
        Rule::AttemptsInOrder,
        Rule::NewestAttemptCommits,
        Rule::EventsInOrder,
        Rule::SearchableOrReason,
        Rule::ArchiveThere,
        Rule::ArchiveSame,
        Rule::ArchiveGood,
        Rule::ArchiveWanted,
        Rule::NothingHalfWritten,
        Rule::PointExact,
    ];
}

/// A rule that is broken, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// By what.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// A tree that was recorded.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Of which host.
    pub host: String,
    /// Since when the host's tree was so.
    pub since: Timestamp,
    /// A copy.
    pub tree: PathBuf,
}

/// What is checked.
pub struct Ground<'a> {
    /// The catalog.
    pub url: &'a str,
    /// `coord-agent`, which verifies and unpacks.
    pub agent_program: PathBuf,
    /// The hosts, which say where their files are.
    pub hosts: BTreeMap<&'a str, &'a dyn Host>,
    /// What was there, oldest first.
    pub states: &'a [Recorded],
    /// For what is unpacked.
    pub scratch: &'a Path,
}

/// How much was found to be right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Runs in the catalog.
    pub runs: u64,
    /// Of them, due by a schedule.
    pub due_runs: u64,
    /// Attempts beyond the first of each run.
    pub repeated: u64,
    /// Restore points.
    pub points: u64,
    /// Archives that were verified.
    pub archives: u64,
    /// Restore points whose tree was compared with what was recorded.
    pub trees: u64,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, due_runs, repeated, points, archives, trees } = self;
        write!(
            f,
            "{runs} runs ({due_runs} due, {repeated} further attempts), {points} restore points, {archives} archives verified, {trees} trees compared"
        )
    }
}

/// Checks everything.
///
/// # Errors
/// Every violation, one a line; or why something cannot be looked at.
pub fn check(ground: &Ground<'_>) -> Result<Checked, String> {
    let (checked, violations) = look(ground)?;
    if violations.is_empty() {
        return Ok(checked);
    }
    Err(violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// Looks at everything and gives what is broken.
///
/// # Errors
/// Why something cannot be looked at.
pub fn look(ground: &Ground<'_>) -> Result<(Checked, Vec<Violation>), String> {
    let asked = Catalog::connect(ground.url)?;
    let (mut checked, mut violations) = (asked.count()?, catalog(&asked)?);
    let backups = asked.backups()?;
    violations.extend(archives::check(ground, &backups, &mut checked)?);
    // What cannot be read has no tree.
    if violations.is_empty() {
        violations.extend(points::check(ground, &backups, &mut checked)?);
    }
    Ok((checked, violations))
}

/// In what two trees differ, for a person.
///
/// # Errors
/// A tree cannot be read.
pub fn differences(recorded: &Path, restored: &Path) -> Result<Vec<String>, String> {
    // The folder that is restored into belongs to whoever made it.
    let tolerance =
        Tolerance { ignore_owners: !rustix::process::geteuid().is_root(), ignore_root: true, ..Tolerance::default() };
    let found =
        compare_trees(recorded, restored, tolerance).map_err(|error| format!("{}: {error}", restored.display()))?;
    Ok(found.iter().map(ToString::to_string).collect())
}
