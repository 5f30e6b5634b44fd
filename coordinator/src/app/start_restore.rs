//! Starts a restore: plans it, keeps the plan in the run's row and queues the run for the target host.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RunId;
use coord_shared::run::RunKind;
use coord_shared::tls::PeerKind;

use super::schedule::priority;
use super::{App, plan_restore, restore_digest, runs};
use crate::catalog::{AskedRun, NewAudit};
use crate::domain::policy::DEFAULT_PRIORITY;

/// Queues a restore run.
///
/// # Errors
/// As [`plan_restore::of_request`], and `changed` when it would not do what the plan says that the request names; the target is untouched
/// then.
pub async fn start(app: &App, user: &str, request: &api::RestoreRequest) -> Result<api::StartedRestore, Fault> {
    let planned = plan_restore::of_request(app, request).await?;
    let plan = plan_restore::encode(app, request, &planned).await?;
    if !request.plan_digest.is_empty() && request.plan_digest != plan.digest {
        let message = format!("what this restore would do has changed: its plan is {} now", plan.digest);
        return Err(Fault::new(ErrorCode::Changed, message).with_hint("coordctl restore --plan shows it"));
    }
    let spec = serde_json::to_value(restore_digest::spec(request, &planned)?)
        .map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))?;
    let asked = AskedRun {
        id: RunId::random(),
        kind: RunKind::Restore,
        host: planned.to.id,
        job: None,
        asked_by: user.to_owned(),
        level: None,
        spec,
        priority: priority(RunKind::Restore, DEFAULT_PRIORITY),
    };
    let run = app.catalog.ask_run(&asked).await?;
    app.nudges.dispatcher.notify_one();
    let subject = run.id.to_string();
    let details = serde_json::json!({
        "from": planned.from.name,
        "to": planned.to.name,
        "backups": planned.plan.parts.iter().map(|part| part.backup).collect::<Vec<_>>(),
        "delete_extra": request.delete_extra,
    });
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "restore_started", subject: &subject, details };
    app.catalog.record_audit(&deed).await?;
    Ok(api::StartedRestore { run: Some(runs::by_id(app, run.id).await?), plan: Some(plan) })
}
