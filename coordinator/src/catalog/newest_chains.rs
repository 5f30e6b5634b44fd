//! The newest chain of each job, in one statement for a job, a host or the fleet: what a look ahead goes by.

use coord_shared::ids::{BackupId, HostId, JobId, PolicyId, PolicyVersion};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Result;
use super::measures::MeasureFilter;
use super::pool::{Catalog, Params, Sql};
use super::row::{count, get, small};
use crate::domain::decision::FullFacts;

/// An active job of an active host and its newest chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestChain {
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
    /// The newest undamaged full with what stands on it, and the policy's version that it was made by.
    pub full: Option<(FullFacts, PolicyVersion)>,
    /// Bytes of the sources at the newest backup; none without one.
    pub source_bytes: Option<u64>,
    /// Runs that it owes for missed ones, and the newest instant that was missed; none where it owes none.
    pub owed: Option<(u32, Timestamp)>,
}

/// Jobs answered at most.
const MAX_JOBS: i64 = 100_000;

const OF_JOBS: Sql = Sql("
    SELECT j.job_id, h.host_id, h.name AS host_name, p.policy_id, p.name AS policy_name, j.owed_runs, j.owed_due_at, b.source_bytes,
           f.backup_id, f.captured_at, f.source_bytes AS full_bytes, f.stored_bytes, f.policy_version, d.differentials
    FROM jobs j
    JOIN hosts h ON h.host = j.host
    JOIN policies p ON p.policy = j.policy
    LEFT JOIN LATERAL (
        SELECT backup, backup_id, captured_at, source_bytes, stored_bytes, policy_version FROM backups
        WHERE job = j.job AND level = 'full' AND status = 'protected' ORDER BY seq DESC LIMIT 1
    ) f ON true
    LEFT JOIN LATERAL (
        SELECT source_bytes FROM backups WHERE job = j.job ORDER BY seq DESC LIMIT 1
    ) b ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(changed_bytes ORDER BY seq), '{}') AS differentials FROM backups
        WHERE base = f.backup AND archive_of = backup
    ) d
    WHERE j.state = 'active' AND h.state = 'active' AND ($1::uuid IS NULL OR j.job_id = $1)
      AND ($2::uuid IS NULL OR h.host_id = $2) AND ($3::uuid IS NULL OR p.policy_id = $3)
    ORDER BY h.name, p.name LIMIT $4");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("OF_JOBS", &OF_JOBS)];

fn read(row: &Row) -> Result<NewestChain> {
    let owed_runs = small(row, "owed_runs")?;
    let source_bytes: Option<i64> = get(row, "source_bytes")?;
    let differentials: Vec<i64> = get(row, "differentials")?;
    let full = match get::<Option<Uuid>>(row, "backup_id")? {
        None => None,
        Some(id) => {
            let facts = FullFacts {
                backup: BackupId::from_uuid(id),
                captured_at: get::<Timestamp>(row, "captured_at")?,
                source_bytes: count(row, "full_bytes")?,
                stored_bytes: count(row, "stored_bytes")?,
                differentials: differentials.into_iter().filter_map(|bytes| u64::try_from(bytes).ok()).collect(),
            };
            Some((facts, PolicyVersion(count(row, "policy_version")?)))
        }
    };
    Ok(NewestChain {
        job: JobId::from_uuid(get(row, "job_id")?),
        host: HostId::from_uuid(get(row, "host_id")?),
        host_name: get(row, "host_name")?,
        policy: PolicyId::from_uuid(get(row, "policy_id")?),
        policy_name: get(row, "policy_name")?,
        full,
        source_bytes: source_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        owed: get::<Option<Timestamp>>(row, "owed_due_at")?.map(|due_at| (owed_runs, due_at)).filter(|_| owed_runs > 0),
    })
}

impl Catalog {
    /// The newest chains of active jobs, by host and policy name.
    pub async fn newest_chains(&self, filter: MeasureFilter) -> Result<Vec<NewestChain>> {
        let job = filter.job.map(JobId::uuid);
        let (host, policy) = (filter.host.map(HostId::uuid), filter.policy.map(PolicyId::uuid));
        let params: Params<'_> = &[&job, &host, &policy, &MAX_JOBS];
        self.connection().await?.query(&OF_JOBS, params).await?.iter().map(read).collect()
    }
}
