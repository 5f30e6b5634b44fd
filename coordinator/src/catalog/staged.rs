//! What was staged of indexes that have been taken in: it is dropped after the merge, and not by it, because that takes as long as a good
//! part of the merge and nobody waits for it.
//!
//! Invariant: staged rows of a backup that waits for its index are never dropped here. Whoever makes a backup wait again holds the same
//! lock of its job, and drops what was staged before.

use super::error::Result;
use super::merge::TRY_LOCK;
use super::pool::{Catalog, Sql};
use super::row::get;

/// Backups looked after in one pass.
const MAX_BACKUPS: i64 = 1000;

const TAKEN_IN: Sql = Sql("
    SELECT DISTINCT b.backup, b.job FROM staged_blocks s JOIN backups b ON b.backup = s.backup
    WHERE b.searchable <> 'pending' LIMIT $1");

// The staging tables are not logged and belong to nobody else: emptied at once where only this backup has something there.
const ALONE: Sql = Sql("LOCK TABLE staged_blocks, staged_entries IN ACCESS EXCLUSIVE MODE NOWAIT");
const OTHERS: Sql = Sql("SELECT EXISTS (SELECT FROM staged_blocks WHERE backup <> $1) AS found");
const EMPTY: Sql = Sql("TRUNCATE staged_blocks, staged_entries");

const STILL_WANTED: Sql =
    Sql("SELECT EXISTS (SELECT FROM backups WHERE backup = $1 AND searchable || '' = 'pending') AS found");

const DROP_ENTRIES: Sql = Sql("DELETE FROM staged_entries WHERE backup = $1");
const DROP_BLOCKS: Sql = Sql("DELETE FROM staged_blocks WHERE backup = $1");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("TAKEN_IN", &TAKEN_IN),
    ("ALONE", &ALONE),
    ("OTHERS", &OTHERS),
    ("EMPTY", &EMPTY),
    ("STILL_WANTED", &STILL_WANTED),
    ("DROP_ENTRIES", &DROP_ENTRIES),
    ("DROP_BLOCKS", &DROP_BLOCKS),
];

impl Catalog {
    /// Drops what was staged of backups that have been taken in and that a coordinator left behind. Answers how many they were.
    pub async fn drop_staged_of_taken_in(&self) -> Result<u64> {
        let left = self.connection().await?.query(&TAKEN_IN, &[&MAX_BACKUPS]).await?;
        let mut dropped = 0;
        for row in &left {
            dropped += u64::from(self.drop_staged(get(row, "job")?, get(row, "backup")?).await?);
        }
        Ok(dropped)
    }

    /// Drops what was staged of a backup that does not wait for its index. False: it waits, or somebody is at its job.
    pub(super) async fn drop_staged(&self, job: i32, backup: i64) -> Result<bool> {
        if self.empty_if_alone(job, backup).await? {
            return Ok(true);
        }
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let may = may_drop(&transaction, job, backup).await?;
        if may {
            transaction.execute(&DROP_ENTRIES, &[&backup]).await?;
            transaction.execute(&DROP_BLOCKS, &[&backup]).await?;
            transaction.commit().await?;
        }
        Ok(may)
    }

    async fn empty_if_alone(&self, job: i32, backup: i64) -> Result<bool> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        if !may_drop(&transaction, job, backup).await? {
            return Ok(false);
        }
        // Somebody stages something just now.
        if transaction.execute(&ALONE, &[]).await.is_err() {
            return Ok(false);
        }
        let row = transaction.query_opt(&OTHERS, &[&backup]).await?;
        if row.map_or(Ok(true), |row| get(&row, "found"))? {
            return Ok(false);
        }
        transaction.execute(&EMPTY, &[]).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

async fn may_drop(transaction: &super::pool::Transaction<'_>, job: i32, backup: i64) -> Result<bool> {
    let row = transaction.query_opt(&TRY_LOCK, &[&job]).await?;
    if !row.map_or(Ok(false), |row| get(&row, "locked"))? {
        return Ok(false);
    }
    let row = transaction.query_opt(&STILL_WANTED, &[&backup]).await?;
    Ok(!row.map_or(Ok(true), |row| get::<bool>(&row, "found"))?)
}
