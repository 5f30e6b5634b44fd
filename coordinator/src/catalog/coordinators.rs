//! The processes that serve the fleet. Invariant: who is alive is told by the database's clock alone; a row says what its process said of
//! itself with its last beat, and nothing else is known of it.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_shared::ids::CoordinatorId;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::error::Result;
use super::pool::{Catalog, Sql};
use super::row::{get, int, json, seconds, small, to_json};

/// A coordinator that was not heard of for this long is gone.
pub const COORDINATOR_GONE_AFTER: Duration = Duration::from_secs(15);

/// A coordinator process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorRecord {
    /// Its id.
    pub id: CoordinatorId,
    /// host:port of its main listener, as the fleet reaches it; more than one where it is reached in several ways.
    pub endpoints: Vec<String>,
    /// The same for its enrolment listener.
    pub enrol_endpoints: Vec<String>,
    /// Its version.
    pub version: String,
    /// The schema it is written for; 0 when it did not say.
    pub schema: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub last_beat_at: Timestamp,
    /// It was heard of within [`COORDINATOR_GONE_AFTER`].
    pub alive: bool,
    /// Agents connected to it.
    pub sessions: u32,
    /// Since when it takes on nothing new.
    pub draining_since: Option<Timestamp>,
    /// The operator who asked for that.
    pub drain_asked_by: Option<String>,
    /// Its duties, and for how long before its last beat each had been done, in milliseconds.
    pub duties: BTreeMap<String, u64>,
}

/// What a coordinator says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Beat<'a> {
    /// Its id.
    pub id: CoordinatorId,
    /// See [`CoordinatorRecord::endpoints`].
    pub endpoints: &'a [String],
    /// See [`CoordinatorRecord::enrol_endpoints`].
    pub enrol_endpoints: &'a [String],
    /// Its version.
    pub version: &'a str,
    /// Agents connected to it.
    pub sessions: u32,
    /// See [`CoordinatorRecord::duties`].
    pub duties: &'a BTreeMap<&'static str, u64>,
    /// It takes on nothing new.
    pub draining: bool,
}

/// What the catalog has to say to a coordinator that beats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The operator who wants it to drain.
    pub drain_asked_by: Option<String>,
    /// The oldest program, named by its schema version, that works on the schema as it is now.
    pub compatible_from: u32,
}

