//! Decisions on levels, with their inputs and the options not taken. Invariant: one a run, attempt and stage; a repeated one
//! changes nothing.

use coord_shared::ids::{Attempt, JobId, RunId};
use coord_shared::level::Level;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql};
use super::row::{get, int, small, word};

/// Before or after the scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionStage {
    /// From history.
    BeforeScan,
    /// From exact figures.
    AfterScan,
}

/// A decision about to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDecision {
    /// Of which run.
    pub run: RunId,
    /// Of which attempt.
    pub attempt: Attempt,
    /// Before or after the scan.
    pub stage: DecisionStage,
    /// What was decided.
    pub level: Level,
    /// Stable rule word.
    pub rule: String,
    /// The sentence.
    pub reason: String,
    /// Source bytes that history let expect of a differential.
    pub estimate_bytes: Option<u64>,
    /// Those that the scan found.
    pub exact_bytes: Option<u64>,
    /// What it was decided from.
    pub inputs: serde_json::Value,
    /// All options, taken and not.
    pub options: serde_json::Value,
}

/// A stored decision.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionRecord {
    /// What was stored.
    pub decision: NewDecision,
    /// The host's name.
    pub host_name: String,
    /// The policy's name.
    pub policy_name: String,
    /// When.
    pub decided_at: Timestamp,
}

impl DecisionStage {
    /// Every stage, for the CHECK list.
    pub const ALL: [DecisionStage; 2] = [DecisionStage::BeforeScan, DecisionStage::AfterScan];

    /// The word in SQL and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            DecisionStage::BeforeScan => "before_scan",
            DecisionStage::AfterScan => "after_scan",
        }
    }
}

super::words::impl_word!(DecisionStage, "stage of a decision");

// The run shows the level and the reason of its newest decision.
const INSERT: Sql = Sql("
    WITH stored AS (
        INSERT INTO decisions (run_id, job, attempt, stage, level, rule, reason, inputs, options, estimate_bytes,
            exact_bytes)
        SELECT r.run_id, r.job, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM runs r WHERE r.run_id = $1 AND r.attempt = $2
        ON CONFLICT (run_id, attempt, stage) DO NOTHING
        RETURNING run_id, level, reason
    )
    UPDATE runs r SET level = s.level, reason = s.reason FROM stored s WHERE r.run_id = s.run_id");

macro_rules! select_decisions {
    ($tail:literal) => {
        concat!(
            "SELECT d.run_id, d.attempt, d.stage, d.level, d.rule, d.reason, d.inputs, d.options, d.decided_at, d.estimate_bytes,
                    d.exact_bytes,
                    h.name AS host_name, p.name AS policy_name
             FROM decisions d
             JOIN jobs j ON j.job = d.job JOIN hosts h ON h.host = j.host JOIN policies p ON p.policy = j.policy ",
            $tail
        )
    };
}

const OF_RUN: Sql = Sql(select_decisions!("WHERE d.run_id = $1 ORDER BY d.decision LIMIT 1000"));

const OF_JOB: Sql = Sql(select_decisions!("WHERE j.job_id = $1 ORDER BY d.decision DESC LIMIT $2"));

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("INSERT", &INSERT), ("OF_RUN", &OF_RUN), ("OF_JOB", &OF_JOB)];

fn bytes(row: &Row, column: &'static str) -> Result<Option<u64>> {
    Ok(get::<Option<i64>>(row, column)?.and_then(|bytes| u64::try_from(bytes).ok()))
}

fn read(row: &Row) -> Result<DecisionRecord> {
    Ok(DecisionRecord {
        decision: NewDecision {
            run: RunId::from_uuid(get(row, "run_id")?),
            attempt: Attempt(small(row, "attempt")?),
            stage: word(row, "stage")?,
            level: word(row, "level")?,
            rule: get(row, "rule")?,
            reason: get(row, "reason")?,
            estimate_bytes: bytes(row, "estimate_bytes")?,
            exact_bytes: bytes(row, "exact_bytes")?,
            inputs: get(row, "inputs")?,
            options: get(row, "options")?,
        },
        host_name: get(row, "host_name")?,
        policy_name: get(row, "policy_name")?,
        decided_at: get(row, "decided_at")?,
    })
}

impl Catalog {
    /// Stores a decision of the run's newest attempt; one that was stored before stays. Answers the stored one.
    pub async fn record_decision(&self, new: &NewDecision) -> Result<DecisionRecord> {
        let attempt = int(new.attempt.get(), "attempt")?;
        let (stage, level) = (new.stage.as_str(), new.level.as_str());
        // An estimate from figures that an agent made up may be more than SQL counts to.
        let most = |bytes: Option<u64>| bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let (estimate, exact) = (most(new.estimate_bytes), most(new.exact_bytes));
        let params: super::pool::Params<'_> = &[
            &new.run.uuid(),
            &attempt,
            &stage,
            &level,
            &new.rule,
            &new.reason,
            &new.inputs,
            &new.options,
            &estimate,
            &exact,
        ];
        self.connection().await?.execute(&INSERT, params).await?;
        let stored = self.decisions_of_run(new.run).await?;
        stored
            .into_iter()
            .find(|record| record.decision.attempt == new.attempt && record.decision.stage == new.stage)
            .ok_or_else(|| CatalogError::not_found("attempt of run", new.run))
    }

    /// A run's decisions, oldest first.
    pub async fn decisions_of_run(&self, run: RunId) -> Result<Vec<DecisionRecord>> {
        self.connection().await?.query(&OF_RUN, &[&run.uuid()]).await?.iter().map(read).collect()
    }

    /// A job's decisions, newest first.
    pub async fn decisions_of_job(&self, job: JobId, limit: u32) -> Result<Vec<DecisionRecord>> {
        self.connection().await?.query(&OF_JOB, &[&job.uuid(), &i64::from(limit)]).await?.iter().map(read).collect()
    }
}
