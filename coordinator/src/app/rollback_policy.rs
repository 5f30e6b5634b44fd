//! Goes back to an older version of a policy: a new version says what that one said, so that history has no holes. A deleted policy
//! comes back so.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::PolicyVersion;

use super::jobs::policy_of;
use super::policy_change::{Before, Change, Plan, impossible_hosts, make_one, stored};
use super::policy_refusal::refusal;
use super::{App, names};
use crate::catalog::VersionOrigin;

/// Makes the version, or says what it would change.
///
/// # Errors
/// `not_found` for a policy, or a version that never was; `invalid_argument` for the version that is the policy's deletion; `invalid_policy`
/// where its overrides make no policy together on a host, as the hosts' labels are now; `changed` where it is not
/// what was told with the digest.
pub async fn rollback(
    app: &App,
    user: &str,
    request: &api::RollbackPolicyRequest,
) -> Result<api::AppliedPolicy, Fault> {
    let record = names::policy(app, &request.policy).await?;
    let history = format!("coordctl policy history {} lists the versions", record.name);
    let Some(old) = app.catalog.policy_at(record.id, PolicyVersion(request.version)).await? else {
        let message =
            format!("policy {} has no version {}: its newest is {}", record.name, request.version, record.version);
        return Err(Fault::new(ErrorCode::NotFound, message).with_hint(history));
    };
    if old.is_deleted() {
        let message =
            format!("version {} of policy {} is its deletion: there is nothing to go back to", old.version, old.name);
        return Err(Fault::new(ErrorCode::InvalidArgument, message).with_hint(history));
    }
    let policy = policy_of(&old)?;
    let change = Change {
        name: old.name,
        spec: stored(&policy)?,
        policy: Some(policy),
        toml: old.toml,
        origin: VersionOrigin::RolledBack,
        equals: Some(old.equals.unwrap_or(old.version)),
        expected: None,
    };
    let before = Before::read(app).await?;
    let impossible = impossible_hosts(&before, std::slice::from_ref(&change));
    if !impossible.is_empty() {
        return Err(refusal(&impossible).with_hint(format!(
            "give the hosts other labels; or coordctl policy show {} prints the file, to apply it with other overrides",
            change.name
        )));
    }
    let plan = Plan { before: &before, changes: &[change], defaults: None };
    make_one(app, user, &plan, (request.dry_run, &request.plan_digest)).await
}
