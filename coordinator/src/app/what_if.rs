//! What a policy file would have made of the recorded history of the jobs that it is for: levels, bytes, time and restores, beside what
//! was. Nothing is applied; what history cannot tell is said.

use std::collections::{HashMap, HashSet};

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{JobId, PolicyId};
use coord_shared::wire::{from_us, to_us};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use super::apply_policy::read_file;
use super::decide::{ScanInputs, unreadable};
use super::host_policies::{HostPolicies, on_host};
use super::jobs::readable;
use super::{App, hosts, names};
use crate::catalog::{Host, JobMeasures, MeasureFilter, RecordedRun};
use crate::domain::decision::{Inputs, Rules};
use crate::domain::levelling::{self, LevelledJob};
use crate::domain::policy::{FullDay, Policy};
use crate::domain::rates::Rates;
use crate::domain::replay::{Recorded, Replayed, Totals, Under, as_recorded, replay, totals};
use crate::domain::schedule::Calendar;
use crate::domain::timing::{Due, Timing};

/// How far back when nothing is said.
const DEFAULT_DAYS: i64 = 90;
/// Jobs that one answer takes; each is a history to read.
const MAX_JOBS: usize = 500;
/// Runs with another level that are listed of each job.
const MAX_CHANGES: usize = 5;

/// The comparison, of every job of the policy that the file names, or of another policy's.
///
/// # Errors
/// `invalid_policy` for a file that could not be applied; `not_found` where no such policy has any history; `invalid_argument`
/// for a selector that cannot be read; `limit_exceeded` for too many jobs.
pub async fn what_if(app: &App, request: &api::WhatIfRequest) -> Result<api::WhatIfReport, Fault> {
    let policy = read_file(app, &request.toml).await?;
    let name = if request.policy.is_empty() { policy.name.as_str() } else { request.policy.as_str() };
    let record = names::policy(app, name).await?;
    let now = app.catalog.now().await?;
    let since = from_us(request.since_us).unwrap_or(now - SignedDuration::from_hours(DEFAULT_DAYS * 24));
    let selector = hosts::selector(&request.selector)?;
    let mut jobs = app.catalog.measures(MeasureFilter { policy: Some(record.id), ..MeasureFilter::default() }).await?;
    let mut left_out = 0;
    if !selector.is_everything() {
        let (selected, others): (Vec<Host>, Vec<Host>) =
            app.catalog.hosts().await?.into_iter().partition(|host| selector.matches(&host.labels));
        let selected: HashSet<_> = selected.iter().map(|host| host.id).collect();
        let levelled = others.iter().filter(|host| {
            policy.for_host(&host.name, &host.labels).is_ok_and(|policy| policy.full.day == FullDay::Levelled)
        });
        let levelled: HashSet<_> = levelled.map(|host| host.id).collect();
        left_out = jobs.iter().filter(|job| levelled.contains(&job.host)).count();
        jobs.retain(|job| selected.contains(&job.host));
    }
    if jobs.len() > MAX_JOBS {
        let message = format!("{} jobs are more than the {MAX_JOBS} that one replay takes", jobs.len());
        return Err(Fault::new(ErrorCode::LimitExceeded, message).with_hint("-l narrows it to hosts with some labels"));
    }
    let mut histories = Vec::with_capacity(jobs.len());
    let mut unknown = 0_u64;
    for job in &jobs {
        let runs = app.catalog.recorded_runs(job.job, since).await?;
        let history = runs.iter().map(recorded).collect::<Result<Vec<_>, Fault>>()?;
        let known: Vec<Recorded> = history.iter().flatten().cloned().collect();
        unknown += u64::try_from(history.len() - known.len()).unwrap_or(0);
        histories.push(known);
    }
    let policies = per_job(app, &policy, &jobs).await?;
    let nights = full_nights(&policies, &jobs, &histories);
    let mut compared = Compared::default();
    for ((job, history), policy) in jobs.iter().zip(&histories).zip(&policies) {
        compared.add(job, history, policy, nights.get(&job.job).cloned().unwrap_or_default());
    }
    let mut notes = notes(&policy, readable(app, &record).as_ref());
    if !nights.is_empty() {
        notes.extend(levelled_alone(nights.len(), levelled_elsewhere(app, record.id).await?, left_out));
    }
    if unknown > 0 {
        notes.push(format!("{unknown} runs are left out: why they had their level was not recorded"));
    }
    Ok(compared.encode(since, now, notes))
}

