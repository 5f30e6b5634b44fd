//! A backup that an operator asks for, now. A job has at most one open backup run: if there is one already, the answer names it.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RunId;
use coord_shared::level::Level;
use coord_shared::run::RunKind;
use coord_shared::tls::PeerKind;

use super::schedule::priority;
use super::{App, names, runs};
use crate::catalog::{AskedRun, CatalogError, Job, JobState, NewAudit};

/// Queues a backup run of the policy's job on the host.
///
/// # Errors
/// `not_found` for names and for a policy that does not select the host; `not_now` when the job has an open backup run, with
/// its id, or has ended.
pub async fn start(app: &App, user: &str, request: &api::StartBackupRequest) -> Result<api::Run, Fault> {
    let job = job(app, &request.host, &request.policy).await?;
    if job.state == JobState::Ended {
        return Err(Fault::new(
            ErrorCode::NotNow,
            format!("policy {} does not select {} any more", job.policy_name, job.host_name),
        )
        .with_hint(format!("coordctl host label {} KEY=VALUE sets the labels that it asks for", job.host_name)));
    }
    let level = Level::from_api(request.level());
    let asked = AskedRun {
        id: RunId::random(),
        kind: RunKind::Backup,
        host: job.host,
        job: Some(job.id),
        asked_by: user.to_owned(),
        level,
        spec: serde_json::json!({ "asked_level": level }),
        priority: priority(RunKind::Backup),
    };
    let run = match app.catalog.ask_run(&asked).await {
        Ok(run) => run,
        Err(CatalogError::Taken { .. }) => return Err(open_already(app, &job).await),
        Err(error) => return Err(error.into()),
    };
    app.nudges.dispatcher.notify_one();
    let subject = run.id.to_string();
    let details = serde_json::json!({ "host": job.host_name, "policy": job.policy_name, "level": level });
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "backup_asked", subject: &subject, details };
    app.catalog.record_audit(&deed).await?;
    runs::by_id(app, run.id).await
}

async fn open_already(app: &App, job: &Job) -> Fault {
    let open = app.catalog.open_runs_of_job(job.id).await.unwrap_or_default();
    match open.iter().find(|run| run.kind == RunKind::Backup) {
        Some(run) => Fault::new(
            ErrorCode::NotNow,
            format!("{job} has a backup run already: {} is {}", run.id.short(), run.machine.state),
        )
        .with_hint(format!("coordctl run show {}", run.id.short())),
        None => Fault::new(ErrorCode::Changed, format!("a backup run of {job} has just ended")).with_hint("try again"),
    }
}

/// The job that an operator names. One policy on the host may stay unnamed.
///
/// # Errors
/// `not_found` when there is none, `ambiguous` with the policies of the host when there are several and none is named.
pub async fn job(app: &App, host: &str, policy: &str) -> Result<Job, Fault> {
    let host = names::host(app, host).await?;
    let filter = crate::catalog::JobFilter { host: Some(host.id), ..crate::catalog::JobFilter::default() };
    let jobs = app.catalog.jobs(filter).await?;
    let named: Vec<&str> = jobs.iter().map(|job| job.policy_name.as_str()).collect();
    if policy.is_empty() {
        let mut active = jobs.iter().filter(|job| job.state == JobState::Active);
        return match (active.next(), active.next()) {
            (Some(job), None) => Ok(job.clone()),
            (None, _) => Err(Fault::new(ErrorCode::NotFound, format!("no policy selects {}", host.name))
                .with_hint("coordctl policy list shows the policies, coordctl host list the labels")),
            (Some(_), Some(_)) => Err(Fault::new(ErrorCode::Ambiguous, format!("{} has several policies", host.name))
                .with_hint(format!("name one of {}", named.join(", ")))),
        };
    }
    let record = names::policy(app, policy).await?;
    match jobs.iter().find(|job| job.policy == record.id) {
        Some(job) => Ok(job.clone()),
        None => {
            let hint = if named.is_empty() {
                "it has no policy at all".to_owned()
            } else {
                format!("it has {}", named.join(", "))
            };
            Err(Fault::new(ErrorCode::NotFound, format!("policy {} does not select {}", record.name, host.name))
                .with_hint(hint))
        }
    }
}
