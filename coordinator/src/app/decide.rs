//! Gathering what the decision engine is told, asking it, and storing what it said. After the scan the engine is asked again with
//! the inputs that were stored before it, so that both decisions of an attempt rest on the same history.

use coord_shared::api::Scanned;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{Attempt, PolicyVersion, RunId};
use coord_shared::level::Level;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::App;
use super::host_policies::on_host;
use super::jobs::{policy_of, readable};
use super::known_policies::{self, Known};
use crate::catalog::{Backup, DecisionRecord, DecisionStage, Job, MeasureFilter, NewDecision, RunRecord};
use crate::domain::decision::{Decision, FullFacts, Inputs, Rules, ScanFacts, Stage, after_scan, before_scan};
use crate::domain::policy::{FullDay, Policy};
use crate::domain::timing::Due;

/// A job's past, as far as a backup run needs it.
#[derive(Debug)]
pub struct History {
    /// The job.
    pub job: Job,
    /// The policy as it is for the host, at the version that the run was made by.
    pub policy: Policy,
    /// That version.
    pub version: PolicyVersion,
    /// The level that an operator asked for.
    pub asked: Option<Level>,
    /// The newest undamaged full, if it was taken with the present selection.
    pub full: Option<Backup>,
    /// There is a newest undamaged full, but of another selection.
    pub other_selection: bool,
    /// There are backups, but no undamaged full.
    pub damaged: bool,
    /// What stands on `full`, oldest first.
    pub chain: Vec<Backup>,
}

/// What an operator asked a backup run for, or what it makes up for.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    asked_level: Option<Level>,
    #[serde(default)]
    makes_up_for: Option<Missed>,
}

/// The newest of the missed runs that a run makes up for.
#[derive(Debug, Deserialize)]
struct Missed {
    due_at: Timestamp,
}

/// What the scan added to the inputs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ScanInputs {
    /// The inputs before the scan.
    pub(super) before: Inputs,
    /// What it found.
    pub(super) scan: ScanFacts,
}

/// A stored value that does not read.
pub(super) fn unreadable(error: serde_json::Error) -> Fault {
    Fault::new(ErrorCode::Internal, format!("a stored value cannot be read: {error}"))
}

fn read<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, Fault> {
    serde_json::from_value(value.clone()).map_err(unreadable)
}

/// The past of a backup run's job.
pub async fn history(app: &App, run: &RunRecord) -> Result<History, Fault> {
    let gone = |what: &str| Fault::new(ErrorCode::NotFound, format!("the {what} of run {} is gone", run.id.short()));
    let job = app.catalog.job(run.job.ok_or_else(|| gone("job"))?).await?.ok_or_else(|| gone("job"))?;
    let version = run.policy_version.unwrap_or(job.policy_version);
    let policy = match known_policies::read(app, job.policy, version).await?.ok_or_else(|| gone("policy"))? {
        Known::Policy(policy) => Policy::clone(&policy),
        Known::Unreadable(record) => policy_of(&record)?,
    };
    let policy = on_host(app, policy, job.host).await?;
    let asked: Asked = read(&run.spec)?;
    let newest = app.catalog.newest_full(job.id).await?;
    let same_selection = match &newest {
        None => false,
        Some(full) if full.policy_version == version => true,
        Some(full) => {
            let then = app.catalog.policy_at(job.policy, full.policy_version).await?.ok_or_else(|| gone("policy"))?;
            // What cannot be compared is another selection: the next backup is a full.
            match readable(app, &then) {
                Some(then) => on_host(app, then, job.host).await?.selection() == policy.selection(),
                None => false,
            }
        }
    };
    let damaged = newest.is_none() && job.backups > 0;
    let other_selection = newest.is_some() && !same_selection;
    let full = newest.filter(|_| same_selection);
    let mut chain = match &full {
        Some(full) => app.catalog.chain_of(full.id).await?,
        None => Vec::new(),
    };
    chain.reverse();
    Ok(History { job, policy, version, asked: asked.asked_level, full, other_selection, damaged, chain })
}

