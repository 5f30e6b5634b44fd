//! On which night each full is taken, so that no night carries much more than the others.
//!
//! A job's fulls are at most `max_age_days` nights apart, on nights on which it has a due run. The plan keeps what was planned
//! before as long as the bound holds, and moves as few fulls as it takes when it does not: a new host finds a place of its own
//! and reshuffles nobody. Of the nights that are left to a job it takes the latest with room, since a full that is taken early is one
//! more; it is promoted to an earlier night rather than piled up.
//!
//! **The bound.** With B the larger of the mean night and the largest single full, the busiest night carries at most 1.15 × B, where
//! every job may run on every night of one common cycle and no more fulls than there are nights are larger than 0.15 × B. Why: the
//! large ones fit, one a night; and a small one always finds a night that carries B or less. Elsewhere (other cycles side by side, jobs
//! that run on few nights, few and large ones) the same is done as far as it goes, and [`Plan::is_within_bound`] says whether it went.
//!
//! Not here: when a run is due, and what a full is expected to store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use coord_shared::ids::JobId;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::timing::{Due, Pause};

/// Nights looked ahead at most: fulls that are due later are placed when they come nearer.
pub const MAX_NIGHTS: u32 = 92;

/// How much more than the larger of the mean and the largest full a night may carry, in percent.
pub const BOUND_PERCENT: u32 = 115;

/// A larger share of the bound's base than this, in percent, makes a full a large one.
const LARGE_PERCENT: u32 = BOUND_PERCENT - 100;

/// A job whose fulls are levelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelledJob {
    /// Its id; of equals, the lower is placed first.
    pub id: JobId,
    /// Bytes that its next full is expected to store.
    pub bytes: u64,
    /// The night that it is now.
    pub today: Date,
    /// The nights on which it has a due run that nothing holds back, from its next due run on, ascending.
    pub nights: Vec<Date>,
    /// The night up to which `nights` are known.
    pub until: Date,
    /// The night of its newest full.
    pub last_full: Option<Date>,
    /// Nights that two fulls may be apart.
    pub max_age_days: u32,
    /// Where its next full was planned before.
    pub planned: Option<Date>,
}

/// Why a full is planned where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placing {
    /// There is no full yet: the next run takes one.
    First,
    /// It was planned for a night that has gone by, and not taken: the next run takes it.
    Overdue,
    /// The last night that the age of the full allows.
    Latest,
    /// Earlier than its age asks for, because that night had more room.
    Promoted,
    /// Its runs are further apart than its fulls may be.
    OnlyNight,
    /// The newest full is older than it may be already: the next run takes one.
    TooOld,
}

impl Placing {
    /// The reason, to follow the sentence that says on which night it is.
    pub const fn as_phrase(self) -> &'static str {
        match self {
            Placing::First => "there is no full yet",
            Placing::Overdue => "it was not taken on its night",
            Placing::Latest => "the last night that the age of the newest full allows",
            Placing::Promoted => "earlier than the age of the newest full asks for, because that night had more room",
            Placing::OnlyNight => "its runs are further apart than its fulls may be",
            Placing::TooOld => "the newest full is older than it may be already",
        }
    }
}

/// The next full of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Of which job.
    pub job: JobId,
    /// The night that it is planned for.
    pub night: Date,
    /// Why there.
    pub placing: Placing,
    /// Whether it was planned for another night before, or for none.
    pub moved: bool,
}

/// Where the fulls are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The next full of each job, by job; without those whose full is due later than can be seen.
    pub next: Vec<Placed>,
    /// What each night of the cycle carries.
    pub nights: BTreeMap<Date, u64>,
    /// What no night should carry more than.
    pub bound: u64,
}

impl Plan {
    /// Whether no night carries more than the bound.
    pub fn is_within_bound(&self) -> bool {
        self.nights.values().all(|bytes| *bytes <= self.bound)
    }
}

/// The fulls of a job from its next one on, as far as its nights are known: each on the last night that the age of the one
/// before allows, or on the first after it.
pub fn fulls_from(job: &LevelledJob, next: Date) -> Vec<Date> {
    let mut fulls = vec![next];
    let mut last = next;
    let mut later = job.nights.iter().copied().filter(|night| *night > next).peekable();
    while let Some(mut night) = later.next() {
        let latest = deadline(last, job.max_age_days);
        while let Some(still) = later.next_if(|night| *night <= latest) {
            night = still;
        }
        // A later one may be allowed that is not known yet.
        if later.peek().is_none() && job.until < latest {
            break;
        }
        fulls.push(night);
        last = night;
    }
    fulls
}

