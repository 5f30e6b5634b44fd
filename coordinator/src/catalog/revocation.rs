//! Putting a host or an operator out. Invariant: the state that every call is judged by, the certificates, what is still open of
//! theirs, and the row that says who did it are written together or not at all. Nothing is deleted: names are never given again, and
//! backups stay.

use coord_shared::ids::{HostId, RunId};
use coord_shared::run::Event;
use coord_shared::tls::PeerKind;
use uuid::Uuid;

use super::audit::{NewAudit, record};
use super::certificates::REVOKE;
use super::error::{CatalogError, Result};
use super::hosts::HostState;
use super::jobs::END;
use super::operators::OperatorRole;
use super::pool::{Catalog, Sql};
use super::row::{get, word};
use super::runs::{StepContext, lock, step};

/// What came of putting somebody out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// They are out.
    Now,
    /// They were before; nothing was written.
    Before,
    /// It is the last admin: nothing was written.
    LastAdmin,
}

const REVOKE_HOST: Sql = Sql("
    UPDATE hosts SET state = 'revoked', session_open = false WHERE host_id = $1 AND state = 'active' RETURNING host");

const HOST_EXISTS: Sql = Sql("SELECT host FROM hosts WHERE host_id = $1");

const OPEN_RUNS: Sql = Sql("
    SELECT run_id FROM runs WHERE host = $1 AND state IN ('queued', 'leased', 'running', 'verifying') ORDER BY run_id");

// All admins with them: of two that put each other out at once, one stays.
const LOCK_OPERATORS: Sql = Sql("
    SELECT name, role, state FROM operators WHERE name = $1 OR role = 'admin' ORDER BY name FOR UPDATE");

const REVOKE_OPERATOR: Sql = Sql("UPDATE operators SET state = 'revoked' WHERE name = $1");

// Those with which they would come in again, and those with which others would come in by their word.
const REVOKE_TOKENS: Sql = Sql("
    UPDATE tokens SET revoked_at = now() WHERE revoked_at IS NULL AND (operator_name = $1 OR created_by = $1)");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("REVOKE_HOST", &REVOKE_HOST),
    ("HOST_EXISTS", &HOST_EXISTS),
    ("OPEN_RUNS", &OPEN_RUNS),
    ("LOCK_OPERATORS", &LOCK_OPERATORS),
    ("REVOKE_OPERATOR", &REVOKE_OPERATOR),
    ("REVOKE_TOKENS", &REVOKE_TOKENS),
];

impl Catalog {
    /// Puts a host out: its certificates end, its jobs end, its open runs are cancelled.
    pub async fn revoke_host(&self, id: HostId, deed: &NewAudit<'_>) -> Result<Revoked> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let Some(row) = transaction.query_opt(&REVOKE_HOST, &[&id.uuid()]).await? else {
            let known = transaction.query_opt(&HOST_EXISTS, &[&id.uuid()]).await?;
            return known.map(|_| Revoked::Before).ok_or_else(|| CatalogError::not_found("host", id));
        };
        let host: i32 = get(&row, "host")?;
        transaction.execute(&REVOKE, &[&PeerKind::Agent.as_str(), &id.to_string()]).await?;
        let none: Vec<Uuid> = Vec::new();
        transaction.execute(&END, &[&id.uuid(), &none]).await?;
        for row in transaction.query(&OPEN_RUNS, &[&host]).await? {
            let run = RunId::from_uuid(get(&row, "run_id")?);
            if let Some(run) = lock(&transaction, run).await? {
                // One that ended meanwhile needs nothing.
                step(&transaction, &run, Event::Cancelled, &StepContext::default()).await?;
            }
        }
        record(&transaction, deed).await?;
        transaction.commit().await?;
        Ok(Revoked::Now)
    }

    /// Puts an operator out: their certificates end, and the tokens made for them or by them.
    pub async fn revoke_operator(&self, name: &str, deed: &NewAudit<'_>) -> Result<Revoked> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let (mut found, mut other_admins) = (None, 0);
        for row in transaction.query(&LOCK_OPERATORS, &[&name]).await? {
            let (state, role): (HostState, OperatorRole) = (word(&row, "state")?, word(&row, "role")?);
            if get::<&str>(&row, "name")? == name {
                found = Some((state, role));
            } else if state == HostState::Active {
                other_admins += 1;
            }
        }
        match found.ok_or_else(|| CatalogError::not_found("user", name))? {
            (HostState::Revoked, _) => return Ok(Revoked::Before),
            (HostState::Active, OperatorRole::Admin) if other_admins == 0 => return Ok(Revoked::LastAdmin),
            (HostState::Active, _) => {}
        }
        transaction.execute(&REVOKE_OPERATOR, &[&name]).await?;
        transaction.execute(&REVOKE, &[&PeerKind::Operator.as_str(), &name]).await?;
        transaction.execute(&REVOKE_TOKENS, &[&name]).await?;
        record(&transaction, deed).await?;
        transaction.commit().await?;
        Ok(Revoked::Now)
    }
}
