//! When backups may begin: windows of the week on the clock on the wall, and dated blackouts.
//!
//! Owns the rule for clock changes: a time is inside a window when the clock on the wall shows a time of the window. Of a window that
//! a change skips nothing is left on that day, and one that a change repeats is open in both passes.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// Minutes of a week.
const WEEK: u32 = 7 * DAY as u32;
/// Days looked through for the next opening or closing: windows come back every week, less what a clock change skips.
const MAX_DAYS: i64 = 15;

/// The days of the week as windows write them.
const DAYS: [(Weekday, &str); 7] = [
    (Weekday::Monday, "mon"),
    (Weekday::Tuesday, "tue"),
    (Weekday::Wednesday, "wed"),
    (Weekday::Thursday, "thu"),
    (Weekday::Friday, "fri"),
    (Weekday::Saturday, "sat"),
    (Weekday::Sunday, "sun"),
];

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It cannot be read.
    #[error("'{text}' is no window: {reason}")]
    Unreadable {
        /// The text, cut and escaped.
        text: String,
        /// Which part is wrong.
        reason: String,
    },
    /// It begins when it ends.
    #[error("'{text}' is an empty window: it begins when it ends")]
    Empty {
        /// The text.
        text: String,
    },
}

/// A window of the week: the days on which it begins, from when to when. One that ends before it begins goes on into the next day.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    text: String,
    /// By Monday = 0.
    days: [bool; 7],
    /// Minute of the day.
    from: u16,
    /// Minute of the day, at most 24:00; not after `from`: of the next day.
    to: u16,
}

impl Window {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn length(&self) -> u32 {
        let (from, to) = (u32::from(self.from), u32::from(self.to));
        if to > from { to - from } else { u32::from(DAY) - from + to }
    }

    /// The minutes of the week at which it begins.
    fn starts(&self) -> impl Iterator<Item = u32> + '_ {
        let days = self.days.iter().enumerate().filter(|(_, open)| **open);
        days.map(|(day, _)| u32::try_from(day).unwrap_or(0) * u32::from(DAY) + u32::from(self.from))
    }

    /// Whether the minute of the week is in it.
    fn holds(&self, minute: u32) -> bool {
        self.starts().any(|start| (minute + WEEK - start) % WEEK < self.length())
    }

    /// Whether two windows have a minute of the week in common.
    fn overlaps(&self, other: &Window) -> bool {
        self.starts().any(|start| other.holds(start)) || other.starts().any(|start| self.holds(start))
    }

    /// Whether it runs into itself: longer than until its next beginning.
    fn overlaps_itself(&self) -> bool {
        self.starts()
            .any(|start| self.starts().any(|other| other != start && (other + WEEK - start) % WEEK < self.length()))
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let shown = || text.chars().take(80).collect::<String>().escape_debug().to_string();
        let unreadable = |reason: String| WindowError::Unreadable { text: shown(), reason };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, times) = match words.as_slice() {
            [times] => ([true; 7], *times),
            [days, times] => (read_days(days).map_err(unreadable)?, *times),
            _ => return Err(unreadable("it is days and times, such as mon-fri 20:00-06:00".to_owned())),
        };
        let Some((from, to)) = times.split_once('-') else {
            return Err(unreadable(format!("'{}' is not from when to when", times.escape_debug())));
        };
        let from = read_time(from).filter(|minute| *minute < DAY);
        let from = from.ok_or_else(|| unreadable("it begins at no time from 00:00 to 23:59".to_owned()))?;
        let to = read_time(to).ok_or_else(|| unreadable("it ends at no time from 00:00 to 24:00".to_owned()))?;
        if from == to {
            return Err(WindowError::Empty { text: shown() });
        }
        // 24:00 is the 00:00 of the next day.
        Ok(Self { text: words.join(" "), days, from, to: if to == DAY && from == 0 { DAY } else { to % DAY } })
    }
}

