//! Questions to the catalog itself, past every program of the product.

use std::path::PathBuf;

use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, Row};

use super::Checked;

/// A connection of the checker's own.
pub struct Catalog {
    runtime: Runtime,
    client: Client,
}

/// A restore point with the place of its archive.
#[derive(Debug, Clone)]
pub(super) struct Backup {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) captured_at: Timestamp,
    /// It has an archive of its own; else it names an older one's.
    pub(super) own: bool,
    pub(super) folder: PathBuf,
    pub(super) key: String,
    pub(super) digest: Vec<u8>,
    pub(super) stored_bytes: u64,
    /// The archive of its full, when it stands on one.
    pub(super) base: Option<(PathBuf, String)>,
}

const COUNT: &str = "
    SELECT (SELECT count(*) FROM runs) AS runs,
        (SELECT count(*) FROM runs WHERE asked_by = 'schedule') AS due_runs,
        (SELECT count(*) FROM attempts WHERE attempt > 1) AS repeated,
        (SELECT count(*) FROM backups) AS points";

const BACKUPS: &str = "
    SELECT b.backup_id::text AS id, h.name AS host, b.captured_at, b.archive_of = b.backup AS own, b.location_folder, b.location_key,
        b.archive_digest, b.stored_bytes, a.level AS archive_level, f.location_folder AS full_folder, f.location_key AS full_key
    FROM backups b JOIN hosts h ON h.host = b.host JOIN backups a ON a.backup = b.archive_of LEFT JOIN backups f ON f.backup = a.base
    ORDER BY b.host, b.captured_at";

const UNFINISHED: &str = "
    SELECT format('%s open %s runs', count(*), state) AS what FROM runs
    WHERE state IN ('queued', 'leased', 'running', 'verifying') GROUP BY state
    UNION ALL
    SELECT format('%s indexes on their way', count(*)) FROM backups WHERE searchable = 'pending' HAVING count(*) > 0";

fn text(error: tokio_postgres::Error) -> String {
    let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("the checker's question to the catalog: {error}{source}")
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

impl Catalog {
    /// Connects.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn connect(url: &str) -> Result<Catalog, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls)).map_err(text)?;
        runtime.spawn(connection);
        Ok(Catalog { runtime, client })
    }

    /// Runs statements, for planting violations.
    ///
    /// # Errors
    /// As the database.
    pub fn execute(&self, statements: &str) -> Result<(), String> {
        self.runtime.block_on(self.client.batch_execute(statements)).map_err(text)
    }

    /// The rows of a question without parameters.
    ///
    /// # Errors
    /// As the database.
    pub fn rows(&self, question: &str) -> Result<Vec<Row>, String> {
        self.runtime.block_on(self.client.query(question, &[])).map_err(text)
    }

    /// The first column of a question, which is a text.
    ///
    /// # Errors
    /// As the database.
    pub fn texts(&self, question: &str) -> Result<Vec<String>, String> {
        self.rows(question)?.iter().map(|row| row.try_get(0).map_err(text)).collect()
    }

    pub(super) fn count(&self) -> Result<Checked, String> {
        let rows = self.rows(COUNT)?;
        let row = rows.first().ok_or("the catalog counts nothing")?;
        let number = |name: &str| row.try_get::<_, i64>(name).map(i64::unsigned_abs).map_err(text);
        Ok(Checked {
            runs: number("runs")?,
            due_runs: number("due_runs")?,
            repeated: number("repeated")?,
            points: number("points")?,
            ..Checked::default()
        })
    }

    pub(super) fn backups(&self) -> Result<Vec<Backup>, String> {
        self.rows(BACKUPS)?.iter().map(|row| read(row).map_err(text)).collect()
    }
}

fn read(row: &Row) -> Result<Backup, tokio_postgres::Error> {
    let full: Option<Vec<u8>> = row.try_get("full_folder")?;
    let key: Option<String> = row.try_get("full_key")?;
    Ok(Backup {
        id: row.try_get("id")?,
        host: row.try_get("host")?,
        captured_at: row.try_get("captured_at")?,
        own: row.try_get("own")?,
        folder: path(row.try_get("location_folder")?),
        key: row.try_get("location_key")?,
        digest: row.try_get("archive_digest")?,
        stored_bytes: row.try_get::<_, i64>("stored_bytes")?.unsigned_abs(),
        base: full.map(path).zip(key),
    })
}

/// What the fleet has begun and not ended, in words.
///
/// # Errors
/// As the database.
pub fn unfinished(url: &str) -> Result<Vec<String>, String> {
    Catalog::connect(url)?.texts(UNFINISHED)
}
