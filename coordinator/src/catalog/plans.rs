//! Runs promised to hosts for the time they may be cut off. Invariant: an instant of a job has one id, whoever promises it and
//! however often, and the scheduler inserts the due run with that id; so a host and a coordinator that cannot hear each other speak of
//! the same run. Not here: which runs those are (`domain`), and how one that a host began gets its row (`leases`).

use std::collections::HashMap;

use coord_shared::ids::{HostId, JobId, PolicyVersion, RunId};
use coord_shared::level::Level;
use coord_shared::run::RunKind;
use jiff::Timestamp;
use uuid::Uuid;

use super::error::Result;
use super::pool::{Catalog, Params, Sql};
use super::row::{big, get};

/// A run promised to an agent for the time it may be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The id that the run will have.
    pub id: RunId,
    /// Of which job.
    pub job: JobId,
    /// When.
    pub due_at: Timestamp,
    /// Full or differential.
    pub level: Level,
    /// The policy's version.
    pub policy_version: PolicyVersion,
}

// An instant that has its run already is not promised under another id.
const PLAN: Sql = Sql("
    INSERT INTO planned_runs AS p (run_id, job, kind, due_at, level, policy_version)
    SELECT w.run_id, j.job, $6, w.due_at, w.level, w.version
    FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::bigint[])
        AS w (run_id, job_id, due_at, level, version)
    JOIN jobs j ON j.job_id = w.job_id
    WHERE NOT EXISTS (SELECT FROM runs r WHERE r.job = j.job AND r.kind = $6 AND r.due_at = w.due_at)
    ORDER BY j.job, w.due_at
    ON CONFLICT (job, kind, due_at) DO UPDATE SET level = EXCLUDED.level, policy_version = EXCLUDED.policy_version
        WHERE (p.level, p.policy_version) IS DISTINCT FROM (EXCLUDED.level, EXCLUDED.policy_version)");

const PROMISED: Sql = Sql("
    SELECT p.run_id, w.job_id, p.due_at
    FROM unnest($1::uuid[], $2::timestamptz[]) AS w (job_id, due_at)
    JOIN jobs j ON j.job_id = w.job_id
    JOIN planned_runs p ON p.job = j.job AND p.kind = $3 AND p.due_at = w.due_at");

// Whatever a plan goes by: labels, policies, planned nights of fulls, the full that a differential would stand on, pauses.
const PRINTS: Sql = Sql("
    SELECT h.host_id, md5(concat_ws('|', h.labels, (
        SELECT string_agg(concat_ws(':', j.job, p.version, l.night, (
            SELECT b.backup FROM backups b WHERE b.job = j.job AND b.level = 'full' AND b.status = 'protected'
            ORDER BY b.seq DESC LIMIT 1)), ',' ORDER BY j.job)
        FROM jobs j JOIN policies p ON p.policy = j.policy LEFT JOIN full_plan l ON l.job = j.job
        WHERE j.host = h.host AND j.state = 'active'
    ), (
        SELECT string_agg(concat_ws(':', x.pause, x.until), ',' ORDER BY x.pause) FROM pauses x
        WHERE x.ended_at IS NULL AND (x.until IS NULL OR x.until > now()) AND (x.host IS NULL OR x.host = h.host)
    ))) AS print
    FROM hosts h WHERE h.host_id = ANY ($1::uuid[])");

// What has its run is in the catalog under its id, and what is a month old may not be reported any more: certificates do not renew then either.
const FORGET: Sql = Sql("
    DELETE FROM planned_runs p
    WHERE p.due_at < now() - INTERVAL '1 hour'
      AND (p.due_at < now() - INTERVAL '30 days' OR EXISTS (SELECT FROM runs r WHERE r.run_id = p.run_id))");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("PLAN", &PLAN), ("PROMISED", &PROMISED), ("PRINTS", &PRINTS), ("FORGET", &FORGET)];

impl Catalog {
    /// Promises backups. Answers them with the ids that they have: an instant that was promised before keeps its id, and one that has its
    /// run already is left out.
    pub async fn plan_runs(&self, wanted: &[Planned]) -> Result<Vec<Planned>> {
        let kind = RunKind::Backup.as_str();
        let ids: Vec<Uuid> = wanted.iter().map(|run| run.id.uuid()).collect();
        let jobs: Vec<Uuid> = wanted.iter().map(|run| run.job.uuid()).collect();
        let due: Vec<Timestamp> = wanted.iter().map(|run| run.due_at).collect();
        let levels: Vec<&str> = wanted.iter().map(|run| run.level.as_str()).collect();
        let versions = wanted.iter().map(|run| big(run.policy_version.get(), "policy version"));
        let versions = versions.collect::<Result<Vec<i64>>>()?;
        let mut connection = self.connection().await?;
        // One transaction: an error of the second statement would say that nothing was written.
        let transaction = connection.begin().await?;
        let params: Params<'_> = &[&ids, &jobs, &due, &levels, &versions, &kind];
        transaction.execute(&PLAN, params).await?;
        let mut promised = HashMap::new();
        for row in transaction.query(&PROMISED, &[&jobs, &due, &kind]).await? {
            let instant = (JobId::from_uuid(get(&row, "job_id")?), get::<Timestamp>(&row, "due_at")?);
            promised.insert(instant, RunId::from_uuid(get(&row, "run_id")?));
        }
        transaction.commit().await?;
        let known = |run: &Planned| promised.get(&(run.job, run.due_at)).map(|id| Planned { id: *id, ..*run });
        Ok(wanted.iter().filter_map(known).collect())
    }

    /// For each of these hosts a text that changes when something changes that its plan goes by.
    pub async fn plan_prints(&self, hosts: &[HostId]) -> Result<HashMap<HostId, String>> {
        let hosts: Vec<Uuid> = hosts.iter().map(|host| host.uuid()).collect();
        let rows = self.connection().await?.query(&PRINTS, &[&hosts]).await?;
        rows.iter().map(|row| Ok((HostId::from_uuid(get(row, "host_id")?), get(row, "print")?))).collect()
    }

    /// Forgets promises that nobody will ask for.
    pub async fn forget_old_plans(&self) -> Result<u64> {
        self.connection().await?.execute(&FORGET, &[]).await
    }
}
