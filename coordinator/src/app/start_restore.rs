//! Starts a restore: plans it, keeps the plan in the run's row and queues the run for the target host.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RunId;
use coord_shared::run::RunKind;
use coord_shared::tls::PeerKind;

use super::plan_restore::{self, PlannedRestore};
use super::restore_task::{Bytes, OverwriteWord, PartSpec, RestoreSpec};
use super::schedule::priority;
use super::{App, runs};
use crate::catalog::{AskedRun, NewAudit};
use crate::domain::policy::DEFAULT_PRIORITY;

/// Queues a restore run.
///
/// # Errors
/// As [`plan_restore::of_request`]; the target is untouched then.
pub async fn start(app: &App, user: &str, request: &api::RestoreRequest) -> Result<api::StartedRestore, Fault> {
    let planned = plan_restore::of_request(app, request).await?;
    let plan = plan_restore::encode(app, request, &planned).await?;
    let spec = serde_json::to_value(spec(request, &planned)?)
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

fn spec(request: &api::RestoreRequest, planned: &PlannedRestore) -> Result<RestoreSpec, Fault> {
    let mut parts = Vec::new();
    for part in &planned.plan.parts {
        let row = planned.points.row(part.backup)?;
        let policy = planned.points.policy(row);
        parts.push(PartSpec {
            policy: part.policy.to_string(),
            backup: part.backup,
            full: part.full,
            differential: part.differential,
            paths: part.paths.iter().cloned().map(Bytes).collect(),
            except: part.except.iter().cloned().map(Bytes).collect(),
            sources: policy
                .map(|policy| policy.relative_sources())
                .unwrap_or_default()
                .into_iter()
                .map(Bytes)
                .collect(),
            exclude: policy.map(|policy| policy.exclude.clone()).unwrap_or_default(),
        });
    }
    Ok(RestoreSpec {
        parts,
        target_folder: Bytes(request.to_folder.clone()),
        overwrite: OverwriteWord::from_api(request.overwrite()),
        delete_extra: request.delete_extra,
        include: request.include.clone(),
        exclude: request.exclude.clone(),
    })
}
