//! Runs as rows: reading them, asking for them, cancelling them. The one way to change a run's state is [`step`]: it applies
//! `coord_shared::run` to the locked row and writes what came out, guarded by run, state and attempt.
//!
//! Not here: claims, heartbeats and reaping in bulk (`leases`), reports (`reports`), the commit of a backup (`commit`).

use std::time::Duration;

use coord_shared::ids::{Attempt, BackupId, HostId, JobId, PolicyId, PolicyVersion, RunId, SessionNumber};
use coord_shared::level::Level;
use coord_shared::run::{Event, Illegal, Run, RunKind, RunState};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Params, Sql, Transaction};
use super::records::{FaultRecord, NoteRecord, ProgressRecord};
use super::row::{big, count, get, int, optional_json, optional_word, seconds, small, to_json, word};

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// What it does.
    pub kind: RunKind,
    /// The host that does it.
    pub host: HostId,
    /// The host's name.
    pub host_name: String,
    /// Its job; restores have none.
    pub job: Option<JobId>,
    /// The job's policy.
    pub policy: Option<PolicyId>,
    /// The policy's name.
    pub policy_name: Option<String>,
    /// The policy's version when the run was made.
    pub policy_version: Option<PolicyVersion>,
    /// When it is due.
    pub due_at: Timestamp,
    /// State, attempt and flags, as the state machine knows them.
    pub machine: Run,
    /// The session that holds the lease.
    pub lease_session: Option<SessionNumber>,
    /// Not to be claimed before.
    pub run_after: Timestamp,
    /// `schedule`, or an operator's name.
    pub asked_by: String,
    /// The level decided, or asked for.
    pub level: Option<Level>,
    /// Why that level, or why it was missed.
    pub reason: String,
    /// What to do, for kinds and wishes that no policy says.
    pub spec: serde_json::Value,
    /// The restore point that it left, or will leave.
    pub backup: Option<BackupId>,
    /// Why it failed.
    pub fault: Option<FaultRecord>,
    /// Counters of the newest attempt.
    pub progress: Option<ProgressRecord>,
    /// What a verification or a restore came to.
    pub result: Option<serde_json::Value>,
    /// Notes in all; the first are kept.
    pub warnings_total: u64,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When the host first began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A run that somebody asks for now.
#[derive(Debug, Clone, PartialEq)]
pub struct AskedRun {
    /// Its id.
    pub id: RunId,
    /// What it does.
    pub kind: RunKind,
    /// The host that does it.
    pub host: HostId,
    /// Its job; required except for restores.
    pub job: Option<JobId>,
    /// Who asks.
    pub asked_by: String,
    /// The level wanted.
    pub level: Option<Level>,
    /// What to do.
    pub spec: serde_json::Value,
    /// Higher runs first.
    pub priority: i32,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It committed.
    Succeeded,
    /// It failed.
    Failed,
    /// It was stopped.
    Cancelled,
    /// Its lease ran out.
    Lapsed,
}

/// An attempt of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// From 1.
    pub number: Attempt,
    /// When it was claimed.
    pub leased_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How.
    pub outcome: Option<AttemptOutcome>,
    /// Why it failed.
    pub fault: Option<FaultRecord>,
}

/// Which runs to list; `None` means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this host.
    pub host: Option<HostId>,
    /// Of one of these hosts.
    pub hosts: Option<Vec<HostId>>,
    /// Of this policy.
    pub policy: Option<PolicyId>,
    /// Of this kind.
    pub kind: Option<RunKind>,
    /// In this state.
    pub state: Option<RunState>,
    /// Due at or after.
    pub since: Option<Timestamp>,
    /// Due at or before.
    pub until: Option<Timestamp>,
    /// At most so many; 0 means [`MAX_LISTED_RUNS`].
    pub limit: u32,
}

/// What came of a step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The run is so now.
    Updated(Run),
    /// It was so before: the step had been made already.
    AlreadyThere(Run),
    /// The step does not apply; the run is as it was.
    Refused(Illegal),
}

/// Most runs that one list answers.
pub const MAX_LISTED_RUNS: u32 = 1000;
/// Notes kept of one run.
pub const MAX_RUN_WARNINGS: i64 = 1000;

