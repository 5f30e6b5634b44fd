//! Blocks of sealed indexes on their way into the catalog: checked, their folders given keys, copied to where they belong.
//!
//! Invariant: a block is stored once, in any order; nothing of it can be seen before `merge` has taken the whole index in. Most are
//! staged. Staging is not logged by Postgres: after a crash of it there is nothing staged, and [`Catalog::index_progress`] asks for
//! all again. The first full of a job is placed at once where it will stay (`placing`).

use std::collections::BTreeSet;

use coord_archive::entry::{Entry, parent};
use coord_shared::ids::{BackupId, HostId};
use futures_util::pin_mut;
use tokio_postgres::Row;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::entries::{CURRENT, EntryColumns, name};
use super::error::{CatalogError, Result};
use super::folder_keys::FolderKeys;
use super::placing::Placing;
use super::pool::{Catalog, Sql, Transaction};
use super::row::{big, count, get};

/// Entries of one block that are taken; honest blocks have some thousands.
pub const MAX_BLOCK_ENTRIES: usize = 1 << 16;
/// Flags of a version that a full begins: its content is its own.
const FLAGS_OF_FULL: i16 = !8;

/// What came of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockOutcome {
    /// It is stored.
    Stored,
    /// It was stored before.
    AlreadyThere,
    /// The index is not wanted any more, or from its first block again.
    Withdrawn,
}

/// How much of an index has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexProgress {
    /// The first block that is missing.
    pub next_block: u64,
    /// Nothing is missing, or nothing is wanted.
    pub complete: bool,
}

/// A block whose entries have been checked and turned into columns: what needs no database, and takes about as long as storing it.
#[derive(Debug)]
pub struct Block {
    entries: Vec<Entry>,
    columns: Vec<EntryColumns>,
}

impl Block {
    /// Checks the entries of a block.
    ///
    /// # Errors
    /// [`CatalogError::BadEntry`] when an entry cannot be stored: the index is not ours.
    pub fn new(entries: Vec<Entry>) -> Result<Block> {
        if entries.len() > MAX_BLOCK_ENTRIES {
            return Err(CatalogError::BadEntry { why: "its block has too many entries" });
        }
        let columns = entries.iter().map(EntryColumns::new).collect::<Result<Vec<_>>>()?;
        Ok(Block { entries, columns })
    }
}

/// A block whose folders have their keys. It can be stored while the next one is made ready.
#[derive(Debug)]
pub struct ReadyBlock {
    catalog: Catalog,
    place: Place,
    backup: i64,
    number: i64,
    last: bool,
    block: Block,
    /// The key of each entry's folder.
    folders: Vec<i64>,
}

/// Where blocks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Staged,
    Placed(Placing),
}

/// Takes in the blocks of one index.
#[derive(Debug)]
pub struct IndexIntake {
    catalog: Catalog,
    place: Place,
    host: i32,
    backup: i64,
    blocks: u64,
    folders: FolderKeys,
}

