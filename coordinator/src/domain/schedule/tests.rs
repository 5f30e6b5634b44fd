#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn calendar(cron: &str, zone: &str) -> Calendar {
    Calendar { cron: cron.parse().unwrap(), zone: zone.parse().unwrap() }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn due(cron: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
    calendar(cron, zone).due_between(at(from), at(until), 100).iter().map(ToString::to_string).collect()
}

#[test]
fn a_skipped_local_time_is_due_once_after_the_gap() {
    // Berlin goes from 02:00 to 03:00 on 28 March 2027, which is 01:00Z.
    for cron in ["30 2 * * *", "0 2 * * *", "*/15 2 * * *", "5,55 2 * * *"] {
        assert_eq!(
            due(cron, "Europe/Berlin", "2027-03-28T00:00:00Z", "2027-03-28T12:00:00Z"),
            ["2027-03-28T01:00:00Z"],
            "{cron}"
        );
    }
    assert_eq!(
        due("30 2,3 * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", "2027-03-28T12:00:00Z"),
        ["2027-03-28T01:00:00Z", "2027-03-28T01:30:00Z"]
    );
}

#[test]
fn a_repeated_local_time_is_due_once_on_its_first_pass() {
    // Berlin goes from 03:00 back to 02:00 on 31 October 2027, which is 01:00Z.
    assert_eq!(
        due("30 2 * * *", "Europe/Berlin", "2027-10-30T12:00:00Z", "2027-10-31T12:00:00Z"),
        ["2027-10-31T00:30:00Z"]
    );
    assert_eq!(
        due("0 2,14 * * *", "Europe/Berlin", "2027-10-30T22:00:00Z", "2027-10-31T22:00:00Z"),
        ["2027-10-31T00:00:00Z", "2027-10-31T13:00:00Z"]
    );
}

#[test]
fn a_line_for_every_hour_goes_by_elapsed_time() {
    assert_eq!(
        due("30 * * * *", "Europe/Berlin", "2027-10-30T23:45:00Z", "2027-10-31T02:45:00Z"),
        ["2027-10-31T00:30:00Z", "2027-10-31T01:30:00Z", "2027-10-31T02:30:00Z"]
    );
    assert_eq!(
        due("30 * * * *", "Europe/Berlin", "2027-03-27T23:45:00Z", "2027-03-28T02:45:00Z"),
        ["2027-03-28T00:30:00Z", "2027-03-28T01:30:00Z", "2027-03-28T02:30:00Z"]
    );
}

#[test]
fn lines_and_zones_that_cannot_be_are_refused_in_words() {
    for (line, expected) in [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 0 2 * * *", "6 fields"),
        ("61 * * * *", "no cron line"),
        ("0 2 * * mon-", "no cron line"),
        ("0 25 * * *", "no cron line"),
        ("@sometimes", "no cron line"),
        ("0 0 30 2 *", "never comes true"),
        ("0 0 31 4,6,9,11 *", "never comes true"),
        ("0 2 * * ☃", "characters"),
    ] {
        let error = line.parse::<CronLine>().unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
    assert!("0 0 29 2 *".parse::<CronLine>().is_ok(), "29 February comes");
    assert!("@daily".parse::<CronLine>().is_ok());
    for zone in ["Europe/Berlln", "", "local", "../../etc/passwd", "\u{1b}[2J"] {
        let error = zone.parse::<Zone>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'));
    }
    assert_eq!("europe/berlin".parse::<Zone>().unwrap().as_str(), "Europe/Berlin");
}

/// Minutes and hours of a line of the oracle, and its weekdays (0 is Sunday; none: every day) or day of month.
struct Line {
    cron: &'static str,
    minutes: &'static [i64],
    hours: &'static [i64],
    weekday: Option<i64>,
    day: Option<i64>,
}

impl Line {
    fn matches(&self, wall_minute: i64) -> bool {
        let in_day = wall_minute.rem_euclid(1440);
        if !self.minutes.contains(&(in_day % 60)) || !(self.hours.is_empty() || self.hours.contains(&(in_day / 60))) {
            return false;
        }
        let days = wall_minute.div_euclid(1440);
        // 1 January 1970 was a Thursday.
        self.weekday.is_none_or(|weekday| (days + 4).rem_euclid(7) == weekday)
            && self.day.is_none_or(|day| day_of_month(days) == day)
    }

    /// Walks every minute and looks at the clock on the wall: no calendar, no search.
    fn walk(&self, zone: &TimeZone, first: i64, last: i64) -> Vec<i64> {
        let mut due = Vec::new();
        let mut offset = minutes_ahead(zone, first);
        let mut change = next_change(zone, first);
        // The latest time that the wall has shown.
        let mut shown = first - 1 + offset;
        for minute in first..=last {
            let mut skipped = false;
            if change == Some(minute) {
                let before = offset;
                offset = minutes_ahead(zone, minute);
                change = next_change(zone, minute);
                skipped = (minute + before..minute + offset).any(|wall| wall > shown && self.matches(wall));
            }
            let wall = minute + offset;
            let once = !self.hours.is_empty();
            if (self.matches(wall) && (!once || wall > shown)) || (once && skipped) {
                due.push(minute);
            }
            shown = shown.max(wall);
        }
        due
    }
}

/// Day of the month of a day since the epoch, by counting months.
fn day_of_month(days: i64) -> i64 {
    let (mut year, mut left) = (1970, days);
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        for (month, length) in [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
            let length = if month == 1 && leap { 29 } else { length };
            if left < length {
                return left + 1;
            }
            left -= length;
        }
        year += 1;
    }
}

