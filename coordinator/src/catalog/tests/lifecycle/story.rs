//! Stories: what operators, schedulers, dispatchers, reapers and hosts do, one step after the other, each over one of two coordinators,
//! and where a coordinator loses its database in the middle of a step. What a step is about is chosen when it is told, from what there is by then.

use coord_shared::run::RunKind;
use proptest::prelude::*;

use super::relay::Side;

/// Steps of a story at most.
const MOST_STEPS: usize = 90;

/// A step of a story.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The coordinator that does it.
    pub(super) coordinator: usize,
    /// What it does.
    pub(super) deed: Deed,
    /// Where it loses its database.
    pub(super) loss: Option<Loss>,
}

/// A coordinator loses its database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    /// How far in the step, in parts of 256. None: at the end of its transaction.
    pub(super) place: Option<u8>,
    /// On which side of the statement that is there.
    pub(super) side: Side,
    /// It cannot connect again in this step.
    pub(super) stays_away: bool,
}

/// A run that is there: the nth, or the nth open one where there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick {
    pub(super) open: bool,
    pub(super) nth: u8,
}

/// Which attempt a message is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// The newest, or the first where none was claimed.
    Newest,
    /// The one before.
    Older,
    /// One that was never given out.
    Next,
}

/// Whose message it is, and of what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    pub(super) run: Pick,
    pub(super) which: Which,
    /// Over a session that was replaced.
    pub(super) old_session: bool,
    /// It is another host than the run's.
    pub(super) stranger: bool,
    /// It was said before: its number is one that was used.
    pub(super) again: bool,
}

/// What a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saying {
    Started,
    StartedByPlan,
    Scanned,
    Sealed,
    Warned,
    Succeeded,
    Failed { retryable: bool, waits: bool },
    Stopped,
}

/// What a commit brings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Brought {
    /// Another backup than the one that the attempt brings else.
    pub(super) other: bool,
    /// Its number is one that the job had before.
    pub(super) used_ordinal: bool,
    /// Nothing changed since the newest backup, if there is one.
    pub(super) unchanged: bool,
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    /// Somebody asks for a run.
    Ask { job: usize, kind: RunKind },
    /// Somebody asks for a backup, unless one is on its way.
    AskOnce { job: usize, key: Option<u8>, full: bool },
    /// A planner promises a host the run of an instant.
    Promise { job: usize, instant: u8 },
    /// A scheduler inserts the run of an instant, together with those of other jobs or by itself.
    Due { job: usize, instant: u8, next: u8, stale: bool, missed: bool, together: bool },
    /// A dispatcher claims what waits.
    Claim { hosts: [bool; 2], old_session: bool },
    /// A host says by itself that it holds a run.
    Hold { sender: Sender, finished: bool },
    /// Hosts beat together.
    Beat { sender: Sender },
    /// A coordinator has still to give the order of an attempt.
    Keep { sender: Sender },
    /// A host reports.
    Report { sender: Sender, saying: Saying },
    /// A host commits a backup.
    Commit { sender: Sender, brought: Brought },
    /// An operator cancels a run.
    Cancel { run: Pick },
    /// An operator tries a run again.
    Retry { run: Pick },
    /// A reaper takes back what lapsed.
    Reap,
    /// A host connects anew.
    Connect { host: usize, stale: bool },
    /// So many half hours pass.
    Pass { half_hours: u8 },
}

fn pick() -> impl Strategy<Value = Pick> {
    (prop::bool::weighted(0.85), any::<u8>()).prop_map(|(open, nth)| Pick { open, nth })
}

fn sender() -> impl Strategy<Value = Sender> {
    let which = prop_oneof![8 => Just(Which::Newest), 2 => Just(Which::Older), 1 => Just(Which::Next)];
    let rare = prop::bool::weighted(0.1);
    (pick(), which, rare, prop::bool::weighted(0.03), prop::bool::weighted(0.2))
        .prop_map(|(run, which, old_session, stranger, again)| Sender { run, which, old_session, stranger, again })
}

fn saying() -> impl Strategy<Value = Saying> {
    prop_oneof![
        3 => Just(Saying::Started),
        1 => Just(Saying::StartedByPlan),
        1 => Just(Saying::Scanned),
        2 => Just(Saying::Sealed),
        1 => Just(Saying::Warned),
        2 => Just(Saying::Succeeded),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(retryable, waits)| Saying::Failed { retryable, waits }),
        1 => Just(Saying::Stopped),
    ]
}

fn brought() -> impl Strategy<Value = Brought> {
    (prop::bool::weighted(0.2), prop::bool::weighted(0.1), prop::bool::weighted(0.3))
        .prop_map(|(other, used_ordinal, unchanged)| Brought { other, used_ordinal, unchanged })
}

fn deed() -> impl Strategy<Value = Deed> {
    let (job, instant, rare) = (0..2usize, 0..5u8, prop::bool::weighted(0.1));
    let kind = prop_oneof![3 => Just(RunKind::Backup), 2 => Just(RunKind::Verify)];
    let due = (job.clone(), instant.clone(), instant.clone(), rare, rare, any::<bool>());
    let hosts = prop_oneof![2 => Just([true, true]), 1 => Just([true, false]), 1 => Just([false, true])];
    prop_oneof![
        2 => (job.clone(), kind).prop_map(|(job, kind)| Deed::Ask { job, kind }),
        3 => (job.clone(), prop::option::of(0..3u8), rare).prop_map(|(job, key, full)| Deed::AskOnce { job, key, full }),
        2 => (job.clone(), instant).prop_map(|(job, instant)| Deed::Promise { job, instant }),
        3 => due.prop_map(|(job, instant, next, stale, missed, together)| {
            Deed::Due { job, instant, next, stale, missed, together }
        }),
        9 => (hosts, rare).prop_map(|(hosts, old_session)| Deed::Claim { hosts, old_session }),
        3 => (sender(), prop::bool::weighted(0.3)).prop_map(|(sender, finished)| Deed::Hold { sender, finished }),
        2 => sender().prop_map(|sender| Deed::Beat { sender }),
        1 => sender().prop_map(|sender| Deed::Keep { sender }),
        5 => (sender(), saying()).prop_map(|(sender, saying)| Deed::Report { sender, saying }),
        7 => (sender(), brought()).prop_map(|(sender, brought)| Deed::Commit { sender, brought }),
        2 => pick().prop_map(|run| Deed::Cancel { run }),
        1 => pick().prop_map(|run| Deed::Retry { run }),
        6 => Just(Deed::Reap),
        1 => (job, rare).prop_map(|(host, stale)| Deed::Connect { host, stale }),
        5 => (1..=4u8).prop_map(|half_hours| Deed::Pass { half_hours }),
    ]
}

fn loss() -> impl Strategy<Value = Loss> {
    let side = prop_oneof![Just(Side::Before), Just(Side::After)];
    let place = prop::option::weighted(0.6, any::<u8>());
    (place, side, prop::bool::weighted(0.3)).prop_map(|(place, side, stays_away)| Loss { place, side, stays_away })
}

/// Any story.
pub(super) fn story() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..2usize, deed(), prop::option::weighted(0.4, loss())).prop_map(|(coordinator, deed, loss)| Step {
        coordinator,
        deed,
        loss,
    });
    prop::collection::vec(step, 1..=MOST_STEPS)
}
