//! What a run does, behind one trait, so that the owner's loop is tested without disks; and how its end is reported.

use std::path::PathBuf;

use coord_shared::api::{self, run_order, run_report};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::wire::MAX_NOTES_PER_REPORT;
use jiff::Timestamp;

use super::attempt::{NotTaken, RunContext};
use super::{Failure, backup, restore, verify};
use crate::printable::printable;
use crate::store::LocalStore;

/// Does runs. Called on a blocking thread; returns soon after the context's control asks it to stop.
pub trait Work: Send + Sync + 'static {
    /// Does what the order says.
    fn perform(&self, context: &RunContext) -> Result<Done, Failure>;
}

/// What a run that succeeded leaves.
#[derive(Debug)]
pub struct Done {
    /// Its figures.
    pub result: api::finished::Result,
    /// Warnings, of which a part was listed.
    pub warnings_total: u64,
}

/// The real thing: the file system below a root.
#[derive(Debug, Clone)]
pub struct HostWork {
    /// The host's id in the fleet.
    pub host_id: String,
    /// What this host takes for `/`, without symbolic links.
    pub root: PathBuf,
    /// Where archives are.
    pub store: LocalStore,
    /// What scans remember.
    pub cache: PathBuf,
    /// Folders of the agent's own, which no backup contains.
    pub own_folders: Vec<PathBuf>,
    /// Threads of one run; 0: one for each core.
    pub threads: usize,
}

impl Work for HostWork {
    fn perform(&self, context: &RunContext) -> Result<Done, Failure> {
        match &context.order.task {
            Some(run_order::Task::Backup(task)) => match &context.resumed {
                Some(sealed) => backup::finish_sealed(self, context, sealed, &backup::Measured::default()),
                None => backup::run(self, context, task),
            },
            Some(run_order::Task::Verify(task)) => verify::run(self, context, task),
            Some(run_order::Task::Restore(task)) => restore::run(self, context, task),
            None => {
                let fault = Fault::new(
                    ErrorCode::Unsupported,
                    "the coordinator asked for a kind of run that this agent does not know",
                );
                Err(Failure::lasting(fault.with_hint("upgrade the agent")))
            }
        }
    }
}

/// One attempt from its first report to its last.
pub(super) fn perform(work: &dyn Work, context: &RunContext) {
    let done = context.check_stop().and_then(|()| begin(context)).and_then(|()| work.perform(context));
    context.control.enter(api::Phase::Reporting, 0, 0);
    let failure = match done {
        Ok(done) => {
            let finished = api::Finished {
                outcome: api::Outcome::Succeeded.into(),
                finished_at_us: context.clock.now().as_microsecond(),
                fault: None,
                retryable: false,
                result: Some(done.result),
                warnings_total: done.warnings_total,
            };
            match context.report(run_report::Event::Finished(finished)) {
                Ok(()) => {
                    tracing::info!(run = %context.key, "run succeeded");
                    return;
                }
                Err(error) => Failure::from(error),
            }
        }
        Err(failure) if failure.is_cancelled() => {
            context.control.why_stopped().map_or(failure, |fault| Failure::lasting(fault.clone()))
        }
        Err(failure) => failure,
    };
    let Fault { code, message, .. } = &failure.fault;
    tracing::warn!(run = %context.key, %code, message = %printable(message), retryable = failure.retryable, "run did not succeed");
    match context.report(run_report::Event::Finished(failed(&failure, context.clock.now()))) {
        Ok(()) | Err(NotTaken::Closed | NotTaken::Ending) => {}
        Err(NotTaken::Journal(fault)) => {
            tracing::warn!(run = %context.key, message = %fault.message, "the end of a run is not stored")
        }
    }
}

/// Says that the attempt has begun, unless an earlier process said so.
fn begin(context: &RunContext) -> Result<(), Failure> {
    if context.resumed.is_some() {
        return Ok(());
    }
    let started = api::Started {
        started_at_us: context.clock.now().as_microsecond(),
        from_plan: context.from_plan.as_ref().and_then(|begun| begun.how),
    };
    Ok(context.report(run_report::Event::Started(started))?)
}

/// The last report of an attempt that did not succeed.
pub(super) fn failed(failure: &Failure, now: Timestamp) -> api::Finished {
    let outcome = if failure.is_cancelled() { api::Outcome::Cancelled } else { api::Outcome::Failed };
    api::Finished {
        outcome: outcome.into(),
        finished_at_us: now.as_microsecond(),
        fault: Some(failure.fault.to_api()),
        retryable: failure.retryable,
        result: failure.result.as_deref().cloned(),
        warnings_total: 0,
    }
}

/// Sends a list of notes in reports of bounded size.
pub(super) fn report_notes(context: &RunContext, notes: &[api::PathNote]) -> Result<(), Failure> {
    for batch in notes.chunks(MAX_NOTES_PER_REPORT) {
        context.report(run_report::Event::Warnings(api::Warnings { notes: batch.to_vec() }))?;
    }
    Ok(())
}

/// What an order wants backed up, if that is what it wants.
pub(super) fn backup_task(order: &api::RunOrder) -> Option<&api::BackupTask> {
    match order.task.as_ref()? {
        run_order::Task::Backup(task) => Some(task),
        run_order::Task::Verify(_) | run_order::Task::Restore(_) => None,
    }
}

/// The archive that a final report names.
pub(super) fn sealed_of(finished: &api::Finished) -> Option<&api::Sealed> {
    match finished.result.as_ref()? {
        api::finished::Result::Backup(backup) => backup.sealed.as_ref(),
        api::finished::Result::Verify(_) | api::finished::Result::Restore(_) => None,
    }
}
