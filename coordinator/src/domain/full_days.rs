//! Whether the day of the full that a policy names ever comes.

use jiff::Timestamp;

use super::policy::{Finding, FullDay, Policy, weekday_name};

/// Due instants looked through: eleven years of a daily schedule.
const MAX_DUE_TIMES: usize = 4000;

/// That no run is ever due on the day of the full, if so: fulls are then taken by age alone.
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
    use super::*;

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
        assert_eq!(found("schedule = { cron = \"*/5 8-18 * * 1-5\" }\nfull = { day = \"monday\" }"), None);
        let berlin = "zone = \"Europe/Berlin\"";
        assert_eq!(
            found(&format!("schedule = {{ cron = \"30 0 * * 0\", {berlin} }}")),
            None,
            "sunday there, though saturday in UTC"
        );
    }
}
