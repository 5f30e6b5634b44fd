#![expect(clippy::unwrap_used, reason = "tests")]

use jiff::{SignedDuration, Zoned};
use proptest::prelude::*;

use super::*;
use crate::domain::decision::LEVELLED;

const DAILY: Rules = Rules { full_weekday: 7, max_age_days: 7, diff_threshold_percent: 50 };

/// Monday, at two in the night.
fn monday() -> Zoned {
    "2026-11-23T02:00:00+00:00[UTC]".parse().unwrap()
}

fn under(rules: Rules) -> Under {
    let rates = Rates {
        scan_ms: Some(10),
        full: Work { bytes: 10, ms: 10 },
        differential: Work { bytes: 10, ms: 10 },
        restore: Work { bytes: 10, ms: 20 },
        ..Rates::default()
    };
    Under { rules, zone: TimeZone::UTC, full_nights: Vec::new(), rates }
}

/// What the sources did between two runs.
#[derive(Debug, Clone, Copy)]
struct Day {
    /// Bytes that changed for the first time since the full.
    changed: u64,
    /// Bytes of the sources.
    size: u64,
    /// What an operator asked for.
    asked: Option<Level>,
    /// The coordinator did not answer the scan.
    cut_off: bool,
}

fn day(changed: u64) -> Day {
    Day { changed, size: 1000, asked: None, cut_off: false }
}

/// A history as the engine makes it, night after night. Archives are half of their content, a byte takes a millisecond.
fn lived(rules: Rules, days: &[Day]) -> Vec<Recorded> {
    let mut full: Option<FullFacts> = None;
    let mut since_full = 0;
    let mut history = Vec::new();
    for (number, day) in days.iter().enumerate() {
        let now = monday().checked_add(SignedDuration::from_hours(24 * i64::try_from(number).unwrap())).unwrap();
        let inputs = Inputs {
            now: now.clone(),
            due: None,
            asked: day.asked,
            rules,
            full: full.clone(),
            full_of_other_selection: false,
            full_damaged: false,
            planned_full: None,
            rates: Rates::default(),
        };
        since_full += day.changed;
        let facts = ScanFacts {
            source_bytes: day.size,
            changed_bytes: since_full,
            equals_newest: day.changed == 0,
            selection_changed: false,
            base_unavailable: false,
        };
        let before = before_scan(&inputs);
        let scan = Some(facts).filter(|_| before.level == Level::Differential && !day.cut_off);
        let level = scan.map_or(before.level, |scan| after_scan(&before, &inputs, &scan).level);
        let captured_at = now.timestamp() + SignedDuration::from_mins(10);
        let content_bytes = match level {
            Level::Full => day.size,
            Level::Differential if day.changed == 0 => 0,
            Level::Differential => since_full,
        };
        let id = BackupId::from_uuid(uuid::Uuid::from_u128(number as u128 + 1));
        let (source_bytes, stored_bytes) = (day.size, content_bytes / 2);
        if level == Level::Full {
            since_full = 0;
            full = Some(FullFacts { backup: id, captured_at, source_bytes, stored_bytes, differentials: vec![] });
        } else if content_bytes > 0 {
            full.as_mut().unwrap().differentials.push(content_bytes);
        }
        let left =
            LeftBackup { id, level, captured_at, source_bytes, content_bytes, stored_bytes, ms: 10 + content_bytes };
        history.push(Recorded { inputs, scan, left });
    }
    history
}

fn letters(runs: &[Replayed]) -> String {
    runs.iter().map(|run| if run.level == Level::Full { 'F' } else { 'd' }).collect()
}

#[test]
fn a_fortnight_under_another_day_of_the_full_parts_from_history_there() {
    let history = lived(DAILY, &[day(20); 14]);
    let was = as_recorded(&history, &TimeZone::UTC, &under(DAILY).rates);
    assert_eq!(letters(&was), "FdddddFddddddF", "Sundays");
    let wednesdays = replay(&history, &under(Rules { full_weekday: 3, ..DAILY }));
    assert_eq!(letters(&wednesdays), "FdFddddddFdddd");
    let estimated: Vec<bool> = wednesdays.iter().map(|run| run.is_estimated).collect();
    assert_eq!(estimated[..2], [false, false], "up to there it is what was");
    assert!(estimated[2..].iter().all(|estimated| *estimated));
    assert_eq!(wednesdays[2].stored_bytes, 500, "a full of then, at the ratio of fulls");
    assert_eq!(wednesdays[3].stored_bytes, 10, "a day after its full");
    assert_eq!(wednesdays[3].ms, Some(30));
    assert_eq!((was[5].restore_ms, wednesdays[3].restore_ms), (Some(2200), Some(2040)));
}

