//! Am I safe, and what first: one screen about the fleet or one host. Worst comes first.

use std::collections::{HashMap, HashSet};

use coord_shared::fault::Fault;
use coord_shared::ids::{HostId, JobId, PolicyId};
use coord_shared::run::RunState;
use coord_shared::wire::{optional_us, to_us};
use coord_shared::{api, duration};
use jiff::Timestamp;

use super::host_policies::HostPolicies;
use super::jobs::readable;
use super::{App, names, pauses};
use crate::catalog::{
    BackupStatus, Host, HostState, JobHealth, JobMeasures, MeasureFilter, NewestChain, PauseRecord, PolicyRecord,
    SCHEMA_VERSION,
};
use crate::domain::chain::Growth;
use crate::domain::objectives::{self, Standing};
use crate::domain::policy::{Objectives, Policy};
use crate::domain::timing::Due;

/// Troubles shown.
const MAX_TROUBLES: usize = 10;
/// A host's clock may differ from the database's by this much, in seconds, before somebody is told. Schedules and leases go by
/// the database, and times of backups are corrected; what suffers is the host's own logs, and its plan while it is cut off.
const MAX_CLOCK_OFFSET_S: u64 = 5 * 60;

/// How bad it is; the worst comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Badness {
    /// What was good is not any more.
    Damaged,
    /// A policy cannot be read: nothing of it is scheduled.
    Unreadable,
    /// The overrides of a host make no policy together: nothing of it is scheduled there.
    Impossible,
    /// There is no restore point at all.
    Unprotected,
    /// The newest restore point is older than it should be.
    TooOld,
    /// A restore is expected to take longer than the policy promises.
    TooSlow,
    /// The newest differential is larger than its policy allows; the next run takes a full.
    Outgrown,
    /// The last run ended badly; the one before may serve.
    RunFailed,
    /// The host's clock is far from the fleet's.
    WrongClock,
    /// Nothing is wrong with the backups yet.
    Away,
}

struct Trouble {
    badness: Badness,
    shown: api::Trouble,
}

/// What version this coordinator is.
///
/// # Errors
/// Those of the catalog.
pub async fn version(app: &App) -> Result<api::VersionInfo, Fault> {
    Ok(api::VersionInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: app.settings.fleet.clone(),
        coordinator_id: app.coordinator.to_string(),
        database: format!("PostgreSQL {}", app.catalog.server_version().await?),
        schema_version: SCHEMA_VERSION,
    })
}

/// The state of the fleet, or of one host.
///
/// # Errors
/// `not_found` for a host that does not exist.
pub async fn fleet(app: &App, host: &str) -> Result<api::FleetStatus, Fault> {
    let hosts = if host.is_empty() { app.catalog.hosts().await? } else { vec![names::host(app, host).await?] };
    let hosts: Vec<Host> = hosts.into_iter().filter(|host| host.state == HostState::Active).collect();
    let one = (!host.is_empty()).then(|| hosts.first().map(|host| host.id)).flatten();
    let now = app.catalog.now().await?;
    let figures = app.catalog.fleet_figures(one).await?;
    let healths = app.catalog.job_healths(one).await?;
    let mut policies: HashMap<PolicyId, Policy> = HashMap::new();
    let mut troubles = Vec::new();
    for record in app.catalog.policies().await? {
        match readable(app, &record) {
            Some(policy) => drop(policies.insert(record.id, policy)),
            None if one.is_none() || healths.iter().any(|health| health.policy == record.id) => {
                troubles.push(unreadable(&record));
            }
            None => {}
        }
    }
    let measures = measures(app, one, policies.values()).await?;
    let policies = HostPolicies::of(app, policies).await?;
    for chain in app.catalog.newest_chains(MeasureFilter { host: one, ..MeasureFilter::default() }).await? {
        let policy = policies.on(app, chain.policy, chain.host);
        troubles.extend(policy.and_then(|policy| outgrown(&chain, policy.diff_threshold_percent)));
    }
    let mut protected = 0u64;
    for health in &healths {
        let found = policies.found_on(health.policy, health.host);
        let impossible = found.as_ref().and_then(|found| found.as_ref().err()).map(|fault| impossible(health, fault));
        let policy = found.as_ref().and_then(|found| found.as_deref().ok());
        let broken = policy.zip(measures.get(&health.job)).and_then(|(policy, job)| broken(policy, job, now));
        match trouble(health, policy.map(|policy| Due::backups(policy, health.host)), now)
            .into_iter()
            .chain(broken)
            .chain(impossible)
            .min_by_key(|x| x.badness)
        {
            Some(trouble) if trouble.badness <= Badness::TooOld => troubles.push(trouble),
            found => {
                protected += 1;
                troubles.extend(found);
            }
        }
    }
    let with_jobs: HashSet<_> = healths.iter().map(|health| health.host).collect();
    troubles.extend(hosts.iter().filter_map(|host| host_trouble(host, with_jobs.contains(&host.id))));
    troubles.extend(hosts.iter().filter_map(wrong_clock));
    troubles.sort_by_key(|trouble| (trouble.badness, trouble.shown.since_us));
    let paused = pauses::in_force(app).await?;
    let holds = |pause: &&PauseRecord| one.is_none() || pause.scope.host.is_none_or(|host| Some(host) == one);
    Ok(api::FleetStatus {
        hosts: number(hosts.len()),
        hosts_connected: number(hosts.iter().filter(|host| host.connected).count()),
        jobs: number(healths.len()),
        jobs_protected: protected,
        runs_open: figures.runs_open,
        runs_failed_24h: figures.runs_failed_24h,
        backups: figures.backups,
        stored_bytes: figures.stored_bytes,
        not_searchable: figures.not_searchable,
        troubles: troubles.into_iter().take(MAX_TROUBLES).map(|trouble| trouble.shown).collect(),
        now_us: to_us(now),
        local_only_hosts: figures.hosts_with_archives,
        next_due_at_us: optional_us(figures.next_due_at),
        pauses: paused.iter().filter(holds).map(pauses::encode).collect(),
    })
}

