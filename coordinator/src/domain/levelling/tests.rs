#![expect(clippy::unwrap_used, reason = "tests")]

use jiff::civil::date;
use proptest::prelude::*;

use super::*;
use crate::domain::schedule::Calendar;
use crate::domain::timing::Windows;

/// A Monday.
const TODAY: Date = date(2026, 11, 23);

fn on(day: i64) -> Date {
    TODAY.checked_add(day.days()).unwrap()
}

fn id(number: usize) -> JobId {
    JobId::from_uuid(uuid::Uuid::from_u128(number as u128 + 1))
}

/// A job that runs every night from `TODAY` on, whose last full was the night before.
fn nightly(number: usize, bytes: u64, cycle: u32) -> LevelledJob {
    LevelledJob {
        id: id(number),
        bytes,
        today: on(0),
        nights: (0..i64::from(MAX_NIGHTS)).map(on).collect(),
        until: on(i64::from(MAX_NIGHTS) - 1),
        last_full: Some(on(-1)),
        max_age_days: cycle,
        planned: None,
    }
}

/// What a plan leaves in the catalog.
fn keep(jobs: &mut [LevelledJob], plan: &Plan) {
    for placed in &plan.next {
        let job = jobs.iter_mut().find(|job| job.id == placed.job).unwrap();
        job.planned = Some(placed.night);
    }
}

fn nights(plan: &Plan) -> Vec<i32> {
    plan.next.iter().map(|placed| (placed.night - TODAY).get_days()).collect()
}

/// Whether the bound is promised: see the head of the module.
fn is_promised(jobs: &[LevelledJob], cycle: u32) -> bool {
    let total: u64 = jobs.iter().map(|job| job.bytes).sum();
    let base = total.div_ceil(u64::from(cycle)).max(jobs.iter().map(|job| job.bytes).max().unwrap_or(0));
    jobs.iter().filter(|job| job.bytes > base * 15 / 100).count() <= cycle as usize
}

#[test]
fn hosts_that_joined_on_one_day_are_spread_over_the_cycle() {
    let jobs: Vec<LevelledJob> = (0..70).map(|number| nightly(number, 100, 7)).collect();
    let plan = plan(&jobs);
    assert!(plan.is_within_bound(), "{plan:?}");
    assert_eq!((plan.bound, plan.nights.len()), (1150, 7));
    // Eleven a night from the latest on, as many as the bound allows, and the rest on the first.
    assert_eq!(plan.nights.values().copied().collect::<Vec<_>>(), [400, 1100, 1100, 1100, 1100, 1100, 1100]);
    assert!(plan.next.iter().all(|placed| (placed.placing == Placing::Latest) == (placed.night == on(6))));
}

#[test]
fn a_full_stays_where_it_was_planned_and_a_new_one_finds_room() {
    let mut jobs: Vec<LevelledJob> = (0..70).map(|number| nightly(number, 100, 7)).collect();
    let before = plan(&jobs);
    keep(&mut jobs, &before);
    jobs.push(nightly(70, 100, 7));
    let after = plan(&jobs);
    let moved: Vec<JobId> = after.next.iter().filter(|placed| placed.moved).map(|placed| placed.job).collect();
    assert_eq!(moved, [id(70)]);
    assert_eq!(after.next[70].night, on(0), "the night with room");
}

#[test]
fn one_large_full_has_a_night_to_itself() {
    let mut jobs: Vec<LevelledJob> = (0..60).map(|number| nightly(number, 10, 7)).collect();
    let before = plan(&jobs);
    keep(&mut jobs, &before);
    jobs.push(nightly(60, 1000, 7));
    let after = plan(&jobs);
    assert!(after.is_within_bound(), "{after:?}");
    assert_eq!(after.bound, 1150, "no night can carry less than the largest full");
    assert!(
        after.next.iter().filter(|placed| placed.moved).count() <= 1,
        "there was room for it beside what was planned"
    );
}

#[test]
fn two_large_fulls_on_one_night_are_spread_even_where_every_other_night_is_full() {
    // Two of 60 on the first night, and small ones up to 70 on each other: no single move helps.
    let mut jobs = vec![nightly(0, 60, 7), nightly(1, 60, 7)];
    for number in 2..44 {
        jobs.push(nightly(number, 10, 7));
    }
    for (number, job) in jobs.iter_mut().enumerate() {
        job.planned = Some(on(if number < 2 { 0 } else { 1 + i64::try_from(number - 2).unwrap() / 7 }));
    }
    let base = 540_u64.div_ceil(7);
    let plan = plan(&jobs);
    assert_eq!(plan.bound, base * 115 / 100);
    assert!(plan.is_within_bound(), "{plan:?}");
    assert_ne!(plan.next[0].night, plan.next[1].night);
}

