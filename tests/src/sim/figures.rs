//! Samples of a duration, and the percentiles that are asked of them.

use std::time::Duration;

/// Durations that were seen, in any order.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that at least `per_mille` of a thousand do not exceed; zero without samples.
    #[must_use]
    pub fn per_mille(&self, per_mille: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * per_mille).div_ceil(1000);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The longest; zero without samples.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_sample_that_so_many_do_not_exceed() {
        let samples: Samples = (1..=1000).rev().map(Duration::from_millis).collect();
        assert_eq!(samples.per_mille(500), Duration::from_millis(500));
        assert_eq!(samples.per_mille(990), Duration::from_millis(990));
        assert_eq!(samples.per_mille(999), Duration::from_millis(999));
        assert_eq!(samples.longest(), Duration::from_secs(1));
        assert_eq!(Samples::default().per_mille(990), Duration::ZERO);
    }
}
