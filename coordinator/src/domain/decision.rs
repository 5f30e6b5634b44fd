//! The decision engine: full or differential, and why.
//!
//! Owns the order of the rules and the sentence that explains each: a decision is stored with its inputs and the options not
//! taken, so that it can be asked for later and replayed. Before the scan it goes by history; after the scan the agent's exact
//! figures replace the estimate and may raise the level, never lower it.
//!
//! An operator who asks for a level gets it: a differential asked for becomes a full only where there is nothing to stand on.

use std::fmt;

use coord_shared::ids::BackupId;
use coord_shared::level::Level;
use jiff::civil::{Date, Weekday};
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use super::chain::percent;
use super::policy::{FullDay, Policy, weekday_name};
use super::rates::Rates;

/// When a decision is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// By history, when the run is leased.
    BeforeScan,
    /// By the agent's exact figures.
    AfterScan,
}

/// Which rule decided. The words are stable: scripts and alerts match on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// An operator asked for this level.
    AskedByOperator,
    /// The run is due on the day of the full, and none was taken since that day began.
    ScheduledFullDay,
    /// The plan over the fleet gives this job its full on this night, and none was taken since it came.
    LevelledFullNight,
    /// There is no full to stand on.
    NoFull,
    /// The fulls there are were taken with other sources or excludes.
    SelectionChanged,
    /// The full is older than the policy allows.
    FullTooOld,
    /// The differential is expected to be larger than the threshold.
    EstimateOverThreshold,
    /// The chain's newest differential was larger than the threshold already.
    ChainOverThreshold,
    /// None of the reasons for a full holds.
    Differential,
    /// After the scan: the differential would be larger than the threshold.
    ExactOverThreshold,
    /// After the scan: the archive of the full cannot be read on the host.
    BaseUnavailable,
    /// After the scan: the level decided before stands.
    Confirmed,
}

impl Stage {
    /// Both stages.
    pub const ALL: [Stage; 2] = [Stage::BeforeScan, Stage::AfterScan];

    /// The word in SQL and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::BeforeScan => "before_scan",
            Stage::AfterScan => "after_scan",
        }
    }
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 12] = [
        Rule::AskedByOperator,
        Rule::ScheduledFullDay,
        Rule::LevelledFullNight,
        Rule::NoFull,
        Rule::SelectionChanged,
        Rule::FullTooOld,
        Rule::EstimateOverThreshold,
        Rule::ChainOverThreshold,
        Rule::Differential,
        Rule::ExactOverThreshold,
        Rule::BaseUnavailable,
        Rule::Confirmed,
    ];

    /// The word in SQL, JSON and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Rule::AskedByOperator => "asked_by_operator",
            Rule::ScheduledFullDay => "scheduled_full_day",
            Rule::LevelledFullNight => "levelled_full_night",
            Rule::NoFull => "no_full",
            Rule::SelectionChanged => "selection_changed",
            Rule::FullTooOld => "full_too_old",
            Rule::EstimateOverThreshold => "estimate_over_threshold",
            Rule::ChainOverThreshold => "chain_over_threshold",
            Rule::Differential => "differential",
            Rule::ExactOverThreshold => "exact_over_threshold",
            Rule::BaseUnavailable => "base_unavailable",
            Rule::Confirmed => "confirmed",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the engine is told before the scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Now, in the policy's zone.
    pub now: Zoned,
    /// The instant whose day decides whether it is the day of the full: when the run was due, before jitter; of a run that makes up,
    /// when the newest one that it makes up for was. None: now, as for a run that is asked for, and in what older versions stored.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// The level an operator asked for.
    pub asked: Option<Level>,
    /// The policy's say.
    pub rules: Rules,
    /// The newest undamaged full that was taken with the policy's current selection.
    pub full: Option<FullFacts>,
    /// Whether there is an undamaged full of another selection; matters only when `full` is none.
    pub full_of_other_selection: bool,
    /// Whether there are fulls that are damaged; matters only when `full` is none.
    pub full_damaged: bool,
    /// The night that the plan gives the next full; matters only where fulls are levelled.
    #[serde(default)]
    pub planned_full: Option<Date>,
    /// What the job's runs have measured; decides nothing. Decisions of before it was asked for have none.
    #[serde(default)]
    pub rates: Rates,
}

