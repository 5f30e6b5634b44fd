//! Leases: which session holds which attempt, and until when. Invariant: time is the database's; attempt+1 is claimed only from
//! the queue, so a run that its host still holds is taken back out of the queue first; after a coordinator's start or an outage
//! nothing is reaped for one grace period. Not here: how leases are given (`claims`).

use std::time::Duration;

use coord_shared::ids::{Attempt, HostId, RunId, SessionNumber};
use coord_shared::run::{Disposition, Event, RunState};
use tokio_postgres::Row;
use uuid::Uuid;

use super::claims::Claimed;
use super::error::Result;
use super::pool::{Catalog, Params, Sql, Transaction};
use super::records::{FaultRecord, ProgressRecord};
use super::row::{big, get, int, seconds, small, to_json, word};
use super::runs::{LockedRun, StepContext, lock_of_host, step};

/// An attempt that a host says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunBeat {
    /// Of this run.
    pub run: RunId,
    /// Its number.
    pub attempt: Attempt,
    /// It has ended at the host; only its final report is missing.
    pub finished: bool,
    /// How far it is.
    pub progress: Option<ProgressRecord>,
}

/// What the host should do with an attempt it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatOutcome {
    /// Of this run.
    pub run: RunId,
    /// Its number.
    pub attempt: Attempt,
    /// What to do.
    pub disposition: Disposition,
}

/// An attempt that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Of this run.
    pub run: RunId,
    /// Its number.
    pub attempt: Attempt,
    /// Where the run is now: queued, failed or cancelled.
    pub state: RunState,
}