// The quiet time after a start is given here; after an outage of the database, that is a beat that came late, again.
const BEAT: Sql = Sql("
    INSERT INTO coordinators (coordinator_id, endpoint, version, quiet_until, schema_version, endpoints, enrol_endpoints,
        sessions, duties, draining_since)
    VALUES ($1, coalesce(($6::text[])[1], ''), $2, now() + make_interval(secs => $3), $5, $6, $7, $8, $9, CASE WHEN $10 THEN now() END)
    ON CONFLICT (coordinator_id) DO UPDATE SET
        endpoint = EXCLUDED.endpoint,
        version = EXCLUDED.version,
        schema_version = EXCLUDED.schema_version,
        endpoints = EXCLUDED.endpoints,
        enrol_endpoints = EXCLUDED.enrol_endpoints,
        sessions = EXCLUDED.sessions,
        duties = EXCLUDED.duties,
        draining_since = coalesce(coordinators.draining_since, EXCLUDED.draining_since),
        last_beat_at = now(),
        quiet_until = CASE
            WHEN coordinators.last_beat_at < now() - make_interval(secs => $4) THEN EXCLUDED.quiet_until
            ELSE coordinators.quiet_until
        END
    RETURNING drain_asked_by,
        (SELECT v.compatible_from FROM schema_version v ORDER BY v.version DESC LIMIT 1) AS compatible_from");

const COORDINATORS: Sql = Sql("
    SELECT coordinator_id, CASE WHEN endpoints = '{}' THEN ARRAY[endpoint] ELSE endpoints END AS endpoints, enrol_endpoints,
        version, schema_version, started_at, last_beat_at, sessions, draining_since, drain_asked_by, duties,
        last_beat_at >= now() - make_interval(secs => $1) AS alive
    FROM coordinators
    ORDER BY started_at, coordinator_id
    LIMIT 1000");

const ASK_TO_DRAIN: Sql = Sql("
    UPDATE coordinators SET drain_asked_by = coalesce(drain_asked_by, $2) WHERE coordinator_id = $1");

const FORGET_COORDINATOR: Sql = Sql("DELETE FROM coordinators WHERE coordinator_id = $1");

const FORGET_OLD_COORDINATORS: Sql = Sql("DELETE FROM coordinators WHERE last_beat_at < now() - INTERVAL '1 day'");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("BEAT", &BEAT),
    ("COORDINATORS", &COORDINATORS),
    ("ASK_TO_DRAIN", &ASK_TO_DRAIN),
    ("FORGET_COORDINATOR", &FORGET_COORDINATOR),
    ("FORGET_OLD_COORDINATORS", &FORGET_OLD_COORDINATORS),
];

fn read(row: &Row) -> Result<CoordinatorRecord> {
    Ok(CoordinatorRecord {
        id: CoordinatorId::from_uuid(get(row, "coordinator_id")?),
        endpoints: get(row, "endpoints")?,
        enrol_endpoints: get(row, "enrol_endpoints")?,
        version: get(row, "version")?,
        schema: small(row, "schema_version")?,
        started_at: get(row, "started_at")?,
        last_beat_at: get(row, "last_beat_at")?,
        alive: get(row, "alive")?,
        sessions: small(row, "sessions")?,
        draining_since: get(row, "draining_since")?,
        drain_asked_by: get(row, "drain_asked_by")?,
        duties: json(row, "duties")?,
    })
}

impl Catalog {
    /// A coordinator says that it lives, and hears what is wanted of it. Its first beat, and a beat more than `outage` after the one
    /// before, begin a quiet time of `grace` in which nobody reaps.
    pub async fn beat_coordinator(&self, beat: Beat<'_>, grace: Duration, outage: Duration) -> Result<Standing> {
        let (grace, outage) = (seconds(grace), seconds(outage));
        let (schema, sessions) = (int(super::SCHEMA_VERSION, "schema version")?, int(beat.sessions, "sessions")?);
        let duties = to_json(beat.duties)?;
        let connection = self.connection().await?;
        let row = connection
            .query_opt(
                &BEAT,
                &[
                    &beat.id.uuid(),
                    &beat.version,
                    &grace,
                    &outage,
                    &schema,
                    &beat.endpoints,
                    &beat.enrol_endpoints,
                    &sessions,
                    &duties,
                    &beat.draining,
                ],
            )
            .await?;
        connection.execute(&FORGET_OLD_COORDINATORS, &[]).await?;
        let row = row.ok_or_else(|| super::CatalogError::not_found("coordinator", beat.id))?;
        Ok(Standing { drain_asked_by: get(&row, "drain_asked_by")?, compatible_from: small(&row, "compatible_from")? })
    }

    /// The coordinators that were heard of in the last day, oldest first.
    pub async fn coordinators(&self) -> Result<Vec<CoordinatorRecord>> {
        let gone = seconds(COORDINATOR_GONE_AFTER);
        let rows = self.connection().await?.query(&COORDINATORS, &[&gone]).await?;
        rows.iter().map(read).collect()
    }

    /// Wants a coordinator to drain: it hears of it with its next beat. False: there is no such coordinator.
    pub async fn ask_to_drain(&self, id: CoordinatorId, user: &str) -> Result<bool> {
        Ok(self.connection().await?.execute(&ASK_TO_DRAIN, &[&id.uuid(), &user]).await? == 1)
    }

    /// A coordinator says goodbye: its sessions are known to be over at once.
    pub async fn forget_coordinator(&self, id: CoordinatorId) -> Result<()> {
        self.connection().await?.execute(&FORGET_COORDINATOR, &[&id.uuid()]).await?;
        Ok(())
    }
}
