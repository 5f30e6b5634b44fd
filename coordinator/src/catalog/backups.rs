//! Restore points. Invariant: rows are written by `commit` and only their checks, status and searchability change afterwards.

use coord_archive::digest::Digest;
use coord_shared::ids::{Attempt, BackupId, HostId, JobId, Ordinal, PolicyId, PolicyVersion, RunId, Seq};
use coord_shared::level::Level;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Result;
use super::pool::{Catalog, Params, Sql, Transaction};
use super::records::CheckRecord;
use super::row::{count, digest, get, json, small, to_json, word};
use crate::domain::bottleneck::Phases;

/// Whether the archive is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupStatus {
    /// Archive and index are durable and were verified.
    Protected,
    /// A check failed since.
    Damaged,
}

/// Whether the entries are in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Searchable {
    /// Not yet.
    Pending,
    /// They are.
    Searchable,
    /// They will not be, unless the job is taken in again.
    NotSearchable,
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// `.tar.zst`.
    Zstd,
    /// `.tar.gz`.
    Gzip,
}

/// A restore point.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    /// Its id.
    pub id: BackupId,
    /// Its host.
    pub host: HostId,
    /// The host's name.
    pub host_name: String,
    /// Its job.
    pub job: JobId,
    /// The job's policy.
    pub policy: PolicyId,
    /// The policy's name.
    pub policy_name: String,
    /// The policy's version that it was made by.
    pub policy_version: PolicyVersion,
    /// Its place among the job's backups.
    pub seq: Seq,
    /// The agent's number of it.
    pub ordinal: Ordinal,
    /// Full or differential.
    pub level: Level,
    /// The full it stands on.
    pub base: Option<BackupId>,
    /// The restore point whose archive this one names, when it has none of its own.
    pub same_as: Option<BackupId>,
    /// The run that made it.
    pub run: RunId,
    /// The attempt that made it.
    pub attempt: Attempt,
    /// The archive folder on the host that wrote the archive.
    pub location_folder: Vec<u8>,
    /// The archive's name below the folder.
    pub location_key: String,
    /// Digest of the stored archive.
    pub archive_digest: Digest,
    /// Size of the archive.
    pub stored_bytes: u64,
    /// How it is compressed.
    pub codec: Codec,
    /// Digest of sources and excludes.
    pub selection_digest: Vec<u8>,
    /// Start, corrected by the clock offset.
    pub started_at: Timestamp,
    /// Its time: end of reading, corrected by the clock offset.
    pub captured_at: Timestamp,
    /// The correction, in microseconds.
    pub clock_offset_us: i64,
    /// Entries in the index.
    pub entries: u64,
    /// Files in the index.
    pub files: u64,
    /// Bytes of content in the archive, before compression.
    pub content_bytes: u64,
    /// Files in the sources.
    pub source_files: u64,
    /// Bytes in the sources.
    pub source_bytes: u64,
    /// Files that changed since the base.
    pub changed_files: u64,
    /// Bytes of them.
    pub changed_bytes: u64,
    /// Names gone since the base.
    pub removed: u64,
    /// Blocks of the index.
    pub index_blocks: u64,
    /// What could not be read.
    pub unreadable: u64,
    /// What changed while it was read.
    pub changed_while_read: u64,
    /// Where the time went.
    pub phases: Phases,
    /// Whether the archive is good.
    pub status: BackupStatus,
    /// Whether its entries are in the catalog.
    pub searchable: Searchable,
    /// Why they are not.
    pub searchable_reason: String,
    /// The newest checks.
    pub checks: Vec<CheckRecord>,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// When it was last verified.
    pub verified_at: Option<Timestamp>,
}

/// Which restore points to list; `None` means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupFilter {
    /// Of this host.
    pub host: Option<HostId>,
    /// Of one of these hosts.
    pub hosts: Option<Vec<HostId>>,
    /// Of this policy.
    pub policy: Option<PolicyId>,
    /// Captured at or after.
    pub since: Option<Timestamp>,
    /// Captured at or before.
    pub until: Option<Timestamp>,
    /// At most so many; 0 means [`MAX_LISTED_BACKUPS`].
    pub limit: u32,
}

/// Most restore points that one list answers.
pub const MAX_LISTED_BACKUPS: u32 = 100_000;

