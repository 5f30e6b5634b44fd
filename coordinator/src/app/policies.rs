//! Policies as operators see them.

use coord_shared::api;
use coord_shared::fault::Fault;
use coord_shared::wire::{optional_us, to_us};
use jiff::Timestamp;

use super::jobs::readable;
use super::{App, names};
use crate::catalog::{JobFilter, JobState, PolicyRecord};

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
pub async fn show(app: &App, text: &str) -> Result<api::Policy, Fault> {
    let record = names::policy(app, text).await?;
    with_hosts(app, &record).await
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
    let next_due_at = live.and_then(|record| readable(app, record)).and_then(|policy| policy.schedule.next_after(now));
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
    }
}

/// The word for whether a policy is there.
pub(super) const fn state(deleted: bool) -> &'static str {
    if deleted { "deleted" } else { "active" }
}
