//! What this host begins by itself while it is cut off: the backups of its plan, each once, and nothing else.
//!
//! Invariants: a planned run begins here only as attempt 1, only if no attempt of it was ever taken on, only while there has been no session
//! for a stated time, and only so long after it was due that a coordinator that comes back would have begun it. It is never tried again
//! here, is stopped when it takes longer than the plan allows, and stands on this host's own newest full. Not here: cron lines, windows, pauses, the choice of levels: the coordinator
//! made the plan from them.

use std::collections::BTreeSet;
use std::time::Duration;

use coord_shared::api;
use coord_shared::api::run_order::Task;
use coord_shared::api::run_report;
use coord_shared::duration;
use coord_shared::fault::{ErrorCode, Fault};
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Engine, MAX_HELD_ATTEMPTS};
use crate::engine::HostClock;
use crate::engine::work::backup_task;
use crate::journal::{AttemptKey, BegunFromPlan, Body, HeldAttempt, Memory};
use crate::plan::PlanFile;
use crate::printable::printable;

const NO_FULL: &str =
    "this host, cut off, has no verified full of its own to stand on: a full instead of the planned differential";

/// What is known of being cut off.
pub(super) struct Alone {
    plan: PlanFile,
    after: Duration,
    /// Since when there is no session, by the two clocks.
    since: Option<(Instant, Timestamp)>,
    /// Planned runs that do not begin here any more, by id.
    passed: BTreeSet<String>,
    /// It was said that the plan is too old.
    has_told: bool,
}

impl Alone {
    /// A process begins without a session. The clock is as wrong as it was when the plan came.
    pub(super) fn new(plan: PlanFile, after: Duration, clock: &HostClock) -> Alone {
        if let Some(kept) = plan.kept() {
            clock.remember(kept.clock_offset_us);
        }
        let since = Some((Instant::now(), clock.corrected_now()));
        Alone { plan, after, since, passed: BTreeSet::new(), has_told: false }
    }

    /// There is a session.
    pub(super) fn connected(&mut self) {
        self.since = None;
    }

    /// There is none any more, or still none.
    pub(super) fn cut_off(&mut self, clock: &HostClock) {
        self.since.get_or_insert_with(|| (Instant::now(), clock.corrected_now()));
    }

    /// The coordinator sent a plan.
    pub(super) fn take(&mut self, plan: api::Plan, clock: &HostClock) {
        tracing::info!(jobs = plan.jobs.len(), runs = plan.runs.len(), "took the plan for the time of being cut off");
        (self.passed, self.has_told) = (BTreeSet::new(), false);
        if let Err(error) = self.plan.put(plan, clock.offset_us()) {
            tracing::warn!(error = %crate::chain::chain(&error), "the plan is forgotten at the next start of the agent");
        }
    }

    /// What is due of the plan, each run with the task of its job; nothing while this host is not cut off, or has no plan that holds.
    fn due(&mut self, now: Timestamp) -> Option<(Look, Vec<Due>)> {
        let (since, at) = self.since?;
        if since.elapsed() < self.after {
            return None;
        }
        let plan = self.plan.kept()?.plan.as_ref()?;
        if plan.valid_until_us <= now.as_microsecond() {
            if !std::mem::replace(&mut self.has_told, true) {
                tracing::warn!("the plan is too old: nothing begins here until there is a coordinator again");
            }
            return None;
        }
        let look = Look {
            now_us: now.as_microsecond(),
            since_us: at.as_microsecond(),
            plan_made_at_us: plan.made_at_us,
            after: self.after,
        };
        let due = plan.runs.iter().filter(|run| run.due_at_us <= look.now_us && !self.passed.contains(&run.run_id));
        let task_of = |run: &api::PlannedRun| {
            plan.jobs.iter().filter_map(|job| job.task.as_ref()).find(|task| task.policy_id == run.policy_id)
        };
        Some((look, due.map(|run| (run.clone(), task_of(run).cloned())).collect()))
    }
}

/// A planned run and the task of its job.
type Due = (api::PlannedRun, Option<api::BackupTask>);

