//! The digest by which an operator holds a change of policies to what was told of it. It is over what the change means: which policies go
//! from which version to which, what they say, which hosts they gain and lose, and the defaults that they are read over. How many backups
//! there are is no part of it, since they go on being taken while somebody reads; nor is a host that has joined and is protected anyway.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::hex;

use super::policy_change::Plan;
use crate::catalog::CatalogError;

/// Bytes of a digest that are shown.
const SHOWN: usize = 16;

/// The digest of what a plan was told to do.
///
/// # Errors
/// It cannot be written as JSON: a defect.
pub fn digest(plan: &Plan<'_>, told: &[api::AppliedPolicy]) -> Result<String, Fault> {
    let policies: Vec<_> = told
        .iter()
        .map(|one| {
            let policy = one.policy.as_ref().map(|policy| (&policy.name, policy.version, &policy.toml));
            let leaving: Vec<_> = one.leaving.iter().map(|host| (&host.host, &host.other_policies)).collect();
            (policy, one.from_version, &one.change, &one.hosts_added, &one.hosts_removed, leaving)
        })
        .collect();
    let defaults = (
        plan.before.defaults.as_ref().map(|record| record.version.get()),
        plan.defaults.map(|new| (new.version.get(), &new.toml)),
    );
    let text = serde_json::to_vec(&(defaults, policies));
    let text = text.map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))?;
    Ok(hex::encode(&blake3::hash(&text).as_bytes()[..SHOWN]))
}

/// Why nothing is done: it would be something else than what was told.
pub fn not_as_told(plan: &Plan<'_>) -> Fault {
    let moved = plan.changes.iter().find_map(|change| {
        let (expected, record) = change.expected.zip(plan.before.record(&change.name))?;
        let (name, version) = (change.name.clone(), record.version);
        let (what, number, expected) = ("policy", version.get(), expected.get());
        (number != expected).then_some(CatalogError::Changed { what, name, version: number, expected })
    });
    if let Some(moved) = moved {
        return moved.into();
    }
    let message = "since it was shown what this would do, somebody has changed a policy, the labels of a host or the fleet's defaults, so that \
                   it would do something else: nothing was done";
    Fault::new(ErrorCode::Changed, message)
        .with_hint("look again at what it would do (-n, or coordctl policy diff), then repeat it")
}
