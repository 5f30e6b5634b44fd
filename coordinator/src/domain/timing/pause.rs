//! A time in which an operator lets nothing begin.

use jiff::Timestamp;

/// A pause of whatever holds a job: the fleet, its host, its policy, or the job itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// From here on.
    pub from: Timestamp,
    /// Up to here, exclusive; the end of time while nobody has said when.
    pub until: Timestamp,
    /// What is paused, by whom and why, as a sentence.
    pub why: String,
}

impl Pause {
    /// A pause of `what`; without `until` it lasts until somebody ends it.
    pub fn of(what: &str, (from, until): (Timestamp, Option<Timestamp>), by: &str, reason: &str) -> Self {
        let end =
            until.map_or_else(|| "it is resumed".to_owned(), |until| until.strftime("%Y-%m-%d %H:%M UTC").to_string());
        let why = format!("{what} is paused until {end}, by {by}: {reason}");
        Self { from, until: until.unwrap_or(Timestamp::MAX), why }
    }

    /// When it ends by itself, if ever.
    pub fn ends_at(&self) -> Option<Timestamp> {
        Some(self.until).filter(|until| *until < Timestamp::MAX)
    }
}
