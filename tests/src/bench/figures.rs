//! The arithmetic of a benchmark: medians, ratios of the same round, spread.

use serde::{Deserialize, Serialize};

/// A median with its spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle value; between the two middle ones when their number is even.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of some values; none of nothing, nor of what is no number.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, min, max })
    }

    /// Of `above` over `below`, round by round: what both met in one round does not count.
    #[must_use]
    pub fn of_ratios(above: &[f64], below: &[f64]) -> Option<Self> {
        Self::of(above.iter().zip(below).map(|(above, below)| above / below))
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_the_middle_value_whatever_the_order() {
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_of_one_round_each_and_not_of_the_medians() {
        // The machine was twice as slow in the second round, for both.
        let ratios = Spread::of_ratios(&[3.0, 6.0, 5.0], &[1.0, 2.0, 1.0]);
        assert_eq!(ratios, Some(Spread { median: 3.0, min: 3.0, max: 5.0 }));
    }

    #[test]
    fn a_time_of_nothing_gives_no_figure() {
        assert_eq!(Spread::of_ratios(&[1.0], &[0.0]), None);
    }
}
