//! Giving queued runs to the hosts that are connected here: claim, decide, order. The claim raises the attempt; the decision is stored
//! before the order leaves, with its inputs and the option not taken. An order that is lost on the way costs a lease, never a
//! second copy: the run is claimed again only after the lease lapsed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_shared::api::coordinator_message::Message;
use coord_shared::api::run_order::Task;
use coord_shared::api::{BackupTask, RunOrder, SelectionRules, VerifyTask};
use coord_shared::failpoint;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{Attempt, BackupId, HostId, PolicyVersion, RunId, SessionNumber};
use coord_shared::level::Level;
use coord_shared::run::{RunKind, RunState};
use coord_shared::telemetry::new_trace_id;
use futures_util::StreamExt;
use tokio::sync::Notify;

use super::backups::{is_damaged, location};
use super::decide::{History, decide_before_scan, history};
use super::jobs::leave_out;
use super::{App, pace, report, restore_task};
use crate::catalog::{Backup, Claimed, Job, RunRecord};
use crate::domain::policy::{Compression, Policy};

/// Runs claimed at once, over all hosts.
const MAX_CLAIMED: usize = 1000;
/// Orders made side by side: each asks the catalog for its job's history.
const MAX_GIVEN_AT_ONCE: usize = 6;
/// Orders made in one pass.
const MAX_GIVEN: usize = 100;
/// Attempts that wait for their orders have their leases extended after this part of one: what is claimed is this coordinator's word, and
/// it lives. When it does not, they lapse as orders do that were lost.
const KEPT_PART_OF_LEASE: u32 = 6;
/// Longest time that orders give way to runs that become due and are claimed.
const MAX_GIVING_WAY: Duration = Duration::from_secs(10);
/// Nothing more is claimed while so many attempts wait for their orders.
const MAX_UNORDERED: usize = 50_000;
/// Archives that one verification reads: the newest of the chain.
const MAX_VERIFIED: usize = 32;

/// Attempts that were claimed for sessions here and wait for their orders, oldest first; at most [`MAX_UNORDERED`] and one claim more. Those of
/// a coordinator that dies lapse, as lost orders do.
#[derive(Debug, Default)]
pub struct Unordered {
    line: Mutex<Line>,
    /// Wakes whoever makes the orders.
    pub arrived: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Claimed>,
    /// When the leases of those that wait were extended last, or the first of them was claimed.
    kept: Option<Instant>,
    /// Those that have left the line, and whose orders are being made.
    in_hand: Vec<(RunId, Attempt)>,
    /// Runs that are due and not inserted, or not claimed, wait for the next pass.
    scheduling: bool,
    claiming: bool,
    /// Since when either is so.
    behind: Option<Instant>,
}

/// What goes before orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sooner {
    /// Runs that are due become rows.
    Scheduling,
    /// Runs are leased.
    Claiming,
}

