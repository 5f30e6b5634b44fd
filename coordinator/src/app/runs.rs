//! Runs as operators see them.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RunId;
use coord_shared::level::Level;
use coord_shared::run::{RunKind, RunState};
use coord_shared::wire::{from_us, optional_us, to_us};
use jiff::Timestamp;

use super::backups::checks;
use super::{App, hosts, last_read, names, waiting};
use crate::catalog::{
    AttemptRecord, FaultRecord, FromPlanRecord, LeftOutRecord, PhaseWord, ProgressRecord, RunFilter, RunRecord,
};
use crate::domain::bottleneck::{self, Stage};

/// Warnings answered when no number is asked for.
const DEFAULT_WARNINGS: u32 = 100;

/// Runs, newest due first.
///
/// # Errors
/// `not_found` for a host or policy that does not exist.
pub async fn list(app: &App, request: &api::ListRunsRequest) -> Result<api::RunList, Fault> {
    let mut filter = RunFilter {
        kind: RunKind::from_api(request.kind()),
        state: RunState::from_api(request.state()),
        since: from_us(request.since_us),
        until: from_us(request.until_us),
        limit: request.limit,
        ..RunFilter::default()
    };
    if !request.host.is_empty() {
        filter.host = Some(names::host(app, &request.host).await?.id);
    }
    filter.hosts = hosts::selected(app, &request.selector).await?;
    if !request.policy.is_empty() {
        filter.policy = Some(names::policy(app, &request.policy).await?.id);
    }
    let runs = app.catalog.runs(filter).await?;
    Ok(api::RunList { runs: runs.iter().map(encode).collect() })
}

/// One run with its attempts and checks.
///
/// # Errors
/// `not_found`, or `ambiguous` with the candidates.
pub async fn show(app: &App, text: &str) -> Result<api::Run, Fault> {
    let run = names::run(app, text).await?;
    Ok(api::Run { waits_for: waiting::for_what(app, &run).await?, ..whole(app, &run).await? })
}

/// The run behind what an operator typed.
///
/// # Errors
/// `not_found`, or `ambiguous` with the candidates.
pub async fn find(app: &App, text: &str) -> Result<RunRecord, Fault> {
    names::run(app, text).await
}

/// One run by its id.
///
/// # Errors
/// `not_found`.
pub async fn by_id(app: &App, id: RunId) -> Result<api::Run, Fault> {
    let run = app.catalog.run(id).await?;
    let run = run.ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("there is no run {id}")))?;
    whole(app, &run).await
}

/// Whether a run of the wire has ended.
pub fn has_ended(run: &api::Run) -> bool {
    RunState::from_api(run.state()).is_none_or(|state| !state.is_open())
}

/// The kept warnings of a run and how many there were; a restore's with the last backup that read what its own could not.
///
/// # Errors
/// `not_found`, or `ambiguous` with the candidates.
pub async fn warnings(app: &App, text: &str, limit: u32) -> Result<api::RunWarnings, Fault> {
    let run = names::run(app, text).await?;
    let limit = if limit == 0 { DEFAULT_WARNINGS } else { limit };
    let mut notes = app.catalog.run_warnings(run.id, limit).await?;
    last_read::complete(app, &run, &mut notes).await?;
    let notes =
        notes.into_iter().map(|note| api::PathNote { path: note.path, kind: note.kind, detail: note.detail }).collect();
    Ok(api::RunWarnings { notes, total: run.warnings_total })
}

async fn whole(app: &App, run: &RunRecord) -> Result<api::Run, Fault> {
    let attempts = app.catalog.attempts(run.id).await?;
    let backup = match (run.kind, run.backup) {
        (RunKind::Backup, Some(id)) => app.catalog.backup(id).await?,
        (RunKind::Backup | RunKind::Verify | RunKind::Restore, _) => None,
    };
    let mut encoded = encode(run);
    if let Some(backup) = backup {
        encoded.checks = checks(&backup.checks);
        let spent = bottleneck::spent(&backup.phases);
        encoded.limited_by = bottleneck::limited_by(&spent).map_or("", Stage::as_str).to_owned();
        encoded.spent = spent.iter().map(|x| api::Spent { stage: x.stage.as_str().to_owned(), ms: x.ms }).collect();
    }
    encoded.attempts = attempts.iter().map(attempt).collect();
    encoded.left_out = app.catalog.run_left_out(run.id).await?.into_iter().map(left_out).collect();
    Ok(encoded)
}

fn left_out(record: LeftOutRecord) -> api::LeftOut {
    let LeftOutRecord { by, detail, files, folders, bytes } = record;
    api::LeftOut { by: by.to_api().into(), text: detail, files, folders, bytes }
}