/// The nights on which a run is due after `now` and may begin, also by these pauses, [`MAX_NIGHTS`] ahead, and the last night that was
/// looked at.
pub fn nights_of(runs: &Due<'_>, pauses: &[Pause], now: Timestamp) -> (Vec<Date>, Date) {
    let zone = runs.zone();
    let today = now.to_zoned(zone.clone()).date();
    let until = today.checked_add(i64::from(MAX_NIGHTS).days()).unwrap_or(Date::MAX);
    let mut nights = Vec::new();
    let mut due = next_begun(runs, pauses, now);
    while let Some(night) = due.map(|due| due.to_zoned(zone.clone()).date()).filter(|night| *night <= until) {
        nights.push(night);
        // The others of this night say nothing new.
        let over = night.tomorrow().ok().and_then(|next| next.to_zoned(zone.clone()).ok());
        due = over.and_then(|over| next_begun(runs, pauses, over.timestamp() - SignedDuration::from_nanos(1)));
    }
    (nights, until)
}

/// The first due instant after `after` that nothing holds back; none when a pause without an end does.
fn next_begun(runs: &Due<'_>, pauses: &[Pause], after: Timestamp) -> Option<Timestamp> {
    let mut due = runs.next_run_after(after)?;
    while let Some(pause) = pauses.iter().find(|pause| pause.from <= due && due < pause.until) {
        due = runs.next_run_after(pause.ends_at()? - SignedDuration::from_nanos(1))?;
    }
    Some(due)
}

/// The last night that a full after that of `last` may be taken on.
fn deadline(last: Date, max_age_days: u32) -> Date {
    last.checked_add(i64::from(max_age_days).days()).unwrap_or(Date::MAX)
}

/// Plans the next full of every job. The same jobs, in any order, give the same plan; what was planned stays as long as the bound
/// holds.
pub fn plan(jobs: &[LevelledJob]) -> Plan {
    let mut movable: Vec<Movable<'_>> = jobs.iter().filter_map(Movable::new).collect();
    movable.sort_by_key(|job| job.job.id);
    let mut cycle = Cycle::new(&movable);
    let mut unplaced = Vec::new();
    for (index, job) in movable.iter_mut().enumerate() {
        if let [only] = job.candidates.as_slice() {
            job.chosen = Some(*only);
        }
        match job.chosen {
            Some(night) => cycle.add(job.job, night),
            None => unplaced.push(index),
        }
    }
    let bound = cycle.bound_with(unplaced.iter().filter_map(|index| movable.get(*index)));
    unplaced.sort_by_key(|index| movable.get(*index).map(|job| (Reverse(job.job.bytes), job.job.id)));
    for index in unplaced {
        let Some(job) = movable.get_mut(index) else { continue };
        let latest_first = || job.candidates.iter().rev().copied();
        let roomy = latest_first().find(|night| cycle.with(job.job, *night) <= bound);
        // Of equals the first, which is the latest.
        let Some(night) = roomy.or_else(|| latest_first().min_by_key(|night| cycle.with(job.job, *night))) else {
            continue;
        };
        cycle.add(job.job, night);
        job.chosen = Some(night);
    }
    level(&mut movable, &mut cycle);
    let next = movable.iter().filter_map(Movable::placed).collect();
    Plan { next, bound: cycle.bound(), nights: cycle.nights }
}

