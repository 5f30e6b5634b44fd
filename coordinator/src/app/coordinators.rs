//! The coordinators of the fleet, as operators see them, and asking one to leave.

use std::sync::Arc;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::PeerKind;
use coord_shared::wire::{optional_us, to_us};

use super::{App, names};
use crate::catalog::{CoordinatorRecord, NewAudit};

/// Every coordinator that was heard of in the last day, oldest first, and which of them answers.
///
/// # Errors
/// Those of the catalog.
pub async fn list(app: &App) -> Result<api::CoordinatorList, Fault> {
    let coordinators = app.catalog.coordinators().await?;
    Ok(api::CoordinatorList {
        coordinators: coordinators.iter().map(|record| encode(app, record)).collect(),
        answered_by: app.coordinator.to_string(),
        now_us: to_us(app.catalog.now().await?),
    })
}

/// Asks a coordinator to leave; the one that answers when none is named. It goes on leaving by itself, and ends.
///
/// # Errors
/// `not_found`, `ambiguous`; `not_now` for one that is gone.
pub async fn drain(app: &App, user: &str, text: &str) -> Result<api::Coordinator, Fault> {
    let own = app.coordinator.to_string();
    let found = names::coordinator(app, if text.is_empty() { &own } else { text }).await?;
    if !found.alive {
        return Err(Fault::new(ErrorCode::NotNow, format!("the coordinator {} is gone already", found.id))
            .with_hint("coordctl server members shows those that serve"));
    }
    if !app.catalog.ask_to_drain(found.id, user).await? {
        return Err(names::unknown_coordinator(text));
    }
    let subject = found.id.to_string();
    let details = serde_json::json!({});
    let deed = NewAudit {
        actor_kind: PeerKind::Operator,
        actor: user,
        action: "coordinator_drain_asked",
        subject: &subject,
        details,
    };
    app.catalog.record_audit(&deed).await?;
    tracing::info!(coordinator = subject, user, "asked to drain");
    if found.id == app.coordinator {
        app.draining.begin(&format!("{user} asked for it"));
    }
    let after = app.catalog.coordinators().await?;
    Ok(encode(app, after.iter().find(|record| record.id == found.id).unwrap_or(&found)))
}

/// What is known of one. Of this one, it is what is so now.
fn encode(app: &App, record: &CoordinatorRecord) -> api::Coordinator {
    let draining = record.draining_since.is_some()
        || record.drain_asked_by.is_some()
        || (record.id == app.coordinator && app.draining.is_begun());
    let state = match (record.alive, draining) {
        (false, _) => "gone",
        (true, true) => "draining",
        (true, false) => "serving",
    };
    let done = |ms: u64| to_us(record.last_beat_at).saturating_sub_unsigned(ms.saturating_mul(1000));
    api::Coordinator {
        id: record.id.to_string(),
        state: state.to_owned(),
        version: record.version.clone(),
        schema_version: record.schema,
        endpoints: record.endpoints.clone(),
        enrol_endpoints: record.enrol_endpoints.clone(),
        started_at_us: to_us(record.started_at),
        last_beat_at_us: to_us(record.last_beat_at),
        sessions: record.sessions,
        draining_since_us: optional_us(record.draining_since),
        drain_asked_by: record.drain_asked_by.clone().unwrap_or_default(),
        duties: record
            .duties
            .iter()
            .map(|(name, ms)| api::Duty { name: name.clone(), last_done_at_us: done(*ms) })
            .collect(),
    }
}

/// Where the coordinators are that serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Main listeners, without repetition.
    pub main: Vec<String>,
    /// Enrolment listeners, likewise.
    pub enrolment: Vec<String>,
}

/// Notes where the coordinators are now, for those that agents are told of.
///
/// # Errors
/// Those of the catalog.
pub async fn look_around(app: &App) -> Result<(), Fault> {
    let found = whereabouts(&app.catalog.coordinators().await?);
    if **app.whereabouts.load() != found {
        app.whereabouts.store(Arc::new(found));
    }
    Ok(())
}

fn whereabouts(coordinators: &[CoordinatorRecord]) -> Whereabouts {
    let mut found = Whereabouts::default();
    let leaves = |record: &CoordinatorRecord| record.draining_since.is_some() || record.drain_asked_by.is_some();
    for record in coordinators.iter().filter(|record| record.alive && !leaves(record)) {
        for (all, said) in [(&mut found.main, &record.endpoints), (&mut found.enrolment, &record.enrol_endpoints)] {
            for endpoint in said.iter().filter(|endpoint| !endpoint.is_empty()) {
                if !all.contains(endpoint) {
                    all.push(endpoint.clone());
                }
            }
        }
    }
    found
}
