//! The time an operator says: `2026-11-20`, `2026-11-20 14:00`, RFC 3339, `14:00`, `yesterday 14:00`, `2h ago`, `latest`, `before RUN`.
//!
//! Pure: the caller gives now and the zone. A local time that does not exist, or exists twice, is an error that names both readings.

use coord_shared::{api, duration};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// The forms, for `coordctl help time` and for errors.
pub const FORMS: &str = "2026-11-20, 2026-11-20 14:00, 14:00, yesterday 14:00, 2h ago, latest, before RUN, \
                         or RFC 3339 such as 2026-11-20T14:00:00+01:00";

/// A time as said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The newest there is.
    Latest,
    /// An instant.
    Instant(Timestamp),
    /// Before a run started.
    Before(String),
}

/// Why a text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AtError {
    /// None of the forms.
    #[error("{text:?} is not a time; write {FORMS}")]
    Form {
        /// As given.
        text: String,
    },
    /// The clocks were put back over it.
    #[error("{text:?} exists twice in {zone}: {first} and {second}; write one of them")]
    Twice {
        /// As given.
        text: String,
        /// The zone.
        zone: String,
        /// The earlier reading, RFC 3339.
        first: Timestamp,
        /// The later reading, RFC 3339.
        second: Timestamp,
    },
    /// The clocks were put forward over it.
    #[error("{text:?} does not exist in {zone}: the clocks were put forward; the nearest are {first} and {second}")]
    Skipped {
        /// As given.
        text: String,
        /// The zone.
        zone: String,
        /// Read with the offset after the change.
        first: Timestamp,
        /// Read with the offset before the change.
        second: Timestamp,
    },
}

impl At {
    /// Reads a time; `now` brings the zone in which local times are meant.
    pub fn parse(text: &str, now: &Zoned) -> Result<Self, AtError> {
        let text = text.trim();
        let form = || AtError::Form { text: text.to_owned() };
        if text == "latest" || text == "now" {
            return Ok(Self::Latest);
        }
        if let Some(run) = text.strip_prefix("before ") {
            let run = run.trim();
            return if run.is_empty() { Err(form()) } else { Ok(Self::Before(run.to_owned())) };
        }
        if let Some(span) = text.strip_suffix("ago") {
            let ago = duration::parse(span).ok_or_else(form)?;
            return now.timestamp().checked_sub(ago).map(Self::Instant).map_err(|_| form());
        }
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Ok(Self::Instant(instant));
        }
        let (said, abbreviation) = zone_word(text);
        let local = local(said, now).ok_or_else(form)?;
        let instant = match abbreviation {
            Some(word) => instant_with(local, word, now.time_zone()).ok_or_else(form)?,
            None => instant(text, local, now.time_zone())?,
        };
        Ok(Self::Instant(end_of_second(said, instant)))
    }

    /// For the wire.
    #[must_use]
    pub fn to_api(&self) -> api::At {
        let at = match self {
            Self::Latest => None,
            Self::Instant(instant) => Some(api::at::At::InstantUs(instant.as_microsecond())),
            Self::Before(run) => Some(api::at::At::BeforeRun(run.clone())),
        };
        api::At { at }
    }
}

/// Splits off the zone that our own tables print behind a time, such as `CET`.
fn zone_word(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(' ') {
        Some((rest, word)) if word.len() >= 3 && word.bytes().all(|b| b.is_ascii_uppercase()) => (rest, Some(word)),
        Some(_) | None => (text, None),
    }
}

/// The reading of a local time at which the zone calls itself `word`; it tells the two hours of an autumn night apart.
fn instant_with(local: DateTime, word: &str, zone: &TimeZone) -> Option<Timestamp> {
    let offsets = match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => [offset, offset],
        AmbiguousOffset::Fold { before, after } | AmbiguousOffset::Gap { before, after } => [before, after],
    };
    offsets
        .into_iter()
        .filter_map(|offset| offset.to_timestamp(local).ok())
        .find(|instant| instant.to_zoned(zone.clone()).strftime("%Z").to_string() == word)
}

/// Tables print whole seconds of instants that have microseconds: a time given to the second is meant with all of that second, so
/// that a printed restore point can be asked for.
fn end_of_second(text: &str, instant: Timestamp) -> Timestamp {
    let to_the_second = text.matches(':').count() == 2 && !text.contains('.');
    let end = SignedDuration::from_micros(999_999);
    if to_the_second { instant.checked_add(end).unwrap_or(instant) } else { instant }
}