impl BackupStatus {
    /// Every status, for the CHECK list.
    pub const ALL: [BackupStatus; 2] = [BackupStatus::Protected, BackupStatus::Damaged];

    /// The word in SQL and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            BackupStatus::Protected => "protected",
            BackupStatus::Damaged => "damaged",
        }
    }

    /// What checks make of a backup. Nobody looked when there are none, and what nobody looked at is not protected.
    pub fn of(checks: &[CheckRecord]) -> BackupStatus {
        let passed = !checks.is_empty() && checks.iter().all(|check| check.passed);
        if passed { BackupStatus::Protected } else { BackupStatus::Damaged }
    }
}

impl Searchable {
    /// Every state, for the CHECK list.
    pub const ALL: [Searchable; 3] = [Searchable::Pending, Searchable::Searchable, Searchable::NotSearchable];

    /// The word in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Searchable::Pending => "pending",
            Searchable::Searchable => "searchable",
            Searchable::NotSearchable => "not_searchable",
        }
    }
}

impl Codec {
    /// Every codec, for the CHECK list.
    pub const ALL: [Codec; 2] = [Codec::Zstd, Codec::Gzip];

    /// The word in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Codec::Zstd => "zstd",
            Codec::Gzip => "gzip",
        }
    }
}

super::words::impl_word!(BackupStatus, "status of a backup");
super::words::impl_word!(Searchable, "searchability of a backup");
super::words::impl_word!(Codec, "codec");

macro_rules! select_backups {
    ($tail:literal) => {
        concat!(
            "SELECT b.backup_id, h.host_id, h.name AS host_name, j.job_id, p.policy_id, p.name AS policy_name, b.policy_version,
                    b.seq, b.ordinal, b.level, base.backup_id AS base_id,
                    CASE WHEN b.archive_of <> b.backup THEN same.backup_id END AS same_as,
                    b.run_id, b.attempt, b.location_folder, b.location_key, b.archive_digest, b.stored_bytes, b.codec,
                    b.selection_digest, b.started_at, b.captured_at, b.clock_offset_us, b.entries, b.files, b.content_bytes,
                    b.source_files, b.source_bytes, b.changed_files, b.changed_bytes, b.removed, b.index_blocks, b.unreadable,
                    b.changed_while_read, b.scan_ms, b.pack_ms, b.seal_ms, b.verify_ms, b.status, b.searchable,
                    b.searchable_reason, b.checks, b.committed_at, b.verified_at, b.effort, b.catalog_ms
             FROM backups b
             JOIN jobs j ON j.job = b.job
             JOIN hosts h ON h.host = b.host
             JOIN policies p ON p.policy = j.policy
             JOIN backups same ON same.backup = b.archive_of
             LEFT JOIN backups base ON base.backup = b.base ",
            $tail
        )
    };
}

const BY_ID: Sql = Sql(select_backups!("WHERE b.backup_id = $1"));

const BY_IDS: Sql = Sql(select_backups!("WHERE b.backup_id = ANY ($1::uuid[])"));

const BY_PREFIX: Sql =
    Sql(select_backups!("WHERE b.backup_id::text LIKE $1 || '%' ORDER BY b.captured_at DESC LIMIT 10"));

const LIST: Sql = Sql(select_backups!(
    "WHERE ($1::uuid IS NULL OR h.host_id = $1) AND ($2::uuid IS NULL OR p.policy_id = $2)
       AND ($3::timestamptz IS NULL OR b.captured_at >= $3) AND ($4::timestamptz IS NULL OR b.captured_at <= $4)
       AND ($6::uuid[] IS NULL OR h.host_id = ANY ($6))
     ORDER BY b.captured_at DESC, b.seq DESC LIMIT $5"
));

const OF_JOB: Sql = Sql(select_backups!("WHERE j.job_id = $1 ORDER BY b.seq DESC LIMIT $2"));

const OF_RUN: Sql = Sql(select_backups!("WHERE b.run_id = $1"));

pub(super) const NEWEST: Sql = Sql(select_backups!("WHERE j.job_id = $1 ORDER BY b.seq DESC LIMIT 1"));

const NEWEST_FULL: Sql = Sql(select_backups!(
    "WHERE j.job_id = $1 AND b.level = 'full' AND b.status = 'protected' ORDER BY b.seq DESC LIMIT 1"
));

