#![expect(clippy::unwrap_used, reason = "tests")]

use jiff::ToSpan;
use jiff::civil::Weekday;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::schedule::Zone;

const ZONES: [&str; 4] = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"];

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    name.parse::<Zone>().unwrap().rules().clone()
}

fn allowed(windows: &[&str]) -> Windows {
    Windows { allowed: windows.iter().map(|window| window.parse().unwrap()).collect(), blackout: Vec::new() }
}

fn policy(lines: &str) -> Policy {
    Policy::parse(&format!("name = \"web\"\nhosts = \"role=web\"\nsources = [\"/etc\"]\n{lines}\n")).unwrap()
}

fn daily() -> Calendar {
    Calendar { cron: "0 2 * * *".parse().unwrap(), zone: Zone::utc() }
}

/// Steps by the daily calendar of a policy without windows.
fn stepped(catch_up: CatchUp, pauses: &[Pause], first: &str, now: &str) -> Step {
    let (calendar, windows) = (daily(), Windows::default());
    let due = Due::plain(&calendar, &windows);
    let holds = Holds { windows: &windows, zone: due.zone(), pauses };
    step(&due, &holds, &Timing { catch_up, ..Timing::default() }, at(first), at(now))
}

fn runs(step: &Step) -> Vec<Timestamp> {
    step.rows.iter().filter(|row| row.missed.is_none()).map(|row| row.due_at).collect()
}

#[test]
fn a_window_goes_by_the_clock_on_the_wall_over_midnight_and_over_changes() {
    let nights = allowed(&["mon-fri 22:00-02:30"]);
    let berlin = zone("Europe/Berlin");
    let open = |text: &str| nights.allows(at(text), &berlin);
    assert!(open("2026-11-27T21:00:00Z"), "Friday 22:00");
    assert!(open("2026-11-28T01:29:59Z"), "Saturday 02:29 belongs to Friday's window");
    assert!(!open("2026-11-28T01:30:00Z") && !open("2026-11-28T21:00:00Z"), "Saturday has none");
    // On Sunday 31 October 2027 the hour from 02:00 comes twice; the window of the Saturday before does not exist.
    let every = allowed(&["22:00-02:30"]);
    assert!(every.allows(at("2027-10-31T00:15:00Z"), &berlin) && every.allows(at("2027-10-31T01:15:00Z"), &berlin));
    assert!(!every.allows(at("2027-10-31T00:45:00Z"), &berlin), "between the two passes it is closed");
    assert_eq!(every.opens_at(at("2027-10-31T00:45:00Z"), &berlin), Some(at("2027-10-31T01:00:00Z")));
    // On 28 March 2027 the wall goes from 02:00 to 03:00: the window ends with the change.
    assert_eq!(every.closes_at(at("2027-03-28T00:30:00Z"), &berlin), Some(at("2027-03-28T01:00:00Z")));
    let skipped = allowed(&["sun 02:00-03:00"]);
    assert_eq!(skipped.opens_at(at("2027-03-27T12:00:00Z"), &berlin), Some(at("2027-04-04T00:00:00Z")), "a week later");
    assert_eq!(allowed(&["00:00-24:00"]).closes_at(at("2027-03-27T12:00:00Z"), &berlin), None, "it never closes");
}

#[test]
fn openings_and_closings_are_those_of_a_watcher_who_looks_at_the_wall_every_minute() {
    let windows = allowed(&["mon-fri 20:15-02:30", "sat 00:00-24:00", "sun 02:10-02:50"]);
    for name in ZONES {
        let zone = zone(name);
        for change in zone.following(at("2026-01-01T00:00:00Z")).take(4) {
            let middle = change.timestamp().as_second() / 60;
            let stamp = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
            let open: Vec<bool> =
                (middle - 4000..middle + 12_000).map(|minute| windows.allows(stamp(minute), &zone)).collect();
            let mut next = open.len();
            // From the back: where the answer changes next.
            for index in (0..open.len() - 1).rev() {
                if open[index + 1] != open[index] {
                    next = index + 1;
                }
                if next < open.len() {
                    let (from, found) = (stamp(middle - 4000 + index as i64), stamp(middle - 4000 + next as i64));
                    let told = if open[index] { windows.closes_at(from, &zone) } else { windows.opens_at(from, &zone) };
                    assert_eq!(told, Some(found), "{name} from {from}");
                }
            }
        }
    }
}

