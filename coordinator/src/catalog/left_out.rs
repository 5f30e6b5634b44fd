//! What the rules of a selection left out of a backup run. Written once, by the commit of the run's backup.

use coord_shared::ids::RunId;
use coord_shared::left_out::LeftOutBy;
use tokio_postgres::Row;

use super::error::Result;
use super::pool::{Catalog, Sql, Transaction};
use super::row::{big, count, get, word};

/// What one rule left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOutRecord {
    /// Which rule.
    pub by: LeftOutBy,
    /// The pattern, the marker's name, the largest size in bytes; may be empty.
    pub detail: String,
    /// Names that are no folders.
    pub files: u64,
    /// Folders, each counted once: what is in them was not looked at.
    pub folders: u64,
    /// Bytes of the regular files.
    pub bytes: u64,
}

const PUT: Sql = Sql("
    INSERT INTO run_left_out (run_id, position, rule, detail, files, folders, bytes)
    SELECT $1, n, rule, detail, files, folders, bytes
    FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
        WITH ORDINALITY AS said (rule, detail, files, folders, bytes, n)");

const OF_RUN: Sql = Sql("
    SELECT rule, detail, files, folders, bytes FROM run_left_out WHERE run_id = $1 ORDER BY position LIMIT 2000");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("PUT", &PUT), ("OF_RUN", &OF_RUN)];

/// Writes what a run left out, in the given order.
pub(super) async fn put(transaction: &Transaction<'_>, run: RunId, left_out: &[LeftOutRecord]) -> Result<()> {
    if left_out.is_empty() {
        return Ok(());
    }
    let counts = |pick: fn(&LeftOutRecord) -> u64| {
        left_out.iter().map(|record| big(pick(record), "a count of what was left out")).collect::<Result<Vec<i64>>>()
    };
    let rules: Vec<&str> = left_out.iter().map(|record| record.by.as_str()).collect();
    let details: Vec<&str> = left_out.iter().map(|record| record.detail.as_str()).collect();
    let (files, folders, bytes) =
        (counts(|record| record.files)?, counts(|record| record.folders)?, counts(|record| record.bytes)?);
    transaction.execute(&PUT, &[&run.uuid(), &rules, &details, &files, &folders, &bytes]).await?;
    Ok(())
}

fn read(row: &Row) -> Result<LeftOutRecord> {
    Ok(LeftOutRecord {
        by: word(row, "rule")?,
        detail: get(row, "detail")?,
        files: count(row, "files")?,
        folders: count(row, "folders")?,
        bytes: count(row, "bytes")?,
    })
}

impl Catalog {
    /// What a run left out, by rule; empty for what is no backup, has not committed, or is older than the figures.
    pub async fn run_left_out(&self, run: RunId) -> Result<Vec<LeftOutRecord>> {
        let rows = self.connection().await?.query(&OF_RUN, &[&run.uuid()]).await?;
        rows.iter().map(read).collect()
    }
}
