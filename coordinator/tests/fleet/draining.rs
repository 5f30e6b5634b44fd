//! A coordinator leaves, and nobody misses anything.

use std::time::{Duration, Instant};

use coord_shared::api::coordinator_message::Message as ToAgent;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::{self, Disposition, file_chunk};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::InstanceId;
use coord_shared::run::RunState;
use coordinator::catalog::{BackupFilter, RunFilter};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::indexes::Sender;
use super::runs::{POLICY, apply, backup_of, dial, dial_at, finished, hello, start_backup};
use super::support::{DEADLINE, Fleet, wait_for};

async fn members(at: &Channel) -> api::CoordinatorList {
    let asked = OperatorServiceClient::new(at.clone()).list_coordinators(api::ListCoordinatorsRequest {}).await;
    asked.unwrap().into_inner()
}

async fn drain(at: &Channel, coordinator: &str) -> Result<api::Coordinator, Fault> {
    let request = api::DrainCoordinatorRequest { coordinator: coordinator.to_owned() };
    let answer = OperatorServiceClient::new(at.clone()).drain_coordinator(request).await;
    answer.map(tonic::Response::into_inner).map_err(Fault::from)
}

/// Its id, once the catalog has heard of it.
async fn id_of(at: &Channel) -> String {
    let known = || async {
        let list = members(at).await;
        list.coordinators.iter().any(|one| one.id == list.answered_by).then_some(list.answered_by)
    };
    wait_for("the first beat", known).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_coordinator_hands_its_agents_over_and_their_runs_go_on_under_the_same_attempt() {
    let fleet = Fleet::start().await;
    let leaving = fleet.second().await;
    let admin = fleet.admin_at_any(&[&leaving.main, &fleet.main]).await;
    let member = fleet.agent("one").await;
    apply(&admin, POLICY).await;
    let instance = InstanceId::random();
    let mut agent = dial_at(&leaving.main, &member, hello(instance)).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let order = agent.order().await;
    id_of(&admin).await;

    let told = drain(&admin, "").await.unwrap();
    assert_eq!((told.state.as_str(), told.drain_asked_by.as_str()), ("draining", "admin"));
    let ended = agent.wait_for_end().await;
    assert_eq!(ended.code, ErrorCode::Unavailable);
    assert!(ended.message.contains("leaving"), "{ended}");
    leaving.ended().await;

    let held = api::HeldRun { run_id: order.run_id.clone(), attempt: order.attempt, ..Default::default() };
    let again = api::Hello { held: vec![held], ..hello(instance) };
    let mut agent = dial(&fleet, &member, again).await.unwrap();
    assert_eq!(agent.greeting.held[0].disposition(), Disposition::Continue);
    assert_eq!(agent.report(&order, 1, finished(&backup_of(&order))).await, Disposition::Forget);
    let run = fleet.catalog.run(order.run_id.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((run.machine.state.as_str(), run.machine.attempt.get()), ("succeeded", 1));
    // The operator's connection went over too.
    let left = members(&admin).await;
    assert_ne!(left.answered_by, told.id);
    assert_eq!(left.coordinators.len(), 1, "it said goodbye: {left:?}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_leaves_finishes_the_calls_under_way_and_takes_no_agent_in() {
    let mut host = Sender::start().await;
    let listed = host.back_up().await;
    let id = host.backup(listed).await.host;
    let entries = [super::indexes::entry(b"", coord_archive::entry::Kind::Folder), file()];
    host.fleet.catalog.index_intake(listed, id).await.unwrap().unwrap().store_block(0, &entries).await.unwrap();
    let path = file().path;
    let mut operator = OperatorServiceClient::new(host.admin.clone());
    let request = api::ReadFileRequest { host: "one".into(), path, ..Default::default() };
    let opened = || async { OperatorServiceClient::new(host.admin.clone()).read_file(request.clone()).await.ok() };
    let mut content = wait_for("the file to be listed", opened).await.into_inner();
    let wanted = |message| if let ToAgent::ReadFile(order) = message { Some(order) } else { None };
    let request_id = host.agent.wait(wanted).await.request_id;
    let (chunks, sent) = mpsc::channel(4);
    let chunk = |part| api::FileChunk { request_id: request_id.clone(), part: Some(part) };
    chunks.send(chunk(file_chunk::Part::Data(b"beginning ".to_vec()))).await.unwrap();
    let mut client = host.client.clone();
    let sending = tokio::spawn(async move { client.send_file(ReceiverStream::new(sent)).await });
    assert!(content.message().await.unwrap().is_some());

    id_of(&host.admin).await;
    operator.drain_coordinator(api::DrainCoordinatorRequest::default()).await.unwrap();
    let newcomer = host.fleet.agent("two").await;
    let refused = dial(&host.fleet, &newcomer, hello(InstanceId::random())).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.contains("leaving"), "{refused}");
    // The agent that is sending has not been sent away; it is when the file has gone through.
    chunks.send(chunk(file_chunk::Part::Data(b"and end".to_vec()))).await.unwrap();
    chunks.send(chunk(file_chunk::Part::End(api::FileEnd::default()))).await.unwrap();
    drop(chunks);
    let mut text = Vec::new();
    while let Some(part) = tokio::time::timeout(DEADLINE, content.message()).await.unwrap().unwrap() {
        if let Some(file_chunk::Part::Data(data)) = part.part {
            text.extend(data);
        }
    }
    assert_eq!(text, b"and end");
    sending.await.unwrap().unwrap();
    assert!(host.agent.wait_for_end().await.message.contains("leaving"));
    host.fleet.stop().await;
}

fn file() -> coord_archive::entry::Entry {
    super::indexes::entry(b"etc/hosts", coord_archive::entry::Kind::File)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_hears_from_the_catalog_that_it_is_to_leave_and_gives_no_order_more() {
    let fleet = Fleet::start().await;
    let leaving = fleet.second().await;
    let (here, there) = (fleet.admin().await, fleet.admin_at(&leaving.main).await);
    let (id, own) = (id_of(&there).await, id_of(&here).await);
    assert_ne!(id, own);
    apply(&here, POLICY).await;
    let member = fleet.agent("one").await;
    let mut agent = dial_at(&leaving.main, &member, hello(InstanceId::random())).await.unwrap();
    assert_eq!(drain(&here, "0000").await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(drain(&here, &id[..8]).await.unwrap().state, "draining");
    let gone = agent.wait_for_end().await;
    assert_eq!(gone.code, ErrorCode::Unavailable);
    // Asked for while it leaves: whoever the host comes to next gives the order.
    start_backup(&here, api::Level::Full).await;
    let mut agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    assert_eq!(agent.order().await.attempt, 1);
    leaving.ended().await;
    assert_eq!(members(&here).await.coordinators.len(), 1);
    assert_eq!(fleet.catalog.backups(BackupFilter::default()).await.unwrap().len(), 0);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_order_a_draining_coordinator_did_not_give_is_ordered_by_the_next_at_once() {
    let fleet = Fleet::start().await;
    let leaving = fleet.second().await;
    let (here, there) = (fleet.admin().await, fleet.admin_at(&leaving.main).await);
    let (member, instance) = (fleet.agent("one").await, InstanceId::random());
    apply(&here, POLICY).await;
    id_of(&there).await;
    let mut agent = dial_at(&leaving.main, &member, hello(instance)).await.unwrap();
    // The run is claimed, and its order cannot be made: nobody can store a decision.
    let (mut client, connection) = tokio_postgres::connect(&fleet.url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let held = client.transaction().await.unwrap();
    held.batch_execute("LOCK TABLE decisions IN EXCLUSIVE MODE").await.unwrap();
    start_backup(&here, api::Level::Full).await;
    let claimed = || async {
        let runs = fleet.catalog.runs(RunFilter::default()).await.unwrap();
        runs.into_iter().find(|run| run.machine.state == RunState::Leased)
    };
    let run = wait_for("the run to be claimed", claimed).await;
    let claimed_at = Instant::now();

    drain(&there, "").await.unwrap();
    assert!(agent.wait_for_end().await.message.contains("leaving"), "it does not wait for the order for ever");
    drop(held);
    let mut agent = dial(&fleet, &member, hello(instance)).await.unwrap();
    let order = agent.order().await;
    assert_eq!((order.run_id, order.attempt), (run.id.to_string(), 2));
    assert!(claimed_at.elapsed() < Duration::from_secs(45), "it did not wait for the lease of a minute");
    leaving.ended().await;
    drop(client);
    connection.await.unwrap().unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_tells_those_that_serve_from_those_that_are_gone() {
    let fleet = Fleet::start().await;
    let other = fleet.second().await;
    let admin = fleet.admin().await;
    let id = id_of(&fleet.admin_at(&other.main).await).await;
    let all_done = || async {
        let list = members(&admin).await;
        let duties = |one: &api::Coordinator| one.duties.iter().any(|duty| duty.name == "scheduler");
        (list.coordinators.len() == 2 && list.coordinators.iter().all(duties)).then_some(list)
    };
    let list = wait_for("both to tell of their duties", all_done).await;
    let schema = coordinator::catalog::SCHEMA_VERSION;
    assert!(list.coordinators.iter().all(|one| one.state == "serving" && one.schema_version == schema), "{list:?}");
    assert!(list.coordinators.iter().any(|one| one.endpoints == [other.main.clone()]), "{list:?}");
    // Killed: it says no goodbye.
    other.end().await;
    let (client, connection) = tokio_postgres::connect(&fleet.url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let insert = "INSERT INTO coordinators (coordinator_id, endpoint, version, quiet_until, last_beat_at)
        VALUES ($1::text::uuid, 'old:1', '0.0.9', now(), now() - $2::text::interval)";
    client.execute(insert, &[&id, &"20 s"]).await.unwrap();
    client.execute(insert, &[&uuid::Uuid::new_v4().to_string(), &"25 h"]).await.unwrap();
    let told = || async {
        let list = members(&admin).await.coordinators;
        (list.len() == 2).then_some(list)
    };
    let list = wait_for("the row of yesterday to be forgotten", told).await;
    let gone = list.iter().find(|one| one.id == id).unwrap();
    assert_eq!((gone.state.as_str(), gone.endpoints[0].as_str(), gone.schema_version), ("gone", "old:1", 0));
    assert_eq!(drain(&admin, &id).await.unwrap_err().code, ErrorCode::NotNow);
    drop(client);
    connection.await.unwrap().unwrap();
    fleet.stop().await;
}
