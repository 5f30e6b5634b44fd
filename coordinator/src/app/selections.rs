//! Whether a full of an older version of its policy was taken with the selection of the present one, remembered for a pass over many jobs.

use std::collections::HashMap;

use coord_shared::fault::Fault;
use coord_shared::ids::{HostId, PolicyId, PolicyVersion};

use super::App;
use super::host_policies::on_host;
use super::jobs::readable;
use crate::catalog::NewestChain;
use crate::domain::policy::Policy;

/// What is known of selections.
#[derive(Debug, Default)]
pub(super) struct Selections {
    /// The present versions. A policy without one is none that is applied.
    versions: HashMap<PolicyId, PolicyVersion>,
    /// Whether the selection of an older version is the present one. Overrides may make it another on each host.
    same: HashMap<(PolicyId, PolicyVersion, Option<HostId>), bool>,
}

impl Selections {
    /// Nothing is known yet but these versions.
    pub(super) fn new(versions: HashMap<PolicyId, PolicyVersion>) -> Selections {
        Selections { versions, same: HashMap::new() }
    }

    /// The present version of a policy.
    pub(super) fn version(&self, policy: PolicyId) -> Option<PolicyVersion> {
        self.versions.get(&policy).copied()
    }

    /// Whether `version` of the chain's policy selects on its host what `policy` does.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(super) async fn is_same(
        &mut self,
        app: &App,
        chain: &NewestChain,
        version: PolicyVersion,
        policy: &Policy,
    ) -> Result<bool, Fault> {
        if self.version(chain.policy) == Some(version) {
            return Ok(true);
        }
        let key = (chain.policy, version, policy.has_overrides().then_some(chain.host));
        if let Some(same) = self.same.get(&key) {
            return Ok(*same);
        }
        let same = match app.catalog.policy_at(chain.policy, version).await?.and_then(|then| readable(app, &then)) {
            Some(then) => on_host(app, then, chain.host).await?.selection() == policy.selection(),
            None => false,
        };
        self.same.insert(key, same);
        Ok(same)
    }
}