#[test]
fn windows_that_cannot_be_are_refused_in_words() {
    for (text, part) in [
        ("", "days and times"),
        ("mon-fri", "begins at no time"),
        ("20:00", "not from when to when"),
        ("20:00-20:00", "empty"),
        ("24:00-06:00", "begins at no time"),
        ("20:00-25:00", "ends at no time"),
        ("8:00-9:00", "begins at no time"),
        ("20:00-06:60", "ends at no time"),
        ("monday 20:00-06:00", "'monday' is no day"),
        ("mon,mon 20:00-06:00", "named twice"),
        ("sat-mon,sun 20:00-06:00", "sun is named twice"),
        ("mon 20:00-06:00 daily", "days and times"),
        ("\u{1b}[2J 20:00-06:00", "is no day"),
    ] {
        let error = text.parse::<Window>().unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\u{1b}'), "{text}: {error}");
    }
    let overlap = |windows: &[&str]| Windows::overlapping(&allowed(windows).allowed).is_some();
    assert!(overlap(&["mon 20:00-06:00", "tue 05:00-07:00"]), "over midnight");
    assert!(overlap(&["sun 20:00-06:00", "mon 00:00-01:00"]), "over the end of the week");
    assert!(overlap(&["fri-mon 10:00-11:00", "sun 10:30-12:00"]));
    assert!(!overlap(&["mon-fri 20:00-06:00", "sat,sun 06:00-20:00"]) && !overlap(&["00:00-24:00"]));
    assert!(!overlap(&["20:00-24:00", "00:00-06:00"]), "one ends where the other begins");
}

#[test]
fn a_backup_is_overdue_when_two_due_times_have_gone_by() {
    let (calendar, windows) = (daily(), Windows::default());
    let daily = Due::plain(&calendar, &windows);
    let captured = at("2026-11-20T02:10:00Z");
    assert!(!daily.is_overdue(captured, at("2026-11-21T23:00:00Z")), "the next one may still be running");
    assert!(daily.is_overdue(captured, at("2026-11-22T02:00:00Z")));
}

#[test]
fn what_windows_and_blackouts_hold_back_makes_no_backup_overdue() {
    let policy = policy(
        "schedule = { cron = \"0 */6 * * *\" }\n\
         windows = { allowed = [\"20:00-06:00\"], blackout = [{ from = \"2026-12-24\", to = \"2026-12-26\", reason = \"r\" }] }",
    );
    let due = Due::of_policy(&policy);
    let overdue = |captured, now| due.is_overdue(at(captured), at(now));
    assert!(!overdue("2026-11-21T00:10:00Z", "2026-11-21T23:00:00Z"), "noon and evening are outside the window");
    assert!(overdue("2026-11-21T00:10:00Z", "2026-11-23T00:00:00Z"), "two nights have gone by");
    assert!(!overdue("2026-12-23T00:10:00Z", "2026-12-27T12:00:00Z"), "the blackout let none begin");
}

#[test]
fn a_run_that_is_seen_late_may_begin_until_the_window_that_is_open_then_closes() {
    let policy = policy("schedule = { cron = \"0 2 * * *\" }\nwindows = { allowed = [\"20:00-06:00\"] }");
    let due = Due::of_policy(&policy);
    let holds = Holds { windows: &policy.timing.windows, zone: due.zone(), pauses: &[] };
    let (begun, now) = (at("2026-11-21T02:00:00Z"), at("2026-11-21T20:30:00Z"));
    let step = step(&due, &holds, &policy.timing, begun, now);
    assert_eq!((runs(&step), step.owing), (vec![begun], Owing::Settled));
    assert_eq!(start_of(&holds, &policy.timing, begun, now).by, Some(at("2026-11-22T06:00:00Z")));
}

#[test]
fn a_run_that_is_seen_when_its_delay_is_over_is_missed_however_short_the_delay_is() {
    let (calendar, windows) = (daily(), Windows::default());
    let due = Due::plain(&calendar, &windows);
    let holds = Holds { windows: &windows, zone: due.zone(), pauses: &[] };
    let timing = Timing { max_start_delay_s: Some(60), ..Timing::default() };
    let step = step(&due, &holds, &timing, at("2026-11-21T02:00:00Z"), at("2026-11-21T02:01:00Z"));
    assert_eq!(step.rows[0].missed.as_deref(), Some("no coordinator was running when it was due nor 1m later"));
}

