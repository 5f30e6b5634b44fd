//! Keys of a host's folders, as the entries of its indexes need them: looked up by name below their parent, and made where there are none.
//!
//! A host may send any index, so what one costs is bounded: folders are remembered by name below their parent and not by path,
//! which would grow with the square of the depth, and no path has more than [`super::entries::MAX_DEPTH`] names.

use std::collections::{BTreeSet, HashMap};

use super::error::{CatalogError, Result};
use super::pool::{Connection, Sql, Transaction};
use super::row::get;

/// Memory for the keys of folders that one intake remembers; beyond, it forgets and asks again. Some 120,000 folders.
const MAX_REMEMBERED_BYTES: usize = 32 << 20;
/// What a remembered folder takes beside its name.
const REMEMBERED_OVERHEAD: usize = 256;

// OFFSET 0 keeps it a look by name: joined as a whole, every block of a large host would read all folders of the host.
pub(super) const FIND_FOLDERS: Sql = Sql("
    SELECT w.parent, w.name, f.folder
    FROM unnest($2::bigint[], $3::bytea[]) AS w (parent, name)
    CROSS JOIN LATERAL (
        SELECT f.folder FROM folders f WHERE f.host = $1 AND f.parent = w.parent AND f.name = w.name OFFSET 0
    ) f");

// In one order: see `resolve`.
const MAKE_FOLDERS: Sql = Sql("
    INSERT INTO folders (host, parent, name)
    SELECT $1, w.parent, w.name FROM unnest($2::bigint[], $3::bytea[]) AS w (parent, name) ORDER BY w.parent, w.name
    ON CONFLICT DO NOTHING");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("FIND_FOLDERS", &FIND_FOLDERS), ("MAKE_FOLDERS", &MAKE_FOLDERS)];

/// Keys of folders: by the parent's key, then by name.
#[derive(Debug, Default)]
pub(super) struct FolderKeys {
    below: HashMap<i64, HashMap<Box<[u8]>, i64>>,
    /// What they take, about.
    bytes: usize,
}

impl FolderKeys {
    /// Keys of these folders of a host, by their paths. Those that are not known get one, and so does everything above them, level by
    /// level: in that order everywhere, so that two intakes of a host wait for each other instead of locking up.
    pub(super) async fn resolve<'a>(
        &mut self,
        connection: &mut Connection,
        host: i32,
        folders: BTreeSet<&'a [u8]>,
    ) -> Result<HashMap<&'a [u8], i64>> {
        // Put back when it is certain that the folders exist.
        let mut known = std::mem::take(self);
        if known.bytes > MAX_REMEMBERED_BYTES {
            known = FolderKeys::default();
        }
        let mut descents: Vec<Descent<'a>> = folders.into_iter().map(Descent::new).collect();
        let mut keys = HashMap::with_capacity(descents.len());
        go_down(&mut descents, &known, &mut keys);
        if !descents.is_empty() {
            let transaction = connection.begin().await?;
            while !descents.is_empty() {
                let next = descents.iter().filter_map(|descent| descent.name.map(|name| (descent.key, name))).collect();
                find_or_make(&transaction, host, &next, &mut known).await?;
                go_down(&mut descents, &known, &mut keys);
            }
            transaction.commit().await?;
        }
        *self = known;
        Ok(keys)
    }

    fn get(&self, parent: i64, name: &[u8]) -> Option<i64> {
        self.below.get(&parent)?.get(name).copied()
    }

    fn remember(&mut self, parent: i64, name: &[u8], key: i64) {
        if self.below.entry(parent).or_default().insert(name.into(), key).is_none() {
            self.bytes += name.len() + REMEMBERED_OVERHEAD;
        }
    }
}

/// Goes down as far as keys are remembered, and notes the keys of those that have arrived.
fn go_down<'a>(descents: &mut Vec<Descent<'a>>, known: &FolderKeys, keys: &mut HashMap<&'a [u8], i64>) {
    descents.retain_mut(|descent| {
        descent.follow(known);
        if descent.name.is_none() {
            keys.insert(descent.path, descent.key);
        }
        descent.name.is_some()
    });
}

async fn find_or_make(
    transaction: &Transaction<'_>,
    host: i32,
    wanted: &BTreeSet<(i64, &[u8])>,
    known: &mut FolderKeys,
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
    known: &mut FolderKeys,
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
    fn follow(&mut self, folders: &FolderKeys) {
        while let Some(key) = self.name.and_then(|name| folders.get(self.key, name)) {
            self.key = key;
            let end = self.rest.iter().position(|byte| *byte == b'/');
            let (name, rest) = end.map_or((self.rest, &[][..]), |end| (&self.rest[..end], &self.rest[end + 1..]));
            self.name = (!name.is_empty()).then_some(name);
            self.rest = rest;
        }
    }
}
