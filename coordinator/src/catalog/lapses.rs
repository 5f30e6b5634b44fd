//! Runs whose time is over: those that did not begin when they had to, and those that take longer than they may. Invariant: a run is
//! judged again when its row is locked, by the database's clock.

use coord_shared::duration;
use coord_shared::fault::ErrorCode;
use coord_shared::ids::RunId;
use coord_shared::run::{Event, RunState};
use uuid::Uuid;

use super::Transition;
use super::error::Result;
use super::pool::{Catalog, Sql, Transaction};
use super::records::FaultRecord;
use super::row::{get, small, to_json};
use super::runs::{LockedRun, StepContext, lock, step};

/// What became of a run whose time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapsed {
    /// The run.
    pub run: RunId,
    /// Where it is now: missed, cancelled, failed where its host may still finish it, or still held by its host, which is to stop it.
    pub state: RunState,
    /// Why.
    pub why: String,
}

pub(super) const LATE: Sql = Sql("
    SELECT run_id FROM runs
    WHERE state = 'queued' AND (CASE WHEN attempt = 0 THEN start_by ELSE closes_at END) <= now() AND run_id <> ALL ($2::uuid[])
    ORDER BY (CASE WHEN attempt = 0 THEN start_by ELSE closes_at END) LIMIT $1");

pub(super) const LONG: Sql = Sql("
    SELECT run_id FROM runs
    WHERE max_duration_s IS NOT NULL AND state IN ('queued', 'leased', 'running', 'verifying') AND NOT cancelling
      AND started_at + make_interval(secs => max_duration_s) <= now() AND run_id <> ALL ($2::uuid[])
    ORDER BY started_at LIMIT $1");

const JUDGE: Sql = Sql("
    SELECT late_reason, max_duration_s,
           coalesce(state = 'queued' AND (CASE WHEN attempt = 0 THEN start_by ELSE closes_at END) <= now(), false) AS late,
           coalesce(started_at + make_interval(secs => max_duration_s) <= now(), false) AND NOT cancelling AS long
    FROM runs WHERE run_id = $1");

const SAY: Sql = Sql("UPDATE runs SET reason = $2 WHERE run_id = $1");

const SAY_STOPPED: Sql = Sql("UPDATE runs SET stop_fault = $2 WHERE run_id = $1");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("LATE", &LATE), ("LONG", &LONG), ("JUDGE", &JUDGE), ("SAY", &SAY), ("SAY_STOPPED", &SAY_STOPPED)];

impl Catalog {
    /// Queued runs that did not begin when they had to, and runs that take longer than they may; at most `limit` of each,
    /// without those of `without`.
    pub async fn lapsed_runs(&self, limit: u32, without: &[RunId]) -> Result<Vec<RunId>> {
        let (connection, limit) = (self.connection().await?, i64::from(limit));
        let without: Vec<Uuid> = without.iter().map(|id| id.uuid()).collect();
        let mut rows = connection.query(&LATE, &[&limit, &without]).await?;
        rows.extend(connection.query(&LONG, &[&limit, &without]).await?);
        rows.iter().map(|row| Ok(RunId::from_uuid(get(row, "run_id")?))).collect()
    }

    /// Ends a run whose time is over. `None`: it is not, or somebody else did so before.
    pub async fn end_lapsed(&self, id: RunId) -> Result<Option<Lapsed>> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let Some(run) = lock(&transaction, id).await? else { return Ok(None) };
        let Some(row) = transaction.query_opt(&JUDGE, &[&id.uuid()]).await? else { return Ok(None) };
        let (late, long): (bool, bool) = (get(&row, "late")?, get(&row, "long")?);
        let lapsed = if late && run.machine.attempt.get() == 0 {
            miss(&transaction, &run, get(&row, "late_reason")?).await?
        } else if long {
            let most = duration::shown(small(&row, "max_duration_s")?);
            stop(&transaction, &run, format!("it took longer than {most}, the most that its policy allows")).await?
        } else if late && run.machine.reaped {
            give_up(&transaction, &run, get(&row, "late_reason")?).await?
        } else if late {
            let why: String = get(&row, "late_reason")?;
            stop(&transaction, &run, format!("its attempt failed, and no other began in time: {why}")).await?
        } else {
            None
        };
        transaction.commit().await?;
        Ok(lapsed)
    }
}

/// Records a run that was never begun as missed.
pub(super) async fn miss(transaction: &Transaction<'_>, run: &LockedRun, why: String) -> Result<Option<Lapsed>> {
    transaction.execute(&SAY, &[&run.id.uuid(), &why]).await?;
    let outcome = step(transaction, run, Event::Missed, &StepContext::default()).await?;
    Ok(ended(run.id, outcome, why))
}

/// Cancels a run: at once while it waits, else as soon as its host hears of it.
async fn stop(transaction: &Transaction<'_>, run: &LockedRun, why: String) -> Result<Option<Lapsed>> {
    let fault = FaultRecord {
        code: ErrorCode::TimedOut.as_str().to_owned(),
        message: why.clone(),
        hint: "coordctl policy show tells the policy's limits (schedule)".to_owned(),
    };
    transaction.execute(&SAY_STOPPED, &[&run.id.uuid(), &to_json(&fault)?]).await?;
    let context = StepContext { fault: Some(&fault), ..StepContext::default() };
    let outcome = step(transaction, run, Event::Cancelled, &context).await?;
    Ok(ended(run.id, outcome, why))
}

/// Ends a run whose host was not heard of, and which may have no other attempt. What the host reports of it later still counts.
async fn give_up(transaction: &Transaction<'_>, run: &LockedRun, late: String) -> Result<Option<Lapsed>> {
    let why = format!("the host was not heard of while it held the run, and no other attempt began in time: {late}");
    let fault = FaultRecord {
        code: ErrorCode::LeaseLapsed.as_str().to_owned(),
        message: why.clone(),
        hint: "coordctl host show tells when it was last seen".to_owned(),
    };
    let context = StepContext { fault: Some(&fault), ..StepContext::default() };
    let outcome = step(transaction, run, Event::OutOfTime, &context).await?;
    Ok(ended(run.id, outcome, why))
}

fn ended(run: RunId, outcome: Transition, why: String) -> Option<Lapsed> {
    match outcome {
        Transition::Updated(after) => Some(Lapsed { run, state: after.state, why }),
        Transition::AlreadyThere(_) | Transition::Refused(_) => None,
    }
}
