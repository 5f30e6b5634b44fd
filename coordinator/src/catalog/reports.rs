//! Reports of hosts. Invariant: a report is taken once, whatever is repeated, reordered or late: (run, attempt, sequence) is stored
//! in the same transaction as its effect. The success of a backup is in `commit`.

use std::time::Duration;

use coord_shared::failpoint;
use coord_shared::ids::{Attempt, BackupId, HostId, RunId, SessionNumber};
use coord_shared::run::{Event, Illegal, Run, RunKind};

use super::backups::record_checks;
use super::error::{CatalogError, Result};
use super::leases::adopt_planned;
use super::pool::{Catalog, Params, Sql, Transaction};
use super::records::{CheckRecord, FaultRecord, FromPlanRecord, NoteRecord};
use super::row::{big, int, to_json};
use super::runs::{LockedRun, MAX_RUN_WARNINGS, StepContext, Transition, lock_of_host, step};

/// A report of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// Who reports: from the certificate.
    pub host: HostId,
    /// Over which session.
    pub session: SessionNumber,
    /// Of which run.
    pub run: RunId,
    /// Of which attempt.
    pub attempt: Attempt,
    /// 1, 2, 3, ... within the attempt.
    pub sequence: u64,
    /// What happened.
    pub event: ReportedEvent,
    /// What a verification found: written with the end of the attempt, and only if that counts.
    pub checked: Vec<CheckedArchive>,
    /// How long the lease lasts from now, if the run goes on.
    pub lease: Duration,
    /// How long the run waits, if it goes back to the queue.
    pub retry_after: Duration,
}

/// An archive that a verification read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedArchive {
    /// The backup that has it.
    pub backup: BackupId,
    /// What was looked at: at least one check.
    pub checks: Vec<CheckRecord>,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq)]
pub enum ReportedEvent {
    /// The host began.
    Started,
    /// The host began by itself, from its plan, while it was cut off.
    StartedFromPlan(FromPlanRecord),
    /// The scan is done; nothing changes but that the report was taken.
    Scanned,
    /// The archive is durable.
    Sealed,
    /// Notes about paths.
    Warnings(Vec<NoteRecord>),
    /// A verification or a restore succeeded. A backup's success is [`Catalog::commit_backup`].
    Succeeded {
        /// What it came to.
        result: serde_json::Value,
        /// Notes in all.
        warnings_total: u64,
    },
    /// The attempt failed.
    Failed {
        /// Why.
        fault: FaultRecord,
        /// Whether trying again may help.
        retryable: bool,
        /// What is known of the result all the same, such as the checks of a verification.
        result: Option<serde_json::Value>,
        /// Notes in all.
        warnings_total: u64,
    },
    /// The host does not hold the attempt.
    Lost {
        /// What is known of why.
        fault: FaultRecord,
    },
    /// The host stopped the attempt, because it was told to or because it is going down.
    Stopped {
        /// Why.
        fault: FaultRecord,
    },
}

/// What came of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOutcome {
    /// Taken: the run is so now.
    Taken(Run),
    /// Taken before: the run is so.
    Repeated(Run),
    /// This attempt does not count any more; nothing was written.
    Refused(Illegal),
}

