//! Whether this process's duties turn: each says so whenever it begins and ends a pass, and how long it may take for the next turn. A duty
//! that hangs, or whose task is gone, is late; a database that is away makes no duty late, because passes that fail turn as well.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One duty as it was last seen.
#[derive(Debug, Clone, Copy)]
struct Pulse {
    turned: Instant,
    /// The next turn comes within this time.
    within: Duration,
    /// When a pass last did what it should.
    done: Option<Instant>,
}

/// A duty that did not turn in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Its name.
    pub name: &'static str,
    /// How long ago it last turned.
    pub since: Duration,
    /// How long that may take.
    pub within: Duration,
}

/// All duties of this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pulses {
    known: Arc<Mutex<BTreeMap<&'static str, Pulse>>>,
}

impl Pulses {
    fn locked<R>(&self, act: impl FnOnce(&mut BTreeMap<&'static str, Pulse>) -> R) -> R {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A duty turns now, and will again within this time.
    pub fn turn(&self, name: &'static str, within: Duration) {
        let turned = Instant::now();
        self.locked(|known| {
            let pulse = known.entry(name).or_insert(Pulse { turned, within, done: None });
            (pulse.turned, pulse.within) = (turned, within);
        });
    }

    /// A pass of the duty did what it should.
    pub fn done(&self, name: &'static str) {
        self.locked(|known| {
            if let Some(pulse) = known.get_mut(name) {
                pulse.done = Some(Instant::now());
            }
        });
    }

    /// The duty was given up, as it should be: nothing is expected of it any more.
    pub fn given_up(&self, name: &'static str) {
        self.locked(|known| known.remove(name));
    }

    /// Names of the duties that are expected to turn.
    pub fn names(&self) -> Vec<&'static str> {
        self.locked(|known| known.keys().copied().collect())
    }

    /// The duties that did not turn in time.
    pub fn late(&self) -> Vec<Late> {
        let late = |(name, pulse): (&&'static str, &Pulse)| {
            let since = pulse.turned.elapsed();
            (since > pulse.within).then_some(Late { name, since, within: pulse.within })
        };
        self.locked(|known| known.iter().filter_map(late).collect())
    }

    /// How long ago each duty was last done, in milliseconds; those that never were are left out.
    pub fn ages_ms(&self) -> BTreeMap<&'static str, u64> {
        let age = |done: Instant| u64::try_from(done.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.locked(|known| known.iter().filter_map(|(name, pulse)| Some((*name, age(pulse.done?)))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duty_that_turns_too_late_is_named_until_it_turns_again_or_is_given_up() {
        let pulses = Pulses::default();
        pulses.turn("scheduler", Duration::from_secs(60));
        pulses.turn("dispatcher", Duration::ZERO);
        std::thread::sleep(Duration::from_millis(1));
        let late: Vec<_> = pulses.late().iter().map(|late| late.name).collect();
        assert_eq!(late, ["dispatcher"]);
        pulses.turn("dispatcher", Duration::from_secs(60));
        assert_eq!(pulses.late(), []);
        pulses.turn("dispatcher", Duration::ZERO);
        pulses.given_up("dispatcher");
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!((pulses.late(), pulses.names()), (vec![], vec!["scheduler"]));
    }

    #[test]
    fn only_what_was_done_has_an_age() {
        let pulses = Pulses::default();
        pulses.turn("scheduler", Duration::from_secs(60));
        assert!(pulses.ages_ms().is_empty());
        pulses.done("scheduler");
        assert!(pulses.ages_ms()["scheduler"] < 10_000);
    }
}
