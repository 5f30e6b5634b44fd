//! Turning schedules into due runs. The next due instant of each job and kind is stored; when it has come, the latest due instant
//! becomes a run and older ones are recorded as missed. The stored instant is compared and moved in the same transaction, so that
//! any number of coordinators give each instant one row.

use coord_shared::fault::Fault;
use coord_shared::ids::{JobId, RunId};
use coord_shared::run::{RunKind, RunState};
use jiff::{SignedDuration, Timestamp};

use super::App;
use super::host_policies::on_host;
use super::jobs::{leave_out, readable};
use crate::catalog::{DueRun, Job, PassedOver, ScheduleOutcome, ScheduleStep};
use crate::domain::policy::DEFAULT_PRIORITY;
use crate::domain::schedule::{Calendar, CatchUp};

/// Jobs looked at in one pass.
const MAX_JOBS: u32 = 200;

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
    let now = app.catalog.now().await?;
    let mut without = PassedOver::default();
    loop {
        let jobs = app.catalog.jobs_to_schedule(MAX_JOBS, &without).await?;
        let full = jobs.len() >= MAX_JOBS as usize;
        let (mut more, mut passed_over) = (full, false);
        for id in jobs {
            match schedule_job(app, id, now, &mut without).await {
                Ok(Scheduled::Done { more: rest }) => more |= rest,
                Ok(Scheduled::PassedOver) => passed_over = true,
                Err(fault) => {
                    leave_out(app, &format!("job {id}"), fault)?;
                    without.jobs.insert(id);
                    passed_over = true;
                }
            }
        }
        // A page that holds some of these may hold nothing else: the next one is without them.
        if !full || !passed_over {
            return Ok(more);
        }
    }
}

/// What came of one job.
enum Scheduled {
    /// What was due is in the catalog.
    Done {
        /// More of it is due at once.
        more: bool,
    },
    /// Its policy does not read.
    PassedOver,
}

async fn schedule_job(app: &App, id: JobId, now: Timestamp, without: &mut PassedOver) -> Result<Scheduled, Fault> {
    let done = Scheduled::Done { more: false };
    let Some(job) = app.catalog.job(id).await? else { return Ok(done) };
    if without.policies.contains(&job.policy) {
        return Ok(Scheduled::PassedOver);
    }
    let Some(record) = app.catalog.policy(job.policy).await? else { return Ok(done) };
    let Some(policy) = readable(app, &record) else {
        without.policies.insert(job.policy);
        return Ok(Scheduled::PassedOver);
    };
    let policy = on_host(app, policy, job.host).await?;
    let backup = step(&job, RunKind::Backup, (&policy.schedule, policy.priority), now);
    let verify = step(&job, RunKind::Verify, (&policy.verify.calendar, policy.priority), now);
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
    Ok(Scheduled::Done { more })
}

/// What is to be written for one kind of a job's runs, and whether more is due at once; `None` when its time has not come.
fn step(
    job: &Job,
    kind: RunKind,
    (calendar, points): (&Calendar, u32),
    now: Timestamp,
) -> Option<(ScheduleStep, bool)> {
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
    let mut runs: Vec<DueRun> =
        missed.into_iter().map(|due_at| due(kind, due_at, Some(late.to_owned()), points)).collect();
    let nothing = (kind == RunKind::Verify && job.backups == 0).then(|| "there is no backup to verify yet".to_owned());
    runs.extend(run.map(|due_at| due(kind, due_at, nothing, points)));
    let next_due_at = calendar.next_after(done_until);
    Some((ScheduleStep { job: job.id, kind, seen_due_at, runs, next_due_at }, more))
}

fn due(kind: RunKind, due_at: Timestamp, missed: Option<String>, points: u32) -> DueRun {
    DueRun { id: RunId::random(), due_at, missed, priority: priority(kind, points) }
}
