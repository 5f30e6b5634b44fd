//! Ends a policy. Its jobs end, its backups stay: they are listed and restored from under its name, which no other policy gets.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};

use super::policy_change::{Before, Change, Plan, make_one};
use super::{App, names};

/// Ends it, or says what would become of its backups.
///
/// # Errors
/// `not_found` for a policy that is not there, or not any more; `changed` where it is not what was told with the digest.
pub async fn delete(app: &App, user: &str, request: &api::DeletePolicyRequest) -> Result<api::AppliedPolicy, Fault> {
    let record = names::policy(app, &request.policy).await?;
    if record.is_deleted() {
        let message = format!("policy {} was deleted already, by {}", record.name, record.applied_by);
        let hint = format!("coordctl policy history {} says more; its backups are still there", record.name);
        return Err(Fault::new(ErrorCode::NotFound, message).with_hint(hint));
    }
    let before = Before::read(app).await?;
    // As it is among all others: what was read before may be older.
    let change = Change::deleting(before.record(&record.name).unwrap_or(&record));
    let plan = Plan { before: &before, changes: &[change], defaults: None };
    make_one(app, user, &plan, (request.dry_run, &request.plan_digest)).await
}