/// The file as it is for the host of each job.
async fn per_job(app: &App, policy: &Policy, jobs: &[JobMeasures]) -> Result<Vec<Policy>, Fault> {
    let mut policies = Vec::with_capacity(jobs.len());
    for job in jobs {
        policies.push(on_host(app, policy.clone(), job.host).await?);
    }
    Ok(policies)
}

/// A run as the engine can decide it again; `None` where nothing is stored that it was decided by.
fn recorded(run: &RecordedRun) -> Result<Option<Recorded>, Fault> {
    let Some(before) = &run.before else { return Ok(None) };
    let inputs: Inputs = serde_json::from_value(before.clone()).map_err(unreadable)?;
    let scan = run.after.clone().map(serde_json::from_value::<ScanInputs>).transpose().map_err(unreadable)?;
    Ok(Some(Recorded { inputs, scan: scan.map(|after| after.scan), left: run.left }))
}

/// Where the plan would have put the fulls: it is made once, at the first run of the history, and followed from then on.
fn full_nights(policies: &[Policy], jobs: &[JobMeasures], histories: &[Vec<Recorded>]) -> HashMap<JobId, Vec<Date>> {
    let first = histories.iter().filter_map(|history| history.first()).map(|first| first.inputs.now.timestamp()).min();
    let Some(first) = first else { return HashMap::new() };
    let begin = first - SignedDuration::from_secs(1);
    let mut known: Option<(Calendar, Timing, (Vec<Date>, Date))> = None;
    let levelled = |((job, history), policy): ((&JobMeasures, &Vec<Recorded>), &Policy)| {
        if policy.full.day != FullDay::Levelled {
            return None;
        }
        let first = history.first()?;
        let zone = policy.schedule.zone.rules();
        // A job that begins with its first full begins its cycle there.
        let full = first.inputs.full.as_ref().map_or(first.left.captured_at, |full| full.captured_at);
        let (nights, until) = match &known {
            Some((calendar, timing, nights)) if (calendar, timing) == (&policy.schedule, &policy.timing) => {
                nights.clone()
            }
            Some(_) | None => {
                let nights = levelling::nights_of(&Due::of_policy(policy), &[], begin);
                known = Some((policy.schedule.clone(), policy.timing.clone(), nights.clone()));
                nights
            }
        };
        Some(LevelledJob {
            id: job.job,
            bytes: first.left.source_bytes,
            today: begin.to_zoned(zone.clone()).date(),
            nights,
            until,
            last_full: Some(full.to_zoned(zone.clone()).date()),
            max_age_days: policy.full.max_age_days,
            planned: None,
        })
    };
    let levelled: Vec<LevelledJob> = jobs.iter().zip(histories).zip(policies).filter_map(levelled).collect();
    let plan = levelling::plan(&levelled);
    let next: HashMap<JobId, Date> = plan.next.iter().map(|placed| (placed.job, placed.night)).collect();
    let fulls = |job: &LevelledJob| Some((job.id, levelling::fulls_from(job, *next.get(&job.id)?)));
    levelled.iter().filter_map(fulls).collect()
}

/// What no history can tell of this file.
fn notes(policy: &Policy, present: Option<&Policy>) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(present) = present else {
        notes.push("the policy as it is cannot be read, so what else differs is not known".to_owned());
        return notes;
    };
    if policy.selection() != present.selection() {
        notes.push("sources or what is left out differ: sizes are those of what was selected then".to_owned());
    }
    if (&policy.schedule, &policy.timing) != (&present.schedule, &present.timing) {
        notes.push("the schedule differs: runs are replayed at the times they had, no other is invented".to_owned());
    }
    if policy.compression != present.compression {
        notes.push("the compression differs: archives keep the ratio they had".to_owned());
    }
    notes
}

