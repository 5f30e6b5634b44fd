//! Jobs: one policy on one host, the standing pair that runs, decisions and chains belong to.

use std::fmt;

use coord_shared::ids::{BackupId, HostId, JobId, Ordinal, PolicyId, PolicyVersion, RunId};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql, Transaction};
use super::row::{big, count, get, small, word};

/// Whether a job's runs are still due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// The policy selects the host.
    Active,
    /// It does not any more; its backups stay.
    Ended,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its host.
    pub host: HostId,
    /// The host's name.
    pub host_name: String,
    /// Its policy.
    pub policy: PolicyId,
    /// The policy's name.
    pub policy_name: String,
    /// The policy's newest version.
    pub policy_version: PolicyVersion,
    /// Whether its runs are due.
    pub state: JobState,
    /// The next due backup, if worked out.
    pub backup_due_at: Option<Timestamp>,
    /// The next due verification, if worked out and wanted.
    pub verify_due_at: Option<Timestamp>,
    /// The highest ordinal its backups have had; the next gets more.
    pub last_ordinal: Ordinal,
    /// Restore points in all.
    pub backups: u64,
    /// Bytes of its archives.
    pub stored_bytes: u64,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobStanding {
    /// The job.
    pub job: JobId,
    /// The time of its newest restore point whose archives are undamaged.
    pub last_good_at: Option<Timestamp>,
    /// Differentials with an archive of their own on its newest undamaged full.
    pub differentials: u64,
    /// Its host was put out.
    pub host_revoked: bool,
    /// Its policy was deleted.
    pub policy_deleted: bool,
    /// Its restore point with the highest seq, damaged or not.
    pub newest: Option<BackupId>,
    /// Its newest undamaged full.
    pub newest_full: Option<BackupId>,
    /// Its open run that is due first.
    pub open_run: Option<RunId>,
    /// Its newest backup run that was missed since its newest restore point.
    pub last_missed: Option<RunId>,
    /// Runs that it owes for missed ones, and when the next may begin.
    pub owed: Option<(u32, Timestamp)>,
}

/// Which jobs to list. `None` means any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Of this host.
    pub host: Option<HostId>,
    /// Of this policy.
    pub policy: Option<PolicyId>,
    /// In this state.
    pub state: Option<JobState>,
}

impl JobState {
    /// Every state, for the CHECK list.
    pub const ALL: [JobState; 2] = [JobState::Active, JobState::Ended];

    /// The word in SQL and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobState::Active => "active",
            JobState::Ended => "ended",
        }
    }
}

super::words::impl_word!(JobState, "state of a job");

macro_rules! select_jobs {
    ($tail:literal) => {
        concat!(
            "SELECT j.job_id, h.host_id, h.name AS host_name, p.policy_id, p.name AS policy_name, p.version, j.state,
                    j.backup_due_at, j.verify_due_at, j.last_ordinal, b.backups, b.stored_bytes
             FROM jobs j
             JOIN hosts h ON h.host = j.host
             JOIN policies p ON p.policy = j.policy
             CROSS JOIN LATERAL (
                 SELECT count(*) AS backups,
                        coalesce(sum(stored_bytes) FILTER (WHERE archive_of = backup), 0)::bigint AS stored_bytes
                 FROM backups WHERE job = j.job
             ) b ",
            $tail
        )
    };
}

const BY_ID: Sql = Sql(select_jobs!("WHERE j.job_id = $1"));

const BY_IDS: Sql = Sql(select_jobs!("WHERE j.job_id = ANY ($1)"));

const BY_PAIR: Sql = Sql(select_jobs!("WHERE h.host_id = $1 AND p.policy_id = $2"));

const LIST: Sql = Sql(select_jobs!(
    "WHERE ($1::uuid IS NULL OR h.host_id = $1) AND ($2::uuid IS NULL OR p.policy_id = $2) AND ($3::text IS NULL OR j.state = $3)
     ORDER BY h.name, p.name LIMIT 100000"
));

