//! One attempt as its own thread and the engine share it: a way to stop it, what it has done so far, and how it reports.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use coord_archive::progress::{Advance, Progress};
use coord_shared::api::{self, run_report};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::level::Level;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::host_clock::HostClock;
use super::pace::Pace;
use super::{Event, Failure};
use crate::journal::{AttemptKey, BegunFromPlan};

/// How often a thread that waits looks whether it should stop.
const STOP_POLL: Duration = Duration::from_millis(200);

/// A report was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The attempt does not count any more: stop, keep nothing.
    #[error("the attempt does not count any more")]
    Closed,
    /// The journal could not be written.
    #[error("{}", .0.message)]
    Journal(Fault),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// What the engine sees of a running attempt, and how it stops it.
#[derive(Debug, Default)]
pub struct Control {
    stop: CancellationToken,
    why: OnceLock<Fault>,
    phase: AtomicI32,
    files_done: AtomicU64,
    files_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    level: Mutex<Option<Level>>,
    answered: Condvar,
    pace: Pace,
}

impl Control {
    /// Asks the attempt to stop.
    pub fn stop(&self) {
        self.stop.cancel();
        self.answered.notify_all();
        self.pace.wake();
    }

    /// The same, because of a fault: the attempt ends with it, and not as one that somebody stopped.
    pub fn stop_for(&self, fault: Fault) {
        self.why.get_or_init(|| fault);
        self.stop();
    }

    /// Why it was stopped, if nobody asked for that.
    pub fn why_stopped(&self) -> Option<&Fault> {
        self.why.get()
    }

    /// How fast it may go from now on; none: as fast as it goes.
    pub fn set_pace(&self, pace: Option<api::Pace>) {
        self.pace.set(pace);
    }

    /// Cancelled when the attempt is to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Takes the coordinator's answer to the scan's figures. Only the first counts.
    pub fn answer_level(&self, level: Level) {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(level);
        self.answered.notify_all();
    }

    /// Begins a phase, with what is known of its size.
    pub fn enter(&self, phase: api::Phase, files_total: u64, bytes_total: u64) {
        self.phase.store(phase.into(), Ordering::Relaxed);
        self.files_done.store(0, Ordering::Relaxed);
        self.bytes_done.store(0, Ordering::Relaxed);
        self.files_total.store(files_total, Ordering::Relaxed);
        self.bytes_total.store(bytes_total, Ordering::Relaxed);
    }

    /// Where the attempt is.
    pub fn phase(&self) -> i32 {
        self.phase.load(Ordering::Relaxed)
    }

    /// Counters for a heartbeat.
    pub fn progress(&self) -> api::Progress {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        api::Progress {
            phase: self.phase(),
            files_done: read(&self.files_done),
            files_total: read(&self.files_total),
            bytes_done: read(&self.bytes_done),
            bytes_total: read(&self.bytes_total),
        }
    }
}

impl Progress for Control {
    fn advance(&self, step: Advance<'_>) -> ControlFlow<()> {
        self.files_done.fetch_add(step.files, Ordering::Relaxed);
        self.bytes_done.fetch_add(step.bytes, Ordering::Relaxed);
        self.pace.keep(step.bytes, step.stored_bytes, &self.stop);
        if self.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// What the thread of an attempt works with.
pub struct RunContext {
    /// Which attempt.
    pub key: AttemptKey,
    /// What was asked for.
    pub order: api::RunOrder,
    /// The archive that an earlier process of this agent sealed and did not verify to the end.
    pub resumed: Option<api::Sealed>,
    /// Set when this host began the run by itself: then nobody is asked about its level.
    pub from_plan: Option<BegunFromPlan>,
    /// The newest archives of the same job that were made here, newest first.
    pub newest_here: Vec<api::ArchiveLocation>,
    /// Stop flag and counters.
    pub control: Arc<Control>,
    /// The host's clock.
    pub clock: HostClock,
    pub(super) events: mpsc::Sender<Event>,
}

impl RunContext {
    /// Reports, and waits until the report is as durable as it has to be. Never called from async code.
    pub fn report(&self, event: run_report::Event) -> Result<(), NotTaken> {
        let (taken, answer) = oneshot::channel();
        let event = Event::Report { key: self.key.clone(), event: Box::new(event), taken };
        self.events.blocking_send(event).map_err(|_| NotTaken::Ending)?;
        answer.blocking_recv().map_err(|_| NotTaken::Ending)?
    }

    /// The number of a new backup of a job.
    pub fn next_ordinal(&self, policy_id: &str, floor: u64) -> Result<u64, NotTaken> {
        let (number, answer) = oneshot::channel();
        let event = Event::NextOrdinal { policy_id: policy_id.to_owned(), floor, number };
        self.events.blocking_send(event).map_err(|_| NotTaken::Ending)?;
        answer.blocking_recv().map_err(|_| NotTaken::Ending)?
    }

    /// The coordinator's answer to the scan's figures; `None` when none came in time.
    pub fn wait_level(&self, patience: Duration) -> Result<Option<Level>, Failure> {
        let deadline = Instant::now() + patience;
        let mut level = self.control.level.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.check_stop()?;
            if level.is_some() {
                return Ok(*level);
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let waited = self.control.answered.wait_timeout(level, STOP_POLL);
            level = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// An error when the attempt is to stop.
    pub fn check_stop(&self) -> Result<(), Failure> {
        if self.control.stop.is_cancelled() { Err(Failure::cancelled()) } else { Ok(()) }
    }
}

impl From<NotTaken> for Failure {
    fn from(error: NotTaken) -> Failure {
        match error {
            NotTaken::Closed | NotTaken::Ending => Failure::cancelled(),
            NotTaken::Journal(fault) if fault.code == ErrorCode::DiskFull => Failure::lasting(fault),
            NotTaken::Journal(fault) => Failure::retryable(fault),
        }
    }
}

impl NotTaken {
    pub(super) fn journal(error: &crate::journal::SegmentError) -> NotTaken {
        let code = if error.is_disk_full() { ErrorCode::DiskFull } else { ErrorCode::Io };
        NotTaken::Journal(
            Fault::new(code, crate::chain::chain(error)).with_hint("make room for the agent's state folder"),
        )
    }
}
