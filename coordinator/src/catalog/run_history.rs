//! Runs that ended long ago: which of them are forgotten, and what of the others.
//!
//! Invariants: an open run is never touched. A run that made a restore point keeps its row, its attempts and its decisions as long as the
//! restore point is there, and so does the newest run of each kind of a job; their steps (events, taken reports, notes) go with the others'.
//! Any number of coordinators may do it at once: each works on rows that it has locked, and what became a restore point in between is held by
//! its reference.

use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Result;
use super::pool::{Catalog, Sql};
use super::row::get;

/// Runs looked at in one transaction.
const MAX_RUNS: i64 = 500;

/// What was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Runs of which nothing is left.
    pub runs: u64,
    /// Runs that stay without their steps.
    pub steps: u64,
}

impl Forgotten {
    /// How many runs were looked at.
    pub const fn total(self) -> u64 {
        self.runs + self.steps
    }
}

// OFFSET 0 keeps the looks what they are: by run, and by job.
pub(super) const ENDED_BEFORE: Sql = Sql("
    SELECT r.run_id,
           EXISTS (SELECT FROM backups b WHERE b.run_id = r.run_id OFFSET 0) OR (r.job IS NOT NULL AND NOT EXISTS (
               SELECT FROM runs n WHERE n.job = r.job AND n.kind = r.kind AND n.due_at > r.due_at OFFSET 0)) AS stays
    FROM runs r
    WHERE r.state IN ('succeeded', 'failed', 'cancelled', 'missed') AND r.steps_forgotten_at IS NULL
      AND coalesce(r.ended_at, r.created_at) < now() - make_interval(secs => $1)
    ORDER BY coalesce(r.ended_at, r.created_at) LIMIT $2
    FOR UPDATE OF r SKIP LOCKED");

const FORGET_EVENTS: Sql = Sql("DELETE FROM run_events WHERE run_id = ANY ($1)");
const FORGET_REPORTS: Sql = Sql("DELETE FROM run_reports WHERE run_id = ANY ($1)");
const FORGET_WARNINGS: Sql = Sql("DELETE FROM run_warnings WHERE run_id = ANY ($1)");
const FORGET_KEYS: Sql = Sql("DELETE FROM run_keys WHERE run_id = ANY ($1)");
const MARK: Sql = Sql("UPDATE runs SET steps_forgotten_at = now() WHERE run_id = ANY ($1)");

const FORGET_LEFT_OUT: Sql = Sql("DELETE FROM run_left_out WHERE run_id = ANY ($1)");
const FORGET_DECISIONS: Sql = Sql("DELETE FROM decisions WHERE run_id = ANY ($1)");
const FORGET_ATTEMPTS: Sql = Sql("DELETE FROM attempts WHERE run_id = ANY ($1)");
const FORGET_RUNS: Sql = Sql("DELETE FROM runs WHERE run_id = ANY ($1)");

/// Of every run that is old.
const STEPS: [&Sql; 4] = [&FORGET_EVENTS, &FORGET_REPORTS, &FORGET_WARNINGS, &FORGET_KEYS];
/// Of those that do not stay. What refers to a run goes before it.
const REST: [&Sql; 4] = [&FORGET_LEFT_OUT, &FORGET_DECISIONS, &FORGET_ATTEMPTS, &FORGET_RUNS];

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("ENDED_BEFORE", &ENDED_BEFORE),
    ("FORGET_EVENTS", &FORGET_EVENTS),
    ("FORGET_REPORTS", &FORGET_REPORTS),
    ("FORGET_WARNINGS", &FORGET_WARNINGS),
    ("FORGET_KEYS", &FORGET_KEYS),
    ("MARK", &MARK),
    ("FORGET_LEFT_OUT", &FORGET_LEFT_OUT),
    ("FORGET_DECISIONS", &FORGET_DECISIONS),
    ("FORGET_ATTEMPTS", &FORGET_ATTEMPTS),
    ("FORGET_RUNS", &FORGET_RUNS),
];

impl Catalog {
    /// Forgets some of the runs that ended longer than this ago, the oldest first. Nothing: none is left.
    pub async fn forget_runs(&self, ended_before: Duration) -> Result<Forgotten> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let rows = transaction.query(&ENDED_BEFORE, &[&ended_before.as_secs_f64(), &MAX_RUNS]).await?;
        let read = |row: &Row| Ok((get::<Uuid>(row, "run_id")?, get::<bool>(row, "stays")?));
        let old = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
        let ids = |wanted: Option<bool>| -> Vec<Uuid> {
            old.iter().filter(|(_, stays)| wanted.is_none_or(|wanted| wanted == *stays)).map(|(id, _)| *id).collect()
        };
        let (all, staying, going) = (ids(None), ids(Some(true)), ids(Some(false)));
        if all.is_empty() {
            return Ok(Forgotten::default());
        }
        for statement in STEPS {
            transaction.execute(statement, &[&all]).await?;
        }
        transaction.execute(&MARK, &[&staying]).await?;
        for statement in REST {
            transaction.execute(statement, &[&going]).await?;
        }
        transaction.commit().await?;
        let count = |ids: &[Uuid]| ids.len() as u64;
        Ok(Forgotten { runs: count(&going), steps: count(&staying) })
    }
}
