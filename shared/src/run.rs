//! Runs: their kinds, their states and the one state machine that both ends and the catalog obey.
//!
//! Owns the invariant that at most one attempt of a run commits: [`Run::apply`] takes a success only from the newest claimed
//! attempt, and never after the next one was claimed or the run was cancelled. It is pure; the catalog guards each of its
//! writes by run, state and attempt, so that two coordinators cannot both take the same step.
//!
//! Not here: leases and their times (the database's), and what a run does.

mod words;

use crate::ids::Attempt;

pub use words::{RunKind, RunState, UnknownWord};

/// Attempts of a run at most, those included whose orders were lost: something is wrong that more of them would not mend.
pub const MOST_ATTEMPTS: u32 = 20;

/// What the state machine knows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// Where it is.
    pub state: RunState,
    /// The newest claimed attempt; 0 before the first claim.
    pub attempt: Attempt,
    /// How many attempts it may have.
    pub max_attempts: u32,
    /// An operator asked for its end; heartbeats tell the agent.
    pub cancelling: bool,
    /// The newest attempt was given up because its lease ran out, not because the host said that it ended: its result may
    /// still arrive, and then it counts.
    pub reaped: bool,
}

/// What can happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A dispatcher leases it to the host's session, as the next attempt.
    Claim,
    /// The host says, in Hello or by a heartbeat, that it holds this attempt.
    Held(Attempt),
    /// The host began the attempt.
    Started(Attempt),
    /// The archive is durable and is being verified.
    Sealed(Attempt),
    /// The attempt's result is in: this commits.
    Succeeded(Attempt),
    /// The attempt failed; `retryable` says whether another may do better.
    Failed {
        /// Which attempt.
        attempt: Attempt,
        /// Whether trying again may help.
        retryable: bool,
    },
    /// The host stopped the attempt, because it was told to or because it is going down.
    Stopped(Attempt),
    /// The host says that it does not hold the attempt: its order was lost, or the host began and forgot it.
    Lost(Attempt),
    /// The lease of the attempt ran out.
    Reaped(Attempt),
    /// An operator wants it to end.
    Cancelled,
    /// It cannot start when it was due: another is open, or the coordinators were away for longer than the catch-up.
    Missed,
    /// No other attempt may begin any more: the run that waits for one has failed. The result of a reaped attempt may still come.
    OutOfTime,
}

/// Why an event does not apply. None of these is an error of the machine: each is a race outcome with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Illegal {
    /// A later attempt was claimed: this one does not count any more.
    #[error("attempt {given} was replaced by attempt {newest}")]
    Superseded {
        /// The attempt of the event.
        given: Attempt,
        /// The newest claimed one.
        newest: Attempt,
    },
    /// Nobody was given this attempt.
    #[error("attempt {given} was never given out, the newest is {newest}")]
    NeverClaimed {
        /// The attempt of the event.
        given: Attempt,
        /// The newest claimed one.
        newest: Attempt,
    },
    /// The run was cancelled.
    #[error("the run was cancelled")]
    WasCancelled,
    /// The run has ended in another way.
    #[error("the run has ended: {0}")]
    Ended(RunState),
    /// The host itself said that this attempt had ended.
    #[error("attempt {0} has ended already")]
    AttemptEnded(Attempt),
    /// The event does not belong to this state.
    #[error("the run is {0}")]
    NotNow(RunState),
    /// Every attempt is spent.
    #[error("all {0} attempts are spent")]
    NoAttemptLeft(u32),
}

/// What an agent should do with an attempt that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Go on.
    Continue,
    /// Its end is known here: forget it.
    Forget,
    /// It does not count any more: stop, keep nothing.
    Abort,
    /// It has ended there and may still count: send the final report.
    Report,
}

impl Run {
    /// A run that waits for its first attempt.
    pub const fn queued(max_attempts: u32) -> Self {
        Self { state: RunState::Queued, attempt: Attempt(0), max_attempts, cancelling: false, reaped: false }
    }

    /// The run after `event`. Equal to the run before when the event had happened already: reports may be repeated.
    ///
    /// # Errors
    /// [`Illegal`] names the race that was lost; the run is as it was.
    pub fn apply(self, event: Event) -> Result<Run, Illegal> {
        match event {
            Event::Claim => self.claim(),
            Event::Held(attempt) => self.held(attempt),
            Event::Started(attempt) => self.progress(attempt, RunState::Running),
            Event::Sealed(attempt) => self.progress(attempt, RunState::Verifying),
            Event::Succeeded(attempt) => self.succeed(attempt),
            Event::Failed { attempt, retryable } => self.fail(attempt, retryable),
            Event::Stopped(attempt) => self.fail(attempt, true),
            Event::Lost(attempt) => self.lose(attempt),
            Event::Reaped(attempt) => self.reap(attempt),
            Event::Cancelled => self.cancel(),
            Event::Missed => self.miss(),
            Event::OutOfTime => self.run_out_of_time(),
        }
    }

