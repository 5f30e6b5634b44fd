//! The plans of hosts for the time they may be cut off: which backups each begins by itself then, under which ids. A host is sent a new one
//! after it has greeted us, when something changes that its plan goes by, and every few hours, so that a plan that a host holds
//! is never much older than its last session.
//!
//! A plan does not come with the answer to Hello: a fleet that reconnects is greeted first, and has its older plans meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_shared::api::coordinator_message::Message;
use coord_shared::api::{self, BackupTask};
use coord_shared::fault::Fault;
use coord_shared::ids::{HostId, RunId, SessionNumber};
use coord_shared::wire::to_us;
use jiff::Timestamp;
use prost::Message as _;

use super::backups::location;
use super::host_policies::HostPolicies;
use super::jobs::leave_out;
use super::look_ahead::fleet_policies;
use super::selections::Selections;
use super::{App, dispatch, pace, pauses};
use crate::catalog::{Job, JobFilter, JobState, MeasureFilter, NewestChain, PauseRecord, Planned};
use crate::domain::decision::{Inputs, Rules};
use crate::domain::forecast::{Forecast, forecast};
use crate::domain::host_plan::{AHEAD, Beginning, beginnings, keep_first};
use crate::domain::policy::{FullDay, Policy};
use crate::domain::rates::Rates;
use crate::domain::timing::{Ahead, Due, Holds, Kind, Pause};

/// A plan is sent again after this long, whatever changed.
const REFRESH: Duration = Duration::from_secs(6 * 3600);
/// Plans made in one pass.
const MAX_PLANS: usize = 200;
/// Bytes of one plan. Jobs whose selection does not fit into it any more are not planned.
const MAX_PLAN_BYTES: usize = 1 << 20;

/// What the sessions at this coordinator were sent.
#[derive(Debug, Default)]
pub struct Plans {
    sent: Mutex<HashMap<HostId, Sent>>,
}

#[derive(Debug)]
struct Sent {
    session: SessionNumber,
    /// What the plan goes by, as the catalog prints it.
    print: String,
    at: Instant,
}

impl Plans {
    fn locked<R>(&self, act: impl FnOnce(&mut HashMap<HostId, Sent>) -> R) -> R {
        // The map is whole after every statement, so a panic elsewhere does not spoil it.
        act(&mut self.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this session needs a plan, by what plans go by now.
    fn is_due(&self, host: HostId, session: SessionNumber, print: &str) -> bool {
        self.locked(|sent| match sent.get(&host) {
            Some(sent) => sent.session != session || sent.print != print || sent.at.elapsed() >= REFRESH,
            None => true,
        })
    }
}

/// One pass: sends the hosts that are connected here the plans that they need, at most a bounded number.
///
/// # Errors
/// Those of the catalog.
pub async fn send_plans(app: &App) -> Result<(), Fault> {
    let sessions: HashMap<HostId, _> = app.sessions.all().into_iter().map(|session| (session.host, session)).collect();
    app.plans.locked(|sent| sent.retain(|host, _| sessions.contains_key(host)));
    if sessions.is_empty() {
        return Ok(());
    }
    let hosts: Vec<HostId> = sessions.keys().copied().collect();
    // Read before what the plans are made of: what changes meanwhile shows in the next pass.
    let mut prints = app.catalog.plan_prints(&hosts).await?;
    prints
        .retain(|host, print| sessions.get(host).is_some_and(|session| app.plans.is_due(*host, session.number, print)));
    if prints.is_empty() {
        return Ok(());
    }
    let mut making = Making::new(app).await?;
    for (host, print) in prints.into_iter().take(MAX_PLANS) {
        let Some(session) = sessions.get(&host) else { continue };
        match making.plan(app, host).await {
            Ok(plan) => {
                tracing::debug!(%host, jobs = plan.jobs.len(), runs = plan.runs.len(), "plan sent");
                if session.send(Message::Plan(plan)).is_err() {
                    tracing::debug!(%host, "the host went away before its plan; it is sent after the next Hello");
                }
            }
            Err(fault) => leave_out(app, &format!("the plan of host {host}"), fault)?,
        }
        // One that cannot be made is tried again when something changed.
        let sent = Sent { session: session.number, print, at: Instant::now() };
        app.plans.locked(|all| all.insert(host, sent));
    }
    Ok(())
}

/// What the plans of one pass are made of.
struct Making {
    now: Timestamp,
    policies: HostPolicies,
    selections: Selections,
    pauses: Vec<PauseRecord>,
}

/// A job in the making.
struct Draft<'a> {
    chain: &'a NewestChain,
    job: &'a Job,
    policy: Policy,
    held: String,
}

impl Making {
    async fn new(app: &App) -> Result<Making, Fault> {
        let now = app.catalog.now().await?;
        let (policies, versions) = fleet_policies(app).await?;
        let policies = HostPolicies::of(app, policies).await?;
        let pauses = app.catalog.pauses(now).await?;
        Ok(Making { now, policies, selections: Selections::new(versions), pauses })
    }

