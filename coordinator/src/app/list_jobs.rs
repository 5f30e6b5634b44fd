//! Jobs as operators see them: what protects what, since when, and what comes next.

use std::collections::{HashMap, HashSet};

use coord_shared::api;
use coord_shared::fault::Fault;
use coord_shared::ids::{BackupId, JobId, RunId};
use coord_shared::wire::optional_us;

use super::{App, backups, hosts, names, pauses, policies, runs, start_backup};
use crate::catalog::{Job, JobFilter, JobStanding, JobState, MeasureFilter, PauseRecord};
use crate::domain::chain::Growth;

/// Most jobs that one list answers; each takes up to 4 KiB of the message.
const MAX_LISTED_JOBS: usize = 2_000;

/// A job and where it stands.
type Placed = (Job, JobStanding);

/// Jobs of hosts that fulfil a selector: the first ones in the order that was asked for. The number of statements does not depend on
/// that of jobs.
///
/// # Errors
/// `not_found` for a host or policy that does not exist, `invalid_argument` for a selector that cannot be read.
pub async fn list(app: &App, request: &api::ListJobsRequest) -> Result<api::JobList, Fault> {
    let mut filter = JobFilter::default();
    if !request.host.is_empty() {
        filter.host = Some(names::host(app, &request.host).await?.id);
    }
    if !request.policy.is_empty() {
        filter.policy = Some(names::policy(app, &request.policy).await?.id);
    }
    let selector = hosts::selector(&request.selector)?;
    let mut found = app.catalog.jobs(filter).await?;
    if !selector.is_everything() {
        let selected = app.catalog.hosts().await?.into_iter().filter(|host| selector.matches(&host.labels));
        let selected: HashSet<_> = selected.map(|host| host.id).collect();
        found.retain(|job| selected.contains(&job.host));
    }
    let mut placed = place(app, found).await?;
    placed.retain(|(_, standing)| {
        let good = optional_us(standing.last_good_at);
        (request.since_us == 0 || good >= request.since_us) && (request.until_us == 0 || good < request.until_us)
    });
    // They come by host and policy, and sorting is stable.
    sort(&mut placed, request.order());
    let limit = match usize::try_from(request.limit) {
        Ok(limit) if limit > 0 => limit.min(MAX_LISTED_JOBS),
        Ok(_) | Err(_) => MAX_LISTED_JOBS,
    };
    let skipped = usize::try_from(request.skip).unwrap_or(usize::MAX).min(placed.len());
    placed.drain(..skipped);
    let left_out = placed.len().saturating_sub(limit);
    placed.truncate(limit);
    Ok(api::JobList { jobs: whole(app, &placed).await?, left_out: left_out as u64 })
}

/// The jobs in their order, each with where it stands.
async fn place(app: &App, jobs: Vec<Job>) -> Result<Vec<Placed>, Fault> {
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let standings = app.catalog.job_standings(&ids).await?;
    let standings: HashMap<JobId, JobStanding> = standings.into_iter().map(|one| (one.job, one)).collect();
    let placed = jobs.into_iter().filter_map(|job| standings.get(&job.id).map(|standing| (job, *standing)));
    Ok(placed.collect())
}

fn sort(placed: &mut [Placed], order: api::JobOrder) {
    match order {
        api::JobOrder::Unspecified => {}
        api::JobOrder::Policy => placed.sort_by(|(a, _), (b, _)| a.policy_name.cmp(&b.policy_name)),
        api::JobOrder::State => {
            placed.sort_by_key(|(job, standing)| (job.state.as_str(), ended_because(job, standing)))
        }
        api::JobOrder::LastGood => placed.sort_by_key(|(_, standing)| standing.last_good_at),
        api::JobOrder::NextRun => placed.sort_by_key(|(job, _)| (job.backup_due_at.is_none(), job.backup_due_at)),
        api::JobOrder::Stored => placed.sort_by_key(|(job, _)| std::cmp::Reverse(job.stored_bytes)),
    }
}

