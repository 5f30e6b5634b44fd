//! The backup runs of a job that succeeded, with what the engine was told and what they left: the history that is replayed.

use coord_shared::ids::{BackupId, JobId};
use coord_shared::level::Level;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::error::Result;
use super::pool::{Catalog, Params, Sql};
use super::row::{count, get, word};
use crate::domain::replay::LeftBackup;

/// A backup run that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedRun {
    /// What the engine was told before the scan; none where no decision is stored.
    pub before: Option<serde_json::Value>,
    /// What it was told after it.
    pub after: Option<serde_json::Value>,
    /// What the run left.
    pub left: LeftBackup,
}

/// Runs of one job answered at most: more than a year of hourly ones.
pub const MAX_RECORDED: i64 = 10_000;

const OF_JOB: Sql = Sql("
    SELECT b.backup_id, b.level, b.captured_at, b.source_bytes, b.archive_of = b.backup AS has_archive, b.content_bytes,
           b.stored_bytes, least(b.scan_ms::numeric + b.pack_ms + b.seal_ms + b.verify_ms, $4::bigint)::bigint AS ms,
           before.inputs AS before, after.inputs AS after
    FROM backups b
    JOIN jobs j ON j.job = b.job
    LEFT JOIN decisions before
        ON before.run_id = b.run_id AND before.attempt = b.attempt AND before.stage = 'before_scan'
    LEFT JOIN decisions after ON after.run_id = b.run_id AND after.attempt = b.attempt AND after.stage = 'after_scan'
    WHERE j.job_id = $1 AND b.captured_at >= $2
    ORDER BY b.seq DESC LIMIT $3");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("OF_JOB", &OF_JOB)];

fn read(row: &Row) -> Result<RecordedRun> {
    let level: Level = word(row, "level")?;
    let has_archive: bool = get(row, "has_archive")?;
    let own = |bytes: u64| if has_archive { bytes } else { 0 };
    Ok(RecordedRun {
        before: get(row, "before")?,
        after: get(row, "after")?,
        left: LeftBackup {
            id: BackupId::from_uuid(get(row, "backup_id")?),
            level,
            captured_at: get(row, "captured_at")?,
            source_bytes: count(row, "source_bytes")?,
            content_bytes: own(count(row, "content_bytes")?),
            stored_bytes: own(count(row, "stored_bytes")?),
            ms: count(row, "ms")?,
        },
    })
}

impl Catalog {
    /// The newest recorded runs of a job whose backup is of `since` or later, oldest first.
    pub async fn recorded_runs(&self, job: JobId, since: Timestamp) -> Result<Vec<RecordedRun>> {
        let params: Params<'_> = &[&job.uuid(), &since, &MAX_RECORDED, &i64::MAX];
        let rows = self.connection().await?.query(&OF_JOB, params).await?;
        rows.iter().rev().map(read).collect()
    }
}
