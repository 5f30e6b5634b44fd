//! Hosts: who is protected. Invariant: a host's name is never given to another host, so rows are never deleted.

use std::collections::BTreeMap;

use coord_shared::ids::{ArchiveStoreId, HostId};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Result;
use super::pool::{Catalog, Sql};
use super::row::{get, json, word};

/// Whether a host may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// It may.
    Active,
    /// It was put out; its backups stay.
    Revoked,
}

/// A protected machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its slug.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it may connect.
    pub state: HostState,
    /// What it calls itself.
    pub hostname: String,
    /// Name and version of its system.
    pub operating_system: String,
    /// Version of its agent.
    pub version: String,
    /// Where its agent keeps archives.
    pub archive_folder: Vec<u8>,
    /// Which folder that is, where it is known: hosts that share it have the same.
    pub archive_store: Option<ArchiveStoreId>,
    /// Its clock less the database's, in microseconds.
    pub clock_offset_us: i64,
    /// When it joined.
    pub joined_at: Timestamp,
    /// Whether it has a session at a coordinator that is alive.
    pub connected: bool,
    /// When it was last heard of.
    pub last_seen_at: Option<Timestamp>,
}

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// What it calls itself.
    pub hostname: String,
    /// Name and version of its system.
    pub operating_system: String,
    /// Version of its agent.
    pub version: String,
}

/// A host about to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHost {
    /// Its id.
    pub id: HostId,
    /// Its slug.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it says of itself.
    pub facts: HostFacts,
}

impl HostState {
    /// Every state, for the CHECK list.
    pub const ALL: [HostState; 2] = [HostState::Active, HostState::Revoked];

    /// The word in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            HostState::Active => "active",
            HostState::Revoked => "revoked",
        }
    }
}

super::words::impl_word!(HostState, "state of a host");

/// Hosts answered at most.
pub const MAX_HOSTS: i64 = 100_000;

macro_rules! select_hosts {
    ($tail:literal) => {
        concat!(
            "SELECT h.host_id, h.name, h.labels, h.state, h.hostname, h.operating_system, h.version, h.archive_folder, h.archive_store,
                    h.clock_offset_us, h.joined_at, h.last_seen_at,
                    h.session_open AND EXISTS (
                        SELECT FROM coordinators c
                        WHERE c.coordinator_id = h.session_coordinator AND c.last_beat_at > now() - INTERVAL '15 s'
                    ) AS connected
             FROM hosts h ",
            $tail
        )
    };
}

const BY_ID: Sql = Sql(select_hosts!("WHERE h.host_id = $1"));

const BY_NAME: Sql = Sql(select_hosts!("WHERE h.name = $1"));

const ALL: Sql = Sql(select_hosts!("ORDER BY h.name LIMIT $1"));

const BY_PREFIX: Sql = Sql(select_hosts!("WHERE h.host_id::text LIKE $1 || '%' ORDER BY h.name LIMIT 10"));

pub(super) const INSERT_HOST: Sql = Sql("
    INSERT INTO hosts (host_id, name, labels, hostname, operating_system, version) VALUES ($1, $2, $3, $4, $5, $6)");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("BY_ID", &BY_ID),
    ("BY_NAME", &BY_NAME),
    ("ALL", &ALL),
    ("BY_PREFIX", &BY_PREFIX),
    ("INSERT_HOST", &INSERT_HOST),
];

fn read(row: &Row) -> Result<Host> {
    Ok(Host {
        id: HostId::from_uuid(get(row, "host_id")?),
        name: get(row, "name")?,
        labels: json(row, "labels")?,
        state: word(row, "state")?,
        hostname: get(row, "hostname")?,
        operating_system: get(row, "operating_system")?,
        version: get(row, "version")?,
        archive_folder: get(row, "archive_folder")?,
        archive_store: get::<Option<Uuid>>(row, "archive_store")?.map(ArchiveStoreId::from_uuid),
        clock_offset_us: get(row, "clock_offset_us")?,
        joined_at: get(row, "joined_at")?,
        connected: get(row, "connected")?,
        last_seen_at: get(row, "last_seen_at")?,
    })
}

impl Catalog {
    /// A host by its id.
    pub async fn host(&self, id: HostId) -> Result<Option<Host>> {
        self.connection().await?.query_opt(&BY_ID, &[&id.uuid()]).await?.as_ref().map(read).transpose()
    }

    /// A host by its name.
    pub async fn host_by_name(&self, name: &str) -> Result<Option<Host>> {
        self.connection().await?.query_opt(&BY_NAME, &[&name]).await?.as_ref().map(read).transpose()
    }

    /// Hosts whose id begins with `prefix` (hexadecimal digits and hyphens; anything else finds none), at most ten.
    pub async fn hosts_by_id_prefix(&self, prefix: &str) -> Result<Vec<Host>> {
        if !super::words::is_id_prefix(prefix) {
            return Ok(Vec::new());
        }
        self.connection().await?.query(&BY_PREFIX, &[&prefix]).await?.iter().map(read).collect()
    }

    /// All hosts by name, at most [`MAX_HOSTS`].
    pub async fn hosts(&self) -> Result<Vec<Host>> {
        self.connection().await?.query(&ALL, &[&MAX_HOSTS]).await?.iter().map(read).collect()
    }
}
