//! The fleet itself, and the database it lives in.

use jiff::Timestamp;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql};
use super::row::get;

/// The one fleet of this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Its name, part of every certificate.
    pub name: String,
}

const NOW: Sql = Sql("SELECT now() AS now");

const SERVER: Sql = Sql("SELECT current_setting('server_version') AS version");

const CLAIM_FLEET: Sql = Sql("INSERT INTO fleet (name) VALUES ($1) ON CONFLICT (singleton) DO NOTHING");

const FLEET: Sql = Sql("SELECT name FROM fleet");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("NOW", &NOW), ("SERVER", &SERVER), ("CLAIM_FLEET", &CLAIM_FLEET), ("FLEET", &FLEET)];

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
}
