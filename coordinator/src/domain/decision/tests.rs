#![expect(clippy::unwrap_used, reason = "tests")]

use jiff::ToSpan;
use proptest::prelude::*;

use super::*;
use crate::domain::rates::Work;

/// Wednesday 25 November 2026, 02:00 in Berlin.
fn wednesday() -> Zoned {
    "2026-11-25T02:00:00+01:00[Europe/Berlin]".parse().unwrap()
}

fn sunday() -> Zoned {
    "2026-11-29T02:00:00+01:00[Europe/Berlin]".parse().unwrap()
}

/// A healthy chain: a full of last Sunday, differentials of a tenth.
fn inputs(now: Zoned) -> Inputs {
    let captured_at: Zoned = "2026-11-22T02:20:00+01:00[Europe/Berlin]".parse().unwrap();
    Inputs {
        now,
        due: None,
        asked: None,
        rules: Rules { full_weekday: 7, max_age_days: 7, diff_threshold_percent: 50 },
        full: Some(FullFacts {
            backup: BackupId::random(),
            captured_at: captured_at.timestamp(),
            source_bytes: 1000,
            stored_bytes: 400,
            differentials: vec![100, 100],
        }),
        full_of_other_selection: false,
        full_damaged: false,
        planned_full: None,
        rates: Rates::default(),
    }
}

fn with_full(mut inputs: Inputs, change: impl FnOnce(&mut FullFacts)) -> Inputs {
    if let Some(full) = inputs.full.as_mut() {
        change(full);
    }
    inputs
}

fn decide(inputs: &Inputs) -> (Level, Rule) {
    let decision = before_scan(inputs);
    (decision.level, decision.rule)
}

#[test]
fn an_ordinary_day_is_a_differential_on_the_newest_full() {
    let inputs = inputs(wednesday());
    let decision = before_scan(&inputs);
    assert_eq!((decision.level, decision.rule), (Level::Differential, Rule::Differential));
    assert_eq!(decision.base, inputs.full.map(|full| full.backup));
    assert_eq!(decision.reason, "no reason for a full holds; it is estimated at 140 B, 14 percent of the full");
    assert_eq!(decision.options.len(), 2);
    assert!(decision.options[0].taken && !decision.options[1].taken);
    assert_eq!(decision.options[1].predicted_bytes, Some(1000), "the full that was not taken");
}

#[test]
fn the_day_of_the_full_gives_one_full_and_no_second() {
    assert_eq!(decide(&inputs(sunday())), (Level::Full, Rule::ScheduledFullDay));
    let taken = with_full(inputs(sunday()), |full| full.captured_at = sunday().timestamp());
    let evening = Inputs { now: sunday().checked_add(20.hours()).unwrap(), ..taken };
    assert_eq!(decide(&evening), (Level::Differential, Rule::Differential));
    let none = Inputs { full: None, ..inputs(sunday()) };
    assert_eq!(decide(&none), (Level::Full, Rule::ScheduledFullDay), "the rules go in their order");
}

