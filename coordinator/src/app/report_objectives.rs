//! Where each job stands with the RPO and the RTO that its policy states, and whether a policy can keep them.

use std::collections::HashSet;

use coord_shared::api;
use coord_shared::fault::Fault;
use coord_shared::level::Level;
use coord_shared::wire::to_us;
use jiff::Timestamp;

use super::host_policies::HostPolicies;
use super::{App, hosts, names};
use crate::catalog::{JobMeasures, MeasureFilter};
use crate::domain::objectives::{self, Expected};
use crate::domain::policy::{Finding, Objectives, Policy};
use crate::domain::rates::Basis;

/// The report of the jobs that are asked for.
///
/// # Errors
/// `not_found` for a host or policy that does not exist, `invalid_argument` for a selector that cannot be read.
pub async fn report(app: &App, request: &api::ReportObjectivesRequest) -> Result<api::ObjectivesReport, Fault> {
    let mut filter = MeasureFilter::default();
    if !request.host.is_empty() {
        filter.host = Some(names::host(app, &request.host).await?.id);
    }
    if !request.policy.is_empty() {
        filter.policy = Some(names::policy(app, &request.policy).await?.id);
    }
    let selector = hosts::selector(&request.selector)?;
    let mut found = app.catalog.measures(filter).await?;
    if !selector.is_everything() {
        let selected = app.catalog.hosts().await?.into_iter().filter(|host| selector.matches(&host.labels));
        let selected: HashSet<_> = selected.map(|host| host.id).collect();
        found.retain(|job| selected.contains(&job.host));
    }
    // One that does not read promises nothing that could be looked at; status names it.
    let policies = HostPolicies::read(app).await?;
    let stated = |job: &JobMeasures| {
        let there = policies.on(app, job.policy, job.host).map(|policy| policy.objectives);
        // Where the host's overrides make no policy together, what its file promises is broken all the same.
        there.or_else(|| Some(policies.all().get(&job.policy)?.objectives))
    };
    let now = app.catalog.now().await?;
    let encode = |job: &JobMeasures| encode(job, stated(job).unwrap_or_default(), now);
    Ok(api::ObjectivesReport { jobs: found.iter().map(encode).collect(), now_us: to_us(now) })
}

fn encode(job: &JobMeasures, stated: Objectives, now: Timestamp) -> api::ObjectivesOfJob {
    let restore = job.good.and_then(|good| job.rates.restore(good.restore_bytes));
    let newest = job.good.map(|good| good.captured_at);
    api::ObjectivesOfJob {
        host: job.host_name.clone(),
        policy: job.policy_name.clone(),
        rpo_s: stated.rpo_s.unwrap_or(0),
        rto_s: stated.rto_s.unwrap_or(0),
        newest_backup_id: job.good.map(|good| good.id.to_string()).unwrap_or_default(),
        newest_captured_at_us: newest.map_or(0, to_us),
        age_s: newest.map_or(0, |newest| now.duration_since(newest).as_secs().max(0)),
        restore_bytes: job.good.map_or(0, |good| good.restore_bytes),
        predicted_restore_ms: restore.map(|restore| restore.ms),
        basis: restore.map_or("", |restore| Basis::as_str(restore.basis)).to_owned(),
        rpo: objectives::rpo(stated.rpo_s, newest, now).as_str().to_owned(),
        rto: objectives::rto(stated.rto_s, job.good.is_some(), restore).as_str().to_owned(),
    }
}

/// What a policy states and cannot keep, as far as its schedule and the hosts that it protects already tell.
///
/// # Errors
/// Those of the catalog.
pub async fn warnings(app: &App, policy: &Policy) -> Result<Vec<Finding>, Fault> {
    if policy.objectives == Objectives::default() {
        return Ok(Vec::new());
    }
    let known = match app.catalog.policy_by_name(policy.name.as_str()).await? {
        Some(record) => {
            app.catalog.measures(MeasureFilter { policy: Some(record.id), ..MeasureFilter::default() }).await?
        }
        None => Vec::new(),
    };
    let full_ms = |job: &JobMeasures| job.rates.backup_ms(Level::Full, job.good?.source_bytes);
    let expected = |job: &JobMeasures| {
        let restore = job.rates.restore(job.good?.restore_bytes)?;
        Some(Expected { host: job.host_name.clone(), restore })
    };
    let expected: Vec<Expected> = known.iter().filter_map(expected).collect();
    let now = app.catalog.now().await?;
    let rpo = objectives::rpo_finding(policy, now, known.iter().filter_map(full_ms).max());
    Ok(rpo.into_iter().chain(objectives::rto_finding(policy, &expected)).collect())
}
