//! Ends a policy. Its jobs end, its backups stay: they are listed and restored from under its name, which no other policy gets.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};

use super::policy_change::{Before, Change, make, preview};
use super::{App, names};

/// Ends it, or says what would become of its backups.
///
/// # Errors
/// `not_found` for a policy that is not there, or not any more.
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
    let mut told = if request.dry_run {
        preview(app, &before, &[change]).await?
    } else {
        make(app, user, &before, &[change], None).await?
    };
    told.pop().ok_or_else(|| Fault::new(ErrorCode::Internal, "a deletion left nothing to tell"))
}
