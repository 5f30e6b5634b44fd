//! Pauses: the fleet, a host, a policy or a job in which an operator lets nothing begin but restores. What comes due meanwhile is
//! missed with the pause as its reason, and made up for as the policy says; what waits goes on waiting; what runs goes on.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{HostId, PolicyId};
use coord_shared::tls::PeerKind;
use coord_shared::wire::{from_us, optional_us, to_us};
use jiff::Timestamp;

use super::{App, names, start_backup};
use crate::catalog::{Host, HostState, Job, JobState, NewAudit, PauseRecord, PauseScope, PauseSet, PolicyRecord};
use crate::domain::timing::Pause;

/// Longest reason, in bytes.
const MAX_REASON: usize = 500;

/// Those in force.
///
/// # Errors
/// Those of the catalog.
pub async fn list(app: &App) -> Result<api::PauseList, Fault> {
    Ok(api::PauseList { pauses: in_force(app).await?.iter().map(encode).collect() })
}

/// Pauses, or changes the end and the reason of the pause that is in force.
///
/// # Errors
/// `not_found` for names, `not_now` for what has ended, `invalid_argument` for an end that is over, for the reason, and where it is
/// not said what is meant.
pub async fn set(app: &App, user: &str, request: &api::SetPauseRequest) -> Result<api::Pause, Fault> {
    let scope = scope(app, (&request.host, &request.policy, request.fleet), true).await?;
    check_reason(&request.reason)?;
    let until = match request.until_us {
        0 => None,
        us => Some(from_us(us).ok_or_else(over)?),
    };
    let PauseSet::Paused(pause) = app.catalog.set_pause(scope, until, &request.reason, user).await? else {
        return Err(over());
    };
    let details = serde_json::json!({ "until": pause.until, "reason": pause.reason });
    audit(app, user, "paused", &pause, details).await?;
    // A pause that is made shorter may be over soon.
    app.nudges.scheduler.notify_one();
    app.nudges.full_planner.notify_one();
    app.nudges.plan_sender.notify_one();
    Ok(encode(&pause))
}

/// Ends a pause now.
///
/// # Errors
/// `not_found` for names, `not_now` for what is not paused.
pub async fn end(app: &App, user: &str, request: &api::EndPauseRequest) -> Result<api::Pause, Fault> {
    let scope = scope(app, (&request.host, &request.policy, request.fleet), false).await?;
    let Some(pause) = app.catalog.end_pause(scope, user).await? else {
        let what = match (request.host.as_str(), request.policy.as_str()) {
            ("", "") => "the fleet".to_owned(),
            (host, "") => format!("host {}", names::shown(host)),
            ("", policy) => format!("policy {}", names::shown(policy)),
            (host, policy) => format!("job {}/{}", names::shown(host), names::shown(policy)),
        };
        return Err(Fault::new(ErrorCode::NotNow, format!("{what} is not paused itself"))
            .with_hint("coordctl status says what is"));
    };
    audit(app, user, "resumed", &pause, serde_json::json!({ "reason": pause.reason })).await?;
    app.nudges.scheduler.notify_one();
    app.nudges.dispatcher.notify_one();
    app.nudges.full_planner.notify_one();
    app.nudges.plan_sender.notify_one();
    Ok(encode(&pause))
}

/// Those in force.
pub(super) async fn in_force(app: &App) -> Result<Vec<PauseRecord>, Fault> {
    Ok(app.catalog.pauses(app.catalog.now().await?).await?)
}

/// The pauses of a job that hold something back after `since`.
pub(super) async fn of_job(app: &App, job: &Job, since: Timestamp) -> Result<Vec<Pause>, Fault> {
    Ok(app.catalog.pauses_of(job.host, job.policy, since).await?.iter().map(to_domain).collect())
}

/// The same among pauses that were read before, of all that matter since then.
pub(super) fn of_job_among(pauses: &[PauseRecord], job: &Job, since: Timestamp) -> Vec<Pause> {
    let lasts = |pause: &&PauseRecord| pause.until.is_none_or(|until| until > since);
    holding(pauses, job.host, job.policy).filter(lasts).map(to_domain).collect()
}

/// Those in force that hold back something of a host with these policies.
pub(super) async fn of_host(app: &App, host: &Host, policies: &[String]) -> Result<Vec<api::Pause>, Fault> {
    let paused = in_force(app).await?;
    let of_host = |pause: &&PauseRecord| {
        pause.scope.host.is_none_or(|paused| paused == host.id)
            && pause.policy_name.as_ref().is_none_or(|name| policies.contains(name))
    };
    Ok(paused.iter().filter(of_host).map(encode).collect())
}

/// Those in force that hold back something of a policy on these hosts.
pub(super) async fn of_policy(app: &App, policy: &PolicyRecord, hosts: &[String]) -> Result<Vec<api::Pause>, Fault> {
    let paused = in_force(app).await?;
    let of_policy = |pause: &&PauseRecord| {
        pause.scope.policy.is_none_or(|paused| paused == policy.id)
            && pause.host_name.as_ref().is_none_or(|name| hosts.contains(name))
    };
    Ok(paused.iter().filter(of_policy).map(encode).collect())
}