#[test]
fn a_run_that_begins_after_midnight_is_of_the_day_that_it_was_due_on() {
    let late = Inputs {
        now: "2026-11-30T00:40:00+01:00[Europe/Berlin]".parse().unwrap(),
        due: "2026-11-29T22:30:00Z".parse().ok(),
        rules: Rules { full_weekday: 7, max_age_days: 30, diff_threshold_percent: 50 },
        ..inputs(sunday())
    };
    let decision = before_scan(&late);
    assert_eq!((decision.level, decision.rule), (Level::Full, Rule::ScheduledFullDay));
    assert_eq!(
        decision.reason,
        "sunday is the day of the full, this run is that of 2026-11-29, and none was taken since (Europe/Berlin)"
    );
    let taken = with_full(late.clone(), |full| full.captured_at = late.now.timestamp());
    let again = Inputs { now: late.now.checked_add(10.minutes()).unwrap(), ..taken.clone() };
    assert_eq!(decide(&again), (Level::Differential, Rule::Differential));
    // The night before begins on Sunday, and is Saturday's.
    let saturday = Inputs {
        now: "2026-11-29T00:40:00+01:00[Europe/Berlin]".parse().unwrap(),
        due: "2026-11-28T22:30:00Z".parse().ok(),
        ..late.clone()
    };
    assert_eq!(decide(&saturday), (Level::Differential, Rule::Differential));
    let rules = Rules { full_weekday: LEVELLED, ..late.rules };
    let planned = |night: &str| Inputs { rules, planned_full: night.parse().ok(), ..saturday.clone() };
    assert_eq!(decide(&planned("2026-11-28")), (Level::Full, Rule::LevelledFullNight));
    assert_eq!(decide(&planned("2026-11-29")), (Level::Differential, Rule::Differential));
    // An older version stored no due instant: it was decided by the time it began.
    let mut stored = serde_json::to_value(&late).unwrap();
    stored.as_object_mut().unwrap().remove("due");
    let read: Inputs = serde_json::from_value(stored).unwrap();
    assert_eq!((read.due, decide(&read).0), (None, Level::Differential));
}

#[test]
fn a_levelled_full_is_taken_on_its_night_once_and_made_up_for_when_the_night_went_by() {
    let rules = Rules { full_weekday: LEVELLED, max_age_days: 7, diff_threshold_percent: 50 };
    let planned = |night: &str| Inputs { rules, planned_full: night.parse().ok(), ..inputs(wednesday()) };
    let tonight = before_scan(&planned("2026-11-25"));
    assert_eq!((tonight.level, tonight.rule), (Level::Full, Rule::LevelledFullNight));
    assert_eq!(
        tonight.reason,
        "fulls are levelled over the fleet, and this one is planned for the night of 2026-11-25 (Europe/Berlin)"
    );
    assert!(before_scan(&planned("2026-11-24")).reason.contains("has gone by without one"));
    assert_eq!(decide(&planned("2026-11-26")).1, Rule::Differential, "not yet");
    assert_eq!(decide(&planned("2026-11-22")).1, Rule::Differential, "that is the night of the full there is");
    let sunday = Inputs { planned_full: None, ..planned("") };
    assert_eq!(
        decide(&Inputs { now: self::sunday(), ..sunday }).1,
        Rule::Differential,
        "no day of the week is its day"
    );
    let old = with_full(planned("2026-11-26"), |full| full.captured_at -= jiff::SignedDuration::from_hours(120));
    assert_eq!(decide(&old).1, Rule::FullTooOld, "the plan never makes a full older than it may be");
    let taken = with_full(planned("2026-11-25"), |full| full.captured_at = wednesday().timestamp());
    assert_eq!(decide(&taken).1, Rule::Differential);
    let fixed = Inputs { planned_full: "2026-11-25".parse().ok(), ..inputs(wednesday()) };
    assert_eq!(decide(&fixed).1, Rule::Differential, "a fixed day asks no plan");
}

#[test]
fn the_day_is_that_of_the_policys_zone() {
    // Sunday 00:30 in Auckland is Saturday in UTC.
    let auckland: Zoned = "2026-11-29T00:30:00+13:00[Pacific/Auckland]".parse().unwrap();
    assert_eq!(decide(&inputs(auckland.clone())), (Level::Full, Rule::ScheduledFullDay));
    let saturday = auckland.with_time_zone(jiff::tz::TimeZone::UTC);
    assert_eq!(decide(&inputs(saturday)).0, Level::Differential);
}

