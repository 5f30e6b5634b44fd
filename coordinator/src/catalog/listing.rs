//! What a job's backup contains: one path, one folder, the totals of a subtree. All are index scans by folder, and a folder is read
//! page by page. Not here: the contents of a whole subtree (`walk`).

use std::time::Duration;

use coord_shared::ids::{JobId, Seq};
use tokio_postgres::Row;

use super::entries::{FileVersion, VersionKind, read, version_columns};
use super::error::{CatalogError, Result};
use super::pool::{Ask, Catalog, Connection, Params, Sql};
use super::row::{count, get, int};

/// Entries of a page at most.
pub const MAX_PAGE: u32 = 10_000;

/// A page of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderPage {
    /// In the order of names as bytes.
    pub entries: Vec<FileVersion>,
    /// There are more after the last of these.
    pub more: bool,
}

/// What lies at and below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubtreeTotals {
    /// Entries of any kind.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

const JOB_KEYS: Sql = Sql("SELECT job, host FROM jobs WHERE job_id = $1");

pub(super) const FIND_FOLDER: Sql = Sql("
    WITH RECURSIVE walk (depth, folder) AS (
        SELECT 0, f.folder FROM folders f WHERE f.host = $1 AND f.parent = 0 AND f.name = ''
        UNION ALL
        SELECT w.depth + 1, f.folder
        FROM walk w JOIN folders f ON f.host = $1 AND f.parent = w.folder AND f.name = ($2::bytea[])[w.depth + 1]
    )
    SELECT folder FROM walk WHERE depth = cardinality($2::bytea[])");

pub(super) const FIND_VERSION: Sql = Sql(concat!(
    "SELECT ",
    version_columns!("v"),
    " FROM file_versions v
      WHERE v.host = $1 AND v.job = $2 AND v.folder = $3 AND v.name = $4 AND v.first_seq <= $5 AND v.last_seq >= $5"
));

pub(super) const LIST: Sql = Sql(concat!(
    "SELECT ",
    version_columns!("v"),
    ", CASE WHEN v.kind = 'd' THEN (
           SELECT f.folder FROM folders f WHERE f.host = $1 AND f.parent = $3 AND f.name = v.name
       ) END AS below
      FROM file_versions v
      WHERE v.host = $1 AND v.job = $2 AND v.folder = $3 AND v.first_seq <= $4 AND v.last_seq >= $4
        AND ($5::bytea IS NULL OR v.name > $5)
      ORDER BY v.name LIMIT $6"
));

pub(super) const TOTALS: Sql = Sql("
    WITH RECURSIVE below (folder) AS (
        SELECT $3::bigint
        UNION ALL
        SELECT f.folder FROM below b JOIN folders f ON f.host = $1 AND f.parent = b.folder
    )
    SELECT count(*) AS entries, count(*) FILTER (WHERE v.kind = 'f') AS files, coalesce(sum(v.size), 0)::bigint AS bytes
    FROM below b
    JOIN file_versions v ON v.host = $1 AND v.job = $2 AND v.folder = b.folder AND v.first_seq <= $4 AND v.last_seq >= $4");

// For the present transaction.
const DEADLINE: Sql = Sql("SELECT set_config('statement_timeout', $1, true)");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("JOB_KEYS", &JOB_KEYS),
    ("FIND_FOLDER", &FIND_FOLDER),
    ("FIND_VERSION", &FIND_VERSION),
    ("LIST", &LIST),
    ("TOTALS", &TOTALS),
    ("DEADLINE", &DEADLINE),
];

/// One job at one of its backups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) host: i32,
    pub(super) job: i32,
    pub(super) seq: i32,
}

pub(super) async fn point(connection: &impl Ask, job: JobId, seq: Seq) -> Result<Point> {
    let row = connection.ask(&JOB_KEYS, &[&job.uuid()]).await?;
    let row = row.ok_or_else(|| CatalogError::not_found("job", job))?;
    Ok(Point { host: get(&row, "host")?, job: get(&row, "job")?, seq: int(seq.get(), "seq")? })
}

fn components(path: &[u8]) -> Vec<&[u8]> {
    if path.is_empty() { Vec::new() } else { path.split(|byte| *byte == b'/').collect() }
}

