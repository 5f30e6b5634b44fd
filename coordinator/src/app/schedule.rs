//! Turning schedules into due runs. The next due instant of each job and kind is stored; when it has come, the latest due instant
//! becomes a run and older ones, and those that something held back, are recorded as missed. The stored instant is compared and moved in the same transaction, so that
//! any number of coordinators give each instant one row.

use std::collections::HashMap;

use coord_shared::fault::Fault;
use coord_shared::ids::{JobId, RunId};
use coord_shared::run::{RunKind, RunState};
use jiff::Timestamp;

use super::host_policies::on_host;
use super::jobs::{leave_out, readable};
use super::known_policies::{self, Known};
use super::{App, pauses};
use crate::catalog::{DueRun, Job, PassedOver, PauseRecord, ScheduleOutcome, ScheduleStep};
use crate::domain::policy::{DEFAULT_PRIORITY, Policy};
use crate::domain::timing::{self, Holds, Owing, Pause, Start, Timing, Windows, start_of};

/// Jobs looked at in one pass.
const MAX_JOBS: u32 = 500;

/// What a verification is behind a backup of the same policy.
const BEHIND: u32 = 20;

/// The priority of a run: higher runs begin first. Restores come before all others whatever it is, because somebody waits for them.
pub fn priority(kind: RunKind, of_policy: u32) -> i32 {
    let points = match kind {
        RunKind::Restore => 100,
        RunKind::Backup => of_policy,
        RunKind::Verify => of_policy.saturating_sub(BEHIND),
    };
    i32::try_from(points).unwrap_or(i32::MAX)
}

/// The priority of a run of a job, by its policy as it is now.
///
/// # Errors
/// Those of the catalog.
pub async fn priority_of(app: &App, kind: RunKind, job: &Job) -> Result<i32, Fault> {
    let record = app.catalog.policy(job.policy).await?;
    let Some(policy) = record.and_then(|record| readable(app, &record)) else {
        return Ok(priority(kind, DEFAULT_PRIORITY));
    };
    Ok(priority(kind, on_host(app, policy, job.host).await?.priority))
}

/// Inserts what is due. What cannot be scheduled is passed over, so that it stands in nobody's way. Answers whether there is more to
/// do at once.
pub async fn insert_due_runs(app: &App) -> Result<bool, Fault> {
    let now = app.duties.now().await?;
    let mut without = PassedOver::default();
    loop {
        let jobs = app.duties.jobs_to_schedule(MAX_JOBS, &without).await?;
        let full = jobs.len() >= MAX_JOBS as usize;
        let (mut more, mut passed_over) = (full, false);
        let mut steps = Vec::new();
        let jobs = in_order(&jobs, app.duties.jobs_by_id(&jobs).await?);
        let paused = app.duties.pauses(jobs.iter().map(|job| since(job, now)).fold(now, Timestamp::min)).await?;
        for job in jobs {
            let id = job.id;
            match steps_of(app, (job, &paused), now, &mut without).await {
                Ok(Some((of_job, rest))) => {
                    steps.extend(of_job);
                    more |= rest;
                }
                Ok(None) => passed_over = true,
                Err(fault) => {
                    leave_out(app, &format!("job {id}"), fault)?;
                    without.jobs.insert(id);
                    passed_over = true;
                }
            }
        }
        passed_over |= write(app, steps, &mut without).await?;
        // A page that holds some of these may hold nothing else: the next one is without them.
        if !full || !passed_over {
            return Ok(more);
        }
    }
}

/// Jobs in the order of their ids.
fn in_order(ids: &[JobId], jobs: Vec<Job>) -> Vec<Job> {
    let mut found: HashMap<JobId, Job> = jobs.into_iter().map(|job| (job.id, job)).collect();
    ids.iter().filter_map(|id| found.remove(id)).collect()
}

/// From when on pauses of a job matter.
fn since(job: &Job, now: Timestamp) -> Timestamp {
    job.backup_due_at.into_iter().chain(job.verify_due_at).fold(now, Timestamp::min)
}

/// What is to be written of a job, and whether more of it is due at once. `None`: its policy does not read.
async fn steps_of(
    app: &App,
    (job, paused): (Job, &[PauseRecord]),
    now: Timestamp,
    without: &mut PassedOver,
) -> Result<Option<(Vec<ScheduleStep>, bool)>, Fault> {
    if without.policies.contains(&job.policy) {
        return Ok(None);
    }
    let policy = match known_policies::read(app, job.policy, job.policy_version).await? {
        Some(Known::Policy(policy)) => policy,
        Some(Known::Unreadable(record)) => {
            // Says so, once.
            let _none = readable(app, &record);
            without.policies.insert(job.policy);
            return Ok(None);
        }
        None => return Ok(Some((Vec::new(), false))),
    };
    let policy = on_host(app, Policy::clone(&policy), job.host).await?;
    let paused = pauses::of_job_among(paused, &job, since(&job, now));
    let backup = backup_step(&job, &policy, &paused, now);
    let verify = verify_step(&job, &policy, &paused, now);
    let (steps, more): (Vec<_>, Vec<_>) = [backup, verify].into_iter().flatten().unzip();
    Ok(Some((steps, more.contains(&true))))
}

