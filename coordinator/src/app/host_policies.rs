//! Policies as they are for each of their hosts: with the overrides that the host's labels and name ask for. Where no policy has any,
//! nothing is read and nothing is copied.

use std::borrow::Cow;
use std::collections::HashMap;

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{HostId, PolicyId};

use super::App;
use super::jobs::readable;
use crate::catalog::Host;
use crate::domain::policy::{Finding, Policy};

/// Policies, and the hosts that they may differ on.
#[derive(Debug)]
pub struct HostPolicies {
    policies: HashMap<PolicyId, Policy>,
    /// By id; empty where no policy has overrides.
    hosts: HashMap<HostId, Host>,
}

impl HostPolicies {
    /// The policies of the fleet that read.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn read(app: &App) -> Result<HostPolicies, Fault> {
        let mut policies = HashMap::new();
        for record in app.catalog.policies().await? {
            if let Some(policy) = readable(app, &record) {
                policies.insert(record.id, policy);
            }
        }
        HostPolicies::of(app, policies).await
    }

    /// These policies.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn of(app: &App, policies: HashMap<PolicyId, Policy>) -> Result<HostPolicies, Fault> {
        let differ = policies.values().any(Policy::has_overrides);
        let hosts = if differ { app.catalog.hosts().await? } else { Vec::new() };
        Ok(HostPolicies { policies, hosts: hosts.into_iter().map(|host| (host.id, host)).collect() })
    }

    /// Every policy as its file says it.
    pub fn all(&self) -> &HashMap<PolicyId, Policy> {
        &self.policies
    }

    /// A policy as it is for one host. Nothing where the overrides of the host make no policy together: that is reported, once.
    pub fn on(&self, app: &App, policy: PolicyId, host: HostId) -> Option<Cow<'_, Policy>> {
        match self.found_on(policy, host)? {
            Ok(policy) => Some(policy),
            Err(fault) => {
                if app.reported.is_news(&fault.message) {
                    tracing::error!(%policy, %host, why = %fault.message, "left out");
                }
                None
            }
        }
    }

    /// The same for whoever says why there is none. Nothing where the policy does not read.
    pub fn found_on(&self, policy: PolicyId, host: HostId) -> Option<Result<Cow<'_, Policy>, Fault>> {
        let policy = self.policies.get(&policy)?;
        if !policy.has_overrides() {
            return Some(Ok(Cow::Borrowed(policy)));
        }
        let host = self.hosts.get(&host)?;
        let there = policy.for_host(&host.name, &host.labels);
        Some(there.map(Cow::Owned).map_err(|findings| impossible(policy, host, &findings)))
    }

    /// Every policy that selects a host of these labels can be for it.
    ///
    /// # Errors
    /// `invalid_policy` names the first that cannot, and says why.
    pub fn check_on(&self, host: &Host) -> Result<(), Fault> {
        let mut selecting: Vec<&Policy> =
            self.policies.values().filter(|policy| policy.hosts.matches(&host.labels)).collect();
        selecting.sort_by_key(|policy| policy.name.as_str());
        for policy in selecting {
            policy.for_host(&host.name, &host.labels).map_err(|findings| impossible(policy, host, &findings))?;
        }
        Ok(())
    }
}

/// A policy as it is for one host.
///
/// # Errors
/// `invalid_policy` where the overrides of the host make no policy together.
pub async fn on_host(app: &App, policy: Policy, host: HostId) -> Result<Policy, Fault> {
    if !policy.has_overrides() {
        return Ok(policy);
    }
    let found = app.catalog.host(host).await?;
    let host = found.ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("there is no host {host}")))?;
    policy.for_host(&host.name, &host.labels).map_err(|findings| impossible(&policy, &host, &findings))
}

/// Why there is no such policy for a host.
pub fn impossible(policy: &Policy, host: &Host, findings: &[Finding]) -> Fault {
    let said = findings.first().map(|finding| format!(": {}: {}", finding.key, finding.message)).unwrap_or_default();
    let message =
        format!("the overrides of policy {} that {} has make no policy together{said}", policy.name, host.name);
    Fault::new(ErrorCode::InvalidPolicy, message).with_hint("change the overrides, or the host's labels")
}
