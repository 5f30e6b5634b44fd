//! Taking reports of attempts. Each is stored with its effect in one transaction and may be repeated, reordered or late; the answer
//! tells the agent whether to keep, forget or drop what it holds. A report that cannot be stored now ends the session: the agent
//! keeps it and sends it again.

use std::time::Duration;

use coord_shared::api::coordinator_message::Message;
use coord_shared::api::finished::Result as Outcome;
use coord_shared::api::run_report::Event;
use coord_shared::api::{self, IndexWanted, LevelAnswer, ReportAck, Scanned};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{Attempt, BackupId, RunId};
use coord_shared::retry;
use coord_shared::run::{Disposition, Illegal, RunState};
use coord_shared::wire::MAX_NOTES_PER_REPORT;
use serde_json::json;
use uuid::Uuid;

use super::App;
use super::commit::{Committing, commit};
use super::decide::decide_after_scan;
use super::hello::disposition;
use crate::catalog::{
    CatalogError, CheckRecord, CheckedArchive, Claimed, FaultRecord, FromPlanRecord, NoteRecord, ReportOutcome,
    ReportedEvent, RunRecord, RunReport,
};
use crate::sessions::Session;

/// Longest text of a note or a check that is kept, in characters.
const MAX_TEXT: usize = 500;
/// Longest limit that the catalog can hold, in seconds.
const MAX_DURATION_S: u32 = i32::MAX.unsigned_abs();
/// Archives and checks that one report may name.
const MAX_CHECKS: usize = 1000;

/// Where a report belongs.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The run.
    pub run: RunId,
    /// Its attempt.
    pub attempt: Attempt,
    /// The report's number.
    pub sequence: u64,
}

/// Takes a report and answers it.
pub async fn accept(app: &App, session: &Session, report: api::RunReport) -> Result<Vec<Message>, Fault> {
    let invalid = |what: &str| Fault::new(ErrorCode::InvalidArgument, format!("the report has no {what}"));
    let run = report.run_id.parse().map_err(|_| invalid("run"))?;
    coord_shared::failpoint::reach("coordinator.report.received");
    let place = Place { run, attempt: Attempt(report.attempt), sequence: report.sequence };
    match report.event.ok_or_else(|| invalid("event"))? {
        Event::Started(started) => {
            let event = started.from_plan.map_or(ReportedEvent::Started, |how| {
                ReportedEvent::StartedFromPlan(FromPlanRecord {
                    started_at_us: how.started_at_us,
                    cut_off_since_us: how.cut_off_since_us,
                    plan_made_at_us: how.plan_made_at_us,
                    clock_offset_us: how.clock_offset_us,
                    max_duration_s: Some(how.max_duration_s.min(MAX_DURATION_S)).filter(|seconds| *seconds > 0),
                })
            });
            take(app, session, place, event).await
        }
        Event::Scanned(scanned) => accept_scanned(app, session, place, &scanned).await,
        Event::Sealed(_) => take(app, session, place, ReportedEvent::Sealed).await,
        Event::Warnings(warnings) => {
            let notes = warnings.notes.into_iter().take(MAX_NOTES_PER_REPORT).map(note).collect();
            take(app, session, place, ReportedEvent::Warnings(notes)).await
        }
        Event::Finished(finished) => accept_finished(app, session, place, finished).await,
    }
}

fn note(note: api::PathNote) -> NoteRecord {
    NoteRecord { path: note.path, kind: bounded(&note.kind), detail: bounded(&note.detail) }
}

/// A text of an agent, as long as it is kept.
pub(super) fn bounded(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(MAX_TEXT).collect()
}

/// Checks of the wire as they are stored.
pub(super) fn checks(checks: &[api::Check]) -> Vec<CheckRecord> {
    let check = |check: &api::Check| CheckRecord {
        name: bounded(&check.name),
        passed: check.passed,
        detail: bounded(&check.detail),
    };
    checks.iter().take(MAX_CHECKS).map(check).collect()
}

async fn accept_scanned(app: &App, session: &Session, place: Place, scanned: &Scanned) -> Result<Vec<Message>, Fault> {
    let mut answers = take(app, session, place, ReportedEvent::Scanned).await?;
    let counts = matches!(&answers[..], [Message::Ack(ack)] if ack.disposition() == api::Disposition::Continue);
    if counts {
        let decision = decide_after_scan(app, place.run, place.attempt, scanned).await?;
        answers.push(Message::Level(LevelAnswer {
            run_id: place.run.to_string(),
            attempt: place.attempt.get(),
            level: decision.level.to_api().into(),
            reason: decision.reason,
        }));
    }
    Ok(answers)
}