#[test]
fn what_has_no_choice_says_so() {
    let first = LevelledJob { last_full: None, ..nightly(0, 10, 7) };
    let overdue = LevelledJob { last_full: Some(on(-9)), planned: Some(on(-2)), ..nightly(1, 10, 7) };
    let weekly = LevelledJob { nights: vec![on(6), on(13), on(20)], ..nightly(2, 10, 3) };
    let far = LevelledJob { ..nightly(3, 10, 365) };
    let nothing = LevelledJob { nights: vec![], ..nightly(4, 10, 7) };
    let old = LevelledJob { last_full: Some(on(-30)), ..nightly(5, 10, 7) };
    let plan = plan(&[first, overdue, weekly, far, nothing, old]);
    let said: Vec<_> = plan.next.iter().map(|placed| (placed.job, placed.night, placed.placing)).collect();
    assert_eq!(
        said,
        [
            (id(0), on(0), Placing::First),
            (id(1), on(-2), Placing::Overdue),
            (id(2), on(6), Placing::OnlyNight),
            (id(5), on(0), Placing::TooOld),
        ]
    );
    assert_eq!(plan.nights[&on(0)], 20);
    assert_eq!(plan.nights[&on(5)], 10, "what is overdue leaves its next full where it is");
}

#[test]
fn a_night_counts_once_however_often_a_job_runs_and_is_that_of_its_zone() {
    let nights = |cron: &str, zone: &str, now: &str| {
        let calendar = Calendar { cron: cron.parse().unwrap(), zone: zone.parse().unwrap() };
        nights_of(&Due::plain(&calendar, &Windows::default()), &[], now.parse().unwrap())
    };
    let (often, until) = nights("*/5 * * * *", "UTC", "2026-11-23T12:00:00Z");
    assert_eq!((often.len(), often[0], until), (93, on(0), on(92)));
    let (daily, _) = nights("0 2 * * *", "UTC", "2026-11-23T02:00:00Z");
    assert_eq!((daily.len(), daily[0]), (92, on(1)), "tonight's run is due already");
    let (auckland, _) = nights("0 2 * * *", "Pacific/Auckland", "2026-11-23T12:00:00Z");
    assert_eq!(auckland[0], on(1), "it is the day after there");
    let (skipped, _) = nights("30 2 * * *", "Europe/Berlin", "2027-03-26T12:00:00Z");
    assert_eq!(skipped[..3], [date(2027, 3, 27), date(2027, 3, 28), date(2027, 3, 29)]);
}

#[test]
fn no_full_is_planned_for_a_night_that_a_pause_holds_back() {
    let calendar = Calendar { cron: "0 2 * * *".parse().unwrap(), zone: "UTC".parse().unwrap() };
    let windows = Windows::default();
    let runs = Due::plain(&calendar, &windows);
    let at = |text: &str| -> jiff::Timestamp { text.parse().unwrap() };
    let now = at("2026-11-23T12:00:00Z");
    let pause = |from, until| Pause::of("host web-1", (at(from), until), "ada", "new disks");
    let short = pause("2026-11-24T00:00:00Z", Some(at("2026-11-27T02:00:00Z")));
    let longer = pause("2026-11-26T00:00:00Z", Some(at("2026-11-29T01:00:00Z")));
    let (nights, until) = nights_of(&runs, &[short.clone(), longer], now);
    assert_eq!((nights[0], nights[1], until), (on(6), on(7), on(92)), "they overlap, and end before Sunday's run");
    let job = LevelledJob { nights, until, planned: Some(on(3)), ..nightly(0, 10, 7) };
    let placed = plan(std::slice::from_ref(&job)).next[0];
    assert_eq!((placed.night, placed.moved), (on(6), true), "it finds a night after the pause");
    let endless = pause("2026-11-24T00:00:00Z", None);
    assert!(nights_of(&runs, &[short, endless], now).0.is_empty());
}