impl Inputs {
    /// The day that the run is for, in the policy's zone. It may begin later, over midnight.
    pub fn day(&self) -> Date {
        self.due.map_or_else(|| self.now.date(), |due| due.to_zoned(self.now.time_zone().clone()).date())
    }
}

/// No day of the week: the night of the full is planned.
pub const LEVELLED: i8 = 0;

/// What of the policy decides the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// `full.day`, Monday is 1 and Sunday 7; [`LEVELLED`] where the plan over the fleet gives the night.
    pub full_weekday: i8,
    /// `full.max_age_days`
    pub max_age_days: u32,
    /// `diff_threshold_percent`
    pub diff_threshold_percent: u32,
}

impl Rules {
    /// Those of a policy.
    pub fn of(policy: &Policy) -> Self {
        Self {
            full_weekday: match policy.full.day {
                FullDay::Weekly(day) => day.to_monday_one_offset(),
                FullDay::Levelled => LEVELLED,
            },
            max_age_days: policy.full.max_age_days,
            diff_threshold_percent: policy.diff_threshold_percent,
        }
    }
}

/// What is known of the full that a differential would stand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullFacts {
    /// Its id.
    pub backup: BackupId,
    /// When its reading ended.
    pub captured_at: Timestamp,
    /// Bytes of its sources.
    pub source_bytes: u64,
    /// Size of its archive.
    pub stored_bytes: u64,
    /// For each differential of this chain that stored an archive, oldest first: the bytes of content that had changed since
    /// the full, before compression.
    pub differentials: Vec<u64>,
}

/// A level that was possible, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The level.
    pub level: Level,
    /// Whether it was taken.
    pub taken: bool,
    /// Source bytes that it was expected (or, after the scan, found) to store; none when nothing is known.
    pub predicted_bytes: Option<u64>,
    /// Milliseconds that it was expected to take; none while nothing like it was measured.
    #[serde(default)]
    pub predicted_ms: Option<u64>,
    /// Milliseconds that a restore of what it leaves was expected to take; none while nothing like it was measured.
    #[serde(default)]
    pub predicted_restore_ms: Option<u64>,
    /// What speaks for or against it.
    pub why: String,
}

/// Full or differential, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When it was taken.
    pub stage: Stage,
    /// What was decided.
    pub level: Level,
    /// By which rule.
    pub rule: Rule,
    /// The rule in a sentence, with the figures.
    pub reason: String,
    /// The full that a differential stands on.
    pub base: Option<BackupId>,
    /// Source bytes that history let expect of a differential; none when there was nothing to go by.
    pub estimate: Option<u64>,
    /// Those that the scan found; none before the scan, and after one for a full.
    pub exact: Option<u64>,
    /// Both levels, the taken one first.
    pub options: Vec<Choice>,
}

/// What the agent's scan for a differential found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanFacts {
    /// Bytes of the sources now.
    pub source_bytes: u64,
    /// Bytes of content that a differential would store, before compression.
    pub changed_bytes: u64,
    /// The state is that of the chain's newest backup: nothing would be stored.
    pub equals_newest: bool,
    /// Sources or excludes differ from those of the full.
    pub selection_changed: bool,
    /// The archive of the full cannot be read on the host any more.
    pub base_unavailable: bool,
}

/// The size that a differential is expected to have, before compression: the mean of this chain's differentials, grown by a
/// fifth for each whole day since the full. `None` when the chain has no differential to go by.
pub fn estimate(full: &FullFacts, now: Timestamp) -> Option<u64> {
    let count = u128::try_from(full.differentials.len()).ok().filter(|count| *count > 0)?;
    let sum: u128 = full.differentials.iter().map(|bytes| u128::from(*bytes)).sum();
    let days = u128::try_from(age(full.captured_at, now).as_hours() / 24).unwrap_or(0);
    Some(u64::try_from(sum * (5 + days) / (5 * count)).unwrap_or(u64::MAX))
}