/// A run without its attempts. A backup's id is shown once the backup exists.
pub fn encode(run: &RunRecord) -> api::Run {
    let machine = run.machine;
    let waits = machine.state == RunState::Queued && machine.attempt.get() > 0;
    let committed = machine.state == RunState::Succeeded;
    api::Run {
        id: run.id.to_string(),
        kind: run.kind.to_api().into(),
        state: machine.state.to_api().into(),
        host: run.host_name.clone(),
        policy: run.policy_name.clone().unwrap_or_default(),
        attempt: machine.attempt.get(),
        max_attempts: machine.max_attempts,
        due_at_us: to_us(run.due_at),
        started_at_us: optional_us(run.started_at),
        ended_at_us: optional_us(run.ended_at),
        cancelling: machine.cancelling,
        level: run.level.map_or(api::Level::Unspecified, Level::to_api).into(),
        reason: run.reason.clone(),
        progress: run.progress.filter(|_| machine.state.is_open()).map(progress),
        fault: run.fault.as_ref().map(fault),
        warnings_total: run.warnings_total,
        backup_id: run.backup.filter(|_| committed).map(|id| id.to_string()).unwrap_or_default(),
        checks: run.result.as_ref().map(verify_checks).unwrap_or_default(),
        restore: run.result.as_ref().filter(|_| run.kind == RunKind::Restore).map(restore_result),
        asked_by: run.asked_by.clone(),
        attempts: Vec::new(),
        // Filled in where the backup is at hand.
        spent: Vec::new(),
        limited_by: String::new(),
        left_out: Vec::new(),
        was_there: false,
        waits_for: String::new(),
        not_before_us: if waits { to_us(run.run_after) } else { 0 },
        makes_up_for: makes_up_for(&run.spec),
        from_plan: from_plan(&run.spec),
    }
}

/// How its host began it by itself.
fn from_plan(spec: &serde_json::Value) -> Option<api::FromPlan> {
    let how: FromPlanRecord = serde_json::from_value(spec.get("from_plan")?.clone()).ok()?;
    Some(api::FromPlan {
        started_at_us: how.started_at_us,
        cut_off_since_us: how.cut_off_since_us,
        plan_made_at_us: how.plan_made_at_us,
        clock_offset_us: how.clock_offset_us,
        max_duration_s: how.max_duration_s.unwrap_or(0),
    })
}

/// The missed run that a run makes up for.
fn makes_up_for(spec: &serde_json::Value) -> Option<api::MakesUpFor> {
    let missed = spec.get("makes_up_for")?;
    let text = |name: &str| missed.get(name).and_then(serde_json::Value::as_str);
    let due_at: Timestamp = text("due_at")?.parse().ok()?;
    Some(api::MakesUpFor { due_at_us: to_us(due_at), why: text("why").unwrap_or_default().to_owned() })
}

fn attempt(record: &AttemptRecord) -> api::Attempt {
    api::Attempt {
        number: record.number.get(),
        leased_at_us: to_us(record.leased_at),
        ended_at_us: optional_us(record.ended_at),
        outcome: record.outcome.map(|outcome| outcome.as_str().to_owned()).unwrap_or_default(),
        fault: record.fault.as_ref().map(fault),
    }
}

fn fault(record: &FaultRecord) -> api::Fault {
    api::Fault {
        code: record.code.clone(),
        message: record.message.clone(),
        hint: record.hint.clone(),
        trace_id: String::new(),
    }
}

fn progress(record: ProgressRecord) -> api::Progress {
    let phase = match record.phase {
        PhaseWord::Unspecified => api::Phase::Unspecified,
        PhaseWord::Scanning => api::Phase::Scanning,
        PhaseWord::Deciding => api::Phase::Deciding,
        PhaseWord::Packing => api::Phase::Packing,
        PhaseWord::Sealing => api::Phase::Sealing,
        PhaseWord::Verifying => api::Phase::Verifying,
        PhaseWord::Restoring => api::Phase::Restoring,
        PhaseWord::Reporting => api::Phase::Reporting,
    };
    api::Progress {
        phase: phase.into(),
        files_done: record.files_done,
        files_total: record.files_total,
        bytes_done: record.bytes_done,
        bytes_total: record.bytes_total,
    }
}

/// The figures of a restore. What an older coordinator did not write is 0.
fn restore_result(result: &serde_json::Value) -> api::RestoreResult {
    let figure = |name: &str| result.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    api::RestoreResult {
        restored: figure("restored"),
        equal: figure("equal"),
        left_different: figure("left_different"),
        removed: figure("removed"),
        bytes: figure("bytes"),
        verified: figure("verified"),
        damaged: figure("damaged"),
        not_settable: figure("not_settable"),
        stale: figure("stale"),
        unread: figure("unread"),
        restore_ms: figure("restore_ms"),
    }
}

/// The checks of a verification, each named after the backup whose archive was read.
fn verify_checks(result: &serde_json::Value) -> Vec<api::Check> {
    let archives = result.get("archives").and_then(serde_json::Value::as_array);
    let mut all = Vec::new();
    for archive in archives.into_iter().flatten() {
        let backup: String =
            archive.get("backup_id").and_then(serde_json::Value::as_str).unwrap_or("").chars().take(8).collect();
        for check in archive.get("checks").and_then(serde_json::Value::as_array).into_iter().flatten() {
            let text = |name: &str| check.get(name).and_then(serde_json::Value::as_str).unwrap_or("").to_owned();
            all.push(api::Check {
                name: format!("{backup} {}", text("name")),
                passed: check.get("passed").and_then(serde_json::Value::as_bool).unwrap_or(false),
                detail: text("detail"),
            });
        }
    }
    all
}