#[test]
fn what_makes_up_for_a_blackout_is_spread_over_the_jitter_and_not_past_the_next_closing() {
    let policy = policy(
        "schedule = { cron = \"0 2 * * *\", jitter = \"4h\" }\n\
         windows = { allowed = [\"00:00-06:00\"], blackout = [{ from = \"2026-12-24\", to = \"2026-12-26 03:00\", reason = \"r\" }] }",
    );
    let (opens, closes) = (at("2026-12-26T03:00:00Z"), at("2026-12-26T06:00:00Z"));
    let mut hours = [0; 3];
    for number in 0..300 {
        let due = Due::backups(&policy, HostId::from_uuid(Uuid::from_u128(number)));
        let holds = Holds { windows: &policy.timing.windows, zone: due.zone(), pauses: &[] };
        let first = due.next_after(at("2026-12-26T00:00:00Z")).unwrap();
        let step = step(&due, &holds, &policy.timing, first, first);
        let Owing::More { from, .. } = step.owing else { panic!("{step:?}") };
        assert!(opens <= from && from < closes, "{from}");
        assert_eq!(due.making_up(&holds, first, opens), from, "the same whoever asks");
        assert_eq!(due.making_up(&holds, from, from), from, "what has come is not put off again");
        hours[(from.duration_since(opens).as_hours()) as usize] += 1;
    }
    assert!(hours.iter().all(|there| (60..140).contains(there)), "{hours:?}");
}

#[test]
fn after_an_absence_the_latest_runs_and_the_older_ones_are_missed() {
    let caught = stepped(CatchUp::Latest, &[], "2026-11-21T02:00:00Z", "2026-11-23T12:00:00Z");
    assert_eq!(runs(&caught), [at("2026-11-23T02:00:00Z")]);
    assert_eq!((caught.rows.len(), &caught.owing, caught.more), (3, &Owing::Settled, false));
    assert!(caught.rows[0].missed.as_ref().unwrap().contains("a later one is due as well"));
    assert_eq!(caught.done_until, at("2026-11-23T12:00:00Z"));
}

#[test]
fn after_an_absence_all_are_made_up_for_or_none_if_the_policy_says_so() {
    let all = stepped(CatchUp::All, &[], "2026-11-21T02:00:00Z", "2026-11-23T12:00:00Z");
    assert_eq!(runs(&all), [at("2026-11-23T02:00:00Z")]);
    assert!(matches!(all.owing, Owing::More { runs: 2, most: MAX_OWED, .. }), "{all:?}");
    let none = stepped(CatchUp::None, &[], "2026-11-21T02:00:00Z", "2026-11-23T12:00:00Z");
    assert_eq!((runs(&none).len(), none.rows.len(), none.owing), (0, 3, Owing::Unchanged));
    assert!(none.rows[2].missed.as_ref().unwrap().contains("makes up for none"));
    let punctual = stepped(CatchUp::None, &[], "2026-11-23T02:00:00Z", "2026-11-23T02:00:02Z");
    assert_eq!(runs(&punctual), [at("2026-11-23T02:00:00Z")], "what is on time is nothing to make up for");
}

#[test]
fn a_long_absence_is_dealt_with_in_bounded_steps_and_one_run() {
    let calendar = Calendar { cron: "* * * * *".parse().unwrap(), zone: Zone::utc() };
    let windows = Windows::default();
    let due = Due::plain(&calendar, &windows);
    let holds = Holds { windows: &windows, zone: due.zone(), pauses: &[] };
    let now = at("2026-11-23T12:00:30Z");
    let mut first = at("2026-11-21T12:01:00Z");
    let (mut missed, mut begun) = (0, Vec::new());
    loop {
        let step = step(&due, &holds, &Timing::default(), first, now);
        assert!(step.rows.len() <= MAX_ROWS);
        begun.extend(runs(&step));
        missed += step.rows.iter().filter(|row| row.missed.is_some()).count();
        if !step.more {
            break;
        }
        first = due.next_after(step.done_until).unwrap();
    }
    assert_eq!((missed, begun), (2 * 24 * 60 - 1, vec![at("2026-11-23T12:00:00Z")]));
}