pub(super) const BEAT: Sql = Sql("
    UPDATE runs r SET lease_until = now() + make_interval(secs => $3), lease_session = $2,
        progress = coalesce(b.progress, r.progress)
    FROM unnest($4::uuid[], $5::integer[], $6::jsonb[]) AS b (run_id, attempt, progress)
    WHERE r.run_id = b.run_id AND r.attempt = b.attempt AND r.state IN ('leased', 'running', 'verifying')
      AND r.host = (SELECT h.host FROM hosts h WHERE h.host_id = $1 AND h.session_number = $2)
    RETURNING r.run_id, r.cancelling");

// OFFSET 0: see `Sql`. What somebody else writes at this moment is kept next time.
pub(super) const KEEP: Sql = Sql("
    UPDATE runs r SET lease_until = now() + make_interval(secs => $1)
    FROM (
        SELECT t.run_id FROM unnest($2::uuid[], $3::integer[]) AS k (run_id, attempt)
        CROSS JOIN LATERAL (
            SELECT w.run_id, w.attempt, w.state FROM runs w WHERE w.run_id = k.run_id OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED
        ) t
        WHERE t.attempt = k.attempt AND t.state = 'leased'
    ) kept
    WHERE r.run_id = kept.run_id");

const ADOPT_PLANNED: Sql = Sql("
    INSERT INTO runs (run_id, kind, host, job, policy_version, due_at, state, max_attempts, run_after, priority, asked_by,
        level, reason, spec, ended_at)
    SELECT p.run_id, p.kind, j.host, p.job, p.policy_version, p.due_at, o.state, $3, now(), 0, 'schedule', p.level,
        CASE o.state WHEN 'missed' THEN 'another run of the job was open when the host told of it' ELSE '' END, '{}', CASE WHEN o.state = 'missed' THEN now() END
    FROM planned_runs p
    JOIN jobs j ON j.job = p.job
    JOIN hosts h ON h.host = j.host AND h.host_id = $2
    CROSS JOIN LATERAL (
        SELECT CASE WHEN EXISTS (
            SELECT FROM runs r WHERE r.job = p.job AND r.kind = p.kind
              AND r.state IN ('queued', 'leased', 'running', 'verifying')
        ) THEN 'missed' ELSE 'queued' END AS state
    ) o
    WHERE p.run_id = $1
    ON CONFLICT DO NOTHING");

const HELD_BEFORE: Sql = Sql("
    SELECT r.run_id, r.attempt FROM runs r
    WHERE r.host = (SELECT h.host FROM hosts h WHERE h.host_id = $1) AND r.state IN ('leased', 'running', 'verifying')
      AND coalesce(r.lease_session, 0) < $2");

// A run that no other attempt may begin of has failed: it is not queued only to be cancelled, for its host may still finish it.
// ANY(ARRAY(..)) and not IN: an IN that is run again after waiting for a lock may take more rows than the limit.
pub(super) const REAP: Sql = Sql("
    WITH lapsed AS (
        UPDATE runs r SET
            state = CASE WHEN r.cancelling THEN 'cancelled'
                WHEN r.attempt < r.max_attempts AND (r.closes_at <= now()) IS NOT TRUE THEN 'queued' ELSE 'failed' END,
            reaped = NOT r.cancelling,
            cancelling = false,
            lease_session = NULL,
            lease_until = NULL,
            run_after = now() + make_interval(
                secs => least($2 * power(2, least(r.attempt - 1, 20)), $3) * (0.5 + random() / 2)),
            ended_at = CASE WHEN r.cancelling OR r.attempt >= r.max_attempts OR r.closes_at <= now() THEN now() END,
            fault = CASE WHEN r.cancelling THEN coalesce(r.stop_fault, $4) ELSE $4 END
        WHERE r.run_id = ANY (ARRAY(
            SELECT l.run_id FROM runs l
            WHERE l.state IN ('leased', 'running', 'verifying') AND l.lease_until < now()
              AND pg_postmaster_start_time() < now() - make_interval(secs => $1)
              AND NOT EXISTS (
                  SELECT FROM coordinators c
                  WHERE c.quiet_until > now() AND c.last_beat_at > now() - INTERVAL '1 minute')
            ORDER BY l.lease_until LIMIT 100 FOR UPDATE SKIP LOCKED))
        RETURNING r.run_id, r.attempt, r.state
    ), ended AS (
        UPDATE attempts a SET ended_at = now(), outcome = 'lapsed', fault = $4
        FROM lapsed l WHERE a.run_id = l.run_id AND a.attempt = l.attempt
    )
    SELECT run_id, attempt, state FROM lapsed");

const LEASE: Sql = Sql("
    SELECT EXISTS (
        SELECT FROM runs WHERE run_id = $1 AND attempt = $2 AND state || '' IN ('leased', 'running', 'verifying')
    ) AS held");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("BEAT", &BEAT),
    ("KEEP", &KEEP),
    ("HELD_BEFORE", &HELD_BEFORE),
    ("ADOPT_PLANNED", &ADOPT_PLANNED),
    ("REAP", &REAP),
    ("LEASE", &LEASE),
];

impl Catalog {
    /// Extends the leases of attempts whose orders this coordinator has still to give. Those that are not leased any more stay as they are.
    pub async fn keep_leases(&self, attempts: &[(RunId, Attempt)], lease: Duration) -> Result<()> {
        let runs: Vec<Uuid> = attempts.iter().map(|(run, _)| run.uuid()).collect();
        let numbers =
            attempts.iter().map(|(_, attempt)| int(attempt.get(), "attempt")).collect::<Result<Vec<i32>>>()?;
        self.connection().await?.execute(&KEEP, &[&lease.as_secs_f64(), &runs, &numbers]).await?;
        Ok(())
    }

    /// The host's session holds these attempts: extends their leases and says what to do with each, in the same order. Serves
    /// heartbeats and the held attempts of Hello alike; a run that was reaped and not claimed again is taken back.
    pub async fn beat_runs(
        &self,
        host: HostId,
        session: SessionNumber,
        lease: Duration,
        beats: &[RunBeat],
    ) -> Result<Vec<HeartbeatOutcome>> {
        let extended = self.extend(host, session, lease, beats).await?;
        let mut outcomes = Vec::with_capacity(beats.len());
        for beat in beats {
            let cancelling = extended.iter().find(|(run, _)| *run == beat.run).map(|(_, cancelling)| *cancelling);
            let disposition = match (cancelling, beat.finished) {
                (Some(false), false) => Disposition::Continue,
                (Some(_), true) => Disposition::Report,
                (Some(true), false) => Disposition::Abort,
                (None, _) => self.hold(host, session, lease, beat).await?,
            };
            outcomes.push(HeartbeatOutcome { run: beat.run, attempt: beat.attempt, disposition });
        }
        Ok(outcomes)
    }

    async fn extend(
        &self,
        host: HostId,
        session: SessionNumber,
        lease: Duration,
        beats: &[RunBeat],
    ) -> Result<Vec<(RunId, bool)>> {
        if beats.is_empty() {
            return Ok(Vec::new());
        }
        let number = big(session.get(), "session number")?;
        let runs: Vec<_> = beats.iter().map(|beat| beat.run.uuid()).collect();
        let attempts = beats.iter().map(|beat| int(beat.attempt.get(), "attempt")).collect::<Result<Vec<i32>>>()?;
        let progress = beats
            .iter()
            .map(|beat| beat.progress.as_ref().map(to_json).transpose())
            .collect::<Result<Vec<Option<serde_json::Value>>>>()?;
        let params: Params<'_> = &[&host.uuid(), &number, &seconds(lease), &runs, &attempts, &progress];
        let rows = self.connection().await?.query(&BEAT, params).await?;
        rows.iter().map(|row| Ok((RunId::from_uuid(get(row, "run_id")?), get(row, "cancelling")?))).collect()
    }

    /// An attempt that is not simply held: reaped, ended, replaced, planned, or unknown.
    async fn hold(&self, host: HostId, session: SessionNumber, lease: Duration, beat: &RunBeat) -> Result<Disposition> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        adopt_planned(&transaction, beat.run, host).await?;
        let Some(run) = lock_of_host(&transaction, beat.run, host).await? else {
            // Nobody here knows it: what ended may be forgotten, what runs may not go on.
            return Ok(if beat.finished { Disposition::Forget } else { Disposition::Abort });
        };
        let disposition = run.machine.disposition(beat.attempt, beat.finished);
        match disposition {
            Disposition::Continue => take_back(&transaction, &run, beat.attempt, (session, lease)).await?,
            // Its end is on its way: no other attempt is claimed before that is here.
            Disposition::Report if run.machine.state == RunState::Queued => {
                take_back(&transaction, &run, beat.attempt, (session, lease)).await?;
            }
            Disposition::Report | Disposition::Abort | Disposition::Forget => {}
        }
        transaction.commit().await?;
        Ok(disposition)
    }

    /// Gives up attempts whose lease ran out, at most a hundred: back to the queue after a backoff between `first` and `most`, or
    /// failed after the last and where no other may begin. Nothing is given up within `grace` of the database's start or in a coordinator's quiet time.
    pub async fn reap_lapsed_runs(&self, grace: Duration, first: Duration, most: Duration) -> Result<Vec<Reaped>> {
        let fault = to_json(&FaultRecord {
            code: coord_shared::fault::ErrorCode::LeaseLapsed.as_str().to_owned(),
            message: "the host was not heard of while it held the run".to_owned(),
            hint: "coordctl host show tells when it was last seen".to_owned(),
        })?;
        let params: Params<'_> = &[&seconds(grace), &seconds(first), &seconds(most), &fault];
        let rows = self.connection().await?.query(&REAP, params).await?;
        rows.iter()
            .map(|row| {
                Ok(Reaped {
                    run: RunId::from_uuid(get(row, "run_id")?),
                    attempt: Attempt(small(row, "attempt")?),
                    state: word(row, "state")?,
                })
            })
            .collect()
    }

    /// What the catalog thinks that a host holds since a session before this one.
    pub async fn held_before(&self, host: HostId, session: SessionNumber) -> Result<Vec<Claimed>> {
        let session = big(session.get(), "session number")?;
        let rows = self.connection().await?.query(&HELD_BEFORE, &[&host.uuid(), &session]).await?;
        let read = |row: &Row| {
            Ok(Claimed { run: RunId::from_uuid(get(row, "run_id")?), attempt: Attempt(small(row, "attempt")?), host })
        };
        rows.iter().map(read).collect()
    }

    /// Whether this attempt is held by a session now.
    pub async fn is_held(&self, run: RunId, attempt: Attempt) -> Result<bool> {
        let attempt = int(attempt.get(), "attempt")?;
        let row = self.connection().await?.query_opt(&LEASE, &[&run.uuid(), &attempt]).await?;
        row.map_or(Ok(false), |row| get(&row, "held"))
    }
}

/// The host holds the attempt: its run is not in the queue.
async fn take_back(
    transaction: &Transaction<'_>,
    run: &LockedRun,
    attempt: Attempt,
    (session, lease): (SessionNumber, Duration),
) -> Result<()> {
    let context = StepContext { session: Some(session), lease, ..StepContext::default() };
    step(transaction, run, Event::Held(attempt), &context).await?;
    Ok(())
}

/// Makes the row of a planned run that its host started before the scheduler inserted it.
pub(super) async fn adopt_planned(transaction: &Transaction<'_>, run: RunId, host: HostId) -> Result<()> {
    let attempts = int(coord_shared::run::RunKind::Backup.max_attempts(), "max attempts")?;
    transaction.execute(&ADOPT_PLANNED, &[&run.uuid(), &host.uuid(), &attempts]).await?;
    Ok(())
}