async fn accept_finished(
    app: &App,
    session: &Session,
    place: Place,
    finished: api::Finished,
) -> Result<Vec<Message>, Fault> {
    let warnings_total = finished.warnings_total;
    match finished.outcome() {
        api::Outcome::Succeeded => match finished.result {
            Some(Outcome::Backup(result)) => accept_backup(app, session, place, (result, warnings_total)).await,
            Some(Outcome::Verify(result)) => accept_verify(app, session, place, (result, warnings_total)).await,
            Some(Outcome::Restore(result)) => {
                let event = ReportedEvent::Succeeded { result: restore_json(&result), warnings_total };
                take(app, session, place, event).await
            }
            None => Err(Fault::new(ErrorCode::InvalidArgument, "a success has no result")),
        },
        api::Outcome::Failed => accept_failed(app, session, place, finished).await,
        api::Outcome::Cancelled => {
            let fault = fault_record(finished.fault.as_ref(), ErrorCode::Cancelled, "stopped as asked");
            take(app, session, place, ReportedEvent::Stopped { fault }).await
        }
        api::Outcome::Unspecified => {
            Err(Fault::new(ErrorCode::InvalidArgument, "the report does not say how it ended"))
        }
    }
}

async fn accept_failed(
    app: &App,
    session: &Session,
    place: Place,
    finished: api::Finished,
) -> Result<Vec<Message>, Fault> {
    let fault = fault_record(finished.fault.as_ref(), ErrorCode::Internal, "the host gave no reason");
    let (result, checked) = match &finished.result {
        Some(Outcome::Verify(result)) => {
            let verification = read_verification(app, session, result).await?;
            (Some(verification.result), verification.checked)
        }
        Some(Outcome::Restore(result)) => (Some(restore_json(result)), Vec::new()),
        Some(Outcome::Backup(_)) | None => (None, Vec::new()),
    };
    let warnings_total = finished.warnings_total;
    let event = ReportedEvent::Failed { fault, retryable: finished.retryable, result, warnings_total };
    take_with(app, session, place, event, checked).await
}

fn fault_record(fault: Option<&api::Fault>, code: ErrorCode, message: &str) -> FaultRecord {
    match fault {
        Some(fault) => {
            FaultRecord { code: bounded(&fault.code), message: bounded(&fault.message), hint: bounded(&fault.hint) }
        }
        None => FaultRecord { code: code.as_str().to_owned(), message: message.to_owned(), hint: String::new() },
    }
}

/// The commit of a backup, and what is wanted of its index.
async fn accept_backup(
    app: &App,
    session: &Session,
    place: Place,
    (result, warnings_total): (api::BackupResult, u64),
) -> Result<Vec<Message>, Fault> {
    let committing = Committing { host: session.host, session: session.number, place, warnings_total };
    match commit(app, committing, result).await? {
        Ok(backup) => {
            app.nudges.ingester.notify_one();
            let mut answers = vec![ack(place, Disposition::Forget)];
            answers.extend(backup.map(wanted));
            Ok(answers)
        }
        Err(Refusal::Illegal(illegal)) => Ok(vec![ack(place, after_refusal(illegal))]),
        Err(Refusal::Conflict(fault)) => {
            tracing::error!(run = %place.run, why = %fault.message, "a backup cannot be committed");
            let fault = FaultRecord { code: fault.code.as_str().to_owned(), message: fault.message, hint: fault.hint };
            let event = ReportedEvent::Failed { fault, retryable: true, result: None, warnings_total };
            take(app, session, place, event).await?;
            Ok(vec![ack(place, Disposition::Abort)])
        }
    }
}

/// Why a commit did not happen, for good.
#[derive(Debug)]
pub enum Refusal {
    /// The attempt does not count.
    Illegal(Illegal),
    /// What was sent contradicts what is stored.
    Conflict(Fault),
}

fn wanted(backup: BackupId) -> Message {
    Message::IndexWanted(IndexWanted { backup_id: backup.to_string(), next_block: 0, location: None })
}