#[test]
fn without_a_full_to_stand_on_it_is_a_full_and_says_why() {
    let none = Inputs { full: None, ..inputs(wednesday()) };
    assert_eq!(decide(&none), (Level::Full, Rule::NoFull));
    let other = Inputs { full_of_other_selection: true, ..none.clone() };
    assert_eq!(decide(&other), (Level::Full, Rule::SelectionChanged));
    let damaged = Inputs { full_damaged: true, ..none.clone() };
    assert!(before_scan(&damaged).reason.contains("damaged"));
    let asked = before_scan(&Inputs { asked: Some(Level::Differential), ..none });
    assert_eq!((asked.level, asked.rule), (Level::Full, Rule::NoFull));
    assert_eq!(asked.reason, "a differential was asked for, and this job has no full yet");
    assert_eq!(asked.base, None);
}

#[test]
fn a_full_is_too_old_only_beyond_the_days_allowed() {
    let captured = |ago: jiff::Span| {
        let now = wednesday();
        with_full(inputs(now.clone()), |full| {
            full.captured_at = now.checked_sub(ago).unwrap().timestamp();
            full.differentials.clear();
        })
    };
    assert_eq!(decide(&captured(168.hours())), (Level::Differential, Rule::Differential));
    let old = captured(168.hours().seconds(1));
    assert_eq!(decide(&old), (Level::Full, Rule::FullTooOld));
    assert!(before_scan(&old).reason.contains("7 days and 0 hours old"));
    let ahead = with_full(inputs(wednesday()), |full| full.captured_at = sunday().timestamp());
    assert_eq!(decide(&ahead).0, Level::Differential, "a host's clock that is ahead is no age");
}

#[test]
fn the_estimate_is_the_mean_grown_by_a_fifth_a_day() {
    let facts = inputs(wednesday()).full.unwrap();
    let after = |days: i64| facts.captured_at.checked_add((days * 24).hours()).unwrap();
    assert_eq!(estimate(&facts, after(0)), Some(100));
    assert_eq!(estimate(&facts, after(1)), Some(120));
    assert_eq!(estimate(&facts, after(5)), Some(200));
    assert_eq!(estimate(&FullFacts { differentials: vec![], ..facts.clone() }, after(5)), None);
    assert_eq!(estimate(&FullFacts { differentials: vec![u64::MAX; 3], ..facts }, after(5)), Some(u64::MAX));
}

#[test]
fn an_estimate_over_the_threshold_makes_a_full_and_one_at_it_does_not() {
    // Two whole days after the full the mean is grown by two fifths.
    let at = with_full(inputs(wednesday()), |full| full.differentials = vec![357]);
    assert_eq!(decide(&at), (Level::Differential, Rule::Differential));
    let over = with_full(inputs(wednesday()), |full| full.differentials = vec![358, 358]);
    assert_eq!(decide(&over), (Level::Full, Rule::EstimateOverThreshold));
    let grown = with_full(inputs(wednesday()), |full| full.differentials = vec![10, 10, 10, 10, 501]);
    assert_eq!(decide(&grown), (Level::Full, Rule::ChainOverThreshold), "the mean hides what the newest shows");
}

#[test]
fn an_operator_gets_what_was_asked_for() {
    let full = Inputs { asked: Some(Level::Full), ..inputs(wednesday()) };
    assert_eq!(decide(&full), (Level::Full, Rule::AskedByOperator));
    let differential = Inputs { asked: Some(Level::Differential), ..inputs(sunday()) };
    assert_eq!(decide(&differential), (Level::Differential, Rule::AskedByOperator));
}

fn scan(changed_bytes: u64) -> ScanFacts {
    ScanFacts {
        source_bytes: 1100,
        changed_bytes,
        equals_newest: false,
        selection_changed: false,
        base_unavailable: false,
    }
}

fn after(inputs: &Inputs, scan: ScanFacts) -> Decision {
    after_scan(&before_scan(inputs), inputs, &scan)
}

