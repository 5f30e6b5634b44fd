//! The first full of a job, placed block by block where it will stay instead of being staged and moved: half the work, for the largest
//! index that a job ever sends.
//!
//! Invariants: only a job without any entries is placed into, and one backup at a time: `jobs.placing_seq` is its seq. Until the whole index is
//! there and that is NULL again, no question sees the job's entries: lists go by searchable backups, and what asks for paths and
//! contents over all time leaves such jobs out. Later backups wait for their turn as ever. An index that is given up takes with it what
//! was placed. Entries and the note of their block are one transaction, and logged: after a crash of Postgres both are there or neither.
//!
//! Whoever changes `placing_seq` takes the job's row first and its backups after it.

use super::error::Result;
use super::ingest::BlockOutcome;
use super::pool::{Connection, Sql, Transaction};
use super::row::count;

/// A backup that is placed: by the keys of its host and job, and its seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placing {
    pub(super) host: i32,
    pub(super) job: i32,
    pub(super) seq: i32,
}

// A backup of a lower seq that is committed after this comes too late, as after a merge.
const BEGIN: Sql = Sql("
    UPDATE jobs SET placing_seq = $2, ingested_seq = $2 WHERE job = $1 AND ingested_seq = 0 AND placing_seq IS NULL");

// Waits for whoever gives it up at this moment.
const STILL_WANTED: Sql = Sql("SELECT FROM backups WHERE backup = $1 AND searchable || '' = 'pending' FOR SHARE");

const EARLIER: Sql = Sql("SELECT FROM backups WHERE job = $1 AND seq < $2 AND searchable = 'pending' LIMIT 1");

// Shared with other blocks; whoever ends the placing waits for them.
const GOES_ON: Sql = Sql("SELECT FROM jobs WHERE job = $1 AND placing_seq = $2 FOR SHARE");

const NOTE_BLOCK: Sql =
    Sql("INSERT INTO placed_blocks (backup, number, entries) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");

const PLACED: Sql = Sql("SELECT coalesce(sum(entries), 0)::bigint AS number FROM placed_blocks WHERE backup = $1");

const FORGET_BLOCKS: Sql = Sql("DELETE FROM placed_blocks WHERE backup = $1");

const END: Sql = Sql("UPDATE jobs SET placing_seq = NULL WHERE job = $1 AND placing_seq IS NOT NULL");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("BEGIN", &BEGIN),
    ("STILL_WANTED", &STILL_WANTED),
    ("EARLIER", &EARLIER),
    ("GOES_ON", &GOES_ON),
    ("NOTE_BLOCK", &NOTE_BLOCK),
    ("PLACED", &PLACED),
    ("FORGET_BLOCKS", &FORGET_BLOCKS),
    ("END", &END),
];

impl Placing {
    /// Begins it, unless something of the job is in the catalog or waits before this backup.
    pub(super) async fn begin(self, connection: &mut Connection, backup: i64) -> Result<bool> {
        let transaction = connection.begin().await?;
        if transaction.execute(&BEGIN, &[&self.job, &self.seq]).await? == 0
            || transaction.query_opt(&STILL_WANTED, &[&backup]).await?.is_none()
            || transaction.query_opt(&EARLIER, &[&self.job, &self.seq]).await?.is_some()
        {
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Notes a block whose entries are placed in this transaction.
    pub(super) async fn note_block(
        self,
        transaction: &Transaction<'_>,
        backup: i64,
        number: i64,
        entries: usize,
    ) -> Result<BlockOutcome> {
        if transaction.query_opt(&GOES_ON, &[&self.job, &self.seq]).await?.is_none() {
            return Ok(BlockOutcome::Withdrawn);
        }
        // A block has no more entries than fit.
        let entries = i32::try_from(entries).unwrap_or(i32::MAX);
        let new = transaction.execute(&NOTE_BLOCK, &[&backup, &number, &entries]).await? == 1;
        Ok(if new { BlockOutcome::Stored } else { BlockOutcome::AlreadyThere })
    }
}

/// How many entries of a backup have been placed.
pub(super) async fn placed(transaction: &Transaction<'_>, backup: i64) -> Result<u64> {
    let row = transaction.query_opt(&PLACED, &[&backup]).await?;
    row.map_or(Ok(0), |row| count(&row, "number"))
}

/// The notes of a backup's blocks are not needed any more.
pub(super) async fn forget_blocks(transaction: &Transaction<'_>, backup: i64) -> Result<()> {
    transaction.execute(&FORGET_BLOCKS, &[&backup]).await?;
    Ok(())
}

/// Ends what is placed into a job, if anything is, and waits for blocks on their way. Answers whether something was.
pub(super) async fn end(transaction: &Transaction<'_>, job: i32) -> Result<bool> {
    Ok(transaction.execute(&END, &[&job]).await? == 1)
}
