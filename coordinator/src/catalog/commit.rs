//! The commit of a backup. Invariant: the run's success, the restore point and the job's newest ordinal are one transaction, and at
//! most one attempt of a run gets there. A commit that is repeated answers what is stored.

use coord_archive::digest::Digest;
use coord_shared::failpoint;
use coord_shared::ids::{Attempt, BackupId, HostId, Ordinal, RunId, Seq, SessionNumber};
use coord_shared::level::Level;
use coord_shared::run::{Event, Illegal, RunKind, RunState};
use jiff::Timestamp;
use tokio_postgres::Row;

use super::backups::{BackupStatus, Codec};
use super::error::{CatalogError, Result};
use super::leases::adopt_planned;
use super::left_out::{self, LeftOutRecord};
use super::pool::{Catalog, Params, Sql, Transaction};
use super::records::CheckRecord;
use super::reports::{SET_RESULT, take};
use super::row::{big, get, int, to_json};
use super::runs::{LockedRun, StepContext, Transition, lock_of_host, step};
use crate::domain::bottleneck::Effort;

/// A backup with an archive of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct SealedBackup {
    /// Full or differential.
    pub level: Level,
    /// The full that a differential stands on.
    pub base: Option<BackupId>,
    /// The archive folder on the host that wrote it.
    pub location_folder: Vec<u8>,
    /// The archive's name below the folder.
    pub location_key: String,
    /// Digest of the stored archive.
    pub archive_digest: Digest,
    /// Its size.
    pub stored_bytes: u64,
    /// How it is compressed.
    pub codec: Codec,
    /// Digest of sources and excludes.
    pub selection_digest: Vec<u8>,
    /// Entries in its index.
    pub entries: u64,
    /// Files in its index.
    pub files: u64,
    /// Bytes of content in it, before compression.
    pub content_bytes: u64,
    /// Files in the sources.
    pub source_files: u64,
    /// Bytes in the sources.
    pub source_bytes: u64,
    /// Files that changed since the base.
    pub changed_files: u64,
    /// Bytes of them.
    pub changed_bytes: u64,
    /// Names that are gone since the base.
    pub removed: u64,
    /// Blocks of its index.
    pub index_blocks: u64,
    /// What could not be read.
    pub unreadable: u64,
    /// What changed while it was read.
    pub changed_while_read: u64,
    /// Milliseconds of the scan.
    pub scan_ms: u64,
    /// Milliseconds of packing.
    pub pack_ms: u64,
    /// Milliseconds of sealing.
    pub seal_ms: u64,
    /// How the packing threads spent their time, if the agent said so.
    pub effort: Option<Effort>,
}

/// A restore point without an archive: nothing changed since `newest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnchangedBackup {
    /// The chain's newest backup, whose state this one has.
    pub newest: BackupId,
    /// Files in the sources.
    pub source_files: u64,
    /// Bytes in the sources.
    pub source_bytes: u64,
    /// Milliseconds of the scan.
    pub scan_ms: u64,
}

/// What the attempt left.
#[derive(Debug, Clone, PartialEq)]
pub enum Left {
    /// An archive.
    Sealed(Box<SealedBackup>),
    /// Only a restore point.
    Unchanged(UnchangedBackup),
}

/// The final report of a backup that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// Who reports: from the certificate.
    pub host: HostId,
    /// Over which session.
    pub session: SessionNumber,
    /// Of which run.
    pub run: RunId,
    /// Of which attempt.
    pub attempt: Attempt,
    /// The report's number.
    pub sequence: u64,
    /// The restore point's id, as in the archive's header.
    pub backup: BackupId,
    /// The agent's number of it.
    pub ordinal: Ordinal,
    /// Start, corrected by the clock offset.
    pub started_at: Timestamp,
    /// End of reading, corrected by the clock offset.
    pub captured_at: Timestamp,
    /// The correction, in microseconds.
    pub clock_offset_us: i64,
    /// What it left.
    pub left: Left,
    /// The checks of the verification.
    pub checks: Vec<CheckRecord>,
    /// Milliseconds of the verification.
    pub verify_ms: u64,
    /// Notes in all.
    pub warnings_total: u64,
    /// What the scan left out, by rule.
    pub left_out: Vec<LeftOutRecord>,
    /// Why its level, where the host chose it.
    pub level_reason: Option<String>,
}