fn stamp(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).unwrap()
}

fn minutes_ahead(zone: &TimeZone, minute: i64) -> i64 {
    i64::from(zone.to_offset(stamp(minute)).seconds()) / 60
}

fn next_change(zone: &TimeZone, minute: i64) -> Option<i64> {
    zone.following(stamp(minute)).next().map(|change| change.timestamp().as_second() / 60)
}

#[test]
fn due_times_are_those_of_a_watcher_who_looks_at_the_wall_every_minute_of_five_years() {
    let lines = [
        Line { cron: "0 2 * * *", minutes: &[0], hours: &[2], weekday: None, day: None },
        Line { cron: "30 2 * * *", minutes: &[30], hours: &[2], weekday: None, day: None },
        Line { cron: "15 0,1,2,3 * * *", minutes: &[15], hours: &[0, 1, 2, 3], weekday: None, day: None },
        Line { cron: "*/20 1-2 * * 0", minutes: &[0, 20, 40], hours: &[1, 2], weekday: Some(0), day: None },
        Line { cron: "0 0 * * *", minutes: &[0], hours: &[0], weekday: None, day: None },
        Line { cron: "59 23 1 * *", minutes: &[59], hours: &[23], weekday: None, day: Some(1) },
        Line { cron: "45 */4 * * *", minutes: &[45], hours: &[0, 4, 8, 12, 16, 20], weekday: None, day: None },
    ];
    // Gaps at 2, gaps at midnight, and changes of half an hour.
    for name in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"] {
        let zone: Zone = name.parse().unwrap();
        let first = at("2025-01-01T00:00:00Z").as_second() / 60;
        let last = at("2030-01-01T00:00:00Z").as_second() / 60;
        for line in &lines {
            let expected = line.walk(zone.rules(), first, last);
            let calendar = Calendar { cron: line.cron.parse().unwrap(), zone: zone.clone() };
            let found = calendar.due_between(stamp(first - 1), stamp(last), expected.len() + 10);
            let found: Vec<i64> = found.iter().map(|due| due.as_second() / 60).collect();
            let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected);
            assert!(differs.is_none(), "{} in {name}: {:?}", line.cron, differs.map(|(f, e)| (stamp(*f), stamp(*e))));
            assert_eq!(found.len(), expected.len(), "{} in {name}", line.cron);
        }
    }
}

#[test]
fn lines_for_every_hour_are_those_of_the_watcher_around_every_change() {
    let line = Line { cron: "*/30 * * * *", minutes: &[0, 30], hours: &[], weekday: None, day: None };
    for name in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"] {
        let zone: Zone = name.parse().unwrap();
        let calendar = Calendar { cron: line.cron.parse().unwrap(), zone: zone.clone() };
        for change in zone.rules().following(at("2025-01-01T00:00:00Z")).take(10) {
            let middle = change.timestamp().as_second() / 60;
            let expected = line.walk(zone.rules(), middle - 300, middle + 300);
            let found = calendar.due_between(stamp(middle - 301), stamp(middle + 300), 100);
            let found: Vec<i64> = found.iter().map(|due| due.as_second() / 60).collect();
            assert_eq!(found, expected, "{name} at {}", change.timestamp());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_is_read_or_refused_and_never_hangs(text in "[0-9*/,\\-LW#? @a-z]{0,24}") {
        if let Ok(line) = text.parse::<CronLine>() {
            let calendar = Calendar { cron: line, zone: Zone::utc() };
            let from = at("2026-11-23T00:00:00Z");
            if let Some(next) = calendar.next_after(from) {
                prop_assert!(next > from);
            }
        }
    }

    #[test]
    fn the_next_due_time_is_always_later(seconds in 1_700_000_000i64..2_000_000_000, nanos in 0i32..1_000_000_000, which in 0usize..4) {
        let cron = ["30 2 * * *", "*/7 * * * *", "0 0,12 * * 1-5", "59 1 * * *"][which];
        let from = Timestamp::new(seconds, nanos).unwrap();
        for zone in ["America/Santiago", "Australia/Lord_Howe"] {
            let next = calendar(cron, zone).next_after(from).unwrap();
            prop_assert!(next > from);
            prop_assert!(next.as_second() - from.as_second() < 4 * 86_400);
        }
    }
}
