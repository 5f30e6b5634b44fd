//! Which session of a host counts. Invariant: the session number of a host only rises, and a session counts only while it is the
//! newest; who opens one says which one it saw, so that two coordinators cannot both replace the same.

use coord_shared::ids::{ArchiveStoreId, CoordinatorId, HostId, InstanceId, SessionNumber};
use jiff::Timestamp;
use tokio_postgres::Row;

use super::error::{CatalogError, Result};
use super::hosts::HostFacts;
use super::pool::{Catalog, Sql};
use super::row::{big, count, get};

/// The newest session of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSession {
    /// Its number; 0 before the first.
    pub number: SessionNumber,
    /// Whether its stream is open, as far as is known.
    pub open: bool,
    /// The agent process.
    pub instance: Option<InstanceId>,
    /// The coordinator it is connected to.
    pub coordinator: Option<CoordinatorId>,
    /// Whether that coordinator is alive.
    pub coordinator_alive: bool,
    /// When the host was last heard of.
    pub last_seen_at: Option<Timestamp>,
}

/// A session about to open.
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// Whose.
    pub host: HostId,
    /// The newest session that the caller saw: opening succeeds only if it still is.
    pub seen: SessionNumber,
    /// The agent process.
    pub instance: InstanceId,
    /// This coordinator.
    pub coordinator: CoordinatorId,
    /// What the host says of itself.
    pub facts: HostFacts,
    /// Where its agent keeps archives.
    pub archive_folder: Vec<u8>,
    /// Which folder that is, where it is known.
    pub archive_store: Option<ArchiveStoreId>,
    /// Its clock less the database's, in microseconds.
    pub clock_offset_us: i64,
}

/// What came of opening a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenedSession {
    /// This number is the newest now.
    Opened(SessionNumber),
    /// Another session opened meanwhile; look again.
    Changed(HostSession),
}

const SESSION: Sql = Sql("
    SELECT h.session_number, h.session_open, h.session_instance, h.session_coordinator, h.last_seen_at,
           EXISTS (
               SELECT FROM coordinators c
               WHERE c.coordinator_id = h.session_coordinator AND c.last_beat_at > now() - INTERVAL '15 s'
           ) AS coordinator_alive
    FROM hosts h WHERE h.host_id = $1");

const OPEN: Sql = Sql("
    UPDATE hosts SET session_number = session_number + 1, session_open = true, session_instance = $3,
        session_coordinator = $4, hostname = $5, operating_system = $6, version = $7, archive_folder = $8,
        clock_offset_us = $9, archive_store = $10, last_seen_at = now()
    WHERE host_id = $1 AND session_number = $2
    RETURNING session_number");

const TOUCH: Sql = Sql("
    UPDATE hosts SET last_seen_at = now(), clock_offset_us = $3, session_open = true
    WHERE host_id = $1 AND session_number = $2");

const CLOSE: Sql =
    Sql("UPDATE hosts SET session_open = false WHERE host_id = $1 AND session_number = $2 AND session_open");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("SESSION", &SESSION), ("OPEN", &OPEN), ("TOUCH", &TOUCH), ("CLOSE", &CLOSE)];

fn read(row: &Row) -> Result<HostSession> {
    Ok(HostSession {
        number: SessionNumber(count(row, "session_number")?),
        open: get(row, "session_open")?,
        instance: get::<Option<_>>(row, "session_instance")?.map(InstanceId::from_uuid),
        coordinator: get::<Option<_>>(row, "session_coordinator")?.map(CoordinatorId::from_uuid),
        coordinator_alive: get(row, "coordinator_alive")?,
        last_seen_at: get(row, "last_seen_at")?,
    })
}

impl Catalog {
    /// The newest session of a host.
    pub async fn host_session(&self, host: HostId) -> Result<HostSession> {
        let row = self.connection().await?.query_opt(&SESSION, &[&host.uuid()]).await?;
        read(&row.ok_or_else(|| CatalogError::not_found("host", host))?)
    }

    /// Opens a session, which ends the one before.
    pub async fn open_session(&self, session: &OpenSession) -> Result<OpenedSession> {
        let seen = big(session.seen.get(), "session number")?;
        let facts = &session.facts;
        let row = self
            .connection()
            .await?
            .query_opt(
                &OPEN,
                &[
                    &session.host.uuid(),
                    &seen,
                    &session.instance.uuid(),
                    &session.coordinator.uuid(),
                    &facts.hostname,
                    &facts.operating_system,
                    &facts.version,
                    &session.archive_folder,
                    &session.clock_offset_us,
                    &session.archive_store.map(ArchiveStoreId::uuid),
                ],
            )
            .await?;
        match row {
            Some(row) => Ok(OpenedSession::Opened(SessionNumber(count(&row, "session_number")?))),
            None => Ok(OpenedSession::Changed(self.host_session(session.host).await?)),
        }
    }

    /// The session was heard of. False: it is not the newest any more and must end.
    pub async fn touch_session(&self, host: HostId, number: SessionNumber, clock_offset_us: i64) -> Result<bool> {
        let number = big(number.get(), "session number")?;
        Ok(self.connection().await?.execute(&TOUCH, &[&host.uuid(), &number, &clock_offset_us]).await? == 1)
    }

    /// The session's stream ended. False: another had taken its place already.
    pub async fn close_session(&self, host: HostId, number: SessionNumber) -> Result<bool> {
        let number = big(number.get(), "session number")?;
        Ok(self.connection().await?.execute(&CLOSE, &[&host.uuid(), &number]).await? == 1)
    }
}
