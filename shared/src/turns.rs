//! Which of several coordinators an agent dials next, and after which wait.
//!
//! Invariants: every endpoint that is known is tried once before the wait grows, with less than a second before each; however many agents lose
//! their coordinators in the same moment, they do not come back in step, and none of them dials without end and without waiting.
//! Pure: the caller brings the clock and the randomness. Not here: which endpoints are known.

use std::time::Duration;

use crate::backoff::Backoff;

/// A session that lasted this long was a good one: its end is the first failure again.
pub const GOOD_SESSION: Duration = Duration::from_secs(10);
/// The longest wait before an endpoint that this round has not tried. Drawn from the whole of it, because those that wait
/// may all have lost the same coordinator and may all go to the same next one.
pub const BETWEEN: Duration = Duration::from_millis(500);

/// What was tried since the last good session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    /// Of this round.
    tried: Vec<String>,
    /// Rounds in which every endpoint was tried in vain.
    rounds: u32,
}

/// What to do after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// How long to wait first.
    pub wait: Duration,
    /// What to dial then; empty where none is known.
    pub endpoint: String,
}

impl Turns {
    /// After the session with `failed` ended or was refused, `lasted` after it was dialed.
    pub fn after(&mut self, failed: &str, lasted: Duration, known: &[String], random: u64) -> Turn {
        if lasted >= GOOD_SESSION {
            *self = Turns::default();
        }
        self.tried.retain(|endpoint| known.contains(endpoint));
        if !self.tried.iter().any(|endpoint| endpoint == failed) {
            self.tried.push(failed.to_owned());
        }
        let wait = if known.iter().all(|endpoint| self.tried.contains(endpoint)) {
            self.tried.clear();
            self.rounds = self.rounds.saturating_add(1);
            Backoff::RECONNECT.wait(self.rounds, random)
        } else {
            Duration::from_millis(random % (u64::try_from(BETWEEN.as_millis()).unwrap_or(u64::MAX).saturating_add(1)))
        };
        let from = known.iter().position(|endpoint| endpoint == failed).map_or(0, |at| at + 1);
        let mut next = known.iter().cycle().skip(from).take(known.len());
        let endpoint = next.find(|endpoint| !self.tried.contains(endpoint)).cloned().unwrap_or_default();
        Turn { wait, endpoint }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const SHORT: Duration = Duration::from_secs(9);

    fn names(letters: &str) -> Vec<String> {
        letters.chars().map(String::from).collect()
    }

    /// What is dialed after a good session with the first of these, and whether the wait before it is a growing one.
    fn dials(known: &str, count: usize) -> Vec<(String, bool)> {
        let (known, mut turns) = (names(known), Turns::default());
        let (mut at, mut lasted) = (known[0].clone(), GOOD_SESSION);
        let mut dial = || {
            // The longest of each kind of wait.
            let rounds = turns.rounds;
            let turn = turns.after(&at, lasted, &known, 0);
            (at, lasted) = (turn.endpoint.clone(), SHORT);
            (turn.endpoint, turns.rounds > rounds)
        };
        (0..count).map(|_| dial()).collect()
    }

    #[test]
    fn all_coordinators_are_tried_once_before_the_wait_grows() {
        let said: Vec<String> = dials("abc", 8)
            .into_iter()
            .map(|(endpoint, grew)| if grew { format!("…{endpoint}") } else { endpoint })
            .collect();
        assert_eq!(said, ["b", "c", "…a", "b", "c", "…a", "b", "c"]);
        assert!(dials("a", 5).into_iter().all(|turn| turn == ("a".to_owned(), true)), "with one, every try is a round");
    }

    #[test]
    fn a_good_session_begins_anew_and_a_short_one_does_not() {
        let (known, mut turns) = (names("ab"), Turns::default());
        for _ in 0..10 {
            turns.after("a", SHORT, &known, 0);
            turns.after("b", SHORT, &known, 0);
        }
        assert_eq!(turns.after("a", GOOD_SESSION, &known, 0), Turn { wait: Duration::ZERO, endpoint: "b".into() });
        let turn = turns.after("b", SHORT, &known, 0);
        assert_eq!(turn, Turn { wait: Backoff::RECONNECT.first / 2, endpoint: "a".into() }, "the first wait again");
    }

    #[test]
    fn an_agent_that_knows_no_coordinator_waits_as_for_one() {
        let mut turns = Turns::default();
        let waits: Vec<Duration> = (1..=3).map(|_| turns.after("", SHORT, &[], 0).wait).collect();
        assert_eq!(waits, (1..=3).map(|round| Backoff::RECONNECT.wait(round, 0)).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn whatever_is_told_meanwhile_each_round_tries_all_that_it_knew_throughout(
            lists in proptest::collection::vec("[a-f]{0,6}", 1..60),
            always in "[u-z]{1,4}",
            random: u64,
        ) {
            let always: BTreeSet<String> = names(&always).into_iter().collect();
            let (mut turns, mut at, mut round) = (Turns::default(), String::from("first"), Vec::new());
            for list in lists {
                let known: Vec<String> = names(&list).into_iter().chain(always.iter().cloned()).collect();
                let rounds = turns.rounds;
                round.push(at.clone());
                let turn = turns.after(&at, SHORT, &known, random);
                prop_assert!(known.contains(&turn.endpoint));
                prop_assert!(turns.tried.len() <= known.len() + 1, "bounded by what is known");
                if turns.rounds > rounds {
                    prop_assert!(always.iter().all(|endpoint| round.contains(endpoint)), "{round:?}");
                    prop_assert!(turn.wait >= Backoff::RECONNECT.wait(turns.rounds, 0));
                    round.clear();
                } else {
                    prop_assert!(turn.wait <= BETWEEN);
                    let is_second = always.contains(&turn.endpoint) && round.contains(&turn.endpoint);
                    prop_assert!(!is_second, "{round:?}, then {turn:?}");
                }
                at = turn.endpoint;
            }
        }
    }

    /// A small generator with known numbers; `random` of the caller is a better one.
    fn draw(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }

    #[test]
    fn ten_thousand_agents_that_lose_every_coordinator_at_once_are_spread() {
        const AGENTS: u64 = 10_000;
        let known = names("abc");
        // By coordinator and tenth of a second.
        let mut dials: BTreeMap<(String, u128), u64> = BTreeMap::new();
        for agent in 0..AGENTS {
            let (mut state, mut turns) = (agent, Turns::default());
            let (mut at, mut lasted, mut now) = (known[0].clone(), GOOD_SESSION, Duration::ZERO);
            while now < Duration::from_secs(120) {
                let turn = turns.after(&at, lasted, &known, draw(&mut state));
                now += turn.wait;
                (at, lasted) = (turn.endpoint, Duration::ZERO);
                *dials.entry((at.clone(), now.as_millis() / 100)).or_default() += 1;
            }
        }
        let busiest = |tenths: std::ops::Range<u128>| {
            let within = dials.iter().filter(|((_, tenth), _)| tenths.contains(tenth));
            within.map(|(_, count)| *count).max().unwrap_or(0)
        };
        assert!(busiest(0..10) <= AGENTS / 4, "{} of them dial one coordinator within 100 ms", busiest(0..10));
        assert!(busiest(600..1200) <= AGENTS / 100, "a minute later {} do", busiest(600..1200));
    }
}
