//! Whether a policy's promises are kept, and whether they can be: RPO is the age that the newest good backup may reach, RTO the time
//! that a restore may take.
//!
//! Not here: where the figures come from.

use coord_shared::duration;
use jiff::{SignedDuration, Timestamp};

use super::policy::{Finding, Policy};
use super::rates::RestoreTime;
use super::timing::Due;

/// Due instants looked through for the longest pause of a schedule: eleven years of a daily one.
const MAX_DUE_TIMES: usize = 4000;

/// Where a job stands with one of its objectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The policy promises nothing.
    NotStated,
    /// The promise is kept.
    Met,
    /// It is not.
    Out,
    /// Nothing was measured yet that could tell.
    Unknown,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Standing; 4] = [Standing::NotStated, Standing::Met, Standing::Out, Standing::Unknown];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::NotStated => "not_stated",
            Standing::Met => "met",
            Standing::Out => "out",
            Standing::Unknown => "unknown",
        }
    }
}

/// Whether a job whose newest good backup is of `newest` is within its RPO. Without any backup it is out.
pub fn rpo(rpo_s: Option<u32>, newest: Option<Timestamp>, now: Timestamp) -> Standing {
    let Some(rpo) = rpo_s else { return Standing::NotStated };
    let within = newest.is_some_and(|newest| now.duration_since(newest) <= SignedDuration::from_secs(i64::from(rpo)));
    if within { Standing::Met } else { Standing::Out }
}

/// Whether a job is within its RTO that has a good backup or none, and whose restore is expected to take `restore`.
pub fn rto(rto_s: Option<u32>, has_backup: bool, restore: Option<RestoreTime>) -> Standing {
    match (rto_s, restore) {
        (None, _) => Standing::NotStated,
        (Some(_), _) if !has_backup => Standing::Out,
        (Some(_), None) => Standing::Unknown,
        (Some(rto), Some(restore)) if restore.ms <= u64::from(rto) * 1000 => Standing::Met,
        (Some(_), Some(_)) => Standing::Out,
    }
}

/// The longest pause between two due runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// It begins with this due run.
    pub from: Timestamp,
    /// And ends with this one.
    pub until: Timestamp,
}

impl Pause {
    /// Its length in whole seconds.
    pub fn seconds(self) -> u64 {
        self.until.duration_since(self.from).as_secs().unsigned_abs()
    }
}

/// The longest pause between runs that are due from `now` on and may begin; the first of equals. `None` when fewer than two are.
pub fn longest_pause(runs: &Due<'_>, now: Timestamp) -> Option<Pause> {
    let mut due = std::iter::successors(runs.next_run_after(now), |due| runs.next_run_after(*due)).take(MAX_DUE_TIMES);
    let mut from = due.next()?;
    let mut longest: Option<Pause> = None;
    for until in due {
        let pause = Pause { from, until };
        if longest.is_none_or(|longest| pause.seconds() > longest.seconds()) {
            longest = Some(pause);
        }
        from = until;
    }
    longest
}

/// That a policy cannot keep its RPO, if so. `longest_run_ms` is how long a full of its largest known host takes: a backup counts from
/// the end of its reading on.
pub fn rpo_finding(policy: &Policy, now: Timestamp, longest_run_ms: Option<u64>) -> Option<Finding> {
    let rpo = u64::from(policy.objectives.rpo_s?);
    let pause = longest_pause(&Due::of_policy(policy), now)?;
    let run = longest_run_ms.unwrap_or(0).div_ceil(1000);
    // A pause that is as long as the RPO leaves no time for the run.
    if pause.seconds().saturating_add(run.max(1)) <= rpo {
        return None;
    }
    let zone = policy.schedule.zone.rules();
    let shown = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
    let takes = if run > 0 { format!(" and a full takes about {}", shown_s(run)) } else { String::new() };
    Some(Finding {
        key: "objectives.rpo".to_owned(),
        message: format!(
            "runs are up to {} apart (from {} to {}){takes}, so the RPO of {} cannot be kept",
            shown_s(pause.seconds()),
            shown(pause.from),
            shown(pause.until),
            shown_s(rpo)
        ),
        hint: "run more often (schedule.cron, windows), or state an RPO longer than the pause and a run".to_owned(),
    })
}