fn local(text: &str, now: &Zoned) -> Option<DateTime> {
    let (day, time) = text.split_once([' ', 'T']).map_or((text, None), |(day, time)| (day, Some(time)));
    let named = match day {
        "today" => Some(now.date()),
        "yesterday" => now.date().checked_sub(1.day()).ok(),
        _ => day.parse::<Date>().ok(),
    };
    match (named, time) {
        (Some(date), None) => Some(date.at(0, 0, 0, 0)),
        (Some(date), Some(time)) => Some(date.to_datetime(clock(time.trim())?)),
        (None, None) => Some(now.date().to_datetime(clock(text)?)),
        (None, Some(_)) => None,
    }
}

fn clock(text: &str) -> Option<Time> {
    text.contains(':').then(|| text.parse().ok()).flatten()
}

fn instant(text: &str, local: DateTime, zone: &TimeZone) -> Result<Timestamp, AtError> {
    let form = || AtError::Form { text: text.to_owned() };
    let name = || zone.iana_name().unwrap_or("the local zone").to_owned();
    let reading = |offset: jiff::tz::Offset| offset.to_timestamp(local).map_err(|_| form());
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => reading(offset),
        AmbiguousOffset::Fold { before, after } => Err(AtError::Twice {
            text: text.to_owned(),
            zone: name(),
            first: reading(before)?,
            second: reading(after)?,
        }),
        AmbiguousOffset::Gap { before, after } => Err(AtError::Skipped {
            text: text.to_owned(),
            zone: name(),
            first: reading(after)?,
            second: reading(before)?,
        }),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{At, AtError};
    use jiff::Zoned;

    fn now() -> Zoned {
        "2026-11-23T15:30:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    fn instant(text: &str) -> String {
        match At::parse(text, &now()).unwrap() {
            At::Instant(instant) => instant.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_is_read_in_the_local_zone() {
        assert_eq!(instant("2026-11-20"), "2026-11-19T23:00:00Z");
        assert_eq!(instant("2026-11-20 14:00"), "2026-11-20T13:00:00Z");
        assert_eq!(instant("2026-11-20T14:00:00+02:00"), "2026-11-20T12:00:00Z");
        assert_eq!(instant("2026-11-20T14:00:00Z"), "2026-11-20T14:00:00Z");
        assert_eq!(instant("14:00"), "2026-11-23T13:00:00Z");
        assert_eq!(instant("yesterday 14:00"), "2026-11-22T13:00:00Z");
        assert_eq!(instant("2h ago"), "2026-11-23T12:30:00Z");
        assert_eq!(instant("3 days ago"), "2026-11-20T14:30:00Z");
        assert_eq!(At::parse("latest", &now()), Ok(At::Latest));
        assert_eq!(At::parse("before 8f3c", &now()), Ok(At::Before("8f3c".to_owned())));
    }

    #[test]
    fn what_a_table_prints_is_read_back_with_all_of_its_second() {
        assert_eq!(instant("2026-11-20 14:00:05 CET"), "2026-11-20T13:00:05.999999Z");
        assert_eq!(instant("2026-10-25 02:30:00 CEST"), "2026-10-25T00:30:00.999999Z");
        assert_eq!(instant("2026-10-25 02:30:00 CET"), "2026-10-25T01:30:00.999999Z");
        assert!(At::parse("2026-11-20 14:00:05 PST", &now()).is_err());
    }

    #[test]
    fn nonsense_is_refused_with_the_forms() {
        for text in ["", "the other day", "2026-13-01", "25:00", "before ", "h ago", "yesterday noon", "14"] {
            let error = At::parse(text, &now()).unwrap_err();
            assert!(matches!(error, AtError::Form { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn a_time_that_exists_twice_or_never_names_both_readings() {
        let twice = At::parse("2026-10-25 02:30", &now()).unwrap_err().to_string();
        assert!(twice.contains("2026-10-25T00:30:00Z") && twice.contains("2026-10-25T01:30:00Z"), "{twice}");
        let never = At::parse("2026-03-29 02:30", &now()).unwrap_err().to_string();
        assert!(never.contains("2026-03-29T00:30:00Z") && never.contains("2026-03-29T01:30:00Z"), "{never}");
    }
}