/// Never negative: a host's clock may be ahead.
fn age(captured_at: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_since(captured_at).max(SignedDuration::ZERO)
}

/// Whether `bytes` are more than `threshold` percent of `whole`.
fn over(bytes: u64, threshold: u32, whole: u64) -> bool {
    u128::from(bytes) * 100 > u128::from(threshold) * u128::from(whole)
}

/// Decides by history, before the scan.
pub fn before_scan(inputs: &Inputs) -> Decision {
    let (rule, reason) = judge(inputs);
    let estimate = inputs.full.as_ref().and_then(|full| estimate(full, inputs.now.timestamp()));
    let level = match rule {
        Rule::AskedByOperator => inputs.asked.unwrap_or(Level::Full),
        Rule::Differential => Level::Differential,
        Rule::ScheduledFullDay
        | Rule::LevelledFullNight
        | Rule::NoFull
        | Rule::SelectionChanged
        | Rule::FullTooOld
        | Rule::EstimateOverThreshold
        | Rule::ChainOverThreshold
        | Rule::ExactOverThreshold
        | Rule::BaseUnavailable
        | Rule::Confirmed => Level::Full,
    };
    let full_bytes = inputs.full.as_ref().map(|full| full.source_bytes);
    let against_differential = match (&inputs.full, estimate) {
        (None, _) => "there is no full it could stand on".to_owned(),
        (Some(_), None) => "no differential of this chain to estimate by".to_owned(),
        (Some(full), Some(bytes)) => format!(
            "estimated {} percent of the full, allowed {}",
            percent(bytes, full.source_bytes),
            inputs.rules.diff_threshold_percent
        ),
    };
    let for_full = match full_bytes {
        None => "always possible".to_owned(),
        Some(bytes) => format!("everything again, {} when it was last taken", bytes_text(bytes)),
    };
    let full = Prospect { bytes: full_bytes, restores: full_bytes, why: for_full };
    let restores = full_bytes.zip(estimate).map(|(full, differential)| full.saturating_add(differential));
    let differential = Prospect { bytes: estimate, restores, why: against_differential };
    let options = choices(level, &reason, &inputs.rates, full, differential);
    let base = inputs.full.as_ref().filter(|_| level == Level::Differential).map(|full| full.backup);
    Decision { stage: Stage::BeforeScan, level, rule, reason, base, estimate, exact: None, options }
}

/// What a level would mean.
struct Prospect {
    /// Source bytes that it would store.
    bytes: Option<u64>,
    /// Content that a restore of what it leaves would read.
    restores: Option<u64>,
    /// What speaks for or against it.
    why: String,
}

/// Both levels, the taken one first. The taken one's why is the decision's reason.
fn choices(taken: Level, reason: &str, rates: &Rates, full: Prospect, differential: Prospect) -> Vec<Choice> {
    let choice = |level: Level, prospect: Prospect| Choice {
        level,
        taken: level == taken,
        predicted_bytes: prospect.bytes,
        predicted_ms: prospect.bytes.and_then(|bytes| rates.backup_ms(level, bytes)),
        predicted_restore_ms: prospect.restores.and_then(|bytes| rates.restore(bytes)).map(|restore| restore.ms),
        why: if level == taken { reason.to_owned() } else { prospect.why },
    };
    let mut options = vec![choice(Level::Full, full), choice(Level::Differential, differential)];
    options.sort_by_key(|option| !option.taken);
    options
}