impl AttemptOutcome {
    /// Every outcome, for the CHECK list.
    pub const ALL: [AttemptOutcome; 4] =
        [AttemptOutcome::Succeeded, AttemptOutcome::Failed, AttemptOutcome::Cancelled, AttemptOutcome::Lapsed];

    /// The word in SQL and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttemptOutcome::Succeeded => "succeeded",
            AttemptOutcome::Failed => "failed",
            AttemptOutcome::Cancelled => "cancelled",
            AttemptOutcome::Lapsed => "lapsed",
        }
    }
}

super::words::impl_word!(AttemptOutcome, "outcome of an attempt");

macro_rules! select_runs {
    ($tail:literal) => {
        concat!(
            "SELECT r.run_id, r.kind, h.host_id, h.name AS host_name, j.job_id, p.policy_id, p.name AS policy_name,
                    r.policy_version, r.due_at, r.state, r.attempt, r.max_attempts, r.reaped, r.cancelling, r.lease_session,
                    r.run_after, r.asked_by, r.level, r.reason, r.spec, r.backup_id, r.fault, r.progress, r.result,
                    r.warnings_total, r.created_at, r.started_at, r.ended_at
             FROM runs r
             JOIN hosts h ON h.host = r.host
             LEFT JOIN jobs j ON j.job = r.job
             LEFT JOIN policies p ON p.policy = j.policy ",
            $tail
        )
    };
}

const BY_ID: Sql = Sql(select_runs!("WHERE r.run_id = $1"));

const BY_IDS: Sql = Sql(select_runs!("WHERE r.run_id = ANY ($1::uuid[])"));

const BY_PREFIX: Sql = Sql(select_runs!("WHERE r.run_id::text LIKE $1 || '%' ORDER BY r.due_at DESC LIMIT 10"));

const LIST: Sql = Sql(select_runs!(
    "WHERE ($1::uuid IS NULL OR h.host_id = $1) AND ($2::uuid IS NULL OR p.policy_id = $2) AND ($3::text IS NULL OR r.kind = $3)
       AND ($4::text IS NULL OR r.state = $4) AND ($5::timestamptz IS NULL OR r.due_at >= $5)
       AND ($6::timestamptz IS NULL OR r.due_at <= $6) AND ($8::uuid[] IS NULL OR h.host_id = ANY ($8))
     ORDER BY r.due_at DESC, r.run_id LIMIT $7"
));

const OPEN_OF_JOB: Sql = Sql(select_runs!(
    "WHERE j.job_id = $1 AND r.state IN ('queued', 'leased', 'running', 'verifying') ORDER BY r.due_at LIMIT 100"
));

const CANCELLING: Sql = Sql(select_runs!(
    "WHERE r.cancelling AND r.state IN ('leased', 'running', 'verifying') AND h.host_id = ANY ($1) LIMIT 1000"
));

