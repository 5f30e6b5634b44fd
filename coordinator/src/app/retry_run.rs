//! Trying a run again: one that waits for its next attempt goes at once; for one that has ended without success, the same is asked for anew.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RunId;
use coord_shared::level::Level;
use coord_shared::run::{RunKind, RunState};
use coord_shared::tls::PeerKind;

use super::schedule::priority;
use super::{App, names, runs, start_backup};
use crate::catalog::{Asked, AskedRun, NewAudit, RunRecord};
use crate::domain::policy::DEFAULT_PRIORITY;

/// Tries a run again; the answer is the run that goes on.
///
/// # Errors
/// `not_found`; `not_now` for a run that goes on or has succeeded, and for a backup of a job that has ended.
pub async fn retry(app: &App, user: &str, text: &str) -> Result<api::Run, Fault> {
    let run = names::run(app, text).await?;
    match run.machine.state {
        RunState::Queued => {
            app.catalog.hurry_run(run.id).await?;
            app.nudges.dispatcher.notify_one();
            record(app, user, &run, run.id).await?;
            runs::by_id(app, run.id).await
        }
        RunState::Failed | RunState::Cancelled | RunState::Missed => again(app, user, &run).await,
        RunState::Leased | RunState::Running | RunState::Verifying => {
            Err(refusal(&run, "is going on", "coordctl run watch"))
        }
        RunState::Succeeded => Err(refusal(&run, "has succeeded", "coordctl run show")),
    }
}

fn refusal(run: &RunRecord, why: &str, hint: &str) -> Fault {
    let short = run.id.short();
    Fault::new(ErrorCode::NotNow, format!("run {short} {why}: there is nothing to try again"))
        .with_hint(format!("{hint} {short}"))
}

async fn again(app: &App, user: &str, run: &RunRecord) -> Result<api::Run, Fault> {
    if let (RunKind::Backup, Some(job)) = (run.kind, run.job) {
        let job = app.catalog.job(job).await?;
        let job = job.ok_or_else(|| Fault::new(ErrorCode::NotFound, "the job of the run is gone"))?;
        // What was asked for, not what it was decided to be: the engine decides again.
        let asked: Option<Level> =
            run.spec.get("asked_level").and_then(|level| serde_json::from_value(level.clone()).ok());
        return start_backup::queue(app, user, &job, asked, None).await;
    }
    let asked = AskedRun {
        id: RunId::random(),
        kind: run.kind,
        host: run.host,
        job: run.job,
        asked_by: user.to_owned(),
        level: None,
        spec: run.spec.clone(),
        priority: priority(run.kind, DEFAULT_PRIORITY),
    };
    let new = if run.kind == RunKind::Verify {
        match app.catalog.ask_verification(&asked).await? {
            Asked::New(new) => new,
            Asked::Known(open) | Asked::Open(open) | Asked::Other(open) => {
                return Ok(api::Run { was_there: true, ..runs::by_id(app, open.id).await? });
            }
        }
    } else {
        app.catalog.ask_run(&asked).await?
    };
    app.nudges.dispatcher.notify_one();
    record(app, user, run, new.id).await?;
    runs::by_id(app, new.id).await
}

async fn record(app: &App, user: &str, run: &RunRecord, goes_on: RunId) -> Result<(), Fault> {
    let subject = run.id.to_string();
    let details = serde_json::json!({ "host": run.host_name, "kind": run.kind, "run": goes_on });
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "run_retried", subject: &subject, details };
    Ok(app.catalog.record_audit(&deed).await?)
}