/// What came of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The restore point exists now.
    Committed(Seq),
    /// It existed before: this very commit was repeated.
    AlreadyThere(Seq),
    /// This attempt does not count any more; nothing was written.
    Refused(Illegal),
    /// The run succeeded with another backup before.
    OtherBackup(BackupId),
}

/// Why a backup is not searchable whose turn had passed when it was committed.
pub(super) const OVERTAKEN_REASON: &str = "it was committed after the entries of a later backup were taken in";

const LOCK_JOB: Sql = Sql("
    SELECT job, host, ingested_seq, (SELECT version FROM policies p WHERE p.policy = j.policy) AS version
    FROM jobs j WHERE job = $1 FOR NO KEY UPDATE");

const RAISE_ORDINAL: Sql = Sql("UPDATE jobs SET last_ordinal = greatest(last_ordinal, $2) WHERE job = $1");

const BASE: Sql = Sql("SELECT backup FROM backups WHERE backup_id = $1 AND job = $2 AND level = 'full'");

const NEXT_KEY: Sql = Sql("SELECT nextval(pg_get_serial_sequence('backups', 'backup')) AS key");

const SEQ_OF: Sql = Sql("SELECT seq FROM backups WHERE backup_id = $1 AND run_id = $2");

// The clock of the host is known within the time of a question and its answer: nothing was captured after it was committed.
const INSERT: Sql = Sql("
    INSERT INTO backups (backup, backup_id, host, job, seq, ordinal, level, base, archive_of, run_id, attempt, policy_version,
        location_folder, location_key, archive_digest, stored_bytes, codec, selection_digest, started_at, captured_at,
        clock_offset_us, entries, files, content_bytes, source_files, source_bytes, changed_files, changed_bytes, removed,
        index_blocks, unreadable, changed_while_read, scan_ms, pack_ms, seal_ms, verify_ms, status, searchable,
        searchable_reason, checks, effort, verified_at)
    OVERRIDING SYSTEM VALUE
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $1, $9, $10, $11, $12, $13, $14, $15, $16, $17, least($18, now()),
        least($19, now()), $20, $21, $22, $23, $24,
        $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, now())");

// What the point has of its own, beside what it shares with the one whose state it has.
const INSERT_UNCHANGED: Sql = Sql("
    INSERT INTO backups (backup, backup_id, host, job, seq, ordinal, level, base, archive_of, run_id, attempt, policy_version,
        location_folder, location_key, archive_digest, stored_bytes, codec, selection_digest, started_at, captured_at,
        clock_offset_us, entries, files, content_bytes, source_files, source_bytes, changed_files, changed_bytes, removed,
        index_blocks, unreadable, changed_while_read, scan_ms, pack_ms, seal_ms, verify_ms, status, searchable,
        searchable_reason, checks, verified_at)
    OVERRIDING SYSTEM VALUE
    SELECT $1, $2, n.host, n.job, $3, $4, 'differential', coalesce(n.base, n.backup), n.archive_of, $5, $6, $7,
        n.location_folder, n.location_key, n.archive_digest, n.stored_bytes, n.codec, n.selection_digest, least($8, now()), least($9, now()),
        $10, n.entries, n.files, 0, $11, $12, 0, 0, 0,
        0, n.unreadable, n.changed_while_read, $13, 0, 0, 0, n.status, $14,
        $15, n.checks, n.verified_at
    FROM backups n WHERE n.backup_id = $16 AND n.job = $17");

const SET_BACKUP: Sql = Sql("
    UPDATE runs SET backup_id = $2, level = coalesce($3, level), reason = coalesce($4, reason) WHERE run_id = $1");

// What the host did by itself is not owed any more. Of several missed runs one may make up for all, so that only the newest settles it.
const SETTLE_MISSED: Sql = Sql("
    UPDATE jobs j SET owed_runs = owed_runs - 1, owed_from = CASE WHEN owed_runs > 1 THEN owed_from END
    FROM runs r
    WHERE j.job = $1 AND r.run_id = $2 AND j.owed_runs > 0 AND (j.owed_runs > 1 OR r.due_at >= j.owed_due_at)");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("LOCK_JOB", &LOCK_JOB),
    ("RAISE_ORDINAL", &RAISE_ORDINAL),
    ("BASE", &BASE),
    ("NEXT_KEY", &NEXT_KEY),
    ("SEQ_OF", &SEQ_OF),
    ("INSERT", &INSERT),
    ("INSERT_UNCHANGED", &INSERT_UNCHANGED),
    ("SET_BACKUP", &SET_BACKUP),
    ("SETTLE_MISSED", &SETTLE_MISSED),
];

struct LockedJob {
    job: i32,
    host: i32,
    policy_version: i64,
    ingested_seq: i32,
}

fn read_job(row: &Row, run: &LockedRun) -> Result<LockedJob> {
    Ok(LockedJob {
        job: get(row, "job")?,
        host: get(row, "host")?,
        policy_version: run.policy_version.map_or_else(|| get(row, "version"), Ok)?,
        ingested_seq: get(row, "ingested_seq")?,
    })
}

impl Catalog {
    /// Commits a backup: the run succeeds and the restore point exists, or neither.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] for a run of another host, or a base that is no full of the job; [`CatalogError::Taken`] when the
    /// ordinal or the id belongs to another backup.
    pub async fn commit_backup(&self, commit: &Commit) -> Result<Committed> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        adopt_planned(&transaction, commit.run, commit.host).await?;
        let run = lock_of_host(&transaction, commit.run, commit.host).await?;
        let run = run.ok_or_else(|| CatalogError::not_found("run", commit.run))?;
        let (RunKind::Backup, Some(job)) = (run.kind, run.job) else {
            return Err(CatalogError::not_found("backup run", commit.run));
        };
        if run.machine.state == RunState::Succeeded && run.machine.attempt == commit.attempt {
            return already(&transaction, &run, commit).await;
        }
        let context = StepContext { session: Some(commit.session), ..StepContext::default() };
        let event = Event::Succeeded(commit.attempt);
        match step(&transaction, &run, event, &context).await? {
            Transition::Updated(_) | Transition::AlreadyThere(_) => {}
            Transition::Refused(illegal) => return Ok(Committed::Refused(illegal)),
        }
        take(&transaction, commit.run, commit.attempt, commit.sequence).await?;
        let row = transaction.query_opt(&LOCK_JOB, &[&job]).await?;
        let job = read_job(&row.ok_or_else(|| CatalogError::not_found("job of run", commit.run))?, &run)?;
        // The order of ordinals is the order of the job's backups, so the ordinal itself serves.
        let seq = int(commit.ordinal.get(), "ordinal")?;
        let level = match &commit.left {
            Left::Sealed(sealed) => {
                insert_sealed(&transaction, &job, commit, sealed).await?;
                sealed.level
            }
            Left::Unchanged(unchanged) => {
                insert_unchanged(&transaction, &job, commit, unchanged).await?;
                Level::Differential
            }
        };
        transaction.execute(&RAISE_ORDINAL, &[&job.job, &i64::from(seq)]).await?;
        let params: Params<'_> = &[&commit.run.uuid(), &commit.backup.uuid(), &level.as_str(), &commit.level_reason];
        transaction.execute(&SET_BACKUP, params).await?;
        if run.machine.state == RunState::Missed {
            transaction.execute(&SETTLE_MISSED, &[&job.job, &commit.run.uuid()]).await?;
        }
        let (attempt, total) = (int(commit.attempt.get(), "attempt")?, big(commit.warnings_total, "warnings")?);
        let result: Option<serde_json::Value> = None;
        transaction.execute(&SET_RESULT, &[&commit.run.uuid(), &attempt, &result, &total]).await?;
        left_out::put(&transaction, commit.run, &commit.left_out).await?;
        failpoint::reach("coordinator.commit.uncommitted");
        transaction.commit().await?;
        failpoint::reach("coordinator.commit.committed");
        Ok(Committed::Committed(Seq(i64::from(seq))))
    }
}

async fn already(transaction: &Transaction<'_>, run: &LockedRun, commit: &Commit) -> Result<Committed> {
    match run.backup {
        Some(backup) if backup != commit.backup => Ok(Committed::OtherBackup(backup)),
        Some(_) | None => {
            let row = transaction.query_opt(&SEQ_OF, &[&commit.backup.uuid(), &commit.run.uuid()]).await?;
            let row = row.ok_or_else(|| CatalogError::not_found("backup", commit.backup))?;
            Ok(Committed::AlreadyThere(Seq(i64::from(get::<i32>(&row, "seq")?))))
        }
    }
}

/// Whether the new backup's entries can still be taken in order.
fn searchable(job: &LockedJob, seq: i32) -> (&'static str, &'static str) {
    if seq > job.ingested_seq { ("pending", "") } else { ("not_searchable", OVERTAKEN_REASON) }
}

async fn next_key(transaction: &Transaction<'_>) -> Result<i64> {
    let row = transaction.query_opt(&NEXT_KEY, &[]).await?;
    get(&row.ok_or_else(|| CatalogError::not_found("key", "backups"))?, "key")
}

async fn insert_sealed(
    transaction: &Transaction<'_>,
    job: &LockedJob,
    commit: &Commit,
    sealed: &SealedBackup,
) -> Result<()> {
    let base: Option<i64> = match (sealed.level, sealed.base) {
        (Level::Full, _) => None,
        (Level::Differential, None) => return Err(CatalogError::not_found("base of backup", commit.backup)),
        (Level::Differential, Some(base)) => {
            let row = transaction.query_opt(&BASE, &[&base.uuid(), &job.job]).await?;
            Some(get(&row.ok_or_else(|| CatalogError::not_found("full backup of the job", base))?, "backup")?)
        }
    };
    let key = next_key(transaction).await?;
    let seq = int(commit.ordinal.get(), "ordinal")?;
    let (searchable, reason) = searchable(job, seq);
    let status = BackupStatus::of(&commit.checks);
    let checks = to_json(&commit.checks)?;
    let counts = [
        sealed.entries,
        sealed.files,
        sealed.content_bytes,
        sealed.source_files,
        sealed.source_bytes,
        sealed.changed_files,
        sealed.changed_bytes,
        sealed.removed,
        sealed.index_blocks,
        sealed.unreadable,
        sealed.changed_while_read,
        sealed.scan_ms,
        sealed.pack_ms,
        sealed.seal_ms,
        commit.verify_ms,
    ];
    let counts = counts.into_iter().map(|value| big(value, "a count of the backup")).collect::<Result<Vec<i64>>>()?;
    let (id, run) = (commit.backup.uuid(), commit.run.uuid());
    let (ordinal, stored) = (i64::from(seq), big(sealed.stored_bytes, "stored bytes")?);
    let attempt = int(commit.attempt.get(), "attempt")?;
    let digest = sealed.archive_digest.0.as_slice();
    let (level, codec, status) = (sealed.level.as_str(), sealed.codec.as_str(), status.as_str());
    let mut params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![
        &key,
        &id,
        &job.host,
        &job.job,
        &seq,
        &ordinal,
        &level,
        &base,
        &run,
        &attempt,
        &job.policy_version,
        &sealed.location_folder,
        &sealed.location_key,
        &digest,
        &stored,
        &codec,
        &sealed.selection_digest,
        &commit.started_at,
        &commit.captured_at,
        &commit.clock_offset_us,
    ];
    params.extend(counts.iter().map(|value| value as &(dyn tokio_postgres::types::ToSql + Sync)));
    let effort = sealed.effort.as_ref().map(to_json).transpose()?;
    params.extend([&status as &(dyn tokio_postgres::types::ToSql + Sync), &searchable, &reason, &checks, &effort]);
    transaction.execute(&INSERT, &params).await?;
    Ok(())
}

async fn insert_unchanged(
    transaction: &Transaction<'_>,
    job: &LockedJob,
    commit: &Commit,
    unchanged: &UnchangedBackup,
) -> Result<()> {
    let key = next_key(transaction).await?;
    let seq = int(commit.ordinal.get(), "ordinal")?;
    let (searchable, reason) = searchable(job, seq);
    let ordinal = i64::from(seq);
    let attempt = int(commit.attempt.get(), "attempt")?;
    let files = big(unchanged.source_files, "source files")?;
    let bytes = big(unchanged.source_bytes, "source bytes")?;
    let scan = big(unchanged.scan_ms, "scan time")?;
    let params: Params<'_> = &[
        &key,
        &commit.backup.uuid(),
        &seq,
        &ordinal,
        &commit.run.uuid(),
        &attempt,
        &job.policy_version,
        &commit.started_at,
        &commit.captured_at,
        &commit.clock_offset_us,
        &files,
        &bytes,
        &scan,
        &searchable,
        &reason,
        &unchanged.newest.uuid(),
        &job.job,
    ];
    match transaction.execute(&INSERT_UNCHANGED, params).await? {
        1 => Ok(()),
        _ => Err(CatalogError::not_found("backup of the job", unchanged.newest)),
    }
}