pub(super) const INSERT_REPORT: Sql = Sql("
    INSERT INTO run_reports (run_id, attempt, sequence) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");

const INSERT_NOTES: Sql = Sql("
    INSERT INTO run_warnings (run_id, attempt, sequence, position, path, kind, detail)
    SELECT $1, $2, $3, n.position, n.path, n.kind, n.detail
    FROM unnest($4::bytea[], $5::text[], $6::text[]) WITH ORDINALITY AS n (path, kind, detail, position)
    WHERE n.position <= $7 - (SELECT count(*) FROM run_warnings w WHERE w.run_id = $1 AND w.attempt = $2)");

const COUNT_NOTES: Sql = Sql("
    UPDATE runs SET warnings_total = greatest(warnings_total, $3) WHERE run_id = $1 AND attempt = $2");

// A run that was missed here has no attempt until its result is in. One whose row was made for its host has no limit of its own yet; its later
// attempts go by the one that the plan named.
const SET_FROM_PLAN: Sql = Sql("
    UPDATE runs SET spec = jsonb_set(spec, '{from_plan}', $3), max_duration_s = coalesce(max_duration_s, $4)
    WHERE run_id = $1 AND attempt <= $2");

pub(super) const SET_RESULT: Sql = Sql("
    UPDATE runs SET result = coalesce($3, result), warnings_total = greatest(warnings_total, $4)
    WHERE run_id = $1 AND attempt = $2");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("INSERT_REPORT", &INSERT_REPORT),
    ("INSERT_NOTES", &INSERT_NOTES),
    ("COUNT_NOTES", &COUNT_NOTES),
    ("SET_FROM_PLAN", &SET_FROM_PLAN),
    ("SET_RESULT", &SET_RESULT),
];

/// Stores that the report was taken. False: it was taken before.
pub(super) async fn take(transaction: &Transaction<'_>, run: RunId, attempt: Attempt, sequence: u64) -> Result<bool> {
    let (attempt, sequence) = (int(attempt.get(), "attempt")?, big(sequence, "sequence")?);
    Ok(transaction.execute(&INSERT_REPORT, &[&run.uuid(), &attempt, &sequence]).await? == 1)
}

impl Catalog {
    /// Takes a report. The run must be the host's; one that the host started from its plan gets its row here.
    pub async fn accept_report(&self, report: &RunReport) -> Result<ReportOutcome> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        adopt_planned(&transaction, report.run, report.host).await?;
        let run = lock_of_host(&transaction, report.run, report.host).await?;
        let run = run.ok_or_else(|| CatalogError::not_found("run", report.run))?;
        if !take(&transaction, report.run, report.attempt, report.sequence).await? {
            return Ok(ReportOutcome::Repeated(run.machine));
        }
        let transition = apply(&transaction, &run, report).await?;
        let machine = match transition {
            Transition::Refused(illegal) => return Ok(ReportOutcome::Refused(illegal)),
            Transition::Updated(machine) => {
                store_checks(&transaction, &run, &report.checked).await?;
                machine
            }
            Transition::AlreadyThere(machine) => machine,
        };
        store_facts(&transaction, report).await?;
        failpoint::reach("coordinator.report.uncommitted");
        transaction.commit().await?;
        failpoint::reach("coordinator.report.committed");
        Ok(ReportOutcome::Taken(machine))
    }
}

async fn apply(transaction: &Transaction<'_>, run: &LockedRun, report: &RunReport) -> Result<Transition> {
    let attempt = report.attempt;
    let context = StepContext {
        session: Some(report.session),
        lease: report.lease,
        retry_after: report.retry_after,
        fault: None,
    };
    let (event, fault) = match &report.event {
        ReportedEvent::Started | ReportedEvent::StartedFromPlan(_) => (Event::Started(attempt), None),
        ReportedEvent::Sealed => (Event::Sealed(attempt), None),
        ReportedEvent::Scanned | ReportedEvent::Warnings(_) => (Event::Held(attempt), None),
        ReportedEvent::Succeeded { .. } => {
            if run.kind == RunKind::Backup {
                return Err(CatalogError::OutOfRange { what: "the kind of a run that succeeds without a backup" });
            }
            (Event::Succeeded(attempt), None)
        }
        ReportedEvent::Failed { fault, retryable, .. } => {
            (Event::Failed { attempt, retryable: *retryable }, Some(fault))
        }
        ReportedEvent::Lost { fault } => (Event::Lost(attempt), Some(fault)),
        ReportedEvent::Stopped { fault } => (Event::Stopped(attempt), Some(fault)),
    };
    step(transaction, run, event, &StepContext { fault, ..context }).await
}

async fn store_facts(transaction: &Transaction<'_>, report: &RunReport) -> Result<()> {
    let (id, attempt) = (report.run.uuid(), int(report.attempt.get(), "attempt")?);
    let (result, total) = match &report.event {
        ReportedEvent::Started
        | ReportedEvent::Scanned
        | ReportedEvent::Sealed
        | ReportedEvent::Lost { .. }
        | ReportedEvent::Stopped { .. } => return Ok(()),
        ReportedEvent::StartedFromPlan(how) => {
            let most = how.max_duration_s.map(|seconds| int(seconds, "max duration")).transpose()?;
            transaction.execute(&SET_FROM_PLAN, &[&id, &attempt, &to_json(how)?, &most]).await?;
            return Ok(());
        }
        ReportedEvent::Warnings(notes) => return store_notes(transaction, report, notes).await,
        ReportedEvent::Succeeded { result, warnings_total } => (Some(result), *warnings_total),
        ReportedEvent::Failed { result, warnings_total, .. } => (result.as_ref(), *warnings_total),
    };
    let total = big(total, "warnings")?;
    transaction.execute(&SET_RESULT, &[&id, &attempt, &result, &total]).await?;
    Ok(())
}

async fn store_checks(transaction: &Transaction<'_>, run: &LockedRun, checked: &[CheckedArchive]) -> Result<()> {
    let (RunKind::Verify, Some(job)) = (run.kind, run.job) else { return Ok(()) };
    for archive in checked {
        record_checks(transaction, job, archive.backup, &archive.checks).await?;
    }
    Ok(())
}

async fn store_notes(transaction: &Transaction<'_>, report: &RunReport, notes: &[NoteRecord]) -> Result<()> {
    let (id, attempt) = (report.run.uuid(), int(report.attempt.get(), "attempt")?);
    let sequence = big(report.sequence, "sequence")?;
    let paths: Vec<&[u8]> = notes.iter().map(|note| note.path.as_slice()).collect();
    // Postgres text takes no NUL; both come from a host.
    let plain = |text: &str| text.replace('\0', "\u{fffd}");
    let kinds: Vec<String> = notes.iter().map(|note| plain(&note.kind)).collect();
    let details: Vec<String> = notes.iter().map(|note| plain(&note.detail)).collect();
    let params: Params<'_> = &[&id, &attempt, &sequence, &paths, &kinds, &details, &MAX_RUN_WARNINGS];
    let stored = transaction.execute(&INSERT_NOTES, params).await?;
    transaction.execute(&COUNT_NOTES, &[&id, &attempt, &big(stored, "warnings")?]).await?;
    Ok(())
}
