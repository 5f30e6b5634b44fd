//! Blocks of sealed indexes on their way into the catalog: checked, their folders given keys, copied into the staging table.
//!
//! Invariant: a block is staged once, in any order; nothing of it can be seen before `merge` has taken the whole index in. Staging
//! is not logged by Postgres: after a crash of it there is nothing staged, and [`Catalog::index_progress`] asks for all again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use coord_archive::entry::{Entry, parent};
use coord_shared::ids::{BackupId, HostId};
use futures_util::pin_mut;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;

use super::entries::{StagedEntry, child};
use super::error::{CatalogError, Result};
use super::pool::{Catalog, Connection, Params, Sql};
use super::row::{big, count, get};

/// Folders whose keys one intake remembers; beyond, it forgets and asks again.
const MAX_REMEMBERED_FOLDERS: usize = 100_000;
/// Entries of one block that are taken; honest blocks have some thousands.
pub const MAX_BLOCK_ENTRIES: usize = 1 << 20;

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
    folders: HashMap<Vec<u8>, i64>,
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

// In one order everywhere, so that two intakes of a host wait for each other instead of locking up.
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
            folders: HashMap::new(),
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
            return Err(CatalogError::BadEntry { why: "its block is beyond the end of the index" });
        }
        if entries.len() > MAX_BLOCK_ENTRIES {
            return Err(CatalogError::BadEntry { why: "its block has too many entries" });
        }
        let staged = entries.iter().map(StagedEntry::new).collect::<Result<Vec<_>>>()?;
        let mut connection = self.catalog.connection().await?;
        self.resolve(&connection, &staged).await?;
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
            let folder = self.key(entry.parent)?;
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

    fn key(&self, folder: Option<&[u8]>) -> Result<i64> {
        match folder {
            None => Ok(0),
            Some(path) => {
                self.folders.get(path).copied().ok_or(CatalogError::BadEntry { why: "its folder has no key" })
            }
        }
    }

    /// Gives keys to the folders of these entries and everything above them, level by level.
    async fn resolve(&mut self, connection: &Connection, entries: &[StagedEntry<'_>]) -> Result<()> {
        if self.folders.len() > MAX_REMEMBERED_FOLDERS {
            self.folders.clear();
        }
        let mut levels: BTreeMap<usize, BTreeSet<&[u8]>> = BTreeMap::new();
        for entry in entries {
            let mut above = entry.parent;
            while let Some(path) = above {
                if self.folders.contains_key(path) || !levels.entry(depth(path)).or_default().insert(path) {
                    break;
                }
                above = parent(path);
            }
        }
        for paths in levels.into_values() {
            self.resolve_level(connection, &paths).await?;
        }
        Ok(())
    }

    async fn resolve_level(&mut self, connection: &Connection, paths: &BTreeSet<&[u8]>) -> Result<()> {
        self.find(connection, paths).await?;
        let missing: BTreeSet<&[u8]> = paths.iter().copied().filter(|path| !self.folders.contains_key(*path)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (parents, names) = self.halves(&missing)?;
        connection.execute(&MAKE_FOLDERS, &[&self.host, &parents, &names]).await?;
        // What another intake made meanwhile is found as well as our own.
        self.find(connection, &missing).await
    }

    async fn find(&mut self, connection: &Connection, paths: &BTreeSet<&[u8]>) -> Result<()> {
        let (parents, names) = self.halves(paths)?;
        let by_parent: HashMap<i64, &[u8]> =
            parents.iter().zip(paths).filter_map(|(key, path)| parent(path).map(|parent| (*key, parent))).collect();
        for row in connection.query(&FIND_FOLDERS, &[&self.host, &parents, &names]).await? {
            let (key, name): (i64, &[u8]) = (get(&row, "folder")?, get(&row, "name")?);
            let path = match by_parent.get(&get::<i64>(&row, "parent")?) {
                Some(parent) => child(parent, name),
                None => Vec::new(),
            };
            self.folders.insert(path, key);
        }
        Ok(())
    }

    /// Keys of the parents, and names, in the order of `paths`.
    fn halves<'a>(&self, paths: &BTreeSet<&'a [u8]>) -> Result<(Vec<i64>, Vec<&'a [u8]>)> {
        let mut parents = Vec::with_capacity(paths.len());
        let mut names = Vec::with_capacity(paths.len());
        for path in paths {
            let above = parent(path);
            parents.push(self.key(above)?);
            names.push(match above {
                None | Some([]) => *path,
                Some(above) => &path[above.len() + 1..],
            });
        }
        Ok((parents, names))
    }
}

/// Components of a path; the root has none and lies above all.
fn depth(path: &[u8]) -> usize {
    if path.is_empty() { 0 } else { 1 + path.iter().filter(|byte| **byte == b'/').count() }
}