/// One look at the plan.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Now, by the corrected clock.
    now_us: i64,
    /// When the last session ended.
    since_us: i64,
    /// When the coordinator made the plan.
    plan_made_at_us: i64,
    /// How long a coordinator that comes back has precedence.
    after: Duration,
}

/// What becomes of a planned run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Its time has not come.
    Waits,
    /// It begins.
    Begins,
    /// It was begun before, or its time is over.
    Done,
    /// It does not begin here, for this reason.
    Never(&'static str),
}

impl Look {
    fn at(self, run: &api::PlannedRun, job: Option<&api::BackupTask>, memory: &Memory) -> Verdict {
        if run.due_at_us > self.now_us {
            return Verdict::Waits;
        }
        if run.begin_before_us <= self.now_us || memory.has_taken(&run.run_id) {
            return Verdict::Done;
        }
        // A run that has to begin soon waits for half of that time at most.
        let room = run.begin_before_us.saturating_sub(run.due_at_us) / 2;
        let wait = i64::try_from(self.after.as_micros()).unwrap_or(i64::MAX).min(room);
        if self.now_us.saturating_sub(run.due_at_us) < wait {
            return Verdict::Waits;
        }
        let Some(job) = job.filter(|_| run.kind() == api::RunKind::Backup) else {
            return Verdict::Never("the plan does not say how, or this version of the agent does not know how");
        };
        let is_open = memory.attempts().values().any(|held| {
            held.finished.is_none() && backup_task(&held.order).is_some_and(|task| task.policy_id == job.policy_id)
        });
        if is_open {
            return Verdict::Never("another run of the same job is open");
        }
        if memory.attempts().len() >= MAX_HELD_ATTEMPTS {
            return Verdict::Never("too many runs wait for the coordinator to hear of them");
        }
        Verdict::Begins
    }
}

/// The task of a planned run, standing on what this host has, and why it has its level.
fn own_task(run: &api::PlannedRun, job: &api::BackupTask, memory: &Memory) -> (api::BackupTask, String) {
    let mine = memory.backups().values().filter(|backup| backup.policy_id == job.policy_id);
    let mine: Vec<(u64, &api::ArchiveLocation)> =
        mine.filter_map(|backup| Some((backup.ordinal, backup.location.as_ref()?))).collect();
    // A full that the coordinator knew and does not name is damaged, or of another selection.
    let planned = job.base.as_ref();
    let serves = |(ordinal, full): &&(u64, &api::ArchiveLocation)| {
        full.level() == api::Level::Full
            && (*ordinal >= job.ordinal_floor || planned.is_some_and(|base| base.backup_id == full.backup_id))
    };
    let own = mine.iter().filter(serves).max_by_key(|(ordinal, _)| *ordinal).copied();
    let base = own.map(|(_, full)| full).or(planned).filter(|_| run.level() == api::Level::Differential);
    let task = api::BackupTask {
        backup_id: Uuid::new_v4().to_string(),
        newest: None,
        newest_backup_id: String::new(),
        ..job.clone()
    };
    let Some(base) = base else {
        let task = api::BackupTask {
            level: api::Level::Full.into(),
            base: None,
            compression: job.full_compression.or(job.compression),
            ..task
        };
        let asked = run.level() == api::Level::Full;
        return (task, if asked { run.reason.clone() } else { NO_FULL.to_owned() });
    };
    let after = own.map_or(0, |(ordinal, _)| ordinal);
    let newest =
        mine.iter().filter(|(ordinal, archive)| *ordinal > after && archive.level() == api::Level::Differential);
    let newest = newest.max_by_key(|(ordinal, _)| *ordinal).map(|(_, archive)| (*archive).clone());
    let newest_backup_id = newest.as_ref().unwrap_or(base).backup_id.clone();
    let level = api::Level::Differential.into();
    (api::BackupTask { level, base: Some(base.clone()), newest, newest_backup_id, ..task }, run.reason.clone())
}

/// Until when a run that this host began by itself may go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    at: Instant,
    most_s: u32,
}