/// The rules in their order; the first that holds decides.
fn judge(inputs: &Inputs) -> (Rule, String) {
    let asked_differential = match inputs.asked {
        Some(Level::Full) => return (Rule::AskedByOperator, "an operator asked for a full".to_owned()),
        Some(Level::Differential) => true,
        None => false,
    };
    let now = &inputs.now;
    if let Some(due) = due_by_day(inputs).filter(|_| !asked_differential) {
        return due;
    }
    let Some(full) = &inputs.full else {
        return no_full(inputs, asked_differential);
    };
    if asked_differential {
        return (Rule::AskedByOperator, "an operator asked for a differential".to_owned());
    }
    let age = age(full.captured_at, now.timestamp());
    if age > SignedDuration::from_hours(i64::from(inputs.rules.max_age_days) * 24) {
        return (
            Rule::FullTooOld,
            format!(
                "the newest full is {} days and {} hours old, and the policy allows {} days",
                age.as_hours() / 24,
                age.as_hours() % 24,
                inputs.rules.max_age_days
            ),
        );
    }
    threshold(inputs, full)
}

/// Whether the calendar or the plan says that a full is due, and none was taken since.
fn due_by_day(inputs: &Inputs) -> Option<(Rule, String)> {
    let now = &inputs.now;
    let day = inputs.day();
    let levelled = inputs.rules.full_weekday == LEVELLED;
    let due = if levelled {
        inputs.planned_full.filter(|night| *night <= day)?
    } else {
        Some(day).filter(|day| day.weekday().to_monday_one_offset() == inputs.rules.full_weekday)?
    };
    let taken = inputs.full.as_ref().map(|full| full.captured_at.to_zoned(now.time_zone().clone()).date());
    if taken.is_some_and(|taken| taken >= due) {
        return None;
    }
    let zone = zone_of(now);
    Some(if levelled {
        let late = if due < day { ", which has gone by without one" } else { "" };
        let reason =
            format!("fulls are levelled over the fleet, and this one is planned for the night of {due}{late} ({zone})");
        (Rule::LevelledFullNight, reason)
    } else {
        let name = weekday_of(inputs);
        let reason = if day == now.date() {
            format!("{name} is the day of the full, and none was taken yet on {day} ({zone})")
        } else {
            format!("{name} is the day of the full, this run is that of {day}, and none was taken since ({zone})")
        };
        (Rule::ScheduledFullDay, reason)
    })
}

fn no_full(inputs: &Inputs, asked_differential: bool) -> (Rule, String) {
    let asked = if asked_differential { "a differential was asked for, and " } else { "" };
    if inputs.full_of_other_selection {
        return (
            Rule::SelectionChanged,
            format!("{asked}the newest full was taken with other sources or excludes than the policy has now"),
        );
    }
    let why = if inputs.full_damaged { "every full of this job is damaged" } else { "this job has no full yet" };
    (Rule::NoFull, format!("{asked}{why}"))
}

fn threshold(inputs: &Inputs, full: &FullFacts) -> (Rule, String) {
    let allowed = inputs.rules.diff_threshold_percent;
    let estimate = estimate(full, inputs.now.timestamp());
    if let Some(bytes) = estimate.filter(|bytes| over(*bytes, allowed, full.source_bytes)) {
        return (
            Rule::EstimateOverThreshold,
            format!(
                "the differential is estimated at {}, {} percent of the full's {}, and the policy allows {allowed}",
                bytes_text(bytes),
                percent(bytes, full.source_bytes),
                bytes_text(full.source_bytes)
            ),
        );
    }
    if let Some(bytes) = full.differentials.last().copied().filter(|bytes| over(*bytes, allowed, full.source_bytes)) {
        return (
            Rule::ChainOverThreshold,
            format!(
                "the newest differential of this chain had {}, {} percent of the full's {}, and the policy allows {allowed}",
                bytes_text(bytes),
                percent(bytes, full.source_bytes),
                bytes_text(full.source_bytes)
            ),
        );
    }
    let expected = match estimate {
        None => "it is the first of its chain".to_owned(),
        Some(bytes) => format!(
            "it is estimated at {}, {} percent of the full",
            bytes_text(bytes),
            percent(bytes, full.source_bytes)
        ),
    };
    (Rule::Differential, format!("no reason for a full holds; {expected}"))
}

