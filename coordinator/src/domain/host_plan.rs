//! Which backups a host may begin by itself while it is cut off: the due instants of the next days that nothing holds back, as far as is
//! known now, and until when each may begin.
//!
//! Owns the bounds of a plan. The host itself knows no windows, pauses or cron lines: what it must not begin is not in its plan. Not
//! here: levels (`forecast`), ids, and how a host goes by its plan.

use jiff::{SignedDuration, Timestamp};

use super::timing::{Ahead, CatchUp, Due, Holds, Kind, ON_TIME, Timing, ahead, start_of};

/// How far a plan reaches.
pub const AHEAD: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Backups of one job in a plan: a week of hourly ones. More frequent ones are planned for less than a week.
pub const MAX_RUNS_OF_JOB: usize = 200;
/// Backups in a plan.
pub const MAX_RUNS: usize = 1_000;
/// Due instants that are looked at for them.
const MAX_INSTANTS: usize = 5_000;

/// A backup that a host may begin by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// When it is due.
    pub due_at: Timestamp,
    /// The instant of the calendar that it is for, before jitter.
    pub stands_for: Timestamp,
    /// Before this it begins, or not at all.
    pub before: Timestamp,
}

/// The backups of one job after `now`, ascending. Each may begin until the next one is due, unless the policy says sooner.
pub fn beginnings(due: &Due<'_>, holds: &Holds<'_>, timing: &Timing, now: Timestamp) -> Vec<Beginning> {
    let until = now.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
    let instants = ahead((due, holds, timing.catch_up), None, now, until, MAX_INSTANTS);
    let runs = instants.into_iter().filter(|instant| instant.kind == Kind::Run).take(MAX_RUNS_OF_JOB);
    let beginning = |run: Ahead| {
        let Ahead { at: due_at, stands_for, .. } = run;
        // A host that was away when it was due is as late as a coordinator that was.
        let on_time = (timing.catch_up == CatchUp::None).then(|| due_at.checked_add(ON_TIME).ok()).flatten();
        let pause = holds.pauses.iter().map(|pause| pause.from).filter(|from| *from > due_at);
        let ends = [due.next_after(due_at), start_of(holds, timing, due_at, due_at).by, on_time];
        let before = ends.into_iter().flatten().chain(pause).fold(until, Timestamp::min);
        Beginning { due_at, stands_for, before }
    };
    runs.map(beginning).filter(|run| run.due_at < run.before).collect()
}

/// Keeps the first [`MAX_RUNS`] of all jobs. Answers whether that were all.
pub fn keep_first(jobs: &mut [Vec<Beginning>]) -> bool {
    let mut all: Vec<Timestamp> = jobs.iter().flatten().map(|run| run.due_at).collect();
    if all.len() <= MAX_RUNS {
        return true;
    }
    all.sort_unstable();
    let Some(end) = all.get(MAX_RUNS).copied() else { return true };
    // Of jobs that are due in the same instant all or none are in it.
    for job in jobs {
        job.retain(|run| run.due_at < end);
    }
    false
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::domain::schedule::Calendar;
    use crate::domain::timing::{Pause, Window, Windows};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn calendar(cron: &str) -> Calendar {
        Calendar { cron: cron.parse().unwrap(), zone: "UTC".parse().unwrap() }
    }

    /// The beginnings after Wednesday noon.
    fn plan(cron: &str, timing: &Timing, pauses: &[Pause]) -> Vec<Beginning> {
        let calendar = calendar(cron);
        let due = Due::plain(&calendar, &timing.windows);
        let holds = Holds { windows: &timing.windows, zone: due.zone(), pauses };
        beginnings(&due, &holds, timing, at("2026-11-25T12:00:00Z"))
    }

    #[test]
    fn a_plan_has_the_due_instants_of_a_week_each_until_the_next_is_due() {
        let week = plan("0 2 * * *", &Timing::default(), &[]);
        assert_eq!(week.len(), 7);
        let [first, .., last] = week[..] else { panic!("{week:?}") };
        assert_eq!((first.due_at, first.before), (at("2026-11-26T02:00:00Z"), at("2026-11-27T02:00:00Z")));
        assert_eq!(
            (last.due_at, last.before),
            (at("2026-12-02T02:00:00Z"), at("2026-12-02T12:00:00Z")),
            "the plan ends"
        );
    }

    #[test]
    fn what_is_due_often_is_planned_for_less_than_a_week_and_all_jobs_share_the_bound() {
        let hourly = plan("0 * * * *", &Timing::default(), &[]);
        assert_eq!(hourly.len(), 7 * 24 - 1, "the one that is due when the plan ends has no time to begin");
        let often = plan("* * * * *", &Timing::default(), &[]);
        assert_eq!((often.len(), often[0].due_at), (MAX_RUNS_OF_JOB, at("2026-11-25T12:01:00Z")));
        let mut jobs = vec![often; 6];
        assert!(!keep_first(&mut jobs));
        assert!(jobs.iter().map(Vec::len).sum::<usize>() <= MAX_RUNS);
        assert!(jobs.iter().all(|job| job.len() == MAX_RUNS / 6), "none of them before another");
        let mut few = vec![plan("0 2 * * *", &Timing::default(), &[])];
        assert!(keep_first(&mut few));
        assert_eq!(few[0].len(), 7);
    }

    #[test]
    fn nothing_is_planned_outside_of_windows_and_a_run_begins_before_its_window_closes() {
        let night: Window = "01:00-03:00".parse().unwrap();
        let windows = Windows { allowed: vec![night], ..Windows::default() };
        let timing = Timing { windows, ..Timing::default() };
        let runs = plan("30 */2 * * *", &timing, &[]);
        assert_eq!(runs.len(), 7, "{runs:?}");
        assert_eq!((runs[0].due_at, runs[0].before), (at("2026-11-26T02:30:00Z"), at("2026-11-26T03:00:00Z")));
    }

    #[test]
    fn a_pause_holds_its_instants_back_and_those_after_its_end_are_planned() {
        let until = at("2026-11-28T00:00:00Z");
        let pause = Pause::of("host web-1", (at("2026-11-25T08:00:00Z"), Some(until)), "ada", "new disks");
        let runs = plan("0 2 * * *", &Timing::default(), &[pause]);
        assert_eq!(runs.first().map(|run| run.due_at), Some(at("2026-11-28T02:00:00Z")));
        let open = Pause::of("host web-1", (at("2026-11-25T08:00:00Z"), None), "ada", "new disks");
        assert_eq!(plan("0 2 * * *", &Timing::default(), &[open]), []);
    }

    #[test]
    fn a_delay_that_the_policy_allows_bounds_the_beginning_and_so_does_catching_up_with_nothing() {
        let timing = Timing { max_start_delay_s: Some(1800), ..Timing::default() };
        assert_eq!(plan("0 2 * * *", &timing, &[])[0].before, at("2026-11-26T02:30:00Z"));
        let timing = Timing { catch_up: CatchUp::None, ..Timing::default() };
        assert_eq!(plan("0 2 * * *", &timing, &[])[0].before, at("2026-11-26T02:05:00Z"));
    }
}
