//! A backup that an operator asks for, now. A job has at most one open backup run: if there is one already, it answers the wish.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RunId;
use coord_shared::level::Level;
use coord_shared::run::RunKind;
use coord_shared::tls::PeerKind;

use super::schedule::priority_of;
use super::{App, names, pauses, runs};
use crate::catalog::{Asked, AskedRun, Job, JobState, NewAudit, RunRecord};

/// Longest key of a wish, in bytes.
const MAX_KEY: usize = 200;

/// Queues a backup run of the policy's job on the host, unless its open run or the one of the same key will do.
///
/// # Errors
/// `not_found` for names and for a policy that does not select the host; `not_now` when the job has ended, or has an open backup
/// run of another level than the one asked for, or is paused; `invalid_argument` for the key.
pub async fn start(app: &App, user: &str, request: &api::StartBackupRequest) -> Result<api::Run, Fault> {
    let job = job(app, &request.host, &request.policy).await?;
    queue(app, user, &job, Level::from_api(request.level()), key(&request.key)?).await
}

/// The same for a job and a wish that are known.
///
/// # Errors
/// `not_now` as for [`start`].
pub async fn queue(
    app: &App,
    user: &str,
    job: &Job,
    level: Option<Level>,
    key: Option<&str>,
) -> Result<api::Run, Fault> {
    if job.state == JobState::Ended {
        let deleted = app.catalog.policy(job.policy).await?.is_some_and(|record| record.is_deleted());
        if deleted {
            let message = format!("policy {} was deleted: nothing of it is backed up any more", job.policy_name);
            return Err(Fault::new(ErrorCode::NotNow, message)
                .with_hint(format!("coordctl policy history {} says more; its backups stay", job.policy_name)));
        }
        return Err(Fault::new(
            ErrorCode::NotNow,
            format!("policy {} does not select {} any more", job.policy_name, job.host_name),
        )
        .with_hint(format!("coordctl host label {} KEY=VALUE sets the labels that it asks for", job.host_name)));
    }
    pauses::refuse(app, job).await?;
    let asked = AskedRun {
        id: RunId::random(),
        kind: RunKind::Backup,
        host: job.host,
        job: Some(job.id),
        asked_by: user.to_owned(),
        level,
        spec: serde_json::json!({ "asked_level": level }),
        priority: priority_of(app, RunKind::Backup, job).await?,
    };
    match app.catalog.ask_backup(&asked, key).await? {
        Asked::New(run) => {
            app.nudges.dispatcher.notify_one();
            record(app, user, job, &run, (level, key)).await?;
            runs::by_id(app, run.id).await
        }
        Asked::Known(run) | Asked::Open(run) => Ok(api::Run { was_there: true, ..runs::by_id(app, run.id).await? }),
        Asked::Other(run) => Err(other_level(job, &run)),
    }
}

/// The key under which a wish may be repeated.
fn key(text: &str) -> Result<Option<&str>, Fault> {
    if text.len() > MAX_KEY || text.chars().any(char::is_control) {
        let message = format!("a key has at most {MAX_KEY} bytes and no control characters");
        return Err(Fault::new(ErrorCode::InvalidArgument, message).with_hint("--key nightly-2026-11-26"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

async fn record(
    app: &App,
    user: &str,
    job: &Job,
    run: &RunRecord,
    (level, key): (Option<Level>, Option<&str>),
) -> Result<(), Fault> {
    let subject = run.id.to_string();
    let details = serde_json::json!({ "host": job.host_name, "policy": job.policy_name, "level": level, "key": key });
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "backup_asked", subject: &subject, details };
    Ok(app.catalog.record_audit(&deed).await?)
}

fn other_level(job: &Job, run: &RunRecord) -> Fault {
    let level = run.level.map_or_else(|| "of a level not decided yet".to_owned(), |level| format!("a {level}"));
    let message = format!("{job} has a backup run already: {} is {}, {level}", run.id.short(), run.machine.state);
    let short = run.id.short();
    Fault::new(ErrorCode::NotNow, message)
        .with_hint(format!("wait for it: coordctl run show {short}; or end it: coordctl run cancel {short}"))
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
