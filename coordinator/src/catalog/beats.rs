//! Heartbeats of many hosts in one transaction. Invariant: it never waits. A row that somebody has locked is left out, and its host's
//! heartbeat is taken by itself ([`Catalog::touch_session`], [`Catalog::beat_runs`]), so that one held lock delays one host.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use coord_shared::ids::{HostId, RunId, SessionNumber};
use jiff::Timestamp;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::leases::RunBeat;
use super::pool::{Catalog, Params, Sql};
use super::row::{big, get, int, seconds, to_json};

/// The heartbeat of a host.
#[derive(Debug, Clone)]
pub struct HostBeat {
    /// Whose.
    pub host: HostId,
    /// Over which session.
    pub session: SessionNumber,
    /// The host's clock when it was sent, in microseconds since 1970; 0: not said.
    pub sent_at_us: i64,
    /// What the host holds.
    pub runs: Vec<RunBeat>,
}

/// What came of heartbeats.
#[derive(Debug, Clone)]
pub struct Beaten {
    /// The database's time.
    pub now: Timestamp,
    /// Hosts whose session is the newest and was noted. Any other has to be looked at by itself.
    pub hosts: HashSet<HostId>,
    /// Attempts whose leases were extended, and whether they are to be cancelled. Any other has to be looked at by itself.
    pub runs: HashMap<RunId, bool>,
}

// A heartbeat that a crash of the database forgets costs nothing: nothing is reaped until the hosts had time to beat again.
const RELAX: Sql = Sql("SELECT now() AS now, set_config('synchronous_commit', 'off', true)");

pub(super) const TOUCH_MANY: Sql = Sql("
    UPDATE hosts h SET last_seen_at = now(), session_open = true,
        clock_offset_us = CASE WHEN b.sent_at_us = 0 THEN 0 ELSE b.sent_at_us - (extract(epoch FROM now()) * 1000000)::bigint END
    FROM (
        SELECT t.host, s.sent_at_us FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS s (host_id, session, sent_at_us)
        JOIN hosts t ON t.host_id = s.host_id AND t.session_number = s.session
        FOR NO KEY UPDATE OF t SKIP LOCKED
    ) b
    WHERE h.host = b.host
    RETURNING h.host_id");

// OFFSET 0: see `Sql`.
pub(super) const BEAT_MANY: Sql = Sql("
    UPDATE runs r SET lease_until = now() + make_interval(secs => $1), lease_session = b.session,
        progress = coalesce(b.progress, r.progress)
    FROM (
        SELECT t.run_id, s.session, s.progress
        FROM unnest($2::uuid[], $3::bigint[], $4::uuid[], $5::integer[], $6::jsonb[])
            AS s (host_id, session, run_id, attempt, progress)
        JOIN hosts h ON h.host_id = s.host_id AND h.session_number = s.session
        CROSS JOIN LATERAL (
            SELECT w.run_id, w.host, w.attempt, w.state FROM runs w WHERE w.run_id = s.run_id OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED
        ) t
        WHERE t.attempt = s.attempt AND t.host = h.host AND t.state IN ('leased', 'running', 'verifying')
    ) b
    WHERE r.run_id = b.run_id
    RETURNING r.run_id, r.cancelling");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("RELAX", &RELAX), ("TOUCH_MANY", &TOUCH_MANY), ("BEAT_MANY", &BEAT_MANY)];

/// Columns of [`BEAT_MANY`].
#[derive(Default)]
struct Runs {
    hosts: Vec<Uuid>,
    sessions: Vec<i64>,
    ids: Vec<Uuid>,
    attempts: Vec<i32>,
    progress: Vec<Option<serde_json::Value>>,
}

impl Catalog {
    /// Notes that these hosts were heard of, and extends the leases of what they hold.
    pub async fn beat_hosts(&self, beats: &[HostBeat], lease: Duration) -> Result<Beaten> {
        let hosts: Vec<Uuid> = beats.iter().map(|beat| beat.host.uuid()).collect();
        let session = |beat: &HostBeat| big(beat.session.get(), "session number");
        let sessions = beats.iter().map(session).collect::<Result<Vec<i64>>>()?;
        let sent: Vec<i64> = beats.iter().map(|beat| beat.sent_at_us).collect();
        let mut runs = Runs::default();
        for beat in beats {
            for run in &beat.runs {
                runs.hosts.push(beat.host.uuid());
                runs.sessions.push(session(beat)?);
                runs.ids.push(run.run.uuid());
                runs.attempts.push(int(run.attempt.get(), "attempt")?);
                runs.progress.push(run.progress.as_ref().map(to_json).transpose()?);
            }
        }
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let row = transaction.query_opt(&RELAX, &[]).await?;
        let now = get(&row.ok_or_else(|| CatalogError::not_found("row", "now"))?, "now")?;
        let mut beaten = Beaten { now, hosts: HashSet::with_capacity(beats.len()), runs: HashMap::new() };
        for row in transaction.query(&TOUCH_MANY, &[&hosts, &sessions, &sent]).await? {
            beaten.hosts.insert(HostId::from_uuid(get(&row, "host_id")?));
        }
        if !runs.ids.is_empty() {
            let Runs { hosts, sessions, ids, attempts, progress } = &runs;
            let params: Params<'_> = &[&seconds(lease), hosts, sessions, ids, attempts, progress];
            for row in transaction.query(&BEAT_MANY, params).await? {
                beaten.runs.insert(RunId::from_uuid(get(&row, "run_id")?), get(&row, "cancelling")?);
            }
        }
        transaction.commit().await?;
        Ok(beaten)
    }
}
