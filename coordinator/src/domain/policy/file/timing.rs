//! Reads how a policy's due runs begin: windows and blackouts, jitter, limits of delay and duration, and catching up.

use coord_shared::duration;
use coord_shared::slug::nearest;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::AmbiguousOffset;
use jiff::{SignedDuration, Timestamp, ToSpan};
use toml::{Table, Value};

use super::reader::{Reader, dotted, escaped, kind};
use crate::domain::policy::{Finding, FullDay, Policy, weekday_name};
use crate::domain::schedule::{Calendar, Zone};
use crate::domain::timing::{Blackout, CatchUp, Timing, Window, Windows};

/// Shortest time of any of these keys, in seconds.
const LEAST_S: u32 = 60;
/// Longest, in seconds: a month.
const MOST_S: u32 = 31 * 86_400;
/// Most windows, and most blackouts.
const MAX_WINDOWS: usize = 100;
/// Longest reason of a blackout, in characters.
const MAX_REASON: usize = 200;
/// Due instants that are compared with their neighbours, and windows that are compared with due instants.
const MAX_LOOKED_AT: usize = 500;

impl Reader {
    /// `section` is that of `schedule`; `calendar` what it says, where that can be read.
    pub(super) fn timing(&mut self, top: &Table, section: &Table, calendar: Option<&Calendar>) -> Timing {
        let timing = Timing {
            jitter_s: self.length(section, "jitter").unwrap_or(0),
            max_start_delay_s: self.length(section, "max_start_delay"),
            max_duration_s: self.length(section, "max_duration"),
            catch_up: self.catch_up(section),
            windows: self.windows(top, calendar.map(|calendar| &calendar.zone)),
        };
        if let Some(calendar) = calendar {
            self.contradictions(calendar, &timing);
        }
        timing
    }

    /// A time in seconds.
    fn length(&mut self, section: &Table, key: &str) -> Option<u32> {
        let text = self.text(section, "schedule", key)?;
        let seconds = duration::parse(&text).and_then(|span| u32::try_from(span.as_secs()).ok());
        let found = seconds.filter(|seconds| (LEAST_S..=MOST_S).contains(seconds));
        if found.is_none() {
            self.find(
                &dotted("schedule", key),
                format!("'{}' is not a time from a minute to 31 days", escaped(&text)),
                format!("a whole number with m, h or d, such as {key} = \"30m\"; leave it out for none"),
            );
        }
        found
    }

    fn catch_up(&mut self, section: &Table) -> CatchUp {
        let Some(text) = self.text(section, "schedule", "catch_up") else { return CatchUp::default() };
        CatchUp::ALL.into_iter().find(|rule| rule.as_str() == text).unwrap_or_else(|| {
            let words = CatchUp::ALL.map(CatchUp::as_str);
            let near = nearest(&text, words);
            let hint = near.map_or_else(|| words.join(", "), |near| format!("did you mean {near}?"));
            self.find("schedule.catch_up", format!("'{}' is no way to catch up", escaped(&text)), hint);
            CatchUp::default()
        })
    }

    fn windows(&mut self, top: &Table, zone: Option<&Zone>) -> Windows {
        let section = self.section(top, "", "windows", &["allowed", "blackout"]);
        if matches!(top.get("windows"), Some(Value::Table(table)) if table.is_empty()) {
            self.find("windows", "windows has neither allowed windows nor blackouts in it", "leave it out for none");
        }
        let mut allowed = Vec::new();
        for value in self.entries(&section, "allowed", "\"mon-fri 20:00-06:00\"") {
            match value {
                Value::String(text) => match text.parse::<Window>() {
                    Ok(window) => allowed.push(window),
                    Err(error) => self.find("windows.allowed", error.to_string(), "such as \"mon-fri 20:00-06:00\""),
                },
                other => self.find("windows.allowed", format!("{} is not a text", kind(&other)), "write it in quotes"),
            }
        }
        if let Some((one, other)) = Windows::overlapping(&allowed) {
            let (one, other) = (one.as_str().to_owned(), other.as_str().to_owned());
            let message = if one == other {
                format!("'{one}' overlaps itself: it ends after it begins again")
            } else {
                format!("'{one}' and '{other}' overlap")
            };
            self.find("windows.allowed", message, "make one window of them, or let one end where the other begins");
        }
        let mut blackout = Vec::new();
        for value in
            self.entries(&section, "blackout", "{ from = \"2026-12-24\", to = \"2026-12-26\", reason = \"...\" }")
        {
            match value {
                Value::Table(table) => blackout.extend(zone.and_then(|zone| self.blackout(&table, zone))),
                other => self.find(
                    "windows.blackout",
                    format!("{} is not a table", kind(&other)),
                    "such as { from = \"2026-12-24\", to = \"2026-12-26\", reason = \"closing of the year\" }",
                ),
            }
        }
        blackout.sort_by_key(|blackout: &Blackout| blackout.from);
        if let Some([one, other]) = blackout.windows(2).find(|pair| matches!(pair, [one, other] if other.from < one.to))
        {
            let message = format!("the blackouts '{}' and '{}' overlap", escaped(&one.reason), escaped(&other.reason));
            self.find("windows.blackout", message, "make one of them, or let one end where the other begins");
        }
        Windows { allowed, blackout }
    }