/// What the jobs have measured, where a policy promises anything that is to be compared with it.
async fn measures(
    app: &App,
    host: Option<HostId>,
    mut policies: impl Iterator<Item = &Policy>,
) -> Result<HashMap<JobId, JobMeasures>, Fault> {
    if policies.all(|policy| policy.objectives == Objectives::default() && !policy.has_overrides()) {
        return Ok(HashMap::new());
    }
    let measures = app.catalog.measures(MeasureFilter { host, ..MeasureFilter::default() }).await?;
    Ok(measures.into_iter().map(|job| (job.job, job)).collect())
}

/// The promise of its policy that a job with a good backup does not keep.
fn broken(policy: &Policy, job: &JobMeasures, now: Timestamp) -> Option<Trouble> {
    let good = job.good?;
    let Objectives { rpo_s, rto_s } = policy.objectives;
    let say = |badness: Badness, what: String, hint: String| Trouble {
        badness,
        shown: api::Trouble {
            host: job.host_name.clone(),
            policy: job.policy_name.clone(),
            what,
            hint,
            since_us: to_us(good.captured_at),
        },
    };
    let stated = |seconds: Option<u32>| duration::shown(seconds.unwrap_or(0));
    if objectives::rpo(rpo_s, Some(good.captured_at), now) == Standing::Out {
        let age = now.duration_since(good.captured_at).as_hours();
        let what = format!("the newest good backup is {age} hours old, and the RPO is {}", stated(rpo_s));
        return Some(say(Badness::TooOld, what, format!("coordctl job run {}/{}", job.host_name, job.policy_name)));
    }
    let restore = job.rates.restore(good.restore_bytes);
    if objectives::rto(rto_s, true, restore) == Standing::Out {
        let minutes = restore.map_or(0, |restore| restore.ms.div_ceil(60_000));
        let what = format!("a restore is expected to take {minutes} minutes, and the RTO is {}", stated(rto_s));
        return Some(say(Badness::TooSlow, what, "coordctl report rto".to_owned()));
    }
    None
}