/// A verification: the checks go to the backups whose archives were read; one archive that is bad, or that nobody looked at, fails
/// the run.
async fn accept_verify(
    app: &App,
    session: &Session,
    place: Place,
    (verified, warnings_total): (api::VerifyResult, u64),
) -> Result<Vec<Message>, Fault> {
    let Verification { checked, unchecked, damaged, result } = read_verification(app, session, &verified).await?;
    let total = verified.archives.len();
    let fault = |code: ErrorCode, message: String, hint: &str| FaultRecord {
        code: code.as_str().to_owned(),
        message,
        hint: hint.to_owned(),
    };
    let event = if damaged > 0 {
        let hint = "the next backup is a full; earlier restore points still serve";
        let fault = fault(ErrorCode::ArchiveDamaged, format!("{damaged} of {total} archives are damaged"), hint);
        ReportedEvent::Failed { fault, retryable: false, result: Some(result), warnings_total }
    } else if unchecked > 0 || checked.is_empty() {
        let message = format!("the host did not check {unchecked} of {total} archives: they are as they were");
        let fault = fault(ErrorCode::InvalidArgument, message, "upgrade the host's agent");
        ReportedEvent::Failed { fault, retryable: false, result: Some(result), warnings_total }
    } else {
        ReportedEvent::Succeeded { result, warnings_total }
    };
    take_with(app, session, place, event, checked).await
}

/// What a host says of archives.
struct Verification {
    /// Its own that it looked at.
    checked: Vec<CheckedArchive>,
    /// Its own that it says nothing of: they stay as they are.
    unchecked: usize,
    /// How many of them are damaged.
    damaged: usize,
    /// For the run.
    result: serde_json::Value,
}

async fn read_verification(app: &App, session: &Session, verified: &api::VerifyResult) -> Result<Verification, Fault> {
    let (mut checked, mut unchecked, mut damaged) = (Vec::new(), 0, 0);
    let mut archives = Vec::new();
    for archive in verified.archives.iter().take(MAX_CHECKS) {
        let Ok(id) = archive.backup_id.parse::<BackupId>() else { continue };
        // A host can only speak of its own archives.
        let Some(backup) = app.catalog.backup(id).await?.filter(|backup| backup.host == session.host) else { continue };
        let records = checks(&archive.checks);
        if records.is_empty() {
            unchecked += 1;
            continue;
        }
        if records.iter().any(|check| !check.passed) {
            damaged += 1;
            tracing::warn!(backup = %id, host = %backup.host_name, "an archive is damaged");
        }
        archives.push(json!({ "backup_id": id.to_string(), "checks": records }));
        checked.push(CheckedArchive { backup: id, checks: records });
    }
    let result = json!({ "archives": archives, "verify_ms": verified.verify_ms });
    Ok(Verification { checked, unchecked, damaged, result })
}

fn restore_json(result: &api::RestoreResult) -> serde_json::Value {
    json!({
        "restored": result.restored,
        "equal": result.equal,
        "left_different": result.left_different,
        "removed": result.removed,
        "bytes": result.bytes,
        "verified": result.verified,
        "damaged": result.damaged,
        "not_settable": result.not_settable,
        "stale": result.stale,
        "unread": result.unread,
        "restore_ms": result.restore_ms,
    })
}

/// Stores an event of an attempt and answers the agent.
async fn take(app: &App, session: &Session, place: Place, event: ReportedEvent) -> Result<Vec<Message>, Fault> {
    take_with(app, session, place, event, Vec::new()).await
}

/// The same with what a verification found.
async fn take_with(
    app: &App,
    session: &Session,
    place: Place,
    mut event: ReportedEvent,
    checked: Vec<CheckedArchive>,
) -> Result<Vec<Message>, Fault> {
    let last = matches!(
        event,
        ReportedEvent::Succeeded { .. }
            | ReportedEvent::Failed { .. }
            | ReportedEvent::Lost { .. }
            | ReportedEvent::Stopped { .. }
    );
    let retry_after = match event {
        ReportedEvent::Failed { .. } | ReportedEvent::Stopped { .. } => {
            let run = app.catalog.run(place.run).await?;
            next_attempt(&mut event, run.map_or(place.attempt.get(), |run| number(&run, place.attempt)))
        }
        _ => next_attempt(&mut event, 1),
    };
    let report = RunReport {
        host: session.host,
        session: session.number,
        run: place.run,
        attempt: place.attempt,
        sequence: place.sequence,
        event,
        checked,
        lease: app.settings.lease(),
        retry_after,
    };
    let outcome = match app.catalog.accept_report(&report).await {
        Ok(outcome) => outcome,
        // A run that nobody here knows, or another host's: nothing of it counts.
        Err(CatalogError::NotFound { .. }) => return Ok(vec![ack(place, Disposition::Abort)]),
        Err(error) => return Err(error.into()),
    };
    let answer = match outcome {
        ReportOutcome::Taken(_) | ReportOutcome::Repeated(_) if last => {
            app.nudges.dispatcher.notify_one();
            Disposition::Forget
        }
        ReportOutcome::Taken(run) | ReportOutcome::Repeated(run) => match run.disposition(place.attempt, false) {
            // The agent goes on to its final report whatever this one finds.
            Disposition::Continue | Disposition::Report | Disposition::Forget => Disposition::Continue,
            Disposition::Abort => Disposition::Abort,
        },
        ReportOutcome::Refused(illegal) => after_refusal(illegal),
    };
    Ok(vec![ack(place, answer)])
}