/// Moves fulls away from nights that carry more than the bound, until none does or nothing helps.
fn level(jobs: &mut [Movable<'_>], cycle: &mut Cycle) {
    let mut spread: BTreeSet<JobId> = BTreeSet::new();
    // Each move relieves a night or spreads a large full, once; this is only against an error in that argument.
    for _ in 0..jobs.len().saturating_mul(4) {
        let bound = cycle.bound();
        let over = cycle.over(bound);
        let helps = over.iter().find_map(|night| relief(jobs, cycle, *night, bound));
        let found = helps.or_else(|| over.iter().find_map(|night| spreading(jobs, cycle, *night, &spread)));
        let Some((index, night)) = found else { return };
        let Some(job) = jobs.get_mut(index) else { return };
        if helps.is_none() {
            spread.insert(job.job.id);
        }
        if let Some(before) = job.chosen.replace(night) {
            cycle.remove(job.job, before);
        }
        cycle.add(job.job, night);
    }
}

/// The best move that relieves a night: one to where it stays within the bound; of those the smallest that is enough, else the largest.
fn relief(jobs: &[Movable<'_>], cycle: &Cycle, night: Date, bound: u64) -> Option<(usize, Date)> {
    let carried = cycle.at(night);
    let mut best = None;
    for (index, job, chosen) in on_night(jobs, cycle, night) {
        let bytes = job.job.bytes;
        let is_enough = carried.saturating_sub(bytes) <= bound;
        for candidate in job.candidates.iter().copied().filter(|candidate| *candidate != chosen) {
            let Some(peak) = cycle.moved(job.job, chosen, candidate).filter(|peak| *peak < carried) else { continue };
            let size = if is_enough { bytes } else { u64::MAX - bytes };
            let rank = (peak > bound, !is_enough, size, peak, Reverse(candidate), job.job.id);
            if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                best = Some((rank, (index, candidate)));
            }
        }
    }
    best.map(|(_, found)| found)
}

/// Takes the smaller of two large fulls of a night to one that has none; small ones make room there afterwards.
fn spreading(jobs: &[Movable<'_>], cycle: &Cycle, night: Date, spread: &BTreeSet<JobId>) -> Option<(usize, Date)> {
    let large = percent_of(cycle.base(), LARGE_PERCENT);
    let is_large = |job: &Movable<'_>| job.job.bytes > large;
    let mut here: Vec<_> = on_night(jobs, cycle, night).filter(|(_, job, _)| is_large(job)).collect();
    if here.len() < 2 {
        return None;
    }
    here.sort_by_key(|(_, job, _)| (job.job.bytes, job.job.id));
    let taken: BTreeSet<Date> = jobs
        .iter()
        .filter(|job| is_large(job))
        .filter_map(|job| Some(cycle.fulls(job.job, job.chosen?)))
        .flatten()
        .collect();
    here.into_iter().filter(|(_, job, _)| !spread.contains(&job.job.id)).find_map(|(index, job, _)| {
        let free = job.candidates.iter().filter(|candidate| !taken.contains(candidate));
        let to = free.min_by_key(|candidate| (cycle.at(**candidate), Reverse(**candidate)))?;
        Some((index, *to))
    })
}

/// The jobs that take a full on a night.
fn on_night<'a>(
    jobs: &'a [Movable<'a>],
    cycle: &'a Cycle,
    night: Date,
) -> impl Iterator<Item = (usize, &'a Movable<'a>, Date)> {
    jobs.iter().enumerate().filter_map(move |(index, job)| {
        let chosen = job.chosen.filter(|_| job.candidates.len() > 1)?;
        cycle.fulls(job.job, chosen).contains(&night).then_some((index, job, chosen))
    })
}

fn percent_of(bytes: u64, percent: u32) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// A job with the nights that its next full may be taken on.
struct Movable<'a> {
    job: &'a LevelledJob,
    /// Ascending, and never empty; one alone cannot be moved.
    candidates: Vec<Date>,
    chosen: Option<Date>,
    /// Why there, where the job has no choice.
    fixed: Option<Placing>,
}

impl<'a> Movable<'a> {
    /// `None` when nothing is due in the nights that are known.
    fn new(job: &'a LevelledJob) -> Option<Self> {
        let first = *job.nights.first()?;
        let fixed = |night: Date, placing: Placing| Movable {
            job,
            candidates: vec![night],
            chosen: None,
            fixed: Some(placing),
        };
        let Some(last) = job.last_full else { return Some(fixed(first, Placing::First)) };
        // Its run is under way, or it waits for the next one. Either way it is off the nights ahead until its next full. A night that
        // is still to come and has no run any more, because a pause was set, is planned anew instead.
        let has_come = |planned: &Date| *planned < first && *planned > last && *planned <= job.today;
        if let Some(planned) = job.planned.filter(has_come) {
            return Some(fixed(planned, Placing::Overdue));
        }
        let latest = deadline(last, job.max_age_days);
        let after = || job.nights.iter().copied().filter(|night| *night > last);
        let candidates: Vec<Date> = after().filter(|night| *night <= latest).collect();
        if candidates.is_empty() {
            let night = after().next()?;
            let placing = if latest < job.today { Placing::TooOld } else { Placing::OnlyNight };
            return Some(fixed(night, placing));
        }
        let chosen = job.planned.filter(|planned| candidates.contains(planned));
        // What is due later than can be seen has time: it is placed when its last night comes into sight.
        (job.until >= latest || chosen.is_some()).then_some(Movable { job, candidates, chosen, fixed: None })
    }