#[test]
fn exact_figures_confirm_the_level_or_raise_it() {
    let inputs = inputs(wednesday());
    let confirmed = after(&inputs, scan(500));
    assert_eq!((confirmed.level, confirmed.rule), (Level::Differential, Rule::Confirmed));
    assert!(confirmed.base.is_some());
    let raised = after(&inputs, scan(501));
    assert_eq!((raised.level, raised.rule, raised.base), (Level::Full, Rule::ExactOverThreshold, None));
    assert_eq!(raised.reason, "the scan found 501 B, 50 percent of the full's 1000 B, and the policy allows 50");
    let other = after(&inputs, ScanFacts { selection_changed: true, ..scan(1) });
    assert_eq!((other.level, other.rule), (Level::Full, Rule::SelectionChanged));
    let gone = after(&inputs, ScanFacts { base_unavailable: true, ..scan(1) });
    assert_eq!((gone.level, gone.rule), (Level::Full, Rule::BaseUnavailable));
}

#[test]
fn where_nothing_could_be_compared_no_figure_is_made_up() {
    // What an agent sends that found no base to compare with, or one of another selection.
    let nothing = ScanFacts { source_bytes: 0, changed_bytes: 0, ..scan(0) };
    for facts in [ScanFacts { base_unavailable: true, ..nothing }, ScanFacts { selection_changed: true, ..nothing }] {
        let decision = after(&inputs(wednesday()), facts);
        assert_eq!((decision.level, decision.exact), (Level::Full, None));
        let bytes: Vec<Option<u64>> = decision.options.iter().map(|option| option.predicted_bytes).collect();
        assert_eq!(bytes, [None, None], "{:?}", decision.options);
    }
}

#[test]
fn nothing_new_since_the_newest_backup_stays_a_differential_however_large_the_chain() {
    let same = after(&inputs(wednesday()), ScanFacts { equals_newest: true, ..scan(900) });
    assert_eq!((same.level, same.rule), (Level::Differential, Rule::Confirmed));
    assert_eq!(same.options[0].predicted_bytes, Some(0));
}

#[test]
fn a_differential_that_an_operator_asked_for_is_raised_only_where_there_is_nothing_to_stand_on() {
    let asked = Inputs { asked: Some(Level::Differential), ..inputs(wednesday()) };
    assert_eq!(after(&asked, scan(999)).level, Level::Differential);
    assert_eq!(after(&asked, ScanFacts { base_unavailable: true, ..scan(999) }).level, Level::Full);
}

#[test]
fn each_option_says_what_it_would_store_how_long_it_would_take_and_how_long_its_restore() {
    // A byte a millisecond for backups after a scan of 5 ms, two for restores.
    let rates = Rates {
        scan_ms: Some(5),
        full: Work { bytes: 1000, ms: 1000 },
        differential: Work { bytes: 100, ms: 200 },
        restore: Work { bytes: 1000, ms: 2000 },
        ..Rates::default()
    };
    let inputs = Inputs { rates, ..inputs(wednesday()) };
    let told = |decision: &Decision| -> Vec<_> {
        let figures = |x: &Choice| (x.level, x.predicted_bytes, x.predicted_ms, x.predicted_restore_ms);
        decision.options.iter().map(figures).collect()
    };
    let before = before_scan(&inputs);
    assert_eq!((before.estimate, before.exact), (Some(140), None));
    assert_eq!(
        told(&before),
        [(Level::Differential, Some(140), Some(285), Some(2280)), (Level::Full, Some(1000), Some(1005), Some(2000)),]
    );
    let after = after(&inputs, scan(300));
    assert_eq!((after.estimate, after.exact), (Some(140), Some(300)));
    assert_eq!(
        told(&after),
        [(Level::Differential, Some(300), Some(605), Some(2600)), (Level::Full, Some(1100), Some(1105), Some(2200)),]
    );
    let unmeasured = before_scan(&Inputs { rates: Rates::default(), ..inputs });
    assert!(unmeasured.options.iter().all(|x| x.predicted_ms.is_none() && x.predicted_restore_ms.is_none()));
}

#[test]
fn a_decision_of_before_there_were_rates_is_replayed_as_it_was() {
    let inputs = inputs(sunday());
    let mut stored = serde_json::to_value(&inputs).unwrap();
    stored.as_object_mut().unwrap().remove("rates");
    assert_eq!(before_scan(&serde_json::from_value(stored).unwrap()), before_scan(&inputs));
}