/// Writes steps: the plain ones of a kind together. Answers whether some job was passed over.
async fn write(app: &App, steps: Vec<ScheduleStep>, without: &mut PassedOver) -> Result<bool, Fault> {
    let (plain, mut others): (Vec<_>, Vec<_>) = steps.into_iter().partition(ScheduleStep::is_plain);
    let (backups, verifications): (Vec<_>, Vec<_>) = plain.into_iter().partition(|step| step.kind == RunKind::Backup);
    for together in [backups, verifications] {
        match app.duties.schedule_many(&together).await.map_err(Fault::from) {
            Ok(outcomes) => together.iter().zip(outcomes).for_each(|(step, outcome)| tell(app, step, outcome)),
            Err(fault) if fault.is_transient() => return Err(fault),
            // One of them cannot be written: each by itself shows which.
            Err(_) => others.extend(together),
        }
    }
    let mut passed_over = false;
    for step in others {
        match app.duties.schedule(&step).await.map_err(Fault::from) {
            Ok(outcome) => tell(app, &step, outcome),
            Err(fault) => {
                leave_out(app, &format!("job {}", step.job), fault)?;
                without.jobs.insert(step.job);
                passed_over = true;
            }
        }
    }
    Ok(passed_over)
}

/// Logs what became due, and wakes whoever dispatches it. Where another coordinator was faster, it does.
fn tell(app: &App, step: &ScheduleStep, outcome: ScheduleOutcome) {
    let ScheduleOutcome::Scheduled(runs) = outcome else { return };
    let (queued, missed): (Vec<_>, Vec<_>) = runs.iter().partition(|(_, state)| *state == RunState::Queued);
    if !missed.is_empty() {
        tracing::info!(job = %step.job, kind = %step.kind, runs = missed.len(), "missed");
    }
    for (run, _) in queued {
        tracing::info!(job = %step.job, kind = %step.kind, %run, "due");
        app.nudges.dispatcher.notify_one();
    }
}

/// What is to be written, and whether more is due at once; `None` when the job's time has not come.
type ToWrite = Option<(ScheduleStep, bool)>;

fn backup_step(job: &Job, policy: &Policy, pauses: &[Pause], now: Timestamp) -> ToWrite {
    let timing = &policy.timing;
    let due = timing::Due::backups(policy, job.host);
    let holds = Holds { windows: &timing.windows, zone: due.zone(), pauses };
    let (mut step, more) =
        step((job, RunKind::Backup, job.backup_due_at), (&due, &holds, timing), policy.priority, now)?;
    // A pause may be ended sooner than is known here: what is owed is looked at again, and put off then.
    if let Owing::More { from, .. } = &mut step.owing
        && !pauses.is_empty()
    {
        *from = now;
    }
    Some((step, more))
}

/// Windows are for backups, and so are the limits; what a blackout or a pause holds back is not made up for.
fn verify_step(job: &Job, policy: &Policy, pauses: &[Pause], now: Timestamp) -> ToWrite {
    let windows = Windows { allowed: Vec::new(), blackout: policy.timing.windows.blackout.clone() };
    let due = timing::Due::plain(&policy.verify.calendar, &windows);
    let holds = Holds { windows: &windows, zone: due.zone(), pauses };
    let timing = Timing::default();
    let (mut step, more) =
        step((job, RunKind::Verify, job.verify_due_at), (&due, &holds, &timing), policy.priority, now)?;
    step.owing = Owing::Unchanged;
    for run in step.runs.iter_mut().filter(|run| run.missed.is_none()) {
        run.missed = (job.backups == 0).then(|| "there is no backup to verify yet".to_owned());
        run.start = Start::default();
    }
    Some((step, more))
}

fn step(
    (job, kind, seen_due_at): (&Job, RunKind, Option<Timestamp>),
    (due, holds, timing): (&timing::Due<'_>, &Holds<'_>, &Timing),
    points: u32,
    now: Timestamp,
) -> ToWrite {
    let nothing = |next_due_at| ScheduleStep {
        job: job.id,
        policy_version: job.policy_version,
        kind,
        seen_due_at,
        runs: Vec::new(),
        next_due_at,
        owing: Owing::Unchanged,
    };
    let Some(first) = seen_due_at else { return Some((nothing(due.next_after(now)), false)) };
    if first > now {
        return None;
    }
    let timing::Step { rows, owing, done_until, more } = timing::step(due, holds, timing, first, now);
    let run = |row: timing::Row| DueRun {
        id: RunId::random(),
        due_at: row.due_at,
        priority: priority(kind, points),
        start: if row.missed.is_none() { start_of(holds, timing, row.due_at, now) } else { Start::default() },
        missed: row.missed,
        spec: serde_json::json!({}),
    };
    let runs = rows.into_iter().map(run).collect();
    Some((ScheduleStep { runs, owing, ..nothing(due.next_after(done_until)) }, more))
}
