//! Turning schedules into due runs. The next due instant of each job and kind is stored; when it has come, the latest due instant
//! becomes a run and older ones are recorded as missed. The stored instant is compared and moved in the same transaction, so that
//! any number of coordinators give each instant one row.

use coord_shared::fault::Fault;
use coord_shared::ids::{JobId, RunId};
use coord_shared::run::{RunKind, RunState};
use jiff::{SignedDuration, Timestamp};

use super::App;
use super::jobs::policy_of;
use crate::catalog::{DueRun, Job, ScheduleOutcome, ScheduleStep};
use crate::domain::schedule::{Calendar, CatchUp};

/// Jobs looked at in one pass.
const MAX_JOBS: u32 = 200;

/// Higher runs are given out first: an operator waits for a restore.
pub const fn priority(kind: RunKind) -> i32 {
    match kind {
        RunKind::Restore => 20,
        RunKind::Backup => 10,
        RunKind::Verify => 0,
    }
}

/// Inserts what is due. Answers whether there is more to do at once.
pub async fn insert_due_runs(app: &App) -> Result<bool, Fault> {
    let now = app.catalog.now().await?;
    let jobs = app.catalog.jobs_to_schedule(MAX_JOBS).await?;
    let mut more = jobs.len() >= MAX_JOBS as usize;
    for id in jobs {
        more |= schedule_job(app, id, now).await?;
    }
    Ok(more)
}

async fn schedule_job(app: &App, id: JobId, now: Timestamp) -> Result<bool, Fault> {
    let Some(job) = app.catalog.job(id).await? else { return Ok(false) };
    let Some(record) = app.catalog.policy(job.policy).await? else { return Ok(false) };
    let policy = policy_of(&record)?;
    let backup = step(&job, RunKind::Backup, &policy.schedule, now);
    let verify = step(&job, RunKind::Verify, &policy.verify.calendar, now);
    let mut more = false;
    for (step, rest) in [backup, verify].into_iter().flatten() {
        more |= rest;
        match app.catalog.schedule(&step).await? {
            ScheduleOutcome::Scheduled(runs) => {
                for (run, state) in &runs {
                    tracing::info!(%job, kind = %step.kind, %run, %state, "due");
                }
                if runs.iter().any(|(_, state)| *state == RunState::Queued) {
                    app.nudges.dispatcher.notify_one();
                }
            }
            // Another coordinator was faster.
            ScheduleOutcome::Changed => {}
        }
    }
    Ok(more)
}

/// What is to be written for one kind of a job's runs, and whether more is due at once; `None` when its time has not come.
fn step(job: &Job, kind: RunKind, calendar: &Calendar, now: Timestamp) -> Option<(ScheduleStep, bool)> {
    let seen_due_at = match kind {
        RunKind::Backup => job.backup_due_at,
        RunKind::Verify => job.verify_due_at,
        RunKind::Restore => None,
    };
    let Some(due_at) = seen_due_at else {
        let next_due_at = calendar.next_after(now);
        return Some((ScheduleStep { job: job.id, kind, seen_due_at, runs: Vec::new(), next_due_at }, false));
    };
    if due_at > now {
        return None;
    }
    // Due instants lie after `done_until`, and the stored one is the first of them.
    let CatchUp { missed, run, done_until, more } = calendar.catch_up(due_at - SignedDuration::from_micros(1), now);
    let late = "no coordinator was running when it was due, and a later one is due as well";
    let mut runs: Vec<DueRun> = missed.into_iter().map(|due_at| due(kind, due_at, Some(late.to_owned()))).collect();
    let nothing = (kind == RunKind::Verify && job.backups == 0).then(|| "there is no backup to verify yet".to_owned());
    runs.extend(run.map(|due_at| due(kind, due_at, nothing)));
    let next_due_at = calendar.next_after(done_until);
    Some((ScheduleStep { job: job.id, kind, seen_due_at, runs, next_due_at }, more))
}

fn due(kind: RunKind, due_at: Timestamp, missed: Option<String>) -> DueRun {
    DueRun { id: RunId::random(), due_at, missed, priority: priority(kind) }
}