#[test]
fn a_run_that_is_paused_when_it_is_due_is_missed_with_that_reason_and_owed_from_the_end_of_the_pause() {
    let pause =
        Pause { from: at("2026-11-20T12:00:00Z"), until: at("2026-11-24T12:00:00Z"), why: "paused by ada".into() };
    let held = stepped(CatchUp::Latest, std::slice::from_ref(&pause), "2026-11-21T02:00:00Z", "2026-11-21T02:00:01Z");
    assert_eq!(held.rows, [Row { due_at: at("2026-11-21T02:00:00Z"), missed: Some("paused by ada".into()) }]);
    let Owing::More { runs, from, why, .. } = held.owing else { panic!("{held:?}") };
    assert_eq!((runs, from, why.as_str()), (1, pause.until, "paused by ada"));
}

#[test]
fn a_pause_holds_what_is_due_in_it_and_one_without_an_end_says_so() {
    let (calendar, windows) = (daily(), Windows::default());
    let due = Due::plain(&calendar, &windows);
    let (from, until) = (at("2026-11-20T12:00:00Z"), at("2026-11-22T06:00:00Z"));
    let ending = Pause::of("host web-1", (from, Some(until)), "ada", "new disks");
    let endless = Pause::of("the fleet", (at("2026-11-22T05:00:00Z"), None), "bob", "a move");
    assert_eq!(ending.why, "host web-1 is paused until 2026-11-22 06:00 UTC, by ada: new disks");
    assert_eq!(endless.why, "the fleet is paused until it is resumed, by bob: a move");
    assert_eq!((ending.ends_at(), endless.ends_at()), (Some(until), None));
    let alone = Holds { windows: &windows, zone: due.zone(), pauses: std::slice::from_ref(&ending) };
    assert_eq!((alone.at(from), alone.at(until)), (Some(ending.why.clone()), None));
    assert_eq!(alone.opens_at(from), Some(until));
    // They overlap: the second one holds what the first one lets go.
    let pauses = [ending.clone(), endless];
    let both = Holds { pauses: &pauses, ..alone };
    assert_eq!(both.opens_at(from), None, "nobody knows when");
    let seen = ahead((&due, &both, CatchUp::All), None, from, at("2026-11-25T00:00:00Z"), 9);
    assert!(seen.len() == 4 && seen.iter().all(|due| matches!(due.kind, Kind::Held(_))), "{seen:?}");
    let seen = ahead((&due, &alone, CatchUp::Latest), None, from, at("2026-11-23T00:00:00Z"), 9);
    let stands_for = at("2026-11-22T02:00:00Z");
    assert_eq!(seen.last(), Some(&Ahead { at: until, stands_for, kind: Kind::CatchUp }), "{seen:?}");
}

#[test]
fn what_nobody_saw_for_longer_than_its_delay_is_missed_and_not_made_up_for() {
    let (calendar, windows) = (daily(), Windows::default());
    let due = Due::plain(&calendar, &windows);
    let holds = Holds { windows: &windows, zone: due.zone(), pauses: &[] };
    let timing = Timing { max_start_delay_s: Some(7200), ..Timing::default() };
    let begun = at("2026-11-21T02:00:00Z");
    let late = |now: &str| step(&due, &holds, &timing, begun, at(now));
    assert_eq!(runs(&late("2026-11-21T03:59:00Z")), [begun]);
    let missed = late("2026-11-21T04:00:00Z");
    assert_eq!((runs(&missed).len(), missed.owing), (0, Owing::Unchanged));
    assert_eq!(missed.rows[0].missed.as_deref(), Some("no coordinator was running when it was due nor 2h later"));
}

