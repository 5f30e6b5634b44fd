//! Keeps jobs in step with selectors. Joining, labelling and applying each set the jobs they know of at once; two of them at the same
//! moment may each miss what the other did. This looks at all of it again and mends what differs.

use std::collections::{BTreeSet, HashMap};

use coord_shared::fault::Fault;
use coord_shared::ids::{HostId, JobId, PolicyId};

use super::App;
use super::jobs::{leave_out, readable};
use crate::catalog::{HostState, JobFilter, JobState};

/// Hosts mended in one pass.
const MAX_HOSTS: usize = 200;

/// Begins and ends the jobs of hosts whose jobs are not those that the selectors ask for. Answers whether there is more to do.
///
/// # Errors
/// Those of the catalog.
pub async fn keep(app: &App) -> Result<bool, Fault> {
    // Read in this order: a host that joins later finds the policies that are read here, or newer ones.
    let hosts = app.catalog.hosts().await?;
    let mut active: HashMap<HostId, BTreeSet<PolicyId>> = HashMap::new();
    for job in app.catalog.jobs(JobFilter { state: Some(JobState::Active), ..JobFilter::default() }).await? {
        active.entry(job.host).or_default().insert(job.policy);
    }
    let mut selectors = Vec::new();
    for record in app.catalog.policies().await? {
        selectors.push((record.id, readable(app, &record).map(|policy| policy.hosts)));
    }
    let mut mended = 0;
    for host in &hosts {
        let has = active.remove(&host.id).unwrap_or_default();
        let fits = selectors.iter().filter(|(policy, selector)| match selector {
            // It was put out.
            _ if host.state == HostState::Revoked => false,
            Some(selector) => selector.matches(&host.labels),
            // Nobody knows whom it selects: it keeps those it has.
            None => has.contains(policy),
        });
        let wanted: BTreeSet<PolicyId> = fits.map(|(policy, _)| *policy).collect();
        if wanted == has {
            continue;
        }
        let jobs: Vec<(PolicyId, JobId)> = wanted.into_iter().map(|policy| (policy, JobId::random())).collect();
        if let Err(error) = app.catalog.set_host_jobs(host.id, &jobs).await {
            leave_out(app, &format!("the jobs of {}", host.name), error.into())?;
            continue;
        }
        tracing::info!(host = %host.name, jobs = jobs.len(), "jobs brought in step with the selectors");
        app.nudges.scheduler.notify_one();
        mended += 1;
        if mended >= MAX_HOSTS {
            return Ok(true);
        }
    }
    Ok(false)
}
