//! The next seven days of hosts, as they are and as they would be: a line a day.

use std::collections::BTreeSet;

use coord_shared::api::{Level, Week, WeekRun};
use coord_shared::wire::from_us;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Runs of one day that are listed; more are counted.
const MAX_LISTED: usize = 3;
/// Hosts named of those that are alike; more are counted.
const MAX_HOSTS: usize = 5;

/// The days of hosts that are alike, in lines.
pub fn told(week: &Week, zone: &TimeZone) -> String {
    let named = week.hosts.iter().take(MAX_HOSTS).cloned().collect::<Vec<_>>().join(", ");
    let more = week.hosts.len().saturating_sub(MAX_HOSTS);
    let hosts = if more > 0 { format!("{named} and {more} more") } else { named };
    if week.now == week.becomes {
        return format!("  the next seven days of {hosts} stay as they are\n");
    }
    let mut text = format!("  the next seven days of {hosts}:\n");
    let days: BTreeSet<Date> = week.now.iter().chain(&week.becomes).filter_map(|run| date(run, zone)).collect();
    for day in days {
        let of =
            |runs: &[WeekRun]| cell(&runs.iter().filter(|run| date(run, zone) == Some(day)).collect::<Vec<_>>(), zone);
        let (now, becomes) = (of(&week.now), of(&week.becomes));
        let mark = if now == becomes { "  " } else { "->" };
        text.push_str(&format!("    {}  {now:<32} {mark} {becomes}\n", day.strftime("%a %Y-%m-%d")));
    }
    let held: BTreeSet<&str> = week.becomes.iter().map(|run| run.held.as_str()).filter(|why| !why.is_empty()).collect();
    for why in held {
        text.push_str(&format!("    missed: {why}\n"));
    }
    text
}

fn date(run: &WeekRun, zone: &TimeZone) -> Option<Date> {
    from_us(run.due_at_us).map(|at| at.to_zoned(zone.clone()).date())
}

/// The runs of one day.
fn cell(runs: &[&WeekRun], zone: &TimeZone) -> String {
    if runs.is_empty() {
        return "no run".to_owned();
    }
    if runs.len() > MAX_LISTED {
        let missed = runs.iter().filter(|run| !run.held.is_empty()).count();
        let fulls = runs.iter().filter(|run| run.held.is_empty() && run.level() == Level::Full).count();
        let more = if missed > 0 { format!(", {missed} missed") } else { String::new() };
        return format!("{} runs, {fulls} full{more}", runs.len());
    }
    let one = |run: &&WeekRun| {
        let at = from_us(run.due_at_us).map(|at| at.to_zoned(zone.clone()).strftime("%H:%M").to_string());
        let level = if run.held.is_empty() { crate::shown::level(run.level) } else { "missed".to_owned() };
        format!("{} {level}", at.unwrap_or_default())
    };
    runs.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn run(at: &str, level: Level) -> WeekRun {
        WeekRun {
            due_at_us: at.parse::<Timestamp>().unwrap().as_microsecond(),
            level: level.into(),
            held: String::new(),
        }
    }

    fn held(at: &str) -> WeekRun {
        WeekRun { held: "blackout until 2026-11-30 00:00: closing".into(), ..run(at, Level::Unspecified) }
    }

    #[test]
    fn what_will_be_missed_is_told_with_the_reason() {
        let now = vec![run("2026-11-28T02:00:00Z", Level::Full), run("2026-11-29T02:00:00Z", Level::Differential)];
        let becomes = vec![run("2026-11-28T02:00:00Z", Level::Full), held("2026-11-29T02:00:00Z")];
        let week = Week { hosts: vec!["web-1".into()], now, becomes };
        assert_eq!(
            told(&week, &TimeZone::UTC),
            "  the next seven days of web-1:\n    Sat 2026-11-28  02:00 full                          02:00 full\n    \
             Sun 2026-11-29  02:00 differential               -> 02:00 missed\n    \
             missed: blackout until 2026-11-30 00:00: closing\n"
        );
        let hourly: Vec<WeekRun> = (0..24).map(|hour| held(&format!("2026-11-29T{hour:02}:00:00Z"))).collect();
        assert_eq!(cell(&hourly.iter().collect::<Vec<_>>(), &TimeZone::UTC), "24 runs, 0 full, 24 missed");
    }

    #[test]
    fn what_each_day_becomes_stands_beside_what_it_is() {
        let now = vec![run("2026-11-28T02:00:00Z", Level::Differential), run("2026-11-29T02:00:00Z", Level::Full)];
        let becomes = vec![run("2026-11-28T02:00:00Z", Level::Differential)];
        let week = Week { hosts: vec!["web-1".into()], now: now.clone(), becomes };
        assert_eq!(
            told(&week, &TimeZone::UTC),
            "  the next seven days of web-1:\n    Sat 2026-11-28  02:00 differential                  02:00 differential\n    \
             Sun 2026-11-29  02:00 full                       -> no run\n"
        );
        let same = Week { becomes: now.clone(), now, hosts: (0..7).map(|n| format!("h{n}")).collect() };
        assert_eq!(
            told(&same, &TimeZone::UTC),
            "  the next seven days of h0, h1, h2, h3, h4 and 2 more stay as they are\n"
        );
    }

    #[test]
    fn many_runs_of_a_day_are_counted() {
        let runs: Vec<WeekRun> =
            (0..24).map(|hour| run(&format!("2026-11-28T{hour:02}:00:00Z"), Level::Differential)).collect();
        assert_eq!(cell(&runs.iter().collect::<Vec<_>>(), &TimeZone::UTC), "24 runs, 0 full");
    }
}
