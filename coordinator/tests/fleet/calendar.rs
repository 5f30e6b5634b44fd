//! Windows, blackouts and their consequences, seen by an operator; and a policy that changes while its run goes on.

use coord_shared::api;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_report::Event;
use coord_shared::ids::PolicyVersion;
use coord_shared::run::{RunKind, RunState};
use coordinator::catalog::{BackupFilter, Job, JobFilter, RunFilter, RunRecord, ScheduleOutcome, ScheduleStep};
use coordinator::domain::timing::Owing;
use jiff::{SignedDuration, Timestamp};

use super::operator::{Host, Operator, apply, start, tree};
use super::runs::backup_of;
use super::support::{Fleet, wait_for};

/// Due once a year, with more keys.
fn yearly(keys: &str) -> String {
    format!(
        "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = {{ cron = \"0 3 1 1 *\" }}\n{keys}\n"
    )
}

/// A blackout around now.
fn blackout() -> String {
    let now = Timestamp::now();
    let (from, to) = (now - SignedDuration::from_hours(24), now + SignedDuration::from_hours(1));
    format!("windows = {{ blackout = [{{ from = \"{from}\", to = \"{to}\", reason = \"moving house\" }}] }}")
}

async fn scheduled(fleet: &Fleet) -> Job {
    wait_for("the next due instant", || async {
        let jobs = fleet.catalog.jobs(JobFilter::default()).await.unwrap();
        jobs.into_iter().find(|job| job.backup_due_at.is_some())
    })
    .await
}

/// Makes a backup due a moment ago, as if its time had come.
pub(super) async fn come_due(fleet: &Fleet) -> Timestamp {
    let due_at = fleet.catalog.now().await.unwrap() - SignedDuration::from_secs(1);
    come_due_at(fleet, due_at).await;
    due_at
}

/// Makes a backup due at an instant that is over.
pub(super) async fn come_due_at(fleet: &Fleet, due_at: Timestamp) {
    let job = scheduled(fleet).await;
    let step = ScheduleStep {
        job: job.id,
        policy_version: job.policy_version,
        kind: RunKind::Backup,
        seen_due_at: job.backup_due_at,
        runs: Vec::new(),
        next_due_at: Some(due_at),
        owing: Owing::Unchanged,
    };
    assert_ne!(fleet.catalog.schedule(&step).await.unwrap(), ScheduleOutcome::Changed);
}

/// The first run in a state.
pub(super) async fn run_in(fleet: &Fleet, state: RunState) -> RunRecord {
    wait_for("a run in that state", || async {
        let filter = RunFilter { state: Some(state), ..RunFilter::default() };
        fleet.catalog.runs(filter).await.unwrap().into_iter().next()
    })
    .await
}

async fn shown(operator: &mut Operator) -> api::Job {
    let request = api::GetJobRequest { host: "one".into(), policy: "web".into() };
    operator.get_job(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_a_blackout_holds_back_is_a_missed_row_and_one_makes_up_for_it_afterwards() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &yearly(&blackout())).await;
    let due_at = come_due(&fleet).await;
    let missed = run_in(&fleet, RunState::Missed).await;
    assert_eq!(missed.due_at, due_at);
    assert!(
        missed.reason.starts_with("blackout until") && missed.reason.ends_with("moving house"),
        "{}",
        missed.reason
    );
    let job = shown(&mut operator).await;
    assert_eq!(job.last_missed.unwrap().id, missed.id.to_string());
    assert_eq!((job.owed_runs, job.owed_from_us > 0), (1, true));
    let status = operator.get_status(api::GetStatusRequest::default()).await.unwrap().into_inner();
    assert!(status.troubles[0].what.contains("moving house"), "{status:?}");
    let ahead = operator.get_schedule(api::GetScheduleRequest::default()).await.unwrap().into_inner();
    assert!(ahead.runs[0].makes_up && ahead.runs[0].level() == api::Level::Full, "{ahead:?}");
    assert_eq!(ahead.runs[0].due_at_us, job.owed_from_us, "when the blackout ends");
    // The blackout is taken back, and what it held back is due at once.
    apply(&mut operator, &yearly("")).await;
    host.back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    let runs = operator.list_runs(api::ListRunsRequest::default()).await.unwrap().into_inner().runs;
    let made_up = runs.iter().find_map(|run| run.makes_up_for.clone()).unwrap();
    assert_eq!((made_up.due_at_us, made_up.why), (due_at.as_microsecond(), missed.reason));
    let job = shown(&mut operator).await;
    assert_eq!((job.owed_runs, job.last_missed), (0, None), "it is made up for");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_with_the_version_of_its_policy_that_it_began_with() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &yearly("")).await;
    start(&mut operator, "web").await.unwrap();
    let first = host.order().await;
    host.report(&first, 1, Event::Started(api::Started { started_at_us: 1, ..Default::default() })).await;
    let changed = apply(&mut operator, &yearly("").replace("/etc", "/srv")).await;
    assert_eq!(changed.policy.unwrap().version, 2);
    // Its attempt fails; the next one is of the same version.
    let failed = api::Finished {
        outcome: api::Outcome::Failed.into(),
        fault: Some(api::Fault { code: "io".into(), message: "a disk".into(), ..Default::default() }),
        retryable: true,
        ..Default::default()
    };
    host.report(&first, 2, Event::Finished(failed)).await;
    let again = host.order().await;
    assert_eq!((again.run_id.as_str(), again.attempt), (first.run_id.as_str(), 2));
    let task = backup_of(&again);
    assert_eq!((task.policy_version, task.sources.as_slice()), (1, [b"/etc".to_vec()].as_slice()));
    host.report(&again, 3, super::runs::finished(&task)).await;
    let backup = fleet.catalog.backups(BackupFilter::default()).await.unwrap().remove(0);
    assert_eq!(backup.policy_version, PolicyVersion(1));
    start(&mut operator, "web").await.unwrap();
    let next = backup_of(&host.order().await);
    assert_eq!((next.policy_version, next.level()), (2, api::Level::Full), "the next one is of the new version");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_came_due_before_its_policy_was_changed_still_runs() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    drop(fleet.agent("one").await);
    apply(&mut operator, &yearly("")).await;
    let due_at = come_due(&fleet).await;
    apply(&mut operator, &yearly("").replace("0 3 1 1 *", "0 4 1 1 *")).await;
    assert_eq!(run_in(&fleet, RunState::Queued).await.due_at, due_at);
    fleet.stop().await;
}
