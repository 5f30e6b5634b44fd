//! Runs that fail or are cancelled: what is tried again and when, by itself and because somebody says so.

use coord_shared::api;
use coord_shared::api::coordinator_message::Message;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_report::Event;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RunId;
use coord_shared::run::RunKind;
use coord_shared::wire::to_us;
use coordinator::catalog::{AskedRun, JobFilter};
use jiff::Timestamp;

use super::operator::{Host, Operator, apply, start, tree};
use super::support::Fleet;

const POLICY: &str =
    "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = { cron = \"0 3 1 1 *\" }\n";

fn failed(code: &str, retryable: bool) -> Event {
    Event::Finished(api::Finished {
        outcome: api::Outcome::Failed.into(),
        finished_at_us: to_us(Timestamp::now()),
        fault: Some(api::Fault { code: code.into(), message: "it broke".into(), ..Default::default() }),
        retryable,
        ..Default::default()
    })
}

async fn show(operator: &mut Operator, run: &str) -> api::Run {
    operator.get_run(api::GetRunRequest { run: run.to_owned() }).await.unwrap().into_inner()
}

async fn retry(operator: &mut Operator, run: &str) -> Result<api::Run, Fault> {
    let answer = operator.retry_run(api::RetryRunRequest { run: run.to_owned() }).await;
    answer.map(tonic::Response::into_inner).map_err(Fault::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_wrong_says_when_it_is_tried_again_and_an_operator_need_not_wait() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, POLICY).await;
    let id = start(&mut operator, "web").await.unwrap().into_inner().id;
    let order = host.order().await;
    assert_eq!(retry(&mut operator, &id).await.unwrap_err().code, ErrorCode::NotNow, "it is going on");
    // (what went wrong, seconds until the next attempt)
    for (attempt, code, wait) in [(1, "disk_full", 450..=900), (2, "io", 30..=60)] {
        let order = if attempt == 1 { order.clone() } else { host.order().await };
        assert_eq!(order.attempt, attempt);
        let before = to_us(Timestamp::now());
        host.report(&order, 1, failed(code, true)).await;
        let run = show(&mut operator, &id).await;
        assert_eq!(run.state(), api::RunState::Queued, "{run:?}");
        let seconds = (run.not_before_us - before) / 1_000_000;
        assert!(wait.contains(&seconds) || wait.contains(&(seconds + 1)), "{code}: {seconds} s");
        let again = retry(&mut operator, &id).await.unwrap();
        assert_eq!(again.id, id, "the same run, at once");
    }
    let order = host.order().await;
    host.report(&order, 1, failed("io", true)).await;
    assert_eq!(show(&mut operator, &id).await.state(), api::RunState::Failed, "the third attempt was the last");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_hears_within_five_seconds_of_a_run_that_was_cancelled_at_another_coordinator() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, POLICY).await;
    let id = start(&mut operator, "web").await.unwrap().into_inner().id;
    host.order().await;
    // Whoever was asked wrote this; the coordinator of the host was not told, and the host sends no heartbeats.
    let asked = std::time::Instant::now();
    fleet.catalog.cancel_run(id.parse().unwrap()).await.unwrap();
    let told =
        host.wait(|message| if let Message::Cancel(cancel) = message { Some(cancel.run_id) } else { None }).await;
    assert_eq!(told, id);
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "{:?}", asked.elapsed());
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_to_mend_fails_at_once_and_is_asked_for_anew_afterwards() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, POLICY).await;
    let request = api::StartBackupRequest {
        host: "one".into(),
        policy: "web".into(),
        level: api::Level::Full.into(),
        ..Default::default()
    };
    let first = operator.start_backup(request).await.unwrap().into_inner().id;
    let order = host.order().await;
    host.report(&order, 1, failed("source_missing", true)).await;
    assert_eq!(show(&mut operator, &first).await.state(), api::RunState::Failed, "whatever the host hopes");
    let second = retry(&mut operator, &first).await.unwrap();
    assert!(second.id != first && second.level() == api::Level::Full, "the same wish, a new run: {second:?}");
    host.back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    let done = retry(&mut operator, &second.id).await.unwrap_err();
    assert_eq!(done.code, ErrorCode::NotNow, "{done:?}");

    // A restore is asked for anew with all that was said of it.
    let restore = api::RestoreRequest { host: "one".into(), to_folder: b"/back".to_vec(), ..Default::default() };
    let run = operator.start_restore(restore).await.unwrap().into_inner().run.unwrap();
    let before = host.order().await;
    operator.cancel_run(api::CancelRunRequest { run: run.id.clone() }).await.unwrap();
    host.report(&before, 1, failed("cancelled", false)).await;
    let again = retry(&mut operator, &run.id).await.unwrap();
    let after = host.order().await;
    assert_eq!((after.run_id == again.id, after.task), (true, before.task));
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_verification_that_several_ask_for_anew_is_one_run() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, POLICY).await;
    start(&mut operator, "web").await.unwrap();
    host.back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    let job = fleet.catalog.jobs(JobFilter::default()).await.unwrap()[0].clone();
    let asked = AskedRun {
        id: RunId::random(),
        kind: RunKind::Verify,
        host: job.host,
        job: Some(job.id),
        asked_by: "schedule".to_owned(),
        level: None,
        spec: serde_json::json!({}),
        priority: 0,
    };
    let first = fleet.catalog.ask_run(&asked).await.unwrap().id.to_string();
    operator.cancel_run(api::CancelRunRequest { run: first.clone() }).await.unwrap();
    let mut operators = vec![operator; 8];
    let retries = operators.iter_mut().map(|operator| retry(operator, &first));
    let answers = futures_util::future::join_all(retries).await;
    let answers: Vec<api::Run> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|run| !run.was_there).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|run| run.id == answers[0].id && run.id != first), "{answers:?}");
    let open = fleet.catalog.open_runs_of_job(job.id).await.unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    fleet.stop().await;
}
