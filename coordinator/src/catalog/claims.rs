//! Claims: leasing queued runs to the sessions of their hosts, within the limits. Invariants: claimers take turns (an advisory lock
//! that ends with the transaction), so that what one of them counts is still so when it writes; and all of them see one
//! queue, so that a run is not overtaken because its host is connected to another coordinator.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use coord_shared::failpoint;
use coord_shared::ids::{ArchiveStoreId, Attempt, HostId, RunId, SessionNumber};
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::limits;
use super::pool::{Catalog, Params, Sql, Transaction};
use super::row::{big, count, get, int, json, seconds, small};
use crate::domain::queue::{self, Member, Slots, Target};

/// A claimed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Of this run.
    pub run: RunId,
    /// Its number: the fencing token.
    pub attempt: Attempt,
    /// Where it runs.
    pub host: HostId,
}

/// The runs that a host has, restores left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRuns {
    /// Which host.
    pub host: HostId,
    /// The folder that its archives lie in, where it is known.
    pub store: Option<ArchiveStoreId>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How many.
    pub runs: u64,
}

impl HeldRuns {
    /// Where the archives of the host lie.
    #[must_use]
    pub fn target(&self) -> Target {
        self.member().target()
    }

    fn member(&self) -> Member<'_> {
        Member { host: self.host, store: self.store, labels: &self.labels }
    }
}

/// Waiting runs read at once.
const PAGE: i64 = 1000;

/// The key is nobody else's: `migrate` has another.
const TAKE_TURN: Sql = Sql("SELECT pg_advisory_xact_lock(hashtextextended('coord.claims', 0))");