const WANTED: Sql = Sql("
    SELECT b.backup, b.host, b.job, b.seq, b.index_blocks, b.level = 'full' AND b.archive_of = b.backup AS own_full,
           j.ingested_seq = 0 AS untouched, j.placing_seq IS NOT DISTINCT FROM b.seq AS placing
    FROM backups b JOIN hosts h ON h.host = b.host JOIN jobs j ON j.job = b.job
    WHERE b.backup_id = $1 AND h.host_id = $2 AND b.searchable || '' = 'pending' AND b.index_blocks > 0");

const ARRIVED_NUMBERS: Sql = Sql("
    SELECT count(*) AS number, coalesce(max(a.number) + 1, 0) AS beyond FROM arrived_blocks a WHERE a.backup = $1");

const FIRST_MISSING: Sql = Sql("
    SELECT coalesce(min(n.number), 0) AS number
    FROM (SELECT 0::bigint AS number UNION ALL SELECT a.number + 1 FROM arrived_blocks a WHERE a.backup = $1) n
    WHERE NOT EXISTS (SELECT FROM arrived_blocks b WHERE b.backup = $1 AND b.number = n.number)");

const STAGE_BLOCK: Sql =
    Sql("INSERT INTO staged_blocks (backup, number, last) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");

const COPY_STAGED: Sql = Sql("
    COPY staged_entries (backup, folder, size, mtime_s, digest_head, digest_tail, state, mtime_ns, uid, gid, mode, flags,
        kind, name, link_target) FROM STDIN (FORMAT binary)");

const COPY_PLACED: Sql = Sql("
    COPY file_versions (host, job, first_seq, last_seq, folder, size, mtime_s, digest_head, digest_tail, state, mtime_ns, uid,
        gid, mode, flags, kind, name, link_target) FROM STDIN (FORMAT binary)");

const STAGED_TYPES: &[Type] = &[Type::INT8];
const PLACED_TYPES: &[Type] = &[Type::INT4, Type::INT4, Type::INT4, Type::INT4];
/// From the folder on, in both.
const ENTRY_TYPES: [Type; 14] = [
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT4,
    Type::INT4,
    Type::INT4,
    Type::INT2,
    Type::INT2,
    Type::CHAR,
    Type::BYTEA,
    Type::BYTEA,
];

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("WANTED", &WANTED),
    ("ARRIVED_NUMBERS", &ARRIVED_NUMBERS),
    ("FIRST_MISSING", &FIRST_MISSING),
    ("STAGE_BLOCK", &STAGE_BLOCK),
    ("COPY_STAGED", &COPY_STAGED),
    ("COPY_PLACED", &COPY_PLACED),
];

impl Catalog {
    /// Begins, or goes on, to take in the index of a host's backup. `None`: it is not wanted (unknown, of another host, or known
    /// already).
    pub async fn index_intake(&self, backup: BackupId, host: HostId) -> Result<Option<IndexIntake>> {
        let mut connection = self.connection().await?;
        let Some(row) = connection.query_opt(&WANTED, &[&backup.uuid(), &host.uuid()]).await? else { return Ok(None) };
        let mut intake = self.intake_of(&row)?;
        let placing = Placing { host: intake.host, job: get(&row, "job")?, seq: get(&row, "seq")? };
        let may_begin = get::<bool>(&row, "own_full")? && get::<bool>(&row, "untouched")?;
        if get(&row, "placing")? || (may_begin && placing.begin(&mut connection, intake.backup).await?) {
            intake.place = Place::Placed(placing);
        }
        Ok(Some(intake))
    }

    /// How much of an index has arrived. Asking begins nothing.
    pub async fn index_progress(&self, backup: BackupId, host: HostId) -> Result<IndexProgress> {
        // By itself: in the head of the match, the connection would be held while another is waited for.
        let row = self.connection().await?.query_opt(&WANTED, &[&backup.uuid(), &host.uuid()]).await?;
        match row {
            Some(row) => self.intake_of(&row)?.progress().await,
            None => Ok(IndexProgress { next_block: 0, complete: true }),
        }
    }

    fn intake_of(&self, row: &Row) -> Result<IndexIntake> {
        Ok(IndexIntake {
            catalog: self.clone(),
            place: Place::Staged,
            host: get(row, "host")?,
            backup: get(row, "backup")?,
            blocks: count(row, "index_blocks")?,
            folders: FolderKeys::default(),
        })
    }
}

impl IndexIntake {
    /// How much has arrived.
    pub async fn progress(&self) -> Result<IndexProgress> {
        let connection = self.catalog.connection().await?;
        let row = connection.query_opt(&ARRIVED_NUMBERS, &[&self.backup]).await?;
        let row = row.ok_or_else(|| CatalogError::not_found("row", "arrived blocks"))?;
        let (number, beyond) = (count(&row, "number")?, count(&row, "beyond")?);
        let next_block = if number == beyond {
            number
        } else {
            let row = connection.query_opt(&FIRST_MISSING, &[&self.backup]).await?;
            row.map_or(Ok(0), |row| count(&row, "number"))?
        };
        Ok(IndexProgress { next_block, complete: next_block >= self.blocks })
    }

    /// How many blocks the index has.
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Gives the block's folders their keys.
    ///
    /// # Errors
    /// [`CatalogError::OutOfRange`] when the index has no such block.
    pub async fn ready(&mut self, number: u64, block: Block) -> Result<ReadyBlock> {
        if number >= self.blocks {
            return Err(CatalogError::OutOfRange { what: "the number of a block of the index" });
        }
        let mut connection = self.catalog.connection().await?;
        let paths: BTreeSet<&[u8]> = block.entries.iter().filter_map(|entry| parent(&entry.path)).collect();
        let keys = self.folders.resolve(&mut connection, self.host, paths).await?;
        let key = |entry: &Entry| match parent(&entry.path) {
            None => Ok(0),
            Some(path) => keys.get(path).copied().ok_or(CatalogError::BadEntry { why: "its folder has no key" }),
        };
        let folders = block.entries.iter().map(key).collect::<Result<Vec<_>>>()?;
        Ok(ReadyBlock {
            catalog: self.catalog.clone(),
            place: self.place,
            backup: self.backup,
            number: big(number, "block number")?,
            last: number + 1 == self.blocks,
            block,
            folders,
        })
    }

    /// Takes a block from its entries to its place. Repeated, it changes nothing.
    ///
    /// # Errors
    /// As [`Block::new`] and [`IndexIntake::ready`].
    pub async fn store_block(&mut self, number: u64, entries: &[Entry]) -> Result<BlockOutcome> {
        self.ready(number, Block::new(entries.to_vec())?).await?.store().await
    }
}

impl ReadyBlock {
    /// Stores the block. Repeated, it changes nothing.
    pub async fn store(self) -> Result<BlockOutcome> {
        let mut connection = self.catalog.connection().await?;
        let transaction = connection.begin().await?;
        let outcome = match self.place {
            Place::Staged => {
                let new = transaction.execute(&STAGE_BLOCK, &[&self.backup, &self.number, &self.last]).await? == 1;
                if new { BlockOutcome::Stored } else { BlockOutcome::AlreadyThere }
            }
            Place::Placed(placing) => {
                let entries = self.block.columns.iter().filter(|columns| !columns.is_tombstone()).count();
                placing.note_block(&transaction, self.backup, self.number, entries).await?
            }
        };
        if outcome == BlockOutcome::Stored {
            match self.place {
                Place::Staged => self.copy(&transaction, &COPY_STAGED, STAGED_TYPES, &[&self.backup]).await?,
                Place::Placed(Placing { host, job, seq }) => {
                    self.copy(&transaction, &COPY_PLACED, PLACED_TYPES, &[&host, &job, &seq, &CURRENT]).await?;
                }
            }
            transaction.commit().await?;
            coord_shared::failpoint::reach("coordinator.index.block_stored");
        }
        Ok(outcome)
    }

    /// Copies the entries, each with the same columns before its own.
    async fn copy(
        &self,
        transaction: &Transaction<'_>,
        to: &Sql,
        types: &[Type],
        before: &[&(dyn ToSql + Sync)],
    ) -> Result<()> {
        let types: Vec<Type> = types.iter().chain(&ENTRY_TYPES).cloned().collect();
        let writer = BinaryCopyInWriter::new(transaction.copy_in(to).await?, &types);
        pin_mut!(writer);
        let placed = self.place != Place::Staged;
        for ((entry, columns), folder) in self.block.entries.iter().zip(&self.block.columns).zip(&self.folders) {
            if placed && columns.is_tombstone() {
                continue;
            }
            let flags = if placed { columns.flags & FLAGS_OF_FULL } else { columns.flags };
            let name = name(&entry.path);
            let own: [&(dyn ToSql + Sync); ENTRY_TYPES.len()] = [
                folder,
                &columns.size,
                &columns.mtime_s,
                &columns.digest_head,
                &columns.digest_tail,
                &columns.state,
                &columns.mtime_ns,
                &columns.uid,
                &columns.gid,
                &columns.mode,
                &flags,
                &columns.kind,
                &name,
                &entry.link_target,
            ];
            let row: Vec<&(dyn ToSql + Sync)> = before.iter().copied().chain(own).collect();
            writer.as_mut().write(&row).await.map_err(CatalogError::undone)?;
        }
        writer.as_mut().finish().await.map_err(CatalogError::undone)?;
        Ok(())
    }
}
