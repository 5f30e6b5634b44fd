//! Versions of policies that were read and parsed before. A version never changes once it is written, so what is known stays right; a fleet
//! of thousands of hosts has few policies, and each would be read and parsed anew for every run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use coord_shared::fault::Fault;
use coord_shared::ids::{PolicyId, PolicyVersion};

use super::App;
use super::jobs::policy_of_record;
use crate::catalog::PolicyRecord;
use crate::domain::policy::Policy;

/// Versions remembered; beyond, all are forgotten and read again.
const MAX_KNOWN: usize = 1000;

/// What is remembered. Clones of policies share them.
#[derive(Debug, Default)]
pub struct KnownPolicies {
    known: Mutex<HashMap<(PolicyId, PolicyVersion), Arc<Policy>>>,
}

/// A version of a policy.
#[derive(Debug)]
pub enum Known {
    /// It reads.
    Policy(Arc<Policy>),
    /// It does not, and this is how it is stored.
    Unreadable(Box<PolicyRecord>),
}

impl KnownPolicies {
    fn recall(&self, policy: PolicyId, version: PolicyVersion) -> Option<Arc<Policy>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&(policy, version)).cloned()
    }

    fn remember(&self, policy: PolicyId, version: PolicyVersion, read: &Arc<Policy>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert((policy, version), Arc::clone(read));
    }
}

/// A version of a policy; `None` if there is no such version.
///
/// # Errors
/// Those of the catalog.
pub async fn read(app: &App, policy: PolicyId, version: PolicyVersion) -> Result<Option<Known>, Fault> {
    if let Some(known) = app.known_policies.recall(policy, version) {
        return Ok(Some(Known::Policy(known)));
    }
    let Some(record) = app.catalog.policy_at(policy, version).await? else { return Ok(None) };
    match policy_of_record(&record) {
        Some(read) => {
            let read = Arc::new(read);
            app.known_policies.remember(policy, version, &read);
            Ok(Some(Known::Policy(read)))
        }
        None => Ok(Some(Known::Unreadable(Box::new(record)))),
    }
}
