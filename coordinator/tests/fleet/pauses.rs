//! Pauses as operators set and end them, with two coordinators that look at everything twice.

use coord_shared::api;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::run::RunState;
use jiff::Timestamp;

use super::calendar::{come_due_at, run_in};
use super::operator::{Host, Operator, apply, start, tree};
use super::support::Fleet;

const POLICY: &str =
    "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = { cron = \"0 3 * * *\" }\n";

pub(super) async fn pause(
    operator: &mut Operator,
    host: &str,
    policy: &str,
    until_us: i64,
) -> Result<api::Pause, Fault> {
    let (host, policy, reason) = (host.into(), policy.into(), "new disks".into());
    let request = api::SetPauseRequest { host, policy, until_us, reason, fleet: false };
    operator.set_pause(request).await.map(tonic::Response::into_inner).map_err(Fault::from)
}

pub(super) async fn resume(operator: &mut Operator, host: &str, policy: &str) -> Result<api::Pause, Fault> {
    let request = api::EndPauseRequest { host: host.into(), policy: policy.into(), fleet: false };
    operator.end_pause(request).await.map(tonic::Response::into_inner).map_err(Fault::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_on_a_paused_host_is_missed_once_with_the_reason_and_made_up_for_when_it_is_resumed() {
    let fleet = Fleet::start().await;
    let second = fleet.second().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, POLICY).await;
    let paused = pause(&mut operator, "one", "", 0).await.unwrap();
    assert_eq!((paused.scope.as_str(), paused.by.as_str(), paused.until_us), ("host", "admin", 0));
    let due_at = fleet.catalog.now().await.unwrap();
    come_due_at(&fleet, due_at).await;
    let missed = run_in(&fleet, RunState::Missed).await;
    let why = "host one is paused until it is resumed, by admin: new disks";
    assert_eq!((missed.due_at, missed.reason.as_str()), (due_at, why));
    let refused = Fault::from(start(&mut operator, "web").await.unwrap_err());
    assert_eq!((refused.code, refused.message.as_str()), (ErrorCode::NotNow, why));
    assert!(refused.hint.starts_with("coordctl host resume one "), "{refused:?}");

    let request = api::GetJobRequest { host: "one".into(), policy: "web".into() };
    let job = operator.get_job(request).await.unwrap().into_inner();
    assert_eq!((job.pauses.as_slice(), job.owed_runs, job.owed_from_us), ([paused.clone()].as_slice(), 1, 0));
    let shown = operator.get_host(api::GetHostRequest { host: "one".into() }).await.unwrap().into_inner();
    let policy = api::GetPolicyRequest { policy: "web".into(), host: String::new() };
    let policy = operator.get_policy(policy).await.unwrap().into_inner();
    let status = operator.get_status(api::GetStatusRequest::default()).await.unwrap().into_inner();
    for pauses in [shown.pauses, policy.pauses, status.pauses] {
        assert_eq!(pauses, std::slice::from_ref(&paused));
    }
    let ahead = operator.get_schedule(api::GetScheduleRequest::default()).await.unwrap().into_inner();
    assert!(ahead.runs.len() > 10 && ahead.runs.iter().all(|run| run.held == why), "{ahead:?}");

    assert_eq!(resume(&mut operator, "one", "").await.unwrap().reason, "new disks");
    host.back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    let runs = operator.list_runs(api::ListRunsRequest::default()).await.unwrap().into_inner().runs;
    assert_eq!(runs.iter().filter(|run| run.state() == api::RunState::Missed).count(), 1, "{runs:?}");
    let made_up: Vec<_> = runs.iter().filter_map(|run| run.makes_up_for.as_ref()).collect();
    assert_eq!((made_up.len(), made_up[0].why.as_str()), (1, why), "{runs:?}");
    let deeds = fleet.catalog.audit_log(100).await.unwrap();
    let mut deeds: Vec<_> = deeds.iter().filter(|deed| deed.subject == "host one").map(|deed| &deed.action).collect();
    deeds.sort();
    assert_eq!(deeds, ["paused", "resumed"]);
    second.end().await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_cannot_be_is_refused_with_what_to_write_instead() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    drop(fleet.agent("one").await);
    apply(&mut operator, POLICY).await;
    for (host, policy, until_us, code, said) in [
        ("one", "", 1, ErrorCode::InvalidArgument, "would be over already"),
        ("", "", 0, ErrorCode::InvalidArgument, "of the fleet, or of a host"),
        ("oen", "", 0, ErrorCode::NotFound, "oen"),
        ("", "wbe", 0, ErrorCode::NotFound, "wbe"),
        ("one", "wbe", 0, ErrorCode::NotFound, "wbe"),
    ] {
        let fault = pause(&mut operator, host, policy, until_us).await.unwrap_err();
        assert_eq!(fault.code, code, "{fault:?}");
        assert!(fault.message.contains(said), "{fault:?}");
    }
    let silent = api::SetPauseRequest { host: "one".into(), ..Default::default() };
    let silent = Fault::from(operator.set_pause(silent).await.unwrap_err());
    assert_eq!(silent.code, ErrorCode::InvalidArgument, "it has no reason: {silent:?}");
    let ahead = Timestamp::now().as_microsecond() + 3_600_000_000;
    pause(&mut operator, "", "web", ahead).await.unwrap();
    let other = resume(&mut operator, "one", "web").await.unwrap_err();
    assert_eq!((other.code, other.message.as_str()), (ErrorCode::NotNow, "job one/web is not paused itself"));
    assert_eq!(pause(&mut operator, "", "web", 0).await.unwrap().until_us, 0, "it is paused anew");
    assert_eq!(operator.list_pauses(api::ListPausesRequest {}).await.unwrap().into_inner().pauses.len(), 1);
    resume(&mut operator, "", "web").await.unwrap();
    let twice = resume(&mut operator, "", "web").await.unwrap_err();
    assert!(twice.code == ErrorCode::NotNow && twice.hint == "coordctl status says what is", "{twice:?}");
    let request = api::DeletePolicyRequest { policy: "web".into(), dry_run: false, ..Default::default() };
    operator.delete_policy(request).await.unwrap();
    assert_eq!(pause(&mut operator, "", "web", 0).await.unwrap_err().code, ErrorCode::NotNow, "it was deleted");
    fleet.stop().await;
}