#[test]
fn a_run_waits_no_longer_than_its_delay_nor_than_its_window_and_blackouts_let_it() {
    let policy = policy(
        "schedule = { cron = \"0 22 * * *\", max_start_delay = \"6h\", max_duration = \"4h\" }\n\
         windows = { allowed = [\"20:00-06:00\"], blackout = [{ from = \"2026-12-24\", to = \"2026-12-26\", reason = \"closing\" }] }",
    );
    let due = Due::of_policy(&policy);
    let holds = Holds { windows: &policy.timing.windows, zone: due.zone(), pauses: &[] };
    let start = start_of(&holds, &policy.timing, at("2026-11-21T22:00:00Z"), at("2026-11-21T22:00:01Z"));
    assert_eq!((start.by, start.closes_at), (Some(at("2026-11-22T04:00:00Z")), Some(at("2026-11-22T06:00:00Z"))));
    assert_eq!((start.late.as_str(), start.max_duration_s), ("it did not begin within 6h of being due", Some(14_400)));
    let start = start_of(&holds, &policy.timing, at("2026-12-23T22:00:00Z"), at("2026-12-23T22:00:01Z"));
    assert_eq!(start.by, Some(at("2026-12-24T00:00:00Z")));
    assert_eq!(start.late, "it did not begin before a blackout began: closing");
    assert_eq!(holds.at(at("2026-12-26T23:59:00Z")).unwrap(), "blackout until 2026-12-27 00:00: closing", "whole days");
    assert_eq!(holds.opens_at(at("2026-12-24T01:00:00Z")), Some(at("2026-12-27T00:00:00Z")));
    assert_eq!(holds.opens_at(at("2026-12-24T12:00:00Z")), Some(at("2026-12-27T00:00:00Z")));
}

#[test]
fn what_lies_ahead_names_the_runs_that_will_be_missed_and_the_one_that_makes_up_for_them() {
    let policy = policy(
        "schedule = { cron = \"0 2 * * *\" }\n\
         windows = { blackout = [{ from = \"2026-12-24 18:00\", to = \"2026-12-26 18:00\", reason = \"closing\" }] }",
    );
    let due = Due::of_policy(&policy);
    let holds = Holds { windows: &policy.timing.windows, zone: due.zone(), pauses: &[] };
    let (now, until) = (at("2026-12-23T12:00:00Z"), at("2026-12-28T00:00:00Z"));
    let told = |rule, owed: Option<(u32, Timestamp)>| -> Vec<(String, Kind)> {
        let found = ahead((&due, &holds, rule), owed, now, until, 100);
        found.into_iter().map(|due| (due.at.strftime("%d %H:%M").to_string(), due.kind)).collect()
    };
    let held = || Kind::Held("blackout until 2026-12-26 18:00: closing".into());
    let day = |text: &str, kind| (text.to_owned(), kind);
    let latest = [
        day("24 02:00", Kind::Run),
        day("25 02:00", held()),
        day("26 02:00", held()),
        day("26 18:00", Kind::CatchUp),
        day("27 02:00", Kind::Run),
    ];
    assert_eq!(told(CatchUp::Latest, None), latest);
    assert_eq!(told(CatchUp::All, None).iter().filter(|(_, kind)| *kind == Kind::CatchUp).count(), 2);
    assert_eq!(told(CatchUp::None, None).len(), 4);
    let owed = Some((1, at("2026-12-23T02:00:00Z")));
    assert_eq!(told(CatchUp::Latest, owed)[0], day("23 12:00", Kind::CatchUp), "what is owed begins at once");
}

#[test]
fn a_run_is_for_the_day_that_it_is_due_on_wherever_the_jitter_moves_it() {
    let late = policy("schedule = { cron = \"30 23 * * *\", zone = \"Europe/Berlin\", jitter = \"2h\" }");
    let sunday = at("2026-11-22T22:30:00Z");
    for number in 0..50 {
        let due = Due::backups(&late, HostId::from_uuid(Uuid::from_u128(number)));
        let moved = due.next_after(sunday - 1.nanosecond()).unwrap();
        assert_eq!(due.plain_of(moved), sunday, "{moved}");
        // A run that waited from Sunday until Wednesday noon stands for those of Monday and Tuesday too.
        let noon = at("2026-11-25T11:00:00Z");
        let newest = |wanted: fn(Date) -> bool| due.newest_while_waiting(moved, noon, wanted);
        assert_eq!(newest(|_| true), Some(at("2026-11-24T22:30:00Z")));
        assert_eq!(newest(|day| day.weekday() == Weekday::Monday), Some(at("2026-11-23T22:30:00Z")));
        assert_eq!(newest(|day| day.weekday() == Weekday::Sunday), None, "its own is not one of them");
    }
    let due = Due::of_policy(&late);
    assert_eq!(due.plain_of(at("2026-11-22T12:00:00Z")), at("2026-11-22T12:00:00Z"), "another calendar's");
}

