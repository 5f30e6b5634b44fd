//! The planned night of each job's next full, where fulls are levelled. Invariant: a row is changed only from the night that the
//! caller saw, so that coordinators that plan at the same moment do not undo each other's plan.

use coord_shared::ids::{HostId, JobId, PolicyId};
use jiff::Timestamp;
use jiff::civil::Date;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Result;
use super::pool::{Catalog, Params, Sql};
use super::row::{big, get};

/// An active job of a policy whose fulls are levelled, with what the plan goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelledRecord {
    /// The job.
    pub job: JobId,
    /// Its host.
    pub host: HostId,
    /// Its policy.
    pub policy: PolicyId,
    /// The time of its newest undamaged full.
    pub full_at: Option<Timestamp>,
    /// Bytes of the sources at its newest backup.
    pub source_bytes: Option<u64>,
    /// The planned night.
    pub planned: Option<Date>,
}

/// A night about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPlannedFull {
    /// Of which job.
    pub job: JobId,
    /// What the row said; `None`: there was none.
    pub seen: Option<Date>,
    /// What it shall say.
    pub night: Date,
    /// What the full is expected to store.
    pub bytes: u64,
}

/// Jobs answered at most.
const MAX_JOBS: i64 = 100_000;

const LEVELLED: Sql = Sql("
    SELECT j.job_id, h.host_id, p.policy_id, f.captured_at AS full_at, b.source_bytes, l.night
    FROM jobs j
    JOIN hosts h ON h.host = j.host
    JOIN policies p ON p.policy = j.policy
    LEFT JOIN LATERAL (
        SELECT captured_at FROM backups WHERE job = j.job AND level = 'full' AND status = 'protected'
        ORDER BY seq DESC LIMIT 1
    ) f ON true
    LEFT JOIN LATERAL (
        SELECT source_bytes FROM backups WHERE job = j.job ORDER BY seq DESC LIMIT 1
    ) b ON true
    LEFT JOIN full_plan l ON l.job = j.job
    WHERE j.state = 'active' AND h.state = 'active' AND p.policy_id = ANY ($1::uuid[])
    ORDER BY j.job LIMIT $2");

const OF_JOB: Sql = Sql("SELECT l.night FROM full_plan l JOIN jobs j ON j.job = l.job WHERE j.job_id = $1");

const CHANGE: Sql = Sql("
    UPDATE full_plan l SET night = w.night, bytes = w.bytes, planned_at = now()
    FROM unnest($1::uuid[], $2::date[], $3::date[], $4::bigint[]) AS w (job_id, seen, night, bytes)
    JOIN jobs j ON j.job_id = w.job_id
    WHERE l.job = j.job AND l.night = w.seen");

const ADD: Sql = Sql("
    INSERT INTO full_plan (job, night, bytes)
    SELECT j.job, w.night, w.bytes
    FROM unnest($1::uuid[], $2::date[], $3::date[], $4::bigint[]) AS w (job_id, seen, night, bytes)
    JOIN jobs j ON j.job_id = w.job_id
    WHERE w.seen IS NULL
    ORDER BY j.job
    ON CONFLICT (job) DO NOTHING");

const FORGET: Sql = Sql("
    DELETE FROM full_plan l USING jobs j, policies p
    WHERE j.job = l.job AND p.policy = j.policy AND (j.state <> 'active' OR p.policy_id <> ALL ($1::uuid[]))");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("LEVELLED", &LEVELLED), ("OF_JOB", &OF_JOB), ("CHANGE", &CHANGE), ("ADD", &ADD), ("FORGET", &FORGET)];

fn read(row: &Row) -> Result<LevelledRecord> {
    let source_bytes: Option<i64> = get(row, "source_bytes")?;
    Ok(LevelledRecord {
        job: JobId::from_uuid(get(row, "job_id")?),
        host: HostId::from_uuid(get(row, "host_id")?),
        policy: PolicyId::from_uuid(get(row, "policy_id")?),
        full_at: get(row, "full_at")?,
        source_bytes: source_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        planned: get(row, "night")?,
    })
}

impl Catalog {
    /// The active jobs of these policies.
    pub async fn levelled_jobs(&self, policies: &[PolicyId]) -> Result<Vec<LevelledRecord>> {
        let policies: Vec<Uuid> = policies.iter().map(|id| id.uuid()).collect();
        self.connection().await?.query(&LEVELLED, &[&policies, &MAX_JOBS]).await?.iter().map(read).collect()
    }

    /// The planned night of a job's next full.
    pub async fn planned_full(&self, job: JobId) -> Result<Option<Date>> {
        let row = self.connection().await?.query_opt(&OF_JOB, &[&job.uuid()]).await?;
        row.as_ref().map(|row| get(row, "night")).transpose()
    }

    /// Writes planned nights; those whose row says another night by now than was seen are left. Answers how many were written.
    pub async fn put_full_plan(&self, plan: &[NewPlannedFull]) -> Result<u64> {
        let jobs: Vec<Uuid> = plan.iter().map(|new| new.job.uuid()).collect();
        let seen: Vec<Option<Date>> = plan.iter().map(|new| new.seen).collect();
        let nights: Vec<Date> = plan.iter().map(|new| new.night).collect();
        let bytes = plan.iter().map(|new| big(new.bytes, "the bytes of a full")).collect::<Result<Vec<i64>>>()?;
        let params: Params<'_> = &[&jobs, &seen, &nights, &bytes];
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let changed = transaction.execute(&CHANGE, params).await?;
        let added = transaction.execute(&ADD, params).await?;
        transaction.commit().await?;
        Ok(changed + added)
    }

    /// Forgets the nights of jobs that have ended, or whose policy is none of these.
    pub async fn forget_full_plan(&self, policies: &[PolicyId]) -> Result<u64> {
        let policies: Vec<Uuid> = policies.iter().map(|id| id.uuid()).collect();
        self.connection().await?.execute(&FORGET, &[&policies]).await
    }
}
