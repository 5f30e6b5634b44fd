//! Threads that compare batches, all alike: each takes the next batch, looks at its names, and brings what it found.
//!
//! Batches are decided about in their order, by whoever finds that it is the next one's turn, one thread at a time; the
//! others go on looking as far as the window allows. The first error ends everybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::batches::Batches;
use super::compare::Differ;
use super::error::ScanError;
use super::look::WalkPlan;
use super::meet::{Compared, Meeting};

/// Most threads that look; the walk that feeds them is one at a time.
const MAX_THREADS: usize = 8;
/// Batches that may wait for their turn, for each thread.
const WAITING_BATCHES: usize = 2;

/// What the threads share.
struct Crew<'a, 'd> {
    batches: Mutex<Batches<'a>>,
    state: Mutex<State<'d>>,
    turn: Condvar,
    window: usize,
}

struct State<'d> {
    next_seq: u64,
    waiting: BTreeMap<u64, Compared>,
    /// `None` while somebody decides.
    differ: Option<Box<Differ<'d>>>,
    failure: Option<ScanError>,
    stopped: bool,
}

/// Runs the comparison to its end; gives back the decider, which has heard of every batch.
pub(super) fn run<'a, 'd>(
    batches: Batches<'a>,
    differ: Differ<'d>,
    tools: impl Fn(Arc<WalkPlan>) -> Meeting<'a> + Sync,
) -> Result<Differ<'d>, ScanError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let plan = Arc::clone(batches.plan());
    let state =
        State { next_seq: 0, waiting: BTreeMap::new(), differ: Some(Box::new(differ)), failure: None, stopped: false };
    let crew = Crew {
        batches: Mutex::new(batches),
        state: Mutex::new(state),
        turn: Condvar::new(),
        window: WAITING_BATCHES * threads,
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| crew.work(tools(Arc::clone(&plan))));
        }
        crew.work(tools(Arc::clone(&plan)));
    });
    let state = crew.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (state.failure, state.differ) {
        (Some(error), _) => Err(error),
        (None, Some(differ)) => Ok(*differ),
        // Whoever had it panicked, which the scope has passed on already.
        (None, None) => Err(ScanError::Cancelled),
    }
}

impl<'d> Crew<'_, 'd> {
    fn work(&self, mut tools: Meeting<'_>) {
        let _guard = StopOnPanic(self);
        while let Some(outcome) = self.next(&mut tools) {
            if let Err(error) = outcome {
                let mut state = self.lock();
                state.failure.get_or_insert(error);
                state.stopped = true;
                self.turn.notify_all();
                return;
            }
        }
    }

    /// Deals with one batch; `None` when there is nothing left to do.
    fn next(&self, tools: &mut Meeting<'_>) -> Option<Result<(), ScanError>> {
        if self.lock().stopped {
            return None;
        }
        let batch = self.batches.lock().unwrap_or_else(PoisonError::into_inner).next().transpose()?;
        Some(batch.and_then(|batch| {
            let seq = batch.seq;
            let found = tools.compare(batch)?;
            self.bring(seq, found)
        }))
    }

    /// Leaves what was found until it is its turn, and decides about everything whose turn it is.
    fn bring(&self, seq: u64, found: Compared) -> Result<(), ScanError> {
        let mut state = self.lock();
        state.waiting.insert(seq, found);
        loop {
            if state.stopped {
                return Ok(());
            }
            let next = state.next_seq;
            if !state.waiting.contains_key(&next) || state.differ.is_none() {
                if state.waiting.len() <= self.window {
                    return Ok(());
                }
                state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (Some(mut differ), Some(found)) = (state.differ.take(), state.waiting.remove(&next)) else {
                return Ok(());
            };
            drop(state);
            let outcome = differ.take(found);
            state = self.lock();
            state.differ = Some(differ);
            state.next_seq += 1;
            self.turn.notify_all();
            outcome?;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'d>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that panics must not leave the others waiting for it; the panic then goes on to the caller.
struct StopOnPanic<'c, 'a, 'd>(&'c Crew<'a, 'd>);

impl Drop for StopOnPanic<'_, '_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().stopped = true;
            self.0.turn.notify_all();
        }
    }
}
