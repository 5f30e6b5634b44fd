//! JSON of hosts, policies, jobs, tokens, decisions and the fleet's state.

use coord_shared::api;
use serde_json::{Value, json};

use super::{at, backup, left_out, run, with_path, word};
use crate::command::preview::Found;
use crate::shown;

/// The coordinator's version.
#[must_use]
pub fn version(v: &api::VersionInfo) -> Value {
    json!({
        "coordctl": env!("CARGO_PKG_VERSION"),
        "coordinator": v.version,
        "fleet": v.fleet,
        "coordinator_id": v.coordinator_id,
        "database": v.database,
        "schema_version": v.schema_version,
    })
}

/// The fleet's state.
#[must_use]
pub fn status(s: &api::FleetStatus) -> Value {
    let troubles: Value = s
        .troubles
        .iter()
        .map(|t| json!({ "host": t.host, "policy": word(t.policy.clone()), "what": t.what, "hint": t.hint, "since": at(t.since_us) }))
        .collect();
    json!({
        "hosts": s.hosts,
        "hosts_connected": s.hosts_connected,
        "jobs": s.jobs,
        "jobs_protected": s.jobs_protected,
        "runs_open": s.runs_open,
        "runs_failed_24h": s.runs_failed_24h,
        "backups": s.backups,
        "stored_bytes": s.stored_bytes,
        "not_searchable": s.not_searchable,
        "local_only_hosts": s.local_only_hosts,
        "next_due_at": at(s.next_due_at_us),
        "now": at(s.now_us),
        "troubles": troubles,
        "pauses": pauses(&s.pauses),
    })
}

/// Decisions with their options; `inputs` is what the engine saw.
#[must_use]
pub fn explanation(e: &api::Explanation) -> Value {
    let decisions: Value = e
        .decisions
        .iter()
        .map(|d| {
            let options: Value = d
                .options
                .iter()
                .map(|o| {
                    json!({
                        "level": word(shown::level(o.level)),
                        "taken": o.taken,
                        "predicted_bytes": o.predicted_bytes,
                        "why": o.why,
                        "predicted_ms": o.predicted_ms,
                        "predicted_restore_ms": o.predicted_restore_ms,
                    })
                })
                .collect();
            json!({
                "run_id": d.run_id,
                "host": d.host,
                "policy": d.policy,
                "stage": d.stage,
                "level": word(shown::level(d.level)),
                "rule": d.rule,
                "reason": d.reason,
                "decided_at": at(d.decided_at_us),
                "inputs": serde_json::from_str::<Value>(&d.inputs_json).unwrap_or(Value::Null),
                "options": options,
                "estimate_bytes": d.estimate_bytes,
                "exact_bytes": d.exact_bytes,
            })
        })
        .collect();
    json!({ "decisions": decisions })
}

/// The due runs ahead. What is not known is null.
#[must_use]
pub fn schedule(s: &api::Schedule) -> Value {
    let night = |n: &api::Night| {
        json!({
            "date": n.date,
            "fulls": n.fulls,
            "full_bytes": n.full_bytes,
            "differentials": n.differentials,
            "differential_bytes": n.differential_bytes,
            "ms": n.ms,
            "held": n.held,
        })
    };
    let run = |r: &api::DueRun| {
        json!({
            "name": format!("{}/{}", r.host, r.policy),
            "host": r.host,
            "policy": r.policy,
            "due_at": at(r.due_at_us),
            "night": r.night,
            "level": word(shown::level(r.level)),
            "rule": word(r.rule.clone()),
            "reason": r.reason,
            "predicted_bytes": r.predicted_bytes,
            "predicted_ms": r.predicted_ms,
            "held": word(r.held.clone()),
            "makes_up": r.makes_up,
        })
    };
    json!({
        "now": at(s.now_us),
        "nights": s.nights.iter().map(night).collect::<Value>(),
        "runs": s.runs.iter().map(run).collect::<Value>(),
        "runs_left_out": s.runs_left_out,
        "levelled": {
            "jobs": s.levelled_jobs,
            "bound_bytes": s.levelled_bound_bytes,
            "within_bound": s.levelled_within_bound,
        },
    })
}