const CHAIN: Sql = Sql(select_backups!("WHERE base.backup_id = $1 ORDER BY b.seq DESC LIMIT 100000"));

// All points that name the archive share its fate; every new point of a damaged one would name it too. A run speaks of the
// archives of its own job.
const RECORD_CHECKS: Sql = Sql("
    UPDATE backups b SET checks = $4, status = $3, verified_at = now()
    FROM backups checked
    WHERE checked.backup_id = $1 AND checked.job = $2 AND b.job = $2 AND b.archive_of = checked.archive_of");

// Without a row it was never asked for.
pub(super) const ASK_FOR: Sql = Sql(select_backups!(
    "WHERE h.host_id = ANY ($1::uuid[]) AND b.searchable = 'pending' AND b.index_blocks > 0
       AND now() >= coalesce(
           (SELECT CASE WHEN a.asked_at IS NULL THEN '-infinity'
                        ELSE a.asked_at + make_interval(secs => least(30 * 2 ^ least(a.asks - 1, 7), 3600)) END
            FROM index_asks a WHERE a.backup = b.backup),
           b.committed_at + INTERVAL '30 s')
     ORDER BY b.job, b.seq LIMIT $2"
));

const NOT_SEARCHABLE: Sql = Sql("SELECT count(*) AS number FROM backups WHERE searchable <> 'searchable'");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("BY_ID", &BY_ID),
    ("BY_IDS", &BY_IDS),
    ("BY_PREFIX", &BY_PREFIX),
    ("LIST", &LIST),
    ("OF_JOB", &OF_JOB),
    ("OF_RUN", &OF_RUN),
    ("NEWEST", &NEWEST),
    ("NEWEST_FULL", &NEWEST_FULL),
    ("CHAIN", &CHAIN),
    ("RECORD_CHECKS", &RECORD_CHECKS),
    ("ASK_FOR", &ASK_FOR),
    ("NOT_SEARCHABLE", &NOT_SEARCHABLE),
];

pub(super) fn read(row: &Row) -> Result<Backup> {
    Ok(Backup {
        id: BackupId::from_uuid(get(row, "backup_id")?),
        host: HostId::from_uuid(get(row, "host_id")?),
        host_name: get(row, "host_name")?,
        job: JobId::from_uuid(get(row, "job_id")?),
        policy: PolicyId::from_uuid(get(row, "policy_id")?),
        policy_name: get(row, "policy_name")?,
        policy_version: PolicyVersion(count(row, "policy_version")?),
        seq: Seq(i64::from(get::<i32>(row, "seq")?)),
        ordinal: Ordinal(count(row, "ordinal")?),
        level: word(row, "level")?,
        base: get::<Option<Uuid>>(row, "base_id")?.map(BackupId::from_uuid),
        same_as: get::<Option<Uuid>>(row, "same_as")?.map(BackupId::from_uuid),
        run: RunId::from_uuid(get(row, "run_id")?),
        attempt: Attempt(small(row, "attempt")?),
        location_folder: get(row, "location_folder")?,
        location_key: get(row, "location_key")?,
        archive_digest: Digest(digest(row, "archive_digest")?),
        stored_bytes: count(row, "stored_bytes")?,
        codec: word(row, "codec")?,
        selection_digest: get(row, "selection_digest")?,
        started_at: get(row, "started_at")?,
        captured_at: get(row, "captured_at")?,
        clock_offset_us: get(row, "clock_offset_us")?,
        entries: count(row, "entries")?,
        files: count(row, "files")?,
        content_bytes: count(row, "content_bytes")?,
        source_files: count(row, "source_files")?,
        source_bytes: count(row, "source_bytes")?,
        changed_files: count(row, "changed_files")?,
        changed_bytes: count(row, "changed_bytes")?,
        removed: count(row, "removed")?,
        index_blocks: count(row, "index_blocks")?,
        unreadable: count(row, "unreadable")?,
        changed_while_read: count(row, "changed_while_read")?,
        phases: phases(row)?,
        status: word(row, "status")?,
        searchable: word(row, "searchable")?,
        searchable_reason: get(row, "searchable_reason")?,
        checks: json(row, "checks")?,
        committed_at: get(row, "committed_at")?,
        verified_at: get(row, "verified_at")?,
    })
}

