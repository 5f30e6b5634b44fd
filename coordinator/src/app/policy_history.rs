//! The versions of a policy: who made each, when, and what it changed.

use coord_shared::api;
use coord_shared::fault::Fault;
use coord_shared::wire::to_us;

use super::jobs::readable;
use super::policy_change::encode_key;
use super::{App, names};
use crate::catalog::PolicyRecord;
use crate::domain::policy::{Policy, changes};

/// Versions told of one policy; one more is read, to compare the oldest of them with.
const MAX_VERSIONS: u32 = 500;

/// The newest versions, newest first.
///
/// # Errors
/// `not_found` with the nearest name.
pub async fn history(app: &App, text: &str) -> Result<api::PolicyHistory, Fault> {
    let record = names::policy(app, text).await?;
    let records = app.catalog.policy_versions(record.id, MAX_VERSIONS + 1).await?;
    let said = |record: &PolicyRecord| if record.is_deleted() { None } else { readable(app, record) };
    let policies: Vec<Option<Policy>> = records.iter().map(said).collect();
    let versions = records.iter().enumerate().take(MAX_VERSIONS as usize).map(|(number, record)| {
        let before = policies.get(number + 1).and_then(Option::as_ref);
        let now = policies.get(number).and_then(Option::as_ref);
        api::PolicyVersion {
            version: record.version.get(),
            applied_at_us: to_us(record.applied_at),
            applied_by: record.applied_by.clone(),
            change: record.origin.as_str().to_owned(),
            equals: record.equals.map_or(0, |version| version.get()),
            keys: changes(before, now).into_iter().map(encode_key).collect(),
            toml: record.toml.clone(),
        }
    });
    Ok(api::PolicyHistory { name: record.name, versions: versions.collect() })
}