const BEGIN: Sql = Sql("
    INSERT INTO jobs AS j (job_id, host, policy)
    SELECT w.job_id, h.host, p.policy FROM unnest($2::uuid[], $3::uuid[]) AS w (policy_id, job_id)
    JOIN policies p ON p.policy_id = w.policy_id
    JOIN hosts h ON h.host_id = $1
    ORDER BY p.policy
    ON CONFLICT (host, policy) DO UPDATE SET state = 'active', backup_due_at = NULL, verify_due_at = NULL, owed_runs = 0,
            owed_from = NULL
        WHERE j.state = 'ended'");

pub(super) const END: Sql = Sql("
    UPDATE jobs j SET state = 'ended', backup_due_at = NULL, verify_due_at = NULL
    FROM hosts h, policies p
    WHERE h.host_id = $1 AND j.host = h.host AND p.policy = j.policy AND j.state = 'active'
      AND p.policy_id <> ALL ($2::uuid[])");

const LAST_ORDINALS: Sql = Sql("
    SELECT p.policy_id, j.last_ordinal FROM jobs j JOIN policies p ON p.policy = j.policy
    WHERE j.host = (SELECT h.host FROM hosts h WHERE h.host_id = $1) AND j.state = 'active' ORDER BY p.policy_id");

const RAISE_ORDINAL: Sql =
    Sql("UPDATE jobs SET last_ordinal = greatest(last_ordinal, $2) WHERE job_id = $1 RETURNING last_ordinal");

const STANDINGS: Sql = Sql("
    SELECT j.job_id, h.state = 'revoked' AS host_revoked, v.origin = 'deleted' AS policy_deleted, g.captured_at,
           (SELECT count(*) FROM backups d WHERE d.base = f.backup AND d.archive_of = d.backup) AS differentials,
           n.backup_id AS newest, f.backup_id AS newest_full, j.owed_runs, j.owed_from,
           (SELECT run_id FROM runs WHERE job = j.job AND state IN ('queued', 'leased', 'running', 'verifying')
            ORDER BY due_at LIMIT 1) AS open_run,
           (SELECT run_id FROM runs
            WHERE job = j.job AND kind = 'backup' AND state = 'missed' AND due_at >= coalesce(n.captured_at, '-infinity')
            ORDER BY due_at DESC, run_id LIMIT 1) AS last_missed
    FROM jobs j
    JOIN hosts h ON h.host = j.host
    JOIN policies p ON p.policy = j.policy
    JOIN policy_versions v ON v.policy = p.policy AND v.version = p.version
    LEFT JOIN LATERAL (
        SELECT b.captured_at FROM backups b
        JOIN backups own ON own.backup = b.archive_of
        LEFT JOIN backups base ON base.backup = b.base
        WHERE b.job = j.job AND b.status = 'protected' AND own.status = 'protected'
          AND coalesce(base.status, 'protected') = 'protected'
        ORDER BY b.seq DESC LIMIT 1
    ) g ON true
    LEFT JOIN LATERAL (
        SELECT backup, backup_id FROM backups WHERE job = j.job AND level = 'full' AND status = 'protected'
        ORDER BY seq DESC LIMIT 1
    ) f ON true
    LEFT JOIN LATERAL (SELECT backup_id, captured_at FROM backups WHERE job = j.job ORDER BY seq DESC LIMIT 1) n ON true
    WHERE j.job_id = ANY ($1::uuid[])");

// An instant that has come is left to the scheduler, which makes a run of it; what holds back the runs that are owed is looked at anew.
pub(super) const RESCHEDULE_HOST: Sql = Sql("
    UPDATE jobs j
    SET backup_due_at = CASE WHEN backup_due_at > now() THEN NULL ELSE backup_due_at END,
        verify_due_at = CASE WHEN verify_due_at > now() THEN NULL ELSE verify_due_at END,
        owed_from = CASE WHEN owed_from IS NOT NULL THEN now() END
    FROM hosts h WHERE h.host_id = $1 AND j.host = h.host AND j.state = 'active'");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("BY_ID", &BY_ID),
    ("BY_IDS", &BY_IDS),
    ("BY_PAIR", &BY_PAIR),
    ("LIST", &LIST),
    ("BEGIN", &BEGIN),
    ("END", &END),
    ("LAST_ORDINALS", &LAST_ORDINALS),
    ("RAISE_ORDINAL", &RAISE_ORDINAL),
    ("STANDINGS", &STANDINGS),
    ("RESCHEDULE_HOST", &RESCHEDULE_HOST),
];

fn read(row: &Row) -> Result<Job> {
    Ok(Job {
        id: JobId::from_uuid(get(row, "job_id")?),
        host: HostId::from_uuid(get(row, "host_id")?),
        host_name: get(row, "host_name")?,
        policy: PolicyId::from_uuid(get(row, "policy_id")?),
        policy_name: get(row, "policy_name")?,
        policy_version: PolicyVersion(count(row, "version")?),
        state: word(row, "state")?,
        backup_due_at: get(row, "backup_due_at")?,
        verify_due_at: get(row, "verify_due_at")?,
        last_ordinal: Ordinal(count(row, "last_ordinal")?),
        backups: count(row, "backups")?,
        stored_bytes: count(row, "stored_bytes")?,
    })
}

impl Catalog {
    /// A job by its id.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>> {
        self.connection().await?.query_opt(&BY_ID, &[&id.uuid()]).await?.as_ref().map(read).transpose()
    }

    /// The jobs with these ids, in no order.
    pub async fn jobs_by_id(&self, ids: &[JobId]) -> Result<Vec<Job>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        self.connection().await?.query(&BY_IDS, &[&ids]).await?.iter().map(read).collect()
    }

    /// The job of a policy on a host.
    pub async fn job_of(&self, host: HostId, policy: PolicyId) -> Result<Option<Job>> {
        let row = self.connection().await?.query_opt(&BY_PAIR, &[&host.uuid(), &policy.uuid()]).await?;
        row.as_ref().map(read).transpose()
    }

    /// Jobs by host and policy name.
    pub async fn jobs(&self, filter: JobFilter) -> Result<Vec<Job>> {
        let host = filter.host.map(HostId::uuid);
        let policy = filter.policy.map(PolicyId::uuid);
        let state = filter.state.map(JobState::as_str);
        self.connection().await?.query(&LIST, &[&host, &policy, &state]).await?.iter().map(read).collect()
    }

    /// Where these jobs stand, in no order.
    pub async fn job_standings(&self, jobs: &[JobId]) -> Result<Vec<JobStanding>> {
        let jobs: Vec<Uuid> = jobs.iter().map(|job| job.uuid()).collect();
        let read = |row: &Row| -> Result<JobStanding> {
            Ok(JobStanding {
                job: JobId::from_uuid(get(row, "job_id")?),
                last_good_at: get(row, "captured_at")?,
                differentials: count(row, "differentials")?,
                host_revoked: get(row, "host_revoked")?,
                policy_deleted: get(row, "policy_deleted")?,
                newest: get::<Option<Uuid>>(row, "newest")?.map(BackupId::from_uuid),
                newest_full: get::<Option<Uuid>>(row, "newest_full")?.map(BackupId::from_uuid),
                open_run: get::<Option<Uuid>>(row, "open_run")?.map(RunId::from_uuid),
                last_missed: get::<Option<Uuid>>(row, "last_missed")?.map(RunId::from_uuid),
                owed: get::<Option<Timestamp>>(row, "owed_from")?
                    .map(|from| Ok((small(row, "owed_runs")?, from)))
                    .transpose()?,
            })
        };
        self.connection().await?.query(&STANDINGS, &[&jobs]).await?.iter().map(read).collect()
    }

    /// Makes a host's active jobs those of exactly these policies; jobs that are missing get the ids beside them.
    pub async fn set_host_jobs(&self, host: HostId, policies: &[(PolicyId, JobId)]) -> Result<()> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        set_jobs(&transaction, host, policies).await?;
        transaction.commit().await
    }

    /// The highest ordinal that each of a host's active jobs has had, by policy.
    pub async fn last_ordinals(&self, host: HostId) -> Result<Vec<(PolicyId, Ordinal)>> {
        let rows = self.connection().await?.query(&LAST_ORDINALS, &[&host.uuid()]).await?;
        let read = |row: &Row| Ok((PolicyId::from_uuid(get(row, "policy_id")?), Ordinal(count(row, "last_ordinal")?)));
        rows.iter().map(read).collect()
    }

    /// An agent knows an ordinal of the job: no later backup gets it again. Answers the highest known.
    pub async fn raise_ordinal(&self, job: JobId, ordinal: Ordinal) -> Result<Ordinal> {
        let known = big(ordinal.get(), "ordinal")?;
        let row = self.connection().await?.query_opt(&RAISE_ORDINAL, &[&job.uuid(), &known]).await?;
        Ok(Ordinal(count(&row.ok_or_else(|| CatalogError::not_found("job", job))?, "last_ordinal")?))
    }
}

/// As [`Catalog::set_host_jobs`], together with what else the transaction does.
pub(super) async fn set_jobs(
    transaction: &Transaction<'_>,
    host: HostId,
    policies: &[(PolicyId, JobId)],
) -> Result<()> {
    let wanted: Vec<Uuid> = policies.iter().map(|(policy, _)| policy.uuid()).collect();
    let jobs: Vec<Uuid> = policies.iter().map(|(_, job)| job.uuid()).collect();
    transaction.execute(&END, &[&host.uuid(), &wanted]).await?;
    transaction.execute(&BEGIN, &[&host.uuid(), &wanted, &jobs]).await?;
    Ok(())
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host_name, self.policy_name)
    }
}
