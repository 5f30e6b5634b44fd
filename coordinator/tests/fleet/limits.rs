//! Limits as operators set them, and wishes for a backup that are uttered twice.

use coord_shared::api;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::ArchiveStoreId;
use coord_shared::run::RunState;
use jiff::Timestamp;

use super::operator::{Host, Operator, apply, tree};
use super::support::{Fleet, wait_for};

const POLICY: &str =
    "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = { cron = \"0 3 1 1 *\" }\n";

async fn ask(operator: &mut Operator, host: &str, key: &str, level: api::Level) -> Result<api::Run, Fault> {
    let request =
        api::StartBackupRequest { host: host.into(), policy: "web".into(), level: level.into(), key: key.into() };
    operator.start_backup(request).await.map(tonic::Response::into_inner).map_err(Fault::from)
}

async fn set(operator: &mut Operator, name: &str, scope: &str, selector: &str, runs: u32) -> Result<api::Limit, Fault> {
    let request = api::SetLimitRequest { name: name.into(), scope: scope.into(), selector: selector.into(), runs };
    operator.set_limit(request).await.map(tonic::Response::into_inner).map_err(Fault::from)
}

async fn is_held(fleet: &Fleet, run: &api::Run) -> bool {
    RunState::HELD.contains(&fleet.catalog.run(run.id.parse().unwrap()).await.unwrap().unwrap().machine.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_lets_the_next_run_begin_when_one_has_ended_or_when_it_is_raised() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut hosts = Vec::new();
    for name in ["one", "two", "three"] {
        hosts.push(Host::join(&fleet, name).await);
    }
    apply(&mut operator, POLICY).await;
    let limit = set(&mut operator, "tests", "group", "env=test", 1).await.unwrap();
    assert_eq!((limit.hosts, limit.running, limit.changed_by.as_str()), (3, 0, "admin"));
    let mut runs = Vec::new();
    for name in ["one", "two", "three"] {
        runs.push(ask(&mut operator, name, "", api::Level::Unspecified).await.unwrap());
    }
    wait_for("the first to begin", || async { is_held(&fleet, &runs[0]).await.then_some(()) }).await;
    let list = operator.list_limits(api::ListLimitsRequest {}).await.unwrap().into_inner().limits;
    let seen: Vec<(&str, u32, u64)> =
        list.iter().map(|limit| (limit.name.as_str(), limit.runs, limit.running)).collect();
    assert_eq!(seen, [("each-host", 2, 1), ("tests", 1, 1)]);
    assert!(!is_held(&fleet, &runs[1]).await);
    let second = operator.get_run(api::GetRunRequest { run: runs[1].id.clone() }).await.unwrap().into_inner();
    assert_eq!(second.waits_for, "limit tests: 1 of 1 are going on");
    hosts[0].back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    hosts[1].order().await;
    assert!(!is_held(&fleet, &runs[2]).await);
    set(&mut operator, "tests", "group", "env=test", 2).await.unwrap();
    hosts[2].order().await;
    operator.remove_limit(api::RemoveLimitRequest { name: "tests".into() }).await.unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_share_a_target_share_its_limit_and_one_with_a_folder_of_its_own_does_not() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let shared = ArchiveStoreId::random();
    let mut one = Host::join_at(&fleet, "one", Some(shared)).await;
    let mut two = Host::join_at(&fleet, "two", Some(shared)).await;
    let mut own = Host::join_at(&fleet, "own", Some(ArchiveStoreId::random())).await;
    let mut unknown = Host::join(&fleet, "unknown").await;
    let shown = operator.get_host(api::GetHostRequest { host: "two".into() }).await.unwrap().into_inner();
    assert_eq!(shown.archive_store_id, shared.to_string());
    apply(&mut operator, POLICY).await;
    let limit = set(&mut operator, "each-target", "target", "", 1).await.unwrap();
    assert_eq!((limit.scope.as_str(), limit.hosts, limit.running), ("target", 4, 0));
    let any = api::Level::Unspecified;
    let first = ask(&mut operator, "one", "", any).await.unwrap();
    wait_for("the first to begin", || async { is_held(&fleet, &first).await.then_some(()) }).await;
    let second = ask(&mut operator, "two", "", any).await.unwrap();
    for name in ["own", "unknown"] {
        ask(&mut operator, name, "", any).await.unwrap();
    }
    own.order().await;
    unknown.order().await;
    assert!(!is_held(&fleet, &second).await, "it was before the other two in the queue");
    let waits = operator.get_run(api::GetRunRequest { run: second.id.clone() }).await.unwrap().into_inner();
    assert_eq!(waits.waits_for, "limit each-target: 1 of 1 are going on");
    let list = operator.list_limits(api::ListLimitsRequest {}).await.unwrap().into_inner().limits;
    let seen: Vec<(&str, &str, u64)> = list.iter().map(|x| (x.name.as_str(), x.scope.as_str(), x.running)).collect();
    assert_eq!(seen, [("each-host", "host", 1), ("each-target", "target", 1)]);
    one.back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    two.order().await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_two_groups_has_its_turn_and_who_waits_for_a_kept_place_is_told() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let (mut a, mut both, mut b) =
        (Host::join(&fleet, "a").await, Host::join(&fleet, "both").await, Host::join(&fleet, "b").await);
    for (host, groups) in [("a", &["a"][..]), ("both", &["a", "b"]), ("b", &["b"])] {
        let set = groups.iter().map(|group| ((*group).to_owned(), "yes".to_owned())).collect();
        operator.label_host(api::LabelHostRequest { host: host.into(), set, ..Default::default() }).await.unwrap();
    }
    apply(&mut operator, POLICY).await;
    for group in ["a", "b"] {
        set(&mut operator, group, "group", &format!("{group}=yes"), 1).await.unwrap();
    }
    let any = api::Level::Unspecified;
    let first = ask(&mut operator, "a", "", any).await.unwrap();
    wait_for("the first to begin", || async { is_held(&fleet, &first).await.then_some(()) }).await;
    ask(&mut operator, "both", "", any).await.unwrap();
    let behind = ask(&mut operator, "b", "", any).await.unwrap();
    let waits = operator.get_run(api::GetRunRequest { run: behind.id.clone() }).await.unwrap().into_inner();
    assert_eq!(waits.waits_for, "runs before it, which have or keep the places that are left");
    a.back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    both.back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    b.order().await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_cannot_be_is_refused_with_what_to_write_instead() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    for (name, scope, selector, runs, said) in [
        ("none", "fleet", "", 0, "a limit of 0 runs would stop every backup"),
        ("big", "fleet", "", u32::MAX, "more than any fleet has"),
        ("odd", "group", "env in prod", 1, "the selector does not read"),
        ("odd", "group", "", 1, "the selector is empty"),
        ("odd", "host", "env=prod", 1, "has no selector"),
        ("odd", "target", "env=prod", 1, "has no selector"),
        ("odd", "disk", "", 1, "'disk' is no scope of a limit"),
        ("No Name", "fleet", "", 1, "'No Name' cannot be the name of a limit"),
    ] {
        let fault = set(&mut operator, name, scope, selector, runs).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::InvalidArgument, "{fault:?}");
        assert!(fault.message.contains(said), "{fault:?}");
    }
    let unknown = operator.remove_limit(api::RemoveLimitRequest { name: "each-hots".into() }).await.unwrap_err();
    let unknown = Fault::from(unknown);
    assert_eq!(unknown.code, ErrorCode::NotFound);
    assert!(unknown.hint.contains("did you mean each-host?"), "{unknown:?}");
    assert_eq!(set(&mut operator, "nobody", "group", "env=mars", 1).await.unwrap().hosts, 0, "nobody is meant yet");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_again_is_answered_with_the_run_that_is_there() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, POLICY).await;
    let any = api::Level::Unspecified;
    let run = ask(&mut operator, "one", "nightly-1", any).await.unwrap();
    assert!(!run.was_there);
    let open = ask(&mut operator, "one", "nightly-2", any).await.unwrap();
    assert_eq!((open.id.as_str(), open.was_there), (run.id.as_str(), true), "one open run a job");
    let other = ask(&mut operator, "one", "", api::Level::Differential).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::NotNow, "{other:?}");
    assert!(other.message.contains(&run.id[..8]) && other.hint.contains("run cancel"), "{other:?}");
    host.back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    for key in ["nightly-1", "nightly-2"] {
        let known = ask(&mut operator, "one", key, any).await.unwrap();
        assert_eq!((known.id.as_str(), known.state()), (run.id.as_str(), api::RunState::Succeeded), "{key}");
    }
    let next = ask(&mut operator, "one", "nightly-3", any).await.unwrap();
    assert!(next.id != run.id && !next.was_there);
    let bad = ask(&mut operator, "one", "two\nlines", any).await.unwrap_err();
    assert_eq!(bad.code, ErrorCode::InvalidArgument);
    fleet.stop().await;
}
