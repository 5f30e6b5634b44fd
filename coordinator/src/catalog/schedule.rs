//! Due runs. Invariant: a job's run of a kind at an instant exists once, whoever inserts it; the job's next due instant moves in
//! the same transaction, and only from the value that the caller saw. Which instants are due is a rule of `domain`.

use std::collections::BTreeSet;

use coord_shared::failpoint;
use coord_shared::ids::{JobId, PolicyId, PolicyVersion, RunId};
use coord_shared::run::{RunKind, RunState};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql, Transaction};
use super::row::{big, get, int};
use crate::domain::timing::{Owing, Start};

/// A run that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRun {
    /// Its id, unless a planned run already has one for this instant.
    pub id: RunId,
    /// When it is due.
    pub due_at: Timestamp,
    /// Set: it is recorded as missed, with this reason.
    pub missed: Option<String>,
    /// Higher runs first.
    pub priority: i32,
    /// How long it may wait, and take.
    pub start: Start,
    /// What to do besides what the policy says.
    pub spec: serde_json::Value,
}

/// One step of the scheduler for one job and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleStep {
    /// The job.
    pub job: JobId,
    /// The newest version of its policy that the caller saw.
    pub policy_version: PolicyVersion,
    /// Backup or verify.
    pub kind: RunKind,
    /// The job's next due instant that the caller saw; `None`: not worked out.
    pub seen_due_at: Option<Timestamp>,
    /// Runs to insert, oldest first.
    pub runs: Vec<DueRun>,
    /// The job's next due instant after this step; `None`: never again under this version of the policy.
    pub next_due_at: Option<Timestamp>,
    /// What it changes of the runs that the job owes.
    pub owing: Owing,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleOutcome {
    /// Done. The runs that were inserted, each queued or missed.
    Scheduled(Vec<(RunId, RunState)>),
    /// Somebody else was faster, the policy has another version, or the job has ended: nothing was written.
    Changed,
}

/// What a pass of the scheduler can do nothing with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// Every job of these.
    pub policies: BTreeSet<PolicyId>,
    /// And these.
    pub jobs: BTreeSet<JobId>,
}

/// Missed runs written by one statement at most, so that what is sent at once has a bound.
pub(super) const MAX_MISSED_AT_ONCE: usize = 500;