    /// The values of a list that is not empty; nothing when it is absent or wrong.
    fn entries(&mut self, section: &Table, key: &str, example: &str) -> Vec<Value> {
        let name = dotted("windows", key);
        let hint = format!("such as {key} = [{example}]; leave it out for none");
        match section.get(key) {
            None => return Vec::new(),
            Some(Value::Array(list)) if list.is_empty() => self.find(&name, format!("{name} is empty"), hint),
            Some(Value::Array(list)) if list.len() > MAX_WINDOWS => {
                self.find(&name, format!("{name} has {} entries, and at most {MAX_WINDOWS} may be", list.len()), "");
            }
            Some(Value::Array(list)) => return list.clone(),
            Some(other) => self.find(&name, format!("{name} is {}, not a list", kind(other)), hint),
        }
        Vec::new()
    }

    fn blackout(&mut self, table: &Table, zone: &Zone) -> Option<Blackout> {
        let known = ["from", "to", "reason"];
        self.unknown_keys("windows.blackout", table, &known);
        let from = self.moment(table, "from", zone, false);
        let to = self.moment(table, "to", zone, true);
        let reason = self.text(table, "windows.blackout", "reason").unwrap_or_default();
        let reason = reason.trim();
        if reason.is_empty() || reason.chars().count() > MAX_REASON || reason.contains(char::is_control) {
            let message = format!("a blackout says why, in at most {MAX_REASON} characters on one line");
            self.find("windows.blackout.reason", message, "every run that is missed for it shows the reason");
        }
        let (from, to) = (from?, to?);
        if to <= from {
            self.find("windows.blackout", "the blackout is empty: it ends before it has begun", "from comes before to");
            return None;
        }
        Some(Blackout { from, to, reason: reason.to_owned() })
    }

    /// An instant: a date, a local time of the policy's zone, or one with its offset. A date alone is its beginning, or its end.
    fn moment(&mut self, table: &Table, key: &str, zone: &Zone, is_end: bool) -> Option<Timestamp> {
        let name = dotted("windows.blackout", key);
        let text = match table.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Datetime(at)) => at.to_string(),
            Some(other) => {
                self.find(&name, format!("{name} is {}, not a date", kind(other)), "such as \"2026-12-24 18:00\"");
                return None;
            }
            None => {
                self.find(
                    &name,
                    format!("a blackout says {key} when it is"),
                    format!("such as {key} = \"2026-12-24\""),
                );
                return None;
            }
        };
        match moment(&text, zone, is_end) {
            Ok(at) => Some(at),
            Err(message) => {
                self.find(
                    &name,
                    message,
                    "such as \"2026-12-24\", \"2026-12-24 18:00\" or \"2026-12-24T18:00:00+01:00\"",
                );
                None
            }
        }
    }

    /// Keys that cannot be kept together.
    fn contradictions(&mut self, calendar: &Calendar, timing: &Timing) {
        if let Some((period, from)) = shortest_period(calendar).filter(|(period, _)| *period < timing.jitter_s) {
            self.find(
                "schedule.jitter",
                format!(
                    "a jitter of {} is larger than the period of the schedule: runs are {} apart on {from}",
                    duration::shown(timing.jitter_s),
                    duration::shown(period)
                ),
                "no run is moved past the next one; write a smaller jitter",
            );
        }
        if !timing.windows.allowed.is_empty() && !ever_allowed(calendar, &timing.windows) {
            self.find(
                "windows.allowed",
                format!("no run of '{}' is ever due inside the allowed windows", calendar.cron),
                "change schedule.cron, or the windows",
            );
        }
    }
}

/// What a text says; the error is a sentence.
fn moment(text: &str, zone: &Zone, is_end: bool) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let wrong = || format!("'{}' is no date and no local time", escaped(text));
    let wall: DateTime = if text.len() == "2026-12-24".len() {
        let date: Date = text.parse().map_err(|_| wrong())?;
        let date = if is_end { date.checked_add(1.day()).map_err(|_| wrong())? } else { date };
        // Where midnight is skipped, the day begins after the gap.
        return date.to_zoned(zone.rules().clone()).map(|day| day.timestamp()).map_err(|_| wrong());
    } else {
        text.parse().map_err(|_| wrong())?
    };
    let ambiguous = zone.rules().to_ambiguous_timestamp(wall);
    let both = |ambiguous: jiff::tz::AmbiguousTimestamp| (ambiguous.earlier(), ambiguous.later());
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().map_err(|_| wrong()),
        AmbiguousOffset::Fold { .. } => match both(ambiguous) {
            (Ok(one), Ok(other)) => Err(format!("'{}' comes twice in {zone}: at {one} and at {other}", escaped(text))),
            (_, _) => Err(wrong()),
        },
        AmbiguousOffset::Gap { .. } => match both(ambiguous) {
            (Ok(one), Ok(other)) => {
                Err(format!("the clock of {zone} skips '{}': it is {one} or {other}", escaped(text)))
            }
            (_, _) => Err(wrong()),
        },
    }
}

