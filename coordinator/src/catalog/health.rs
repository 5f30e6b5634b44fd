//! How protected the fleet is, in two statements: figures of the whole, and the newest backup and run of every active job.

use coord_shared::ids::{HostId, JobId, PolicyId};
use coord_shared::run::RunState;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::backups::BackupStatus;
use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql};
use super::records::FaultRecord;
use super::row::{count, get, optional_json, optional_word};

/// Figures of the fleet, or of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetFigures {
    /// Runs that have not ended.
    pub runs_open: u64,
    /// Runs that failed within the last day, or that took longer than they may and were stopped for it.
    pub runs_failed_24h: u64,
    /// Restore points.
    pub backups: u64,
    /// Bytes of their archives.
    pub stored_bytes: u64,
    /// Restore points whose entries are not in the catalog.
    pub not_searchable: u64,
    /// Hosts with archives.
    pub hosts_with_archives: u64,
    /// The next due backup.
    pub next_due_at: Option<Timestamp>,
}

/// What is known of an active job's protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobHealth {
    /// The job.
    pub job: JobId,
    /// Its host.
    pub host: HostId,
    /// The host's name.
    pub host_name: String,
    /// Its policy.
    pub policy: PolicyId,
    /// The policy's name.
    pub policy_name: String,
    /// When the job began.
    pub created_at: Timestamp,
    /// Time and status of its newest restore point.
    pub newest: Option<(Timestamp, BackupStatus)>,
    /// Its newest backup run that has ended.
    pub last_run: Option<EndedRun>,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedRun {
    /// How; what was stopped because its time was over has failed.
    pub state: RunState,
    /// When.
    pub ended_at: Timestamp,
    /// Why it was missed, or what level it had.
    pub reason: String,
    /// Why it failed.
    pub fault: Option<FaultRecord>,
}

/// Jobs answered at most.
const MAX_JOBS: i64 = 100_000;

const FIGURES: Sql = Sql("
    WITH chosen AS (SELECT host FROM hosts WHERE $1::uuid IS NULL OR host_id = $1),
    r AS (
        SELECT count(*) FILTER (WHERE state IN ('queued', 'leased', 'running', 'verifying')) AS runs_open,
               count(*) FILTER (WHERE (state = 'failed' OR (state = 'cancelled' AND stop_fault IS NOT NULL)) AND ended_at > now() - INTERVAL '24 hours') AS runs_failed
        FROM runs
        WHERE host IN (SELECT host FROM chosen)
          AND (state IN ('queued', 'leased', 'running', 'verifying') OR due_at > now() - INTERVAL '7 days')
    ),
    b AS (
        SELECT count(*) AS backups,
               coalesce(sum(stored_bytes) FILTER (WHERE archive_of = backup), 0)::bigint AS stored_bytes,
               count(*) FILTER (WHERE searchable <> 'searchable') AS not_searchable,
               count(DISTINCT host) AS hosts_with_archives
        FROM backups WHERE host IN (SELECT host FROM chosen)
    ),
    j AS (
        SELECT min(backup_due_at) AS next_due_at FROM jobs WHERE state = 'active' AND host IN (SELECT host FROM chosen)
    )
    SELECT r.runs_open, r.runs_failed, b.backups, b.stored_bytes, b.not_searchable, b.hosts_with_archives, j.next_due_at
    FROM r, b, j");

const JOBS: Sql = Sql("
    SELECT j.job_id, h.host_id, h.name AS host_name, p.policy_id, p.name AS policy_name, j.created_at,
           b.captured_at, b.status, r.state AS run_state, r.ended_at, r.reason, r.fault
    FROM jobs j
    JOIN hosts h ON h.host = j.host
    JOIN policies p ON p.policy = j.policy
    LEFT JOIN LATERAL (
        SELECT captured_at, status FROM backups WHERE job = j.job ORDER BY seq DESC LIMIT 1
    ) b ON true
    LEFT JOIN LATERAL (
        SELECT CASE WHEN state = 'cancelled' AND stop_fault IS NOT NULL THEN 'failed' ELSE state END AS state,
               ended_at, reason, fault
        FROM runs
        WHERE job = j.job AND kind = 'backup' AND ended_at IS NOT NULL
        ORDER BY due_at DESC LIMIT 1
    ) r ON true
    WHERE j.state = 'active' AND h.state = 'active' AND ($1::uuid IS NULL OR h.host_id = $1)
    ORDER BY h.name, p.name LIMIT $2");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("FIGURES", &FIGURES), ("JOBS", &JOBS)];

fn read(row: &Row) -> Result<JobHealth> {
    let captured_at: Option<Timestamp> = get(row, "captured_at")?;
    let status: Option<BackupStatus> = optional_word(row, "status")?;
    let state: Option<RunState> = optional_word(row, "run_state")?;
    let ended_at: Option<Timestamp> = get(row, "ended_at")?;
    let reason: Option<String> = get(row, "reason")?;
    let fault = optional_json(row, "fault")?;
    Ok(JobHealth {
        job: JobId::from_uuid(get::<Uuid>(row, "job_id")?),
        host: HostId::from_uuid(get::<Uuid>(row, "host_id")?),
        host_name: get(row, "host_name")?,
        policy: PolicyId::from_uuid(get::<Uuid>(row, "policy_id")?),
        policy_name: get(row, "policy_name")?,
        created_at: get(row, "created_at")?,
        newest: captured_at.zip(status),
        last_run: state.zip(ended_at).map(|(state, ended_at)| EndedRun {
            state,
            ended_at,
            reason: reason.unwrap_or_default(),
            fault,
        }),
    })
}

impl Catalog {
    /// Figures of the fleet, or of one host.
    pub async fn fleet_figures(&self, host: Option<HostId>) -> Result<FleetFigures> {
        let row = self.connection().await?.query_opt(&FIGURES, &[&host.map(HostId::uuid)]).await?;
        let row = row.ok_or_else(|| CatalogError::not_found("row of", "figures"))?;
        Ok(FleetFigures {
            runs_open: count(&row, "runs_open")?,
            runs_failed_24h: count(&row, "runs_failed")?,
            backups: count(&row, "backups")?,
            stored_bytes: count(&row, "stored_bytes")?,
            not_searchable: count(&row, "not_searchable")?,
            hosts_with_archives: count(&row, "hosts_with_archives")?,
            next_due_at: get(&row, "next_due_at")?,
        })
    }

    /// The protection of every active job of active hosts, by host and policy name.
    pub async fn job_healths(&self, host: Option<HostId>) -> Result<Vec<JobHealth>> {
        let rows = self.connection().await?.query(&JOBS, &[&host.map(HostId::uuid), &MAX_JOBS]).await?;
        rows.iter().map(read).collect()
    }
}