/// The active jobs of other policies whose fulls are levelled with those of this one.
async fn levelled_elsewhere(app: &App, this: PolicyId) -> Result<usize, Fault> {
    let policies = HostPolicies::read(app).await?;
    let others = policies.all().iter().filter(|(id, policy)| **id != this && policy.may_level_fulls());
    let others: Vec<PolicyId> = others.map(|(id, _)| *id).collect();
    if others.is_empty() {
        return Ok(0);
    }
    let jobs = app.catalog.levelled_jobs(&others).await?;
    let levelled = jobs.iter().filter(|job| {
        policies.on(app, job.policy, job.host).is_some_and(|policy| policy.full.day == FullDay::Levelled)
    });
    Ok(levelled.count())
}

/// Fulls are levelled over all of the fleet, and a replay knows only its own jobs.
fn levelled_alone(replayed: usize, elsewhere: usize, left_out: usize) -> Option<String> {
    let others: Vec<String> = [(elsewhere, "of other policies"), (left_out, "that -l leaves out")]
        .into_iter()
        .filter(|(jobs, _)| *jobs > 0)
        .map(|(jobs, which)| format!("{jobs} job(s) {which}"))
        .collect();
    (!others.is_empty()).then(|| {
        format!(
            "fulls are levelled over the {replayed} job(s) replayed alone: those of {} are not counted, so in the fleet their nights may be others",
            others.join(" and ")
        )
    })
}

/// What the jobs come to.
#[derive(Default)]
struct Compared {
    jobs: Vec<api::WhatIfOfJob>,
    was: Vec<Replayed>,
    would: Vec<Replayed>,
}

impl Compared {
    fn add(&mut self, job: &JobMeasures, history: &[Recorded], policy: &Policy, full_nights: Vec<Date>) {
        let zone = policy.schedule.zone.rules().clone();
        let rates: Rates = job.rates;
        let was = as_recorded(history, &zone, &rates);
        let would = replay(history, &Under { rules: Rules::of(policy), zone, full_nights, rates });
        let differ: Vec<(&Replayed, &Replayed)> = was.iter().zip(&would).filter(|(a, b)| a.level != b.level).collect();
        let change = |(was, would): &(&Replayed, &Replayed)| api::LevelChange {
            at_us: to_us(would.at),
            was: was.level.to_api().into(),
            would_be: would.level.to_api().into(),
            rule: would.rule.as_str().to_owned(),
            reason: would.reason.clone(),
        };
        self.jobs.push(api::WhatIfOfJob {
            host: job.host_name.clone(),
            policy: job.policy_name.clone(),
            was: Some(encode(&totals(&was))),
            would_be: Some(encode(&totals(&would))),
            levels_changed: u64::try_from(differ.len()).unwrap_or(u64::MAX),
            changes: differ.iter().take(MAX_CHANGES).map(change).collect(),
        });
        self.was.extend(was);
        self.would.extend(would);
    }

    fn encode(self, since: Timestamp, now: Timestamp, notes: Vec<String>) -> api::WhatIfReport {
        api::WhatIfReport {
            was: Some(encode(&totals(&self.was))),
            would_be: Some(encode(&totals(&self.would))),
            jobs: self.jobs,
            since_us: to_us(since),
            until_us: to_us(now),
            notes,
        }
    }
}

fn encode(totals: &Totals) -> api::ReplayTotals {
    api::ReplayTotals {
        runs: totals.runs,
        fulls: totals.fulls,
        stored_bytes: totals.stored_bytes,
        ms: totals.ms,
        busiest_ms: totals.busiest_ms,
        busiest_night: totals.busiest_night.map(|night| night.to_string()).unwrap_or_default(),
        longest_restore_ms: totals.longest_restore_ms,
        estimated: totals.estimated,
    }
}