/// Where the instants that are looked at begin: a fixed time, so that a file is right or wrong whenever it is read.
fn beginning(zone: &Zone) -> Timestamp {
    let day = jiff::civil::date(2026, 1, 1).to_zoned(zone.rules().clone());
    day.map_or(Timestamp::UNIX_EPOCH, |day| day.timestamp())
}

/// The shortest time between two due instants in seconds, and the day on which it is.
fn shortest_period(calendar: &Calendar) -> Option<(u32, Date)> {
    let first = calendar.next_after(beginning(&calendar.zone))?;
    let mut shortest: Option<(u32, Date)> = None;
    let mut before = first;
    for due in std::iter::successors(calendar.next_after(first), |due| calendar.next_after(*due)).take(MAX_LOOKED_AT) {
        let period = u32::try_from(due.duration_since(before).as_secs()).unwrap_or(u32::MAX);
        if shortest.is_none_or(|(shortest, _)| period < shortest) {
            shortest = Some((period, before.to_zoned(calendar.zone.rules().clone()).date()));
        }
        before = due;
    }
    shortest
}

/// Whether any instant is inside the allowed windows.
fn ever_allowed(calendar: &Calendar, windows: &Windows) -> bool {
    let zone = calendar.zone.rules();
    let mut before = beginning(&calendar.zone);
    for _ in 0..MAX_LOOKED_AT {
        let Some(due) = calendar.next_after(before) else { return false };
        if windows.allows(due, zone) {
            return true;
        }
        let Some(opens) = windows.opens_at(due, zone) else { return false };
        before = opens - SignedDuration::from_nanos(1);
    }
    false
}

/// An instant outside the allowed windows, if there is one.
fn outside(calendar: &Calendar, windows: &Windows) -> Option<Timestamp> {
    let zone = calendar.zone.rules();
    let mut at = windows.opens_at(beginning(&calendar.zone), zone)?;
    for _ in 0..MAX_LOOKED_AT {
        let closes = windows.closes_at(at, zone)?;
        let due = calendar.next_after(closes - SignedDuration::from_nanos(1))?;
        if !windows.allows(due, zone) {
            return Some(due);
        }
        at = due;
    }
    None
}

/// What is not wrong with a policy's windows and yet surprising.
pub(in crate::domain::policy) fn warnings(policy: &Policy) -> Vec<Finding> {
    let (windows, zone) = (&policy.timing.windows, policy.schedule.zone.rules());
    let mut warnings = Vec::new();
    if windows.allowed.is_empty() {
        return warnings;
    }
    let mut warn = |key: &str, message: String, hint: &str| {
        warnings.push(Finding { key: key.to_owned(), message, hint: hint.to_owned() });
    };
    if let Some(at) = outside(&policy.schedule, windows) {
        let at = at.to_zoned(zone.clone()).strftime("%A %H:%M");
        warn(
            "windows.allowed",
            format!(
                "'{}' is due outside the allowed windows too, such as on {at}: those runs are missed",
                policy.schedule.cron
            ),
            "let schedule.cron name only times inside the windows",
        );
    }
    if let FullDay::Weekly(day) = policy.full.day
        && is_closed_on(policy, day)
    {
        let taken = match policy.timing.catch_up {
            CatchUp::None => "fulls are taken when the newest is too old",
            CatchUp::Latest | CatchUp::All => {
                "the full is taken by the run that makes up for it, or when the newest is too old"
            }
        };
        warn(
            "full.day",
            format!("no run of a {} is inside the allowed windows: {taken}", weekday_name(day)),
            "name a day of the allowed windows",
        );
    }
    warnings
}

/// Whether runs are due on a day of the week and none of them inside the allowed windows.
fn is_closed_on(policy: &Policy, day: Weekday) -> bool {
    let (calendar, zone) = (&policy.schedule, policy.schedule.zone.rules());
    let first = beginning(&calendar.zone).to_zoned(zone.clone()).date();
    // Monthly runs come to every day of the week within a year or so.
    let days = (0..MAX_LOOKED_AT).filter_map(|number| first.checked_add(i64::try_from(number).ok()?.days()).ok());
    let mut due = days.filter(|date| date.weekday() == day).flat_map(|date| {
        let start =
            |date: Date| date.to_zoned(zone.clone()).map(|start| start.timestamp() - SignedDuration::from_nanos(1));
        let (from, until) = (start(date), date.tomorrow().and_then(start));
        from.ok()
            .zip(until.ok())
            .map(|(from, until)| calendar.due_between(from, until, MAX_LOOKED_AT))
            .unwrap_or_default()
    });
    let mut any = false;
    !due.any(|due| {
        any = true;
        policy.timing.windows.allows(due, zone)
    }) && any
}
