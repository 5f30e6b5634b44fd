//! What a figure is held against.

use serde::{Deserialize, Serialize};

use super::contest::{Taken, mebibytes};
use super::figures::Spread;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The peer's time over ours: more is better.
    Faster,
    /// Our stored bytes over the peer's: less is better.
    Larger,
    /// Our time in milliseconds: less is better.
    Milliseconds,
    /// Our peak memory in MiB: less is better.
    PeakMebibytes,
}

/// One comparison of a row, with what is required and what is hoped for.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// What is compared.
    pub measure: Measure,
    /// Which of our contestants.
    pub ours: &'static str,
    /// Which peer; none for an absolute figure.
    pub peer: Option<&'static str>,
    /// The floor under which the work is not done.
    pub required: f64,
    /// The goal.
    pub stretch: Option<f64>,
}

/// How a comparison came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was compared.
    pub measure: Measure,
    /// Which of our contestants.
    pub ours: String,
    /// Which peer.
    pub peer: Option<String>,
    /// Median and spread over the rounds.
    pub figure: Spread,
    /// The floor.
    pub required: f64,
    /// The goal.
    pub stretch: Option<f64>,
    /// Whether the floor is reached.
    pub is_reached: bool,
    /// Whether the goal is.
    pub is_stretched: bool,
}

impl Measure {
    fn is_good(self, figure: f64, bound: f64) -> bool {
        match self {
            Self::Faster => figure >= bound,
            Self::Larger | Self::Milliseconds | Self::PeakMebibytes => figure <= bound,
        }
    }
}

impl Goal {
    /// The comparison; none when a side of it was not there.
    #[must_use]
    pub fn judge(&self, taken: &[Taken]) -> Option<Outcome> {
        let of = |name: &str| taken.iter().find(|taken| taken.name == name);
        let ours = of(self.ours)?;
        let peer = match self.peer {
            Some(name) => Some(of(name)?),
            None => None,
        };
        let wall = |taken: &Taken| taken.samples.iter().map(|sample| sample.wall_s).collect::<Vec<_>>();
        let stored = |taken: &Taken| -> Option<Vec<f64>> {
            taken.samples.iter().map(|sample| sample.stored_bytes.map(mebibytes)).collect()
        };
        let figure = match (self.measure, peer) {
            (Measure::Faster, Some(peer)) => Spread::of_ratios(&wall(peer), &wall(ours))?,
            (Measure::Larger, Some(peer)) => Spread::of_ratios(&stored(ours)?, &stored(peer)?)?,
            (Measure::Milliseconds, None) => Spread::of(wall(ours).into_iter().map(|seconds| seconds * 1000.0))?,
            (Measure::PeakMebibytes, None) => {
                Spread::of(ours.samples.iter().map(|sample| mebibytes(sample.peak_bytes)))?
            }
            (Measure::Faster | Measure::Larger, None) | (Measure::Milliseconds | Measure::PeakMebibytes, Some(_)) => {
                return None;
            }
        };
        Some(Outcome {
            measure: self.measure,
            ours: self.ours.to_owned(),
            peer: self.peer.map(str::to_owned),
            figure,
            required: self.required,
            stretch: self.stretch,
            is_reached: self.measure.is_good(figure.median, self.required),
            is_stretched: self.stretch.is_some_and(|stretch| self.measure.is_good(figure.median, stretch)),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{Goal, Measure, Taken};
    use crate::bench::stopwatch::Sample;

    fn taken(name: &str, seconds: &[f64], stored_bytes: u64) -> Taken {
        let sample = |wall_s: &f64| Sample {
            wall_s: *wall_s,
            cpu_s: 0.0,
            peak_bytes: 50 << 20,
            stored_bytes: Some(stored_bytes),
        };
        Taken { name: name.to_owned(), command: String::new(), samples: seconds.iter().map(sample).collect() }
    }

    fn goal(measure: Measure, peer: Option<&'static str>, required: f64, stretch: f64) -> Goal {
        Goal { measure, ours: "ours", peer, required, stretch: Some(stretch) }
    }

    #[test]
    fn more_is_better_for_speed_and_less_for_everything_else() {
        let both = [taken("ours", &[1.0, 2.0, 1.0], 103), taken("peer", &[1.5, 3.0, 2.0], 100)];
        let faster = goal(Measure::Faster, Some("peer"), 1.3, 1.6).judge(&both).unwrap();
        assert_eq!((faster.figure.median, faster.is_reached, faster.is_stretched), (1.5, true, false));
        let larger = goal(Measure::Larger, Some("peer"), 1.02, 1.0).judge(&both).unwrap();
        assert!(!larger.is_reached, "{larger:?}");
        let memory = goal(Measure::PeakMebibytes, None, 64.0, 32.0).judge(&both).unwrap();
        assert_eq!((memory.figure.median, memory.is_reached, memory.is_stretched), (50.0, true, false));
        let time = goal(Measure::Milliseconds, None, 10.0, 3.0).judge(&both).unwrap();
        assert_eq!((time.figure.median, time.is_reached), (1000.0, false));
    }

    #[test]
    fn nothing_is_said_against_a_peer_that_is_not_there() {
        let ours = [taken("ours", &[1.0], 1)];
        assert_eq!(goal(Measure::Faster, Some("peer"), 1.0, 1.0).judge(&ours), None);
    }
}
