//! When a run is due: a cron line in a time zone.
//!
//! Owns the rule for clock changes. A line that names hours goes by the clock on the wall: a local time that a change skips
//! is due once, at the first instant after the gap, and one that a change repeats is due once, on its first pass. A line that
//! runs in every hour goes by elapsed time: it runs through the repeated hour in both passes and makes up for nothing in a
//! skipped one. croner finds matching wall-clock times; it never sees a zone, because its own rule treats a line such as
//! `0 2,14 * * *` as an interval and would skip or double it.
//!
//! Not here: the time now, what holds a due run back, and the rows of due runs.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// Longest cron line, in bytes.
pub const MAX_CRON: usize = 200;
/// Clock changes looked through for the next due time: 200 are more than a hundred years of most zones.
const MAX_TRANSITIONS: usize = 200;

/// Why a text is no cron line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It cannot be read.
    #[error("'{line}' is no cron line: {reason}")]
    Unreadable {
        /// The line, cut and escaped.
        line: String,
        /// Which part is wrong.
        reason: String,
    },
    /// It can be read and never comes true, such as 30 February.
    #[error("'{line}' never comes true")]
    Never {
        /// The line.
        line: String,
    },
}

/// A text names no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is no time zone of the IANA database")]
pub struct ZoneError {
    /// The name, cut and escaped.
    pub name: String,
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

/// A cron line of five fields: minute, hour, day of month, month, day of week.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CronLine {
    text: String,
    cron: Cron,
    every_hour: bool,
}

impl CronLine {
    /// The line as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first matching wall-clock time at or after `from`.
    fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
        self.cron.find_next_occurrence(&from, true).ok()
    }
}

impl FromStr for CronLine {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let unreadable = |reason: String| CronError::Unreadable { line: shown(text), reason };
        if text.len() > MAX_CRON {
            return Err(unreadable(format!("it has more than {MAX_CRON} bytes")));
        }
        if !text.is_ascii() {
            return Err(unreadable("it has characters that no cron line has".to_owned()));
        }
        let fields = text.split_whitespace().count();
        if fields != 5 && !text.trim_start().starts_with('@') {
            return Err(unreadable(format!("it has {fields} fields, not 5 (minute hour day month weekday)")));
        }
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(text)
            .map_err(|error| unreadable(error.to_string()))?;
        let every_hour = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
        let line = Self { text: text.to_owned(), cron, every_hour };
        if line.at_or_after(jiff::civil::datetime(2024, 1, 1, 0, 0, 0, 0)).is_none() {
            return Err(CronError::Never { line: shown(text) });
        }
        Ok(line)
    }
}

impl TryFrom<String> for CronLine {
    type Error = CronError;

    fn try_from(text: String) -> Result<Self, CronError> {
        text.parse()
    }
}

impl From<CronLine> for String {
    fn from(line: CronLine) -> String {
        line.text
    }
}

impl PartialEq for CronLine {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CronLine {}

impl fmt::Debug for CronLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CronLine({:?})", self.text)
    }
}

impl fmt::Display for CronLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A time zone of the IANA database.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// Its name, such as `Europe/Berlin`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Its rules.
    pub fn rules(&self) -> &TimeZone {
        &self.zone
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(name: &str) -> Result<Self, ZoneError> {
        if name == "UTC" {
            return Ok(Self::utc());
        }
        match TimeZone::get(name) {
            // The name as the database spells it, so that two spellings are not two zones.
            Ok(zone) => Ok(Self { name: zone.iana_name().unwrap_or(name).to_owned(), zone }),
            Err(_) => Err(ZoneError { name: shown(name) }),
        }
    }
}

impl TryFrom<String> for Zone {
    type Error = ZoneError;

    fn try_from(name: String) -> Result<Self, ZoneError> {
        name.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.name
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A cron line in a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// The line.
    pub cron: CronLine,
    /// Where its hours are.
    pub zone: Zone,
}

impl Calendar {
    /// The first due instant after `instant`; `None` when the calendar of the computer ends before it comes.
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        if self.cron.every_hour { self.next_by_elapsed_time(instant) } else { self.next_by_wall_clock(instant) }
    }

    /// The due instants after `after` up to and including `until`, oldest first, at most `limit` of them.
    pub fn due_between(&self, after: Timestamp, until: Timestamp, limit: usize) -> Vec<Timestamp> {
        let mut due = Vec::new();
        let mut at = after;
        while due.len() < limit {
            match self.next_after(at) {
                Some(next) if next <= until => {
                    due.push(next);
                    at = next;
                }
                Some(_) | None => break,
            }
        }
        due
    }

    /// Each wall-clock time maps to one instant, and later times to later (or the same) instants, so the search starts at the
    /// time on the wall and passes over what lies behind: times of a repeated hour whose first pass is over.
    fn next_by_wall_clock(&self, instant: Timestamp) -> Option<Timestamp> {
        let mut from = self.zone.zone.to_datetime(instant);
        loop {
            let wall = self.cron.at_or_after(from)?;
            let due = self.instant_of(wall)?;
            if due > instant {
                return Some(due);
            }
            from = wall.checked_add(1.minute()).ok()?;
        }
    }

    fn instant_of(&self, wall: DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.zone.to_ambiguous_timestamp(wall);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().ok(),
            AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
            AmbiguousOffset::Gap { .. } => {
                // Read with the offset before the gap, the time lies behind the change by less than the gap.
                let behind = ambiguous.compatible().ok()?.checked_add(1.nanosecond()).ok()?;
                self.zone.zone.preceding(behind).next().map(|change| change.timestamp())
            }
        }
    }

    /// Between two changes of the clock, time on the wall is elapsed time.
    fn next_by_elapsed_time(&self, instant: Timestamp) -> Option<Timestamp> {
        let mut from = instant;
        let mut inclusive = false;
        for _ in 0..MAX_TRANSITIONS {
            let offset = self.zone.zone.to_offset(from);
            let change = self.zone.zone.following(from).next().map(|change| change.timestamp());
            let mut wall = offset.to_datetime(from);
            if !inclusive {
                wall = wall.checked_add(1.nanosecond()).ok()?;
            }
            let due = self.cron.at_or_after(round_up_to_minute(wall)?).and_then(|wall| offset.to_timestamp(wall).ok());
            match (due, change) {
                (Some(due), None) => return Some(due),
                (Some(due), Some(change)) if due < change => return Some(due),
                (Some(_) | None, Some(change)) => {
                    from = change;
                    inclusive = true;
                }
                (None, None) => return None,
            }
        }
        None
    }
}

fn round_up_to_minute(wall: DateTime) -> Option<DateTime> {
    let whole = wall.with().second(0).subsec_nanosecond(0).build().ok()?;
    if whole == wall { Some(wall) } else { whole.checked_add(1.minute()).ok() }
}

#[cfg(test)]
mod tests;
