//! Blocks of sealed indexes on their way into the catalog: checked, their folders given keys, copied into the staging table.
//!
//! Invariant: a block is staged once, in any order; nothing of it can be seen before `merge` has taken the whole index in. Staging
//! is not logged by Postgres: after a crash of it there is nothing staged, and [`Catalog::index_progress`] asks for all again.
//!
//! A host may send any index, so what one costs is bounded: folders are remembered by name below their parent and not by path,
//! which would grow with the square of the depth, and no path has more than [`super::entries::MAX_DEPTH`] names.

use std::collections::{BTreeSet, HashMap};

use coord_archive::entry::Entry;
use coord_shared::ids::{BackupId, HostId};
use futures_util::pin_mut;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;

use super::entries::StagedEntry;
use super::error::{CatalogError, Result};
use super::pool::{Catalog, Connection, Params, Sql, Transaction};
use super::row::{big, count, get};

/// Memory for the keys of folders that one intake remembers; beyond, it forgets and asks again. Some 120,000 folders.
const MAX_REMEMBERED_BYTES: usize = 32 << 20;
/// What a remembered folder takes beside its name.
const REMEMBERED_OVERHEAD: usize = 256;
/// Entries of one block that are taken; honest blocks have some thousands.
pub const MAX_BLOCK_ENTRIES: usize = 1 << 16;

/// What came of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockOutcome {
    /// It is staged.
    Stored,
    /// It was staged before.
    AlreadyThere,
}

/// How much of an index has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexProgress {
    /// The first block that is missing.
    pub next_block: u64,
    /// Nothing is missing, or nothing is wanted.
    pub complete: bool,
}

/// Takes in the blocks of one index.
#[derive(Debug)]
pub struct IndexIntake {
    catalog: Catalog,
    host: i32,
    backup: i64,
    blocks: u64,
    folders: Folders,
}