#[test]
fn fulls_follow_each_other_as_late_as_their_age_allows() {
    let weekdays: Vec<Date> = (0..28).map(on).filter(|day| day.weekday().to_monday_zero_offset() < 5).collect();
    let job = LevelledJob { nights: weekdays, until: on(27), ..nightly(0, 1, 6) };
    let days: Vec<i32> = fulls_from(&job, on(1)).iter().map(|night| (*night - TODAY).get_days()).collect();
    assert_eq!(days, [1, 7, 11, 17, 23], "on the weekday at or before the sixth night");
    let job = LevelledJob { max_age_days: 1, ..job };
    assert_eq!(fulls_from(&job, on(4)).len(), 16, "every run is a full, over weekends too");
}

/// Hosts of ordinary size, large ones and empty ones on a cycle of up to so many nights, some with a night planned before.
fn fleet(nights: u32, hosts: usize) -> impl Strategy<Value = (u32, Vec<LevelledJob>)> {
    let size = prop_oneof![4 => 1u64..1000, 1 => 1000u64..100_000, 1 => Just(0u64)];
    let sizes = prop::collection::vec((size, prop::option::of(0i64..40)), 1..hosts);
    (2..=nights, sizes).prop_map(|(cycle, sizes)| {
        let job = |(number, (bytes, planned)): (usize, (u64, Option<i64>))| LevelledJob {
            planned: planned.map(on),
            ..nightly(number, bytes, cycle)
        };
        (cycle, sizes.into_iter().enumerate().map(job).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_night_carries_more_than_the_bound((cycle, jobs) in fleet(30, 100)) {
        let plan = plan(&jobs);
        if is_promised(&jobs, cycle) {
            prop_assert!(plan.is_within_bound(), "{:?} {}", plan.nights, plan.bound);
        }
        let total: u64 = jobs.iter().map(|job| job.bytes).sum();
        prop_assert_eq!(plan.nights.values().sum::<u64>(), total, "every full is taken once a cycle");
        prop_assert_eq!(plan.next.len(), jobs.len());
        for (placed, job) in plan.next.iter().zip(&jobs) {
            prop_assert!(placed.night >= TODAY && placed.night <= on(i64::from(job.max_age_days) - 1), "never too late");
        }
    }

    #[test]
    fn a_plan_stands_until_something_changes((_, mut jobs) in fleet(30, 50), turn in 0usize..100) {
        let first = plan(&jobs);
        let turn = turn % jobs.len();
        jobs.rotate_left(turn);
        prop_assert_eq!(&plan(&jobs), &first, "the order of the jobs says nothing");
        keep(&mut jobs, &first);
        let again = plan(&jobs);
        prop_assert!(again.next.iter().all(|placed| !placed.moved));
        prop_assert_eq!(nights(&again), nights(&first));
    }

    #[test]
    fn a_new_host_of_ordinary_size_moves_nobody((cycle, mut jobs) in fleet(30, 50), bytes in 1u64..1000) {
        let before = plan(&jobs);
        keep(&mut jobs, &before);
        jobs.push(nightly(jobs.len(), bytes, cycle));
        let after = plan(&jobs);
        if before.is_within_bound() && bytes * 100 <= before.bound * 100 / u64::from(BOUND_PERCENT) * 15 {
            prop_assert!(after.is_within_bound());
            prop_assert!(after.next.iter().all(|placed| placed.moved == (placed.job == id(jobs.len() - 1))));
        }
    }

}

proptest! {
    // Each case is a plan for every night of three cycles.
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn night_after_night_fulls_come_in_time_and_stay_level((cycle, mut jobs) in fleet(8, 30), newcomers in 0usize..5) {
        let promised = is_promised(&jobs, cycle);
        for day in 0..i64::from(cycle) * 3 {
            for job in &mut jobs {
                job.nights = (day..day + i64::from(MAX_NIGHTS)).map(on).collect();
                job.until = on(day + i64::from(MAX_NIGHTS) - 1);
            }
            let tonight = plan(&jobs);
            if promised && newcomers == 0 {
                prop_assert!(tonight.is_within_bound(), "night {day}");
            }
            keep(&mut jobs, &tonight);
            for job in jobs.iter_mut().filter(|job| job.planned.is_some_and(|planned| planned <= on(day))) {
                if let Some(last) = job.last_full {
                    prop_assert!((on(day) - last).get_days() <= job.max_age_days.cast_signed(), "a full came late");
                }
                job.last_full = Some(on(day));
            }
            if day < newcomers as i64 {
                jobs.push(LevelledJob { last_full: None, ..nightly(jobs.len(), 500, cycle) });
            }
        }
    }
}
