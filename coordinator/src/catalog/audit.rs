//! Who did what. Append-only: the database refuses to change or delete a row.

use coord_shared::tls::PeerKind;
use jiff::Timestamp;

use super::error::Result;
use super::pool::{Catalog, Params, Sql, Transaction};
use super::row::get;

/// A deed to record.
#[derive(Debug, Clone)]
pub struct NewAudit<'a> {
    /// What the actor is.
    pub actor_kind: PeerKind,
    /// Host id, user name or coordinator id.
    pub actor: &'a str,
    /// Stable word, such as policy_applied.
    pub action: &'a str,
    /// What it was done to.
    pub subject: &'a str,
    /// More, as JSON.
    pub details: serde_json::Value,
}

/// A recorded deed.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// agent, operator or coordinator.
    pub actor_kind: String,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// More.
    pub details: serde_json::Value,
}

const INSERT: Sql = Sql("
    INSERT INTO audit (actor_kind, actor, action, subject, details) VALUES ($1, $2, $3, $4, $5)");

const LIST: Sql = Sql("
    SELECT at, actor_kind, actor, action, subject, details FROM audit ORDER BY audit DESC LIMIT $1");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("INSERT", &INSERT), ("LIST", &LIST)];

/// Records a deed together with what was done.
pub(super) async fn record(transaction: &Transaction<'_>, deed: &NewAudit<'_>) -> Result<()> {
    let params: Params<'_> = &[&deed.actor_kind.as_str(), &deed.actor, &deed.action, &deed.subject, &deed.details];
    transaction.execute(&INSERT, params).await?;
    Ok(())
}

impl Catalog {
    /// Records a deed.
    pub async fn record_audit(&self, deed: &NewAudit<'_>) -> Result<()> {
        let params: Params<'_> = &[&deed.actor_kind.as_str(), &deed.actor, &deed.action, &deed.subject, &deed.details];
        self.connection().await?.execute(&INSERT, params).await?;
        Ok(())
    }

    /// The newest deeds.
    pub async fn audit_log(&self, limit: u32) -> Result<Vec<AuditRecord>> {
        let rows = self.connection().await?.query(&LIST, &[&i64::from(limit)]).await?;
        rows.iter()
            .map(|row| {
                Ok(AuditRecord {
                    at: get(row, "at")?,
                    actor_kind: get(row, "actor_kind")?,
                    actor: get(row, "actor")?,
                    action: get(row, "action")?,
                    subject: get(row, "subject")?,
                    details: get(row, "details")?,
                })
            })
            .collect()
    }
}
