//! What a simulated host does with an order: it reports as a real agent does, and makes up the figures.

use std::time::Duration;

use coord_shared::api::finished::Result as Outcome;
use coord_shared::api::run_order::Task;
use coord_shared::api::run_report::Event;
use coord_shared::api::{
    self, ArchiveChecks, ArchiveLocation, BackupResult, BackupTask, Check, Finished, RunOrder, RunReport, Scanned,
    Sealed, Started, Unchanged, VerifyResult,
};
use jiff::Timestamp;

use super::entries::{Tree, mixed};

/// Files of an ordinary host.
const FILES: u64 = 40;
/// Bytes that an ordinary host has, and that a differential of it stores.
const SOURCE_BYTES: u64 = 4_000_000_000;
const CHANGED_BYTES: u64 = 60_000_000;
/// One differential in so many finds nothing changed.
const UNCHANGED_ONE_IN: u64 = 5;
/// One file in so many has changed when something has.
const CHANGED_ONE_IN: u64 = 8;

/// How a host's runs go.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// How long a run takes.
    pub takes: Duration,
    /// Of a thousand attempts, so many fail.
    pub failing: u64,
}

/// An attempt that a host holds.
#[derive(Debug)]
pub struct Attempt {
    /// Its order.
    pub order: RunOrder,
    /// Reports that were not acknowledged yet, oldest first.
    pub unacknowledged: Vec<RunReport>,
    /// The final report is among them, or was acknowledged.
    pub finished: bool,
    /// It waits for the answer to its scan.
    pub is_deciding: bool,
    sequence: u64,
    seed: u64,
    began: Timestamp,
}

impl Attempt {
    /// Begins what was ordered: its first report waits.
    #[must_use]
    pub fn begin(order: RunOrder, seed: u64) -> Self {
        let began = Timestamp::now();
        let seed = mixed(seed, u64::from(order.attempt) ^ mixed(began.as_microsecond() as u64, 0));
        let mut attempt =
            Self { order, unacknowledged: Vec::new(), finished: false, is_deciding: false, sequence: 0, seed, began };
        attempt.report(Event::Started(Started { started_at_us: began.as_microsecond(), from_plan: None }));
        if let Some(Task::Backup(task)) = &attempt.order.task
            && task.base.is_some()
        {
            let scanned = Scanned {
                source_files: FILES,
                source_bytes: SOURCE_BYTES,
                changed_files: FILES / CHANGED_ONE_IN,
                changed_bytes: CHANGED_BYTES,
                equals_newest: attempt.is_unchanged(),
                ..Scanned::default()
            };
            attempt.is_deciding = true;
            attempt.report(Event::Scanned(scanned));
        }
        attempt
    }

    fn report(&mut self, event: Event) {
        self.sequence += 1;
        let (run_id, attempt) = (self.order.run_id.clone(), self.order.attempt);
        self.unacknowledged.push(RunReport { run_id, attempt, sequence: self.sequence, event: Some(event) });
    }

    fn is_unchanged(&self) -> bool {
        self.seed.is_multiple_of(UNCHANGED_ONE_IN)
    }

    /// How far it is, for a heartbeat.
    #[must_use]
    pub fn progress(&self) -> api::Progress {
        let phase = if self.is_deciding { api::Phase::Deciding } else { api::Phase::Packing };
        let elapsed = Timestamp::now().duration_since(self.began).as_millis().unsigned_abs() as u64;
        api::Progress {
            phase: phase.into(),
            files_done: elapsed.min(FILES),
            files_total: FILES,
            bytes_done: elapsed.saturating_mul(1000),
            bytes_total: SOURCE_BYTES,
        }
    }