/// A past as it was, and as it would have been.
#[must_use]
pub fn what_if(report: &api::WhatIfReport) -> Value {
    let totals = |totals: Option<&api::ReplayTotals>| {
        totals.map_or(Value::Null, |t| {
            json!({
                "runs": t.runs,
                "fulls": t.fulls,
                "stored_bytes": t.stored_bytes,
                "ms": t.ms,
                "busiest_ms": t.busiest_ms,
                "busiest_night": word(t.busiest_night.clone()),
                "longest_restore_ms": t.longest_restore_ms,
                "estimated": t.estimated,
            })
        })
    };
    let change = |c: &api::LevelChange| {
        json!({
            "at": at(c.at_us),
            "was": word(shown::level(c.was)),
            "would_be": word(shown::level(c.would_be)),
            "rule": c.rule,
            "reason": c.reason,
        })
    };
    let job = |j: &api::WhatIfOfJob| {
        json!({
            "name": format!("{}/{}", j.host, j.policy),
            "host": j.host,
            "policy": j.policy,
            "was": totals(j.was.as_ref()),
            "would_be": totals(j.would_be.as_ref()),
            "levels_changed": j.levels_changed,
            "changes": j.changes.iter().map(change).collect::<Value>(),
        })
    };
    json!({
        "since": at(report.since_us),
        "until": at(report.until_us),
        "jobs": report.jobs.iter().map(job).collect::<Value>(),
        "was": totals(report.was.as_ref()),
        "would_be": totals(report.would_be.as_ref()),
        "notes": report.notes,
    })
}

/// What there is more than once.
#[must_use]
pub fn dedup(report: &api::DedupReport) -> Value {
    let figures = |figures: Option<api::Duplication>| {
        let api::Duplication { files, bytes, contents, unique_bytes } = figures.unwrap_or_default();
        let duplicate_bytes = bytes.saturating_sub(unique_bytes);
        json!({
            "files": files,
            "bytes": bytes,
            "contents": contents,
            "unique_bytes": unique_bytes,
            "duplicate_bytes": duplicate_bytes,
        })
    };
    let hosts: Value =
        report.hosts.iter().map(|host| json!({ "host": host.host, "figures": figures(host.figures) })).collect();
    json!({ "hosts": hosts, "overall": figures(report.overall) })
}

/// Where each job stands with what its policy promises. A promise that is not stated is null.
#[must_use]
pub fn objectives(report: &api::ObjectivesReport) -> Value {
    let stated = |seconds: u32| if seconds == 0 { Value::Null } else { json!(seconds) };
    let job = |j: &api::ObjectivesOfJob| {
        json!({
            "name": format!("{}/{}", j.host, j.policy),
            "host": j.host,
            "policy": j.policy,
            "rpo_s": stated(j.rpo_s),
            "rpo": j.rpo,
            "newest_backup_id": word(j.newest_backup_id.clone()),
            "newest_captured_at": at(j.newest_captured_at_us),
            "age_s": if j.newest_backup_id.is_empty() { Value::Null } else { json!(j.age_s) },
            "rto_s": stated(j.rto_s),
            "rto": j.rto,
            "restore_bytes": j.restore_bytes,
            "predicted_restore_ms": j.predicted_restore_ms,
            "basis": word(j.basis.clone()),
        })
    };
    json!({ "jobs": report.jobs.iter().map(job).collect::<Value>(), "now": at(report.now_us) })
}

/// One token; never its secret.
#[must_use]
pub fn token(t: &api::Token) -> Value {
    json!({
        "id": t.id,
        "kind": t.kind,
        "uses_left": t.uses_left,
        "expires_at": at(t.expires_at_us),
        "created_at": at(t.created_at_us),
        "created_by": t.created_by,
        "labels": t.labels,
        "state": t.state,
    })
}

/// Tokens.
#[must_use]
pub fn tokens(list: &[api::Token]) -> Value {
    json!({ "tokens": list.iter().map(token).collect::<Value>() })
}

/// One limit.
#[must_use]
pub fn limit(x: &api::Limit) -> Value {
    json!({
        "name": x.name,
        "scope": x.scope,
        "selector": word(x.selector.clone()),
        "runs": x.runs,
        "running": x.running,
        "hosts": x.hosts,
        "changed_by": x.changed_by,
        "changed_at": at(x.changed_at_us),
    })
}

/// Limits.
#[must_use]
pub fn limits(list: &[api::Limit]) -> Value {
    json!({ "limits": list.iter().map(limit).collect::<Value>() })
}

