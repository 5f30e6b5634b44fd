//! What a queued run waits for, in words.

use coord_shared::fault::Fault;
use coord_shared::run::{RunKind, RunState};

use super::{App, pauses};
use crate::catalog::{HeldRuns, Host, LimitRecord, RunRecord};
use crate::domain::queue::{Member, Scope};

/// What keeps the run from beginning now; empty when it is not queued, or when it is about to begin.
///
/// # Errors
/// Those of the catalog.
pub async fn for_what(app: &App, run: &RunRecord) -> Result<String, Fault> {
    if run.machine.state != RunState::Queued {
        return Ok(String::new());
    }
    let Some(host) = app.catalog.host(run.host).await? else { return Ok(String::new()) };
    if !host.connected {
        return Ok(format!("{} is not connected", host.name));
    }
    if run.run_after > app.catalog.now().await? {
        return Ok("the time before its next attempt".to_owned());
    }
    if app.catalog.is_silent(run.host).await? {
        return Ok(format!("{} has not been heard of since it lost a run", host.name));
    }
    if run.kind == RunKind::Restore {
        return Ok(String::new());
    }
    let job = match run.job {
        Some(job) => app.catalog.job(job).await?,
        None => None,
    };
    if let Some(job) = job
        && let Some(pause) = pauses::of_job(app, &job, app.catalog.now().await?).await?.first()
    {
        return Ok(pause.why.clone());
    }
    let (limits, held) = (app.catalog.limits().await?, app.catalog.held_runs().await?);
    let full = limits.iter().find_map(|limit| Some((limit, used(limit, &host, &held)?)));
    if let Some((limit, used)) = full {
        return Ok(format!("limit {}: {used} of {} are going on", limit.name, limit.bound.runs));
    }
    let kept_out = app.catalog.is_kept_out(run.id).await?;
    Ok(if kept_out { "runs before it, which have or keep the places that are left".to_owned() } else { String::new() })
}

/// How many runs the limit counts, if it means the host and is full.
fn used(limit: &LimitRecord, host: &Host, held: &[HeldRuns]) -> Option<u64> {
    let used = match &limit.bound.scope {
        Scope::Fleet => held.iter().map(|held| held.runs).sum(),
        Scope::EachHost => held.iter().find(|held| held.host == host.id).map_or(0, |held| held.runs),
        Scope::EachTarget => {
            let member = Member { host: host.id, store: host.archive_store, labels: &host.labels };
            held.iter().filter(|held| held.target() == member.target()).map(|held| held.runs).sum()
        }
        Scope::Group(selector) if !selector.matches(&host.labels) => return None,
        Scope::Group(selector) => held.iter().filter(|held| selector.matches(&held.labels)).map(|held| held.runs).sum(),
    };
    Some(used).filter(|used| *used >= u64::from(limit.bound.runs))
}
