//! Jobs as operators see them: what protects what, since when, and what comes next.

use std::collections::HashMap;

use coord_shared::api;
use coord_shared::fault::Fault;
use coord_shared::ids::JobId;
use coord_shared::run::{RunKind, RunState};
use coord_shared::wire::optional_us;

use super::{App, backups, hosts, names, pauses, policies, runs, start_backup};
use crate::catalog::{Job, JobFilter, JobStanding, JobState, MeasureFilter, PauseRecord, RunFilter};
use crate::domain::chain::Growth;

/// Jobs of hosts that fulfil a selector.
///
/// # Errors
/// `not_found` for a host or policy that does not exist, `invalid_argument` for a selector that cannot be read.
pub async fn list(app: &App, request: &api::ListJobsRequest) -> Result<api::JobList, Fault> {
    let mut filter = JobFilter::default();
    if !request.host.is_empty() {
        filter.host = Some(names::host(app, &request.host).await?.id);
    }
    if !request.policy.is_empty() {
        filter.policy = Some(names::policy(app, &request.policy).await?.id);
    }
    let selector = hosts::selector(&request.selector)?;
    let mut found = app.catalog.jobs(filter).await?;
    if !selector.is_everything() {
        let selected = app.catalog.hosts().await?.into_iter().filter(|host| selector.matches(&host.labels));
        let selected: std::collections::HashSet<_> = selected.map(|host| host.id).collect();
        found.retain(|job| selected.contains(&job.host));
    }
    let ids: Vec<JobId> = found.iter().map(|job| job.id).collect();
    let standings = app.catalog.job_standings(&ids).await?;
    let standings: HashMap<JobId, JobStanding> = standings.into_iter().map(|one| (one.job, one)).collect();
    let paused = pauses::in_force(app).await?;
    let mut jobs = Vec::with_capacity(found.len());
    for job in &found {
        jobs.push(whole(app, job, standings.get(&job.id), &paused).await?);
    }
    Ok(api::JobList { jobs })
}

/// One job. The policy may stay unnamed where the host has one only.
///
/// # Errors
/// `not_found` and `ambiguous` as for every name.
pub async fn show(app: &App, host: &str, policy: &str) -> Result<api::Job, Fault> {
    let job = start_backup::job(app, host, policy).await?;
    let standing = app.catalog.job_standings(&[job.id]).await?.pop();
    let values = match (app.catalog.policy(job.policy).await?, app.catalog.host(job.host).await?) {
        // What a job that has ended would do is nothing.
        (Some(record), Some(host)) if job.state == JobState::Active => policies::values(app, &record, Some(&host))?,
        (_, _) => Vec::new(),
    };
    Ok(api::Job {
        growth: growth(app, &job).await?,
        values,
        ..whole(app, &job, standing.as_ref(), &pauses::in_force(app).await?).await?
    })
}

/// How the job's newest chain has grown.
async fn growth(app: &App, job: &Job) -> Result<Option<api::ChainGrowth>, Fault> {
    let filter = MeasureFilter { job: Some(job.id), ..MeasureFilter::default() };
    let chain = app.catalog.newest_chains(filter).await?.pop();
    Ok(chain.and_then(|chain| chain.full).map(|(full, _)| {
        let Growth { newest_bytes, largest_bytes, percent } =
            Growth::of(full.source_bytes, full.differentials.iter().copied());
        let differentials = u64::try_from(full.differentials.len()).unwrap_or(u64::MAX);
        api::ChainGrowth { differentials, newest_bytes, largest_bytes, percent }
    }))
}

async fn whole(
    app: &App,
    job: &Job,
    standing: Option<&JobStanding>,
    paused: &[PauseRecord],
) -> Result<api::Job, Fault> {
    let newest = app.catalog.newest_backup(job.id).await?;
    let newest_full = app.catalog.newest_full(job.id).await?;
    let open = app.catalog.open_runs_of_job(job.id).await?;
    let missed = RunFilter {
        host: Some(job.host),
        policy: Some(job.policy),
        kind: Some(RunKind::Backup),
        state: Some(RunState::Missed),
        since: newest.as_ref().map(|newest| newest.captured_at),
        limit: 1,
        ..RunFilter::default()
    };
    let missed = app.catalog.runs(missed).await?;
    let owed = app.catalog.owed(job.id).await?;
    let paused: Vec<&PauseRecord> = match job.state {
        JobState::Active => pauses::holding(paused, job.host, job.policy).collect(),
        JobState::Ended => Vec::new(),
    };
    // Nobody knows when that ends.
    let is_open = paused.iter().any(|pause| pause.until.is_none());
    Ok(api::Job {
        id: job.id.to_string(),
        host: job.host_name.clone(),
        policy: job.policy_name.clone(),
        state: job.state.as_str().to_owned(),
        newest: newest.as_ref().map(backups::encode),
        newest_full: newest_full.as_ref().map(backups::encode),
        next_due_at_us: optional_us(job.backup_due_at),
        open_run: open.first().map(runs::encode),
        backups: job.backups,
        stored_bytes: job.stored_bytes,
        growth: None,
        values: Vec::new(),
        ended_because: ended_because(job, standing).to_owned(),
        chain_differentials: standing.map_or(0, |standing| standing.differentials),
        last_good_at_us: optional_us(standing.and_then(|standing| standing.last_good_at)),
        last_missed: missed.first().map(runs::encode),
        owed_runs: owed.as_ref().map_or(0, |owed| owed.runs),
        owed_from_us: optional_us(owed.map(|owed| owed.from).filter(|_| !is_open)),
        pauses: paused.into_iter().map(pauses::encode).collect(),
    })
}

/// Why a job has ended; nothing of one that is active.
fn ended_because(job: &Job, standing: Option<&JobStanding>) -> &'static str {
    match (job.state, standing) {
        (JobState::Active, _) => "",
        (JobState::Ended, Some(standing)) if standing.policy_deleted => "policy_deleted",
        (JobState::Ended, Some(standing)) if standing.host_revoked => "host_revoked",
        (JobState::Ended, _) => "not_selected",
    }
}
