//! Giving queued runs to the hosts that are connected here: claim, decide, order. The claim raises the attempt; the decision is stored
//! before the order leaves, with its inputs and the option not taken. An order that is lost on the way costs a lease, never a
//! second copy: the run is claimed again only after the lease lapsed.

use std::collections::HashMap;

use coord_shared::api::coordinator_message::Message;
use coord_shared::api::run_order::Task;
use coord_shared::api::{BackupTask, RunOrder, SelectionRules, VerifyTask};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{Attempt, BackupId, HostId, SessionNumber};
use coord_shared::level::Level;
use coord_shared::run::RunKind;
use coord_shared::telemetry::new_trace_id;
use futures_util::StreamExt;

use super::backups::{is_damaged, location};
use super::decide::{History, decide_before_scan, history};
use super::jobs::leave_out;
use super::{App, pace, report, restore_task};
use crate::catalog::{Backup, Claimed, RunRecord};
use crate::domain::policy::{Compression, Policy};
use crate::sessions::Session;

/// Runs claimed at once, over all hosts.
const MAX_CLAIMED: usize = 256;
/// Orders made side by side: each asks the catalog for its job's history.
const MAX_GIVEN_AT_ONCE: usize = 6;
/// Archives that one verification reads: the newest of the chain.
const MAX_VERIFIED: usize = 32;

/// One pass: claims what may begin on the hosts that are connected here, and orders it. Answers whether more is waiting.
pub async fn dispatch_all(app: &App) -> Result<bool, Fault> {
    let sessions: HashMap<HostId, Session> =
        app.sessions.all().into_iter().map(|session| (session.host, session)).collect();
    if sessions.is_empty() {
        return Ok(false);
    }
    let numbers: Vec<(HostId, SessionNumber)> =
        sessions.values().map(|session| (session.host, session.number)).collect();
    let claimed = app.catalog.claim_runs(&numbers, app.settings.lease(), MAX_CLAIMED).await?;
    let more = claimed.len() >= MAX_CLAIMED;
    let given = claimed.into_iter().filter_map(|claimed| Some((sessions.get(&claimed.host)?.clone(), claimed)));
    let mut outcomes = futures_util::stream::iter(given)
        .map(|(session, claimed)| async move { (session.host, give(app, &session, claimed).await) })
        .buffer_unordered(MAX_GIVEN_AT_ONCE);
    // What is claimed is given even when another cannot be: else it would wait for its lease to lapse.
    let mut outcome = Ok(more);
    while let Some((host, given)) = outcomes.next().await {
        if let Err(fault) = given
            && let Err(fault) = leave_out(app, &format!("host {host}"), fault)
        {
            outcome = Err(fault);
        }
    }
    outcome
}

/// Orders a claimed attempt. One that cannot be ordered fails with the reason.
async fn give(app: &App, session: &Session, claimed: Claimed) -> Result<(), Fault> {
    let run = app.catalog.run(claimed.run).await?;
    let run = run.ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("run {} is gone", claimed.run)))?;
    let order = match order(app, &run, claimed.attempt).await {
        Ok(order) => order,
        Err(fault) if fault.is_transient() => return Err(fault),
        Err(fault) => {
            tracing::warn!(run = %run.id, code = %fault.code, why = %fault.message, "cannot be ordered");
            return report::fail_unordered(app, session, claimed, &fault).await;
        }
    };
    tracing::info!(run = %run.id, attempt = %claimed.attempt, kind = %run.kind, host = %run.host_name, "ordered");
    if session.send(Message::Run(order)).is_err() {
        tracing::warn!(run = %run.id, host = %run.host_name, "the host went away with its order; the lease will lapse");
    }
    Ok(())
}

async fn order(app: &App, run: &RunRecord, attempt: Attempt) -> Result<RunOrder, Fault> {
    let task = match run.kind {
        RunKind::Backup => Task::Backup(backup_task(app, run, attempt).await?),
        RunKind::Verify => Task::Verify(verify_task(app, run).await?),
        RunKind::Restore => Task::Restore(restore_task::build(app, run).await?),
    };
    let trace = new_trace_id();
    Ok(RunOrder {
        run_id: run.id.to_string(),
        attempt: attempt.get(),
        trace_parent: format!("00-{trace}-{}-01", trace.get(..16).unwrap_or_default()),
        task: Some(task),
        pace: pace::of_runs(app, &[run.id], app.catalog.now().await?).await?.remove(&run.id),
    })
}

