//! Plans the nights of fulls, where policies leave them to the plan. Every coordinator may do so at any time: the same catalog gives the
//! same plan, what was planned stays where it can, and a row is changed only from the night that was seen.

use std::collections::HashMap;

use coord_shared::fault::Fault;
use coord_shared::ids::{JobId, PolicyId};
use jiff::Timestamp;
use jiff::civil::Date;

use super::host_policies::HostPolicies;
use super::{App, pauses};
use crate::catalog::NewPlannedFull;
use crate::domain::levelling::{self, LevelledJob, Placing, Plan};
use crate::domain::policy::FullDay;
use crate::domain::timing::{Due, Pause};

/// Nights written in one pass.
const MAX_WRITTEN: usize = 1000;

/// The levelled jobs of the fleet and the plan for them.
#[derive(Debug)]
pub struct Levelled {
    /// The jobs, as the plan sees them.
    pub jobs: Vec<LevelledJob>,
    /// The plan.
    pub plan: Plan,
}

/// Brings the plan in the catalog up to date. Answers whether there is more to write.
///
/// # Errors
/// Those of the catalog.
pub async fn keep(app: &App) -> Result<bool, Fault> {
    // One that does not read levels nothing now, and what was planned for its jobs is not needed: nothing of it is scheduled.
    let policies = HostPolicies::read(app).await?;
    let levelled = plan(app, &policies, app.catalog.now().await?).await?;
    let ids = levelled_policies(&policies);
    app.catalog.forget_full_plan(&ids).await?;
    let sizes: HashMap<JobId, u64> = levelled.jobs.iter().map(|job| (job.id, job.bytes)).collect();
    let seen: HashMap<JobId, Option<Date>> = levelled.jobs.iter().map(|job| (job.id, job.planned)).collect();
    // A job without a full takes one at its next run, planned or not; a night written for that would ask for a second one.
    let moved = levelled.plan.next.iter().filter(|placed| placed.moved && placed.placing != Placing::First);
    let changes = moved.map(|placed| NewPlannedFull {
        job: placed.job,
        seen: seen.get(&placed.job).copied().flatten(),
        night: placed.night,
        bytes: sizes.get(&placed.job).copied().unwrap_or(0),
    });
    let changes: Vec<NewPlannedFull> = changes.collect();
    let now: Vec<NewPlannedFull> = changes.iter().take(MAX_WRITTEN).copied().collect();
    if now.is_empty() {
        return Ok(false);
    }
    let written = app.catalog.put_full_plan(&now).await?;
    tracing::info!(written, moved = changes.len(), bound = levelled.plan.bound, "the nights of fulls were planned");
    // Nothing written: another coordinator plans, and the next pass sees what it made of it.
    Ok(changes.len() > now.len() && written > 0)
}

/// The plan for the levelled jobs of these policies, as it would be written now.
///
/// # Errors
/// Those of the catalog.
pub async fn plan(app: &App, policies: &HostPolicies, now: Timestamp) -> Result<Levelled, Fault> {
    let ids = levelled_policies(policies);
    let records = if ids.is_empty() { Vec::new() } else { app.catalog.levelled_jobs(&ids).await? };
    // One look ahead for all hosts of a policy, unless it differs between them, by overrides or by pauses.
    let mut nights = HashMap::new();
    for (id, policy) in policies.all().iter().filter(|(id, policy)| ids.contains(id) && !policy.has_overrides()) {
        nights.insert(*id, levelling::nights_of(&Due::of_policy(policy), &[], now));
    }
    let paused = if records.is_empty() { Vec::new() } else { app.catalog.pauses(now).await? };
    let known: Vec<u64> = records.iter().filter_map(|record| record.source_bytes).collect();
    let mean = known.iter().map(|bytes| u128::from(*bytes)).sum::<u128>() / known.len().max(1) as u128;
    // A host that was never backed up is taken to be as large as the others are.
    let mean = u64::try_from(mean).unwrap_or(u64::MAX);
    let jobs = records.iter().filter_map(|record| {
        let policy = policies.on(app, record.policy, record.host)?;
        if policy.full.day != FullDay::Levelled {
            return None;
        }
        let paused = pauses::holding(&paused, record.host, record.policy).map(pauses::to_domain);
        let paused: Vec<Pause> = paused.collect();
        let known = nights.get(&record.policy).filter(|_| paused.is_empty()).cloned();
        let (nights, until) = known.unwrap_or_else(|| levelling::nights_of(&Due::of_policy(&policy), &paused, now));
        let zone = policy.schedule.zone.rules();
        Some(LevelledJob {
            id: record.job,
            bytes: record.source_bytes.unwrap_or(mean),
            today: now.to_zoned(zone.clone()).date(),
            nights,
            until,
            last_full: record.full_at.map(|full| full.to_zoned(zone.clone()).date()),
            max_age_days: policy.full.max_age_days,
            planned: record.planned,
        })
    });
    let jobs: Vec<LevelledJob> = jobs.collect();
    let plan = levelling::plan(&jobs);
    Ok(Levelled { jobs, plan })
}

fn levelled_policies(policies: &HostPolicies) -> Vec<PolicyId> {
    policies.all().iter().filter(|(_, policy)| policy.may_level_fulls()).map(|(id, _)| *id).collect()
}