    /// What the host should do with `attempt`, which it holds; `finished` when it has ended there.
    pub fn disposition(self, attempt: Attempt, finished: bool) -> Disposition {
        if self.state == RunState::Cancelled || (self.cancelling && !finished) {
            return Disposition::Abort;
        }
        if self.state == RunState::Succeeded && self.attempt == attempt {
            return Disposition::Forget;
        }
        match self.may_commit(attempt) {
            Ok(()) if finished => Disposition::Report,
            Ok(()) => Disposition::Continue,
            Err(
                Illegal::AttemptEnded(_)
                | Illegal::Superseded { .. }
                | Illegal::NeverClaimed { .. }
                | Illegal::WasCancelled
                | Illegal::Ended(_)
                | Illegal::NotNow(_)
                | Illegal::NoAttemptLeft(_),
            ) => Disposition::Abort,
        }
    }

    /// Whether `attempt` is the newest claimed one, or attempt 1 of a run that was never claimed: a host that is cut off
    /// starts the runs of its plan so.
    fn newest(self, attempt: Attempt) -> Result<(), Illegal> {
        let newest = self.attempt;
        let planned = newest == Attempt(0) && attempt == Attempt(1);
        if attempt == Attempt(0) || (attempt > newest && !planned) {
            return Err(Illegal::NeverClaimed { given: attempt, newest });
        }
        if attempt < newest {
            return Err(Illegal::Superseded { given: attempt, newest });
        }
        Ok(())
    }

    /// Whether a result of `attempt` would count now. The rule of late commits is here and only here.
    fn may_commit(self, attempt: Attempt) -> Result<(), Illegal> {
        match self.state {
            RunState::Cancelled => Err(Illegal::WasCancelled),
            RunState::Leased | RunState::Running | RunState::Verifying => self.newest(attempt),
            RunState::Queued | RunState::Missed | RunState::Failed => {
                self.newest(attempt)?;
                let planned = self.attempt == Attempt(0) && self.state != RunState::Failed;
                if self.reaped || planned { Ok(()) } else { Err(Illegal::AttemptEnded(attempt)) }
            }
            RunState::Succeeded => {
                self.newest(attempt)?;
                Err(Illegal::Ended(self.state))
            }
        }
    }

    fn claim(self) -> Result<Run, Illegal> {
        match self.state {
            RunState::Queued if self.attempt.get() >= self.max_attempts => {
                Err(Illegal::NoAttemptLeft(self.max_attempts))
            }
            RunState::Queued => {
                Ok(Run { state: RunState::Leased, attempt: self.attempt.next(), reaped: false, ..self })
            }
            RunState::Leased | RunState::Running | RunState::Verifying => Err(Illegal::NotNow(self.state)),
            RunState::Cancelled => Err(Illegal::WasCancelled),
            RunState::Succeeded | RunState::Failed | RunState::Missed => Err(Illegal::Ended(self.state)),
        }
    }

    fn held(self, attempt: Attempt) -> Result<Run, Illegal> {
        self.may_commit(attempt)?;
        match self.state {
            RunState::Leased | RunState::Running | RunState::Verifying => Ok(self),
            // Attempt+1 is given only if the host does not hold the old one: the run is taken back out of the queue.
            RunState::Queued => Ok(Run { state: RunState::Running, attempt, reaped: false, ..self }),
            // Ended, but a commit may still come: nothing to change.
            RunState::Failed | RunState::Missed | RunState::Succeeded | RunState::Cancelled => Ok(self),
        }
    }

    fn progress(self, attempt: Attempt, reached: RunState) -> Result<Run, Illegal> {
        let held = self.held(attempt)?;
        match held.state {
            RunState::Leased => Ok(Run { state: reached, ..held }),
            RunState::Running if reached == RunState::Verifying => Ok(Run { state: reached, ..held }),
            RunState::Running | RunState::Verifying | RunState::Failed | RunState::Missed => Ok(held),
            RunState::Queued | RunState::Succeeded | RunState::Cancelled => Err(Illegal::NotNow(held.state)),
        }
    }

