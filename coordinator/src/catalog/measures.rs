//! What the runs of jobs have measured: the newest good restore point of each, the pace of its backups, and that of restores onto its
//! host. One statement for a job, a host or the fleet.

use coord_shared::ids::{BackupId, HostId, JobId, PolicyId};
use coord_shared::level::Level;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Result;
use super::pool::{Catalog, Params, Sql};
use super::row::{count, get, optional_word};
use crate::domain::rates::{Rates, Work};

/// Whose measures to read. `None` means any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeasureFilter {
    /// Of this job.
    pub job: Option<JobId>,
    /// Of jobs on this host.
    pub host: Option<HostId>,
    /// Of jobs of this policy.
    pub policy: Option<PolicyId>,
}

/// The newest restore point of a job whose archives are undamaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoodPoint {
    /// Its id.
    pub id: BackupId,
    /// Its time.
    pub captured_at: Timestamp,
    /// The level of the archive that it needs.
    pub level: Level,
    /// Bytes of the sources.
    pub source_bytes: u64,
    /// Content of the archives that a restore reads: the full's and that of at most one differential.
    pub restore_bytes: u64,
}

/// What an active job of an active host has measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobMeasures {
    /// The job.
    pub job: JobId,
    /// Its host.
    pub host: HostId,
    /// The host's name.
    pub host_name: String,
    /// Its policy.
    pub policy: PolicyId,
    /// The policy's name.
    pub policy_name: String,
    /// What a restore would go by.
    pub good: Option<GoodPoint>,
    /// The pace of its newest 30 backups with archives, and of the newest 20 restores onto the host.
    pub rates: Rates,
}

/// Jobs answered at most.
const MAX_JOBS: i64 = 100_000;

// $5 is the largest bigint: agents report any figures they like, and no sum of them may stop the report of a fleet.
// LEAST passes over NULL, so what was not measured is made 0 first.
macro_rules! measures {
    ($of_job:literal) => {
        concat!(
            "
    SELECT j.job_id, h.host_id, h.name AS host_name, p.policy_id, p.name AS policy_name,
           g.backup_id, g.captured_at, g.level, g.source_bytes, g.restore_bytes,
           w.scan_ms, w.full_bytes, w.full_ms, w.differential_bytes, w.differential_ms, w.verify_bytes, w.verify_ms,
           r.restore_bytes AS restored_bytes, r.restore_ms
    FROM jobs j
    JOIN hosts h ON h.host = j.host
    JOIN policies p ON p.policy = j.policy
    LEFT JOIN LATERAL (
        SELECT b.backup_id, b.captured_at, own.level, b.source_bytes,
               least(own.content_bytes::numeric + coalesce(base.content_bytes, 0), $5::bigint)::bigint AS restore_bytes
        FROM backups b
        JOIN backups own ON own.backup = b.archive_of
        LEFT JOIN backups base ON base.backup = own.base
        WHERE b.job = j.job AND b.status = 'protected' AND own.status = 'protected'
          AND (base.backup IS NULL OR base.status = 'protected')
        ORDER BY b.seq DESC LIMIT 1
    ) g ON true
    CROSS JOIN LATERAL (
        SELECT avg(scan_ms)::bigint AS scan_ms,
               least(coalesce(sum(content_bytes) FILTER (WHERE level = 'full'), 0), $5::bigint)::bigint AS full_bytes,
               least(coalesce(sum(ms) FILTER (WHERE level = 'full'), 0), $5::bigint)::bigint AS full_ms,
               least(coalesce(sum(content_bytes) FILTER (WHERE level = 'differential'), 0), $5::bigint)::bigint AS differential_bytes,
               least(coalesce(sum(ms) FILTER (WHERE level = 'differential'), 0), $5::bigint)::bigint AS differential_ms,
               least(coalesce(sum(content_bytes), 0), $5::bigint)::bigint AS verify_bytes,
               least(coalesce(sum(verify_ms), 0), $5::bigint)::bigint AS verify_ms
        FROM (
            SELECT level, content_bytes, scan_ms, verify_ms, pack_ms::numeric + seal_ms + verify_ms AS ms FROM backups
            WHERE job = j.job AND archive_of = backup ORDER BY seq DESC LIMIT 30
        ) recent
    ) w
    CROSS JOIN LATERAL (
        SELECT least(coalesce(sum((result->>'bytes')::numeric), 0), $5::bigint)::bigint AS restore_bytes,
               least(coalesce(sum((result->>'restore_ms')::numeric), 0), $5::bigint)::bigint AS restore_ms
        FROM (
            SELECT result FROM runs
            WHERE host = j.host AND kind = 'restore' AND state = 'succeeded' AND (result->>'bytes')::numeric > 0
            ORDER BY due_at DESC LIMIT 20
        ) recent
    ) r
    WHERE j.state = 'active' AND h.state = 'active' AND ",
            $of_job,
            "
      AND ($2::uuid IS NULL OR h.host_id = $2) AND ($3::uuid IS NULL OR p.policy_id = $3)
    ORDER BY h.name, p.name LIMIT $4"
        )
    };
}

const OF_JOBS: Sql = Sql(measures!("($1::uuid IS NULL OR j.job_id = $1)"));
// Asked before every backup: a plan that serves every job can be kept.
pub(super) const OF_JOB: Sql = Sql(measures!("j.job_id = $1"));

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("OF_JOBS", &OF_JOBS), ("OF_JOB", &OF_JOB)];

fn read(row: &Row) -> Result<JobMeasures> {
    let work = |bytes: &'static str, ms: &'static str| -> Result<Work> {
        Ok(Work { bytes: count(row, bytes)?, ms: count(row, ms)? })
    };
    let scan_ms: Option<i64> = get(row, "scan_ms")?;
    Ok(JobMeasures {
        job: JobId::from_uuid(get(row, "job_id")?),
        host: HostId::from_uuid(get(row, "host_id")?),
        host_name: get(row, "host_name")?,
        policy: PolicyId::from_uuid(get(row, "policy_id")?),
        policy_name: get(row, "policy_name")?,
        good: good(row)?,
        rates: Rates {
            scan_ms: scan_ms.and_then(|ms| u64::try_from(ms).ok()),
            full: work("full_bytes", "full_ms")?,
            differential: work("differential_bytes", "differential_ms")?,
            verify: work("verify_bytes", "verify_ms")?,
            restore: work("restored_bytes", "restore_ms")?,
        },
    })
}

fn good(row: &Row) -> Result<Option<GoodPoint>> {
    let Some(id) = get::<Option<Uuid>>(row, "backup_id")? else { return Ok(None) };
    let Some(level) = optional_word(row, "level")? else { return Ok(None) };
    Ok(Some(GoodPoint {
        id: BackupId::from_uuid(id),
        captured_at: get(row, "captured_at")?,
        level,
        source_bytes: count(row, "source_bytes")?,
        restore_bytes: count(row, "restore_bytes")?,
    }))
}

impl Catalog {
    /// The measures of active jobs, by host and policy name.
    pub async fn measures(&self, filter: MeasureFilter) -> Result<Vec<JobMeasures>> {
        let job = filter.job.map(JobId::uuid);
        let (host, policy) = (filter.host.map(HostId::uuid), filter.policy.map(PolicyId::uuid));
        let params: Params<'_> = &[&job, &host, &policy, &MAX_JOBS, &i64::MAX];
        let statement = if job.is_some() { &OF_JOB } else { &OF_JOBS };
        self.connection().await?.query(statement, params).await?.iter().map(read).collect()
    }
}