/// The instant whose day a run is for, `None` for one that is asked for. A run that waited for its host is for the day of the full
/// too, if that came meanwhile: the run that came due then is missed because this one is open.
fn stands_for(run: &RunRecord, policy: &Policy, now: Timestamp) -> Result<Option<Timestamp>, Fault> {
    // Whoever asks for a run asks for a level, if only for any.
    if run.spec.get("asked_level").is_some() {
        return Ok(None);
    }
    let asked: Asked = read(&run.spec)?;
    let due = Due::backups(policy, run.host);
    let own = due.plain_of(asked.makes_up_for.map_or(run.due_at, |missed| missed.due_at));
    let meanwhile = due.newest_while_waiting(run.due_at, now, |day| match policy.full.day {
        FullDay::Weekly(weekday) => day.weekday() == weekday,
        FullDay::Levelled => true,
    });
    Ok(Some(meanwhile.unwrap_or(own)))
}

/// Decides by history and stores it. Repeated for the same attempt, the stored decision stands.
pub async fn decide_before_scan(
    app: &App,
    run: &RunRecord,
    attempt: Attempt,
    history: &History,
) -> Result<Decision, Fault> {
    let measured =
        app.catalog.measures(MeasureFilter { job: Some(history.job.id), ..MeasureFilter::default() }).await?;
    let planned_full = match history.policy.full.day {
        FullDay::Levelled => app.catalog.planned_full(history.job.id).await?,
        FullDay::Weekly(_) => None,
    };
    let now = app.catalog.now().await?;
    let inputs = Inputs {
        now: now.to_zoned(history.policy.schedule.zone.rules().clone()),
        due: stands_for(run, &history.policy, now)?,
        asked: history.asked,
        rules: Rules::of(&history.policy),
        full: history.full.as_ref().map(|full| FullFacts {
            backup: full.id,
            captured_at: full.captured_at,
            source_bytes: full.source_bytes,
            stored_bytes: full.stored_bytes,
            differentials: history
                .chain
                .iter()
                .filter(|backup| backup.same_as.is_none())
                .map(|backup| backup.changed_bytes)
                .collect(),
        }),
        full_of_other_selection: history.other_selection,
        full_damaged: history.damaged,
        planned_full,
        rates: measured.first().map(|job| job.rates).unwrap_or_default(),
    };
    let decision = before_scan(&inputs);
    let stored = store(app, run.id, attempt, &decision, &inputs).await?;
    Ok(before_scan(&read::<Inputs>(&stored.decision.inputs)?))
}

/// Decides by the exact figures of the attempt's scan and stores it.
pub async fn decide_after_scan(app: &App, run: RunId, attempt: Attempt, scanned: &Scanned) -> Result<Decision, Fault> {
    let mut before = app.catalog.decisions_of_run(run).await?.into_iter().map(|record| record.decision);
    let before = before.rfind(|decision| decision.attempt == attempt && decision.stage == DecisionStage::BeforeScan);
    let before = before
        .ok_or_else(|| Fault::new(ErrorCode::NotFound, "nothing was decided for this attempt before its scan"))?;
    let inputs: Inputs = read(&before.inputs)?;
    let scan = ScanFacts {
        source_bytes: scanned.source_bytes,
        changed_bytes: scanned.changed_bytes,
        equals_newest: scanned.equals_newest,
        selection_changed: scanned.selection_changed,
        base_unavailable: scanned.base_unavailable,
    };
    let decision = after_scan(&before_scan(&inputs), &inputs, &scan);
    store(app, run, attempt, &decision, &ScanInputs { before: inputs, scan }).await?;
    Ok(decision)
}

async fn store(
    app: &App,
    run: RunId,
    attempt: Attempt,
    decision: &Decision,
    inputs: &impl Serialize,
) -> Result<DecisionRecord, Fault> {
    let new = NewDecision {
        run,
        attempt,
        stage: match decision.stage {
            Stage::BeforeScan => DecisionStage::BeforeScan,
            Stage::AfterScan => DecisionStage::AfterScan,
        },
        level: decision.level,
        rule: decision.rule.as_str().to_owned(),
        reason: decision.reason.clone(),
        estimate_bytes: decision.estimate,
        exact_bytes: decision.exact,
        inputs: serde_json::to_value(inputs).map_err(unreadable)?,
        options: serde_json::to_value(&decision.options).map_err(unreadable)?,
    };
    tracing::info!(run = %run, %attempt, stage = %decision.stage, level = %decision.level, rule = %decision.rule, "decided");
    Ok(app.catalog.record_decision(&new).await?)
}
