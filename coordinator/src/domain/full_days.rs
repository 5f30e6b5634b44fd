//! Whether the day of the full that a policy names ever comes.

use jiff::Timestamp;

use super::policy::{Finding, FullDay, Policy, weekday_name};

/// Due instants looked through: eleven years of a daily schedule.
const MAX_DUE_TIMES: usize = 4000;

/// That no run is ever due on the day of the full, if so: fulls are then taken by age alone. Jitter and late starts change nothing, since
/// a run is of the day that the calendar says.
pub fn finding(policy: &Policy, now: Timestamp) -> Option<Finding> {
    let FullDay::Weekly(day) = policy.full.day else { return None };
    let zone = policy.schedule.zone.rules();
    let due = std::iter::successors(policy.schedule.next_after(now), |due| policy.schedule.next_after(*due));
    let mut days = due.take(MAX_DUE_TIMES).map(|due| due.to_zoned(zone.clone()).date().weekday()).peekable();
    let first = *days.peek()?;
    if days.any(|due| due == day) {
        return None;
    }
    Some(Finding {
        key: "full.day".to_owned(),
        message: format!(
            "no run is ever due on a {}, so the day of the full never comes: a full is taken only when the newest is older than \
             {} days",
            weekday_name(day),
            policy.full.max_age_days
        ),
        hint: format!("name a day on which runs are due, such as full = {{ day = \"{}\" }}", weekday_name(first)),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use coord_shared::ids::{BackupId, HostId};
    use coord_shared::level::Level;
    use jiff::civil::Date;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::decision::{FullFacts, Inputs, Rules};
    use crate::domain::forecast::{Forecast, forecast};
    use crate::domain::rates::Rates;
    use crate::domain::timing::{self, Due, Holds, Kind};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn found(lines: &str) -> Option<Finding> {
        let policy = Policy::parse(&format!("name = \"web\"\nhosts = \"role=web\"\nsources = [\"/etc\"]\n{lines}\n"));
        finding(&policy.unwrap(), "2026-11-26T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_day_of_the_full_on_which_no_run_is_due_is_told() {
        let on_weekdays = found("schedule = { cron = \"0 2 * * 1-5\" }").unwrap();
        assert!(on_weekdays.message.starts_with("no run is ever due on a sunday, "), "{on_weekdays:?}");
        assert_eq!(on_weekdays.hint, "name a day on which runs are due, such as full = { day = \"thursday\" }");
        assert_eq!(found("schedule = { cron = \"0 2 * * 1-5\" }\nfull = { day = \"friday\" }"), None);
        assert_eq!(found("schedule = { cron = \"0 2 * * 1-5\" }\nfull = { day = \"levelled\" }"), None);
        assert_eq!(found(""), None);
        let late = "schedule = { cron = \"30 23 * * 0\", jitter = \"2h\" }";
        assert_eq!(found(late), None, "most hosts begin it on a monday, and it is sunday's all the same");
        assert_eq!(found("schedule = { cron = \"*/5 8-18 * * 1-5\" }\nfull = { day = \"monday\" }"), None);
        let berlin = "zone = \"Europe/Berlin\"";
        assert_eq!(
            found(&format!("schedule = {{ cron = \"30 0 * * 0\", {berlin} }}")),
            None,
            "sunday there, though saturday in UTC"
        );
    }

    /// The runs of eight weeks, each begun late by a part of the time that it has before the next one; with the days they are for.
    fn eight_weeks(policy: &Policy, host: u128, late_percent: u32) -> Vec<(Forecast, Date)> {
        let due = Due::backups(policy, HostId::from_uuid(Uuid::from_u128(host)));
        let holds = Holds { windows: &policy.timing.windows, zone: due.zone(), pauses: &[] };
        let (now, until) = (at("2026-10-01T12:00:00Z"), at("2026-11-26T12:00:00Z"));
        let mut ahead = timing::ahead((&due, &holds, policy.timing.catch_up), None, now, until, 2000);
        ahead.retain(|run| !matches!(run.kind, Kind::Held(_)));
        let begins: Vec<Timestamp> = ahead.iter().map(|run| run.at).chain([until]).collect();
        for (run, pair) in ahead.iter_mut().zip(begins.windows(2)) {
            run.at = pair[0] + pair[1].duration_since(pair[0]) * i32::try_from(late_percent).unwrap() / 100;
        }
        let known = Inputs {
            now: now.to_zoned(due.zone().clone()),
            due: None,
            asked: None,
            rules: Rules::of(policy),
            full: Some(FullFacts {
                backup: BackupId::from_uuid(Uuid::nil()),
                captured_at: at("2026-09-20T12:00:00Z"),
                source_bytes: 1000,
                stored_bytes: 400,
                differentials: vec![1],
            }),
            full_of_other_selection: false,
            full_damaged: false,
            planned_full: None,
            rates: Rates::default(),
        };
        let days: Vec<Date> = ahead.iter().map(|run| run.stands_for.to_zoned(due.zone().clone()).date()).collect();
        forecast(&known, None, &[], &ahead).into_iter().zip(days).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever the jitter, the windows and the hosts do: each day of the full on which a run is due, or of which one is made up
        /// for, has one full, and no other day has any.
        #[test]
        fn each_day_of_the_full_that_has_a_run_has_exactly_one_full(
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"]),
            cron in prop::sample::select(vec!["30 23 * * *", "0 0 * * *", "15 */6 * * *", "0 2 * * 1-5", "45 23 * * 0,3"]),
            windows in prop::sample::select(vec![
                "", "allowed = [\"20:00-06:00\"]", "allowed = [\"mon-fri 20:00-06:00\"]", "allowed = [\"22:00-00:30\"]",
                "blackout = [{ from = \"2026-10-17\", to = \"2026-10-19 08:00\", reason = \"closing\" }]",
            ]),
            jitter_minutes in 0u32..300,
            day in prop::sample::select(vec!["monday", "wednesday", "saturday", "sunday"]),
            host in any::<u128>(),
            late_percent in 0u32..90,
        ) {
            let schedule = format!("schedule = {{ cron = \"{cron}\", zone = \"{zone}\", jitter = \"{jitter_minutes}m\" }}");
            let full = format!("full = {{ day = \"{day}\", max_age_days = 300 }}");
            let schedule = schedule.replace(", jitter = \"0m\"", "");
            let lines = format!("{schedule}\n{full}\nwindows = {{ {windows} }}");
            let text = format!("name = \"web\"\nhosts = \"role=web\"\nsources = [\"/etc\"]\n{lines}\n");
            // Windows in which nothing is ever due are refused.
            let Ok(policy) = Policy::parse(&text) else { return Ok(()) };
            let FullDay::Weekly(weekday) = policy.full.day else { panic!("{policy:?}") };
            let runs = eight_weeks(&policy, host, late_percent);
            let mut fulls: BTreeMap<Date, usize> = BTreeMap::new();
            for (run, day) in &runs {
                *fulls.entry(*day).or_default() += usize::from(run.level == Level::Full);
            }
            for (day, fulls) in fulls {
                prop_assert_eq!(fulls, usize::from(day.weekday() == weekday), "{} of {:?}", day, runs);
            }
        }
    }
}