/// The most that an attempt may take, and how much of it is left. `None`: there is no limit, or it has not started yet, or a coordinator
/// has heard that it has, and stops it.
fn left(held: &HeldAttempt, now: Timestamp) -> Option<(u32, Duration)> {
    let most_s = held.from_plan.as_ref()?.how?.max_duration_s;
    let started_at_us = held.unacknowledged.values().find_map(|report| match &report.event {
        Some(run_report::Event::Started(started)) => Some(started.started_at_us),
        Some(
            run_report::Event::Scanned(_)
            | run_report::Event::Sealed(_)
            | run_report::Event::Finished(_)
            | run_report::Event::Warnings(_),
        )
        | None => None,
    })?;
    let took = u64::try_from(now.as_microsecond().saturating_sub(started_at_us)).unwrap_or(0);
    let left = Duration::from_secs(most_s.into()).saturating_sub(Duration::from_micros(took));
    (most_s > 0).then_some((most_s, left))
}

impl Engine {
    /// Until when an attempt may go on, if that is for this host to know.
    pub(super) fn limit(&self, key: &AttemptKey) -> Option<Limit> {
        let (most_s, left) = left(self.journal.memory().attempt(key)?, self.clock.now())?;
        Some(Limit { at: Instant::now() + left, most_s })
    }

    /// Stops what takes longer than it may.
    pub(super) fn stop_overdue(&mut self) {
        let now = Instant::now();
        for (key, running) in &mut self.running {
            let Some(limit) = running.limit.take_if(|limit| limit.at <= now) else { continue };
            let most = duration::shown(limit.most_s);
            tracing::warn!(run = %key, %most, "stopping a run of the plan that takes too long");
            let why = format!("it took longer than {most}, the most that its policy allows");
            let hint = "coordctl policy show tells the policy's limits (schedule)";
            running.control.stop_for(Fault::new(ErrorCode::TimedOut, why).with_hint(hint));
        }
    }

    /// Begins what is due, when this host is cut off.
    pub(super) fn begin_planned(&mut self) {
        let now = self.clock.corrected_now();
        let Some((look, due)) = self.alone.due(now) else { return };
        for (run, job) in due {
            match (look.at(&run, job.as_ref(), self.journal.memory()), job) {
                (Verdict::Waits, _) => continue,
                (Verdict::Begins, Some(job)) => self.begin(&run, &job, look),
                (Verdict::Begins, None) | (Verdict::Done, _) => {}
                (Verdict::Never(why), _) => {
                    tracing::warn!(run = %printable(&run.run_id), %why, "a planned run does not begin");
                }
            }
            self.alone.passed.insert(run.run_id);
        }
    }

    fn begin(&mut self, run: &api::PlannedRun, job: &api::BackupTask, look: Look) {
        let (task, level_reason) = own_task(run, job, self.journal.memory());
        let key = AttemptKey::new(&run.run_id, 1);
        let order = api::RunOrder {
            run_id: run.run_id.clone(),
            attempt: key.attempt,
            trace_parent: String::new(),
            task: Some(Task::Backup(task)),
            pace: run.pace,
        };
        let how = api::FromPlan {
            started_at_us: look.now_us,
            cut_off_since_us: look.since_us,
            plan_made_at_us: look.plan_made_at_us,
            clock_offset_us: self.clock.offset_us(),
            max_duration_s: run.max_duration_s,
        };
        let begun = BegunFromPlan { run_id: key.run_id.clone(), attempt: key.attempt, how: Some(how), level_reason };
        // Before anything is done: a process that comes after this one must not begin it again.
        if let Err(error) = self.journal.append_all(vec![Body::Accepted(order.clone()), Body::FromPlan(begun)]) {
            tracing::warn!(run = %key, error = %crate::chain::chain(&error), "a planned run does not begin: the journal cannot be written");
            return;
        }
        tracing::info!(run = %key, policy = %printable(&job.policy_name), "cut off: began a run of the plan");
        self.start(key, order, None);
    }
}

#[cfg(test)]
mod tests;