#[test]
fn what_a_resume_lets_go_begins_over_the_jitter_and_before_anything_closes() {
    let (resumed, windows) = (at("2026-11-25T10:00:00Z"), allowed(&["08:00-10:30"]));
    let begins = |jitter: &str, windows: &Windows, now: Timestamp| -> Vec<Timestamp> {
        let policy = policy(&format!("schedule = {{ cron = \"0 2 * * *\", jitter = \"{jitter}\" }}"));
        let begins = |number: u128| {
            let due = Due::backups(&policy, HostId::from_uuid(Uuid::from_u128(number)));
            due.making_up_since(&Holds { windows, zone: due.zone(), pauses: &[] }, resumed, now)
        };
        (0..600).map(begins).collect()
    };
    let in_ten_minutes = |begins: &[Timestamp], number: i64| {
        let from = resumed + (10 * number).minutes();
        begins.iter().filter(|at| (from..from + 10.minutes()).contains(*at)).count()
    };
    let hour = begins("1h", &Windows::default(), resumed);
    assert!((0..6).all(|number| (60..140).contains(&in_ten_minutes(&hour, number))), "{hour:?}");
    let closing = begins("1h", &windows, resumed);
    assert!(closing.iter().all(|at| (resumed..resumed + 30.minutes()).contains(at)), "the window closes at 10:30");
    assert!((0..3).all(|number| (140..260).contains(&in_ten_minutes(&closing, number))), "{closing:?}");
    // Looked at later, who had a share that is over begins at once, and nobody later than before.
    let later = resumed + 20.minutes();
    let again = begins("1h", &Windows::default(), later);
    assert!(hour.iter().zip(&again).all(|(first, again)| *again == (*first).max(later)));
}

#[test]
fn hosts_are_spread_over_the_jitter_and_each_keeps_its_place() {
    let policy = policy("schedule = { cron = \"0 2 * * *\", jitter = \"1h\" }");
    let minute = |number: u128, day: i64| {
        let from = at("2026-11-21T00:00:00Z") + (day * 24).hours();
        let due = Due::backups(&policy, HostId::from_uuid(Uuid::from_u128(number))).next_after(from).unwrap();
        (due.as_second() - at("2026-11-21T02:00:00Z").as_second() - day * 86_400) / 60
    };
    let minutes: Vec<i64> = (0..600).map(|number| minute(number, 0)).collect();
    assert!(minutes.iter().all(|minute| (0..60).contains(minute)), "{minutes:?}");
    for tenth in 0..6 {
        let there = minutes.iter().filter(|minute| **minute / 10 == tenth).count();
        assert!((60..140).contains(&there), "{there} of 600 in the minutes from {}", tenth * 10);
    }
    assert!((0..20).all(|number| minute(number, 0) == minute(number, 17)), "the same every night");
}