pub(super) const DUE_JOBS: Sql = Sql("
    SELECT job_id FROM jobs
    WHERE state = 'active' AND least(coalesce(backup_due_at, '-infinity'), verify_due_at) <= now()
      AND policy <> ALL (ARRAY(SELECT p.policy FROM policies p WHERE p.policy_id = ANY ($2::uuid[])))
      AND job_id <> ALL ($3::uuid[])
    ORDER BY least(coalesce(backup_due_at, '-infinity'), verify_due_at), job
    LIMIT $1");

const LOCK_JOB: Sql = Sql("
    SELECT job, host, policy, state, backup_due_at, verify_due_at FROM jobs WHERE job_id = $1 FOR NO KEY UPDATE");

// A statement of its own: one that has waited for the job's lock would still see what was before it waited.
const VERSION: Sql = Sql("SELECT version FROM policies WHERE policy = $1");

const PLANNED_ID: Sql = Sql("SELECT run_id FROM planned_runs WHERE job = $1 AND kind = $2 AND due_at = $3");

const OPEN_RUN: Sql = Sql("
    SELECT run_id FROM runs
    WHERE job = $1 AND kind = $2 AND state IN ('queued', 'leased', 'running', 'verifying')
    LIMIT 1");

const INSERT_RUN: Sql = Sql("
    INSERT INTO runs (run_id, kind, host, job, policy_version, due_at, state, max_attempts, run_after, priority, asked_by,
        reason, spec, start_by, closes_at, late_reason, max_duration_s, ended_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now(), $9, 'schedule', $10, $11, $12, $13, $14, $15,
        CASE WHEN $7 = 'missed' THEN now() END)
    ON CONFLICT DO NOTHING");

// A missed run holds nothing and waits for nothing: any number of them is one statement.
const INSERT_MISSED: Sql = Sql("
    INSERT INTO runs (run_id, kind, host, job, policy_version, due_at, state, max_attempts, run_after, priority, asked_by,
        reason, spec, ended_at)
    SELECT coalesce(p.run_id, m.run_id), $1, $2, $3, $4, m.due_at, 'missed', $5, now(), m.priority, 'schedule',
        m.reason, m.spec, now()
    FROM unnest($6::uuid[], $7::timestamptz[], $8::integer[], $9::text[], $10::jsonb[])
        AS m (run_id, due_at, priority, reason, spec)
    LEFT JOIN planned_runs p ON p.job = $3 AND p.kind = $1 AND p.due_at = m.due_at
    ORDER BY m.due_at
    ON CONFLICT DO NOTHING
    RETURNING run_id");

const ADVANCE: Sql = Sql("
    UPDATE jobs SET backup_due_at = CASE WHEN $2 = 'backup' THEN $3 ELSE backup_due_at END,
        verify_due_at = CASE WHEN $2 = 'verify' THEN $3 ELSE verify_due_at END
    WHERE job = $1");

const OWE: Sql = Sql("
    UPDATE jobs SET owed_runs = least(owed_runs + $2, $3), owed_due_at = $4, owed_reason = $5, owed_from = $6 WHERE job = $1");

const SETTLE: Sql = Sql("UPDATE jobs SET owed_runs = 0, owed_from = NULL WHERE job = $1 AND owed_from IS NOT NULL");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("DUE_JOBS", &DUE_JOBS),
    ("LOCK_JOB", &LOCK_JOB),
    ("VERSION", &VERSION),
    ("PLANNED_ID", &PLANNED_ID),
    ("OPEN_RUN", &OPEN_RUN),
    ("INSERT_RUN", &INSERT_RUN),
    ("INSERT_MISSED", &INSERT_MISSED),
    ("ADVANCE", &ADVANCE),
    ("OWE", &OWE),
    ("SETTLE", &SETTLE),
];

/// A job whose row is locked by the present transaction.
pub(super) struct LockedJob {
    pub(super) job: i32,
    pub(super) host: i32,
    pub(super) version: i64,
}

impl Catalog {
    /// Active jobs with a due instant that has come, or with none worked out yet; at most `limit`, oldest first. Those of `without`
    /// are passed over.
    pub async fn jobs_to_schedule(&self, limit: u32, without: &PassedOver) -> Result<Vec<JobId>> {
        let policies: Vec<Uuid> = without.policies.iter().map(|id| id.uuid()).collect();
        let jobs: Vec<Uuid> = without.jobs.iter().map(|id| id.uuid()).collect();
        let rows = self.connection().await?.query(&DUE_JOBS, &[&i64::from(limit), &policies, &jobs]).await?;
        rows.iter().map(|row| Ok(JobId::from_uuid(get(row, "job_id")?))).collect()
    }

    /// Inserts due runs and moves the job's next due instant. A run that finds another of its job and kind open is recorded as
    /// missed with that reason.
    pub async fn schedule(&self, step: &ScheduleStep) -> Result<ScheduleOutcome> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let Some(row) = transaction.query_opt(&LOCK_JOB, &[&step.job.uuid()]).await? else {
            return Err(CatalogError::not_found("job", step.job));
        };
        let column = match step.kind {
            RunKind::Backup => "backup_due_at",
            RunKind::Verify => "verify_due_at",
            RunKind::Restore => return Err(CatalogError::OutOfRange { what: "the kind of a due run" }),
        };
        let due_at: Option<Timestamp> = get(&row, column)?;
        if get::<&str>(&row, "state")? != "active" || due_at != step.seen_due_at {
            return Ok(ScheduleOutcome::Changed);
        }
        let version = policy_version(&transaction, &row, step.job).await?;
        if version != big(step.policy_version.get(), "policy version")? {
            return Ok(ScheduleOutcome::Changed);
        }
        let job = LockedJob { job: get(&row, "job")?, host: get(&row, "host")?, version };
        let mut inserted = Vec::new();
        for alike in step.runs.chunk_by(|one, next| one.missed.is_some() == next.missed.is_some()) {
            if alike.iter().all(|due| due.missed.is_some()) {
                for batch in alike.chunks(MAX_MISSED_AT_ONCE) {
                    inserted.extend(insert_missed(&transaction, &job, step.kind, batch).await?);
                }
                continue;
            }
            for due in alike {
                inserted.extend(insert_due(&transaction, &job, step.kind, due).await?);
            }
        }
        transaction.execute(&ADVANCE, &[&job.job, &step.kind.as_str(), &step.next_due_at]).await?;
        match &step.owing {
            Owing::Unchanged => {}
            Owing::Settled => drop(transaction.execute(&SETTLE, &[&job.job]).await?),
            Owing::More { runs, due_at, why, most, from } => {
                let (runs, most) = (int(*runs, "owed runs")?, int(*most, "owed runs")?);
                transaction.execute(&OWE, &[&job.job, &runs, &most, due_at, why, from]).await?;
            }
        }
        commit(transaction, !inserted.is_empty()).await?;
        Ok(ScheduleOutcome::Scheduled(inserted))
    }
}

/// Ends a step of the scheduler. `due`: it inserted runs.
pub(super) async fn commit(transaction: Transaction<'_>, due: bool) -> Result<()> {
    if due {
        failpoint::reach("coordinator.due.uncommitted");
    }
    transaction.commit().await?;
    if due {
        failpoint::reach("coordinator.due.committed");
    }
    Ok(())
}

/// The newest version of the policy of a job whose row the present transaction has locked.
pub(super) async fn policy_version(transaction: &Transaction<'_>, locked: &Row, job: JobId) -> Result<i64> {
    let policy: i32 = get(locked, "policy")?;
    let version = transaction.query_opt(&VERSION, &[&policy]).await?;
    get(&version.ok_or_else(|| CatalogError::not_found("policy of job", job))?, "version")
}

/// The open run of a job and kind, if there is one.
pub(super) async fn open_run(transaction: &Transaction<'_>, job: &LockedJob, kind: RunKind) -> Result<Option<RunId>> {
    let row = transaction.query_opt(&OPEN_RUN, &[&job.job, &kind.as_str()]).await?;
    row.map(|row| Ok(RunId::from_uuid(get(&row, "run_id")?))).transpose()
}

/// Why a run is missed that finds another of its job and kind open.
pub(super) fn still_open(open: RunId) -> String {
    format!("run {} of the same job was still open", open.short())
}

/// Inserts missed runs. Answers those whose instant had no run yet.
async fn insert_missed(
    transaction: &Transaction<'_>,
    job: &LockedJob,
    kind: RunKind,
    missed: &[DueRun],
) -> Result<Vec<(RunId, RunState)>> {
    let attempts = int(kind.max_attempts(), "max attempts")?;
    let ids: Vec<Uuid> = missed.iter().map(|due| due.id.uuid()).collect();
    let due_at: Vec<Timestamp> = missed.iter().map(|due| due.due_at).collect();
    let priorities: Vec<i32> = missed.iter().map(|due| due.priority).collect();
    let reasons: Vec<&str> = missed.iter().map(|due| due.missed.as_deref().unwrap_or_default()).collect();
    let specs: Vec<&serde_json::Value> = missed.iter().map(|due| &due.spec).collect();
    let params: super::pool::Params<'_> =
        &[&kind.as_str(), &job.host, &job.job, &job.version, &attempts, &ids, &due_at, &priorities, &reasons, &specs];
    let rows = transaction.query(&INSERT_MISSED, params).await?;
    rows.iter().map(|row| Ok((RunId::from_uuid(get(row, "run_id")?), RunState::Missed))).collect()
}

/// Inserts a due run, as missed where another is open. `None`: the instant has its run.
pub(super) async fn insert_due(
    transaction: &Transaction<'_>,
    job: &LockedJob,
    kind: RunKind,
    due: &DueRun,
) -> Result<Option<(RunId, RunState)>> {
    let word = kind.as_str();
    let promised = transaction.query_opt(&PLANNED_ID, &[&job.job, &word, &due.due_at]).await?;
    let id: Uuid = promised.map_or(Ok(due.id.uuid()), |row| get(&row, "run_id"))?;
    let open = open_run(transaction, job, kind).await?;
    let missed = match (&due.missed, open) {
        (Some(reason), _) => Some(reason.clone()),
        (None, Some(open)) => Some(still_open(open)),
        (None, None) => None,
    };
    let state = if missed.is_some() { RunState::Missed } else { RunState::Queued };
    let attempts = int(kind.max_attempts(), "max attempts")?;
    let reason = missed.unwrap_or_default();
    let max_duration = due.start.max_duration_s.map(|seconds| int(seconds, "max duration")).transpose()?;
    let params: super::pool::Params<'_> = &[
        &id,
        &word,
        &job.host,
        &job.job,
        &job.version,
        &due.due_at,
        &state.as_str(),
        &attempts,
        &due.priority,
        &reason,
        &due.spec,
        &due.start.by,
        &due.start.closes_at,
        &due.start.late,
        &max_duration,
    ];
    let inserted = transaction.execute(&INSERT_RUN, params).await?;
    Ok((inserted == 1).then_some((RunId::from_uuid(id), state)))
}