fn read_days(text: &str) -> Result<[bool; 7], String> {
    let mut days = [false; 7];
    let number = |name: &str| {
        let found = DAYS.iter().position(|(_, day)| *day == name);
        found.ok_or_else(|| format!("'{}' is no day: mon, tue, wed, thu, fri, sat or sun", name.escape_debug()))
    };
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        let count = (last + 7 - first) % 7;
        for day in (0..=count).map(|step| (first + step) % 7) {
            if std::mem::replace(&mut days[day], true) {
                return Err(format!("{} is named twice", DAYS[day].1));
            }
        }
    }
    Ok(days)
}

/// `HH:MM` as a minute of the day, up to 24:00.
fn read_time(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hour) || !digits(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Self, WindowError> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.text
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window({:?})", self.text)
    }
}

/// A time in which nothing begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blackout {
    /// From here on.
    pub from: Timestamp,
    /// Up to here, exclusive.
    pub to: Timestamp,
    /// Why; shown wherever a run is missed for it.
    pub reason: String,
}

/// When backups may begin; without windows, at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Windows of the week, none overlapping another. None: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Window>,
    /// None overlapping another, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackout: Vec<Blackout>,
}

impl Windows {
    /// Two allowed windows that overlap, if any do; both are the same where one runs into itself.
    pub fn overlapping(allowed: &[Window]) -> Option<(&Window, &Window)> {
        for (index, one) in allowed.iter().enumerate() {
            if one.overlaps_itself() {
                return Some((one, one));
            }
            if let Some(other) = allowed.iter().take(index).find(|other| other.overlaps(one)) {
                return Some((other, one));
            }
        }
        None
    }

    /// Whether the clock on the wall of `zone` is inside an allowed window.
    pub fn allows(&self, at: Timestamp, zone: &TimeZone) -> bool {
        self.allowed.is_empty() || {
            let minute = minute_of_week(zone.to_datetime(at));
            self.allowed.iter().any(|window| window.holds(minute))
        }
    }

    /// The blackout at an instant.
    pub fn blackout_at(&self, at: Timestamp) -> Option<&Blackout> {
        self.blackout.iter().find(|blackout| blackout.from <= at && at < blackout.to)
    }

    /// The first instant at or after `at` that an allowed window holds; `None` when the calendar of the computer ends before.
    pub fn opens_at(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.allows(at, zone) { Some(at) } else { self.change_after(at, zone) }
    }

    /// The first instant after `at` that no allowed window holds; `None`: none within two weeks, so never.
    pub fn closes_at(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.allowed.is_empty() { None } else { self.change_after(at, zone) }
    }

    /// The first instant after `at` at which the answer of [`Windows::allows`] is another one. It changes only where the wall shows
    /// the beginning or the end of a window, or where the clock is changed.
    fn change_after(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let today = zone.to_datetime(at).date();
        let mut candidates = Vec::new();
        for day in 0..=MAX_DAYS {
            let Ok(date) = today.checked_add(day.days()) else { break };
            for minute in self.allowed.iter().flat_map(|window| [window.from, window.to % DAY]) {
                let Ok(hour) = i8::try_from(minute / 60) else { continue };
                let Ok(minute) = i8::try_from(minute % 60) else { continue };
                let ambiguous = zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0));
                match ambiguous.offset() {
                    AmbiguousOffset::Unambiguous { .. } => candidates.extend(ambiguous.unambiguous().ok()),
                    AmbiguousOffset::Fold { .. } => {
                        candidates.extend(ambiguous.earlier().ok());
                        candidates.extend(ambiguous.later().ok());
                    }
                    // The clock never shows it; the change itself is a candidate.
                    AmbiguousOffset::Gap { .. } => {}
                }
            }
        }
        let end = at.checked_add(SignedDuration::from_hours(24 * MAX_DAYS)).ok()?;
        let changes = zone.following(at).map(|change| change.timestamp()).take_while(|change| *change <= end);
        candidates.extend(changes);
        candidates.sort_unstable();
        let now = self.allows(at, zone);
        candidates.into_iter().find(|candidate| *candidate > at && self.allows(*candidate, zone) != now)
    }
}

fn minute_of_week(wall: DateTime) -> u32 {
    let day = u32::from(wall.weekday().to_monday_zero_offset().unsigned_abs());
    let (hour, minute) = (u32::from(wall.hour().unsigned_abs()), u32::from(wall.minute().unsigned_abs()));
    day * u32::from(DAY) + hour * 60 + minute
}
