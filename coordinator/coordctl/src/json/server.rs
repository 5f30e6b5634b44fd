//! JSON of coordinators.

use coord_shared::api;
use serde_json::{Value, json};

use super::{at, word};

/// One coordinator.
#[must_use]
pub fn coordinator(one: &api::Coordinator) -> Value {
    let duties: Value =
        one.duties.iter().map(|duty| json!({ "name": duty.name, "last_done_at": at(duty.last_done_at_us) })).collect();
    json!({
        "id": one.id,
        "state": one.state,
        "version": one.version,
        "schema_version": one.schema_version,
        "endpoints": one.endpoints,
        "enrol_endpoints": one.enrol_endpoints,
        "started_at": at(one.started_at_us),
        "last_beat_at": at(one.last_beat_at_us),
        "sessions": one.sessions,
        "draining_since": at(one.draining_since_us),
        "drain_asked_by": word(one.drain_asked_by.clone()),
        "duties": duties,
    })
}

/// Coordinators, and which of them answered.
#[must_use]
pub fn coordinators(list: &api::CoordinatorList) -> Value {
    json!({
        "coordinators": list.coordinators.iter().map(coordinator).collect::<Value>(),
        "answered_by": list.answered_by,
        "now": at(list.now_us),
    })
}
