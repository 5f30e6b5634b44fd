//! What the journal says, added up. Pure: the same records give the same memory, in the daemon and after its crash.

use std::collections::{BTreeMap, VecDeque};

use coord_shared::api::{self, run_report};

use super::record::{Acknowledged, BegunFromPlan, Body, Closed, Record, RememberedBackup, Taken};

/// Backups that are remembered, so that an index can be sent again; the oldest whose index was sent go first.
const MAX_REMEMBERED_BACKUPS: usize = 2048;
/// Runs of which it is remembered that an attempt was taken on: many more than can be ordered between two plans.
const MAX_TAKEN_RUNS: usize = 4096;

/// One attempt of one run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    /// The run's id.
    pub run_id: String,
    /// The attempt's number.
    pub attempt: u32,
}

impl AttemptKey {
    /// The attempt that an order, report or answer names.
    pub fn new(run_id: &str, attempt: u32) -> AttemptKey {
        AttemptKey { run_id: run_id.to_owned(), attempt }
    }
}

impl std::fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.run_id, self.attempt)
    }
}

/// An attempt that both ends have not closed yet.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldAttempt {
    /// What was asked for.
    pub order: api::RunOrder,
    /// Highest sequence of a report made so far.
    pub sequence: u64,
    /// Reports that nobody acknowledged, by sequence.
    pub unacknowledged: BTreeMap<u64, api::RunReport>,
    /// The archive that is durable.
    pub sealed: Option<api::Sealed>,
    /// How it ended here, once it did.
    pub finished: Option<api::Finished>,
    /// Set when this host began it by itself.
    pub from_plan: Option<BegunFromPlan>,
}

/// Everything the agent has to remember.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    attempts: BTreeMap<AttemptKey, HeldAttempt>,
    /// The keys of `attempts` in the order in which they were taken on.
    order: Vec<AttemptKey>,
    taken: VecDeque<String>,
    ordinals: BTreeMap<String, u64>,
    backups: BTreeMap<String, RememberedBackup>,
}

impl Memory {
    /// Attempts that both ends have not closed.
    pub fn attempts(&self) -> &BTreeMap<AttemptKey, HeldAttempt> {
        &self.attempts
    }

    /// The same in the order in which they were taken on: that of the backups of each job.
    pub fn in_order(&self) -> impl Iterator<Item = (&AttemptKey, &HeldAttempt)> {
        self.order.iter().filter_map(|key| self.attempts.get_key_value(key))
    }

    /// Whether an attempt of this run was ever taken on, as far back as is remembered.
    pub fn has_taken(&self, run_id: &str) -> bool {
        self.taken.iter().any(|taken| taken == run_id)
    }

    /// A held attempt.
    pub fn attempt(&self, key: &AttemptKey) -> Option<&HeldAttempt> {
        self.attempts.get(key)
    }

    /// Highest ordinal of each policy.
    pub fn ordinals(&self) -> &BTreeMap<String, u64> {
        &self.ordinals
    }

    /// Backups made here, by id.
    pub fn backups(&self) -> &BTreeMap<String, RememberedBackup> {
        &self.backups
    }

    pub(super) fn apply(&mut self, record: &Record) {
        match &record.body {
            None => {}
            Some(Body::Accepted(order)) => self.accept(order),
            Some(Body::Reported(report)) => self.report(report),
            Some(Body::Acknowledged(Acknowledged { run_id, attempt, sequence })) => {
                if let Some(held) = self.attempts.get_mut(&AttemptKey::new(run_id, *attempt)) {
                    held.unacknowledged.remove(sequence);
                }
            }
            Some(Body::Closed(Closed { run_id, attempt })) => {
                let key = AttemptKey::new(run_id, *attempt);
                self.attempts.remove(&key);
                self.order.retain(|held| *held != key);
            }
            Some(Body::Ordinal(job)) => {
                let highest = self.ordinals.entry(job.policy_id.clone()).or_default();
                *highest = job.ordinal.max(*highest);
            }
            Some(Body::Backup(backup)) => self.remember(backup),
            Some(Body::Forgotten(forgotten)) if forgotten.archive_gone => {
                self.backups.remove(&forgotten.backup_id);
            }
            Some(Body::Forgotten(forgotten)) => {
                if let Some(backup) = self.backups.get_mut(&forgotten.backup_id) {
                    backup.index_unsent = false;
                }
            }
            Some(Body::FromPlan(begun)) => {
                if let Some(held) = self.attempts.get_mut(&AttemptKey::new(&begun.run_id, begun.attempt)) {
                    held.from_plan = Some(begun.clone());
                }
            }
            Some(Body::Taken(Taken { run_ids })) => run_ids.iter().for_each(|run| self.take(run)),
        }
    }

