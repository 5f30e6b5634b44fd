//! The fleet's defaults for policies: one document with versions. Invariant: a version is never changed, and it is written in the
//! transaction that writes what policies become by it.

use coord_shared::ids::PolicyVersion;
use jiff::Timestamp;

use super::error::Result;
use super::pool::{Catalog, Sql, Transaction};
use super::row::{big, count, get};

/// The document at one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultsRecord {
    /// The version.
    pub version: PolicyVersion,
    /// The file as applied.
    pub toml: String,
    /// Who applied it.
    pub applied_by: String,
    /// When.
    pub applied_at: Timestamp,
}

/// A document about to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDefaults {
    /// One more than the version that was seen.
    pub version: PolicyVersion,
    /// The file.
    pub toml: String,
    /// Who applies it.
    pub applied_by: String,
}

const NEWEST: Sql =
    Sql("SELECT version, toml, applied_by, applied_at FROM policy_defaults ORDER BY version DESC LIMIT 1");

// Whoever writes a policy keeps new defaults out, and new defaults keep out whoever writes a policy, until either is done: what a
// policy becomes is worked out from both.
const LOCK_FOR_POLICIES: Sql = Sql("LOCK TABLE policy_defaults IN SHARE MODE");

const LOCK_FOR_DEFAULTS: Sql = Sql("LOCK TABLE policy_defaults IN SHARE ROW EXCLUSIVE MODE");

const INSERT: Sql = Sql("INSERT INTO policy_defaults (version, toml, applied_by) VALUES ($1, $2, $3)");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("NEWEST", &NEWEST),
    ("LOCK_FOR_POLICIES", &LOCK_FOR_POLICIES),
    ("LOCK_FOR_DEFAULTS", &LOCK_FOR_DEFAULTS),
    ("INSERT", &INSERT),
];

/// Keeps others from writing defaults, and with `and_policies` from writing policies, until the transaction ends. Answers the newest
/// version of the defaults, which stays that.
pub(super) async fn lock(transaction: &Transaction<'_>, and_policies: bool) -> Result<Option<PolicyVersion>> {
    let lock = if and_policies { &LOCK_FOR_DEFAULTS } else { &LOCK_FOR_POLICIES };
    transaction.execute(lock, &[]).await?;
    let row = transaction.query_opt(&NEWEST, &[]).await?;
    row.map(|row| Ok(PolicyVersion(count(&row, "version")?))).transpose()
}

/// Writes a version together with what policies become by it.
pub(super) async fn insert(transaction: &Transaction<'_>, new: &NewDefaults) -> Result<()> {
    let version = big(new.version.get(), "version of the defaults")?;
    transaction.execute(&INSERT, &[&version, &new.toml, &new.applied_by]).await?;
    Ok(())
}

impl Catalog {
    /// The newest version; `None` while no defaults were ever applied.
    pub async fn policy_defaults(&self) -> Result<Option<DefaultsRecord>> {
        let Some(row) = self.connection().await?.query_opt(&NEWEST, &[]).await? else { return Ok(None) };
        Ok(Some(DefaultsRecord {
            version: PolicyVersion(count(&row, "version")?),
            toml: get(&row, "toml")?,
            applied_by: get(&row, "applied_by")?,
            applied_at: get(&row, "applied_at")?,
        }))
    }
}
