//! Named places at which a test can kill, pause or fail this program: the steps between which a crash must lose nothing.
//!
//! Compiled only with the feature `failpoints` and never without debug assertions: in a release build [`reach`] and [`fails`] are
//! empty, whatever features other packages of the workspace ask for. `COORD_FAILPOINTS=name[:nth]=action,...` says what happens at which
//! passage (the first unless said otherwise); the actions are `kill` (SIGKILL to this process), `pause:MILLISECONDS` and
//! `error` (only where the place can fail). `COORD_FAILPOINTS_REACHED=FILE` notes the name of each point that is passed, once a
//! process, so that a test can tell a point that was survived from one that was never there.

/// Every point: its name, and what is true when it is reached. A test holds this list against the code.
pub const POINTS: &[(&str, &str)] = &[
    ("agent.order.received", "an order came; the journal does not have it"),
    ("agent.order.accepted", "the order is in the journal; nothing was begun"),
    ("agent.scan.begun", "the sources are opened; nothing was walked"),
    ("agent.scan.done", "a differential knows what differs; nobody was told"),
    ("agent.level.asked", "the scan's figures are on their way up"),
    ("agent.level.answered", "the level is known; there is no file"),
    ("agent.pack.begun", "the unfinished archive exists under its temporary name"),
    ("agent.pack.done", "all content is written; the archive has no name"),
    ("agent.seal.done", "the archive has its name and is durable; the journal does not know"),
    ("agent.sealed.stored", "the seal is in the journal; nobody was told"),
    ("agent.verified", "the archive was read back and is good; the journal does not know"),
    ("agent.backup.remembered", "the journal remembers the backup, but not that the run ended"),
    ("agent.finished.stored", "the final report is in the journal; it was not sent"),
    ("agent.finished.sent", "the final report was handed to the stream"),
    ("agent.acknowledged", "an acknowledgement came; the journal does not have it"),
    ("agent.closed", "both ends are done with the attempt"),
    ("agent.index.block_sent", "a block of an index was handed to the stream"),
    ("agent.index.sent", "the coordinator has the whole index; the journal does not know"),
    ("agent.hello.made", "what is held was read for a greeting; it was not sent"),
    ("coordinator.due.uncommitted", "a due run is inserted in an open transaction"),
    ("coordinator.due.committed", "a due run is queued; nobody was woken"),
    ("coordinator.claim.uncommitted", "runs are leased in an open transaction"),
    ("coordinator.claim.committed", "runs are leased; nothing was decided"),
    ("coordinator.order.decided", "the level is decided and stored; the order was not sent"),
    ("coordinator.order.sent", "the order was handed to the session"),
    ("coordinator.hello.opened", "a session has its number; the greeting was not answered"),
    ("coordinator.hello.answered", "the answer to a greeting was handed to the session"),
    ("coordinator.report.received", "a report came; nothing was written"),
    ("coordinator.report.uncommitted", "a report and its effect are in an open transaction"),
    ("coordinator.report.committed", "a report is taken; it was not acknowledged"),
    ("coordinator.commit.uncommitted", "a restore point and its run's success are in an open transaction"),
    ("coordinator.commit.committed", "a restore point exists; its host does not know"),
    ("coordinator.index.block_stored", "a block of an index is staged; it was not acknowledged"),
    ("coordinator.merge.uncommitted", "a backup's entries are merged in an open transaction"),
    ("coordinator.merge.committed", "a backup is searchable"),
    ("coordinator.reap.done", "a lapsed attempt is taken back; nobody was woken"),
];

/// Environment variable that says what happens where.
pub const PLAN_VARIABLE: &str = "COORD_FAILPOINTS";
/// Environment variable that names the file of points that were reached.
pub const REACHED_VARIABLE: &str = "COORD_FAILPOINTS_REACHED";

/// Passes a point, or ends or stalls here when a test wants that.
#[inline(always)]
pub fn reach(point: &'static str) {
    #[cfg(all(feature = "failpoints", debug_assertions))]
    let _passed = active::pass(point);
    #[cfg(not(all(feature = "failpoints", debug_assertions)))]
    let _compiled_out = point;
}

/// The same at a place that can fail: true when a test wants an error.
#[inline(always)]
#[must_use]
pub fn fails(point: &'static str) -> bool {
    #[cfg(all(feature = "failpoints", debug_assertions))]
    return active::pass(point) == active::Passed::Failing;
    #[cfg(not(all(feature = "failpoints", debug_assertions)))]
    {
        let _compiled_out = point;
        false
    }
}

#[cfg(all(feature = "failpoints", debug_assertions))]
mod active {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    use super::{PLAN_VARIABLE, POINTS, REACHED_VARIABLE};

