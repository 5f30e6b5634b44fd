//! Several threads bring numbered frames, and one taker takes them in the order of their numbers.
//!
//! A thread that is early leaves its frame in a bounded place and goes on; whoever brings the next number gives the taker all that
//! follow. Only when there is no room does a thread wait.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most bytes of memory that frames which came early hold.
const MAX_PARKED_BYTES: usize = 8 << 20;

/// Most buffers of such frames that are kept for the next ones.
const MAX_SPARE: usize = 4;

/// Takes the frame of that number; `None` is one that cannot be read.
type Take<T> = fn(&mut T, u64, Option<&[u8]>);

/// What takes frames in order, whoever brings them.
pub(super) struct Turns<T> {
    state: Mutex<State<T>>,
    turn: Condvar,
    take: Take<T>,
}

struct State<T> {
    /// `None` while a thread is giving it frames.
    taker: Option<T>,
    next: u64,
    parked: BTreeMap<u64, Option<Vec<u8>>>,
    parked_bytes: usize,
    /// Buffers of frames that were parked once.
    spare: Vec<Vec<u8>>,
    stopped: bool,
}

impl<T> Turns<T> {
    pub(super) fn new(taker: T, take: Take<T>) -> Self {
        let state = State {
            taker: Some(taker),
            next: 0,
            parked: BTreeMap::new(),
            parked_bytes: 0,
            spare: Vec::new(),
            stopped: false,
        };
        Self { state: Mutex::new(state), turn: Condvar::new(), take }
    }

    /// Brings the frame `number`, of which there is one for each number from 0 on. `raw` comes back as working memory with any
    /// content. When everybody was stopped, nothing is taken any more.
    pub(super) fn bring(&self, number: u64, raw: &mut Vec<u8>, is_readable: bool) {
        let mut state = self.lock();
        let mut taker = loop {
            if state.stopped {
                return;
            }
            if state.next == number
                && let Some(taker) = state.taker.take()
            {
                break taker;
            }
            if !is_readable || state.parked_bytes + raw.capacity() <= MAX_PARKED_BYTES {
                let instead = state.spare.pop().unwrap_or_default();
                state.park(number, is_readable.then(|| std::mem::replace(raw, instead)));
                return;
            }
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        (self.take)(&mut taker, number, is_readable.then_some(raw.as_slice()));
        let mut state = self.lock();
        state.next += 1;
        while let Some((number, frame)) = state.unpark() {
            drop(state);
            (self.take)(&mut taker, number, frame.as_deref());
            state = self.lock();
            state.next += 1;
            let room = MAX_SPARE - state.spare.len();
            state.spare.extend(frame.into_iter().take(room));
        }
        state.taker = Some(taker);
        self.turn.notify_all();
    }

    /// Makes everybody go on without waiting.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.turn.notify_all();
    }

    /// What has taken everything; `None` when a thread that was giving it frames panicked.
    pub(super) fn into_inner(self) -> Option<T> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).taker
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn park(&mut self, number: u64, frame: Option<Vec<u8>>) {
        self.parked_bytes += frame.as_ref().map_or(0, Vec::capacity);
        self.parked.insert(number, frame);
    }

    /// The frame that is next, if it came early.
    fn unpark(&mut self) -> Option<(u64, Option<Vec<u8>>)> {
        let frame = self.parked.remove(&self.next).filter(|_| !self.stopped)?;
        self.parked_bytes -= frame.as_ref().map_or(0, Vec::capacity);
        Some((self.next, frame))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    type Seen = Vec<(u64, Option<Vec<u8>>)>;

    fn see(seen: &mut Seen, number: u64, frame: Option<&[u8]>) {
        seen.push((number, frame.map(<[u8]>::to_vec)));
    }

    fn frame(number: u64) -> Vec<u8> {
        vec![u8::try_from(number % 251).unwrap(); 100 + usize::try_from(number).unwrap()]
    }

    #[test]
    fn frames_that_come_early_are_taken_in_order_and_nobody_waits() {
        let turns = Turns::new(Seen::new(), see);
        for number in [3, 1, 2, 5] {
            turns.bring(number, &mut frame(number), number != 2);
        }
        assert_eq!(turns.lock().parked.len(), 4);
        for number in [0, 4] {
            turns.bring(number, &mut frame(number), true);
        }
        assert!(turns.lock().parked.is_empty());
        assert_eq!(turns.lock().parked_bytes, 0);
        let seen = turns.into_inner().unwrap();
        let expected: Seen = (0..6).map(|number| (number, (number != 2).then(|| frame(number)))).collect();
        assert!(seen == expected, "{:?}", seen.iter().map(|(number, _)| number).collect::<Vec<_>>());
    }

    #[test]
    fn a_frame_for_which_there_is_no_room_waits_for_its_turn() {
        let turns = Turns::new(Seen::new(), see);
        std::thread::scope(|scope| {
            let early = scope.spawn(|| turns.bring(1, &mut Vec::with_capacity(MAX_PARKED_BYTES + 1), true));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!early.is_finished());
            turns.bring(0, &mut Vec::new(), true);
        });
        assert_eq!(turns.into_inner().unwrap().len(), 2);
    }

    #[test]
    fn who_waits_goes_on_when_everybody_is_stopped() {
        let turns = Turns::new(Seen::new(), see);
        std::thread::scope(|scope| {
            scope.spawn(|| turns.bring(1, &mut Vec::with_capacity(MAX_PARKED_BYTES + 1), true));
            turns.stop();
        });
        assert!(turns.into_inner().unwrap().is_empty());
    }
}
