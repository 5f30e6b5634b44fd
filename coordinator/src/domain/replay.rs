//! Recorded history under another policy: the engine decides again for every run that was, at the instant it was and on the figures its scan
//! found, and what it would have stored is counted.
//!
//! **What is exact, and what is not.** As long as the replay stands on the same full as history did, the figures of the scans are those of
//! this question, and a run whose level is the same stored what it stored. After the two part, a differential has another base
//! than the one that was scanned against: its size goes by how fast the differentials of this history grew with their age, its
//! time by measured paces, and what compression makes of it by the ratios of the level. Every run like that is marked. Other sources,
//! excludes, codecs and due times leave no trace in history at all, and are not replayed.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use coord_shared::ids::BackupId;
use coord_shared::level::Level;

use super::decision::{Decision, FullFacts, Inputs, Rule, Rules, ScanFacts, after_scan, before_scan};
use super::rates::{Rates, Work};

/// A backup run that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// What the engine was told before the scan.
    pub inputs: Inputs,
    /// What the agent's scan told it, where it was asked.
    pub scan: Option<ScanFacts>,
    /// The backup that it left.
    pub left: LeftBackup,
}

/// A backup, as far as a replay looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftBackup {
    /// Its id.
    pub id: BackupId,
    /// Its level.
    pub level: Level,
    /// Its time.
    pub captured_at: Timestamp,
    /// Bytes of the sources.
    pub source_bytes: u64,
    /// Content in its archive, before compression; 0 where nothing had changed and none was stored.
    pub content_bytes: u64,
    /// Size of its archive; 0 without one.
    pub stored_bytes: u64,
    /// Milliseconds that it took.
    pub ms: u64,
}

/// A run as it was, or as it would have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// When the engine decided.
    pub at: Timestamp,
    /// The day of that in the policy's zone.
    pub night: Date,
    /// The level.
    pub level: Level,
    /// By which rule.
    pub rule: Rule,
    /// The rule in a sentence.
    pub reason: String,
    /// Size of its archive.
    pub stored_bytes: u64,
    /// Milliseconds; none while nothing like it was measured.
    pub ms: Option<u64>,
    /// Milliseconds that a restore of what it left is expected to take.
    pub restore_ms: Option<u64>,
    /// Some of these figures are not recorded ones.
    pub is_estimated: bool,
}

/// What is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Fulls among them.
    pub fulls: u64,
    /// Bytes of their archives.
    pub stored_bytes: u64,
    /// Milliseconds of all runs whose time is known.
    pub ms: u64,
    /// Those of the busiest night, all its runs one after the other.
    pub busiest_ms: u64,
    /// That night.
    pub busiest_night: Option<Date>,
    /// The longest restore that would have been needed.
    pub longest_restore_ms: Option<u64>,
    /// Runs with figures that are not recorded ones.
    pub estimated: u64,
}

/// The rules of another policy.
#[derive(Debug, Clone)]
pub struct Under {
    /// What decides the level.
    pub rules: Rules,
    /// Where its days are.
    pub zone: TimeZone,
    /// Where fulls would have been planned, ascending; matters only where they are levelled.
    pub full_nights: Vec<Date>,
    /// What the job has measured until now.
    pub rates: Rates,
}

/// A job's history as it was, oldest first.
pub fn as_recorded(history: &[Recorded], zone: &TimeZone, rates: &Rates) -> Vec<Replayed> {
    let mut full_bytes =
        history.first().and_then(|first| first.inputs.full.as_ref()).map_or(0, |full| full.source_bytes);
    let mut differential_bytes = 0;
    let told = |recorded: &Recorded| {
        let before = before_scan(&recorded.inputs);
        match recorded.scan {
            Some(scan) if before.level == Level::Differential => after_scan(&before, &recorded.inputs, &scan),
            Some(_) | None => before,
        }
    };
    history
        .iter()
        .map(|recorded| {
            let (left, decision) = (&recorded.left, told(recorded));
            (full_bytes, differential_bytes) = match left.level {
                Level::Full => (left.source_bytes, 0),
                Level::Differential if left.content_bytes > 0 => (full_bytes, left.content_bytes),
                Level::Differential => (full_bytes, differential_bytes),
            };
            Replayed {
                at: recorded.inputs.now.timestamp(),
                night: recorded.inputs.now.timestamp().to_zoned(zone.clone()).date(),
                level: left.level,
                rule: decision.rule,
                reason: decision.reason,
                stored_bytes: left.stored_bytes,
                ms: Some(left.ms),
                restore_ms: restore_ms(rates, full_bytes, differential_bytes),
                is_estimated: false,
            }
        })
        .collect()
}