    fn succeed(self, attempt: Attempt) -> Result<Run, Illegal> {
        if self.state == RunState::Succeeded && self.attempt == attempt {
            return Ok(self);
        }
        self.may_commit(attempt)?;
        Ok(Run { state: RunState::Succeeded, attempt, reaped: false, cancelling: false, ..self })
    }

    fn fail(self, attempt: Attempt, retryable: bool) -> Result<Run, Illegal> {
        match self.state {
            RunState::Leased | RunState::Running | RunState::Verifying => {
                self.newest(attempt)?;
                Ok(self.after_attempt(retryable, false))
            }
            RunState::Queued => {
                self.may_commit(attempt)?;
                Ok(Run { attempt, ..self }.after_attempt(retryable, false))
            }
            // The host confirms the end of what was reaped: its success cannot come any more.
            RunState::Failed => {
                self.newest(attempt)?;
                Ok(Run { reaped: false, ..self })
            }
            // A run that was missed here and failed there stays missed. The attempt is over: its success cannot come any more.
            RunState::Missed => {
                self.newest(attempt)?;
                Ok(Run { attempt, ..self })
            }
            RunState::Cancelled => {
                self.newest(attempt)?;
                Ok(self)
            }
            RunState::Succeeded => {
                self.newest(attempt)?;
                Err(Illegal::Ended(self.state))
            }
        }
    }

    /// An order that was lost before the host began is nobody's attempt: another takes its place, until [`MOST_ATTEMPTS`] were given out.
    fn lose(self, attempt: Attempt) -> Result<Run, Illegal> {
        if self.state != RunState::Leased || self.cancelling {
            return self.fail(attempt, true);
        }
        self.newest(attempt)?;
        let max_attempts = self.max_attempts.max(self.max_attempts.saturating_add(1).min(MOST_ATTEMPTS));
        Ok(Run { max_attempts, ..self }.after_attempt(true, false))
    }

    fn reap(self, attempt: Attempt) -> Result<Run, Illegal> {
        match self.state {
            RunState::Leased | RunState::Running | RunState::Verifying => {
                self.newest(attempt)?;
                Ok(self.after_attempt(true, true))
            }
            RunState::Queued => Err(Illegal::NotNow(self.state)),
            RunState::Cancelled => Err(Illegal::WasCancelled),
            RunState::Succeeded | RunState::Failed | RunState::Missed => Err(Illegal::Ended(self.state)),
        }
    }

    /// Where a run goes when its newest attempt is over without a result.
    fn after_attempt(self, retryable: bool, reaped: bool) -> Run {
        let state = if self.cancelling {
            RunState::Cancelled
        } else if retryable && self.attempt.get() < self.max_attempts {
            RunState::Queued
        } else {
            RunState::Failed
        };
        // What was cancelled never commits, so it is nobody's to wait for.
        Run { state, reaped: reaped && state != RunState::Cancelled, cancelling: false, ..self }
    }

    fn cancel(self) -> Result<Run, Illegal> {
        match self.state {
            RunState::Queued => Ok(Run { state: RunState::Cancelled, reaped: false, ..self }),
            RunState::Leased | RunState::Running | RunState::Verifying => Ok(Run { cancelling: true, ..self }),
            RunState::Cancelled => Ok(self),
            RunState::Succeeded | RunState::Failed | RunState::Missed => Err(Illegal::Ended(self.state)),
        }
    }

    fn miss(self) -> Result<Run, Illegal> {
        match self.state {
            RunState::Queued if self.attempt == Attempt(0) => Ok(Run { state: RunState::Missed, ..self }),
            RunState::Missed => Ok(self),
            RunState::Queued | RunState::Leased | RunState::Running | RunState::Verifying => {
                Err(Illegal::NotNow(self.state))
            }
            RunState::Cancelled => Err(Illegal::WasCancelled),
            RunState::Succeeded | RunState::Failed => Err(Illegal::Ended(self.state)),
        }
    }

    fn run_out_of_time(self) -> Result<Run, Illegal> {
        match self.state {
            RunState::Queued if self.attempt > Attempt(0) => Ok(Run { state: RunState::Failed, ..self }),
            RunState::Failed => Ok(self),
            RunState::Queued | RunState::Leased | RunState::Running | RunState::Verifying => {
                Err(Illegal::NotNow(self.state))
            }
            RunState::Cancelled => Err(Illegal::WasCancelled),
            RunState::Succeeded | RunState::Missed => Err(Illegal::Ended(self.state)),
        }
    }
}

#[cfg(test)]
mod tests;
