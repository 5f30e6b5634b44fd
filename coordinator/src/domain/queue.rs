//! Which of the waiting runs begin next: the order in which they wait, and the limits that hold them back.
//!
//! The order is that of [`Place::rank`]: a point of priority is worth [`POINT`] of waiting, and nothing else counts. Two runs that wait
//! therefore never change places, and whoever becomes due later than the longest possible head start is behind for good: waiting
//! ends, whatever the others' priorities are.
//!
//! Where hosts are in several groups, the order alone would not end it: places in two groups that never come free in the same moment
//! would go to others for ever. So whoever waits for a full group keeps its places in the others: see [`Slots::admit`].
//!
//! Limits bound what the schedule does. A restore is somebody who waits: no limit holds it back, and it counts in none.
//!
//! Not here: which runs are due and which hosts can be reached (the catalog knows).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use coord_shared::ids::HostId;
use coord_shared::selector::Selector;

/// The waiting that a point of priority makes up for.
pub const POINT: Duration = Duration::from_secs(300);

/// Where a run stands among those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Since when it waits, in milliseconds since 1970.
    pub since_ms: i64,
    /// Higher goes first.
    pub priority: i32,
}

impl Place {
    /// The lowest begins first.
    #[must_use]
    pub fn rank(self) -> i64 {
        self.since_ms.saturating_sub(i64::from(self.priority).saturating_mul(point_ms()))
    }
}

/// [`POINT`] in milliseconds.
#[must_use]
pub fn point_ms() -> i64 {
    i64::try_from(POINT.as_millis()).unwrap_or(i64::MAX)
}

/// Which runs a limit counts together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of the fleet.
    Fleet,
    /// Those of one host; of each by itself.
    EachHost,
    /// Those of all the hosts that the selector means.
    Group(Selector),
}

/// So many runs at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Whose.
    pub scope: Scope,
    /// At most.
    pub runs: u32,
}

/// What is left of every limit, in one pass along the queue.
#[derive(Debug)]
pub struct Slots {
    bounds: Vec<Bound>,
    /// What each bound counts; those of each host have their own.
    used: Vec<u64>,
    /// Whether the next place in a bound that comes free is promised to a run that this pass has met.
    promised: Vec<bool>,
    hosts: HashMap<HostId, OfHost>,
}

/// A host as the limits see it.
#[derive(Debug)]
struct OfHost {
    used: u64,
    /// The bounds over more than one host that count its runs.
    shared: Vec<usize>,
}

impl Slots {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(bounds: Vec<Bound>) -> Slots {
        Slots { used: vec![0; bounds.len()], promised: vec![false; bounds.len()], bounds, hosts: HashMap::new() }
    }

    /// Counts `runs` that a host has already, whether or not there is room for them.
    pub fn occupy(&mut self, host: HostId, labels: &BTreeMap<String, String>, runs: u64) {
        self.meet(host, labels);
        if let Some(known) = self.hosts.get_mut(&host) {
            known.used = known.used.saturating_add(runs);
            for bound in &known.shared {
                if let Some(used) = self.used.get_mut(*bound) {
                    *used = used.saturating_add(runs);
                }
            }
        }
    }

    /// Whether one more run of the host may begin; if so, it is counted. Call it in the order of the queue.
    ///
    /// A run that only groups hold back has its places in the other groups of its host kept for this pass, so that it begins when the
    /// full ones have room. To leave little room empty, a bound is waited for so by one run at a time. The fleet's needs no such place: when it
    /// is full nobody begins, so whatever else came free is still so when it has room.
    pub fn admit(&mut self, host: HostId, labels: &BTreeMap<String, String>) -> bool {
        self.meet(host, labels);
        let Some(known) = self.hosts.get(&host) else { return false };
        let of_host = |bound: &Bound| bound.scope == Scope::EachHost && known.used >= u64::from(bound.runs);
        if self.bounds.iter().any(of_host) {
            return false;
        }
        let full: Vec<usize> = known.shared.iter().copied().filter(|number| self.has_no_room(*number)).collect();
        if full.is_empty() {
            self.occupy(host, labels, 1);
            return true;
        }
        let shared = known.shared.clone();
        self.keep_places(&shared, &full);
        false
    }

    fn has_no_room(&self, number: usize) -> bool {
        let (bound, used) = (self.bounds.get(number), self.used.get(number));
        bound.zip(used).is_none_or(|(bound, used)| *used >= u64::from(bound.runs))
    }

    /// For a run that all of `shared` count and that `full` of them hold back.
    fn keep_places(&mut self, shared: &[usize], full: &[usize]) {
        let is_group = |number: &usize| self.bounds.get(*number).is_some_and(|bound| bound.scope != Scope::Fleet);
        let is_promised = |number: &usize| self.promised.get(*number).copied().unwrap_or(true);
        if !full.iter().all(is_group) || full.iter().any(is_promised) {
            return;
        }
        for number in shared.iter().copied().filter(is_group).collect::<Vec<usize>>() {
            if let (Some(promised), Some(used)) = (self.promised.get_mut(number), self.used.get_mut(number)) {
                *promised = true;
                *used = used.saturating_add(u64::from(!full.contains(&number)));
            }
        }
    }

    /// Whether nothing more can begin on any host.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let fleet = |bound: &Bound| bound.scope == Scope::Fleet;
        self.bounds.iter().zip(&self.used).any(|(bound, used)| fleet(bound) && *used >= u64::from(bound.runs))
    }

    fn meet(&mut self, host: HostId, labels: &BTreeMap<String, String>) {
        if self.hosts.contains_key(&host) {
            return;
        }
        let counts = |bound: &Bound| match &bound.scope {
            Scope::Fleet => true,
            Scope::EachHost => false,
            Scope::Group(selector) => selector.matches(labels),
        };
        let shared = self.bounds.iter().enumerate().filter(|(_, bound)| counts(bound)).map(|(number, _)| number);
        let known = OfHost { used: 0, shared: shared.collect() };
        self.hosts.insert(host, known);
    }
}

#[cfg(test)]
mod tests;
