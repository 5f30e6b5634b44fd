//! How fast a run may read and write: a budget of bytes that fills up with time and that all threads of the run share. Whoever has
//! used more than there is waits; a change of the rate, or the run's end, wakes it at once.
//!
//! A run without a rate pays one load of a number for each step of its work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_shared::api;
use tokio_util::sync::CancellationToken;

/// What a run may do at once after it did nothing: more would be a burst that the limit is there to prevent.
const BURST: Duration = Duration::from_millis(250);
/// Longest sleep between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// The budget of one direction. Time is given, so that it can be tried without any.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Budget {
    /// Bytes used beyond what time has given; negative: bytes that may still be used at once.
    debt: f64,
    /// Up to when time has been counted, since an instant of the caller's choice.
    counted: Duration,
}

impl Budget {
    /// Uses `bytes` at `now`, at a rate in bytes a second; the answer is how long to wait before more.
    fn take(&mut self, bytes: u64, rate: u64, now: Duration) -> Duration {
        let most = rate as f64 * BURST.as_secs_f64();
        let given = rate as f64 * now.saturating_sub(self.counted).as_secs_f64();
        self.debt = (self.debt - given).max(-most) + bytes as f64;
        self.counted = now.max(self.counted);
        if self.debt <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64((self.debt / rate as f64).min(1e9)) }
    }

    /// Forgets what was used: the next rate begins anew.
    fn forget(&mut self, now: Duration) {
        *self = Budget { debt: 0.0, counted: now };
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    /// Bytes a second; 0: as fast as it goes.
    rate: AtomicU64,
    budget: Mutex<Budget>,
    changed: Condvar,
}

impl Direction {
    /// Sets the rate and wakes who waits.
    fn set(&self, rate: u64, now: Duration) {
        if self.rate.swap(rate, Ordering::Relaxed) != rate {
            self.budget.lock().unwrap_or_else(PoisonError::into_inner).forget(now);
            self.changed.notify_all();
        }
    }

    /// Uses `bytes` and comes back when more may be used, or `stop` says so.
    fn take(&self, bytes: u64, began: Instant, stop: &CancellationToken) {
        if bytes == 0 || self.rate.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = bytes;
        loop {
            let rate = self.rate.load(Ordering::Relaxed);
            if rate == 0 || stop.is_cancelled() {
                return;
            }
            let wait = budget.take(used, rate, began.elapsed());
            used = 0;
            if wait.is_zero() {
                return;
            }
            let woken = self.changed.wait_timeout(budget, wait.min(LOOK));
            budget = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The pace of a run.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    read: Direction,
    write: Direction,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { began: Instant::now(), read: Direction::default(), write: Direction::default() }
    }
}

impl Pace {
    /// Sets the rates, from now on; none says: as fast as it goes.
    pub fn set(&self, pace: Option<api::Pace>) {
        let pace = pace.unwrap_or_default();
        let now = self.began.elapsed();
        self.read.set(pace.read_bytes_per_s, now);
        self.write.set(pace.write_bytes_per_s, now);
    }

    /// Waits until what was read and written fits the rates, or `stop` is cancelled.
    pub fn keep(&self, read: u64, written: u64, stop: &CancellationToken) {
        self.read.take(read, self.began, stop);
        self.write.take(written, self.began, stop);
    }

    /// Wakes who waits, to look at whether to stop.
    pub fn wake(&self) {
        self.read.changed.notify_all();
        self.write.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use proptest::prelude::*;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn what_is_used_is_paid_for_in_time() {
        let mut budget = Budget::default();
        assert_eq!(budget.take(1000, 1000, Duration::ZERO), Duration::from_secs(1));
        assert_eq!(budget.take(500, 1000, Duration::from_millis(500)), Duration::from_secs(1), "another thread");
        assert_eq!(budget.take(0, 1000, Duration::from_millis(1500)), Duration::ZERO);
    }

    #[test]
    fn a_run_that_did_nothing_for_an_hour_has_saved_up_a_quarter_of_a_second() {
        let mut budget = Budget::default();
        let hour = Duration::from_secs(3600);
        assert_eq!(budget.take(250, 1000, hour), Duration::ZERO);
        assert_eq!(budget.take(1000, 1000, hour), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn no_span_of_time_sees_more_than_its_rate_and_one_burst(
            steps in prop::collection::vec((1u64..4_000_000, 0u64..500), 1..200),
            rate in 64 * 1024u64..100_000_000,
        ) {
            let (mut budget, mut now, mut used) = (Budget::default(), Duration::ZERO, 0_u64);
            for (bytes, pause_ms) in steps {
                now += Duration::from_millis(pause_ms);
                now += budget.take(bytes, rate, now);
                used += bytes;
                let allowed = rate as f64 * (now + BURST).as_secs_f64();
                // To wait in whole nanoseconds rounds by less than a byte at these rates.
                prop_assert!(used as f64 <= allowed + 2.0, "{used} bytes after {now:?}");
            }
        }
    }

    /// A thread that has used so much that it waits for a day.
    fn waiting(pace: &Arc<Pace>, stop: &CancellationToken) -> std::sync::mpsc::Receiver<()> {
        let (done, over) = channel();
        let (pace, stop) = (Arc::clone(pace), stop.clone());
        std::thread::spawn(move || {
            pace.keep(86_400 * 65_536, 0, &stop);
            // Nobody listens when the test has failed.
            let _gone = done.send(());
        });
        over
    }

    #[test]
    fn whoever_waits_goes_on_when_the_rate_is_raised_or_taken_away_and_when_the_run_is_stopped() {
        let slow = api::Pace { read_bytes_per_s: 65_536, write_bytes_per_s: 0 };
        for end in ["faster", "none", "stop"] {
            let (pace, stop) = (Arc::new(Pace::default()), CancellationToken::new());
            pace.set(Some(slow));
            let over = waiting(&pace, &stop);
            assert!(over.recv_timeout(Duration::from_millis(300)).is_err(), "it did not wait");
            match end {
                "faster" => pace.set(Some(api::Pace { read_bytes_per_s: u64::MAX / 2, ..slow })),
                "none" => pace.set(None),
                _ => {
                    stop.cancel();
                    pace.wake();
                }
            }
            assert!(over.recv_timeout(DEADLINE).is_ok(), "{end}");
        }
    }

    #[test]
    fn a_run_without_a_rate_never_waits() {
        let (pace, stop) = (Pace::default(), CancellationToken::new());
        pace.keep(u64::MAX, u64::MAX, &stop);
        assert_eq!(*pace.read.budget.lock().unwrap_or_else(PoisonError::into_inner), Budget::default(), "nor counts");
    }
}
