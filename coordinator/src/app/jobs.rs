//! Which policies a host has jobs of: those whose selector fits its labels, now.

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{HostId, JobId};

use super::App;
use crate::catalog::PolicyRecord;
use crate::domain::policy::Policy;

/// The policy behind a stored version.
pub fn policy_of(record: &PolicyRecord) -> Result<Policy, Fault> {
    serde_json::from_value(record.spec.clone()).map_err(|error| {
        tracing::error!(%error, policy = %record.name, version = %record.version, "a stored policy does not read");
        Fault::new(
            ErrorCode::Internal,
            format!("the policy {} cannot be read; the coordinator's log says more", record.name),
        )
    })
}

/// Makes a host's jobs those of the policies that select it. Called when it joins and when its labels change.
pub async fn select_for_host(app: &App, id: HostId) -> Result<(), Fault> {
    let host = app.catalog.host(id).await?;
    let host = host.ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("there is no host {id}")))?;
    let mut selected = Vec::new();
    for record in app.catalog.policies().await? {
        if policy_of(&record)?.hosts.matches(&host.labels) {
            selected.push((record.id, JobId::random()));
        }
    }
    app.catalog.set_host_jobs(id, &selected).await?;
    app.nudges.scheduler.notify_one();
    Ok(())
}
