//! Operators: people and scripts, and what they may do.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::error::Result;
use super::hosts::HostState;
use super::pool::{Catalog, Sql};
use super::row::{get, word};

/// What an operator may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperatorRole {
    /// Look.
    Viewer,
    /// Bring files back.
    Restorer,
    /// Change policies, start and cancel runs, let hosts join.
    Operator,
    /// Everything.
    Admin,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorRecord {
    /// User name.
    pub name: String,
    /// What they may do.
    pub role: OperatorRole,
    /// Whether they may do anything.
    pub active: bool,
}

/// An operator in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorEntry {
    /// Who.
    pub operator: OperatorRecord,
    /// Since when.
    pub created_at: Timestamp,
    /// When the last of their certificates ends; `None` without one that counts.
    pub certificate_ends: Option<Timestamp>,
}

impl OperatorRole {
    /// Every role, for the CHECK list.
    pub const ALL: [OperatorRole; 4] =
        [OperatorRole::Viewer, OperatorRole::Restorer, OperatorRole::Operator, OperatorRole::Admin];

    /// The word in SQL and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            OperatorRole::Viewer => "viewer",
            OperatorRole::Restorer => "restorer",
            OperatorRole::Operator => "operator",
            OperatorRole::Admin => "admin",
        }
    }
}

/// Operators answered at most.
pub const MAX_OPERATORS: i64 = 10_000;

super::words::impl_word!(OperatorRole, "role: viewer, restorer, operator or admin");

const BY_NAME: Sql = Sql("SELECT name, role, state FROM operators WHERE name = $1");

const ALL: Sql = Sql("
    SELECT o.name, o.role, o.state, o.created_at,
           (SELECT max(c.not_after) FROM certificates c
            WHERE c.subject_kind = 'operator' AND c.subject_id = o.name AND c.state = 'active') AS certificate_ends
    FROM operators o ORDER BY o.name LIMIT $1");

// A grant never brings back who was put out, never lowers a role, and reaches a name that is taken only when it comes from that
// person ($3), from somebody with at least their role, or from the coordinator's own machine (NULL). It is judged here, beside the
// row, because the name may have got its role after the token was made.
pub(super) const GRANT: Sql = Sql("
    WITH ranks (role, rank) AS (VALUES ('viewer', 1), ('restorer', 2), ('operator', 3), ('admin', 4))
    INSERT INTO operators AS o (name, role) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET role = (
        SELECT r.role FROM ranks r WHERE r.role IN (o.role, EXCLUDED.role) ORDER BY r.rank DESC LIMIT 1)
    WHERE o.state = 'active' AND ($3::text IS NULL OR $3 = o.name OR EXISTS (
        SELECT FROM operators m JOIN ranks theirs ON theirs.role = m.role JOIN ranks its ON its.role = o.role
        WHERE m.name = $3 AND m.state = 'active' AND theirs.rank >= its.rank))");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("BY_NAME", &BY_NAME), ("ALL", &ALL), ("GRANT", &GRANT)];

fn read(row: &Row) -> Result<OperatorRecord> {
    Ok(OperatorRecord {
        name: get(row, "name")?,
        role: word(row, "role")?,
        active: word::<HostState>(row, "state")? == HostState::Active,
    })
}

impl Catalog {
    /// An operator by name.
    pub async fn operator(&self, name: &str) -> Result<Option<OperatorRecord>> {
        self.connection().await?.query_opt(&BY_NAME, &[&name]).await?.as_ref().map(read).transpose()
    }

    /// All operators by name, at most [`MAX_OPERATORS`].
    pub async fn operators(&self) -> Result<Vec<OperatorEntry>> {
        let rows = self.connection().await?.query(&ALL, &[&MAX_OPERATORS]).await?;
        rows.iter()
            .map(|row| {
                Ok(OperatorEntry {
                    operator: read(row)?,
                    created_at: get(row, "created_at")?,
                    certificate_ends: get(row, "certificate_ends")?,
                })
            })
            .collect()
    }

    /// Makes an operator, or raises an active one to this role, in the name of the coordinator's own machine.
    pub async fn grant_operator(&self, name: &str, role: OperatorRole) -> Result<()> {
        self.connection().await?.execute(&GRANT, &[&name, &role.as_str(), &None::<&str>]).await?;
        Ok(())
    }
}
