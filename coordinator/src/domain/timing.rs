//! When a due run begins, and what becomes of one that may not: windows and blackouts, jitter, pauses, and catching up.
//!
//! Owns the invariant that a due instant is never lost: each becomes a run or a missed one with a reason. Jitter moves an instant later,
//! by less than it says, never past the next one and never out of the window that holds the instant; the same job is moved by the
//! same share each time.
//!
//! Not here: which instants a cron line has (`schedule`), the time now, and the rows.

mod ahead;
mod pause;
mod step;
mod windows;

use coord_archive::digest::Digest;
use coord_shared::ids::HostId;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::schedule::Calendar;

pub use ahead::{Ahead, Kind, ahead};
pub use pause::Pause;
pub use step::{MAX_OWED, MAX_ROWS, ON_TIME, Owing, Row, Start, Step, start_of, step};
pub use windows::{Blackout, Window, WindowError, Windows};

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How a policy's due runs begin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// When they may.
    pub windows: Windows,
    /// Runs of different hosts are spread over this many seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jitter_s: u32,
    /// A run that has not begun so many seconds after it was due is missed.
    pub max_start_delay_s: Option<u32>,
    /// A run that takes longer is cancelled.
    pub max_duration_s: Option<u32>,
    /// What becomes of runs that were missed.
    pub catch_up: CatchUp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

/// What becomes of runs that were missed because nothing could begin: nobody was there, or nothing was allowed to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// One run makes up for all of them.
    #[default]
    Latest,
    /// Each is made up for, one after the other.
    All,
    /// The next due run is the next one.
    None,
}

impl CatchUp {
    /// Every way.
    pub const ALL: [CatchUp; 3] = [CatchUp::Latest, CatchUp::All, CatchUp::None];

    /// The word in policy files.
    pub const fn as_str(self) -> &'static str {
        match self {
            CatchUp::Latest => "latest",
            CatchUp::All => "all",
            CatchUp::None => "none",
        }
    }

    /// Runs that may be owed at most.
    pub const fn most(self) -> u32 {
        match self {
            CatchUp::Latest => 1,
            CatchUp::All => MAX_OWED,
            CatchUp::None => 0,
        }
    }
}

/// The due instants of a calendar, spread and windowed.
#[derive(Debug, Clone, Copy)]
pub struct Due<'a> {
    calendar: &'a Calendar,
    windows: &'a Windows,
    jitter_s: u32,
    /// How far into the jitter, in parts of 2^64.
    share: u64,
}

impl<'a> Due<'a> {
    /// The backups of a policy on a host.
    pub fn backups(policy: &'a Policy, host: HostId) -> Self {
        Self { share: share(host, policy.name.as_str()), ..Self::of_policy(policy) }
    }

    /// The backups of a policy on no host in particular: at the earliest instants that any host may have.
    pub fn of_policy(policy: &'a Policy) -> Self {
        let Timing { windows, jitter_s, .. } = &policy.timing;
        Self { calendar: &policy.schedule, windows, jitter_s: *jitter_s, share: 0 }
    }

    /// The instants of a calendar as they are.
    pub fn plain(calendar: &'a Calendar, windows: &'a Windows) -> Self {
        Self { calendar, windows, jitter_s: 0, share: 0 }
    }

