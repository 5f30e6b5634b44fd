//! The due runs ahead: when, which level, why, and what each night will carry. The engine decides on what history lets expect; nothing
//! here is a promise, since each run decides again by what it finds.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{JobId, PolicyId, PolicyVersion};
use coord_shared::level::Level;
use coord_shared::wire::to_us;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use super::host_policies::HostPolicies;
use super::jobs::readable;
use super::level_fulls::{self, Levelled};
use super::selections::Selections;
use super::{App, hosts, names, pauses};
use crate::catalog::{MeasureFilter, NewestChain, PauseRecord};
use crate::domain::decision::{Inputs, Rule, Rules};
use crate::domain::forecast::{Forecast, forecast};
use crate::domain::levelling;
use crate::domain::policy::Policy;
use crate::domain::rates::Rates;
use crate::domain::timing::{self, Due, Holds, Kind};

/// Days looked ahead when no number is asked for.
const DEFAULT_DAYS: u32 = 14;
/// Days looked ahead at most.
const MAX_DAYS: u32 = 62;
/// Due runs of one job that are looked at.
const MAX_RUNS_OF_JOB: usize = 5_000;
/// Due runs that one answer lists; all are counted.
const MAX_LISTED: usize = 10_000;

/// The due runs ahead of the jobs that are asked for.
///
/// # Errors
/// `invalid_argument` for more days than can be seen or a selector that cannot be read; `not_found` for a host or policy that
/// does not exist.
pub async fn schedule(app: &App, request: &api::GetScheduleRequest) -> Result<api::Schedule, Fault> {
    let days = if request.days == 0 { DEFAULT_DAYS } else { request.days };
    if days > MAX_DAYS {
        return Err(Fault::new(
            ErrorCode::InvalidArgument,
            format!("{days} days are more than the {MAX_DAYS} that can be seen"),
        ));
    }
    let mut filter = MeasureFilter::default();
    if !request.host.is_empty() {
        filter.host = Some(names::host(app, &request.host).await?.id);
    }
    if !request.policy.is_empty() {
        filter.policy = Some(names::policy(app, &request.policy).await?.id);
    }
    let selector = hosts::selector(&request.selector)?;
    let mut chains = app.catalog.newest_chains(filter).await?;
    if !selector.is_everything() {
        let selected = app.catalog.hosts().await?.into_iter().filter(|host| selector.matches(&host.labels));
        let selected: HashSet<_> = selected.map(|host| host.id).collect();
        chains.retain(|chain| selected.contains(&chain.host));
    }
    let mut looking = Looking::new(app, filter).await?;
    let until = looking.now + SignedDuration::from_hours(i64::from(days) * 24);
    let mut ahead = Ahead::default();
    for chain in &chains {
        looking.runs(app, chain, until, &mut ahead).await?;
    }
    Ok(ahead.encode(&looking))
}

/// The policies of the fleet that read, and the versions of all.
pub(super) async fn fleet_policies(
    app: &App,
) -> Result<(HashMap<PolicyId, Policy>, HashMap<PolicyId, PolicyVersion>), Fault> {
    let (mut policies, mut versions) = (HashMap::new(), HashMap::new());
    for record in app.catalog.policies().await? {
        versions.insert(record.id, record.version);
        // Nothing of one that does not read is due.
        if let Some(policy) = readable(app, &record) {
            policies.insert(record.id, policy);
        }
    }
    Ok((policies, versions))
}

/// What all jobs are looked at with.
pub(super) struct Looking {
    now: Timestamp,
    policies: HostPolicies,
    selections: Selections,
    rates: HashMap<JobId, Rates>,
    levelled: Levelled,
    /// Those in force.
    pauses: Vec<PauseRecord>,
}

impl Looking {
    async fn new(app: &App, filter: MeasureFilter) -> Result<Self, Fault> {
        let (policies, versions) = fleet_policies(app).await?;
        Looking::with(app, filter, policies, versions).await
    }

    /// The fleet as it would be under these policies. A policy without a version is none that is applied.
    pub(super) async fn under(
        app: &App,
        policies: HashMap<PolicyId, Policy>,
        versions: HashMap<PolicyId, PolicyVersion>,
    ) -> Result<Self, Fault> {
        Looking::with(app, MeasureFilter::default(), policies, versions).await
    }

    async fn with(
        app: &App,
        filter: MeasureFilter,
        policies: HashMap<PolicyId, Policy>,
        versions: HashMap<PolicyId, PolicyVersion>,
    ) -> Result<Self, Fault> {
        let now = app.catalog.now().await?;
        let measured = app.catalog.measures(filter).await?;
        let policies = HostPolicies::of(app, policies).await?;
        let levelled = level_fulls::plan(app, &policies, now).await?;
        let rates = measured.into_iter().map(|job| (job.job, job.rates)).collect();
        let pauses = app.catalog.pauses(now).await?;
        Ok(Self { now, policies, selections: Selections::new(versions), rates, levelled, pauses })
    }

    /// The time that is looked ahead from.
    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    /// The due runs of one job until then, by time: those that will begin and those that will be missed.
    pub(super) async fn of_job(
        &mut self,
        app: &App,
        chain: &NewestChain,
        until: Timestamp,
    ) -> Result<Vec<api::DueRun>, Fault> {
        let mut ahead = Ahead::default();
        self.runs(app, chain, until, &mut ahead).await?;
        ahead.keep_first();
        Ok(ahead.runs)
    }