    /// What happens at a point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        Kill,
        Pause(Duration),
        Fail,
    }

    /// How a point was passed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Passed {
        Unharmed,
        Failing,
    }

    /// An action at the nth passage, counted from 1.
    pub(super) type Plan = BTreeMap<&'static str, (u32, Action)>;

    struct State {
        plan: Plan,
        passages: Mutex<BTreeMap<&'static str, u32>>,
        reached: Option<File>,
    }

    pub(super) fn pass(point: &'static str) -> Passed {
        static STATE: OnceLock<Option<State>> = OnceLock::new();
        match STATE.get_or_init(State::of_environment) {
            None => Passed::Unharmed,
            Some(state) => state.pass(point),
        }
    }

    /// A plan that does not read would make a test that tests nothing: the program ends.
    fn refuse(why: &str) -> ! {
        eprintln!("error: {PLAN_VARIABLE}: {why}");
        std::process::exit(2)
    }

    impl State {
        /// `None`: no test is interested.
        #[expect(clippy::disallowed_methods, reason = "a test reaches the points of every program past its arguments")]
        fn of_environment() -> Option<State> {
            let plan = std::env::var(PLAN_VARIABLE).ok();
            let reached = std::env::var_os(REACHED_VARIABLE);
            if plan.is_none() && reached.is_none() {
                return None;
            }
            let plan = parse(&plan.unwrap_or_default()).unwrap_or_else(|why| refuse(&why));
            let open = |path| File::options().create(true).append(true).open(path);
            let reached = reached.map(open).transpose();
            let reached = reached.unwrap_or_else(|error| refuse(&format!("{REACHED_VARIABLE}: {error}")));
            Some(State { plan, passages: Mutex::default(), reached })
        }

        fn pass(&self, point: &'static str) -> Passed {
            let passage = {
                let mut passages = self.passages.lock().unwrap_or_else(PoisonError::into_inner);
                let passage = passages.entry(point).or_default();
                *passage += 1;
                *passage
            };
            if passage == 1 {
                self.note(point);
            }
            match self.plan.get(point) {
                Some((wanted, action)) if *wanted == passage => self.act(point, *action),
                Some(_) | None => Passed::Unharmed,
            }
        }

        fn act(&self, point: &str, action: Action) -> Passed {
            match action {
                Action::Kill => {
                    self.note(&format!("{point} kill"));
                    // Whatever this says, the process is gone.
                    let _gone = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                    std::process::abort()
                }
                Action::Pause(time) => {
                    self.note(&format!("{point} pause"));
                    std::thread::sleep(time);
                    Passed::Unharmed
                }
                Action::Fail => {
                    self.note(&format!("{point} error"));
                    Passed::Failing
                }
            }
        }

        /// One write of one line: appended whole, whichever processes share the file.
        fn note(&self, line: &str) {
            if let Some(mut file) = self.reached.as_ref()
                && let Err(error) = file.write_all(format!("{line}\n").as_bytes())
            {
                refuse(&format!("{REACHED_VARIABLE}: {error}"));
            }
        }
    }

    pub(super) fn parse(text: &str) -> Result<Plan, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse_one).collect()
    }

    fn parse_one(part: &str) -> Result<(&'static str, (u32, Action)), String> {
        let wrong = || format!("'{part}' is not name[:nth]=kill|pause:MILLISECONDS|error");
        let (point, action) = part.split_once('=').ok_or_else(wrong)?;
        let (name, nth) = point.split_once(':').unwrap_or((point, "1"));
        let known = POINTS.iter().find(|(known, _)| *known == name);
        let (name, _) = known.ok_or_else(|| format!("there is no point {name}"))?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(wrong)?;
        let action = match action.split_once(':') {
            None if action == "kill" => Action::Kill,
            None if action == "error" => Action::Fail,
            Some(("pause", time)) => Action::Pause(Duration::from_millis(time.parse().map_err(|_| wrong())?)),
            None | Some(_) => return Err(wrong()),
        };
        Ok((name, (nth, action)))
    }
}

#[cfg(all(test, feature = "failpoints", debug_assertions))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::active::{Action, parse};

    #[test]
    fn a_plan_names_points_passages_and_actions() {
        let plan = parse("agent.verified=kill, agent.closed:3=pause:250,agent.index.block_sent=error").unwrap();
        assert_eq!(plan["agent.verified"], (1, Action::Kill));
        assert_eq!(plan["agent.closed"], (3, Action::Pause(Duration::from_millis(250))));
        assert_eq!(plan["agent.index.block_sent"], (1, Action::Fail));
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn a_plan_that_would_test_nothing_is_refused() {
        for wrong in [
            "agent.nowhere=kill",
            "agent.verified",
            "agent.verified=stop",
            "agent.verified:0=kill",
            "agent.closed=pause:x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