#[test]
fn a_decision_survives_the_catalog_with_its_inputs() {
    let inputs = inputs(wednesday());
    let text = serde_json::to_string(&inputs).unwrap();
    let back: Inputs = serde_json::from_str(&text).unwrap();
    assert_eq!(before_scan(&back), before_scan(&inputs), "a stored decision can be replayed");
    for rule in Rule::ALL {
        assert_eq!(serde_json::to_string(&rule).unwrap(), format!("\"{rule}\""));
    }
    for stage in Stage::ALL {
        assert_eq!(serde_json::to_string(&stage).unwrap(), format!("\"{stage}\""));
    }
}

fn any_inputs() -> impl Strategy<Value = Inputs> {
    let full = (0i64..40 * 24, 0u64..5000, prop::collection::vec(0u64..5000, 0..6));
    let level = prop_oneof![Just(None), Just(Some(Level::Full)), Just(Some(Level::Differential))];
    (
        0i64..14 * 24,
        level,
        (0i8..=7, prop::option::of(-5i64..14)),
        1u32..20,
        1u32..=100,
        prop::option::of(full),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |(hour, asked, (full_weekday, planned), max_age_days, diff_threshold_percent, full, [other, damaged])| {
                let now = wednesday().checked_add(hour.hours()).unwrap();
                let full = full.map(|(age, source_bytes, differentials)| FullFacts {
                    backup: BackupId::from_uuid(uuid::Uuid::nil()),
                    captured_at: now.timestamp().checked_sub(age.hours()).unwrap(),
                    source_bytes,
                    stored_bytes: 1,
                    differentials,
                });
                let rules = Rules { full_weekday, max_age_days, diff_threshold_percent };
                let planned = planned.map(|day| wednesday().date().checked_add(day.days()).unwrap());
                let rates = Rates { scan_ms: Some(1), full: Work { bytes: 10, ms: 3 }, ..Rates::default() };
                Inputs {
                    now,
                    due: None,
                    asked,
                    rules,
                    full,
                    full_of_other_selection: other,
                    full_damaged: damaged,
                    planned_full: planned,
                    rates,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_decision_is_whole(inputs in any_inputs(), changed in 0u64..6000, equals: bool, other: bool, gone: bool) {
        let before = before_scan(&inputs);
        let facts = ScanFacts { source_bytes: 5000, changed_bytes: changed, equals_newest: equals, selection_changed: other, base_unavailable: gone };
        let after = after_scan(&before, &inputs, &facts);
        for decision in [&before, &after] {
            prop_assert_eq!(decision.base.is_some(), decision.level == Level::Differential, "a differential has a base and a full has none");
            prop_assert_eq!(decision.options.iter().filter(|option| option.taken).count(), 1);
            prop_assert!(decision.options[0].taken && decision.options[0].level == decision.level);
            prop_assert!(decision.options.iter().all(|option| !option.why.is_empty()));
        }
        if before.level == Level::Full {
            prop_assert_eq!(after.level, Level::Full, "a scan never lowers the level");
        }
        if inputs.full.is_none() {
            prop_assert_eq!(before.level, Level::Full, "nothing stands on nothing");
        }
        if inputs.asked == Some(Level::Full) {
            prop_assert_eq!(before.rule, Rule::AskedByOperator);
        }
        if after.level == Level::Differential {
            prop_assert!(!other && !gone);
        }
    }

    #[test]
    fn a_larger_history_never_turns_a_full_into_a_differential(inputs in any_inputs(), more in 0u64..1000) {
        let before = before_scan(&inputs);
        let grown = with_full(inputs, |full| full.differentials.iter_mut().for_each(|bytes| *bytes += more));
        if before.level == Level::Full {
            prop_assert_eq!(before_scan(&grown).level, Level::Full);
        }
    }
}