/// One pause.
#[must_use]
pub fn pause(x: &api::Pause) -> Value {
    json!({
        "scope": x.scope,
        "host": word(x.host.clone()),
        "policy": word(x.policy.clone()),
        "since": at(x.since_us),
        "until": at(x.until_us),
        "reason": x.reason,
        "by": x.by,
    })
}

fn pauses(list: &[api::Pause]) -> Value {
    list.iter().map(pause).collect()
}

/// One user.
#[must_use]
pub fn user(u: &api::User) -> Value {
    json!({
        "name": u.name,
        "role": u.role,
        "state": u.state,
        "created_at": at(u.created_at_us),
        "certificate_not_after": at(u.certificate_not_after_us),
    })
}

/// Users.
#[must_use]
pub fn users(list: &[api::User]) -> Value {
    json!({ "users": list.iter().map(user).collect::<Value>() })
}

/// One host.
#[must_use]
pub fn host(h: &api::Host) -> Value {
    let object = json!({
        "id": h.id,
        "name": h.name,
        "labels": h.labels,
        "connected": h.connected,
        "last_seen_at": at(h.last_seen_at_us),
        "joined_at": at(h.joined_at_us),
        "hostname": h.hostname,
        "operating_system": h.operating_system,
        "version": h.version,
        "clock_offset_us": h.clock_offset_us,
        "policies": h.policies,
        "certificate_not_after": at(h.certificate_not_after_us),
        "state": h.state,
        "pauses": pauses(&h.pauses),
        "archive_store_id": word(h.archive_store_id.clone()),
    });
    with_path(object, "archive_folder", &h.archive_folder)
}

/// Hosts.
#[must_use]
pub fn hosts(list: &[api::Host]) -> Value {
    json!({ "hosts": list.iter().map(host).collect::<Value>() })
}

/// One policy.
#[must_use]
pub fn policy(p: &api::Policy) -> Value {
    json!({
        "id": p.id,
        "name": p.name,
        "version": p.version,
        "toml": p.toml,
        "applied_at": at(p.applied_at_us),
        "applied_by": p.applied_by,
        "hosts": p.hosts,
        "next_due_at": at(p.next_due_at_us),
        "state": p.state,
        "values": values(&p.values),
        "pauses": pauses(&p.pauses),
    })
}

fn values(list: &[api::PolicyValue]) -> Value {
    list.iter().map(|v| json!({ "key": v.key, "value": v.value, "from": v.from })).collect()
}

/// The fleet's defaults; version 0 while there are none.
#[must_use]
pub fn defaults(d: &api::PolicyDefaults) -> Value {
    json!({ "version": d.version, "toml": d.toml, "applied_at": at(d.applied_at_us), "applied_by": word(d.applied_by.clone()) })
}

/// Policies.
#[must_use]
pub fn policies(list: &[api::Policy]) -> Value {
    json!({ "policies": list.iter().map(policy).collect::<Value>() })
}

fn findings(list: &[api::PolicyFinding]) -> Value {
    list.iter().map(|f| json!({ "key": f.key, "message": f.message, "hint": f.hint })).collect()
}

/// What is wrong with a policy, and what it selects.
#[must_use]
pub fn lint(l: &api::PolicyLint) -> Value {
    json!({
        "name": l.name,
        "errors": findings(&l.errors),
        "warnings": findings(&l.warnings),
        "hosts": l.hosts,
        "next_due_at": l.next_due_at_us.iter().map(|us| at(*us)).collect::<Value>(),
    })
}

/// What applying a policy did or would do. A value that is not there is null.
#[must_use]
pub fn applied(a: &api::AppliedPolicy) -> Value {
    let leaving = |host: &api::LeavingHost| {
        json!({
            "host": host.host,
            "backups": host.backups,
            "stored_bytes": host.stored_bytes,
            "other_policies": host.other_policies,
        })
    };
    json!({
        "name": a.policy.as_ref().map_or(Value::Null, |policy| json!(policy.name)),
        "change": a.change,
        "policy": a.policy.as_ref().map_or(Value::Null, policy),
        "from_version": a.from_version,
        "keys": key_changes(&a.keys),
        "hosts_added": a.hosts_added,
        "hosts_removed": a.hosts_removed,
        "leaving": a.leaving.iter().map(leaving).collect::<Value>(),
        "weeks": a.weeks.iter().map(week).collect::<Value>(),
        "weeks_left_out": a.weeks_left_out,
        "warnings": findings(&a.warnings),
    })
}

