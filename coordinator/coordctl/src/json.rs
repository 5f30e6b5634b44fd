//! The JSON that scripts read: one function a message. Fields are only ever added; words of enums may grow.
//!
//! Instants are RFC 3339 in UTC (`null` when not set), sizes end in `_bytes` or are counts, digests are hexadecimal. A path is text; when it
//! is not UTF-8, its bytes are escaped there and `path_hex` has them exactly.

use coord_shared::left_out::LeftOutBy;
use coord_shared::{api, hex, wire};
use serde_json::{Value, json};

use crate::shown;

mod catalog;
mod fleet;
mod server;

pub use catalog::{
    backup, backups, catalog_rebuild, catalog_status, change, diff_totals, file, path_versions, plan, point,
};
pub use fleet::{
    all_applied, applied, dedup, defaults, explanation, history, host, hosts, job, jobs, limit, limits, lint,
    objectives, pause, policies, policy, preview, schedule, status, token, tokens, user, users, version, what_if,
};
pub use server::{coordinator, coordinators};

/// An instant, or null.
fn at(us: i64) -> Value {
    wire::from_us(us).map_or(Value::Null, |instant| json!(instant.to_string()))
}

/// A digest, or null.
fn digest(bytes: &[u8]) -> Value {
    if bytes.is_empty() { Value::Null } else { json!(hex::encode(bytes)) }
}

/// A word, or null for "not said".
fn word(text: String) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

/// Adds a path under `name`, and its bytes where they are not text.
fn with_path(mut object: Value, name: &str, bytes: &[u8]) -> Value {
    let text = std::str::from_utf8(bytes);
    if let Value::Object(map) = &mut object {
        map.insert(name.to_owned(), json!(text.map_or_else(|_| shown::path(bytes), str::to_owned)));
        if text.is_err() {
            map.insert(format!("{name}_hex"), json!(hex::encode(bytes)));
        }
    }
    object
}

fn checks(list: &[api::Check]) -> Value {
    list.iter().map(|c| json!({ "name": c.name, "passed": c.passed, "detail": c.detail })).collect()
}

fn fault(fault: Option<&api::Fault>) -> Value {
    fault.map_or(Value::Null, |f| json!({ "code": f.code, "message": f.message, "hint": f.hint, "trace": f.trace_id }))
}

/// One run.
#[must_use]
pub fn run(run: &api::Run) -> Value {
    let progress = run.progress.as_ref().map_or(Value::Null, |p| {
        json!({
            "phase": word(shown::phase(p.phase)),
            "files_done": p.files_done,
            "files_total": p.files_total,
            "bytes_done": p.bytes_done,
            "bytes_total": p.bytes_total,
        })
    });
    let restore = run.restore.as_ref().map_or(Value::Null, |r| {
        json!({
            "restored": r.restored,
            "equal": r.equal,
            "left_different": r.left_different,
            "removed": r.removed,
            "bytes": r.bytes,
            "verified": r.verified,
            "damaged": r.damaged,
            "not_settable": r.not_settable,
            "stale": r.stale,
            "unread": r.unread,
            "restore_ms": r.restore_ms,
        })
    });
    json!({
        "id": run.id,
        "kind": word(shown::kind(run.kind)),
        "state": word(shown::state(run.state)),
        "host": run.host,
        "policy": word(run.policy.clone()),
        "attempt": run.attempt,
        "max_attempts": run.max_attempts,
        "due_at": at(run.due_at_us),
        "started_at": at(run.started_at_us),
        "ended_at": at(run.ended_at_us),
        "not_before": at(run.not_before_us),
        "waits_for": word(run.waits_for.clone()),
        "cancelling": run.cancelling,
        "level": word(shown::level(run.level)),
        "reason": run.reason,
        "progress": progress,
        "fault": fault(run.fault.as_ref()),
        "warnings_total": run.warnings_total,
        "backup_id": word(run.backup_id.clone()),
        "checks": checks(&run.checks),
        "restore": restore,
        "asked_by": run.asked_by,
        "attempts": run.attempts.iter().map(attempt).collect::<Value>(),
        "spent": run.spent.iter().map(|x| json!({ "stage": x.stage, "ms": x.ms })).collect::<Value>(),
        "limited_by": word(run.limited_by.clone()),
        "left_out": left_out(&run.left_out),
        "makes_up_for": run.makes_up_for.as_ref().map_or(Value::Null, |missed| {
            json!({ "due_at": at(missed.due_at_us), "why": missed.why })
        }),
        "from_plan": run.from_plan.as_ref().map_or(Value::Null, from_plan),
    })
}

fn attempt(attempt: &api::Attempt) -> Value {
    json!({
        "number": attempt.number,
        "leased_at": at(attempt.leased_at_us),
        "ended_at": at(attempt.ended_at_us),
        "outcome": word(attempt.outcome.clone()),
        "fault": fault(attempt.fault.as_ref()),
    })
}

fn from_plan(how: &api::FromPlan) -> Value {
    json!({
        "started_at": at(how.started_at_us),
        "cut_off_since": at(how.cut_off_since_us),
        "plan_made_at": at(how.plan_made_at_us),
        "clock_offset_us": how.clock_offset_us,
    })
}

/// What each rule left out. A folder counts once: what is in it was not looked at.
#[must_use]
pub fn left_out(list: &[api::LeftOut]) -> Value {
    let rule = |x: &api::LeftOut| {
        let by = LeftOutBy::from_api(x.by()).map_or("", LeftOutBy::as_str);
        json!({ "rule": word(by.to_owned()), "detail": word(x.text.clone()), "files": x.files, "folders": x.folders, "bytes": x.bytes })
    };
    list.iter().map(rule).collect()
}

/// Runs.
#[must_use]
pub fn runs(list: &[api::Run]) -> Value {
    json!({ "runs": list.iter().map(run).collect::<Value>() })
}

/// An event of a run.
#[must_use]
pub fn run_event(event: &api::RunEvent) -> Value {
    json!({
        "number": event.number,
        "at": at(event.at_us),
        "attempt": event.attempt,
        "kind": event.kind,
        "detail": event.detail,
    })
}

/// What happened to a run.
#[must_use]
pub fn run_events(list: &api::RunEventList) -> Value {
    json!({ "events": list.events.iter().map(run_event).collect::<Value>() })
}

/// A run's warnings.
#[must_use]
pub fn warnings(warnings: &api::RunWarnings) -> Value {
    let notes: Value = warnings
        .notes
        .iter()
        .map(|note| with_path(json!({ "kind": note.kind, "detail": note.detail }), "path", &note.path))
        .collect();
    json!({ "total": warnings.total, "warnings": notes })
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use super::{run, with_path};
    use coord_shared::api;
    use serde_json::json;

    #[test]
    fn a_name_that_is_no_text_keeps_its_bytes() {
        assert_eq!(with_path(json!({}), "path", b"etc/hosts"), json!({ "path": "etc/hosts" }));
        assert_eq!(with_path(json!({}), "path", b"a\xff"), json!({ "path": "a\\xff", "path_hex": "61ff" }));
    }

    #[test]
    fn a_run_says_null_for_what_is_not_known_yet() {
        let value = run(&api::Run { id: "r".into(), state: 1, kind: 1, due_at_us: 1_000_000, ..api::Run::default() });
        assert_eq!(value["state"], "queued");
        assert_eq!(value["due_at"], "1970-01-01T00:00:01Z");
        assert!(value["ended_at"].is_null() && value["level"].is_null() && value["fault"].is_null());
    }
}