/// Any policy of a few shapes.
fn any_policy() -> impl Strategy<Value = Policy> {
    let crons = ["30 2 * * *", "0 * * * *", "15 0,12 * * 1-5", "0 22 * * *", "*/20 1-4 * * *"];
    let windows = [
        "",
        "\"22:00-06:00\"",
        "\"mon-fri 20:00-04:30\", \"sat 05:00-24:00\"",
        "\"01:00-03:00\", \"11:00-13:00\", \"21:30-22:30\"",
    ];
    (0..crons.len(), 0..windows.len(), 0..ZONES.len(), 0..4usize, any::<bool>()).prop_map(
        move |(c, w, z, j, blackout)| {
            let jitter = ["", ", jitter = \"1m\"", ", jitter = \"15m\"", ", jitter = \"20m\""][j];
            let blackout = if blackout {
                "blackout = [{ from = \"2027-03-26\", to = \"2027-03-29 12:00\", reason = \"r\" }]"
            } else {
                ""
            };
            let allowed = if windows[w].is_empty() { String::new() } else { format!("allowed = [{}]", windows[w]) };
            let keys =
                [allowed.as_str(), blackout].into_iter().filter(|key| !key.is_empty()).collect::<Vec<_>>().join(", ");
            let keys = if keys.is_empty() { String::new() } else { format!("windows = {{ {keys} }}") };
            policy(&format!("schedule = {{ cron = \"{}\", zone = \"{}\"{jitter} }}\n{keys}", crons[c], ZONES[z]))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_run_is_outside_its_window_and_jitter_is_bounded_and_keeps_the_order(
        policy in any_policy(), host in any::<u128>(), hour in 0i64..24 * 14,
    ) {
        let host = HostId::from_uuid(Uuid::from_u128(host));
        let (due, plain) = (Due::backups(&policy, host), &policy.schedule);
        let holds = Holds { windows: &policy.timing.windows, zone: due.zone(), pauses: &[] };
        let from = at("2027-03-20T00:00:00Z") + hour.hours();
        let mut expected = plain.next_after(from - 1.hours()).unwrap();
        let mut found = due.next_after(expected - 1.nanoseconds()).unwrap();
        for _ in 0..40 {
            let moved = found.duration_since(expected);
            prop_assert!(!moved.is_negative() && (moved.is_zero() || moved < SignedDuration::from_secs(policy.timing.jitter_s.into())), "{expected} {found}");
            prop_assert!(holds.at(expected).is_some() || holds.at(found).is_none(), "{found} was moved out of its window");
            prop_assert_eq!(due.next_after(found - 1.nanoseconds()), Some(found), "the same from wherever one looks");
            let next = plain.next_after(expected).unwrap();
            prop_assert!(found < next, "{found} was moved past {next}");
            let after = due.next_after(found).unwrap();
            prop_assert!(after >= next);
            (expected, found) = (next, after);
        }
        let run = due.next_run_after(from).unwrap();
        prop_assert_eq!(holds.at(run), None);
    }

    #[test]
    fn a_due_instant_is_a_run_or_a_missed_one_whenever_somebody_looks(
        policy in any_policy(),
        rule in 0usize..3,
        delay in proptest::option::of(60u32..20_000),
        looks in proptest::collection::vec(1i64..3000, 1..25),
        pause in proptest::option::of((0i64..20_000, 1i64..10_000)),
    ) {
        let mut policy = policy;
        (policy.timing.catch_up, policy.timing.max_start_delay_s) = (CatchUp::ALL[rule], delay);
        let begin = at("2027-03-20T00:00:00Z");
        let pauses: Vec<Pause> = pause.into_iter().map(|(from, length)| Pause {
            from: begin + from.minutes(), until: begin + (from + length).minutes(), why: "paused".into(),
        }).collect();
        let due = Due::backups(&policy, HostId::from_uuid(Uuid::from_u128(7)));
        let holds = Holds { windows: &policy.timing.windows, zone: due.zone(), pauses: &pauses };
        let (mut now, mut pointer, mut rows) = (begin, due.next_after(begin).unwrap(), Vec::new());
        for look in looks {
            now += look.minutes();
            while pointer <= now {
                let step = step(&due, &holds, &policy.timing, pointer, now);
                let run = step.rows.iter().filter(|row| row.missed.is_none());
                prop_assert!(run.clone().all(|row| holds.at(row.due_at).is_none() && holds.at(now).is_none()));
                for row in run.clone() {
                    let start = start_of(&holds, &policy.timing, row.due_at, now);
                    prop_assert!(start.by.into_iter().chain(start.closes_at).all(|end| end > now), "{row:?} cannot begin at {now}: {start:?}");
                }
                prop_assert!(run.count() <= 1 && step.rows.iter().all(|row| row.missed.as_deref() != Some("")));
                if let Owing::More { runs, most, from, .. } = step.owing {
                    prop_assert!(runs > 0 && runs <= most && holds.at(from).is_none());
                }
                pointer = due.next_after(step.done_until).unwrap();
                rows.extend(step.rows);
            }
        }
        let seen: Vec<Timestamp> = rows.iter().map(|row| row.due_at).collect();
        let all: Vec<Timestamp> = std::iter::successors(due.next_after(begin), |at| due.next_after(*at)).take_while(|at| *at <= now).collect();
        prop_assert_eq!(seen, all, "each once, and none lost");
    }
}
