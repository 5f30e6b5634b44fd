//! What the next seven days of each host become by a change of policies: the due runs as they are and as they would be, by what the
//! engine knows now. Hosts whose days are alike are told together.

use std::collections::HashMap;

use coord_shared::api;
use coord_shared::fault::Fault;
use coord_shared::ids::{JobId, PolicyId};
use jiff::SignedDuration;
use uuid::Uuid;

use super::App;
use super::look_ahead::{Looking, fleet_policies};
use super::policy_change::{Before, Change, selected};
use crate::catalog::{Host, MeasureFilter, NewestChain};

/// Days looked ahead.
const DAYS: i64 = 7;
/// Runs that one answer lists; hosts beyond are counted.
const MAX_LISTED: usize = 20_000;

/// Adds them to what the changes do.
///
/// # Errors
/// Those of the catalog.
pub async fn tell(app: &App, before: &Before, list: &[Change], told: &mut [api::AppliedPolicy]) -> Result<(), Fault> {
    let (mut policies, mut versions) = fleet_policies(app).await?;
    let mut now = Looking::under(app, policies.clone(), versions.clone()).await?;
    let mut ids: HashMap<&str, PolicyId> = HashMap::new();
    for change in list {
        // One that is not there yet has no id; any does that no other has.
        let id = before.record(&change.name).map_or_else(|| PolicyId::from_uuid(Uuid::new_v4()), |record| record.id);
        ids.insert(&change.name, id);
        versions.remove(&id);
        match &change.policy {
            Some(policy) => drop(policies.insert(id, policy.clone())),
            None => drop(policies.remove(&id)),
        }
    }
    let mut then = Looking::under(app, policies, versions).await?;
    let mut chains: HashMap<PolicyId, Vec<NewestChain>> = HashMap::new();
    for chain in app.catalog.newest_chains(MeasureFilter::default()).await? {
        chains.entry(chain.policy).or_default().push(chain);
    }
    let mut weeks = Weeks { until: now.now() + SignedDuration::from_hours(DAYS * 24), listed: 0 };
    for told in told.iter_mut().filter(|told| changes_anything(told)) {
        let name = told.policy.as_ref().map(|policy| policy.name.clone()).unwrap_or_default();
        let Some((change, id)) = list.iter().find(|change| change.name == name).zip(ids.get(name.as_str())) else {
            continue;
        };
        let had = chains.remove(id).unwrap_or_default();
        let gets = change.policy.as_ref().map(|policy| selected(policy, &before.hosts)).unwrap_or_default();
        for job in jobs(*id, &name, had, &gets) {
            weeks.add(app, (&mut now, &mut then), &job, told).await?;
        }
    }
    Ok(())
}

fn changes_anything(told: &api::AppliedPolicy) -> bool {
    told.change != "unchanged" || !told.hosts_added.is_empty() || !told.hosts_removed.is_empty()
}

/// A job before and after.
struct Both {
    chain: NewestChain,
    was: bool,
    will_be: bool,
}

/// The jobs that a policy has, and those that it gets, by host.
fn jobs(id: PolicyId, name: &str, had: Vec<NewestChain>, gets: &[&Host]) -> Vec<Both> {
    let gains = |host: &&&Host| !had.iter().any(|chain| chain.host == host.id);
    let new = gets.iter().filter(gains).map(|host| NewestChain {
        job: JobId::random(),
        host: host.id,
        host_name: host.name.clone(),
        policy: id,
        policy_name: name.to_owned(),
        full: None,
        source_bytes: None,
        owed: None,
    });
    let new: Vec<Both> = new.map(|chain| Both { chain, was: false, will_be: true }).collect();
    let stays = |chain: &NewestChain| gets.iter().any(|host| host.id == chain.host);
    let old = had.into_iter().map(|chain| Both { was: true, will_be: stays(&chain), chain });
    let mut jobs: Vec<Both> = old.chain(new).collect();
    jobs.sort_by(|one, other| one.chain.host_name.cmp(&other.chain.host_name));
    jobs
}

/// What was listed so far.
struct Weeks {
    until: jiff::Timestamp,
    listed: usize,
}

impl Weeks {
    async fn add(
        &mut self,
        app: &App,
        (now, then): (&mut Looking, &mut Looking),
        job: &Both,
        told: &mut api::AppliedPolicy,
    ) -> Result<(), Fault> {
        if self.listed >= MAX_LISTED {
            told.weeks_left_out += 1;
            return Ok(());
        }
        let was = if job.was { now.of_job(app, &job.chain, self.until).await? } else { Vec::new() };
        let becomes = if job.will_be { then.of_job(app, &job.chain, self.until).await? } else { Vec::new() };
        let (was, becomes): (Vec<_>, Vec<_>) =
            (was.into_iter().map(encode).collect(), becomes.into_iter().map(encode).collect());
        match told.weeks.iter_mut().find(|week| week.now == was && week.becomes == becomes) {
            Some(week) => week.hosts.push(job.chain.host_name.clone()),
            None => {
                self.listed += was.len() + becomes.len();
                told.weeks.push(api::Week { hosts: vec![job.chain.host_name.clone()], now: was, becomes });
            }
        }
        Ok(())
    }
}

fn encode(run: api::DueRun) -> api::WeekRun {
    api::WeekRun { due_at_us: run.due_at_us, level: run.level, held: run.held }
}