    /// Looks at what is due of a job.
    async fn runs(&mut self, app: &App, chain: &NewestChain, until: Timestamp, found: &mut Ahead) -> Result<(), Fault> {
        let Some(policy) = self.policies.on(app, chain.policy, chain.host).map(Cow::into_owned) else {
            return Ok(());
        };
        let same = match &chain.full {
            Some((_, version)) => self.selections.is_same(app, chain, *version, &policy).await?,
            None => false,
        };
        let facts = chain.full.as_ref().map(|(facts, _)| facts);
        let inputs = Inputs {
            now: self.now.to_zoned(policy.schedule.zone.rules().clone()),
            due: None,
            asked: None,
            rules: Rules::of(&policy),
            full: facts.filter(|_| same).cloned(),
            full_of_other_selection: facts.is_some() && !same,
            full_damaged: facts.is_none() && chain.source_bytes.is_some(),
            planned_full: None,
            rates: self.rates.get(&chain.job).copied().unwrap_or_default(),
        };
        let instants = self.instants(chain, &policy, until);
        let mut runs = forecast(&inputs, chain.source_bytes, &self.full_nights(chain.job), &instants);
        // The plan says more of the next full than the engine, which only sees that it is planned.
        let next = runs.iter_mut().find(|run| run.rule == Rule::LevelledFullNight);
        if let Some((run, placed)) = next.zip(self.levelled.plan.next.iter().find(|placed| placed.job == chain.job)) {
            run.reason = format!("{}: {}", run.reason, placed.placing.as_phrase());
        }
        let mut runs = runs.into_iter();
        for due in instants {
            match due.kind {
                Kind::Held(why) => {
                    let night = due.stands_for.to_zoned(policy.schedule.zone.rules().clone()).date();
                    found.add_held(chain, due.at, night, why);
                }
                Kind::Run | Kind::CatchUp => {
                    let makes_up = due.kind == Kind::CatchUp;
                    runs.by_ref().take(1).for_each(|run| found.add(chain, run, makes_up));
                }
            }
        }
        Ok(())
    }

    /// The due instants of a job, and what becomes of them.
    fn instants(&self, chain: &NewestChain, policy: &Policy, until: Timestamp) -> Vec<timing::Ahead> {
        let due = Due::backups(policy, chain.host);
        let paused = pauses::holding(&self.pauses, chain.host, chain.policy).map(pauses::to_domain);
        let paused: Vec<timing::Pause> = paused.collect();
        let holds = Holds { windows: &policy.timing.windows, zone: due.zone(), pauses: &paused };
        let how = (&due, &holds, policy.timing.catch_up);
        timing::ahead(how, chain.owed, self.now, until, MAX_RUNS_OF_JOB)
    }

    /// The nights that the plan gives a job's fulls.
    fn full_nights(&self, id: JobId) -> Vec<Date> {
        let job = self.levelled.jobs.iter().find(|job| job.id == id);
        let next = self.levelled.plan.next.iter().find(|placed| placed.job == id);
        job.zip(next).map(|(job, next)| levelling::fulls_from(job, next.night)).unwrap_or_default()
    }
}

/// What was found.
#[derive(Default)]
struct Ahead {
    nights: BTreeMap<Date, api::Night>,
    runs: Vec<api::DueRun>,
    count: u64,
}

impl Ahead {
    fn add(&mut self, chain: &NewestChain, run: Forecast, makes_up: bool) {
        self.count += 1;
        let night = self.nights.entry(run.night).or_default();
        let bytes = run.bytes.unwrap_or(0);
        let (runs, total) = match run.level {
            Level::Full => (&mut night.fulls, &mut night.full_bytes),
            Level::Differential => (&mut night.differentials, &mut night.differential_bytes),
        };
        *runs += 1;
        *total = total.saturating_add(bytes);
        night.ms = night.ms.saturating_add(run.ms.unwrap_or(0));
        self.keep(api::DueRun {
            host: chain.host_name.clone(),
            policy: chain.policy_name.clone(),
            due_at_us: to_us(run.at),
            night: run.night.to_string(),
            level: run.level.to_api().into(),
            rule: run.rule.as_str().to_owned(),
            reason: run.reason,
            predicted_bytes: run.bytes,
            predicted_ms: run.ms,
            makes_up,
            held: String::new(),
        });
    }

    fn add_held(&mut self, chain: &NewestChain, at: Timestamp, night: Date, why: String) {
        self.count += 1;
        self.nights.entry(night).or_default().held += 1;
        self.keep(api::DueRun {
            host: chain.host_name.clone(),
            policy: chain.policy_name.clone(),
            due_at_us: to_us(at),
            night: night.to_string(),
            held: why,
            ..api::DueRun::default()
        });
    }

    /// Jobs come one after the other: which runs are the first is only known at the end.
    fn keep(&mut self, run: api::DueRun) {
        self.runs.push(run);
        if self.runs.len() > MAX_LISTED * 2 {
            self.keep_first();
        }
    }

    fn keep_first(&mut self) {
        self.runs.sort_by(|a, b| (a.due_at_us, &a.host, &a.policy).cmp(&(b.due_at_us, &b.host, &b.policy)));
        self.runs.truncate(MAX_LISTED);
    }

    fn encode(mut self, looking: &Looking) -> api::Schedule {
        self.keep_first();
        let listed = u64::try_from(self.runs.len()).unwrap_or(u64::MAX);
        let plan = &looking.levelled.plan;
        let nights = self.nights.into_iter().map(|(date, night)| api::Night { date: date.to_string(), ..night });
        api::Schedule {
            nights: nights.collect(),
            runs: self.runs,
            runs_left_out: self.count.saturating_sub(listed),
            now_us: to_us(looking.now),
            levelled_jobs: u64::try_from(looking.levelled.jobs.len()).unwrap_or(u64::MAX),
            levelled_bound_bytes: plan.bound,
            levelled_within_bound: plan.is_within_bound(),
        }
    }
}