const HELD: Sql = Sql("
    SELECT h.host_id, h.archive_store, h.labels, r.runs
    FROM (
        SELECT host, count(*) AS runs FROM runs
        WHERE state IN ('leased', 'running', 'verifying') AND kind <> 'restore' GROUP BY host
    ) r JOIN hosts h ON h.host = r.host");

// What is paused waits, and has no turn. So does what a host is to do that has not been heard of since it let a lease lapse: its session may be the last
// of a connection that is dead, and an order would cost an attempt (OFFSET 0: looked up host by host). Runs of hosts at
// other coordinators are read as well: they have their turn, and are claimed over there.
pub(super) const WAITING: Sql = Sql("
    SELECT w.run_id, w.host_id, w.archive_store, w.labels, w.patient, w.rank, w.is_ours
    FROM (
        SELECT r.run_id, h.host_id, h.archive_store, h.labels, r.kind <> 'restore' AS patient, s.host_id IS NOT NULL AS is_ours,
               (extract(epoch FROM r.run_after) * 1000)::bigint - r.priority * $3::bigint AS rank
        FROM runs r
        JOIN hosts h ON h.host = r.host
        LEFT JOIN jobs j ON j.job = r.job
        LEFT JOIN unnest($1::uuid[], $2::bigint[]) AS s (host_id, session)
            ON s.host_id = h.host_id AND s.session = h.session_number
        WHERE r.state = 'queued' AND r.run_after <= now() AND r.attempt < r.max_attempts AND h.state = 'active'
          AND coalesce(CASE WHEN r.attempt = 0 THEN r.start_by ELSE r.closes_at END, 'infinity') > now()
          AND (r.kind = 'restore' OR NOT EXISTS (
              SELECT FROM pauses p
              WHERE p.ended_at IS NULL AND (p.until IS NULL OR p.until > now())
                AND (p.host IS NULL OR p.host = r.host) AND (p.policy IS NULL OR p.policy = j.policy)))
          AND NOT EXISTS (
              SELECT FROM runs l JOIN attempts a ON a.run_id = l.run_id AND a.attempt = l.attempt
              WHERE l.host = r.host AND l.state = 'queued' AND l.reaped AND a.ended_at > h.last_seen_at OFFSET 0)
          AND (s.host_id IS NOT NULL OR (h.session_open AND EXISTS (
              SELECT FROM coordinators c
              WHERE c.coordinator_id = h.session_coordinator AND c.last_beat_at > now() - INTERVAL '15 seconds')))
    ) w
    WHERE (w.patient, w.rank, w.run_id) > ($4, $5, $6)
    ORDER BY w.patient, w.rank, w.run_id LIMIT $7");

const ANY_WAITING: Sql =
    Sql("SELECT EXISTS (SELECT FROM runs r WHERE r.state = 'queued' AND r.run_after <= now()) AS found");

const ANY_OF_OURS: Sql = Sql("
    SELECT EXISTS (
        SELECT FROM unnest($1::uuid[]) AS s (host_id)
        JOIN hosts h ON h.host_id = s.host_id
        JOIN runs r ON r.host = h.host AND r.state = 'queued' AND r.run_after <= now()
    ) AS found");

// OFFSET 0: see `Sql`.
pub(super) const CLAIM: Sql = Sql("
    WITH picked AS (
        SELECT r.run_id, s.session, s.host_id
        FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS s (run_id, host_id, session)
        JOIN hosts h ON h.host_id = s.host_id AND h.session_number = s.session AND h.state = 'active'
        CROSS JOIN LATERAL (
            SELECT w.run_id, w.host, w.state, w.run_after, w.attempt, w.max_attempts, w.start_by, w.closes_at
            FROM runs w WHERE w.run_id = s.run_id OFFSET 0 FOR UPDATE SKIP LOCKED
        ) r
        WHERE r.host = h.host AND r.state = 'queued' AND r.run_after <= now() AND r.attempt < r.max_attempts
          AND coalesce(CASE WHEN r.attempt = 0 THEN r.start_by ELSE r.closes_at END, 'infinity') > now()
    ), claimed AS (
        UPDATE runs r SET state = 'leased', attempt = r.attempt + 1, reaped = false, lease_session = picked.session,
            lease_until = now() + make_interval(secs => $4), progress = NULL
        FROM picked WHERE r.run_id = picked.run_id
        RETURNING r.run_id, r.attempt, picked.session, picked.host_id
    ), counted AS (
        INSERT INTO attempts (run_id, attempt, session) SELECT run_id, attempt, session FROM claimed
    )
    SELECT run_id, attempt, host_id FROM claimed");

const SILENT: Sql = Sql("
    SELECT EXISTS (
        SELECT FROM runs l JOIN attempts a ON a.run_id = l.run_id AND a.attempt = l.attempt
        WHERE l.host = h.host AND l.state = 'queued' AND l.reaped AND a.ended_at > h.last_seen_at OFFSET 0
    ) AS found
    FROM hosts h WHERE h.host_id = $1");

const CLAIMED: Sql = Sql("
    SELECT r.run_id FROM unnest($1::uuid[], $2::integer[], $3::bigint[]) AS c (run_id, attempt, session)
    CROSS JOIN LATERAL (
        SELECT w.run_id, w.attempt, w.state, w.lease_session FROM runs w WHERE w.run_id = c.run_id OFFSET 0
    ) r
    WHERE r.attempt = c.attempt AND r.state = 'leased' AND r.lease_session = c.session");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("TAKE_TURN", &TAKE_TURN),
    ("HELD", &HELD),
    ("WAITING", &WAITING),
    ("ANY_WAITING", &ANY_WAITING),
    ("ANY_OF_OURS", &ANY_OF_OURS),
    ("CLAIM", &CLAIM),
    ("SILENT", &SILENT),
    ("CLAIMED", &CLAIMED),
];

/// The place of a waiting run, as the pages go by it.
#[derive(Clone, Copy)]
struct Mark {
    patient: bool,
    rank: i64,
    run: Uuid,
}

impl Mark {
    const START: Mark = Mark { patient: false, rank: i64::MIN, run: Uuid::nil() };
}

/// Sessions as two columns.
struct Sessions {
    hosts: Vec<Uuid>,
    numbers: Vec<i64>,
}

impl Catalog {
    /// Leases waiting runs to these sessions, at most `most`, in the order of the queue and within the limits; each as the
    /// next attempt. A session that is not the newest of an active host gets nothing. A claim whose answer is lost is read again.
    pub async fn claim_runs(
        &self,
        sessions: &[(HostId, SessionNumber)],
        lease: Duration,
        most: usize,
    ) -> Result<Vec<Claimed>> {
        let hosts: Vec<Uuid> = sessions.iter().map(|(host, _)| host.uuid()).collect();
        let numbers = sessions.iter().map(|(_, number)| big(number.get(), "session number"));
        let ours = Sessions { hosts, numbers: numbers.collect::<Result<Vec<i64>>>()? };
        let mut connection = self.connection().await?;
        // Most looks find nothing, and take no turn; most of those find nothing at all.
        let waiting = connection.query_opt(&ANY_WAITING, &[]).await?;
        if !waiting.map_or(Ok(false), |row| get(&row, "found"))? {
            return Ok(Vec::new());
        }
        let row = connection.query_opt(&ANY_OF_OURS, &[&ours.hosts]).await?;
        if !row.map_or(Ok(false), |row| get(&row, "found"))? {
            return Ok(Vec::new());
        }
        let transaction = connection.begin().await?;
        transaction.execute(&TAKE_TURN, &[]).await?;
        let mut slots = Slots::new(limits::bounds(&transaction).await?);
        for row in transaction.query(&HELD, &[]).await? {
            let held = read_held(&row)?;
            slots.occupy(&held.member(), held.runs);
        }
        let chosen = choose(&transaction, &ours, &mut slots, most).await?;
        let claimed = claim(&transaction, sessions, &chosen, lease).await?;
        if !claimed.is_empty() {
            failpoint::reach("coordinator.claim.uncommitted");
        }
        let committed = transaction.commit().await;
        drop(connection);
        let claimed = match committed {
            Ok(()) => claimed,
            Err(error @ CatalogError::Indeterminate(_)) => self.claimed_after_all(sessions, claimed, error).await?,
            Err(error) => return Err(error),
        };
        if !claimed.is_empty() {
            failpoint::reach("coordinator.claim.committed");
        }
        Ok(claimed)
    }

    /// The connection broke before the answer to a claim's commit: those that it leased all the same. Nobody else holds these
    /// sessions, so nobody else can have leased these attempts to them. What cannot be read lapses and is reaped.
    async fn claimed_after_all(
        &self,
        sessions: &[(HostId, SessionNumber)],
        chosen: Vec<Claimed>,
        error: CatalogError,
    ) -> Result<Vec<Claimed>> {
        let Ok(connection) = self.connection().await else { return Err(error) };
        let numbers: BTreeMap<HostId, SessionNumber> = sessions.iter().copied().collect();
        let (mut runs, mut attempts, mut held_by) = (Vec::new(), Vec::new(), Vec::new());
        for claimed in &chosen {
            runs.push(claimed.run.uuid());
            attempts.push(int(claimed.attempt.get(), "attempt")?);
            held_by.push(big(numbers.get(&claimed.host).copied().unwrap_or_default().get(), "session number")?);
        }
        let Ok(rows) = connection.query(&CLAIMED, &[&runs, &attempts, &held_by]).await else { return Err(error) };
        let found = rows.iter().map(|row| get::<Uuid>(row, "run_id")).collect::<Result<Vec<Uuid>>>()?;
        Ok(chosen.into_iter().filter(|claimed| found.contains(&claimed.run.uuid())).collect())
    }

    /// Whether the host has not been heard of since it let a lease lapse, so that nothing is given to it.
    pub async fn is_silent(&self, host: HostId) -> Result<bool> {
        let row = self.connection().await?.query_opt(&SILENT, &[&host.uuid()]).await?;
        row.map_or(Ok(false), |row| get(&row, "found"))
    }

    /// Whether the places that a waiting run needs go to others, as the limits and the queue are now: to those that begin before it, or
    /// keep one. Behind [`PAGE`] others it is not looked for.
    pub async fn is_kept_out(&self, run: RunId) -> Result<bool> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let mut slots = Slots::new(limits::bounds(&transaction).await?);
        for row in transaction.query(&HELD, &[]).await? {
            let held = read_held(&row)?;
            slots.occupy(&held.member(), held.runs);
        }
        let nobody = Sessions { hosts: Vec::new(), numbers: Vec::new() };
        let (point, mark) = (queue::point_ms(), Mark::START);
        let params: Params<'_> = &[&nobody.hosts, &nobody.numbers, &point, &mark.patient, &mark.rank, &mark.run, &PAGE];
        let rows = transaction.query(&WAITING, params).await?;
        for row in &rows {
            let begins = begins(row, get(row, "patient")?, &mut slots)?;
            if get::<Uuid>(row, "run_id")? == run.uuid() {
                return Ok(!begins);
            }
        }
        Ok(rows.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX))
    }

    /// What counts in limits now, by host.
    pub async fn held_runs(&self) -> Result<Vec<HeldRuns>> {
        self.connection().await?.query(&HELD, &[]).await?.iter().map(read_held).collect()
    }
}

fn read_held(row: &Row) -> Result<HeldRuns> {
    Ok(HeldRuns {
        host: HostId::from_uuid(get(row, "host_id")?),
        store: store(row)?,
        labels: json(row, "labels")?,
        runs: count(row, "runs")?,
    })
}

fn store(row: &Row) -> Result<Option<ArchiveStoreId>> {
    Ok(get::<Option<Uuid>>(row, "archive_store")?.map(ArchiveStoreId::from_uuid))
}

/// Goes along the queue until enough is found, or nothing more can begin.
async fn choose(
    transaction: &Transaction<'_>,
    ours: &Sessions,
    slots: &mut Slots,
    most: usize,
) -> Result<Vec<(Uuid, Uuid)>> {
    let mut chosen = Vec::new();
    let mut mark = Mark::START;
    loop {
        let point = queue::point_ms();
        let params: Params<'_> = &[&ours.hosts, &ours.numbers, &point, &mark.patient, &mark.rank, &mark.run, &PAGE];
        let rows = transaction.query(&WAITING, params).await?;
        for row in &rows {
            mark = Mark { patient: get(row, "patient")?, rank: get(row, "rank")?, run: get(row, "run_id")? };
            if begins(row, mark.patient, slots)? && get(row, "is_ours")? {
                chosen.push((mark.run, get(row, "host_id")?));
            }
            if chosen.len() >= most {
                return Ok(chosen);
            }
        }
        if rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) || (mark.patient && slots.is_full()) {
            return Ok(chosen);
        }
    }
}

fn begins(row: &Row, patient: bool, slots: &mut Slots) -> Result<bool> {
    if !patient {
        return Ok(true);
    }
    let labels: BTreeMap<String, String> = json(row, "labels")?;
    let host = HostId::from_uuid(get(row, "host_id")?);
    Ok(slots.admit(&Member { host, store: store(row)?, labels: &labels }))
}

async fn claim(
    transaction: &Transaction<'_>,
    sessions: &[(HostId, SessionNumber)],
    chosen: &[(Uuid, Uuid)],
    lease: Duration,
) -> Result<Vec<Claimed>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: BTreeMap<Uuid, SessionNumber> = sessions.iter().map(|(host, number)| (host.uuid(), *number)).collect();
    let runs: Vec<Uuid> = chosen.iter().map(|(run, _)| *run).collect();
    let hosts: Vec<Uuid> = chosen.iter().map(|(_, host)| *host).collect();
    let of_host = |host: &Uuid| big(numbers.get(host).copied().unwrap_or_default().get(), "session number");
    let numbers = hosts.iter().map(of_host).collect::<Result<Vec<i64>>>()?;
    let rows = transaction.query(&CLAIM, &[&runs, &hosts, &numbers, &seconds(lease)]).await?;
    let mut claimed = Vec::with_capacity(rows.len());
    for row in &rows {
        claimed.push(Claimed {
            run: RunId::from_uuid(get(row, "run_id")?),
            attempt: Attempt(small(row, "attempt")?),
            host: HostId::from_uuid(get(row, "host_id")?),
        });
    }
    // In the order of the queue again.
    let places: HashMap<Uuid, usize> = runs.iter().enumerate().map(|(place, run)| (*run, place)).collect();
    claimed.sort_by_key(|found| places.get(&found.run.uuid()).copied());
    Ok(claimed)
}