/// The same history under other rules.
pub fn replay(history: &[Recorded], under: &Under) -> Vec<Replayed> {
    let past = Past::of(history);
    let mut full: Option<FullFacts> = history.first().and_then(|first| first.inputs.full.clone());
    let mut differential_bytes = 0;
    let mut replayed = Vec::with_capacity(history.len());
    for recorded in history {
        let theirs = recorded.inputs.full.as_ref();
        let same_base = full.as_ref().map(|full| full.backup) == theirs.map(|full| full.backup);
        // What history lost, damaged or to another selection, is lost here too.
        full = if same_base || theirs.is_none() { theirs.cloned() } else { full };
        let run = Run { recorded, under, past: &past, full: full.as_ref(), same_base };
        let Judged { decision, changed, is_guess } = run.decide();
        let (outcome, night) = (run.outcome(decision.level, changed), run.inputs().now.date());
        match decision.level {
            Level::Full => {
                full = Some(FullFacts {
                    backup: recorded.left.id,
                    captured_at: recorded.left.captured_at,
                    source_bytes: recorded.left.source_bytes,
                    stored_bytes: outcome.stored,
                    differentials: Vec::new(),
                });
                differential_bytes = 0;
            }
            Level::Differential if outcome.content > 0 => {
                differential_bytes = outcome.content;
                if let Some(full) = full.as_mut() {
                    full.differentials.push(outcome.content);
                }
            }
            Level::Differential => {}
        }
        let full_bytes = full.as_ref().map_or(0, |full| full.source_bytes);
        replayed.push(Replayed {
            at: recorded.inputs.now.timestamp(),
            night,
            level: decision.level,
            rule: decision.rule,
            reason: decision.reason,
            stored_bytes: outcome.stored,
            ms: outcome.ms,
            restore_ms: restore_ms(&under.rates, full_bytes, differential_bytes),
            is_estimated: is_guess || !outcome.is_recorded,
        });
    }
    replayed
}

fn restore_ms(rates: &Rates, full_bytes: u64, differential_bytes: u64) -> Option<u64> {
    rates.restore(full_bytes.saturating_add(differential_bytes)).map(|restore| restore.ms)
}

/// What runs come to together, of one job or of several.
pub fn totals<'a>(runs: impl IntoIterator<Item = &'a Replayed>) -> Totals {
    let mut totals = Totals::default();
    let mut nights = std::collections::BTreeMap::<Date, u64>::new();
    for run in runs {
        let ms = run.ms.unwrap_or(0);
        totals.runs += 1;
        totals.fulls += u64::from(run.level == Level::Full);
        totals.stored_bytes = totals.stored_bytes.saturating_add(run.stored_bytes);
        totals.ms = totals.ms.saturating_add(ms);
        totals.longest_restore_ms = totals.longest_restore_ms.max(run.restore_ms);
        totals.estimated += u64::from(run.is_estimated);
        let night = nights.entry(run.night).or_default();
        *night = night.saturating_add(ms);
    }
    if let Some((night, ms)) = nights.into_iter().rev().max_by_key(|(_, ms)| *ms) {
        (totals.busiest_night, totals.busiest_ms) = (Some(night), ms);
    }
    totals
}

/// What the whole of a history lets expect where nothing was recorded.
struct Past {
    /// Content of differentials, and the milliseconds that their fulls were old: how fast they grow.
    growth: Work,
    /// Size of the archives of fulls against their content.
    full: Ratio,
    /// The same of differentials.
    differential: Ratio,
}

/// Archive against content.
#[derive(Clone, Copy, Default)]
struct Ratio {
    content: u64,
    stored: u64,
}

impl Ratio {
    fn add(&mut self, content: u64, stored: u64) {
        self.content = self.content.saturating_add(content);
        self.stored = self.stored.saturating_add(stored);
    }

    fn stored(self, content: u64) -> Option<u64> {
        let stored = (u128::from(content) * u128::from(self.stored)).checked_div(u128::from(self.content))?;
        Some(u64::try_from(stored).unwrap_or(u64::MAX))
    }
}

impl Past {
    fn of(history: &[Recorded]) -> Self {
        let mut past = Past { growth: Work::default(), full: Ratio::default(), differential: Ratio::default() };
        for recorded in history {
            let left = &recorded.left;
            match (left.level, &recorded.inputs.full) {
                (Level::Full, _) => past.full.add(left.content_bytes, left.stored_bytes),
                (Level::Differential, Some(full)) if left.content_bytes > 0 => {
                    past.differential.add(left.content_bytes, left.stored_bytes);
                    let age = milliseconds(full.captured_at, left.captured_at);
                    past.growth = past.growth.and(Work { bytes: left.content_bytes, ms: age });
                }
                (Level::Differential, _) => {}
            }
        }
        // No full in the time that is looked at: the one before it.
        if let Some(full) =
            history.first().and_then(|first| first.inputs.full.as_ref()).filter(|_| past.full.content == 0)
        {
            past.full.add(full.source_bytes, full.stored_bytes);
        }
        past
    }