/// One job. The policy may stay unnamed where the host has one only.
///
/// # Errors
/// `not_found` and `ambiguous` as for every name.
pub async fn show(app: &App, host: &str, policy: &str) -> Result<api::Job, Fault> {
    let job = start_backup::job(app, host, policy).await?;
    let values = match (app.catalog.policy(job.policy).await?, app.catalog.host(job.host).await?) {
        // What a job that has ended would do is nothing.
        (Some(record), Some(host)) if job.state == JobState::Active => policies::values(app, &record, Some(&host))?,
        (_, _) => Vec::new(),
    };
    let growth = growth(app, &job).await?;
    let placed = place(app, vec![job]).await?;
    let shown = whole(app, &placed).await?.pop();
    Ok(api::Job { growth, values, ..shown.unwrap_or_default() })
}

/// How the job's newest chain has grown.
async fn growth(app: &App, job: &Job) -> Result<Option<api::ChainGrowth>, Fault> {
    let filter = MeasureFilter { job: Some(job.id), ..MeasureFilter::default() };
    let chain = app.catalog.newest_chains(filter).await?.pop();
    Ok(chain.and_then(|chain| chain.full).map(|(full, _)| {
        let Growth { newest_bytes, largest_bytes, percent } =
            Growth::of(full.source_bytes, full.differentials.iter().copied());
        let differentials = u64::try_from(full.differentials.len()).unwrap_or(u64::MAX);
        api::ChainGrowth { differentials, newest_bytes, largest_bytes, percent }
    }))
}

/// The jobs as operators see them, in their order.
async fn whole(app: &App, placed: &[Placed]) -> Result<Vec<api::Job>, Fault> {
    let backups: Vec<BackupId> =
        placed.iter().flat_map(|(_, standing)| [standing.newest, standing.newest_full]).flatten().collect();
    let runs: Vec<RunId> =
        placed.iter().flat_map(|(_, standing)| [standing.open_run, standing.last_missed]).flatten().collect();
    let found = app.catalog.backups_by_ids(&backups).await?;
    let backups: HashMap<BackupId, api::Backup> =
        found.iter().map(|backup| (backup.id, backups::encode(backup))).collect();
    let found = app.catalog.runs_by_ids(&runs).await?;
    let runs: HashMap<RunId, api::Run> = found.iter().map(|run| (run.id, runs::encode(run))).collect();
    let paused = pauses::in_force(app).await?;
    let job = |(job, standing): &Placed| {
        let backup = |id: Option<BackupId>| id.and_then(|id| backups.get(&id).cloned());
        let run = |id: Option<RunId>| id.and_then(|id| runs.get(&id).cloned());
        api::Job {
            newest: backup(standing.newest),
            newest_full: backup(standing.newest_full),
            open_run: run(standing.open_run),
            last_missed: run(standing.last_missed),
            ..row(job, standing, &paused)
        }
    };
    Ok(placed.iter().map(job).collect())
}

/// What a job is without its backups and runs.
fn row(job: &Job, standing: &JobStanding, paused: &[PauseRecord]) -> api::Job {
    let paused: Vec<&PauseRecord> = match job.state {
        JobState::Active => pauses::holding(paused, job.host, job.policy).collect(),
        JobState::Ended => Vec::new(),
    };
    // Nobody knows when that ends.
    let is_open = paused.iter().any(|pause| pause.until.is_none());
    api::Job {
        id: job.id.to_string(),
        host: job.host_name.clone(),
        policy: job.policy_name.clone(),
        state: job.state.as_str().to_owned(),
        next_due_at_us: optional_us(job.backup_due_at),
        backups: job.backups,
        stored_bytes: job.stored_bytes,
        ended_because: ended_because(job, standing).to_owned(),
        chain_differentials: standing.differentials,
        last_good_at_us: optional_us(standing.last_good_at),
        owed_runs: standing.owed.map_or(0, |(runs, _)| runs),
        owed_from_us: optional_us(standing.owed.map(|(_, from)| from).filter(|_| !is_open)),
        pauses: paused.into_iter().map(pauses::encode).collect(),
        ..api::Job::default()
    }
}