impl Unordered {
    fn locked<R>(&self, act: impl FnOnce(&mut Line) -> R) -> R {
        act(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, claimed: Vec<Claimed>) {
        self.locked(|line| {
            if line.waiting.is_empty() && line.in_hand.is_empty() {
                line.kept = Some(Instant::now());
            }
            line.waiting.extend(claimed);
        });
        self.arrived.notify_one();
    }

    fn take(&self, most: usize) -> Vec<Claimed> {
        self.locked(|line| {
            let taken: Vec<Claimed> = line.waiting.drain(..line.waiting.len().min(most)).collect();
            line.in_hand = taken.iter().map(key).collect();
            taken
        })
    }

    /// Notes whether a pass of this kind left some for the next. Orders, one by one, would take the database from passes that do hundreds at
    /// once: they give way, for [`MAX_GIVING_WAY`] at most.
    pub fn note(&self, what: Sooner, more: bool) {
        let goes_on = self.locked(|line| {
            match what {
                Sooner::Scheduling => line.scheduling = more,
                Sooner::Claiming => line.claiming = more,
            }
            let behind = line.scheduling || line.claiming;
            line.behind = behind.then(|| line.behind.unwrap_or_else(Instant::now));
            !behind && !line.waiting.is_empty()
        });
        if goes_on {
            self.arrived.notify_one();
        }
    }

    /// Whether orders give way now.
    fn gives_way(&self, most: Duration) -> bool {
        self.locked(|line| line.behind.is_some_and(|since| since.elapsed() < most))
    }

    /// What was taken and cannot be ordered at the moment is the next to be taken.
    fn put_back(&self, claimed: Vec<Claimed>) {
        self.locked(|line| claimed.into_iter().rev().for_each(|claimed| line.waiting.push_front(claimed)));
    }

    /// What was taken has its orders, is in the line again, or never will have any.
    fn given(&self) {
        self.locked(|line| line.in_hand.clear());
    }

    /// Whether nothing is claimed here whose order has not left.
    pub fn is_empty(&self) -> bool {
        self.locked(|line| line.waiting.is_empty() && line.in_hand.is_empty())
    }

    fn is_full(&self) -> bool {
        self.locked(|line| line.waiting.len() >= MAX_UNORDERED)
    }

    /// Those that wait or are in hand, when their leases have not been extended for so long.
    fn to_keep(&self, after: Duration) -> Vec<(RunId, Attempt)> {
        self.locked(|line| {
            if line.kept.is_some_and(|kept| kept.elapsed() < after) {
                return Vec::new();
            }
            line.kept = Some(Instant::now());
            line.in_hand.iter().copied().chain(line.waiting.iter().map(key)).collect()
        })
    }
}

const fn key(claimed: &Claimed) -> (RunId, Attempt) {
    (claimed.run, claimed.attempt)
}

/// One pass: claims what may begin on the hosts that are connected here. Answers whether more is waiting.
pub async fn dispatch_all(app: &App) -> Result<bool, Fault> {
    let lease = app.settings.lease();
    let waiting = app.unordered.to_keep(lease / KEPT_PART_OF_LEASE);
    if !waiting.is_empty() {
        app.duties.keep_leases(&waiting, lease).await?;
    }
    if app.unordered.is_full() {
        return Ok(false);
    }
    let sessions = app.sessions.all();
    if sessions.is_empty() {
        return Ok(false);
    }
    let numbers: Vec<(HostId, SessionNumber)> = sessions.iter().map(|session| (session.host, session.number)).collect();
    let claimed = app.duties.claim_runs(&numbers, lease, MAX_CLAIMED).await?;
    let more = claimed.len() >= MAX_CLAIMED;
    if !claimed.is_empty() {
        app.unordered.add(claimed);
    }
    app.unordered.note(Sooner::Claiming, more);
    Ok(more)
}

/// Makes and sends orders of what was claimed. Answers whether more is waiting.
pub async fn give_orders(app: &App) -> Result<bool, Fault> {
    if app.unordered.gives_way(MAX_GIVING_WAY) && !app.draining.is_begun() {
        return Ok(false);
    }
    let claimed = app.unordered.take(MAX_GIVEN);
    if claimed.is_empty() {
        return Ok(false);
    }
    let more = claimed.len() >= MAX_GIVEN;
    let mut outcomes = futures_util::stream::iter(claimed)
        .map(|claimed| async move { (claimed, give(app, claimed).await) })
        .buffer_unordered(MAX_GIVEN_AT_ONCE);
    // What is claimed is given even when another cannot be: else it would wait for its lease to lapse.
    let (mut outcome, mut again) = (Ok(more), Vec::new());
    while let Some((claimed, given)) = outcomes.next().await {
        let Err(fault) = given else { continue };
        // What takes too long may always do so: it lapses, as often as it has attempts.
        if fault.code == ErrorCode::Unavailable {
            again.push(claimed);
        }
        if let Err(fault) = leave_out(app, &format!("host {}", claimed.host), fault) {
            outcome = Err(fault);
        }
    }
    app.unordered.put_back(again);
    app.unordered.given();
    outcome
}

/// Orders a claimed attempt. One that cannot be ordered fails with the reason.
async fn give(app: &App, claimed: Claimed) -> Result<(), Fault> {
    // A host that went away says in its next Hello that it does not hold the attempt.
    let Some(session) = app.sessions.get(claimed.host) else { return Ok(()) };
    let run = app.catalog.run(claimed.run).await?;
    let run = run.ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("run {} is gone", claimed.run)))?;
    let held = matches!(run.machine.state, RunState::Leased | RunState::Running | RunState::Verifying);
    let made = if held && run.machine.attempt == claimed.attempt {
        order(app, &run, claimed.attempt).await
    } else {
        Err(stale())
    };
    let order = match made {
        Ok(order) => order,
        Err(fault) if fault.is_transient() => return Err(fault),
        // Its lease lapsed while it waited: it is queued again, or over, and nothing of it is to fail.
        Err(fault) if fault.code == ErrorCode::StaleAttempt => {
            tracing::info!(run = %run.id, attempt = %claimed.attempt, "was taken back before it was ordered");
            return Ok(());
        }
        Err(fault) => {
            tracing::warn!(run = %run.id, code = %fault.code, why = %fault.message, "cannot be ordered");
            return report::fail_unordered(app, &session, claimed, &fault).await;
        }
    };
    tracing::info!(run = %run.id, attempt = %claimed.attempt, kind = %run.kind, host = %run.host_name, "ordered");
    failpoint::reach("coordinator.order.decided");
    if session.send(Message::Run(order)).is_err() {
        tracing::warn!(run = %run.id, host = %run.host_name, "the host went away with its order; the lease will lapse");
    }
    failpoint::reach("coordinator.order.sent");
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
        pace: pace::of_runs(app, &app.catalog, &[run.id], app.catalog.now().await?).await?.remove(&run.id),
    })
}

fn stale() -> Fault {
    Fault::new(ErrorCode::StaleAttempt, "the attempt was replaced before it was ordered")
}

