//! Runs that make up for missed ones, as soon as nothing holds them back.

use coord_shared::fault::Fault;
use coord_shared::ids::{JobId, RunId};
use coord_shared::run::RunKind;
use jiff::{SignedDuration, Timestamp};

use super::host_policies::on_host;
use super::jobs::{leave_out, readable};
use super::schedule::priority;
use super::{App, pauses};
use crate::catalog::{DueRun, MadeUp};
use crate::domain::timing::{Due, Holds, Pause, start_of};

/// Jobs looked at in one pass.
const MAX_JOBS: u32 = 200;
/// When something is looked at again that is held back for longer than can be seen.
const MUCH_LATER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One pass. Answers whether more is waiting.
///
/// # Errors
/// Those of the catalog.
pub async fn make_up_for_missed_runs(app: &App) -> Result<bool, Fault> {
    let mut without: Vec<JobId> = Vec::new();
    loop {
        let jobs = app.duties.owing_jobs(MAX_JOBS, &without).await?;
        let full = jobs.len() >= MAX_JOBS as usize;
        let now = app.duties.now().await?;
        let mut passed_over = false;
        for id in jobs {
            match make_up(app, id, now).await {
                Ok(true) => {}
                Ok(false) => {
                    without.push(id);
                    passed_over = true;
                }
                Err(fault) => {
                    leave_out(app, &format!("job {id}"), fault)?;
                    without.push(id);
                    passed_over = true;
                }
            }
        }
        if !full || !passed_over {
            return Ok(full);
        }
    }
}

/// When the last of what held a run back let go of it, as far as that let go of others too: the end of a pause, or another policy. Nothing
/// that was over when the run was missed held it back.
fn freed(paused: &[Pause], applied_at: Timestamp, (missed_at, now): (Timestamp, Timestamp)) -> Option<Timestamp> {
    let ends = paused.iter().map(|pause| pause.until).chain([applied_at]);
    ends.filter(|end| missed_at < *end && *end <= now).max()
}

/// Makes up for one missed run of a job. False: its policy does not read.
async fn make_up(app: &App, id: JobId, now: Timestamp) -> Result<bool, Fault> {
    let Some((job, owed)) = app.duties.job(id).await?.zip(app.duties.owed(id).await?) else { return Ok(true) };
    let Some(record) = app.duties.policy(job.policy).await? else { return Ok(true) };
    let Some(policy) = readable(app, &record) else { return Ok(false) };
    let policy = on_host(app, policy, job.host).await?;
    let timing = &policy.timing;
    let since = now - SignedDuration::from_secs(i64::from(timing.jitter_s));
    // Read after what is owed: whoever ends a pause changes that, and then nothing below is written.
    let paused = pauses::of_job(app, &job, since).await?;
    let holds = Holds { windows: &timing.windows, zone: policy.schedule.zone.rules(), pauses: &paused };
    let due = Due::backups(&policy, job.host);
    let opens = holds.opens_at(now).unwrap_or(now + MUCH_LATER);
    let from = if opens > now {
        due.making_up(&holds, now, opens)
    } else {
        let freed = freed(&paused, record.applied_at, (owed.due_at, now));
        freed.map_or(now, |freed| due.making_up_since(&holds, freed, now))
    };
    if from > now {
        app.duties.put_off(&owed, from).await?;
        return Ok(true);
    }
    let run = DueRun {
        id: RunId::random(),
        due_at: now,
        missed: None,
        priority: priority(RunKind::Backup, policy.priority),
        start: start_of(&holds, timing, now, now),
        spec: serde_json::json!({ "makes_up_for": { "due_at": owed.due_at, "why": owed.why } }),
    };
    if let MadeUp::Queued(run) = app.duties.make_up(&owed, record.version, &run, timing.catch_up.most()).await? {
        tracing::info!(%job, %run, missed = %owed.due_at, "makes up for a missed run");
        app.nudges.dispatcher.notify_one();
    }
    Ok(true)
}