const ASK: Sql = Sql("
    INSERT INTO runs (run_id, kind, host, job, policy_version, due_at, state, max_attempts, run_after, priority, asked_by,
        level, spec)
    SELECT $1, $2, h.host, j.job, p.version, now(), 'queued', $5, now(), $6, $7, $8, $9
    FROM hosts h LEFT JOIN jobs j ON j.host = h.host AND j.job_id = $4 LEFT JOIN policies p ON p.policy = j.policy
    WHERE h.host_id = $3");

/// Not FOR UPDATE: rows that name the run are inserted by others meanwhile, and their foreign keys would wait for it.
pub(super) const LOCK_RUN: Sql = Sql("
    SELECT run_id, kind, host, job, state, attempt, max_attempts, reaped, cancelling, backup_id, policy_version
    FROM runs WHERE run_id = $1 FOR NO KEY UPDATE");

pub(super) const HOST_KEY: Sql = Sql("SELECT host FROM hosts WHERE host_id = $1");

const WRITE: Sql = Sql("
    UPDATE runs SET state = $4, attempt = $5, reaped = $6, cancelling = $7, max_attempts = $12,
        lease_session = CASE WHEN $4 IN ('leased', 'running', 'verifying') THEN coalesce($8, lease_session) END,
        lease_until = CASE WHEN $4 IN ('leased', 'running', 'verifying')
            THEN greatest(lease_until, now() + make_interval(secs => $9)) END,
        run_after = CASE WHEN $4 = 'queued' THEN now() + make_interval(secs => $10) ELSE run_after END,
        started_at = CASE WHEN $4 IN ('running', 'verifying') THEN coalesce(started_at, now()) ELSE started_at END,
        ended_at = CASE WHEN $4 IN ('succeeded', 'failed', 'cancelled', 'missed') THEN now() END,
        fault = CASE $4 WHEN 'succeeded' THEN NULL WHEN 'cancelled' THEN coalesce(stop_fault, $11, fault)
            ELSE coalesce($11, fault) END
    WHERE run_id = $1 AND state = $2 AND attempt = $3");

const ADOPT_ATTEMPT: Sql = Sql("
    INSERT INTO attempts (run_id, attempt, session) VALUES ($1, $2, $3) ON CONFLICT (run_id, attempt) DO NOTHING");

const START_ATTEMPT: Sql = Sql("
    UPDATE attempts SET started_at = coalesce(started_at, now()), ended_at = NULL, outcome = NULL, fault = NULL
    WHERE run_id = $1 AND attempt = $2");

const END_ATTEMPT: Sql = Sql("
    UPDATE attempts SET ended_at = now(), outcome = $3, fault = $4 WHERE run_id = $1 AND attempt = $2");

const ATTEMPTS: Sql = Sql("
    SELECT attempt, leased_at, ended_at, outcome, fault FROM attempts WHERE run_id = $1 ORDER BY attempt LIMIT 1000");

const WARNINGS: Sql = Sql("
    SELECT path, kind, detail FROM run_warnings WHERE run_id = $1 AND attempt = (SELECT attempt FROM runs WHERE run_id = $1)
    ORDER BY sequence, position LIMIT $2");

const HURRY: Sql =
    Sql("UPDATE runs SET run_after = now() WHERE run_id = $1 AND state || '' = 'queued' AND run_after > now()");

const SET_BACKUP_ID: Sql = Sql("
    UPDATE runs SET backup_id = $3 WHERE run_id = $1 AND attempt = $2 AND state || '' IN ('leased', 'running', 'verifying')");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("BY_ID", &BY_ID),
    ("BY_IDS", &BY_IDS),
    ("BY_PREFIX", &BY_PREFIX),
    ("LIST", &LIST),
    ("OPEN_OF_JOB", &OPEN_OF_JOB),
    ("CANCELLING", &CANCELLING),
    ("ASK", &ASK),
    ("LOCK_RUN", &LOCK_RUN),
    ("HOST_KEY", &HOST_KEY),
    ("WRITE", &WRITE),
    ("ADOPT_ATTEMPT", &ADOPT_ATTEMPT),
    ("START_ATTEMPT", &START_ATTEMPT),
    ("END_ATTEMPT", &END_ATTEMPT),
    ("ATTEMPTS", &ATTEMPTS),
    ("WARNINGS", &WARNINGS),
    ("HURRY", &HURRY),
    ("SET_BACKUP_ID", &SET_BACKUP_ID),
];

fn machine(row: &Row) -> Result<Run> {
    Ok(Run {
        state: word(row, "state")?,
        attempt: Attempt(small(row, "attempt")?),
        max_attempts: small(row, "max_attempts")?,
        cancelling: get(row, "cancelling")?,
        reaped: get(row, "reaped")?,
    })
}

fn read(row: &Row) -> Result<RunRecord> {
    let policy_version: Option<i64> = get(row, "policy_version")?;
    let session: Option<i64> = get(row, "lease_session")?;
    Ok(RunRecord {
        id: RunId::from_uuid(get(row, "run_id")?),
        kind: word(row, "kind")?,
        host: HostId::from_uuid(get(row, "host_id")?),
        host_name: get(row, "host_name")?,
        job: get::<Option<Uuid>>(row, "job_id")?.map(JobId::from_uuid),
        policy: get::<Option<Uuid>>(row, "policy_id")?.map(PolicyId::from_uuid),
        policy_name: get(row, "policy_name")?,
        policy_version: policy_version.map(|version| PolicyVersion(version.cast_unsigned())),
        due_at: get(row, "due_at")?,
        machine: machine(row)?,
        lease_session: session.map(|number| SessionNumber(number.cast_unsigned())),
        run_after: get(row, "run_after")?,
        asked_by: get(row, "asked_by")?,
        level: optional_word(row, "level")?,
        reason: get(row, "reason")?,
        spec: get(row, "spec")?,
        backup: get::<Option<Uuid>>(row, "backup_id")?.map(BackupId::from_uuid),
        fault: optional_json(row, "fault")?,
        progress: optional_json(row, "progress")?,
        result: get(row, "result")?,
        warnings_total: count(row, "warnings_total")?,
        created_at: get(row, "created_at")?,
        started_at: get(row, "started_at")?,
        ended_at: get(row, "ended_at")?,
    })
}

/// A run whose row is locked by the present transaction.
pub(super) struct LockedRun {
    pub(super) id: RunId,
    pub(super) kind: RunKind,
    pub(super) host: i32,
    pub(super) job: Option<i32>,
    pub(super) machine: Run,
    pub(super) backup: Option<BackupId>,
    pub(super) policy_version: Option<i64>,
}

/// Locks a run; `None`: there is none.
pub(super) async fn lock(transaction: &Transaction<'_>, id: RunId) -> Result<Option<LockedRun>> {
    let Some(row) = transaction.query_opt(&LOCK_RUN, &[&id.uuid()]).await? else { return Ok(None) };
    Ok(Some(LockedRun {
        id,
        kind: word(&row, "kind")?,
        host: get(&row, "host")?,
        job: get(&row, "job")?,
        machine: machine(&row)?,
        backup: get::<Option<Uuid>>(&row, "backup_id")?.map(BackupId::from_uuid),
        policy_version: get(&row, "policy_version")?,
    }))
}

/// Locks a run of a host; a run of another host does not exist for it.
pub(super) async fn lock_of_host(transaction: &Transaction<'_>, id: RunId, host: HostId) -> Result<Option<LockedRun>> {
    let row = transaction.query_opt(&HOST_KEY, &[&host.uuid()]).await?;
    let key: i32 = get(&row.ok_or_else(|| CatalogError::not_found("host", host))?, "host")?;
    Ok(lock(transaction, id).await?.filter(|run| run.host == key))
}

/// What a step needs besides the event.
#[derive(Default)]
pub(super) struct StepContext<'a> {
    /// The session that reports.
    pub(super) session: Option<SessionNumber>,
    /// How long the lease lasts from now, if the run is held after the step.
    pub(super) lease: Duration,
    /// How long it waits, if it is queued after the step.
    pub(super) retry_after: Duration,
    /// Why it failed.
    pub(super) fault: Option<&'a FaultRecord>,
}

/// Applies an event to a locked run and writes the outcome with the attempt's row.
pub(super) async fn step(
    transaction: &Transaction<'_>,
    run: &LockedRun,
    event: Event,
    context: &StepContext<'_>,
) -> Result<Transition> {
    let before = run.machine;
    let after = match before.apply(event) {
        Ok(after) => after,
        Err(illegal) => return Ok(Transition::Refused(illegal)),
    };
    let held = RunState::HELD.contains(&after.state);
    if after == before && !held {
        return Ok(Transition::AlreadyThere(after));
    }
    write(transaction, run.id, before, after, context).await?;
    record_attempt(transaction, run.id, before, after, event, context).await?;
    Ok(if after == before { Transition::AlreadyThere(after) } else { Transition::Updated(after) })
}

async fn write(
    transaction: &Transaction<'_>,
    id: RunId,
    before: Run,
    after: Run,
    context: &StepContext<'_>,
) -> Result<()> {
    let session = context.session.map(|number| big(number.get(), "session number")).transpose()?;
    let (old, new) = (int(before.attempt.get(), "attempt")?, int(after.attempt.get(), "attempt")?);
    let fault = context.fault.map(to_json).transpose()?;
    let (was, is) = (before.state.as_str(), after.state.as_str());
    let (lease, retry) = (seconds(context.lease), seconds(context.retry_after));
    let most = int(after.max_attempts, "max attempts")?;
    let params: Params<'_> =
        &[&id.uuid(), &was, &old, &is, &new, &after.reaped, &after.cancelling, &session, &lease, &retry, &fault, &most];
    match transaction.execute(&WRITE, params).await? {
        1 => Ok(()),
        // The row is locked, so this is a defect and not a race.
        _ => Err(CatalogError::not_found("run in its expected state:", id)),
    }
}

async fn record_attempt(
    transaction: &Transaction<'_>,
    id: RunId,
    before: Run,
    after: Run,
    event: Event,
    context: &StepContext<'_>,
) -> Result<()> {
    if after.attempt == Attempt(0) {
        return Ok(());
    }
    let attempt = int(after.attempt.get(), "attempt")?;
    let session = big(context.session.unwrap_or_default().get(), "session number")?;
    transaction.execute(&ADOPT_ATTEMPT, &[&id.uuid(), &attempt, &session]).await?;
    let outcome = match event {
        Event::Started(_) | Event::Sealed(_) | Event::Held(_) => {
            transaction.execute(&START_ATTEMPT, &[&id.uuid(), &attempt]).await?;
            return Ok(());
        }
        Event::Claim | Event::Missed | Event::OutOfTime => return Ok(()),
        Event::Cancelled if before.state == RunState::Queued => return Ok(()),
        Event::Cancelled if after.state.is_open() => return Ok(()),
        Event::Cancelled | Event::Stopped(_) => AttemptOutcome::Cancelled,
        Event::Succeeded(_) => AttemptOutcome::Succeeded,
        Event::Failed { .. } | Event::Lost(_) => AttemptOutcome::Failed,
        Event::Reaped(_) => AttemptOutcome::Lapsed,
    };
    let fault = context.fault.map(to_json).transpose()?;
    transaction.execute(&END_ATTEMPT, &[&id.uuid(), &attempt, &outcome.as_str(), &fault]).await?;
    Ok(())
}

/// A run as the present transaction will leave it. Read before the commit: an error after it would say that nothing was written.
pub(super) async fn by_id(transaction: &Transaction<'_>, id: RunId) -> Result<Option<RunRecord>> {
    transaction.query_opt(&BY_ID, &[&id.uuid()]).await?.as_ref().map(read).transpose()
}

/// Inserts the run asked for. Where the host is not known, nothing is inserted.
pub(super) async fn insert(transaction: &Transaction<'_>, asked: &AskedRun) -> Result<()> {
    let attempts = int(asked.kind.max_attempts(), "max attempts")?;
    let (kind, level) = (asked.kind.as_str(), asked.level.map(Level::as_str));
    let job = asked.job.map(JobId::uuid);
    let params: Params<'_> = &[
        &asked.id.uuid(),
        &kind,
        &asked.host.uuid(),
        &job,
        &attempts,
        &asked.priority,
        &asked.asked_by,
        &level,
        &asked.spec,
    ];
    transaction.execute(&ASK, params).await?;
    Ok(())
}

impl Catalog {
    /// A run by its id.
    pub async fn run(&self, id: RunId) -> Result<Option<RunRecord>> {
        self.connection().await?.query_opt(&BY_ID, &[&id.uuid()]).await?.as_ref().map(read).transpose()
    }

    /// Runs by their ids, in no order.
    pub async fn runs_by_ids(&self, ids: &[RunId]) -> Result<Vec<RunRecord>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        self.connection().await?.query(&BY_IDS, &[&ids]).await?.iter().map(read).collect()
    }

    /// Runs whose id begins with `prefix`, at most ten.
    pub async fn runs_by_id_prefix(&self, prefix: &str) -> Result<Vec<RunRecord>> {
        if !super::words::is_id_prefix(prefix) {
            return Ok(Vec::new());
        }
        self.connection().await?.query(&BY_PREFIX, &[&prefix]).await?.iter().map(read).collect()
    }

    /// Runs, newest due first.
    pub async fn runs(&self, filter: RunFilter) -> Result<Vec<RunRecord>> {
        let host = filter.host.map(HostId::uuid);
        let policy = filter.policy.map(PolicyId::uuid);
        let kind = filter.kind.map(RunKind::as_str);
        let state = filter.state.map(RunState::as_str);
        let limit = if filter.limit == 0 { MAX_LISTED_RUNS } else { filter.limit.min(MAX_LISTED_RUNS) };
        let limit = i64::from(limit);
        let hosts: Option<Vec<Uuid>> = filter.hosts.map(|hosts| hosts.into_iter().map(HostId::uuid).collect());
        let params: Params<'_> = &[&host, &policy, &kind, &state, &filter.since, &filter.until, &limit, &hosts];
        self.connection().await?.query(&LIST, params).await?.iter().map(read).collect()
    }

    /// The open runs of a job, oldest due first.
    pub async fn open_runs_of_job(&self, job: JobId) -> Result<Vec<RunRecord>> {
        self.connection().await?.query(&OPEN_OF_JOB, &[&job.uuid()]).await?.iter().map(read).collect()
    }

    /// Runs that these hosts hold and that are to end.
    pub async fn cancelling_runs(&self, hosts: &[HostId]) -> Result<Vec<RunRecord>> {
        if hosts.is_empty() {
            return Ok(Vec::new());
        }
        let hosts: Vec<Uuid> = hosts.iter().map(|host| host.uuid()).collect();
        self.connection().await?.query(&CANCELLING, &[&hosts]).await?.iter().map(read).collect()
    }

    /// Queues a run that somebody asks for. [`CatalogError::Taken`]: the job has an open backup run already; for
    /// backups see [`Catalog::ask_backup`], for verifications [`Catalog::ask_verification`].
    pub async fn ask_run(&self, asked: &AskedRun) -> Result<RunRecord> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        insert(&transaction, asked).await?;
        let run = by_id(&transaction, asked.id).await?.ok_or_else(|| CatalogError::not_found("host", asked.host))?;
        transaction.commit().await?;
        Ok(run)
    }

    /// An operator wants a run to end: queued, it ends now; held, its host is told by the next heartbeat.
    pub async fn cancel_run(&self, id: RunId) -> Result<Transition> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let run = lock(&transaction, id).await?.ok_or_else(|| CatalogError::not_found("run", id))?;
        let outcome = step(&transaction, &run, Event::Cancelled, &StepContext::default()).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    /// Ends the wait of a queued run for its next attempt. False: it does not wait.
    pub async fn hurry_run(&self, id: RunId) -> Result<bool> {
        Ok(self.connection().await?.execute(&HURRY, &[&id.uuid()]).await? == 1)
    }

    /// Gives the id that the attempt's backup will have. False: the attempt is not the newest, or not held.
    pub async fn set_run_backup(&self, id: RunId, attempt: Attempt, backup: BackupId) -> Result<bool> {
        let attempt = int(attempt.get(), "attempt")?;
        let params: Params<'_> = &[&id.uuid(), &attempt, &backup.uuid()];
        Ok(self.connection().await?.execute(&SET_BACKUP_ID, params).await? == 1)
    }

    /// A run's attempts, oldest first.
    pub async fn attempts(&self, id: RunId) -> Result<Vec<AttemptRecord>> {
        let rows = self.connection().await?.query(&ATTEMPTS, &[&id.uuid()]).await?;
        rows.iter()
            .map(|row| {
                Ok(AttemptRecord {
                    number: Attempt(small(row, "attempt")?),
                    leased_at: get(row, "leased_at")?,
                    ended_at: get(row, "ended_at")?,
                    outcome: optional_word(row, "outcome")?,
                    fault: optional_json(row, "fault")?,
                })
            })
            .collect()
    }

    /// The kept notes of a run's newest attempt.
    pub async fn run_warnings(&self, id: RunId, limit: u32) -> Result<Vec<NoteRecord>> {
        let limit = i64::from(limit).min(MAX_RUN_WARNINGS);
        let rows = self.connection().await?.query(&WARNINGS, &[&id.uuid(), &limit]).await?;
        rows.iter()
            .map(|row| Ok(NoteRecord { path: get(row, "path")?, kind: get(row, "kind")?, detail: get(row, "detail")? }))
            .collect()
    }
}
