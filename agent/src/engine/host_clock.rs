//! The host's clock, and what has to be added to it to get the coordinator's.
//!
//! An answer that carries the coordinator's time says between which bounds the offset lies: that time was read after the question was sent
//! and before the answer came. Bounds of several answers are held against each other, as clocks of a network do (RFC 5905, section 11.2.1):
//! a slow answer does not spoil what a quick one said. They grow apart again by as much as a clock may drift; when they contradict each
//! other, a clock was set, and the newest answer counts alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_shared::clock::Clock;
use jiff::{SignedDuration, Timestamp};

/// How far two clocks may move apart, in microseconds a second. Crystals of servers stay under 100, and both may be off.
const DRIFT_US_PER_S: i64 = 200;
/// How wrong a time may be that came without a question.
const UNASKED: Duration = Duration::from_secs(60);
/// How wrong an offset may be that another process measured.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// An offset is between `low` and `high`, in microseconds to add to the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    low: i64,
    high: i64,
}

impl Bounds {
    fn around(offset: i64, error: Duration) -> Bounds {
        let error = i64::try_from(error.as_micros()).unwrap_or(i64::MAX);
        Bounds { low: offset.saturating_sub(error), high: offset.saturating_add(error) }
    }

    /// Of an answer: the host's clock when the question was sent and when the answer came, and the time in it.
    fn of_answer(asked_us: i64, answered_us: i64, coordinator_us: i64) -> Bounds {
        let (one, other) = (coordinator_us.saturating_sub(answered_us), coordinator_us.saturating_sub(asked_us));
        // The host's clock may be set back in between.
        Bounds { low: one.min(other), high: one.max(other) }
    }

    fn after(self, passed: Duration) -> Bounds {
        let seconds = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
        let drift = seconds.saturating_mul(DRIFT_US_PER_S);
        Bounds { low: self.low.saturating_sub(drift), high: self.high.saturating_add(drift) }
    }

    /// What both allow; the newer alone, if they contradict each other.
    fn and_newer(self, newer: Bounds) -> Bounds {
        let both = Bounds { low: self.low.max(newer.low), high: self.high.min(newer.high) };
        if both.low <= both.high { both } else { newer }
    }

    fn middle(self) -> i64 {
        self.low.midpoint(self.high)
    }
}

#[derive(Debug, Default)]
struct Measured {
    bounds: Option<(Bounds, Instant)>,
    /// When the oldest question was sent that may still be answered, by the host's clock.
    asked_us: Option<i64>,
}

/// See the module. Clones are one clock.
#[derive(Clone)]
pub struct HostClock {
    clock: Arc<dyn Clock>,
    measured: Arc<Mutex<Measured>>,
}

impl HostClock {
    /// A clock whose offset is not measured yet.
    pub fn new(clock: Arc<dyn Clock>) -> HostClock {
        HostClock { clock, measured: Arc::default() }
    }

    /// Now, by the host.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Takes an offset that was measured before this process began.
    pub fn remember(&self, offset_us: i64) {
        self.locked(|measured| measured.bounds = Some((Bounds::around(offset_us, REMEMBERED), Instant::now())));
    }

    /// A new conversation begins with a question: earlier ones are not answered any more.
    pub fn begin(&self) {
        let now_us = self.now().as_microsecond();
        self.locked(|measured| measured.asked_us = Some(now_us));
    }

    /// A question is sent now, by the instant that is given back. Its answer carries the coordinator's time.
    pub fn ask(&self) -> i64 {
        let now_us = self.now().as_microsecond();
        self.locked(|measured| measured.asked_us = measured.asked_us.or(Some(now_us)));
        now_us
    }

    /// Takes the coordinator's time from an answer that has just come; 0: it has none.
    pub fn answered(&self, coordinator_us: i64) {
        if coordinator_us == 0 {
            return;
        }
        let now_us = self.now().as_microsecond();
        self.locked(|measured| {
            // Of several questions it may answer any: the oldest gives bounds that hold.
            let new = match measured.asked_us.take() {
                Some(asked_us) => Bounds::of_answer(asked_us, now_us, coordinator_us),
                None => Bounds::around(coordinator_us.saturating_sub(now_us), UNASKED),
            };
            let bounds = match measured.bounds {
                Some((known, at)) => known.after(at.elapsed()).and_newer(new),
                None => new,
            };
            measured.bounds = Some((bounds, Instant::now()));
        });
    }

