//! How long to wait before the next try: doubling, bounded, and spread so that a fleet does not try in step.
//!
//! Pure: the caller brings the randomness, so that tests can bring none.

use std::time::Duration;

/// Bounds of the waits between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the second try.
    pub first: Duration,
    /// The longest wait of all.
    pub most: Duration,
}

impl Backoff {
    /// For a stream to the coordinator that broke.
    pub const RECONNECT: Backoff = Backoff { first: Duration::from_millis(500), most: Duration::from_secs(30) };

    /// The wait after `failures` failures in a row (1 after the first), drawn by `random` from the upper half of the
    /// bounded, doubling span: never shorter than half of it, never longer than [`Backoff::most`].
    pub fn wait(self, failures: u32, random: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(32);
        let span = self.first.saturating_mul(2u32.saturating_pow(doublings)).min(self.most);
        let half = span / 2;
        let spread = u64::try_from((span - half).as_nanos()).unwrap_or(u64::MAX);
        let drawn = if spread == 0 { 0 } else { random % (spread.saturating_add(1)) };
        half + Duration::from_nanos(drawn)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_is_never_beyond_its_bounds(failures in 0u32..10_000, random: u64, first in 0u64..100_000, most in 0u64..10_000_000) {
            let backoff = Backoff { first: Duration::from_millis(first), most: Duration::from_millis(most) };
            let wait = backoff.wait(failures, random);
            prop_assert!(wait <= backoff.most);
            if first <= most {
                prop_assert!(wait >= backoff.first / 2);
            }
        }
    }

    #[test]
    fn waits_double_until_the_bound() {
        let backoff = Backoff { first: Duration::from_secs(30), most: Duration::from_secs(30 * 60) };
        let longest: Vec<u64> = (1..=8).map(|n| backoff.wait(n, 0).as_secs()).collect();
        assert_eq!(longest, [15, 30, 60, 120, 240, 480, 900, 900]);
    }
}