/// The key of a folder that some backup of the host had.
pub(super) async fn folder_key(connection: &impl Ask, host: i32, path: &[u8]) -> Result<Option<i64>> {
    let row = connection.ask(&FIND_FOLDER, &[&host, &components(path)]).await?;
    row.map(|row| get(&row, "folder")).transpose()
}

/// The key of the folder that holds `path`, and its name there; `None` when no backup of the host had such a folder.
pub(super) async fn locate<'a>(connection: &impl Ask, host: i32, path: &'a [u8]) -> Result<Option<(i64, &'a [u8])>> {
    match coord_archive::entry::parent(path) {
        None => Ok(Some((0, path))),
        Some(parent) => {
            let name = if parent.is_empty() { path } else { &path[parent.len() + 1..] };
            Ok(folder_key(connection, host, parent).await?.map(|key| (key, name)))
        }
    }
}

pub(super) async fn find(connection: &impl Ask, at: Point, path: &[u8]) -> Result<Option<FileVersion>> {
    let Some((folder, name)) = locate(connection, at.host, path).await? else { return Ok(None) };
    let row = connection.ask(&FIND_VERSION, &[&at.host, &at.job, &folder, &name, &at.seq]).await?;
    row.map(|row| read(&row, coord_archive::entry::parent(path))).transpose()
}

pub(super) async fn list(
    connection: &Connection,
    at: Point,
    folder: i64,
    after: Option<&[u8]>,
    limit: u32,
) -> Result<Vec<Row>> {
    let params: Params<'_> = &[&at.host, &at.job, &folder, &at.seq, &after, &i64::from(limit)];
    connection.query(&LIST, params).await
}

impl Catalog {
    /// The state of one path at a backup; `None`: it was not there.
    pub async fn find_path(&self, job: JobId, seq: Seq, path: &[u8]) -> Result<Option<FileVersion>> {
        let connection = self.connection().await?;
        let at = point(&connection, job, seq).await?;
        find(&connection, at, path).await
    }

    /// What is directly in a folder at a backup, after the name `after`, at most `limit` (and [`MAX_PAGE`]). Empty when the path was
    /// no folder then.
    pub async fn list_folder(
        &self,
        job: JobId,
        seq: Seq,
        path: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<FolderPage> {
        let connection = self.connection().await?;
        let at = point(&connection, job, seq).await?;
        let Some(folder) = folder_key(&connection, at.host, path).await? else {
            return Ok(FolderPage { entries: Vec::new(), more: false });
        };
        let limit = limit.clamp(1, MAX_PAGE);
        let rows = list(&connection, at, folder, after, limit + 1).await?;
        let wanted = limit as usize;
        let entries =
            rows.iter().take(wanted).map(|row| read(row, Some(path))).collect::<Result<Vec<FileVersion>>>()?;
        Ok(FolderPage { entries, more: rows.len() > wanted })
    }

    /// How much lies at and below a path at a backup. Every entry is looked at, so it may take as long as the tree is large.
    ///
    /// # Errors
    /// [`CatalogError::TookTooLong`] when counting takes longer than `within`.
    pub async fn subtree_totals(&self, job: JobId, seq: Seq, path: &[u8], within: Duration) -> Result<SubtreeTotals> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        // Zero would mean without end.
        let within = within.as_millis().max(1).to_string();
        transaction.query(&DEADLINE, &[&within]).await?;
        let at = point(&transaction, job, seq).await?;
        let Some(top) = find(&transaction, at, path).await? else { return Ok(SubtreeTotals::default()) };
        let own = SubtreeTotals { entries: 1, files: u64::from(top.kind == VersionKind::File), bytes: top.size };
        if top.kind != VersionKind::Folder {
            return Ok(own);
        }
        let Some(folder) = folder_key(&transaction, at.host, path).await? else { return Ok(own) };
        let row = transaction.query_opt(&TOTALS, &[&at.host, &at.job, &folder, &at.seq]).await?;
        let row = row.ok_or_else(|| CatalogError::not_found("row", "totals"))?;
        Ok(SubtreeTotals {
            entries: own.entries + count(&row, "entries")?,
            files: own.files + count(&row, "files")?,
            bytes: own.bytes + count(&row, "bytes")?,
        })
    }
}
