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

use coord_shared::ids::{ArchiveStoreId, HostId};
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
    /// Those whose archives lie in one place; of each by itself.
    EachTarget,
    /// Those of all the hosts that the selector means.
    Group(Selector),
}

/// Where archives lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A folder that several hosts may share.
    Store(ArchiveStoreId),
    /// A folder of which nothing is known but the host: it shares it with nobody.
    Of(HostId),
}

/// So many runs at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Whose.
    pub scope: Scope,
    /// At most.
    pub runs: u32,
}

/// A host as limits know it.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Which one.
    pub host: HostId,
    /// The folder that its archives lie in, where it is known.
    pub store: Option<ArchiveStoreId>,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

impl Member<'_> {
    /// Where its archives lie.
    #[must_use]
    pub fn target(&self) -> Target {
        self.store.map_or(Target::Of(self.host), Target::Store)
    }
}

/// What is left of every limit, in one pass along the queue.
#[derive(Debug)]
pub struct Slots {
    bounds: Vec<Bound>,
    rooms: Vec<Room>,
    /// The rooms of the bounds over the fleet and over groups, by the place of the bound.
    of_bounds: HashMap<usize, usize>,
    /// Those of each target.
    of_targets: HashMap<(usize, Target), usize>,
    hosts: HashMap<HostId, OfHost>,
}

/// What a bound counts over several hosts.
#[derive(Debug)]
struct Room {
    is_fleet: bool,
    is_target: bool,
    most: u64,
    used: u64,
    /// Whether the next place that comes free is promised to a run that this pass has met.
    promised: bool,
}

/// A host, and the rooms that its runs take a place in.
#[derive(Debug)]
struct OfHost {
    used: u64,
    rooms: Vec<usize>,
}

impl Slots {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(bounds: Vec<Bound>) -> Slots {
        let (mut rooms, mut of_bounds) = (Vec::new(), HashMap::new());
        for (number, bound) in bounds.iter().enumerate() {
            match bound.scope {
                Scope::Fleet | Scope::Group(_) => drop(of_bounds.insert(number, rooms.len())),
                Scope::EachHost | Scope::EachTarget => continue,
            }
            rooms.push(Room::of(bound));
        }
        Slots { bounds, rooms, of_bounds, of_targets: HashMap::new(), hosts: HashMap::new() }
    }

    /// Counts `runs` that a host has already, whether or not there is room for them.
    pub fn occupy(&mut self, member: &Member<'_>, runs: u64) {
        self.meet(member);
        if let Some(known) = self.hosts.get_mut(&member.host) {
            known.used = known.used.saturating_add(runs);
            for number in &known.rooms {
                if let Some(room) = self.rooms.get_mut(*number) {
                    room.used = room.used.saturating_add(runs);
                }
            }
        }
    }

    /// Whether one more run of the host may begin; if so, it is counted. Call it in the order of the queue.
    ///
    /// A run that only groups hold back has its places in the others, and at its target, kept for this pass, so that it begins when the
    /// full ones have room. To leave little room empty, each is waited for so by one run at a time. The fleet's needs no such place: when it
    /// is full nobody begins, so whatever else came free is still so when it has room. Nor does a full target keep one in a group: with a
    /// backlog it would be empty throughout; when the target has room, the run keeps that, and waits for the groups.
    pub fn admit(&mut self, member: &Member<'_>) -> bool {
        self.meet(member);
        let Some(known) = self.hosts.get(&member.host) else { return false };
        let of_host = |bound: &Bound| bound.scope == Scope::EachHost && known.used >= u64::from(bound.runs);
        if self.bounds.iter().any(of_host) {
            return false;
        }
        if self.rooms_of(&known.rooms).all(Room::has_place) {
            self.occupy(member, 1);
            return true;
        }
        let waits_well = |room: &Room| room.has_place() || !(room.is_fleet || room.is_target || room.promised);
        let waits_well = self.rooms_of(&known.rooms).all(waits_well);
        if waits_well {
            let rooms = known.rooms.clone();
            self.keep_places(&rooms);
        }
        false
    }

    /// Whether nothing more can begin on any host.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rooms.iter().any(|room| room.is_fleet && !room.has_place())
    }

    fn rooms_of(&self, numbers: &[usize]) -> impl Iterator<Item = &Room> {
        numbers.iter().filter_map(|number| self.rooms.get(*number))
    }

    fn keep_places(&mut self, numbers: &[usize]) {
        for number in numbers {
            if let Some(room) = self.rooms.get_mut(*number).filter(|room| !room.is_fleet) {
                room.promised = true;
                room.used += u64::from(room.has_place());
            }
        }
    }

    fn meet(&mut self, member: &Member<'_>) {
        if self.hosts.contains_key(&member.host) {
            return;
        }
        let mut rooms = Vec::new();
        for (number, bound) in self.bounds.iter().enumerate() {
            match &bound.scope {
                Scope::Group(selector) if !selector.matches(member.labels) => {}
                Scope::Fleet | Scope::Group(_) => rooms.extend(self.of_bounds.get(&number)),
                Scope::EachHost => {}
                Scope::EachTarget => {
                    let new = self.rooms.len();
                    let room = *self.of_targets.entry((number, member.target())).or_insert(new);
                    if room == new {
                        self.rooms.push(Room::of(bound));
                    }
                    rooms.push(room);
                }
            }
        }
        self.hosts.insert(member.host, OfHost { used: 0, rooms });
    }
}

impl Room {
    fn of(bound: &Bound) -> Room {
        Room {
            is_fleet: bound.scope == Scope::Fleet,
            is_target: bound.scope == Scope::EachTarget,
            most: u64::from(bound.runs),
            used: 0,
            promised: false,
        }
    }

    fn has_place(&self) -> bool {
        self.used < self.most
    }
}

#[cfg(test)]
mod tests;