/// Why a job has ended; nothing of one that is active.
fn ended_because(job: &Job, standing: &JobStanding) -> &'static str {
    match job.state {
        JobState::Active => "",
        JobState::Ended if standing.policy_deleted => "policy_deleted",
        JobState::Ended if standing.host_revoked => "host_revoked",
        JobState::Ended => "not_selected",
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use coord_shared::api::{JobOrder, ListJobsRequest};
    use coord_shared::clock::SystemClock;
    use coord_shared::ids::{CoordinatorId, HostId, JobId, Ordinal, PolicyId, PolicyVersion};
    use coord_shared::tls::PeerKind;
    use jiff::Timestamp;

    use super::super::{App, Endpoints, Nudges, authorize, dispatch, heartbeat, jobs, known_policies};
    use super::{MAX_LISTED_JOBS, Placed, list, sort};
    use crate::catalog::testing::with_catalog;
    use crate::catalog::tests::fixture::{agent_token, new_certificate, new_host};
    use crate::catalog::{Catalog, Job, JobStanding, JobState, NewPolicyVersion, STATEMENTS_PUT, VersionOrigin};
    use crate::draining::Draining;
    use crate::pki::Authority;
    use crate::pulses::Pulses;
    use crate::relays::Relays;
    use crate::sessions::Sessions;
    use crate::settings::Settings;

    const HOSTS: u32 = 50;
    const POLICIES: usize = 41;

    fn app(catalog: &Catalog, state: &tempfile::TempDir) -> App {
        App {
            duties: catalog.clone(),
            catalog: catalog.clone(),
            sessions: Sessions::new(),
            relays: Relays::default(),
            previews: Relays::default(),
            authority: Authority::create(state.path(), "test", Timestamp::now()).unwrap(),
            settings: Settings::new("test", "127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap(),
            endpoints: Endpoints::default(),
            coordinator: CoordinatorId::random(),
            clock: Arc::new(SystemClock),
            nudges: Nudges::default(),
            standings: authorize::Standings::new(),
            known_policies: known_policies::KnownPolicies::default(),
            unordered: dispatch::Unordered::default(),
            beats: heartbeat::Beats::default(),
            reported: jobs::Reported::default(),
            plans: crate::app::send_plans::Plans::default(),
            draining: Draining::default(),
            pulses: Pulses::default(),
            whereabouts: ArcSwap::default(),
            certificate_ends: tokio::sync::watch::Sender::new(Timestamp::MAX),
        }
    }

    async fn join(catalog: &Catalog) -> Vec<HostId> {
        let token = agent_token(catalog, HOSTS).await;
        let mut hosts = Vec::new();
        for number in 0..HOSTS {
            let host = HostId::random();
            let certificate = new_certificate(&host.to_string(), PeerKind::Agent, 1);
            catalog.join_host(token, &new_host(host, &format!("h-{number:02}")), &certificate).await.unwrap();
            hosts.push(host);
        }
        hosts
    }

    async fn protect(catalog: &Catalog, hosts: &[HostId], name: String) {
        let policy = NewPolicyVersion {
            name,
            toml: "name = 'p'".to_owned(),
            spec: serde_json::json!({}),
            applied_by: "ada".to_owned(),
            hosts: hosts.to_vec(),
            new_job_ids: hosts.iter().map(|_| JobId::random()).collect(),
            origin: VersionOrigin::Applied,
            equals: None,
            renew: false,
            expected: None,
        };
        catalog.apply_policy(&policy).await.unwrap();
    }

    /// Jobs of three hosts: their last good backup and next run in minutes, if any, and bytes.
    fn placed() -> Vec<Placed> {
        let one = |host: &str, good: Option<i64>, next: Option<i64>, bytes: u64| {
            let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
            let job = Job {
                id: JobId::random(),
                host: HostId::random(),
                host_name: host.to_owned(),
                policy: PolicyId::random(),
                policy_name: "p".to_owned(),
                policy_version: PolicyVersion(1),
                state: if host == "b" { JobState::Ended } else { JobState::Active },
                backup_due_at: next.map(at),
                verify_due_at: None,
                last_ordinal: Ordinal(0),
                backups: 0,
                stored_bytes: bytes,
            };
            let standing = JobStanding {
                job: job.id,
                last_good_at: good.map(at),
                differentials: 0,
                host_revoked: false,
                policy_deleted: false,
                newest: None,
                newest_full: None,
                open_run: None,
                last_missed: None,
                owed: None,
            };
            (job, standing)
        };
        vec![one("a", Some(20), None, 20), one("b", None, Some(9), 0), one("c", Some(10), Some(8), 10)]
    }

    #[test]
    fn a_list_is_sorted_so_that_trouble_comes_first() {
        let order = |by: JobOrder| {
            let mut list = placed();
            sort(&mut list, by);
            list.into_iter().map(|(job, _)| job.host_name).collect::<String>()
        };
        assert_eq!((order(JobOrder::LastGood), order(JobOrder::NextRun)), ("bca".to_owned(), "cba".to_owned()));
        assert_eq!((order(JobOrder::Stored), order(JobOrder::Unspecified)), ("acb".to_owned(), "abc".to_owned()));
        assert_eq!((order(JobOrder::State), order(JobOrder::Policy)), ("acb".to_owned(), "abc".to_owned()));
    }

    #[tokio::test]
    async fn two_thousand_jobs_are_listed_with_as_many_statements_as_fifty() {
        with_catalog(async |catalog| {
            let state = tempfile::tempdir().unwrap();
            let app = app(&catalog, &state);
            let hosts = join(&catalog).await;
            protect(&catalog, &hosts, "p-00".to_owned()).await;
            let ask = ListJobsRequest::default();
            let statements = async |request: &ListJobsRequest| {
                let before = STATEMENTS_PUT.get();
                let found = list(&app, request).await.unwrap();
                (STATEMENTS_PUT.get() - before, found)
            };
            let (few, found) = statements(&ask).await;
            assert_eq!((found.jobs.len(), found.left_out), (50, 0));
            for number in 1..POLICIES {
                protect(&catalog, &hosts, format!("p-{number:02}")).await;
            }
            let (many, found) = statements(&ask).await;
            assert_eq!((found.jobs.len(), found.left_out), (MAX_LISTED_JOBS, 50), "50 hosts with 41 policies");
            assert_eq!((many, many < 10), (few, true), "{many} statements");

            let first = ListJobsRequest { limit: 3, order: JobOrder::Policy.into(), ..ask };
            let found = statements(&first).await.1;
            let names: Vec<String> = found.jobs.iter().map(|job| format!("{}/{}", job.host, job.policy)).collect();
            assert_eq!((names.join(" ").as_str(), found.left_out), ("h-00/p-00 h-01/p-00 h-02/p-00", 2047));
            let last = ListJobsRequest { skip: 2049, ..first.clone() };
            let found = statements(&last).await.1;
            assert_eq!((found.jobs[0].host.as_str(), found.jobs.len(), found.left_out), ("h-49", 1, 0));
            let beyond = ListJobsRequest { skip: 2050, ..first.clone() };
            assert_eq!(statements(&beyond).await.1, coord_shared::api::JobList::default());
            let never = ListJobsRequest { since_us: 1, ..first };
            assert_eq!(statements(&never).await.1, coord_shared::api::JobList::default(), "there is no good backup");
            let lacking = ListJobsRequest { since_us: 0, until_us: 1, limit: 0, ..never };
            assert_eq!(statements(&lacking).await.1.jobs.len(), MAX_LISTED_JOBS);
        })
        .await;
    }
}