    /// The plan of a host. Its runs are promised when this returns.
    async fn plan(&mut self, app: &App, host: HostId) -> Result<api::Plan, Fault> {
        let chains = app.catalog.newest_chains(MeasureFilter { host: Some(host), ..MeasureFilter::default() }).await?;
        let filter = JobFilter { host: Some(host), state: Some(JobState::Active), ..JobFilter::default() };
        let jobs = app.catalog.jobs(filter).await?;
        let (mut drafts, mut instants) = (Vec::new(), Vec::new());
        for chain in &chains {
            let Some(job) = jobs.iter().find(|job| job.id == chain.job) else { continue };
            let Some(policy) = self.policies.on(app, chain.policy, host) else { continue };
            let policy = policy.into_owned();
            let (held, begins) = self.beginnings(chain, &policy);
            instants.push(begins);
            drafts.push(Draft { chain, job, policy, held });
        }
        keep_first(&mut instants);
        let valid_until = self.now.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
        let mut plan =
            api::Plan { made_at_us: to_us(self.now), valid_until_us: to_us(valid_until), ..api::Plan::default() };
        let (mut wanted, mut room) = (Vec::new(), MAX_PLAN_BYTES);
        for (draft, begins) in drafts.iter().zip(&instants) {
            let (task, runs) = self.foresee(app, draft, begins).await?;
            let Some(rest) =
                room.checked_sub(task.encoded_len() + runs.iter().map(|(_, run)| run.encoded_len()).sum::<usize>())
            else {
                if app.reported.is_news(&format!("the plan of {} is too large", draft.job)) {
                    tracing::warn!(job = %draft.job, most_bytes = MAX_PLAN_BYTES, "a job does not fit into its host's plan: while the host is cut off it is not backed up");
                }
                continue;
            };
            room = rest;
            plan.jobs.push(api::PlannedJob { task: Some(task), held: draft.held.clone() });
            wanted.extend(runs);
        }
        plan.runs = promise(app, wanted).await?;
        Ok(plan)
    }

    /// What holds a job back now, and when it may begin.
    fn beginnings(&self, chain: &NewestChain, policy: &Policy) -> (String, Vec<Beginning>) {
        let due = Due::backups(policy, chain.host);
        let paused = pauses::holding(&self.pauses, chain.host, chain.policy).map(pauses::to_domain);
        let paused: Vec<Pause> = paused.collect();
        let holds = Holds { windows: &policy.timing.windows, zone: due.zone(), pauses: &paused };
        let held = paused.iter().find(|pause| pause.from <= self.now && self.now < pause.until);
        (held.map(|pause| pause.why.clone()).unwrap_or_default(), beginnings(&due, &holds, &policy.timing, self.now))
    }

    /// The task of a job's runs, and the runs as history lets expect them.
    async fn foresee(
        &mut self,
        app: &App,
        draft: &Draft<'_>,
        begins: &[Beginning],
    ) -> Result<(BackupTask, Vec<(Planned, api::PlannedRun)>), Fault> {
        let Draft { chain, job, policy, .. } = draft;
        let version = self.selections.version(chain.policy).unwrap_or(job.policy_version);
        let same = match &chain.full {
            Some((_, version)) => self.selections.is_same(app, chain, *version, policy).await?,
            None => false,
        };
        let facts = chain.full.as_ref().map(|(facts, _)| facts);
        let full = facts.filter(|_| same);
        let nights = match policy.full.day {
            FullDay::Levelled => app.catalog.planned_full(chain.job).await?,
            FullDay::Weekly(_) => None,
        };
        let inputs = Inputs {
            now: self.now.to_zoned(policy.schedule.zone.rules().clone()),
            due: None,
            asked: None,
            rules: Rules::of(policy),
            full: full.cloned(),
            full_of_other_selection: facts.is_some() && !same,
            full_damaged: facts.is_none() && chain.source_bytes.is_some(),
            planned_full: None,
            rates: Rates::default(),
        };
        let ahead = |begin: &Beginning| Ahead { at: begin.due_at, stands_for: begin.stands_for, kind: Kind::Run };
        let due: Vec<Ahead> = begins.iter().map(ahead).collect();
        let ahead = forecast(&inputs, chain.source_bytes, nights.as_slice(), &due);
        let base = match full {
            Some(full) => app.catalog.backup(full.backup).await?,
            None => None,
        };
        let task = BackupTask { base: base.as_ref().map(location), ..dispatch::task_of_job(app, job, policy, version) };
        let planned = |run: &Forecast| Planned {
            id: RunId::random(),
            job: chain.job,
            due_at: run.at,
            level: run.level,
            policy_version: version,
        };
        let runs = ahead.iter().zip(begins).map(|(run, begin)| (planned(run), encode(run, begin, &task, policy)));
        let runs = runs.collect();
        Ok((task, runs))
    }
}

fn encode(run: &Forecast, begin: &Beginning, task: &BackupTask, policy: &Policy) -> api::PlannedRun {
    api::PlannedRun {
        // Given with the promise.
        run_id: String::new(),
        policy_id: task.policy_id.clone(),
        kind: api::RunKind::Backup.into(),
        due_at_us: to_us(run.at),
        level: run.level.to_api().into(),
        policy_version: task.policy_version,
        begin_before_us: to_us(begin.before),
        reason: run.reason.clone(),
        pace: pace::of_policy(policy, run.at),
        max_duration_s: policy.timing.max_duration_s.unwrap_or(0),
    }
}

/// Promises the runs under ids that last; in the order of their instants.
async fn promise(app: &App, wanted: Vec<(Planned, api::PlannedRun)>) -> Result<Vec<api::PlannedRun>, Fault> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (planned, runs): (Vec<Planned>, Vec<api::PlannedRun>) = wanted.into_iter().unzip();
    let promised = app.catalog.plan_runs(&planned).await?;
    let ids: HashMap<_, RunId> = promised.iter().map(|run| ((run.job, run.due_at), run.id)).collect();
    let named = planned.iter().zip(runs).filter_map(|(planned, run)| {
        let id = ids.get(&(planned.job, planned.due_at))?;
        Some(api::PlannedRun { run_id: id.to_string(), ..run })
    });
    let mut named: Vec<api::PlannedRun> = named.collect();
    named.sort_by_key(|run| run.due_at_us);
    Ok(named)
}
