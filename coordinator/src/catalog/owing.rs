//! Backups that make up for missed ones. Invariant: what is owed changes only from what the caller saw, so that any number of
//! coordinators make up for each missed run once. When one may begin, and how many there are, are rules of `domain`.

use coord_shared::ids::{JobId, PolicyVersion, RunId};
use coord_shared::run::{RunKind, RunState};
use jiff::Timestamp;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql};
use super::row::{big, get, int, small};
use super::schedule::{DueRun, LockedJob, insert_due, open_run, policy_version};

/// What a job owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// The job.
    pub job: JobId,
    /// How many runs.
    pub runs: u32,
    /// The newest instant that was missed.
    pub due_at: Timestamp,
    /// Why it was.
    pub why: String,
    /// When the next run may begin.
    pub from: Timestamp,
}

/// What came of making up for a missed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeUp {
    /// It is queued.
    Queued(RunId),
    /// A run of the job is open, and that one makes up for all of them.
    Settled,
    /// A run of the job is open: another time.
    Later,
    /// Somebody else was faster, the policy has another version, or the job has ended: nothing was written.
    Changed,
}

pub(super) const OWING: Sql = Sql("
    SELECT job_id FROM jobs WHERE state = 'active' AND owed_from <= now() AND job_id <> ALL ($2::uuid[])
    ORDER BY owed_from LIMIT $1");

const OWED: Sql = Sql("
    SELECT owed_runs, owed_due_at, owed_reason, owed_from FROM jobs WHERE job_id = $1 AND owed_from IS NOT NULL");

const LOCK_OWED: Sql = Sql("
    SELECT job, host, policy, state, owed_runs, owed_from FROM jobs WHERE job_id = $1 FOR NO KEY UPDATE");

const PUT_OFF: Sql = Sql("UPDATE jobs SET owed_from = $3 WHERE job_id = $1 AND owed_from = $2");

const PAY: Sql = Sql("
    UPDATE jobs SET owed_runs = $2, owed_from = CASE WHEN $2 > 0 THEN $3::timestamptz + INTERVAL '10 s' END WHERE job = $1");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("OWING", &OWING), ("OWED", &OWED), ("LOCK_OWED", &LOCK_OWED), ("PUT_OFF", &PUT_OFF), ("PAY", &PAY)];

impl Catalog {
    /// Active jobs that owe a run which may begin, at most `limit`, those that have waited longest first, without those of `without`.
    pub async fn owing_jobs(&self, limit: u32, without: &[JobId]) -> Result<Vec<JobId>> {
        let without: Vec<Uuid> = without.iter().map(|id| id.uuid()).collect();
        let rows = self.connection().await?.query(&OWING, &[&i64::from(limit), &without]).await?;
        rows.iter().map(|row| Ok(JobId::from_uuid(get(row, "job_id")?))).collect()
    }

    /// What a job owes, if anything.
    pub async fn owed(&self, job: JobId) -> Result<Option<Owed>> {
        let row = self.connection().await?.query_opt(&OWED, &[&job.uuid()]).await?;
        row.map(|row| {
            Ok(Owed {
                job,
                runs: small(&row, "owed_runs")?,
                due_at: get(&row, "owed_due_at")?,
                why: get(&row, "owed_reason")?,
                from: get(&row, "owed_from")?,
            })
        })
        .transpose()
    }

    /// Nothing of what is owed may begin before `until`. False: it has changed meanwhile.
    pub async fn put_off(&self, owed: &Owed, until: Timestamp) -> Result<bool> {
        let changed = self.connection().await?.execute(&PUT_OFF, &[&owed.job.uuid(), &owed.from, &until]).await?;
        Ok(changed == 1)
    }

    /// Queues one of the runs that are owed, and leaves at most `most` less one of them. `seen` is the newest version of the policy
    /// that the caller saw: what it asks for goes by that.
    pub async fn make_up(&self, owed: &Owed, seen: PolicyVersion, run: &DueRun, most: u32) -> Result<MadeUp> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let Some(row) = transaction.query_opt(&LOCK_OWED, &[&owed.job.uuid()]).await? else {
            return Err(CatalogError::not_found("job", owed.job));
        };
        if get::<&str>(&row, "state")? != "active" || get::<Option<Timestamp>>(&row, "owed_from")? != Some(owed.from) {
            return Ok(MadeUp::Changed);
        }
        let version = policy_version(&transaction, &row, owed.job).await?;
        if version != big(seen.get(), "policy version")? {
            return Ok(MadeUp::Changed);
        }
        let job = LockedJob { job: get(&row, "job")?, host: get(&row, "host")?, version };
        let left = small(&row, "owed_runs")?.min(most);
        let is_open = open_run(&transaction, &job, RunKind::Backup).await?.is_some();
        let (left, outcome) = if left == 0 || (is_open && most == 1) {
            (0, MadeUp::Settled)
        } else if is_open {
            (left, MadeUp::Later)
        } else {
            match insert_due(&transaction, &job, RunKind::Backup, run).await? {
                Some((id, RunState::Queued)) => (left - 1, MadeUp::Queued(id)),
                // Somebody asked for a run in this moment.
                Some(_) | None => (left, MadeUp::Later),
            }
        };
        transaction.execute(&PAY, &[&job.job, &int(left, "owed runs")?, &run.due_at]).await?;
        transaction.commit().await?;
        Ok(outcome)
    }
}
