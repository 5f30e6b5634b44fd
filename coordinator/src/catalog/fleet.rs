//! The fleet itself and the coordinators that serve it.

use std::time::Duration;

use coord_shared::ids::CoordinatorId;
use jiff::Timestamp;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql};
use super::row::{get, seconds};

/// The one fleet of this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Its name, part of every certificate.
    pub name: String,
}

/// A coordinator process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorRecord {
    /// Its id.
    pub id: CoordinatorId,
    /// host:port of its main listener.
    pub endpoint: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub last_beat_at: Timestamp,
}

/// A coordinator that was not heard of for this long is gone.
pub const COORDINATOR_GONE_AFTER: Duration = Duration::from_secs(15);

const NOW: Sql = Sql("SELECT now() AS now");

const SERVER: Sql = Sql("SELECT current_setting('server_version') AS version");

const CLAIM_FLEET: Sql = Sql("INSERT INTO fleet (name) VALUES ($1) ON CONFLICT (singleton) DO NOTHING");

const FLEET: Sql = Sql("SELECT name FROM fleet");

// The quiet time after a start is given here; after an outage of the database, that is a beat that came late, again.
const BEAT: Sql = Sql("
    INSERT INTO coordinators (coordinator_id, endpoint, version, quiet_until)
    VALUES ($1, $2, $3, now() + make_interval(secs => $4))
    ON CONFLICT (coordinator_id) DO UPDATE SET
        endpoint = EXCLUDED.endpoint,
        version = EXCLUDED.version,
        last_beat_at = now(),
        quiet_until = CASE
            WHEN coordinators.last_beat_at < now() - make_interval(secs => $5) THEN EXCLUDED.quiet_until
            ELSE coordinators.quiet_until
        END");

const COORDINATORS: Sql = Sql("
    SELECT coordinator_id, endpoint, version, started_at, last_beat_at FROM coordinators
    WHERE last_beat_at >= now() - make_interval(secs => $1)
    ORDER BY started_at, coordinator_id
    LIMIT 1000");

const FORGET_COORDINATOR: Sql = Sql("DELETE FROM coordinators WHERE coordinator_id = $1");

const FORGET_OLD_COORDINATORS: Sql = Sql("DELETE FROM coordinators WHERE last_beat_at < now() - INTERVAL '1 day'");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("NOW", &NOW),
    ("SERVER", &SERVER),
    ("CLAIM_FLEET", &CLAIM_FLEET),
    ("FLEET", &FLEET),
    ("BEAT", &BEAT),
    ("COORDINATORS", &COORDINATORS),
    ("FORGET_COORDINATOR", &FORGET_COORDINATOR),
    ("FORGET_OLD_COORDINATORS", &FORGET_OLD_COORDINATORS),
];

impl Catalog {
    /// The database's time: the only one for leases and schedules.
    pub async fn now(&self) -> Result<Timestamp> {
        let row = self.connection().await?.query_opt(&NOW, &[]).await?;
        get(&row.ok_or_else(|| CatalogError::not_found("row", "now"))?, "now")
    }

    /// Version of the database server, such as 15.14.
    pub async fn server_version(&self) -> Result<String> {
        let row = self.connection().await?.query_opt(&SERVER, &[]).await?;
        get(&row.ok_or_else(|| CatalogError::not_found("row", "version"))?, "version")
    }

    /// Gives an empty database its fleet's name; answers the name that it has, which may be another.
    pub async fn claim_fleet(&self, name: &str) -> Result<Fleet> {
        let connection = self.connection().await?;
        connection.execute(&CLAIM_FLEET, &[&name]).await?;
        let row = connection.query_opt(&FLEET, &[]).await?.ok_or_else(|| CatalogError::not_found("fleet", name))?;
        Ok(Fleet { name: get(&row, "name")? })
    }

    /// A coordinator says that it lives. Its first beat, and a beat more than `outage` after the one before, begin a quiet time of
    /// `grace` in which nobody reaps.
    pub async fn beat_coordinator(
        &self,
        id: CoordinatorId,
        endpoint: &str,
        version: &str,
        grace: Duration,
        outage: Duration,
    ) -> Result<()> {
        let (grace, outage) = (seconds(grace), seconds(outage));
        let connection = self.connection().await?;
        connection.execute(&BEAT, &[&id.uuid(), &endpoint, &version, &grace, &outage]).await?;
        connection.execute(&FORGET_OLD_COORDINATORS, &[]).await?;
        Ok(())
    }

    /// The coordinators that are alive, oldest first.
    pub async fn coordinators(&self) -> Result<Vec<CoordinatorRecord>> {
        let gone = seconds(COORDINATOR_GONE_AFTER);
        let rows = self.connection().await?.query(&COORDINATORS, &[&gone]).await?;
        rows.iter()
            .map(|row| {
                Ok(CoordinatorRecord {
                    id: CoordinatorId::from_uuid(get(row, "coordinator_id")?),
                    endpoint: get(row, "endpoint")?,
                    version: get(row, "version")?,
                    started_at: get(row, "started_at")?,
                    last_beat_at: get(row, "last_beat_at")?,
                })
            })
            .collect()
    }

    /// A coordinator says goodbye: its sessions are known to be over at once.
    pub async fn forget_coordinator(&self, id: CoordinatorId) -> Result<()> {
        self.connection().await?.execute(&FORGET_COORDINATOR, &[&id.uuid()]).await?;
        Ok(())
    }
}