const WANTED: Sql = Sql("
    SELECT b.backup, b.host, b.index_blocks FROM backups b JOIN hosts h ON h.host = b.host
    WHERE b.backup_id = $1 AND h.host_id = $2 AND b.searchable = 'pending' AND b.index_blocks > 0");

const STAGED_NUMBERS: Sql = Sql("
    SELECT count(*) AS number, coalesce(max(s.number) + 1, 0) AS beyond FROM staged_blocks s WHERE s.backup = $1");

const FIRST_MISSING: Sql = Sql("
    SELECT coalesce(min(n.number), 0) AS number
    FROM (SELECT 0::bigint AS number UNION ALL SELECT s.number + 1 FROM staged_blocks s WHERE s.backup = $1) n
    WHERE NOT EXISTS (SELECT FROM staged_blocks t WHERE t.backup = $1 AND t.number = n.number)");

const STAGE_BLOCK: Sql =
    Sql("INSERT INTO staged_blocks (backup, number, last) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");

const COPY_ENTRIES: Sql = Sql("
    COPY staged_entries (backup, folder, size, mtime_s, digest_head, state, mtime_ns, uid, gid, mode, flags, kind, name,
        digest_tail, link_target) FROM STDIN (FORMAT binary)");

const COPY_TYPES: [Type; 15] = [
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
    Type::BYTEA,
];

pub(super) const FIND_FOLDERS: Sql = Sql("
    SELECT f.parent, f.name, f.folder
    FROM unnest($2::bigint[], $3::bytea[]) AS w (parent, name)
    JOIN folders f ON f.host = $1 AND f.parent = w.parent AND f.name = w.name");

// In one order: see `resolve`.
const MAKE_FOLDERS: Sql = Sql("
    INSERT INTO folders (host, parent, name)
    SELECT $1, w.parent, w.name FROM unnest($2::bigint[], $3::bytea[]) AS w (parent, name) ORDER BY w.parent, w.name
    ON CONFLICT DO NOTHING");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("WANTED", &WANTED),
    ("STAGED_NUMBERS", &STAGED_NUMBERS),
    ("FIRST_MISSING", &FIRST_MISSING),
    ("STAGE_BLOCK", &STAGE_BLOCK),
    ("COPY_ENTRIES", &COPY_ENTRIES),
    ("FIND_FOLDERS", &FIND_FOLDERS),
    ("MAKE_FOLDERS", &MAKE_FOLDERS),
];

impl Catalog {
    /// Begins, or goes on, to take in the index of a host's backup. `None`: it is not wanted (unknown, of another host, or known
    /// already).
    pub async fn index_intake(&self, backup: BackupId, host: HostId) -> Result<Option<IndexIntake>> {
        let row = self.connection().await?.query_opt(&WANTED, &[&backup.uuid(), &host.uuid()]).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(IndexIntake {
            catalog: self.clone(),
            host: get(&row, "host")?,
            backup: get(&row, "backup")?,
            blocks: count(&row, "index_blocks")?,
            folders: Folders::default(),
        }))
    }

    /// How much of an index has arrived.
    pub async fn index_progress(&self, backup: BackupId, host: HostId) -> Result<IndexProgress> {
        match self.index_intake(backup, host).await? {
            Some(intake) => intake.progress().await,
            None => Ok(IndexProgress { next_block: 0, complete: true }),
        }
    }
}

impl IndexIntake {
    /// How much has arrived.
    pub async fn progress(&self) -> Result<IndexProgress> {
        let connection = self.catalog.connection().await?;
        let row = connection.query_opt(&STAGED_NUMBERS, &[&self.backup]).await?;
        let row = row.ok_or_else(|| CatalogError::not_found("row", "staged blocks"))?;
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

    /// Stages a block. Repeated, it changes nothing.
    ///
    /// # Errors
    /// [`CatalogError::BadEntry`] when an entry cannot be stored: the index is not ours.
    pub async fn store_block(&mut self, number: u64, entries: &[Entry]) -> Result<BlockOutcome> {
        if number >= self.blocks {
            return Err(CatalogError::OutOfRange { what: "the number of a block of the index" });
        }
        if entries.len() > MAX_BLOCK_ENTRIES {
            return Err(CatalogError::BadEntry { why: "its block has too many entries" });
        }
        let staged = entries.iter().map(StagedEntry::new).collect::<Result<Vec<_>>>()?;
        let mut connection = self.catalog.connection().await?;
        let folders = self.resolve(&mut connection, &staged).await?;
        let last = number + 1 == self.blocks;
        let number = big(number, "block number")?;
        let transaction = connection.begin().await?;
        if transaction.execute(&STAGE_BLOCK, &[&self.backup, &number, &last]).await? == 0 {
            return Ok(BlockOutcome::AlreadyThere);
        }
        let sink = transaction.copy_in(&COPY_ENTRIES).await?;
        let writer = BinaryCopyInWriter::new(sink, &COPY_TYPES);
        pin_mut!(writer);
        for entry in &staged {
            let folder = match entry.parent {
                None => 0,
                Some(path) => *folders.get(path).ok_or(CatalogError::BadEntry { why: "its folder has no key" })?,
            };
            let row: Params<'_> = &[
                &self.backup,
                &folder,
                &entry.size,
                &entry.mtime_s,
                &entry.digest_head,
                &entry.state,
                &entry.mtime_ns,
                &entry.uid,
                &entry.gid,
                &entry.mode,
                &entry.flags,
                &entry.kind,
                &entry.name,
                &entry.digest_tail,
                &entry.link_target,
            ];
            writer.as_mut().write(row).await.map_err(CatalogError::undone)?;
        }
        writer.as_mut().finish().await.map_err(CatalogError::undone)?;
        transaction.commit().await?;
        Ok(BlockOutcome::Stored)
    }

    /// Keys of the folders of these entries. Those that are not known get one, and so does everything above them, level by level:
    /// in that order everywhere, so that two intakes of a host wait for each other instead of locking up.
    async fn resolve<'a>(
        &mut self,
        connection: &mut Connection,
        entries: &[StagedEntry<'a>],
    ) -> Result<HashMap<&'a [u8], i64>> {
        // Put back when it is certain that the folders exist.
        let mut known = std::mem::take(&mut self.folders);
        if known.bytes > MAX_REMEMBERED_BYTES {
            known = Folders::default();
        }
        let transaction = connection.begin().await?;
        let folders: BTreeSet<&'a [u8]> = entries.iter().filter_map(|entry| entry.parent).collect();
        let mut descents: Vec<Descent<'a>> = folders.into_iter().map(Descent::new).collect();
        let mut keys = HashMap::with_capacity(descents.len());
        loop {
            descents.retain_mut(|descent| {
                descent.follow(&known);
                if descent.name.is_none() {
                    keys.insert(descent.path, descent.key);
                }
                descent.name.is_some()
            });
            let next: BTreeSet<(i64, &[u8])> =
                descents.iter().filter_map(|descent| descent.name.map(|name| (descent.key, name))).collect();
            if next.is_empty() {
                break;
            }
            find_or_make(&transaction, self.host, &next, &mut known).await?;
        }
        transaction.commit().await?;
        self.folders = known;
        Ok(keys)
    }
}

async fn find_or_make(
    transaction: &Transaction<'_>,
    host: i32,
    wanted: &BTreeSet<(i64, &[u8])>,
    known: &mut Folders,
) -> Result<()> {
    find(transaction, host, wanted, known).await?;
    let missing: BTreeSet<(i64, &[u8])> =
        wanted.iter().copied().filter(|(parent, name)| known.get(*parent, name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (parents, names) = halves(&missing);
    transaction.execute(&MAKE_FOLDERS, &[&host, &parents, &names]).await?;
    // What another intake made meanwhile is found as well as our own.
    find(transaction, host, &missing, known).await?;
    match missing.iter().find(|(parent, name)| known.get(*parent, name).is_none()) {
        Some((parent, _)) => Err(CatalogError::not_found("folder below", parent)),
        None => Ok(()),
    }
}

async fn find(
    transaction: &Transaction<'_>,
    host: i32,
    wanted: &BTreeSet<(i64, &[u8])>,
    known: &mut Folders,
) -> Result<()> {
    let (parents, names) = halves(wanted);
    for row in transaction.query(&FIND_FOLDERS, &[&host, &parents, &names]).await? {
        known.remember(get(&row, "parent")?, get(&row, "name")?, get(&row, "folder")?);
    }
    Ok(())
}

/// Keys of parents, and names, in one order.
fn halves<'a>(folders: &BTreeSet<(i64, &'a [u8])>) -> (Vec<i64>, Vec<&'a [u8]>) {
    folders.iter().copied().unzip()
}

/// Keys of folders: by the parent's key, then by name.
#[derive(Debug, Default)]
struct Folders {
    below: HashMap<i64, HashMap<Box<[u8]>, i64>>,
    /// What they take, about.
    bytes: usize,
}

impl Folders {
    fn get(&self, parent: i64, name: &[u8]) -> Option<i64> {
        self.below.get(&parent)?.get(name).copied()
    }

    fn remember(&mut self, parent: i64, name: &[u8], key: i64) {
        if self.below.entry(parent).or_default().insert(name.into(), key).is_none() {
            self.bytes += name.len() + REMEMBERED_OVERHEAD;
        }
    }
}

/// The way down to a folder.
struct Descent<'a> {
    /// Where to.
    path: &'a [u8],
    /// The folder that was reached; 0 is above the root.
    key: i64,
    /// The next name; `None` at the end. The root's is empty.
    name: Option<&'a [u8]>,
    /// What comes after it.
    rest: &'a [u8],
}

impl<'a> Descent<'a> {
    fn new(path: &'a [u8]) -> Descent<'a> {
        Descent { path, key: 0, name: Some(b""), rest: path }
    }

    /// As far down as keys are remembered.
    fn follow(&mut self, folders: &Folders) {
        while let Some(key) = self.name.and_then(|name| folders.get(self.key, name)) {
            self.key = key;
            let end = self.rest.iter().position(|byte| *byte == b'/');
            let (name, rest) = end.map_or((self.rest, &[][..]), |end| (&self.rest[..end], &self.rest[end + 1..]));
            self.name = (!name.is_empty()).then_some(name);
            self.rest = rest;
        }
    }
}
