//! Brings the schema up to this version's. Invariant: forward only, one transaction a migration, one runner at a time (an advisory
//! lock on a connection of its own). An older program keeps working on a newer schema as long as `compatible_from` allows it.

use tokio_postgres::Client;

use super::error::CatalogError;
use super::pool::{Catalog, CatalogConfig, Sql};
use super::row::small;

/// The schema this program is written for.
pub const SCHEMA_VERSION: u32 = 20;

/// Key of the advisory lock.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"\0\0\0coord");

struct Migration {
    version: u32,
    name: &'static str,
    /// The oldest program, named by its schema version, that works on the schema after this migration.
    compatible_from: u32,
    text: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "fleet", compatible_from: 1, text: include_str!("../../migrations/0001_fleet.sql") },
    Migration { version: 2, name: "runs", compatible_from: 2, text: include_str!("../../migrations/0002_runs.sql") },
    Migration {
        version: 3,
        name: "entries",
        compatible_from: 3,
        text: include_str!("../../migrations/0003_entries.sql"),
    },
    Migration {
        version: 4,
        name: "effort",
        compatible_from: 3,
        text: include_str!("../../migrations/0004_effort.sql"),
    },
    Migration {
        version: 5,
        name: "left_out",
        compatible_from: 3,
        text: include_str!("../../migrations/0005_left_out.sql"),
    },
    Migration {
        version: 6,
        name: "decision_figures",
        compatible_from: 3,
        text: include_str!("../../migrations/0006_decision_figures.sql"),
    },
    Migration {
        version: 7,
        name: "full_plan",
        compatible_from: 3,
        text: include_str!("../../migrations/0007_full_plan.sql"),
    },
    Migration {
        version: 8,
        name: "limits",
        compatible_from: 3,
        text: include_str!("../../migrations/0008_limits.sql"),
    },
    Migration {
        version: 9,
        name: "policy_origins",
        compatible_from: 3,
        text: include_str!("../../migrations/0009_policy_origins.sql"),
    },
    Migration {
        version: 10,
        name: "index_asks",
        compatible_from: 3,
        text: include_str!("../../migrations/0010_index_asks.sql"),
    },
    Migration {
        version: 11,
        name: "policy_defaults",
        compatible_from: 3,
        text: include_str!("../../migrations/0011_policy_defaults.sql"),
    },
    Migration {
        version: 12,
        name: "run_events",
        compatible_from: 3,
        text: include_str!("../../migrations/0012_run_events.sql"),
    },
    Migration {
        version: 13,
        name: "timing",
        compatible_from: 3,
        text: include_str!("../../migrations/0013_timing.sql"),
    },
    Migration {
        version: 14,
        name: "pauses",
        compatible_from: 3,
        text: include_str!("../../migrations/0014_pauses.sql"),
    },
    Migration {
        version: 15,
        name: "held_runs",
        compatible_from: 3,
        text: include_str!("../../migrations/0015_held_runs.sql"),
    },
    Migration {
        version: 16,
        name: "coordinators",
        compatible_from: 3,
        text: include_str!("../../migrations/0016_coordinators.sql"),
    },
    Migration {
        version: 17,
        name: "short_digests",
        compatible_from: 17,
        text: include_str!("../../migrations/0017_short_digests.sql"),
    },
    Migration {
        version: 18,
        name: "placing",
        compatible_from: 18,
        text: include_str!("../../migrations/0018_placing.sql"),
    },
    Migration {
        version: 19,
        name: "run_history",
        compatible_from: 18,
        text: include_str!("../../migrations/0019_run_history.sql"),
    },
    Migration {
        version: 20,
        name: "targets",
        compatible_from: 18,
        text: include_str!("../../migrations/0020_targets.sql"),
    },
];

// Programs look at the newest migration only: one that lets older programs in again than those before it would undo what they said.
const _: () = {
    let mut at = 1;
    while at < MIGRATIONS.len() {
        assert!(MIGRATIONS[at].compatible_from >= MIGRATIONS[at - 1].compatible_from);
        assert!(MIGRATIONS[at].version == MIGRATIONS[at - 1].version + 1);
        at += 1;
    }
};