    /// Microseconds to add to the host's clock; 0 if never measured.
    pub fn offset_us(&self) -> i64 {
        self.locked(|measured| measured.bounds.map_or(0, |(bounds, _)| bounds.middle()))
    }

    /// Now, as the coordinator's clock would show it.
    pub fn corrected_now(&self) -> Timestamp {
        HostClock::corrected(self.now(), self.offset_us())
    }

    /// The host's instant by the coordinator's clock, with an offset measured at the beginning of the run.
    pub fn corrected(at: Timestamp, offset_us: i64) -> Timestamp {
        at.checked_add(SignedDuration::from_micros(offset_us)).unwrap_or(at)
    }

    fn locked<R>(&self, act: impl FnOnce(&mut Measured) -> R) -> R {
        act(&mut self.measured.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const SECOND: i64 = 1_000_000;
    /// What rounding and drift may add.
    const EXACT: i64 = 1_000;

    /// A host's clock that a story sets.
    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            Timestamp::from_microsecond(self.0.load(Ordering::Relaxed)).unwrap()
        }
    }

    /// A host whose clock is behind the coordinator's.
    struct Story {
        hands: Arc<Hands>,
        clock: HostClock,
        behind_us: i64,
    }

    impl Story {
        fn of_a_host_behind_by(behind_us: i64) -> Story {
            let hands = Arc::new(Hands(AtomicI64::new(1000 * SECOND)));
            Story { clock: HostClock::new(Arc::<Hands>::clone(&hands)), hands, behind_us }
        }

        fn pass(&self, us: i64) {
            self.hands.0.fetch_add(us, Ordering::Relaxed);
        }

        fn coordinator_us(&self) -> i64 {
            self.hands.0.load(Ordering::Relaxed) + self.behind_us
        }

        /// A question that takes so long to arrive, and whose answer takes so long.
        fn conversation(&self, there_us: i64, back_us: i64) {
            self.clock.ask();
            self.pass(there_us);
            let said = self.coordinator_us();
            self.pass(back_us);
            self.clock.answered(said);
        }

        fn error_us(&self) -> i64 {
            (self.clock.offset_us() - self.behind_us).abs()
        }
    }

    #[test]
    fn an_answer_that_takes_long_is_wrong_by_half_of_it_at_most() {
        let story = Story::of_a_host_behind_by(-600 * SECOND);
        story.conversation(0, 4 * SECOND);
        assert_eq!(story.error_us(), 2 * SECOND);
        story.conversation(2 * SECOND, 2 * SECOND);
        assert!(story.error_us() <= SECOND, "{}", story.error_us());
    }

    #[test]
    fn a_slow_answer_does_not_spoil_what_a_quick_one_said() {
        let story = Story::of_a_host_behind_by(1800 * SECOND);
        story.conversation(500, 500);
        assert!(story.error_us() <= EXACT);
        for (there, back) in [(0, 10 * SECOND), (10 * SECOND, 0), (3 * SECOND, SECOND)] {
            story.conversation(there, back);
            assert!(story.error_us() <= EXACT, "{}", story.error_us());
        }
    }

    #[test]
    fn a_clock_that_is_set_is_believed_at_the_next_answer() {
        let mut story = Story::of_a_host_behind_by(0);
        story.conversation(500, 500);
        story.behind_us = 290 * SECOND;
        story.conversation(500, 500);
        assert!(story.error_us() <= EXACT);
    }

    #[test]
    fn an_answer_to_any_of_several_questions_gives_bounds_that_hold() {
        let story = Story::of_a_host_behind_by(-60 * SECOND);
        story.clock.ask();
        story.pass(5 * SECOND);
        story.conversation(0, 0);
        assert!(story.error_us() <= 5 * SECOND / 2);
        story.conversation(0, 0);
        assert!(story.error_us() <= EXACT, "the question that nobody answered is forgotten");
    }

    #[test]
    fn an_offset_of_an_earlier_process_holds_until_the_first_answer() {
        let story = Story::of_a_host_behind_by(30 * SECOND);
        story.clock.remember(40 * SECOND);
        assert_eq!(story.clock.offset_us(), 40 * SECOND);
        story.clock.begin();
        story.clock.answered(story.coordinator_us());
        assert!(story.error_us() <= EXACT);
        story.clock.answered(story.coordinator_us() + SECOND);
        assert!(story.error_us() <= EXACT, "a time that nobody asked for says little");
        story.clock.answered(0);
        assert!(story.error_us() <= EXACT, "an answer without a time says nothing");
    }
}