fn shown_s(seconds: u64) -> String {
    duration::shown(u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// A host of a policy, and the time that its restore is expected to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its name.
    pub host: String,
    /// The time.
    pub restore: RestoreTime,
}

/// That a policy cannot keep its RTO on hosts that it protects already, if so.
pub fn rto_finding(policy: &Policy, expected: &[Expected]) -> Option<Finding> {
    let rto = u64::from(policy.objectives.rto_s?);
    let over: Vec<&Expected> = expected.iter().filter(|host| host.restore.ms > rto * 1000).collect();
    let slowest = over.iter().max_by_key(|host| host.restore.ms)?;
    Some(Finding {
        key: "objectives.rto".to_owned(),
        message: format!(
            "a restore of {} is expected to take {}, and {} of {} hosts are over the RTO of {}",
            slowest.host,
            shown_s(slowest.restore.ms.div_ceil(1000)),
            over.len(),
            expected.len(),
            shown_s(rto)
        ),
        hint: "coordctl report rto shows each; smaller policies restore sooner".to_owned(),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::domain::rates::Basis;
    use crate::domain::schedule::Calendar;
    use crate::domain::timing::Windows;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn policy(lines: &str) -> Policy {
        Policy::parse(&format!("name = \"web\"\nhosts = \"role=web\"\nsources = [\"/etc\"]\n{lines}\n")).unwrap()
    }

    fn taking(ms: u64) -> RestoreTime {
        RestoreTime { ms, basis: Basis::Restores }
    }

    #[test]
    fn a_backup_is_within_its_rpo_until_it_is_older() {
        let (newest, hour) = (at("2026-11-20T02:00:00Z"), Some(3600));
        assert_eq!(rpo(hour, Some(newest), at("2026-11-20T03:00:00Z")), Standing::Met);
        assert_eq!(rpo(hour, Some(newest), at("2026-11-20T03:00:01Z")), Standing::Out);
        assert_eq!(rpo(hour, Some(newest), at("2026-11-20T01:00:00Z")), Standing::Met, "a host's clock may be ahead");
        assert_eq!(rpo(hour, None, newest), Standing::Out, "what has no backup is lost whole");
        assert_eq!(rpo(None, None, newest), Standing::NotStated);
    }

    #[test]
    fn a_restore_is_within_its_rto_when_it_is_expected_to_end_in_time() {
        assert_eq!(rto(Some(60), true, Some(taking(60_000))), Standing::Met);
        assert_eq!(rto(Some(60), true, Some(taking(60_001))), Standing::Out);
        assert_eq!(rto(Some(60), true, None), Standing::Unknown);
        assert_eq!(rto(Some(60), false, None), Standing::Out, "there is nothing to restore from");
        assert_eq!(rto(None, true, Some(taking(1))), Standing::NotStated);
    }

    #[test]
    fn the_longest_pause_is_found_over_weekends_and_clock_changes() {
        let seconds = |cron: &str, zone: &str| {
            let calendar = Calendar { cron: cron.parse().unwrap(), zone: zone.parse().unwrap() };
            longest_pause(&Due::plain(&calendar, &Windows::default()), at("2026-11-20T00:00:00Z")).unwrap().seconds()
        };
        assert_eq!(seconds("0 2 * * *", "UTC"), 86_400);
        assert_eq!(seconds("0 2 * * 1-5", "UTC"), 3 * 86_400, "from Friday to Monday");
        assert_eq!(seconds("*/5 8-18 * * 1-5", "UTC"), 61 * 3600 + 300, "Friday 18:55 to Monday 08:00");
        assert_eq!(seconds("0 4 * * *", "Europe/Berlin"), 90_000, "the day the clocks go back has 25 hours");
    }

    #[test]
    fn a_schedule_that_leaves_no_time_within_the_rpo_is_said_to() {
        let now = at("2026-11-20T00:00:00Z");
        let found = |rpo: &str, run: Option<u64>| {
            rpo_finding(&policy(&format!("objectives = {{ rpo = \"{rpo}\" }}")), now, run)
                .map(|finding| finding.message)
        };
        assert_eq!(found("26h", None), None);
        assert_eq!(found("26h", Some(7_200_000)), None);
        assert_eq!(
            found("26h", Some(7_201_000)).unwrap(),
            "runs are up to 1d apart (from 2026-11-20 02:00 to 2026-11-21 02:00) and a full takes about 7201s, so the RPO of \
             26h cannot be kept"
        );
        assert!(found("24h", None).is_some(), "the run itself takes time");
        assert_eq!(rpo_finding(&policy(""), now, Some(u64::MAX)), None, "nothing was promised");
    }

    #[test]
    fn hosts_that_are_too_large_for_the_rto_are_counted_and_the_slowest_is_named() {
        let two_hours = policy("objectives = { rto = \"2h\" }");
        let host = |host: &str, minutes: u64| Expected { host: host.to_owned(), restore: taking(minutes * 60_000) };
        assert_eq!(rto_finding(&two_hours, &[host("one", 120)]), None);
        let found = rto_finding(&two_hours, &[host("one", 121), host("two", 180), host("three", 1)]).unwrap();
        assert_eq!(found.message, "a restore of two is expected to take 3h, and 2 of 3 hosts are over the RTO of 2h");
        assert_eq!(rto_finding(&policy(""), &[host("one", 999)]), None);
    }
}
