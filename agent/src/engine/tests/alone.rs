//! A host that is cut off, with its plan and an engine of its own.

use coord_shared::api::RunKind;
use jiff::{SignedDuration, Timestamp};

use super::*;

/// How long these hosts wait before they go by their plan.
const SOON: Duration = Duration::from_secs(1);

/// A run of job `p1` that was due a minute ago and has an hour to begin.
fn planned(run: &str) -> api::PlannedRun {
    let now = Timestamp::now().as_microsecond();
    api::PlannedRun {
        run_id: run.into(),
        policy_id: "p1".into(),
        kind: RunKind::Backup.into(),
        due_at_us: now - 60_000_000,
        begin_before_us: now + 3_600_000_000,
        level: api::Level::Full.into(),
        reason: "the full of the week".into(),
        ..Default::default()
    }
}

fn plan(runs: Vec<api::PlannedRun>) -> api::Plan {
    let now = Timestamp::now();
    let task = api::BackupTask { policy_id: "p1".into(), policy_name: "srv".into(), ..Default::default() };
    api::Plan {
        made_at_us: (now - SignedDuration::from_hours(1)).as_microsecond(),
        valid_until_us: (now + SignedDuration::from_hours(1)).as_microsecond(),
        jobs: vec![api::PlannedJob { task: Some(task), held: String::new() }],
        runs,
    }
}

/// A process whose work tells which attempts it did, and whether they came from the plan.
fn start(folder: &Path) -> (Process, std::sync::mpsc::Receiver<(String, bool)>) {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let process = Process::start_to_be_alone(folder, SOON, move |context| {
        let done_here = (context.key.to_string(), context.from_plan.is_some());
        tell.lock().unwrap().send(done_here).unwrap();
        Ok(done(None))
    });
    (process, told)
}

/// What the host did by itself until nothing came any more for a while.
async fn did(told: std::sync::mpsc::Receiver<(String, bool)>) -> Vec<(String, bool)> {
    let wait = move || std::iter::from_fn(|| told.recv_timeout(SOON * 4).ok()).collect();
    tokio::task::spawn_blocking(wait).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_cut_off_begins_a_due_run_of_its_plan_once_and_tells_of_it_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (mut agent, told) = start(folder.path());
    agent.connect(api::HelloAnswer { now_us: Timestamp::now().as_microsecond(), ..Default::default() }).await;
    agent.receive(FromCoordinator::Plan(plan(vec![planned("r1")]))).await;
    agent.disconnect().await;
    assert_eq!(did(told).await, [("r1.1".to_owned(), true)]);
    agent.end().await;

    // Neither this process nor the next one does it again, and the plan is as durable as the journal.
    let (mut agent, told) = start(folder.path());
    assert_eq!(did(told).await, []);
    let greeting = agent.connect(api::HelloAnswer::default()).await;
    assert!(matches!(&greeting.held[..], [held] if held.run_id == "r1" && held.attempt == 1 && held.finished));
    let started = agent.report().await;
    let Some(run_report::Event::Started(started)) = started.event else { panic!("{started:?}") };
    let how = started.from_plan.unwrap();
    assert!(how.cut_off_since_us <= how.started_at_us && how.plan_made_at_us < how.cut_off_since_us, "{how:?}");
    agent.finished().await;
    agent.acknowledge("r1", 1, Disposition::Continue).await;
    agent.acknowledge("r1", 2, Disposition::Forget).await;
    agent.end().await;

    let (agent, told) = start(folder.path());
    assert_eq!(did(told).await, [], "both ends have closed it, and it is still not begun again");
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_the_plan_that_takes_too_long_is_stopped_and_fails_for_good_with_that_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (tell, stopped) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let mut agent = Process::start_to_be_alone(folder.path(), SOON, move |context| {
        let level = context.wait_level(PATIENCE * 2);
        tell.lock().unwrap().send(level.is_err()).unwrap();
        level.map(|_| done(None))
    });
    agent.connect(api::HelloAnswer::default()).await;
    let bounded = api::PlannedRun { max_duration_s: 2, ..planned("r1") };
    agent.receive(FromCoordinator::Plan(plan(vec![bounded]))).await;
    agent.disconnect().await;
    let was_stopped = tokio::task::spawn_blocking(move || stopped.recv_timeout(PATIENCE * 2)).await.unwrap();
    assert_eq!(was_stopped, Ok(true));
    agent.connect(api::HelloAnswer::default()).await;
    let (_, finished) = agent.finished().await;
    assert_eq!((finished.outcome(), finished.retryable), (api::Outcome::Failed, false));
    let fault = finished.fault.unwrap();
    assert_eq!(
        (fault.code.as_str(), fault.message.as_str()),
        ("timed_out", "it took longer than 2s, the most that its policy allows")
    );
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_session_or_with_a_plan_that_is_too_old_begins_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut agent, told) = start(folder.path());
    agent.connect(api::HelloAnswer::default()).await;
    agent.receive(FromCoordinator::Plan(plan(vec![planned("r1")]))).await;
    assert_eq!(did(told).await, [], "there is a session");
    let over = api::Plan { valid_until_us: Timestamp::now().as_microsecond(), ..plan(vec![planned("r1")]) };
    let until = over.valid_until_us;
    agent.receive(FromCoordinator::Plan(over)).await;
    let kept = || PlanFile::open(folder.path().join("plan")).kept()?.plan.clone();
    let began = std::time::Instant::now();
    while kept().is_none_or(|plan| plan.valid_until_us != until) {
        assert!(began.elapsed() < PATIENCE, "the plan is not kept");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    agent.end().await;
    let (agent, told) = start(folder.path());
    assert_eq!(did(told).await, [], "the plan is too old");
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_the_coordinator_ordered_is_not_begun_again_by_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let (mut agent, told) = start(folder.path());
    agent.connect(api::HelloAnswer::default()).await;
    agent.receive(FromCoordinator::Plan(plan(vec![planned("r1")]))).await;
    agent.order("r1").await;
    agent.finished().await;
    agent.disconnect().await;
    assert_eq!(did(told).await, [("r1.1".to_owned(), false)]);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_job_that_were_done_while_cut_off_are_reported_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    // The first has the larger id: the order is not that of ids.
    let first = api::PlannedRun { begin_before_us: planned("z").begin_before_us - 1, ..planned("z") };
    let (mut agent, told) = start(folder.path());
    agent.connect(api::HelloAnswer::default()).await;
    agent.receive(FromCoordinator::Plan(plan(vec![first]))).await;
    agent.disconnect().await;
    assert_eq!(did(told).await.len(), 1);
    agent.end().await;
    let (mut agent, told) = start(folder.path());
    agent.connect(api::HelloAnswer::default()).await;
    agent.receive(FromCoordinator::Plan(plan(vec![planned("a")]))).await;
    agent.disconnect().await;
    assert_eq!(did(told).await, [("a.1".to_owned(), true)]);
    let held = agent.connect(api::HelloAnswer::default()).await.held;
    assert_eq!(held.iter().map(|held| held.run_id.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    let mut reported = Vec::new();
    for _ in 0..4 {
        reported.push(agent.report().await.run_id);
    }
    assert_eq!(reported, ["z", "z", "a", "a"]);
    agent.end().await;
}