    /// The content of a differential whose full is `age` milliseconds old; none when none was ever recorded.
    fn growth(&self, age: u64) -> Option<u64> {
        let bytes = (u128::from(age) * u128::from(self.growth.bytes)).checked_div(u128::from(self.growth.ms))?;
        Some(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    fn stored(&self, level: Level, content: u64) -> u64 {
        let (own, other) = match level {
            Level::Full => (self.full, self.differential),
            Level::Differential => (self.differential, self.full),
        };
        own.stored(content).or_else(|| other.stored(content)).unwrap_or(content)
    }
}

fn milliseconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis().max(0)).unwrap_or(u64::MAX)
}

/// One run of the replay.
struct Run<'a> {
    recorded: &'a Recorded,
    under: &'a Under,
    past: &'a Past,
    /// The full that a differential would stand on.
    full: Option<&'a FullFacts>,
    /// That full is the one that history stood on.
    same_base: bool,
}

/// What the engine would have said.
struct Judged {
    decision: Decision,
    /// The content that a differential would have stored.
    changed: Option<u64>,
    /// That is not what a scan found.
    is_guess: bool,
}

/// What a run would have left.
struct Outcome {
    content: u64,
    stored: u64,
    ms: Option<u64>,
    is_recorded: bool,
}

impl Run<'_> {
    fn inputs(&self) -> Inputs {
        let now = self.recorded.inputs.now.with_time_zone(self.under.zone.clone());
        let inputs = Inputs {
            now,
            rules: self.under.rules,
            full: self.full.cloned(),
            rates: self.under.rates,
            ..self.recorded.inputs.clone()
        };
        let day = inputs.day();
        let planned_full = self.under.full_nights.iter().copied().rfind(|night| *night <= day);
        Inputs { planned_full, ..inputs }
    }

    fn decide(&self) -> Judged {
        let (inputs, left, known) = (self.inputs(), &self.recorded.left, self.recorded.scan);
        let before = before_scan(&inputs);
        if before.level == Level::Full {
            return Judged { decision: before, changed: None, is_guess: false };
        }
        // The agent went on alone with the level that it had been given.
        if self.same_base && known.is_none() && left.level == Level::Differential {
            return Judged { decision: before, changed: Some(left.content_bytes), is_guess: false };
        }
        let exact = known.filter(|_| self.same_base);
        let changed_bytes = exact.map_or_else(|| self.estimate(), |scan| scan.changed_bytes);
        let scan = ScanFacts {
            source_bytes: known.map_or(left.source_bytes, |scan| scan.source_bytes),
            changed_bytes,
            equals_newest: known.is_some_and(|scan| scan.equals_newest),
            selection_changed: known.is_some_and(|scan| scan.selection_changed),
            base_unavailable: known.is_some_and(|scan| scan.base_unavailable),
        };
        let mut decision = after_scan(&before, &inputs, &scan);
        if exact.is_none() {
            decision.reason.push_str(" (estimated: no scan was compared with this full)");
        }
        let stores = if scan.equals_newest { 0 } else { changed_bytes };
        Judged { decision, changed: Some(stores), is_guess: exact.is_none() }
    }

    /// The content that had changed since a full that history did not stand on. Never more than all of it, nor than had changed since
    /// an older full; all of it when no differential was ever recorded.
    fn estimate(&self) -> u64 {
        let left = &self.recorded.left;
        let Some(full) = self.full else { return left.source_bytes };
        let grown = self.past.growth(milliseconds(full.captured_at, left.captured_at)).unwrap_or(left.source_bytes);
        let older = self.recorded.inputs.full.as_ref().filter(|theirs| theirs.captured_at <= full.captured_at);
        let since_older = older.and(self.recorded.scan).map_or(u64::MAX, |scan| scan.changed_bytes);
        grown.min(left.source_bytes).min(since_older)
    }

    fn outcome(&self, level: Level, changed: Option<u64>) -> Outcome {
        let left = &self.recorded.left;
        if level == left.level && (level == Level::Full || self.same_base) {
            return Outcome {
                content: left.content_bytes,
                stored: left.stored_bytes,
                ms: Some(left.ms),
                is_recorded: true,
            };
        }
        let content = match level {
            Level::Full => left.source_bytes,
            Level::Differential => changed.unwrap_or(0),
        };
        Outcome {
            content,
            stored: self.past.stored(level, content),
            ms: self.under.rates.backup_ms(level, content),
            is_recorded: false,
        }
    }
}

#[cfg(test)]
mod tests;
