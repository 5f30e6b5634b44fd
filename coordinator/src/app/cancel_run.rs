//! Ends a run: at once while it waits, else as soon as its host hears of it.

use coord_shared::api;
use coord_shared::api::coordinator_message::Message;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::HostId;
use coord_shared::run::{Illegal, RunState};
use coord_shared::tls::PeerKind;

use super::{App, names, runs};
use crate::catalog::{NewAudit, RunRecord, Transition};

/// Cancels a run; cancelling it again changes nothing.
///
/// # Errors
/// `not_found`; `not_now` for a run that has ended in another way.
pub async fn cancel(app: &App, user: &str, text: &str) -> Result<api::Run, Fault> {
    let run = names::run(app, text).await?;
    match app.catalog.cancel_run(run.id).await? {
        Transition::Updated(_) => {
            let subject = run.id.to_string();
            let details = serde_json::json!({ "host": run.host_name, "kind": run.kind });
            let deed = NewAudit {
                actor_kind: PeerKind::Operator,
                actor: user,
                action: "run_cancelled",
                subject: &subject,
                details,
            };
            tell_host(app, &run, "an operator cancelled the run");
            app.catalog.record_audit(&deed).await?;
        }
        Transition::AlreadyThere(_) => {}
        Transition::Refused(Illegal::Ended(state)) => {
            return Err(Fault::new(ErrorCode::NotNow, format!("run {} has ended: {state}", run.id.short()))
                .with_hint(format!("coordctl run show {}", run.id.short())));
        }
        Transition::Refused(illegal) => return Err(Fault::new(ErrorCode::NotNow, illegal.to_string())),
    }
    runs::by_id(app, run.id).await
}

/// Tells hosts that are connected here of their runs that are to end. Being told twice changes nothing.
///
/// # Errors
/// Those of the catalog.
pub async fn remind(app: &App) -> Result<(), Fault> {
    let hosts: Vec<HostId> = app.sessions.hosts();
    for run in app.catalog.cancelling_runs(&hosts).await? {
        tell_host(app, &run, "the run was cancelled");
    }
    Ok(())
}

/// Tells the host at once when it is connected here; its next heartbeat would hear of it as well.
pub(super) fn tell_host(app: &App, run: &RunRecord, why: &str) {
    if run.machine.state == RunState::Queued {
        return;
    }
    let cancel =
        api::CancelRun { run_id: run.id.to_string(), attempt: run.machine.attempt.get(), reason: why.to_owned() };
    if app.sessions.send(run.host, Message::Cancel(cancel)).is_err() {
        tracing::debug!(run = %run.id, host = %run.host_name, "not connected here: its heartbeat will tell it");
    }
}