    fn accept(&mut self, order: &api::RunOrder) {
        self.take(&order.run_id);
        let key = AttemptKey::new(&order.run_id, order.attempt);
        if self.attempts.contains_key(&key) {
            return;
        }
        let held = HeldAttempt {
            order: order.clone(),
            sequence: 0,
            unacknowledged: BTreeMap::new(),
            sealed: None,
            finished: None,
            from_plan: None,
        };
        self.order.push(key.clone());
        self.attempts.insert(key, held);
    }

    fn take(&mut self, run_id: &str) {
        if self.has_taken(run_id) {
            return;
        }
        if self.taken.len() >= MAX_TAKEN_RUNS {
            self.taken.pop_front();
        }
        self.taken.push_back(run_id.to_owned());
    }

    fn report(&mut self, report: &api::RunReport) {
        let Some(held) = self.attempts.get_mut(&AttemptKey::new(&report.run_id, report.attempt)) else { return };
        held.sequence = held.sequence.max(report.sequence);
        held.unacknowledged.insert(report.sequence, report.clone());
        match &report.event {
            Some(run_report::Event::Sealed(sealed)) => held.sealed = Some(sealed.clone()),
            Some(run_report::Event::Finished(finished)) => held.finished = Some(finished.clone()),
            Some(run_report::Event::Started(_) | run_report::Event::Scanned(_) | run_report::Event::Warnings(_))
            | None => {}
        }
    }

    fn remember(&mut self, backup: &RememberedBackup) {
        let Some(location) = &backup.location else { return };
        self.backups.insert(location.backup_id.clone(), backup.clone());
        while self.backups.len() > MAX_REMEMBERED_BACKUPS {
            let sent = self.backups.iter().filter(|(_, backup)| !backup.index_unsent);
            let oldest = sent.min_by_key(|(_, backup)| backup.captured_at_us).map(|(id, _)| id.clone());
            match oldest {
                Some(id) => self.backups.remove(&id),
                None => return,
            };
        }
    }

    /// The shortest records that give this memory.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut bodies = Vec::new();
        if !self.taken.is_empty() {
            bodies.push(Body::Taken(Taken { run_ids: self.taken.iter().cloned().collect() }));
        }
        for (key, held) in self.in_order() {
            bodies.push(Body::Accepted(held.order.clone()));
            bodies.extend(held.from_plan.clone().map(Body::FromPlan));
            // Acknowledged reports that still say something: what is sealed, how it ended, and the highest sequence.
            let report =
                |sequence, event| api::RunReport { run_id: key.run_id.clone(), attempt: key.attempt, sequence, event };
            let said = [
                held.sealed.clone().map(run_report::Event::Sealed),
                held.finished.clone().map(run_report::Event::Finished),
                (held.sequence > 0).then(|| run_report::Event::Started(api::Started::default())),
            ];
            for event in said.into_iter().flatten() {
                bodies.push(Body::Reported(report(held.sequence, Some(event))));
                bodies.push(Body::Acknowledged(Acknowledged {
                    run_id: key.run_id.clone(),
                    attempt: key.attempt,
                    sequence: held.sequence,
                }));
            }
            bodies.extend(held.unacknowledged.values().cloned().map(Body::Reported));
        }
        for (policy_id, ordinal) in &self.ordinals {
            bodies.push(Body::Ordinal(api::JobOrdinal { policy_id: policy_id.clone(), ordinal: *ordinal }));
        }
        bodies.extend(self.backups.values().cloned().map(Body::Backup));
        bodies.into_iter().map(|body| Record { body: Some(body) }).collect()
    }
}