    /// Ends it as its host's temper says. Answers the tree whose index goes up once it has committed.
    pub fn end(&mut self, temper: Temper) -> Option<Tree> {
        if self.finished {
            return None;
        }
        self.finished = true;
        self.is_deciding = false;
        let ended = Timestamp::now().as_microsecond();
        if mixed(self.seed, 1) % 1000 < temper.failing {
            let fault = api::Fault {
                code: "io".to_owned(),
                message: "the disk of a simulated host".to_owned(),
                ..api::Fault::default()
            };
            let failed = api::Outcome::Failed.into();
            let finished = Finished {
                outcome: failed,
                finished_at_us: ended,
                fault: Some(fault),
                retryable: true,
                ..Finished::default()
            };
            self.report(Event::Finished(finished));
            return None;
        }
        let (result, tree) = match self.order.task.take() {
            Some(Task::Backup(task)) => self.backup(&task, ended),
            Some(Task::Verify(task)) => {
                let checks = |archive: &ArchiveLocation| ArchiveChecks {
                    backup_id: archive.backup_id.clone(),
                    checks: checks(),
                };
                let archives = task.archives.iter().map(checks).collect();
                (Outcome::Verify(VerifyResult { archives, verify_ms: 50 }), None)
            }
            Some(Task::Restore(_)) | None => (Outcome::Restore(api::RestoreResult::default()), None),
        };
        let succeeded = api::Outcome::Succeeded.into();
        let finished =
            Finished { outcome: succeeded, finished_at_us: ended, result: Some(result), ..Finished::default() };
        self.report(Event::Finished(finished));
        tree
    }

    fn backup(&mut self, task: &BackupTask, ended: i64) -> (Outcome, Option<Tree>) {
        let is_full = task.base.is_none();
        let times = (self.began.as_microsecond(), ended);
        if !is_full && self.is_unchanged() {
            let unchanged = Unchanged {
                backup_id: task.backup_id.clone(),
                newest_backup_id: task.newest_backup_id.clone(),
                ordinal: task.ordinal_floor,
                started_at_us: times.0,
                captured_at_us: times.1,
                source_files: FILES,
                source_bytes: SOURCE_BYTES,
                ..Unchanged::default()
            };
            return (Outcome::Backup(BackupResult { unchanged: Some(unchanged), ..BackupResult::default() }), None);
        }
        let tree =
            Tree { seed: 0, files: FILES, turn: u64::from(!is_full) * task.ordinal_floor, one_in: CHANGED_ONE_IN };
        let index = if is_full { tree.full() } else { tree.differential() };
        let sealed = sealed(task, (index.entries, index.blocks.len() as u64), tree.files, times);
        self.report(Event::Sealed(sealed.clone()));
        let result = BackupResult { sealed: Some(sealed), checks: checks(), verify_ms: 50, ..BackupResult::default() };
        (Outcome::Backup(result), Some(tree))
    }
}

/// An archive that a host says it has sealed, with an index of so many entries and blocks.
#[must_use]
pub fn sealed(
    task: &BackupTask,
    (entries, index_blocks): (u64, u64),
    files: u64,
    (began, ended): (i64, i64),
) -> Sealed {
    let is_full = task.base.is_none();
    let level = if is_full { api::Level::Full } else { api::Level::Differential };
    let stored_bytes = if is_full { SOURCE_BYTES / 3 } else { CHANGED_BYTES / 3 };
    let location = ArchiveLocation {
        folder: b"/var/lib/coord-agent/archives".to_vec(),
        key: format!("{}/{}/{}.tar.zst", task.host_name, task.policy_name, task.backup_id),
        archive_digest: blake3::hash(task.backup_id.as_bytes()).as_bytes().to_vec(),
        stored_bytes,
        backup_id: task.backup_id.clone(),
        level: level.into(),
        codec: api::Codec::Zstd.into(),
    };
    Sealed {
        level: level.into(),
        location: Some(location),
        ordinal: task.ordinal_floor,
        backup_id: task.backup_id.clone(),
        base_backup_id: task.base.as_ref().map(|base| base.backup_id.clone()).unwrap_or_default(),
        selection_digest: vec![7; 32],
        started_at_us: began,
        captured_at_us: ended,
        entries,
        files,
        content_bytes: if is_full { SOURCE_BYTES } else { CHANGED_BYTES },
        source_files: files,
        source_bytes: SOURCE_BYTES,
        changed_files: if is_full { files } else { entries },
        changed_bytes: if is_full { SOURCE_BYTES } else { CHANGED_BYTES },
        index_blocks,
        scan_ms: 100,
        pack_ms: 400,
        seal_ms: 20,
        ..Sealed::default()
    }
}

/// The checks of an archive that is whole.
#[must_use]
pub fn checks() -> Vec<Check> {
    let check = |name: &str| Check { name: name.to_owned(), passed: true, detail: String::new() };
    ["exists", "size", "readable", "digest", "sample", "tar"].map(check).to_vec()
}
