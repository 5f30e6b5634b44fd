//! Limits on how many runs go on at once, as operators set them. They are counted where runs are claimed: see `claims`.

use coord_shared::selector::Selector;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Params, Sql, Transaction};
use super::row::{get, int, small, word};
use crate::domain::queue::{Bound, Scope};

/// The word for a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// All runs of the fleet.
    Fleet,
    /// Those of each host by itself.
    Host,
    /// Those of each target of archives by itself.
    Target,
    /// Those of the hosts that a selector means.
    Group,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRecord {
    /// Its name.
    pub name: String,
    /// What it bounds.
    pub bound: Bound,
    /// Who set it.
    pub changed_by: String,
    /// When.
    pub changed_at: Timestamp,
}

/// Limits there may be.
const MAX_LIMITS: i64 = 1000;

pub(super) const LIST: Sql =
    Sql("SELECT name, scope, each_target, selector, runs, changed_by, changed_at FROM limits ORDER BY name LIMIT $1");

const SET: Sql = Sql("
    INSERT INTO limits (name, scope, each_target, selector, runs, changed_by) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (name) DO UPDATE SET scope = EXCLUDED.scope, each_target = EXCLUDED.each_target, selector = EXCLUDED.selector,
        runs = EXCLUDED.runs, changed_by = EXCLUDED.changed_by, changed_at = now()
    RETURNING name, scope, each_target, selector, runs, changed_by, changed_at");

const REMOVE: Sql = Sql(
    "DELETE FROM limits WHERE name = $1 RETURNING name, scope, each_target, selector, runs, changed_by, changed_at",
);

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("LIST", &LIST), ("SET", &SET), ("REMOVE", &REMOVE)];

impl LimitScope {
    /// Every scope.
    pub const ALL: [LimitScope; 4] = [LimitScope::Fleet, LimitScope::Host, LimitScope::Target, LimitScope::Group];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            LimitScope::Fleet => "fleet",
            LimitScope::Host => "host",
            LimitScope::Target => "target",
            LimitScope::Group => "group",
        }
    }

    /// The word in SQL. Older coordinators know no targets, and count for each host instead.
    pub(super) const fn stored(self) -> &'static str {
        match self {
            LimitScope::Fleet | LimitScope::Host | LimitScope::Group => self.as_str(),
            LimitScope::Target => LimitScope::Host.as_str(),
        }
    }
}

super::words::impl_word!(LimitScope, "scope of a limit");

impl LimitRecord {
    /// The word for its scope.
    pub const fn scope(&self) -> LimitScope {
        match self.bound.scope {
            Scope::Fleet => LimitScope::Fleet,
            Scope::EachHost => LimitScope::Host,
            Scope::EachTarget => LimitScope::Target,
            Scope::Group(_) => LimitScope::Group,
        }
    }

    /// Which hosts it means; empty unless it is a group's.
    pub fn selector(&self) -> String {
        match &self.bound.scope {
            Scope::Fleet | Scope::EachHost | Scope::EachTarget => String::new(),
            Scope::Group(selector) => selector.to_string(),
        }
    }
}

fn read(row: &Row) -> Result<LimitRecord> {
    let scope = match word::<LimitScope>(row, "scope")? {
        LimitScope::Fleet => Scope::Fleet,
        LimitScope::Host if get(row, "each_target")? => Scope::EachTarget,
        LimitScope::Host => Scope::EachHost,
        LimitScope::Target => Scope::EachTarget,
        LimitScope::Group => Scope::Group(word::<Selector>(row, "selector")?),
    };
    Ok(LimitRecord {
        name: get(row, "name")?,
        bound: Bound { scope, runs: small(row, "runs")? },
        changed_by: get(row, "changed_by")?,
        changed_at: get(row, "changed_at")?,
    })
}

/// Every limit, for a claim.
pub(super) async fn bounds(transaction: &Transaction<'_>) -> Result<Vec<Bound>> {
    let rows = transaction.query(&LIST, &[&MAX_LIMITS]).await?;
    rows.iter().map(|row| read(row).map(|limit| limit.bound)).collect()
}

impl Catalog {
    /// Every limit, by name.
    pub async fn limits(&self) -> Result<Vec<LimitRecord>> {
        self.connection().await?.query(&LIST, &[&MAX_LIMITS]).await?.iter().map(read).collect()
    }

    /// Sets a limit, or changes the one of this name. Runs that go on are left alone: what is too much by now ends by itself.
    pub async fn set_limit(&self, name: &str, bound: &Bound, user: &str) -> Result<LimitRecord> {
        let (scope, selector) = match &bound.scope {
            Scope::Fleet => (LimitScope::Fleet, String::new()),
            Scope::EachHost => (LimitScope::Host, String::new()),
            Scope::EachTarget => (LimitScope::Target, String::new()),
            Scope::Group(selector) => (LimitScope::Group, selector.to_string()),
        };
        let runs = int(bound.runs, "the runs of a limit")?;
        let each_target = scope == LimitScope::Target;
        let params: Params<'_> = &[&name, &scope.stored(), &each_target, &selector, &runs, &user];
        let row = self.connection().await?.query_opt(&SET, params).await?;
        row.as_ref().map_or_else(|| Err(CatalogError::not_found("limit", name)), read)
    }

    /// Takes a limit away. `None`: there was none of this name.
    pub async fn remove_limit(&self, name: &str) -> Result<Option<LimitRecord>> {
        self.connection().await?.query_opt(&REMOVE, &[&name]).await?.as_ref().map(read).transpose()
    }
}
