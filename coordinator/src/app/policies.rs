//! Policies as operators see them.

use coord_shared::api;
use coord_shared::fault::Fault;
use coord_shared::wire::{optional_us, to_us};
use jiff::Timestamp;

use super::host_policies::impossible;
use super::jobs::readable;
use super::{App, names, pauses};
use crate::catalog::{Host, JobFilter, JobState, PolicyRecord};
use crate::domain::policy::Origin;
use crate::domain::timing::Due;

/// Every policy at its newest version.
///
/// # Errors
/// Those of the catalog.
pub async fn list(app: &App) -> Result<api::PolicyList, Fault> {
    let now = app.catalog.now().await?;
    let jobs = app.catalog.jobs(JobFilter { state: Some(JobState::Active), ..JobFilter::default() }).await?;
    let mut policies = Vec::new();
    for record in app.catalog.policies().await? {
        let hosts = jobs.iter().filter(|job| job.policy == record.id).map(|job| job.host_name.clone()).collect();
        policies.push(encode(app, &record, hosts, now));
    }
    Ok(api::PolicyList { policies })
}

/// One policy.
///
/// # Errors
/// `not_found` with the nearest name.
pub async fn show(app: &App, text: &str, host: &str) -> Result<api::Policy, Fault> {
    let record = names::policy(app, text).await?;
    let host = if host.is_empty() { None } else { Some(names::host(app, host).await?) };
    let values = values(app, &record, host.as_ref())?;
    let policy = with_hosts(app, &record).await?;
    let pauses = pauses::of_policy(app, &record, &policy.hosts).await?;
    Ok(api::Policy { values, pauses, ..policy })
}

/// Every value of a policy, and where it comes from, for one host or as its file says it. One that does not read has none.
///
/// # Errors
/// `invalid_policy` where the overrides of the host make no policy together.
pub fn values(app: &App, record: &PolicyRecord, host: Option<&Host>) -> Result<Vec<api::PolicyValue>, Fault> {
    let Some(policy) = readable(app, record) else { return Ok(Vec::new()) };
    let named = host.map(|host| (host.name.as_str(), &host.labels));
    match (policy.origins(&record.toml, named), host) {
        (Ok(origins), _) => Ok(origins.into_iter().map(encode_origin).collect()),
        (Err(findings), Some(host)) => Err(impossible(&policy, host, &findings)),
        // Only overrides can be impossible, and without a host there are none.
        (Err(_), None) => Ok(Vec::new()),
    }
}

fn encode_origin(origin: Origin) -> api::PolicyValue {
    api::PolicyValue { key: origin.key, value: origin.value, from: origin.from }
}

/// The fleet's defaults.
///
/// # Errors
/// Those of the catalog.
pub async fn defaults(app: &App) -> Result<api::PolicyDefaults, Fault> {
    let record = app.catalog.policy_defaults().await?;
    Ok(record.map_or_else(api::PolicyDefaults::default, |record| api::PolicyDefaults {
        version: record.version.get(),
        toml: record.toml,
        applied_at_us: to_us(record.applied_at),
        applied_by: record.applied_by,
    }))
}

/// A policy with the hosts of its jobs.
///
/// # Errors
/// Those of the catalog.
pub async fn with_hosts(app: &App, record: &PolicyRecord) -> Result<api::Policy, Fault> {
    let filter = JobFilter { policy: Some(record.id), state: Some(JobState::Active), ..JobFilter::default() };
    let hosts = app.catalog.jobs(filter).await?.into_iter().map(|job| job.host_name).collect();
    Ok(encode(app, record, hosts, app.catalog.now().await?))
}

/// One that does not read is shown all the same, with nothing due: its text is what to apply anew.
fn encode(app: &App, record: &PolicyRecord, hosts: Vec<String>, now: Timestamp) -> api::Policy {
    let live = Some(record).filter(|record| !record.is_deleted());
    let policy = live.and_then(|record| readable(app, record));
    let next_due_at = policy.and_then(|policy| Due::of_policy(&policy).next_run_after(now));
    api::Policy {
        id: record.id.to_string(),
        name: record.name.clone(),
        version: record.version.get(),
        toml: record.toml.clone(),
        applied_at_us: to_us(record.applied_at),
        applied_by: record.applied_by.clone(),
        hosts,
        next_due_at_us: optional_us(next_due_at),
        state: state(record.is_deleted()).to_owned(),
        values: Vec::new(),
        pauses: Vec::new(),
    }
}

/// The word for whether a policy is there.
pub(super) const fn state(deleted: bool) -> &'static str {
    if deleted { "deleted" } else { "active" }
}
