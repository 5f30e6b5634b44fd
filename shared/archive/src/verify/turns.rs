//! Several threads bring numbered things, and one takes them in the order of their numbers.

use std::sync::{Condvar, Mutex, PoisonError};

/// What takes things in order, whoever brings them.
pub(super) struct Turns<T> {
    state: Mutex<State<T>>,
    turn: Condvar,
}

struct State<T> {
    taker: T,
    next: u64,
    stopped: bool,
}

impl<T> Turns<T> {
    pub(super) fn new(taker: T) -> Self {
        Self { state: Mutex::new(State { taker, next: 0, stopped: false }), turn: Condvar::new() }
    }

    /// Waits until everything before `number` was taken, then gives this. When everybody was stopped, nothing is taken any more.
    pub(super) fn take(&self, number: u64, give: impl FnOnce(&mut T)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.next != number && !state.stopped {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.stopped {
            give(&mut state.taker);
            state.next += 1;
            self.turn.notify_all();
        }
    }

    /// Makes everybody go on without waiting.
    pub(super) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.turn.notify_all();
    }

    /// What has taken everything.
    pub(super) fn into_inner(self) -> T {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).taker
    }
}
