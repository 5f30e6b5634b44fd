//! Due runs of many jobs in one transaction: what [`Catalog::schedule`] does for one job, for the plain cases, in seven statements
//! for hundreds. Invariant: the same as there, row by row. The rows of the jobs are locked in one order, so that coordinators that
//! work at the same jobs wait for each other instead of locking up.

use std::collections::HashMap;

use coord_shared::ids::{JobId, RunId};
use coord_shared::run::{RunKind, RunState};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Params, Sql, Transaction};
use super::row::{big, get, int};
use super::schedule::{self, DueRun, ScheduleOutcome, ScheduleStep};
use crate::domain::timing::Owing;

const LOCK_JOBS: Sql = Sql("
    SELECT job_id, job, host, policy, state, backup_due_at, verify_due_at FROM jobs
    WHERE job_id = ANY ($1) ORDER BY job FOR NO KEY UPDATE");

// A statement of its own: one that has waited for a job's lock would still see what was before it waited.
const VERSIONS: Sql = Sql("SELECT policy, version FROM policies WHERE policy = ANY ($1)");

pub(super) const PROMISED: Sql = Sql("
    SELECT p.job, p.run_id FROM unnest($2::integer[], $3::timestamptz[]) AS w (job, due_at)
    JOIN planned_runs p ON p.job = w.job AND p.kind = $1 AND p.due_at = w.due_at");

pub(super) const OPEN_RUNS: Sql = Sql("
    SELECT w.job, r.run_id FROM unnest($2::integer[]) AS w (job)
    CROSS JOIN LATERAL (
        SELECT o.run_id FROM runs o
        WHERE o.job = w.job AND o.kind = $1 AND o.state IN ('queued', 'leased', 'running', 'verifying') LIMIT 1
    ) r");

const INSERT_MANY: Sql = Sql("
    INSERT INTO runs (run_id, kind, host, job, policy_version, due_at, state, max_attempts, run_after, priority, asked_by,
        reason, spec, start_by, closes_at, late_reason, max_duration_s, ended_at)
    SELECT w.run_id, $1, w.host, w.job, w.policy_version, w.due_at, w.state, $2, now(), w.priority, 'schedule', w.reason, w.spec,
        w.start_by, w.closes_at, w.late_reason, w.max_duration_s, CASE WHEN w.state = 'missed' THEN now() END
    FROM unnest($3::uuid[], $4::integer[], $5::integer[], $6::bigint[], $7::timestamptz[], $8::text[], $9::integer[], $10::text[],
            $11::jsonb[], $12::timestamptz[], $13::timestamptz[], $14::text[], $15::integer[])
        AS w (run_id, host, job, policy_version, due_at, state, priority, reason, spec, start_by, closes_at, late_reason,
            max_duration_s)
    ORDER BY w.job
    ON CONFLICT DO NOTHING
    RETURNING job, run_id, state");

const ADVANCE_MANY: Sql = Sql("
    UPDATE jobs j SET backup_due_at = CASE WHEN $1 = 'backup' THEN w.due_at ELSE j.backup_due_at END,
        verify_due_at = CASE WHEN $1 = 'verify' THEN w.due_at ELSE j.verify_due_at END,
        owed_runs = CASE WHEN w.settled AND j.owed_from IS NOT NULL THEN 0 ELSE j.owed_runs END,
        owed_from = CASE WHEN w.settled THEN NULL ELSE j.owed_from END
    FROM unnest($2::integer[], $3::timestamptz[], $4::boolean[]) AS w (job, due_at, settled)
    WHERE j.job = w.job");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("LOCK_JOBS", &LOCK_JOBS),
    ("VERSIONS", &VERSIONS),
    ("PROMISED", &PROMISED),
    ("OPEN_RUNS", &OPEN_RUNS),
    ("INSERT_MANY", &INSERT_MANY),
    ("ADVANCE_MANY", &ADVANCE_MANY),
];

impl ScheduleStep {
    /// Whether [`Catalog::schedule_many`] takes it: at most one run, and no new debt.
    pub fn is_plain(&self) -> bool {
        let known_kind = matches!(self.kind, RunKind::Backup | RunKind::Verify);
        known_kind && self.runs.len() <= 1 && matches!(self.owing, Owing::Unchanged | Owing::Settled)
    }
}

/// A step whose job is locked and is as the caller saw it.
struct Sound<'a> {
    step: &'a ScheduleStep,
    job: i32,
    host: i32,
    version: i64,
}

impl Catalog {
    /// Takes plain steps of one kind, at most one a job. What came of each, in their order.
    ///
    /// # Errors
    /// A step that is not plain, or of another kind than the first.
    pub async fn schedule_many(&self, steps: &[ScheduleStep]) -> Result<Vec<ScheduleOutcome>> {
        let Some(kind) = steps.first().map(|step| step.kind) else { return Ok(Vec::new()) };
        if steps.iter().any(|step| !step.is_plain() || step.kind != kind) {
            return Err(CatalogError::OutOfRange { what: "a step among others" });
        }
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let sound = lock(&transaction, steps).await?;
        let inserted = insert(&transaction, kind, &sound).await?;
        let jobs: Vec<i32> = sound.iter().map(|sound| sound.job).collect();
        let due: Vec<Option<Timestamp>> = sound.iter().map(|sound| sound.step.next_due_at).collect();
        let settled: Vec<bool> = sound.iter().map(|sound| matches!(sound.step.owing, Owing::Settled)).collect();
        transaction.execute(&ADVANCE_MANY, &[&kind.as_str(), &jobs, &due, &settled]).await?;
        schedule::commit(transaction, !inserted.is_empty()).await?;
        let done: HashMap<JobId, i32> = sound.iter().map(|sound| (sound.step.job, sound.job)).collect();
        let outcome = |step: &ScheduleStep| match done.get(&step.job) {
            Some(job) => ScheduleOutcome::Scheduled(inserted.get(job).copied().into_iter().collect()),
            None => ScheduleOutcome::Changed,
        };
        Ok(steps.iter().map(outcome).collect())
    }
}

/// Locks the jobs, and keeps the steps whose job is as their caller saw it.
async fn lock<'a>(transaction: &Transaction<'_>, steps: &'a [ScheduleStep]) -> Result<Vec<Sound<'a>>> {
    let ids: Vec<Uuid> = steps.iter().map(|step| step.job.uuid()).collect();
    let rows = transaction.query(&LOCK_JOBS, &[&ids]).await?;
    let policies = rows.iter().map(|row| get(row, "policy")).collect::<Result<Vec<i32>>>()?;
    let mut versions = HashMap::new();
    for row in transaction.query(&VERSIONS, &[&policies]).await? {
        versions.insert(get::<i32>(&row, "policy")?, get::<i64>(&row, "version")?);
    }
    let mut locked = HashMap::with_capacity(rows.len());
    for row in &rows {
        locked.insert(JobId::from_uuid(get(row, "job_id")?), row);
    }
    let mut sound = Vec::with_capacity(steps.len());
    for step in steps {
        let Some(row) = locked.get(&step.job) else { continue };
        let version = versions.get(&get::<i32>(row, "policy")?).copied();
        if is_as_seen(step, row, version)? {
            let version = big(step.policy_version.get(), "policy version")?;
            sound.push(Sound { step, job: get(row, "job")?, host: get(row, "host")?, version });
        }
    }
    Ok(sound)
}

fn is_as_seen(step: &ScheduleStep, row: &Row, version: Option<i64>) -> Result<bool> {
    let due_at: Option<Timestamp> = match step.kind {
        RunKind::Backup => get(row, "backup_due_at")?,
        RunKind::Verify | RunKind::Restore => get(row, "verify_due_at")?,
    };
    let is_active = get::<&str>(row, "state")? == "active";
    Ok(is_active && due_at == step.seen_due_at && version == Some(big(step.policy_version.get(), "policy version")?))
}

/// Inserts the runs of these steps, as missed where another is open. Answers those whose instant had no run yet, by job.
async fn insert(
    transaction: &Transaction<'_>,
    kind: RunKind,
    sound: &[Sound<'_>],
) -> Result<HashMap<i32, (RunId, RunState)>> {
    let due: Vec<(&Sound<'_>, &DueRun)> =
        sound.iter().filter_map(|sound| Some((sound, sound.step.runs.first()?))).collect();
    if due.is_empty() {
        return Ok(HashMap::new());
    }
    let word = kind.as_str();
    let jobs: Vec<i32> = due.iter().map(|(sound, _)| sound.job).collect();
    let instants: Vec<Timestamp> = due.iter().map(|(_, run)| run.due_at).collect();
    let promised = by_job(&transaction.query(&PROMISED, &[&word, &jobs, &instants]).await?)?;
    let open = by_job(&transaction.query(&OPEN_RUNS, &[&word, &jobs]).await?)?;
    let ids: Vec<Uuid> =
        due.iter().map(|(sound, run)| promised.get(&sound.job).copied().unwrap_or(run.id).uuid()).collect();
    let reasons: Vec<Option<String>> = due
        .iter()
        .map(|(sound, run)| {
            let still_open = || open.get(&sound.job).map(|open| super::schedule::still_open(*open));
            run.missed.clone().or_else(still_open)
        })
        .collect();
    let state = |missed: &Option<String>| if missed.is_some() { RunState::Missed } else { RunState::Queued };
    let states: Vec<&str> = reasons.iter().map(|missed| state(missed).as_str()).collect();
    let said: Vec<&str> = reasons.iter().map(|missed| missed.as_deref().unwrap_or_default()).collect();
    let limits = due.iter().map(|(_, run)| run.start.max_duration_s.map(|s| int(s, "max duration")).transpose());
    let limits = limits.collect::<Result<Vec<Option<i32>>>>()?;
    let hosts: Vec<i32> = due.iter().map(|(sound, _)| sound.host).collect();
    let versions: Vec<i64> = due.iter().map(|(sound, _)| sound.version).collect();
    let priorities: Vec<i32> = due.iter().map(|(_, run)| run.priority).collect();
    let specs: Vec<&serde_json::Value> = due.iter().map(|(_, run)| &run.spec).collect();
    let start_by: Vec<Option<Timestamp>> = due.iter().map(|(_, run)| run.start.by).collect();
    let closes: Vec<Option<Timestamp>> = due.iter().map(|(_, run)| run.start.closes_at).collect();
    let late: Vec<&str> = due.iter().map(|(_, run)| run.start.late.as_str()).collect();
    let attempts = int(kind.max_attempts(), "max attempts")?;
    let params: Params<'_> = &[
        &word,
        &attempts,
        &ids,
        &hosts,
        &jobs,
        &versions,
        &instants,
        &states,
        &priorities,
        &said,
        &specs,
        &start_by,
        &closes,
        &late,
        &limits,
    ];
    let mut inserted = HashMap::new();
    for row in transaction.query(&INSERT_MANY, params).await? {
        let state =
            if get::<&str>(&row, "state")? == RunState::Queued.as_str() { RunState::Queued } else { RunState::Missed };
        inserted.insert(get(&row, "job")?, (RunId::from_uuid(get(&row, "run_id")?), state));
    }
    Ok(inserted)
}

fn by_job(rows: &[Row]) -> Result<HashMap<i32, RunId>> {
    rows.iter().map(|row| Ok((get(row, "job")?, RunId::from_uuid(get(row, "run_id")?)))).collect()
}
