//! What becomes of the instants that fell due since somebody last looked.

use coord_shared::duration;
use jiff::{SignedDuration, Timestamp};

use super::{CatchUp, Due, Holds, Timing};

/// Due instants dealt with in one step.
pub const MAX_ROWS: usize = 500;
/// Runs that are made up for at most.
pub const MAX_OWED: u32 = 100;
/// A run that somebody sees so long after its instant is on time.
pub const ON_TIME: SignedDuration = SignedDuration::from_mins(5);

const NOBODY: &str = "no coordinator was running when it was due";

/// A due instant that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The instant.
    pub due_at: Timestamp,
    /// Why it is missed; `None`: it runs.
    pub missed: Option<String>,
}

/// What the step changes of the runs that are owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owing {
    /// Nothing.
    Unchanged,
    /// The run of this step makes up for all of them.
    Settled,
    /// So many more are.
    More {
        /// How many.
        runs: u32,
        /// The newest instant of them.
        due_at: Timestamp,
        /// Why that was missed.
        why: String,
        /// How many may be owed in all.
        most: u32,
        /// When the first of them may begin, as far as is known.
        from: Timestamp,
    },
}

/// What becomes of the instants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// All of them, oldest first; at most the last one runs.
    pub rows: Vec<Row>,
    /// The runs that are owed after it.
    pub owing: Owing,
    /// Everything up to here has been dealt with.
    pub done_until: Timestamp,
    /// There are more than one step takes: go on from `done_until`.
    pub more: bool,
}

/// How long a queued run may wait for its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Before this, its first attempt begins.
    pub by: Option<Timestamp>,
    /// Before this, any other attempt does.
    pub closes_at: Option<Timestamp>,
    /// Why it is missed if it does not.
    pub late: String,
    /// Seconds from its beginning after which it is cancelled.
    pub max_duration_s: Option<u32>,
}

/// Deals with `first`, the due instant that was waited for, and all later ones up to `now`.
pub fn step(due: &Due<'_>, holds: &Holds<'_>, timing: &Timing, first: Timestamp, now: Timestamp) -> Step {
    let instants = std::iter::successors(Some(first), |at| due.next_after(*at)).take_while(|at| *at <= now);
    let mut instants: Vec<Timestamp> = instants.take(MAX_ROWS + 1).collect();
    let more = instants.len() > MAX_ROWS;
    instants.truncate(MAX_ROWS);
    let reached = instants.last().copied().unwrap_or(now);
    let runs = if more { None } else { instants.last().copied() };
    let (mut rows, mut owed) = (Vec::with_capacity(instants.len()), Vec::new());
    for due_at in instants {
        let (missed, is_owed) = match holds.at(due_at) {
            Some(why) => (Some(why), true),
            None if runs == Some(due_at) => match too_late(holds, timing, due_at, now) {
                Some((why, is_owed)) => (Some(why), is_owed),
                None => (None, false),
            },
            None => (Some(format!("{NOBODY}, and a later one is due as well")), true),
        };
        if let Some(why) = missed.as_ref().filter(|_| is_owed) {
            owed.push((due_at, why.clone()));
        }
        rows.push(Row { due_at, missed });
    }
    let is_settled = timing.catch_up == CatchUp::Latest && rows.last().is_some_and(|row| row.missed.is_none());
    let count = u32::try_from(owed.len()).unwrap_or(u32::MAX).min(timing.catch_up.most());
    let owing = match owed.pop() {
        _ if is_settled => Owing::Settled,
        Some((due_at, why)) if count > 0 => {
            // Held back for longer than can be seen, it is looked at again with every step.
            let from = holds.opens_at(now).map_or(now, |opens| due.making_up(holds, now, opens));
            Owing::More { runs: count, due_at, why, most: timing.catch_up.most(), from }
        }
        Some(_) | None => Owing::Unchanged,
    };
    Step { rows, owing, done_until: if more { reached } else { now.max(reached) }, more }
}

/// Why a run that nothing held back when it was due does not begin now, and whether it is made up for.
fn too_late(holds: &Holds<'_>, timing: &Timing, due_at: Timestamp, now: Timestamp) -> Option<(String, bool)> {
    let delay = now.duration_since(due_at);
    if let Some(most) = timing.max_start_delay_s.filter(|most| delay >= SignedDuration::from_secs(i64::from(*most))) {
        return Some((format!("{NOBODY} nor {} later", duration::shown(most)), false));
    }
    if delay <= ON_TIME && holds.at(now).is_none() {
        return None;
    }
    if timing.catch_up == CatchUp::None && delay > ON_TIME {
        return Some((format!("{NOBODY}, and the policy makes up for none"), false));
    }
    holds.at(now).map(|why| (format!("{NOBODY}, and then: {why}"), true))
}

/// How long a run that was due at `due_at` and is queued `now` may wait: by its delay from when it was due, and until the window that is
/// open now closes. Neither for ever where nothing else is asked for.
pub fn start_of(holds: &Holds<'_>, timing: &Timing, due_at: Timestamp, now: Timestamp) -> Start {
    let delay = timing.max_start_delay_s.and_then(|most| {
        let by = due_at.checked_add(SignedDuration::from_secs(i64::from(most))).ok()?;
        Some((by, format!("it did not begin within {} of being due", duration::shown(most))))
    });
    let closes = holds.closes_at(due_at.max(now)).map(|(at, why)| (at, format!("it did not begin before {why}")));
    let closes_at = closes.as_ref().map(|(at, _)| *at);
    let (by, late) = delay.into_iter().chain(closes).min_by_key(|(at, _)| *at).unzip();
    Start { by, closes_at, late: late.unwrap_or_default(), max_duration_s: timing.max_duration_s }
}