#[test]
fn totals_are_what_is_compared() {
    let history = lived(DAILY, &[day(20); 14]);
    let was = totals(&as_recorded(&history, &TimeZone::UTC, &under(DAILY).rates));
    assert_eq!((was.runs, was.fulls, was.estimated), (14, 3, 0));
    assert_eq!((was.busiest_ms, was.busiest_night), (1010, Some(monday().date())), "the first of equals");
    let daily = totals(&replay(&history, &under(Rules { max_age_days: 1, ..DAILY })));
    assert!(daily.fulls > was.fulls && daily.stored_bytes > was.stored_bytes, "{daily:?}");
    assert!(daily.longest_restore_ms < was.longest_restore_ms, "shorter chains restore sooner");
    assert_eq!(totals(&[]), Totals::default());
}

#[test]
fn a_differential_that_was_never_taken_is_counted_as_everything_when_nothing_says_more() {
    // Fulls alone were ever taken.
    let asked = Day { asked: Some(Level::Full), ..day(20) };
    let mut history = lived(DAILY, &[asked; 4]);
    for recorded in &mut history {
        recorded.inputs.asked = None;
    }
    let runs = replay(&history, &under(DAILY));
    assert_eq!(letters(&runs), "FFFF", "as large as a full is over any threshold");
    assert!(runs[1].reason.contains("1000 B") && runs[1].reason.contains("estimated"), "{}", runs[1].reason);
    assert!(runs[1].is_estimated, "though history took the same level");
}

#[test]
fn planned_nights_are_replayed_where_fulls_are_levelled() {
    let history = lived(DAILY, &[day(20); 10]);
    let night = |days: i64| monday().date().checked_add(jiff::Span::new().days(days)).unwrap();
    let levelled = Under { full_nights: vec![night(3), night(8)], ..under(Rules { full_weekday: LEVELLED, ..DAILY }) };
    assert_eq!(letters(&replay(&history, &levelled)), "FddFddddFd");
}

#[test]
fn a_full_that_history_lost_is_lost_in_the_replay_too() {
    let mut history = lived(DAILY, &[day(20); 5]);
    (history[3].inputs.full, history[3].inputs.full_damaged) = (None, true);
    let runs = replay(&history, &under(Rules { full_weekday: 2, ..DAILY }));
    assert_eq!(letters(&runs), "FFdFd");
    assert!(runs[3].reason.contains("damaged"), "{}", runs[3].reason);
}

fn any_day() -> impl Strategy<Value = Day> {
    let asked = prop_oneof![8 => Just(None), 1 => Just(Some(Level::Full)), 1 => Just(Some(Level::Differential))];
    let changed = prop_oneof![1 => Just(0u64), 4 => 0u64..300];
    (changed, 500u64..2000, asked, prop::bool::weighted(0.1)).prop_map(|(changed, size, asked, cut_off)| Day {
        changed,
        size,
        asked,
        cut_off,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn history_under_its_own_policy_is_what_it_was(
        days in prop::collection::vec(any_day(), 1..40),
        full_weekday in 1i8..=7,
        max_age_days in 1u32..12,
        diff_threshold_percent in 1u32..=100,
    ) {
        let rules = Rules { full_weekday, max_age_days, diff_threshold_percent };
        let history = lived(rules, &days);
        let under = under(rules);
        prop_assert_eq!(replay(&history, &under), as_recorded(&history, &under.zone, &under.rates));
    }

    #[test]
    fn a_replay_invents_no_run_and_stands_on_a_full(
        days in prop::collection::vec(any_day(), 1..40),
        full_weekday in 1i8..=7,
        max_age_days in 1u32..12,
        diff_threshold_percent in 1u32..=100,
    ) {
        let history = lived(DAILY, &days);
        let runs = replay(&history, &under(Rules { full_weekday, max_age_days, diff_threshold_percent }));
        prop_assert_eq!(runs.len(), history.len());
        prop_assert_eq!(runs[0].level, Level::Full);
        for (run, recorded) in runs.iter().zip(&history) {
            prop_assert_eq!(run.at, recorded.inputs.now.timestamp());
            prop_assert!(run.is_estimated || (run.level, run.stored_bytes) == (recorded.left.level, recorded.left.stored_bytes));
        }
    }
}