fn phases(row: &Row) -> Result<Phases> {
    let effort = get::<Option<serde_json::Value>>(row, "effort")?;
    let catalog: Option<i64> = get(row, "catalog_ms")?;
    Ok(Phases {
        scan_ms: count(row, "scan_ms")?,
        pack_ms: count(row, "pack_ms")?,
        seal_ms: count(row, "seal_ms")?,
        verify_ms: count(row, "verify_ms")?,
        catalog_ms: catalog.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
        // What a later version wrote in another form is not known here.
        effort: effort.and_then(|value| serde_json::from_value(value).ok()),
    })
}

impl Catalog {
    /// A restore point by its id.
    pub async fn backup(&self, id: BackupId) -> Result<Option<Backup>> {
        self.connection().await?.query_opt(&BY_ID, &[&id.uuid()]).await?.as_ref().map(read).transpose()
    }

    /// Restore points by their ids, in no order.
    pub async fn backups_by_ids(&self, ids: &[BackupId]) -> Result<Vec<Backup>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        self.connection().await?.query(&BY_IDS, &[&ids]).await?.iter().map(read).collect()
    }

    /// Restore points whose id begins with `prefix`, at most ten.
    pub async fn backups_by_id_prefix(&self, prefix: &str) -> Result<Vec<Backup>> {
        if !super::words::is_id_prefix(prefix) {
            return Ok(Vec::new());
        }
        self.connection().await?.query(&BY_PREFIX, &[&prefix]).await?.iter().map(read).collect()
    }

    /// Restore points, newest first.
    pub async fn backups(&self, filter: BackupFilter) -> Result<Vec<Backup>> {
        let (host, policy) = (filter.host.map(HostId::uuid), filter.policy.map(PolicyId::uuid));
        let limit = if filter.limit == 0 { MAX_LISTED_BACKUPS } else { filter.limit.min(MAX_LISTED_BACKUPS) };
        let hosts: Option<Vec<Uuid>> = filter.hosts.map(|hosts| hosts.into_iter().map(HostId::uuid).collect());
        let params: Params<'_> = &[&host, &policy, &filter.since, &filter.until, &i64::from(limit), &hosts];
        self.connection().await?.query(&LIST, params).await?.iter().map(read).collect()
    }

    /// A job's restore points, highest seq first.
    pub async fn backups_of_job(&self, job: JobId, limit: u32) -> Result<Vec<Backup>> {
        let params: Params<'_> = &[&job.uuid(), &i64::from(limit)];
        self.connection().await?.query(&OF_JOB, params).await?.iter().map(read).collect()
    }

    /// The restore point that a run left.
    pub async fn backup_of_run(&self, run: RunId) -> Result<Option<Backup>> {
        self.connection().await?.query_opt(&OF_RUN, &[&run.uuid()]).await?.as_ref().map(read).transpose()
    }

    /// The job's restore point with the highest seq, damaged or not.
    pub async fn newest_backup(&self, job: JobId) -> Result<Option<Backup>> {
        self.connection().await?.query_opt(&NEWEST, &[&job.uuid()]).await?.as_ref().map(read).transpose()
    }

    /// The job's newest undamaged full.
    pub async fn newest_full(&self, job: JobId) -> Result<Option<Backup>> {
        self.connection().await?.query_opt(&NEWEST_FULL, &[&job.uuid()]).await?.as_ref().map(read).transpose()
    }

    /// The restore points that stand on a full, highest seq first; without the full itself.
    pub async fn chain_of(&self, full: BackupId) -> Result<Vec<Backup>> {
        self.connection().await?.query(&CHAIN, &[&full.uuid()]).await?.iter().map(read).collect()
    }

    /// How many restore points are not searchable, or not yet.
    pub async fn count_not_searchable(&self) -> Result<u64> {
        let row = self.connection().await?.query_opt(&NOT_SEARCHABLE, &[]).await?;
        row.map_or(Ok(0), |row| count(&row, "number"))
    }
}

/// A verification read the archive of this restore point: all points that name the archive share the outcome. One of another job
/// is passed over.
pub(super) async fn record_checks(
    transaction: &Transaction<'_>,
    job: i32,
    id: BackupId,
    checks: &[CheckRecord],
) -> Result<()> {
    let (status, checks) = (BackupStatus::of(checks), to_json(&checks)?);
    transaction.execute(&RECORD_CHECKS, &[&id.uuid(), &job, &status.as_str(), &checks]).await?;
    Ok(())
}
