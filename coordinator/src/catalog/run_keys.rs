//! Asking for a backup or a verification once, however often the wish arrives. Invariants: a job has at most one open run of either kind; a
//! key names one run of its job for good. Both are decided under the lock of the job's row.

use coord_shared::ids::RunId;
use coord_shared::level::Level;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql, Transaction};
use super::row::{get, optional_word};
use super::runs::{self, AskedRun, RunRecord};

/// What came of asking.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// A new run waits.
    New(RunRecord),
    /// The key names this run.
    Known(RunRecord),
    /// The job's open run, which will do; the key names it from now on.
    Open(RunRecord),
    /// The job's open run, which is of another level than the one asked for.
    Other(RunRecord),
}

const LOCK_JOB: Sql = Sql("SELECT job FROM jobs WHERE job_id = $1 FOR NO KEY UPDATE");

const BY_KEY: Sql = Sql("SELECT run_id FROM run_keys WHERE job = $1 AND key = $2");

const OPEN: Sql = Sql("
    SELECT run_id, level FROM runs
    WHERE job = $1 AND kind = $2 AND state IN ('queued', 'leased', 'running', 'verifying') LIMIT 1");

const NAME: Sql = Sql("INSERT INTO run_keys (job, key, run_id) VALUES ($1, $2, $3)");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("LOCK_JOB", &LOCK_JOB), ("BY_KEY", &BY_KEY), ("OPEN", &OPEN), ("NAME", &NAME)];

/// Which run answers.
enum Answer {
    New,
    Known(RunId),
    Open(RunId),
    Other(RunId),
}

impl Catalog {
    /// Queues the backup run asked for, unless the job has an open one or `key` names one already.
    ///
    /// # Errors
    /// `NotFound` for the job.
    pub async fn ask_backup(&self, asked: &AskedRun, key: Option<&str>) -> Result<Asked> {
        self.ask_once(asked, key).await
    }

    /// Queues the verification asked for, unless the job has an open one.
    ///
    /// # Errors
    /// `NotFound` for the job.
    pub async fn ask_verification(&self, asked: &AskedRun) -> Result<Asked> {
        self.ask_once(asked, None).await
    }

    async fn ask_once(&self, asked: &AskedRun, key: Option<&str>) -> Result<Asked> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let answer = ask(&transaction, asked, key).await?;
        let id = match answer {
            Answer::New => asked.id,
            Answer::Known(run) | Answer::Open(run) | Answer::Other(run) => run,
        };
        let run = runs::by_id(&transaction, id).await?.ok_or_else(|| CatalogError::not_found("run", id))?;
        transaction.commit().await?;
        Ok(match answer {
            Answer::New => Asked::New(run),
            Answer::Known(_) => Asked::Known(run),
            Answer::Open(_) => Asked::Open(run),
            Answer::Other(_) => Asked::Other(run),
        })
    }
}

async fn ask(transaction: &Transaction<'_>, asked: &AskedRun, key: Option<&str>) -> Result<Answer> {
    let wanted = asked.job.ok_or_else(|| CatalogError::not_found("job of run", asked.id))?;
    let row = transaction.query_opt(&LOCK_JOB, &[&wanted.uuid()]).await?;
    let job: i32 = get(&row.ok_or_else(|| CatalogError::not_found("job", wanted))?, "job")?;
    if let Some(key) = key
        && let Some(row) = transaction.query_opt(&BY_KEY, &[&job, &key]).await?
    {
        return Ok(Answer::Known(RunId::from_uuid(get(&row, "run_id")?)));
    }
    let answer = match transaction.query_opt(&OPEN, &[&job, &asked.kind.as_str()]).await? {
        Some(row) => {
            let run = RunId::from_uuid(get(&row, "run_id")?);
            let level: Option<Level> = optional_word(&row, "level")?;
            if asked.level.is_some() && asked.level != level {
                return Ok(Answer::Other(run));
            }
            Answer::Open(run)
        }
        None => {
            runs::insert(transaction, asked).await?;
            Answer::New
        }
    };
    if let Some(key) = key {
        let run = match answer {
            Answer::New => asked.id,
            Answer::Known(run) | Answer::Open(run) | Answer::Other(run) => run,
        };
        transaction.execute(&NAME, &[&job, &key, &run.uuid()]).await?;
    }
    Ok(answer)
}