async fn backup_task(app: &App, run: &RunRecord, attempt: Attempt) -> Result<BackupTask, Fault> {
    let history = history(app, run).await?;
    let decision = decide_before_scan(app, run, attempt, &history).await?;
    let backup = BackupId::random();
    if !app.catalog.set_run_backup(run.id, attempt, backup).await? {
        return Err(stale());
    }
    let policy = &history.policy;
    let base = history.full.as_ref().filter(|_| decision.level == Level::Differential);
    let newest = base.and_then(|base| newest_state(base, &history));
    Ok(BackupTask {
        level: decision.level.to_api().into(),
        backup_id: backup.to_string(),
        compression: Some(compression(compression_of(policy, decision.level))),
        base: base.map(location),
        newest: newest.as_ref().and_then(|newest| newest.archive.map(location)),
        newest_backup_id: newest.map(|newest| newest.point.id.to_string()).unwrap_or_default(),
        asked_by_operator: history.asked == Some(Level::Full),
        ..task_of_job(app, &history.job, policy, history.version)
    })
}

/// What every backup of a job is told; its level, and what it stands on, are not yet in it.
pub(super) fn task_of_job(app: &App, job: &Job, policy: &Policy, version: PolicyVersion) -> BackupTask {
    BackupTask {
        policy_id: job.policy.to_string(),
        policy_name: job.policy_name.clone(),
        policy_version: version.get(),
        sources: policy.sources.iter().map(|source| source.clone().into_bytes()).collect(),
        exclude: policy.exclude.clone(),
        rules: Some(selection_rules(policy)),
        compression: Some(compression(policy.compression.differential)),
        full_compression: Some(compression(policy.compression.full)),
        ordinal_floor: job.last_ordinal.next().get(),
        verify_after: true,
        fleet: app.authority.fleet().to_owned(),
        host_name: job.host_name.clone(),
        ..BackupTask::default()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_counts_until_its_order_has_left() {
        let unordered = Unordered::default();
        assert!(unordered.is_empty());
        let claimed = || Claimed { run: RunId::random(), attempt: Attempt(1), host: HostId::random() };
        unordered.add(vec![claimed(), claimed()]);
        assert_eq!(unordered.take(1).len(), 1);
        assert_eq!(unordered.to_keep(Duration::ZERO).len(), 2, "the leases of both go on");
        unordered.given();
        assert_eq!(unordered.to_keep(Duration::ZERO).len(), 1);
        assert!(!unordered.is_empty(), "one waits");
        assert_eq!(unordered.take(1).len(), 1);
        assert!(!unordered.is_empty(), "one is in hand");
        unordered.given();
        assert!(unordered.is_empty());
    }

    #[test]
    fn what_cannot_be_ordered_at_the_moment_keeps_its_place_and_its_lease() {
        let unordered = Unordered::default();
        let all = [1, 2, 3].map(|attempt| Claimed {
            run: RunId::random(),
            attempt: Attempt(attempt),
            host: HostId::random(),
        });
        unordered.add(all.to_vec());
        let mut taken = unordered.take(2);
        unordered.put_back(taken.split_off(0));
        unordered.given();
        assert_eq!(unordered.to_keep(Duration::ZERO).len(), 3);
        assert_eq!(unordered.take(3), all);
        unordered.given();
        assert!(unordered.is_empty());
    }

    #[test]
    fn orders_give_way_while_runs_become_due_and_are_claimed_and_not_for_ever() {
        let (unordered, most) = (Unordered::default(), Duration::from_secs(60));
        assert!(!unordered.gives_way(most));
        unordered.note(Sooner::Scheduling, true);
        unordered.note(Sooner::Claiming, true);
        unordered.note(Sooner::Scheduling, false);
        assert!(unordered.gives_way(most), "some are not claimed");
        assert!(!unordered.gives_way(Duration::ZERO), "it was long enough");
        unordered.note(Sooner::Claiming, false);
        assert!(!unordered.gives_way(most));
    }

    #[test]
    fn leases_of_what_waits_for_its_order_are_extended_once_in_a_while() {
        let unordered = Unordered::default();
        let claimed = Claimed { run: RunId::random(), attempt: Attempt(2), host: HostId::random() };
        let (run, attempt) = (claimed.run, claimed.attempt);
        assert!(unordered.to_keep(Duration::ZERO).is_empty(), "nothing waits");
        unordered.add(vec![claimed]);
        assert!(unordered.to_keep(Duration::from_secs(10)).is_empty(), "it was claimed just now");
        assert_eq!(unordered.to_keep(Duration::ZERO), [(run, attempt)]);
        assert!(unordered.to_keep(Duration::from_secs(10)).is_empty(), "it was extended just now");
        unordered.take(1);
        assert_eq!(unordered.to_keep(Duration::ZERO), [(run, attempt)], "its order is being made");
        unordered.given();
        assert!(unordered.to_keep(Duration::ZERO).is_empty(), "its order has left");
    }
}
