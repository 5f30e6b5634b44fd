//! The present versions of the policies behind runs, as far as they limit how fast the runs may go.

use coord_shared::ids::{HostId, RunId};
use uuid::Uuid;

use super::error::Result;
use super::pool::{Catalog, Sql};
use super::row::get;

/// A run and what the present version of its policy says.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPolicy {
    /// The run.
    pub run: RunId,
    /// Its host.
    pub host: HostId,
    /// The policy as it is stored.
    pub spec: serde_json::Value,
}

const LIMITED: Sql = Sql("
    SELECT r.run_id, h.host_id, v.spec
    FROM runs r
    JOIN hosts h ON h.host = r.host
    JOIN jobs j ON j.job = r.job
    JOIN policies p ON p.policy = j.policy
    JOIN policy_versions v ON v.policy = p.policy AND v.version = p.version
    WHERE r.run_id = ANY ($1) AND r.kind <> 'restore' AND (v.spec ? 'limits' OR v.spec ? 'layers')");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("LIMITED", &LIMITED)];

impl Catalog {
    /// Those of these runs whose policies may limit how fast they go: by themselves, or by an override. Restores are never limited.
    pub async fn limited_runs(&self, runs: &[RunId]) -> Result<Vec<RunPolicy>> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = runs.iter().map(|run| run.uuid()).collect();
        let rows = self.connection().await?.query(&LIMITED, &[&ids]).await?;
        rows.iter()
            .map(|row| {
                Ok(RunPolicy {
                    run: RunId::from_uuid(get(row, "run_id")?),
                    host: HostId::from_uuid(get(row, "host_id")?),
                    spec: get(row, "spec")?,
                })
            })
            .collect()
    }
}