/// Those that hold back a policy on a host.
pub(super) fn holding(pauses: &[PauseRecord], host: HostId, policy: PolicyId) -> impl Iterator<Item = &PauseRecord> {
    pauses.iter().filter(move |pause| pause.scope.holds(host, policy))
}

/// As the rules know it.
pub(super) fn to_domain(pause: &PauseRecord) -> Pause {
    Pause::of(&what(pause), (pause.since, pause.until), &pause.paused_by, &pause.reason)
}

/// Refuses a wish for a run of a job that is paused.
pub(super) async fn refuse(app: &App, job: &Job) -> Result<(), Fault> {
    let paused = in_force(app).await?;
    let Some(pause) = holding(&paused, job.host, job.policy).next() else { return Ok(()) };
    let resume = match (&pause.host_name, &pause.policy_name) {
        (None, None) => "coordctl fleet resume".to_owned(),
        (Some(host), None) => format!("coordctl host resume {host}"),
        (None, Some(policy)) => format!("coordctl policy resume {policy}"),
        (Some(host), Some(policy)) => format!("coordctl job resume {host}/{policy}"),
    };
    Err(Fault::new(ErrorCode::NotNow, to_domain(pause).why).with_hint(format!("{resume} lets its runs begin again")))
}

fn what(pause: &PauseRecord) -> String {
    match (&pause.host_name, &pause.policy_name) {
        (None, None) => "the fleet".to_owned(),
        (Some(host), None) => format!("host {host}"),
        (None, Some(policy)) => format!("policy {policy}"),
        (Some(host), Some(policy)) => format!("job {host}/{policy}"),
    }
}

/// For the wire.
pub(super) fn encode(pause: &PauseRecord) -> api::Pause {
    let scope = match (pause.scope.host, pause.scope.policy) {
        (None, None) => "fleet",
        (Some(_), None) => "host",
        (None, Some(_)) => "policy",
        (Some(_), Some(_)) => "job",
    };
    api::Pause {
        scope: scope.to_owned(),
        host: pause.host_name.clone().unwrap_or_default(),
        policy: pause.policy_name.clone().unwrap_or_default(),
        since_us: to_us(pause.since),
        until_us: optional_us(pause.until),
        reason: pause.reason.clone(),
        by: pause.paused_by.clone(),
    }
}

/// What an operator names. What has ended is not paused any more, but a pause of it can be ended.
async fn scope(app: &App, (host, policy, fleet): (&str, &str, bool), is_new: bool) -> Result<PauseScope, Fault> {
    let gone = |what: String| {
        let message = format!("{what}: nothing of it begins anyway");
        if is_new {
            Err(Fault::new(ErrorCode::NotNow, message).with_hint("coordctl job list says what does"))
        } else {
            Ok(())
        }
    };
    match (host, policy) {
        ("", "") if fleet => Ok(PauseScope::default()),
        (host, policy) if fleet || (host, policy) == ("", "") => {
            let message = "a pause is of the fleet, or of a host, a policy or both".to_owned();
            Err(Fault::new(ErrorCode::InvalidArgument, message).with_hint("the whole fleet is never implied"))
        }
        (host, "") => {
            let host = names::host(app, host).await?;
            if host.state != HostState::Active {
                gone(format!("host {} is {}", host.name, host.state.as_str()))?;
            }
            Ok(PauseScope { host: Some(host.id), policy: None })
        }
        ("", policy) => {
            let policy = names::policy(app, policy).await?;
            if policy.is_deleted() {
                gone(format!("policy {} was deleted", policy.name))?;
            }
            Ok(PauseScope { host: None, policy: Some(policy.id) })
        }
        (host, policy) => {
            let job = start_backup::job(app, host, policy).await?;
            if job.state == JobState::Ended {
                gone(format!("job {}/{} has ended", job.host_name, job.policy_name))?;
            }
            Ok(PauseScope { host: Some(job.host), policy: Some(job.policy) })
        }
    }
}

fn over() -> Fault {
    Fault::new(ErrorCode::InvalidArgument, "a pause until then would be over already").with_hint(
        "--until takes a time ahead, such as 2026-11-29 06:00; without it the pause lasts until it is resumed",
    )
}

fn check_reason(reason: &str) -> Result<(), Fault> {
    if reason.trim().is_empty() || reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
        let message = format!("a pause has a reason, of at most {MAX_REASON} bytes and without control characters");
        return Err(Fault::new(ErrorCode::InvalidArgument, message).with_hint("--reason 'new disks'"));
    }
    Ok(())
}

async fn audit(
    app: &App,
    user: &str,
    action: &str,
    pause: &PauseRecord,
    details: serde_json::Value,
) -> Result<(), Fault> {
    let subject = what(pause);
    let deed = NewAudit { actor_kind: PeerKind::Operator, actor: user, action, subject: &subject, details };
    Ok(app.catalog.record_audit(&deed).await?)
}
