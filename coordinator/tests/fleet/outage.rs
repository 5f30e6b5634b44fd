//! The database goes away and comes back: nothing hangs, nobody is thrown out for good.

use std::time::Duration;

use coord_shared::api;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::InstanceId;
use tonic::transport::Channel;

use crate::runs::{dial, hello};
use crate::support::{Fleet, wait_for};

async fn hosts(admin: &Channel) -> Result<usize, Fault> {
    let asked = OperatorServiceClient::new(admin.clone()).list_hosts(api::ListHostsRequest::default()).await?;
    Ok(asked.into_inner().hosts.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_outlives_its_database() {
    let mut fleet = Fleet::start_on_own_server().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    let agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    fleet.stop_database().await;
    let outage = || async { hosts(&admin).await.err().filter(|fault| fault.code == ErrorCode::Unavailable) };
    wait_for("the outage to show", outage).await;
    fleet.start_database().await;
    assert_eq!(wait_for("the database to be back", || async { hosts(&admin).await.ok() }).await, 1);
    let again = || async { dial(&fleet, &member, hello(InstanceId::random())).await.ok() };
    drop(agent);
    drop(wait_for("the agent to be greeted again", again).await);
    tokio::time::timeout(Duration::from_secs(60), fleet.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_database_that_was_killed_is_started_again() {
    let fleet = Fleet::start_with_private_database().await;
    let admin = fleet.admin().await;
    wait_for("the first operator to be known", || async { hosts(&admin).await.ok() }).await;
    let pid = std::fs::read_to_string(fleet.state().join("postgres/data/postmaster.pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_for("the outage to show", || async { hosts(&admin).await.err() }).await;
    wait_for("the database to be back", || async { hosts(&admin).await.ok() }).await;
    fleet.stop().await;
}
