//! Which policies a host has jobs of: those whose selector fits its labels, now. And what a pass over many does with a row that it
//! cannot read: it says so once, by name, and goes on with the others.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{HostId, JobId, PolicyId};

use super::App;
use crate::catalog::{Host, HostState, JobFilter, JobState, PolicyRecord};
use crate::domain::policy::Policy;

/// Reports remembered; beyond, they are forgotten and said again.
const MAX_REPORTED: usize = 1000;

/// What passes have reported since this process began: a pass that finds the same again every two seconds says it once.
#[derive(Debug, Default)]
pub struct Reported {
    said: Mutex<HashSet<String>>,
}

impl Reported {
    /// Whether this has not been said before.
    pub fn is_news(&self, what: &str) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= MAX_REPORTED {
            said.clear();
        }
        said.insert(what.to_owned())
    }
}

/// The policy behind a stored version, for a request that needs just this one.
pub fn policy_of(record: &PolicyRecord) -> Result<Policy, Fault> {
    parse(record).map_err(|error| {
        tracing::error!(%error, policy = %record.name, version = %record.version, "a stored policy does not read");
        unreadable(record)
    })
}

/// The same for a pass over all policies, which leaves out what does not read.
pub fn readable(app: &App, record: &PolicyRecord) -> Option<Policy> {
    match parse(record) {
        Ok(policy) => Some(policy),
        Err(error) => {
            if app.reported.is_news(&format!("policy {} {}", record.id, record.version)) {
                let why = "a stored policy does not read: left out until it is applied anew";
                tracing::error!(%error, policy = %record.name, version = %record.version, "{why}");
            }
            None
        }
    }
}

/// What is left out of a pass because of `fault`, which is said once; what only the moment is to blame for ends the pass.
pub fn leave_out(app: &App, what: &dyn std::fmt::Display, fault: Fault) -> Result<(), Fault> {
    if fault.is_transient() {
        return Err(fault);
    }
    if app.reported.is_news(&format!("{what}: {}", fault.message)) {
        tracing::error!(%what, code = %fault.code, why = %fault.message, "left out of this pass and of the next ones");
    }
    Ok(())
}

/// The same for whoever says elsewhere what does not read.
pub(super) fn policy_of_record(record: &PolicyRecord) -> Option<Policy> {
    parse(record).ok()
}

fn parse(record: &PolicyRecord) -> Result<Policy, serde_json::Error> {
    serde_json::from_value(record.spec.clone())
}

fn unreadable(record: &PolicyRecord) -> Fault {
    let message = format!("version {} of the policy {} cannot be read", record.version, record.name);
    Fault::new(ErrorCode::Internal, message)
        .with_hint("the coordinator's log says more; coordctl policy apply writes it anew")
}

/// Makes a host's jobs those of the policies that select it. Called when it joins.
pub async fn select_for_host(app: &App, id: HostId) -> Result<(), Fault> {
    let host = app.catalog.host(id).await?;
    let host = host.ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("there is no host {id}")))?;
    let selected = selecting(app, &host).await?.into_iter().map(|record| (record.id, JobId::random()));
    let selected: Vec<(PolicyId, JobId)> = selected.collect();
    app.catalog.set_host_jobs(id, &selected).await?;
    app.nudges.scheduler.notify_one();
    Ok(())
}

/// The policies that select a host of these labels.
pub async fn selecting(app: &App, host: &Host) -> Result<Vec<PolicyRecord>, Fault> {
    // A host that was put out has none.
    if host.state == HostState::Revoked {
        return Ok(Vec::new());
    }
    let filter = JobFilter { host: Some(host.id), state: Some(JobState::Active), ..JobFilter::default() };
    let active = app.catalog.jobs(filter).await?;
    let mut selecting = app.catalog.policies().await?;
    selecting.retain(|record| match readable(app, record) {
        Some(policy) => policy.hosts.matches(&host.labels),
        // Nobody knows whom it selects: it keeps those it has.
        None => active.iter().any(|job| job.policy == record.id),
    });
    Ok(selecting)
}