/// Decides again by the agent's exact figures, which a scan for a differential gives. `decided` is the decision before the scan,
/// `inputs` what that was taken by.
pub fn after_scan(decided: &Decision, inputs: &Inputs, scan: &ScanFacts) -> Decision {
    let (allowed, full) = (inputs.rules.diff_threshold_percent, inputs.full.as_ref());
    let whole = full.map_or(scan.source_bytes, |full| full.source_bytes);
    let found = format!(
        "{}, {} percent of the full's {}",
        bytes_text(scan.changed_bytes),
        percent(scan.changed_bytes, whole),
        bytes_text(whole)
    );
    let (rule, reason) = if decided.level == Level::Full {
        (Rule::Confirmed, format!("a full was decided before the scan: {}", decided.reason))
    } else if scan.base_unavailable || full.is_none() {
        (Rule::BaseUnavailable, "the archive of the full cannot be read on the host any more".to_owned())
    } else if scan.selection_changed {
        (Rule::SelectionChanged, "the full was taken with other sources or excludes".to_owned())
    } else if scan.equals_newest {
        (
            Rule::Confirmed,
            "nothing has changed since the newest backup of the chain, so no archive is stored".to_owned(),
        )
    } else if decided.rule != Rule::AskedByOperator && over(scan.changed_bytes, allowed, whole) {
        (Rule::ExactOverThreshold, format!("the scan found {found}, and the policy allows {allowed}"))
    } else {
        (Rule::Confirmed, format!("the scan found {found}"))
    };
    let level = match rule {
        Rule::Confirmed => decided.level,
        Rule::BaseUnavailable | Rule::SelectionChanged | Rule::ExactOverThreshold => Level::Full,
        Rule::AskedByOperator
        | Rule::ScheduledFullDay
        | Rule::LevelledFullNight
        | Rule::NoFull
        | Rule::FullTooOld
        | Rule::EstimateOverThreshold
        | Rule::ChainOverThreshold
        | Rule::Differential => decided.level,
    };
    // With nothing to compare with, the scan is not made before the level is known: there are no figures.
    let compared = !scan.base_unavailable && !scan.selection_changed;
    let stores = if scan.equals_newest { 0 } else { scan.changed_bytes };
    let differential = Prospect {
        bytes: compared.then_some(stores),
        restores: compared.then(|| whole.saturating_add(scan.changed_bytes)),
        why: if compared {
            format!("{found}, allowed {allowed}")
        } else {
            "there is nothing to compare with".to_owned()
        },
    };
    let everything = Prospect {
        bytes: compared.then_some(scan.source_bytes),
        restores: compared.then_some(scan.source_bytes),
        why: if compared {
            format!("everything again, {}", bytes_text(scan.source_bytes))
        } else {
            "everything again".to_owned()
        },
    };
    let options = choices(level, &reason, &inputs.rates, everything, differential);
    let base = decided.base.filter(|_| level == Level::Differential);
    // A scan for a full is not compared with anything.
    let exact = Some(scan.changed_bytes).filter(|_| compared && decided.level == Level::Differential);
    Decision { stage: Stage::AfterScan, level, rule, reason, base, estimate: decided.estimate, exact, options }
}

fn weekday_of(inputs: &Inputs) -> &'static str {
    weekday_name(Weekday::from_monday_one_offset(inputs.rules.full_weekday).unwrap_or(Weekday::Sunday))
}

fn zone_of(now: &Zoned) -> String {
    now.time_zone().iana_name().unwrap_or("UTC").to_owned()
}

/// Bytes in the largest unit that leaves a whole part, with one decimal.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut shown = format!("{bytes} B");
    let mut tenths = u128::from(bytes) * 10;
    for unit in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        shown = format!("{}.{} {unit}", tenths / 10, tenths % 10);
    }
    shown
}

#[cfg(test)]
mod tests;
