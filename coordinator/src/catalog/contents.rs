//! How much of the restore points the catalog can be searched for, job by job, and what its entries take.

use coord_shared::ids::{BackupId, HostId, JobId, PolicyId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Params, Sql};
use super::row::{count, get};

/// Whose contents to look at; `None` means any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentsFilter {
    /// Of this host.
    pub host: Option<HostId>,
    /// Of this policy.
    pub policy: Option<PolicyId>,
}

/// What the catalog has of a job's restore points. A job that has ended is one too, as long as it has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobContents {
    /// The job.
    pub job: JobId,
    /// Its host.
    pub host: HostId,
    /// The host's name.
    pub host_name: String,
    /// The policy's name.
    pub policy_name: String,
    /// The host can be asked for indexes.
    pub connected: bool,
    /// Restore points.
    pub backups: u64,
    /// Those whose entries are here.
    pub searchable: u64,
    /// Those whose entries are waited for.
    pub pending: u64,
    /// Those whose entries were given up.
    pub not_searchable: u64,
    /// The first that is waited for: the others wait for it.
    pub waiting_for: Option<BackupId>,
    /// Why its host does not send its index, in its own words.
    pub said: String,
    /// Why the newest that was given up was.
    pub reason: String,
}

/// What the entries take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentsSize {
    /// States of paths, about: as many as the database counted last.
    pub versions: u64,
    /// Bytes of entries and folders, with their indexes.
    pub entry_bytes: u64,
    /// Bytes of the whole database.
    pub database_bytes: u64,
}

/// Jobs answered at most.
const MAX_JOBS: i64 = 100_000;

const OF_JOBS: Sql = Sql("
    SELECT j.job_id, h.host_id, h.name AS host_name, p.name AS policy_name,
           h.session_open AND EXISTS (
               SELECT FROM coordinators c
               WHERE c.coordinator_id = h.session_coordinator AND c.last_beat_at > now() - INTERVAL '15 s'
           ) AS connected,
           n.backups, n.searchable, n.pending, n.not_searchable, w.backup_id AS waiting_for,
           coalesce(w.said, '') AS said, coalesce(g.searchable_reason, '') AS reason
    FROM jobs j
    JOIN hosts h ON h.host = j.host
    JOIN policies p ON p.policy = j.policy
    CROSS JOIN LATERAL (
        SELECT count(*) AS backups, count(*) FILTER (WHERE b.searchable = 'searchable') AS searchable,
               count(*) FILTER (WHERE b.searchable = 'pending') AS pending,
               count(*) FILTER (WHERE b.searchable = 'not_searchable') AS not_searchable
        FROM backups b WHERE b.job = j.job
    ) n
    LEFT JOIN LATERAL (
        SELECT b.backup_id, a.said FROM backups b LEFT JOIN index_asks a ON a.backup = b.backup
        WHERE b.job = j.job AND b.searchable = 'pending' ORDER BY b.seq LIMIT 1
    ) w ON true
    LEFT JOIN LATERAL (
        SELECT b.searchable_reason FROM backups b
        WHERE b.job = j.job AND b.searchable = 'not_searchable' ORDER BY b.seq DESC LIMIT 1
    ) g ON true
    WHERE n.backups > 0 AND ($1::uuid IS NULL OR h.host_id = $1) AND ($2::uuid IS NULL OR p.policy_id = $2)
    ORDER BY h.name, p.name LIMIT $3");

const SIZE: Sql = Sql("
    SELECT pg_total_relation_size('file_versions') + pg_total_relation_size('folders') AS entry_bytes,
           pg_database_size(current_database()) AS database_bytes,
           (SELECT greatest(c.reltuples, 0)::bigint FROM pg_class c WHERE c.oid = 'file_versions'::regclass) AS versions");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("OF_JOBS", &OF_JOBS), ("SIZE", &SIZE)];

fn read(row: &Row) -> Result<JobContents> {
    Ok(JobContents {
        job: JobId::from_uuid(get(row, "job_id")?),
        host: HostId::from_uuid(get(row, "host_id")?),
        host_name: get(row, "host_name")?,
        policy_name: get(row, "policy_name")?,
        connected: get(row, "connected")?,
        backups: count(row, "backups")?,
        searchable: count(row, "searchable")?,
        pending: count(row, "pending")?,
        not_searchable: count(row, "not_searchable")?,
        waiting_for: get::<Option<Uuid>>(row, "waiting_for")?.map(BackupId::from_uuid),
        said: get(row, "said")?,
        reason: get(row, "reason")?,
    })
}

impl Catalog {
    /// What the catalog has of each job's restore points, by the names of host and policy.
    pub async fn contents(&self, filter: ContentsFilter) -> Result<Vec<JobContents>> {
        let (host, policy) = (filter.host.map(HostId::uuid), filter.policy.map(PolicyId::uuid));
        let params: Params<'_> = &[&host, &policy, &MAX_JOBS];
        self.connection().await?.query(&OF_JOBS, params).await?.iter().map(read).collect()
    }

    /// What the entries of all jobs take.
    pub async fn contents_size(&self) -> Result<ContentsSize> {
        let row = self.connection().await?.query_opt(&SIZE, &[]).await?;
        let row = row.ok_or_else(|| CatalogError::not_found("row of", "the catalog's size"))?;
        Ok(ContentsSize {
            versions: count(&row, "versions")?,
            entry_bytes: count(&row, "entry_bytes")?,
            database_bytes: count(&row, "database_bytes")?,
        })
    }
}
