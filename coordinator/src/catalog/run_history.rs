//! Runs that ended long ago: which of them are forgotten, and what of the others.
//!
//! Invariants: an open run is never touched. A run that made a restore point keeps its row, its attempts, its decisions and its key as long as
//! the restore point is there. So does, of each kind of run, the newest of each end of a job: the last that succeeded, failed, was cancelled and
//! was missed, until there is a newer one. Their steps (events, taken reports, notes) go with the others'. Any number of coordinators may do it
//! at once: each works on rows that it has locked, and judges them afterwards.

use std::collections::HashSet;
use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Result;
use super::pool::{Catalog, Params, Sql};
use super::row::get;

/// Runs looked at in one transaction.
const MAX_RUNS: i64 = 500;

/// What was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Runs that were looked at, of any age; 0: there is nothing to do.
    pub looked_at: u64,
    /// Runs of which nothing is left.
    pub runs: u64,
    /// Runs that stay without their steps, from now on.
    pub steps: u64,
}

// The other coordinators take others.
pub(super) const ENDED_BEFORE: Sql = Sql("
    SELECT run_id, true AS is_new FROM runs
    WHERE state IN ('succeeded', 'failed', 'cancelled', 'missed') AND steps_forgotten_at IS NULL
      AND coalesce(ended_at, created_at) < now() - make_interval(secs => $1)
    ORDER BY coalesce(ended_at, created_at) LIMIT $2
    FOR UPDATE SKIP LOCKED");

// Another run may be the newest by now. A longer time to keep runs counts for these too; 'infinity' names the index.
pub(super) const KEPT_LONG: Sql = Sql("
    SELECT run_id, false AS is_new FROM runs
    WHERE steps_forgotten_at < 'infinity' AND steps_forgotten_at < now() - INTERVAL '30 days'
      AND coalesce(ended_at, created_at) < now() - make_interval(secs => $1)
    ORDER BY steps_forgotten_at LIMIT $2
    FOR UPDATE SKIP LOCKED");

// OFFSET 0 keeps the looks what they are: by run, by job, and by host for runs that belong to no job.
pub(super) const JUDGE: Sql = Sql("
    SELECT r.run_id, EXISTS (SELECT FROM backups b WHERE b.run_id = r.run_id OFFSET 0) AS is_point,
           CASE WHEN r.job IS NULL THEN NOT EXISTS (
               SELECT FROM runs n WHERE n.host = r.host AND n.job IS NULL AND n.kind = r.kind AND n.state = r.state
               AND n.due_at >= r.due_at AND (n.due_at, n.run_id) > (r.due_at, r.run_id) OFFSET 0)
           ELSE NOT EXISTS (
               SELECT FROM runs n WHERE n.job = r.job AND n.kind = r.kind AND n.state = r.state
               AND n.due_at >= r.due_at AND (n.due_at, n.run_id) > (r.due_at, r.run_id) OFFSET 0) END AS is_newest
    FROM runs r WHERE r.run_id = ANY ($1)");

const FORGET_EVENTS: Sql = Sql("DELETE FROM run_events WHERE run_id = ANY ($1)");
const FORGET_REPORTS: Sql = Sql("DELETE FROM run_reports WHERE run_id = ANY ($1)");
const FORGET_WARNINGS: Sql = Sql("DELETE FROM run_warnings WHERE run_id = ANY ($1)");
const FORGET_KEYS: Sql = Sql("DELETE FROM run_keys WHERE run_id = ANY ($1)");
const MARK_POINTS: Sql = Sql("UPDATE runs SET steps_forgotten_at = 'infinity' WHERE run_id = ANY ($1)");
const MARK_NEWEST: Sql = Sql("UPDATE runs SET steps_forgotten_at = now() WHERE run_id = ANY ($1)");

const FORGET_LEFT_OUT: Sql = Sql("DELETE FROM run_left_out WHERE run_id = ANY ($1)");
const FORGET_DECISIONS: Sql = Sql("DELETE FROM decisions WHERE run_id = ANY ($1)");
const FORGET_ATTEMPTS: Sql = Sql("DELETE FROM attempts WHERE run_id = ANY ($1)");
const FORGET_RUNS: Sql = Sql("DELETE FROM runs WHERE run_id = ANY ($1)");

/// Of every run that is old.
const STEPS: [&Sql; 3] = [&FORGET_EVENTS, &FORGET_REPORTS, &FORGET_WARNINGS];
/// Of those that do not stay. What refers to a run goes before it.
const REST: [&Sql; 5] = [&FORGET_KEYS, &FORGET_LEFT_OUT, &FORGET_DECISIONS, &FORGET_ATTEMPTS, &FORGET_RUNS];

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("ENDED_BEFORE", &ENDED_BEFORE),
    ("KEPT_LONG", &KEPT_LONG),
    ("JUDGE", &JUDGE),
    ("FORGET_EVENTS", &FORGET_EVENTS),
    ("FORGET_REPORTS", &FORGET_REPORTS),
    ("FORGET_WARNINGS", &FORGET_WARNINGS),
    ("FORGET_KEYS", &FORGET_KEYS),
    ("MARK_POINTS", &MARK_POINTS),
    ("MARK_NEWEST", &MARK_NEWEST),
    ("FORGET_LEFT_OUT", &FORGET_LEFT_OUT),
    ("FORGET_DECISIONS", &FORGET_DECISIONS),
    ("FORGET_ATTEMPTS", &FORGET_ATTEMPTS),
    ("FORGET_RUNS", &FORGET_RUNS),
];

/// Runs that are locked, by what becomes of them.
#[derive(Default)]
struct Judged {
    all: Vec<Uuid>,
    points: Vec<Uuid>,
    newest: Vec<Uuid>,
    going: Vec<Uuid>,
}

fn judge(rows: &[Row]) -> Result<Judged> {
    let mut judged = Judged::default();
    for row in rows {
        let id: Uuid = get(row, "run_id")?;
        judged.all.push(id);
        match (get::<bool>(row, "is_point")?, get::<bool>(row, "is_newest")?) {
            (true, _) => judged.points.push(id),
            (false, true) => judged.newest.push(id),
            (false, false) => judged.going.push(id),
        }
    }
    Ok(judged)
}

impl Catalog {
    /// Forgets some of the runs that ended longer than this ago, the oldest first.
    pub async fn forget_runs(&self, ended_before: Duration) -> Result<Forgotten> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let params: Params<'_> = &[&ended_before.as_secs_f64(), &MAX_RUNS];
        let mut rows = transaction.query(&ENDED_BEFORE, params).await?;
        if rows.is_empty() {
            rows = transaction.query(&KEPT_LONG, params).await?;
        }
        let mut new = HashSet::new();
        let mut locked = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: Uuid = get(row, "run_id")?;
            locked.push(id);
            if get(row, "is_new")? {
                new.insert(id);
            }
        }
        if locked.is_empty() {
            return Ok(Forgotten::default());
        }
        // A statement of its own sees what was committed before the locks were ours.
        let Judged { all, points, newest, going } = judge(&transaction.query(&JUDGE, &[&locked]).await?)?;
        for statement in STEPS {
            transaction.execute(statement, &[&all]).await?;
        }
        transaction.execute(&MARK_POINTS, &[&points]).await?;
        transaction.execute(&MARK_NEWEST, &[&newest]).await?;
        for statement in REST {
            transaction.execute(statement, &[&going]).await?;
        }
        transaction.commit().await?;
        let steps = points.iter().chain(&newest).filter(|id| new.contains(*id)).count();
        let count = |number: usize| number as u64;
        Ok(Forgotten { looked_at: count(all.len()), runs: count(going.len()), steps: count(steps) })
    }
}