/// The text of every migration, in order.
#[cfg(test)]
pub(super) const SCHEMA_TEXTS: [&str; MIGRATIONS.len()] = {
    let mut texts = [""; MIGRATIONS.len()];
    let mut at = 0;
    while at < texts.len() {
        texts[at] = MIGRATIONS[at].text;
        at += 1;
    }
    texts
};

/// Why the schema is not what this program needs.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database cannot be used.
    #[error("the catalog's database cannot be used")]
    Database(#[source] CatalogError),
    /// A newer coordinator changed the schema in a way that this program does not know.
    #[error(
        "the catalog's schema is version {found}, and programs older than {needed} cannot use it: install a newer coordinator"
    )]
    TooNew {
        /// The schema's version.
        found: u32,
        /// The oldest program version that works on it.
        needed: u32,
    },
    /// A migration failed and was undone.
    #[error("migration {version} ({name}) failed and was undone")]
    Migration {
        /// Its number.
        version: u32,
        /// Its name.
        name: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
}

const LOCK: Sql = Sql("SELECT pg_advisory_lock($1)");
const UNLOCK: Sql = Sql("SELECT pg_advisory_unlock($1)");
const CREATE: &str = "CREATE TABLE IF NOT EXISTS schema_version (
    version         integer PRIMARY KEY,
    name            text NOT NULL,
    compatible_from integer NOT NULL,
    applied_at      timestamptz NOT NULL DEFAULT now()
)";
const NEWEST: Sql = Sql("SELECT version, compatible_from FROM schema_version ORDER BY version DESC LIMIT 1");
const RECORD: Sql = Sql("INSERT INTO schema_version (version, name, compatible_from) VALUES ($1, $2, $3)");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("LOCK", &LOCK), ("UNLOCK", &UNLOCK), ("NEWEST", &NEWEST), ("RECORD", &RECORD)];

/// Runs what is missing; answers the schema's version.
pub(super) async fn run(config: &CatalogConfig) -> Result<u32, MigrateError> {
    let mut client = config.connect().await.map_err(MigrateError::Database)?;
    let database = |error| MigrateError::Database(CatalogError::undone(error));
    // Another coordinator's migration may take long; a deadline here would only make a start fail.
    client.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0").await.map_err(database)?;
    client.query(LOCK.0, &[&LOCK_KEY]).await.map_err(database)?;
    let outcome = apply(&mut client).await;
    // The lock ends with the connection in any case.
    if let Err(error) = client.query(UNLOCK.0, &[&LOCK_KEY]).await {
        tracing::debug!(%error, "the migration lock ends with its connection");
    }
    outcome
}

/// The schema of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Its version.
    pub version: u32,
    /// The oldest program, named by its schema version, that works on it.
    pub compatible_from: u32,
}

impl Catalog {
    /// The schema as it is now, which a newer coordinator may have changed since this one started.
    pub async fn schema(&self) -> super::error::Result<Schema> {
        let row = self.connection().await?.query_opt(&NEWEST, &[]).await?;
        let row = row.ok_or_else(|| CatalogError::not_found("schema", "of any version"))?;
        Ok(Schema { version: small(&row, "version")?, compatible_from: small(&row, "compatible_from")? })
    }
}

async fn apply(client: &mut Client) -> Result<u32, MigrateError> {
    let database = |error| MigrateError::Database(CatalogError::undone(error));
    client.batch_execute(CREATE).await.map_err(database)?;
    let (found, needed) = match client.query_opt(NEWEST.0, &[]).await.map_err(database)? {
        Some(row) => (
            small(&row, "version").map_err(MigrateError::Database)?,
            small(&row, "compatible_from").map_err(MigrateError::Database)?,
        ),
        None => (0, 0),
    };
    if needed > SCHEMA_VERSION {
        return Err(MigrateError::TooNew { found, needed });
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        let failed = |source| MigrateError::Migration { version: migration.version, name: migration.name, source };
        let transaction = client.transaction().await.map_err(failed)?;
        transaction.batch_execute(migration.text).await.map_err(failed)?;
        let (version, compatible) = (migration.version.cast_signed(), migration.compatible_from.cast_signed());
        transaction.execute(RECORD.0, &[&version, &migration.name, &compatible]).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        tracing::info!(version = migration.version, name = migration.name, "catalog migrated");
    }
    Ok(found.max(SCHEMA_VERSION))
}
