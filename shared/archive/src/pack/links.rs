//! Which names of hard-linked inodes became members, so that later names can be link members.
//!
//! A name is registered when it is handed out and settled when its file was read to the end, or could not be. Later names
//! wait for that; they only ever wait for earlier ones, so nobody waits in a circle. Until then nobody may link to it: the
//! name may turn out to be another file's by now.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The fate of a name that others may link to.
#[derive(Clone, Debug)]
enum Outcome {
    Pending,
    /// The content is a member, under this name.
    Stored(Vec<u8>),
    Gone,
}

/// What a name that wants to link does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Be a link member to this name.
    LinkTo(Vec<u8>),
    /// Be a member with content, and settle the target that was asked for.
    StoreInstead,
    /// Packing has failed elsewhere.
    Stopped,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LinkBoard {
    state: Mutex<(HashMap<Vec<u8>, Outcome>, bool)>,
    settled: Condvar,
}

impl LinkBoard {
    fn lock(&self) -> MutexGuard<'_, (HashMap<Vec<u8>, Outcome>, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces that `path` will be tried; called in path order, before any name that links to it.
    pub(super) fn register(&self, path: &[u8]) {
        self.lock().0.insert(path.to_vec(), Outcome::Pending);
    }

    /// Settles `target`: its content is a member named `stored_as`, or there is none.
    pub(super) fn settle(&self, target: &[u8], stored_as: Option<&[u8]>) {
        let outcome = stored_as.map_or(Outcome::Gone, |name| Outcome::Stored(name.to_vec()));
        self.lock().0.insert(target.to_vec(), outcome);
        self.settled.notify_all();
    }

    /// Waits until `target` is settled.
    pub(super) fn resolve(&self, target: &[u8]) -> Resolution {
        let mut state = self.lock();
        loop {
            if state.1 {
                return Resolution::Stopped;
            }
            match state.0.get(target) {
                Some(Outcome::Stored(name)) => return Resolution::LinkTo(name.clone()),
                Some(Outcome::Gone) | None => {
                    state.0.insert(target.to_vec(), Outcome::Pending);
                    return Resolution::StoreInstead;
                }
                Some(Outcome::Pending) => {
                    state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Wakes everybody for the end.
    pub(super) fn stop(&self) {
        self.lock().1 = true;
        self.settled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_that_can_be_read_takes_the_place_of_a_vanished_one() {
        let board = LinkBoard::default();
        board.register(b"a");
        board.settle(b"a", None);
        assert_eq!(board.resolve(b"a"), Resolution::StoreInstead);
        board.settle(b"a", Some(b"b"));
        assert_eq!(board.resolve(b"a"), Resolution::LinkTo(b"b".to_vec()));
    }

    #[test]
    fn a_name_waits_for_the_one_it_links_to() {
        let board = LinkBoard::default();
        board.register(b"a");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| board.resolve(b"a"));
            board.settle(b"a", Some(b"a"));
            assert_eq!(waiting.join().ok(), Some(Resolution::LinkTo(b"a".to_vec())));
        });
    }
}