/// Which try an attempt is: those before it whose orders were lost do not count.
fn number(run: &RunRecord, attempt: Attempt) -> u32 {
    let lost = run.machine.max_attempts.saturating_sub(run.kind.max_attempts());
    attempt.get().saturating_sub(lost).max(1)
}

/// The wait before the attempt that follows the try `number`, if one does: the host says whether one may, `coord_shared::retry` how often and when.
fn next_attempt(event: &mut ReportedEvent, number: u32) -> Duration {
    let random = Uuid::new_v4().as_u64_pair().0;
    // A word of a later version says nothing here but that the host expects more of another attempt.
    let wait =
        |fault: &FaultRecord| retry::wait(ErrorCode::parse(&fault.code).unwrap_or(ErrorCode::Io), number, random);
    match event {
        ReportedEvent::Failed { fault, retryable, .. } => {
            let wait = wait(fault);
            *retryable = *retryable && wait.is_some();
            wait.unwrap_or_default()
        }
        ReportedEvent::Stopped { fault } => wait(fault).unwrap_or_default(),
        // Mostly an order that never arrived: as soon as after a first attempt.
        ReportedEvent::Lost { fault } => wait(fault).unwrap_or_default(),
        ReportedEvent::Started
        | ReportedEvent::StartedFromPlan(_)
        | ReportedEvent::Scanned
        | ReportedEvent::Sealed
        | ReportedEvent::Warnings(_)
        | ReportedEvent::Succeeded { .. } => Duration::ZERO,
    }
}

/// What the agent does with an attempt whose report does not count.
const fn after_refusal(illegal: Illegal) -> Disposition {
    match illegal {
        // The attempt that the run succeeded with: what it holds is the backup, whatever comes late.
        Illegal::Ended(RunState::Succeeded) => Disposition::Forget,
        Illegal::AttemptEnded(_)
        | Illegal::Superseded { .. }
        | Illegal::NeverClaimed { .. }
        | Illegal::WasCancelled
        | Illegal::Ended(_)
        | Illegal::NotNow(_)
        | Illegal::NoAttemptLeft(_) => Disposition::Abort,
    }
}

fn ack(place: Place, answer: Disposition) -> Message {
    Message::Ack(ReportAck {
        run_id: place.run.to_string(),
        attempt: place.attempt.get(),
        sequence: place.sequence,
        disposition: disposition(answer).into(),
    })
}

/// An attempt was claimed, but cannot be ordered: it fails here and now.
pub async fn fail_unordered(app: &App, session: &Session, claimed: Claimed, fault: &Fault) -> Result<(), Fault> {
    let fault =
        FaultRecord { code: fault.code.as_str().to_owned(), message: fault.message.clone(), hint: fault.hint.clone() };
    end(app, session, claimed, ReportedEvent::Failed { fault, retryable: false, result: None, warnings_total: 0 }).await
}

/// The host holds no such attempt: another may begin soon.
pub async fn fail_lost(app: &App, session: &Session, claimed: Claimed) -> Result<(), Fault> {
    let fault = FaultRecord {
        code: ErrorCode::AgentRestarted.as_str().to_owned(),
        message: "the host does not hold the attempt: its order was lost, or the agent's journal was".to_owned(),
        hint: String::new(),
    };
    end(app, session, claimed, ReportedEvent::Lost { fault }).await
}

/// Ends an attempt from this side. Agents number their reports from 1, so 0 is ours.
async fn end(app: &App, session: &Session, claimed: Claimed, event: ReportedEvent) -> Result<(), Fault> {
    let place = Place { run: claimed.run, attempt: claimed.attempt, sequence: 0 };
    take(app, session, place, event).await.map(|_| ())
}