/// A newest differential of more than `allowed` percent of its full.
fn outgrown(chain: &NewestChain, allowed: u32) -> Option<Trouble> {
    let (full, _) = chain.full.as_ref()?;
    let Growth { newest_bytes, .. } = Growth::of(full.source_bytes, full.differentials.iter().copied());
    let is_over = u128::from(newest_bytes) * 100 > u128::from(full.source_bytes) * u128::from(allowed);
    // Rounded up, so that what is over reads so.
    let tenths = (u128::from(newest_bytes) * 1000).div_ceil(u128::from(full.source_bytes.max(1)));
    let percent = format!("{}.{}", tenths / 10, tenths % 10);
    is_over.then(|| Trouble {
        badness: Badness::Outgrown,
        shown: api::Trouble {
            host: chain.host_name.clone(),
            policy: chain.policy_name.clone(),
            what: format!("the newest differential is {percent} percent of its full, and the policy allows {allowed}"),
            hint: format!("coordctl job run {}/{} --level full", chain.host_name, chain.policy_name),
            since_us: to_us(full.captured_at),
        },
    })
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The worst that is to be said of a job.
fn trouble(health: &JobHealth, due: Option<Due<'_>>, now: Timestamp) -> Option<Trouble> {
    let say = |badness: Badness, what: String, hint: String, since: Timestamp| Trouble {
        badness,
        shown: api::Trouble {
            host: health.host_name.clone(),
            policy: health.policy_name.clone(),
            what,
            hint,
            since_us: to_us(since),
        },
    };
    let run_now = format!("coordctl job run {}/{}", health.host_name, health.policy_name);
    let failed = health.last_run.as_ref().and_then(|run| {
        let what = match run.state {
            RunState::Failed => {
                format!("the last backup run failed: {}", run.fault.as_ref().map_or("", |fault| fault.message.as_str()))
            }
            RunState::Missed => format!("the last backup run was missed: {}", run.reason),
            RunState::Queued
            | RunState::Leased
            | RunState::Running
            | RunState::Verifying
            | RunState::Succeeded
            | RunState::Cancelled => return None,
        };
        let hint = run.fault.as_ref().map(|fault| fault.hint.clone()).filter(|hint| !hint.is_empty());
        Some((what, hint.unwrap_or_else(|| run_now.clone()), run.ended_at))
    });
    let Some((captured_at, status)) = health.newest else {
        let (what, hint, since) =
            failed.unwrap_or_else(|| ("there is no backup yet".to_owned(), run_now, health.created_at));
        return Some(say(Badness::Unprotected, what, hint, since));
    };
    if status == BackupStatus::Damaged {
        let hint = format!("coordctl job run {}/{} --level full", health.host_name, health.policy_name);
        return Some(say(Badness::Damaged, "the newest backup is damaged".to_owned(), hint, captured_at));
    }
    if due.is_some_and(|due| due.is_overdue(captured_at, now)) {
        let (what, hint, _) =
            failed.unwrap_or_else(|| ("the newest backup is too old".to_owned(), run_now, captured_at));
        return Some(say(Badness::TooOld, what, hint, captured_at));
    }
    let (what, hint, since) = failed?;
    Some(say(Badness::RunFailed, what, hint, since))
}

fn unreadable(record: &PolicyRecord) -> Trouble {
    let shown = api::Trouble {
        host: String::new(),
        policy: record.name.clone(),
        what: format!("version {} of the policy cannot be read: nothing of it is scheduled", record.version),
        hint: "coordctl policy apply writes it anew".to_owned(),
        since_us: to_us(record.applied_at),
    };
    Trouble { badness: Badness::Unreadable, shown }
}

/// Nothing of the policy is due on the host, and no run is missed: only here it is told.
fn impossible(health: &JobHealth, fault: &Fault) -> Trouble {
    let shown = api::Trouble {
        host: health.host_name.clone(),
        policy: health.policy_name.clone(),
        what: format!("nothing of the policy is scheduled on the host: {}", fault.message),
        hint: fault.hint.clone(),
        since_us: to_us(health.newest.map_or(health.created_at, |(captured_at, _)| captured_at)),
    };
    Trouble { badness: Badness::Impossible, shown }
}

fn host_trouble(host: &Host, has_jobs: bool) -> Option<Trouble> {
    let (badness, what, hint) = if !host.connected {
        (Badness::Away, "its agent is not connected", "start it on the host: coord-agent run")
    } else if !has_jobs {
        (
            Badness::Unprotected,
            "no policy protects it",
            "coordctl host label gives it the labels that a policy asks for",
        )
    } else {
        return None;
    };
    let since = host.last_seen_at.filter(|_| !host.connected).unwrap_or(host.joined_at);
    let shown = api::Trouble {
        host: host.name.clone(),
        policy: String::new(),
        what: what.to_owned(),
        hint: hint.to_owned(),
        since_us: to_us(since),
    };
    Some(Trouble { badness, shown })
}

/// A clock that is off by more than is harmless, as the host's last message showed it.
fn wrong_clock(host: &Host) -> Option<Trouble> {
    let seconds = host.clock_offset_us.unsigned_abs() / 1_000_000;
    let seen = host.last_seen_at.filter(|_| seconds > MAX_CLOCK_OFFSET_S)?;
    let minutes = (seconds + 30) / 60;
    let by = duration::shown(u32::try_from(minutes * 60).unwrap_or(u32::MAX));
    let side = if host.clock_offset_us > 0 { "ahead of" } else { "behind" };
    let shown = api::Trouble {
        host: host.name.clone(),
        policy: String::new(),
        what: format!("its clock is {by} {side} the fleet's"),
        hint: "set the host's clock, and let it follow a time server (timedatectl status)".to_owned(),
        since_us: to_us(seen),
    };
    Some(Trouble { badness: Badness::WrongClock, shown })
}

#[cfg(test)]
mod tests {
    use coord_shared::ids::{BackupId, PolicyVersion};

    use super::*;
    use crate::domain::decision::FullFacts;

    fn chain(differentials: &[u64]) -> NewestChain {
        let full = FullFacts {
            backup: BackupId::random(),
            captured_at: Timestamp::UNIX_EPOCH,
            source_bytes: 1000,
            stored_bytes: 400,
            differentials: differentials.to_vec(),
        };
        NewestChain {
            job: JobId::random(),
            host: HostId::random(),
            host_name: "web-1".to_owned(),
            policy: PolicyId::random(),
            policy_name: "web".to_owned(),
            full: Some((full, PolicyVersion(1))),
            source_bytes: Some(1000),
            owed: None,
        }
    }

    #[test]
    fn a_chain_is_told_of_when_its_newest_differential_is_larger_than_the_policy_allows() {
        assert!(outgrown(&chain(&[]), 50).is_none());
        assert!(outgrown(&chain(&[900, 500]), 50).is_none(), "the newest is just as large as is allowed");
        let told = outgrown(&chain(&[100, 501]), 50).map(|trouble| (trouble.badness, trouble.shown.what));
        let what = "the newest differential is 50.1 percent of its full, and the policy allows 50".to_owned();
        assert_eq!(told, Some((Badness::Outgrown, what)));
        assert!(outgrown(&chain(&[501]), 51).is_none(), "another policy");
    }
}
