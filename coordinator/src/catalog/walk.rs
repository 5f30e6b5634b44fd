//! Everything in a subtree at a backup, in path order. Invariant: memory is bounded by a page and the depth of the tree, and no
//! connection is held between batches. Small folders are read many at once, as most trees are made of them.

use std::collections::HashMap;
use std::sync::Arc;

use coord_shared::ids::{JobId, Seq};
use tokio_postgres::Row;

use super::changes::ChangedFolders;
use super::entries::{FileVersion, VersionKind, read, version_columns};
use super::error::Result;
use super::listing::{Point, find, folder_key, list, point};
use super::pool::{Catalog, Connection, Params, Sql};
use super::row::get;

/// Entries of one folder asked for at once.
const PAGE: u32 = 2_000;
/// Folders asked for together.
const TOGETHER: usize = 64;
/// Entries of a folder that is asked for together with others; one with more is read page by page.
const SMALL: usize = 64;

// Of each folder one entry more than a small one has, in no order.
pub(super) const LIST_SMALL: Sql = Sql(concat!(
    "SELECT w.folder AS within, ",
    version_columns!("v"),
    ", CASE WHEN v.kind = 'd' THEN (
           SELECT f.folder FROM folders f WHERE f.host = $1 AND f.parent = w.folder AND f.name = v.name
       ) END AS below
      FROM unnest($3::bigint[]) AS w (folder)
      CROSS JOIN LATERAL (
          SELECT ",
    version_columns!("e"),
    " FROM file_versions e
          WHERE e.host = $1 AND e.job = $2 AND e.folder = w.folder AND e.first_seq <= $4 AND e.last_seq >= $4
          LIMIT $5
      ) v"
));

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("LIST_SMALL", &LIST_SMALL)];

/// An entry, and the key of the folder that it is.
type Listed = (FileVersion, Option<i64>);

/// A folder in the middle of being listed.
#[derive(Debug)]
struct OpenFolder {
    key: i64,
    path: Vec<u8>,
    /// Read from the database and not given out yet, last first.
    waiting: Vec<Listed>,
    /// What small folders in `waiting` contain, last first.
    ahead: HashMap<i64, Vec<Listed>>,
    /// The last name read.
    after: Option<Vec<u8>>,
    finished: bool,
}

impl OpenFolder {
    fn new(key: i64, path: Vec<u8>) -> OpenFolder {
        OpenFolder { key, path, waiting: Vec::new(), ahead: HashMap::new(), after: None, finished: false }
    }
}

/// A walk of a subtree. It holds no connection between batches.
#[derive(Debug)]
pub struct SubtreeWalk {
    catalog: Catalog,
    at: Point,
    top: Option<FileVersion>,
    /// What is in other folders is left out; the folders themselves are not.
    within: Option<Arc<ChangedFolders>>,
    /// From the top down to where the walk is.
    open: Vec<OpenFolder>,
}

impl Catalog {
    /// Everything at and below a path at a backup, in path order, batch by batch. With `within`, folders that are not in it are named
    /// and not looked into.
    pub async fn walk_subtree(
        &self,
        job: JobId,
        seq: Seq,
        path: &[u8],
        within: Option<Arc<ChangedFolders>>,
    ) -> Result<SubtreeWalk> {
        let connection = self.connection().await?;
        let at = point(&connection, job, seq).await?;
        let top = find(&connection, at, path).await?;
        let mut open = Vec::new();
        if top.as_ref().is_some_and(|top| top.kind == VersionKind::Folder)
            && let Some(folder) = folder_key(&connection, at.host, path).await?
        {
            open.push(OpenFolder::new(folder, path.to_vec()));
        }
        Ok(SubtreeWalk { catalog: self.clone(), at, top, within, open })
    }
}

impl SubtreeWalk {
    /// The next entries in path order, at most `limit` (but at least one); empty at the end.
    pub async fn next_batch(&mut self, limit: usize) -> Result<Vec<FileVersion>> {
        let mut batch: Vec<FileVersion> = self.top.take().into_iter().collect();
        if self.open.is_empty() {
            return Ok(batch);
        }
        let connection = self.catalog.connection().await?;
        while batch.len() < limit.max(1) {
            let Some(folder) = self.open.last_mut() else { break };
            if folder.waiting.is_empty() && !folder.finished {
                fill(&connection, self.at, folder).await?;
            }
            let Some((version, below)) = folder.waiting.pop() else {
                self.open.pop();
                continue;
            };
            let within = self.within.as_deref();
            if let Some(key) = below
                && within.is_none_or(|within| within.has(key))
            {
                let mut opened = OpenFolder::new(key, version.path.clone());
                if let Some(entries) = look_ahead(&connection, self.at, folder, (key, &version.path), within).await? {
                    opened.waiting = entries;
                    opened.finished = true;
                }
                self.open.push(opened);
            }
            batch.push(version);
        }
        Ok(batch)
    }
}

async fn fill(connection: &Connection, at: Point, folder: &mut OpenFolder) -> Result<()> {
    let rows = list(connection, at, folder.key, folder.after.as_deref(), PAGE).await?;
    folder.finished = rows.len() < PAGE as usize;
    folder.after = rows.last().map(|row| get::<Vec<u8>>(row, "name")).transpose()?;
    for row in rows.iter().rev() {
        folder.waiting.push(listed(row, &folder.path)?);
    }
    Ok(())
}

fn listed(row: &Row, folder: &[u8]) -> Result<Listed> {
    Ok((read(row, Some(folder))?, get(row, "below")?))
}

/// What the folder `wanted`, just taken out of `folder.waiting`, contains, if it is small; reads its next siblings with it.
async fn look_ahead(
    connection: &Connection,
    at: Point,
    folder: &mut OpenFolder,
    wanted: (i64, &[u8]),
    within: Option<&ChangedFolders>,
) -> Result<Option<Vec<Listed>>> {
    if let Some(entries) = folder.ahead.remove(&wanted.0) {
        return Ok(Some(entries));
    }
    let siblings = folder.waiting.iter().rev().filter_map(|(version, key)| key.map(|key| (key, &version.path[..])));
    let siblings = siblings.filter(|(key, _)| within.is_none_or(|within| within.has(*key)));
    let paths: HashMap<i64, &[u8]> = std::iter::once(wanted).chain(siblings).take(TOGETHER).collect();
    let keys: Vec<i64> = paths.keys().copied().collect();
    let most = SMALL as i64 + 1;
    let params: Params<'_> = &[&at.host, &at.job, &keys, &at.seq, &most];
    // Folders without a row are empty, which is small as well.
    let mut ahead: HashMap<i64, Vec<Listed>> = keys.iter().map(|key| (*key, Vec::new())).collect();
    for row in connection.query(&LIST_SMALL, params).await? {
        let within: i64 = get(&row, "within")?;
        if let (Some(entries), Some(path)) = (ahead.get_mut(&within), paths.get(&within)) {
            entries.push(listed(&row, path)?);
        }
    }
    ahead.retain(|_, entries| entries.len() <= SMALL);
    for entries in ahead.values_mut() {
        // All are in one folder, so the order of paths is that of names.
        entries.sort_by(|(one, _), (other, _)| other.path.cmp(&one.path));
    }
    let entries = ahead.remove(&wanted.0);
    folder.ahead = ahead;
    Ok(entries)
}