    fn placed(&self) -> Option<Placed> {
        let chosen = self.chosen?;
        let is_latest = self.candidates.last() == Some(&chosen);
        let placing = self.fixed.unwrap_or(if is_latest { Placing::Latest } else { Placing::Promoted });
        Some(Placed { job: self.job.id, night: chosen, placing, moved: self.job.planned != Some(chosen) })
    }
}

/// The nights of one cycle and what they carry.
struct Cycle {
    nights: BTreeMap<Date, u64>,
    start: Date,
    end: Date,
    largest: u64,
}

impl Cycle {
    /// The nights of the longest cycle on which any job runs.
    fn new(jobs: &[Movable<'_>]) -> Self {
        let start = jobs.iter().filter_map(|job| job.job.nights.first().copied()).min().unwrap_or(Date::MAX);
        let length = jobs.iter().map(|job| job.job.max_age_days).max().unwrap_or(1).clamp(1, MAX_NIGHTS);
        let end = start.checked_add(i64::from(length - 1).days()).unwrap_or(Date::MAX);
        let nights = jobs.iter().flat_map(|job| job.job.nights.iter().copied()).filter(|night| *night <= end);
        let largest = jobs.iter().map(|job| job.job.bytes).max().unwrap_or(0);
        Self { nights: nights.map(|night| (night, 0)).collect(), start, end, largest }
    }

    fn at(&self, night: Date) -> u64 {
        self.nights.get(&night).copied().unwrap_or(0)
    }

    /// The nights of the cycle on which a job takes fulls whose next one is on `next`.
    fn fulls(&self, job: &LevelledJob, next: Date) -> Vec<Date> {
        let mut fulls = fulls_from(job, next);
        fulls.retain(|night| (self.start..=self.end).contains(night));
        fulls
    }

    fn add(&mut self, job: &LevelledJob, next: Date) {
        for night in self.fulls(job, next) {
            let bytes = self.nights.entry(night).or_default();
            *bytes = bytes.saturating_add(job.bytes);
        }
    }

    fn remove(&mut self, job: &LevelledJob, next: Date) {
        for night in self.fulls(job, next) {
            let bytes = self.nights.entry(night).or_default();
            *bytes = bytes.saturating_sub(job.bytes);
        }
    }

    /// What the busiest night would carry on which a job takes fulls that is not counted yet.
    fn with(&self, job: &LevelledJob, next: Date) -> u64 {
        self.fulls(job, next).into_iter().map(|night| self.at(night).saturating_add(job.bytes)).max().unwrap_or(0)
    }

    /// The same of a job that is counted at `from`; `None` when it takes fulls on the same nights as before.
    fn moved(&self, job: &LevelledJob, from: Date, to: Date) -> Option<u64> {
        let (before, after) = (self.fulls(job, from), self.fulls(job, to));
        if before == after {
            return None;
        }
        let carried = |night: Date| {
            let own = if before.contains(&night) { 0 } else { job.bytes };
            self.at(night).saturating_add(own)
        };
        Some(after.into_iter().map(carried).max().unwrap_or(0))
    }

    /// The larger of the mean night and the largest full.
    fn base(&self) -> u64 {
        self.base_of(self.nights.values().map(|bytes| u128::from(*bytes)).sum())
    }

    fn base_of(&self, total: u128) -> u64 {
        let count = u128::try_from(self.nights.len().max(1)).unwrap_or(1);
        u64::try_from(total.div_ceil(count)).unwrap_or(u64::MAX).max(self.largest)
    }

    fn bound(&self) -> u64 {
        percent_of(self.base(), BOUND_PERCENT)
    }

    /// The bound when these are counted too, each on its latest night.
    fn bound_with<'a>(&self, more: impl Iterator<Item = &'a Movable<'a>>) -> u64 {
        let counted: u128 = self.nights.values().map(|bytes| u128::from(*bytes)).sum();
        let more = more.filter_map(|job| {
            let fulls = self.fulls(job.job, *job.candidates.last()?).len();
            Some(u128::from(job.job.bytes) * u128::try_from(fulls).unwrap_or(0))
        });
        percent_of(self.base_of(counted + more.sum::<u128>()), BOUND_PERCENT)
    }

    /// The nights that carry more than the bound, busiest first.
    fn over(&self, bound: u64) -> Vec<Date> {
        let mut over: Vec<(u64, Date)> =
            self.nights.iter().filter(|(_, bytes)| **bytes > bound).map(|(night, bytes)| (*bytes, *night)).collect();
        over.sort_by_key(|(bytes, night)| (Reverse(*bytes), *night));
        over.into_iter().map(|(_, night)| night).collect()
    }
}

#[cfg(test)]
mod tests;