    /// The first due instant after `instant`.
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        // What is moved past `instant` was due before it by less than the jitter.
        let reach = SignedDuration::from_secs(i64::from(self.jitter_s));
        let mut before = instant.checked_sub(reach).unwrap_or(Timestamp::MIN);
        loop {
            let plain = self.calendar.next_after(before)?;
            let due = self.spread(plain);
            if due > instant {
                return Some(due);
            }
            before = plain;
        }
    }

    /// The first due instant after `instant` that neither the windows nor a blackout hold back.
    pub fn next_run_after(&self, instant: Timestamp) -> Option<Timestamp> {
        let mut before = instant;
        loop {
            let due = self.next_after(before)?;
            if let Some(blackout) = self.windows.blackout_at(due) {
                before = before.max(blackout.to.checked_sub(SignedDuration::from_nanos(1)).ok()?).max(due);
                continue;
            }
            if self.windows.allows(due, self.zone()) {
                return Some(due);
            }
            let opens = self.windows.opens_at(due, self.zone())?;
            before = opens.checked_sub(SignedDuration::from_nanos(1)).ok()?;
        }
    }

    /// The instant of the calendar behind a due instant, from which the jitter moved it. One that the calendar does not have, since the
    /// policy was another one when it came due, is itself.
    pub fn plain_of(&self, due_at: Timestamp) -> Timestamp {
        // Nothing is moved by all of the jitter, nor past the next instant.
        let reach = SignedDuration::from_secs(i64::from(self.jitter_s));
        let mut plain = None;
        let mut before = due_at.checked_sub(reach).unwrap_or(Timestamp::MIN);
        while let Some(next) = self.calendar.next_after(before).filter(|next| *next <= due_at) {
            (plain, before) = (Some(next), next);
        }
        plain.unwrap_or(due_at)
    }

    /// Of the instants that came due after `since` and until `now`, that run which was due `since` standing in the way of theirs, the
    /// newest whose day is wanted. As it is in the calendar.
    pub fn newest_while_waiting(
        &self,
        since: Timestamp,
        now: Timestamp,
        is_wanted: impl Fn(Date) -> bool,
    ) -> Option<Timestamp> {
        // Days of the week come again.
        let since = since.max(now.checked_sub(WEEK).unwrap_or(since));
        let due = std::iter::successors(self.next_after(since), |due| self.next_after(*due));
        let plain = due.take_while(|due| *due <= now).map(|due| self.plain_of(due));
        plain.filter(|plain| is_wanted(plain.to_zoned(self.zone().clone()).date())).last()
    }

    /// When what is owed `now` may begin, by this job's share of the jitter after `opens`, the first instant that nothing holds back:
    /// what held back all hosts does not let all of them go at once. Never past what closes next.
    pub fn making_up(&self, holds: &Holds<'_>, now: Timestamp, opens: Timestamp) -> Timestamp {
        if opens <= now {
            return opens;
        }
        let closes = holds.closes_at(opens).map(|(at, _)| at);
        let pauses = holds.pauses.iter().map(|pause| pause.from).filter(|from| *from > opens);
        self.moved(opens, closes.into_iter().chain(pauses))
    }

    /// When what is owed may begin that nothing holds back `now`, if what held it back let go at `freed`: by this job's share of the
    /// jitter after that, as [`Due::making_up`] does for an end that was foreseen. A resume or another policy lets go of many jobs at once.
    pub fn making_up_since(&self, holds: &Holds<'_>, freed: Timestamp, now: Timestamp) -> Timestamp {
        let before = freed.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(freed);
        self.making_up(holds, before, freed).max(now)
    }

    /// Whether a backup of `captured_at` is older than it should be `now`: the run due after it has gone by, and the one after
    /// that is due as well. What windows and blackouts hold back is not due.
    pub fn is_overdue(&self, captured_at: Timestamp, now: Timestamp) -> bool {
        let second = self.next_run_after(captured_at).and_then(|first| self.next_run_after(first));
        second.is_some_and(|second| second <= now)
    }

    /// The zone of the windows.
    pub fn zone(&self) -> &'a TimeZone {
        self.calendar.zone.rules()
    }

    /// Where an instant of the calendar is moved to.
    fn spread(&self, plain: Timestamp) -> Timestamp {
        let is_held = || self.windows.blackout_at(plain).is_some() || !self.windows.allows(plain, self.zone());
        // What is held back stays where it is: it is missed there.
        if self.jitter_s == 0 || self.share == 0 || is_held() {
            return plain;
        }
        let closes = self.windows.closes_at(plain, self.zone());
        let blackout = self.windows.blackout.iter().map(|blackout| blackout.from).find(|from| *from > plain);
        self.moved(plain, closes.into_iter().chain(blackout).chain(self.calendar.next_after(plain)))
    }

    /// An instant moved by the share of the jitter, or of the room up to the first of `ends` where that is less.
    fn moved(&self, at: Timestamp, ends: impl Iterator<Item = Timestamp>) -> Timestamp {
        let jitter = SignedDuration::from_secs(i64::from(self.jitter_s));
        let room = ends.map(|end| end.duration_since(at)).fold(jitter, SignedDuration::min);
        let moved = (u128::from(room.as_secs().max(0).unsigned_abs()) * u128::from(self.share)) >> 64;
        let moved = SignedDuration::from_secs(i64::try_from(moved).unwrap_or(0));
        at.checked_add(moved).unwrap_or(at)
    }
}

/// A job's own share of the jitter: the same for as long as the host and the policy live.
fn share(host: HostId, policy: &str) -> u64 {
    let Digest(bytes) = Digest::of(&[host.uuid().as_bytes().as_slice(), policy.as_bytes()].concat());
    bytes.iter().take(8).fold(0, |share, byte| share << 8 | u64::from(*byte))
}

/// What holds back the runs of a job.
#[derive(Debug, Clone, Copy)]
pub struct Holds<'a> {
    /// Windows and blackouts.
    pub windows: &'a Windows,
    /// The zone of the windows.
    pub zone: &'a TimeZone,
    /// Pauses, in any order.
    pub pauses: &'a [Pause],
}

impl Holds<'_> {
    /// What holds a run back at an instant, as a sentence; `None`: nothing.
    pub fn at(&self, at: Timestamp) -> Option<String> {
        if let Some(pause) = self.pause_at(at) {
            return Some(pause.why.clone());
        }
        if let Some(blackout) = self.windows.blackout_at(at) {
            return Some(format!("blackout until {}: {}", self.wall(blackout.to), blackout.reason));
        }
        (!self.windows.allows(at, self.zone)).then(|| "outside the windows of the policy".to_owned())
    }

    /// The first instant at or after `at` at which nothing holds a run back; `None`: never, as far as is known.
    pub fn opens_at(&self, at: Timestamp) -> Option<Timestamp> {
        let mut at = at;
        // Each hold is left behind once; windows may close again between two.
        for _ in 0..=2 * (self.pauses.len() + self.windows.blackout.len()) + 1 {
            if let Some(pause) = self.pause_at(at) {
                at = pause.ends_at()?;
            } else if let Some(blackout) = self.windows.blackout_at(at) {
                at = blackout.to;
            } else {
                let opens = self.windows.opens_at(at, self.zone)?;
                if opens == at {
                    return Some(at);
                }
                at = opens;
            }
        }
        None
    }

    /// The first instant after `at` from which on a window or a blackout lets nothing begin, and what that is.
    fn closes_at(&self, at: Timestamp) -> Option<(Timestamp, String)> {
        let blackout = self.windows.blackout.iter().find(|blackout| blackout.from > at);
        let blackout = blackout.map(|blackout| (blackout.from, format!("a blackout began: {}", blackout.reason)));
        let closes = self.windows.closes_at(at, self.zone);
        let closes = closes.map(|closes| (closes, format!("its window closed at {}", self.wall(closes))));
        blackout.into_iter().chain(closes).min_by_key(|(at, _)| *at)
    }

    fn pause_at(&self, at: Timestamp) -> Option<&Pause> {
        self.pauses.iter().find(|pause| pause.from <= at && at < pause.until)
    }

    fn wall(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
    }
}

#[cfg(test)]
mod tests;