async fn backup_task(app: &App, run: &RunRecord, attempt: Attempt) -> Result<BackupTask, Fault> {
    let history = history(app, run).await?;
    let decision = decide_before_scan(app, run, attempt, &history).await?;
    let backup = BackupId::random();
    if !app.catalog.set_run_backup(run.id, attempt, backup).await? {
        return Err(Fault::new(ErrorCode::StaleAttempt, "the attempt was replaced before it was ordered"));
    }
    let policy = &history.policy;
    let base = history.full.as_ref().filter(|_| decision.level == Level::Differential);
    let newest = base.and_then(|base| newest_state(base, &history));
    Ok(BackupTask {
        policy_id: history.job.policy.to_string(),
        policy_name: history.job.policy_name.clone(),
        policy_version: history.version.get(),
        level: decision.level.to_api().into(),
        backup_id: backup.to_string(),
        sources: policy.sources.iter().map(|source| source.clone().into_bytes()).collect(),
        exclude: policy.exclude.clone(),
        rules: Some(selection_rules(policy)),
        compression: Some(compression(compression_of(policy, decision.level))),
        full_compression: Some(compression(policy.compression.full)),
        base: base.map(location),
        newest: newest.as_ref().and_then(|newest| newest.archive.map(location)),
        newest_backup_id: newest.map(|newest| newest.point.id.to_string()).unwrap_or_default(),
        ordinal_floor: history.job.last_ordinal.next().get(),
        asked_by_operator: history.asked == Some(Level::Full),
        verify_after: true,
        fleet: app.authority.fleet().to_owned(),
        host_name: run.host_name.clone(),
    })
}

/// What a policy leaves out besides its patterns, as agents are told.
pub(super) fn selection_rules(policy: &Policy) -> SelectionRules {
    let rules = &policy.rules;
    SelectionRules {
        caches: rules.caches,
        if_present: rules.if_present.clone(),
        nodump: rules.nodump,
        one_file_system: rules.one_file_system,
        larger_than_bytes: rules.larger_than.unwrap_or(0),
    }
}

/// The newest state of a chain that can be compared with.
struct NewestState<'a> {
    /// The restore point that has this state.
    point: &'a Backup,
    /// The differential in which it is stored; none when the full itself is that state.
    archive: Option<&'a Backup>,
}

/// The chain's newest restore point whose archive is undamaged; at worst the full itself.
fn newest_state<'a>(full: &'a Backup, history: &'a History) -> Option<NewestState<'a>> {
    let mut state = NewestState { point: full, archive: None };
    for point in &history.chain {
        let owner = match point.same_as {
            Some(id) if id == full.id => None,
            Some(id) => Some(history.chain.iter().find(|candidate| candidate.id == id)?),
            None => Some(point),
        };
        if !is_damaged(point) && owner.is_none_or(|owner| !is_damaged(owner)) {
            state = NewestState { point, archive: owner };
        }
    }
    Some(state)
}

const fn compression_of(policy: &Policy, level: Level) -> Compression {
    match level {
        Level::Full => policy.compression.full,
        Level::Differential => policy.compression.differential,
    }
}

fn compression(compression: Compression) -> coord_shared::api::Compression {
    coord_shared::api::Compression { codec: compression.codec.to_api().into(), level: compression.level }
}

/// The archives of the newest chain: its full and its differentials, newest first after the full.
async fn verify_task(app: &App, run: &RunRecord) -> Result<VerifyTask, Fault> {
    let nothing = || Fault::new(ErrorCode::NothingToRestore, "there is no archive to verify");
    let job = run.job.ok_or_else(nothing)?;
    let newest = app.catalog.newest_backup(job).await?.ok_or_else(nothing)?;
    let full = newest.base.unwrap_or(newest.id);
    let full = app.catalog.backup(full).await?.ok_or_else(nothing)?;
    let chain = app.catalog.chain_of(full.id).await?;
    let own = chain.iter().filter(|backup| backup.same_as.is_none());
    let archives = std::iter::once(&full).chain(own).take(MAX_VERIFIED).map(location).collect();
    Ok(VerifyTask { archives })
}
