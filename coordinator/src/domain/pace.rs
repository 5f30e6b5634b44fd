//! How fast the runs of a policy may read and write on their hosts, by the time of day.

use jiff::civil::Time;
use serde::{Deserialize, Serialize};

/// Bytes a second; none: as fast as it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// What is read: of sources by scans and backups, of archives by verifications.
    pub read: Option<u64>,
    /// What is written of archives.
    pub write: Option<u64>,
}

/// The limits of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaceRule {
    /// Whenever nothing else is said.
    #[serde(flatten)]
    pub rate: Rate,
    /// At certain times of day; none overlaps another.
    pub profile: Vec<Span>,
}

/// A part of the day with other limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// From this minute of the day on.
    pub from: u16,
    /// Before this one. Smaller than `from`: the span goes over midnight.
    pub until: u16,
    /// What it says; what it does not say is as always.
    pub rate: Rate,
}

/// Minutes of a day.
pub const DAY: u16 = 24 * 60;

impl Span {
    /// Whether the minute of the day lies in it.
    #[must_use]
    pub const fn holds(&self, minute: u16) -> bool {
        if self.from < self.until {
            self.from <= minute && minute < self.until
        } else {
            self.from <= minute || minute < self.until
        }
    }
}

impl PaceRule {
    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == PaceRule::default()
    }

    /// What holds at this time of the day in the policy's zone.
    #[must_use]
    pub fn at(&self, time: Time) -> Rate {
        let minute = u16::try_from(i32::from(time.hour()) * 60 + i32::from(time.minute())).unwrap_or(0);
        let Some(span) = self.profile.iter().find(|span| span.holds(minute)) else { return self.rate };
        Rate { read: span.rate.read.or(self.rate.read), write: span.rate.write.or(self.rate.write) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u16, until: u16, read: u64) -> Span {
        Span { from: from * 60, until: until * 60, rate: Rate { read: Some(read), write: None } }
    }

    #[test]
    fn a_span_says_what_it_says_and_the_rest_is_as_always() {
        let rate = Rate { read: Some(100), write: Some(50) };
        let rule = PaceRule { rate, profile: vec![span(8, 18, 20), span(22, 6, 70)] };
        let at = |hour: i8, minute: i8| rule.at(Time::constant(hour, minute, 0, 0));
        assert_eq!(at(7, 59), rate);
        assert_eq!(at(8, 0), Rate { read: Some(20), write: Some(50) });
        assert_eq!((at(17, 59).read, at(18, 0).read), (Some(20), Some(100)));
        assert_eq!(
            (at(22, 0).read, at(0, 0).read, at(5, 59).read, at(6, 0).read),
            (Some(70), Some(70), Some(70), Some(100))
        );
    }

    #[test]
    fn a_policy_that_says_nothing_limits_nothing() {
        assert!(PaceRule::default().is_none());
        assert_eq!(PaceRule::default().at(Time::midnight()), Rate::default());
    }
}
