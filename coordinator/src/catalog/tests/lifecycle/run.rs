//! A run as it should be: where it is, and how each of its attempts went. It knows nothing of the rules in `coord_shared::run`: that would be
//! the same mistake twice. Time is counted in half hours, which is more than any story takes.

use std::collections::BTreeSet;

use coord_shared::ids::{Attempt, BackupId};
use coord_shared::level::Level;
use coord_shared::run::{Disposition, RunKind, RunState};

/// A lease, and the wait after a failure, in half hours.
pub(super) const LEASE: i32 = 2;
pub(super) const RETRY: i32 = 3;
/// Attempts that a run has.
const MOST_ATTEMPTS: usize = 3;

/// How an attempt ended, if it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    GoesOn,
    Lapsed,
    Succeeded,
    Failed,
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Try {
    pub(super) session: u64,
    pub(super) begun: bool,
    pub(super) fate: Fate,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It may be claimed after this time.
    Waits(i32),
    /// Its host has it, until this time, over this session.
    Held(RunState, i32, u64),
    /// It has ended.
    Over(RunState),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) kind: RunKind,
    pub(super) job: usize,
    pub(super) instant: Option<u8>,
    pub(super) place: Place,
    pub(super) tries: Vec<Try>,
    pub(super) cancelling: bool,
    /// Its host has not been heard of since its lease lapsed.
    pub(super) unheard: bool,
    pub(super) level: Option<Level>,
    pub(super) backup: Option<BackupId>,
    /// Reports that were taken, and notes that were kept: attempt and number.
    pub(super) reports: BTreeSet<(u32, u64)>,
    pub(super) notes: BTreeSet<(u32, u64)>,
}

/// An attempt whose word does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Void {
    /// Its end is known.
    Ended,
    /// Everything else: replaced, never given out, of a run that is over.
    Lost,
}

impl Run {
    pub(super) fn new(kind: RunKind, job: usize, instant: Option<u8>, place: Place) -> Run {
        Run {
            kind,
            job,
            instant,
            place,
            tries: Vec::new(),
            cancelling: false,
            unheard: false,
            level: None,
            backup: None,
            reports: BTreeSet::new(),
            notes: BTreeSet::new(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.place, Place::Over(_))
    }

    pub(super) fn newest(&self) -> u32 {
        u32::try_from(self.tries.len()).unwrap()
    }

    pub(super) fn has_lapsed(&self) -> bool {
        self.tries.last().is_some_and(|newest| newest.fate == Fate::Lapsed)
    }

    /// Nothing is given to its host.
    pub(super) fn waits_for_its_host(&self) -> bool {
        self.unheard && self.has_lapsed() && matches!(self.place, Place::Waits(_))
    }

    /// As the catalog shows it.
    pub(super) fn shown(&self) -> coord_shared::run::Run {
        let state = match self.place {
            Place::Waits(_) => RunState::Queued,
            Place::Held(state, ..) | Place::Over(state) => state,
        };
        coord_shared::run::Run {
            state,
            attempt: Attempt(self.newest()),
            max_attempts: u32::try_from(MOST_ATTEMPTS).unwrap(),
            cancelling: self.cancelling,
            reaped: self.has_lapsed() && matches!(state, RunState::Queued | RunState::Failed),
        }
    }

    /// Whether it is the newest that was given out, or the first of a run that a host may have begun by itself.
    pub(super) fn is_newest(&self, attempt: u32) -> bool {
        attempt > 0 && (attempt == self.newest() || (self.tries.is_empty() && attempt == 1))
    }

    /// Whether a result of the attempt would count.
    pub(super) fn counts(&self, attempt: u32) -> Result<(), Void> {
        if !self.is_newest(attempt) {
            return Err(Void::Lost);
        }
        match self.place {
            Place::Held(..) => Ok(()),
            Place::Waits(_) | Place::Over(RunState::Missed) if self.tries.is_empty() => Ok(()),
            Place::Waits(_) | Place::Over(RunState::Failed | RunState::Missed) if self.has_lapsed() => Ok(()),
            Place::Waits(_) | Place::Over(RunState::Failed | RunState::Missed) => Err(Void::Ended),
            Place::Over(_) => Err(Void::Lost),
        }
    }

    pub(super) fn newest_try(&mut self, attempt: u32, session: u64) -> &mut Try {
        if self.newest() < attempt {
            self.tries.push(Try { session, begun: false, fate: Fate::GoesOn });
        }
        self.tries.last_mut().unwrap()
    }

    /// The host works on the attempt, and is at least so far.
    pub(super) fn work(&mut self, attempt: u32, session: u64, reached: Option<RunState>) -> Result<(), Void> {
        self.counts(attempt)?;
        let before = match self.place {
            Place::Held(state, ..) => state,
            Place::Waits(_) => RunState::Running,
            // Only its result is of interest.
            Place::Over(_) => return Ok(()),
        };
        let newest = self.newest_try(attempt, session);
        (newest.begun, newest.fate) = (true, Fate::GoesOn);
        self.place = Place::Held(reached.map_or(before, |reached| reached.max(before)), LEASE, session);
        Ok(())
    }

    pub(super) fn end(&mut self, attempt: u32, session: u64, fate: Fate) {
        self.newest_try(attempt, session).fate = fate;
    }

    pub(super) fn succeed(&mut self, attempt: u32, session: u64) -> Result<(), Void> {
        self.counts(attempt)?;
        self.end(attempt, session, Fate::Succeeded);
        (self.place, self.cancelling) = (Place::Over(RunState::Succeeded), false);
        Ok(())
    }

    pub(super) fn fail(&mut self, attempt: u32, session: u64, (fate, retry): (Fate, Option<i32>)) -> Result<(), Void> {
        match self.place {
            Place::Held(..) | Place::Waits(_) => {
                self.counts(attempt)?;
                self.end(attempt, session, fate);
                self.give_up(retry);
            }
            Place::Over(RunState::Succeeded) => return Err(Void::Lost),
            Place::Over(_) if !self.is_newest(attempt) => return Err(Void::Lost),
            Place::Over(RunState::Failed) if self.has_lapsed() => self.end(attempt, session, fate),
            Place::Over(RunState::Missed) if self.tries.is_empty() => self.end(attempt, session, fate),
            Place::Over(_) => {}
        }
        Ok(())
    }

    /// What becomes of a run whose attempt is over; `retry`: another may begin after so long.
    pub(super) fn give_up(&mut self, retry: Option<i32>) {
        self.place = match retry {
            _ if self.cancelling => Place::Over(RunState::Cancelled),
            Some(wait) if self.tries.len() < MOST_ATTEMPTS => Place::Waits(wait),
            Some(_) | None => Place::Over(RunState::Failed),
        };
        self.cancelling = false;
    }

    /// What its host is to do with the attempt.
    pub(super) fn disposition(&self, attempt: u32, finished: bool) -> Disposition {
        match self.place {
            Place::Over(RunState::Cancelled) => return Disposition::Abort,
            Place::Over(RunState::Succeeded) if attempt == self.newest() => return Disposition::Forget,
            _ if self.cancelling && !finished => return Disposition::Abort,
            _ => {}
        }
        match self.counts(attempt) {
            Ok(()) if finished => Disposition::Report,
            Ok(()) => Disposition::Continue,
            Err(Void::Ended | Void::Lost) => Disposition::Abort,
        }
    }
}