fn week(w: &api::Week) -> Value {
    let runs = |runs: &[api::WeekRun]| {
        runs.iter()
            .map(|run| {
                let level = if run.held.is_empty() { shown::level(run.level) } else { String::new() };
                json!({ "due_at": at(run.due_at_us), "level": word(level), "held": word(run.held.clone()) })
            })
            .collect::<Value>()
    };
    json!({ "hosts": w.hosts, "now": runs(&w.now), "becomes": runs(&w.becomes) })
}

/// What applying many policies did or would do.
#[must_use]
pub fn all_applied(all: &api::AppliedPolicies) -> Value {
    let defaults = all.defaults.as_ref().map_or(Value::Null, |d| {
        json!({
            "from_version": d.from_version,
            "version": d.version,
            "change": d.change,
            "keys": key_changes(&d.keys),
        })
    });
    json!({
        "policies": all.policies.iter().map(applied).collect::<Value>(),
        "untouched": all.untouched,
        "defaults": defaults,
    })
}

fn key_changes(list: &[api::KeyChange]) -> Value {
    list.iter()
        .map(|c| json!({ "key": c.key, "was": word(c.was.clone()), "becomes": word(c.becomes.clone()) }))
        .collect()
}

/// The versions of a policy, newest first.
#[must_use]
pub fn history(h: &api::PolicyHistory) -> Value {
    let version = |v: &api::PolicyVersion| {
        json!({
            "version": v.version,
            "applied_at": at(v.applied_at_us),
            "applied_by": v.applied_by,
            "change": v.change,
            "equals": if v.equals == 0 { Value::Null } else { json!(v.equals) },
            "keys": key_changes(&v.keys),
            "toml": v.toml,
        })
    };
    json!({ "name": h.name, "versions": h.versions.iter().map(version).collect::<Value>() })
}

/// One job.
#[must_use]
pub fn job(j: &api::Job) -> Value {
    json!({
        "id": j.id,
        "name": format!("{}/{}", j.host, j.policy),
        "host": j.host,
        "policy": j.policy,
        "state": j.state,
        "newest": j.newest.as_ref().map_or(Value::Null, backup),
        "newest_full": j.newest_full.as_ref().map_or(Value::Null, backup),
        "next_due_at": at(j.next_due_at_us),
        "open_run": j.open_run.as_ref().map_or(Value::Null, run),
        "backups": j.backups,
        "stored_bytes": j.stored_bytes,
        "last_good_at": at(j.last_good_at_us),
        "chain_differentials": j.newest_full.as_ref().map_or(Value::Null, |_| json!(j.chain_differentials)),
        "ended_because": word(j.ended_because.clone()),
        "values": values(&j.values),
        "growth": j.growth.as_ref().map_or(Value::Null, |g| {
            json!({
                "differentials": g.differentials,
                "newest_bytes": g.newest_bytes,
                "largest_bytes": g.largest_bytes,
                "percent": g.percent,
            })
        }),
        "last_missed": j.last_missed.as_ref().map_or(Value::Null, run),
        "owed_runs": j.owed_runs,
        "owed_from": at(j.owed_from_us),
        "pauses": pauses(&j.pauses),
    })
}

/// Jobs.
#[must_use]
pub fn jobs(list: &[api::Job]) -> Value {
    json!({ "jobs": list.iter().map(job).collect::<Value>() })
}

/// What a policy would take of a host. `names` has the first `--limit`; `totals` counts all.
#[must_use]
pub fn preview(found: &Found) -> Value {
    let totals = &found.totals;
    let name = |name: &api::PreviewName| {
        with_path(json!({ "kind": name.kind, "size_bytes": name.size_bytes }), "path", &name.path)
    };
    let warning =
        |note: &api::PathNote| with_path(json!({ "kind": note.kind, "detail": note.detail }), "path", &note.path);
    json!({
        "host": found.host,
        "policy": found.policy,
        "selected": found.is_selected,
        "names": found.names.iter().map(name).collect::<Value>(),
        "totals": {
            "names": totals.files + totals.folders + totals.others,
            "files": totals.files,
            "folders": totals.folders,
            "others": totals.others,
            "bytes": totals.bytes,
        },
        "left_out": left_out(&totals.left_out),
        "warnings_total": totals.warnings_total,
        "warnings": totals.warnings.iter().map(warning).collect::<Value>(),
    })
}
