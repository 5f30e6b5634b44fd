//! A row that does not read, as a defect or another version's coordinator may leave one: it stands in nobody's way.

use super::runs::{POLICY, apply};
use super::support::{Fleet, wait_for};
use coord_shared::api;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::ids::RunId;
use coord_shared::run::{RunKind, RunState};
use coordinator::catalog::{AskedRun, Job, JobFilter, JobState};

async fn active(fleet: &Fleet, policy: &str) -> Vec<Job> {
    let filter = JobFilter { state: Some(JobState::Active), ..JobFilter::default() };
    let jobs = fleet.catalog.jobs(filter).await.unwrap();
    jobs.into_iter().filter(|job| job.policy_name == policy).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_read_is_left_out_by_name_and_the_others_are_scheduled() {
    let fleet = Fleet::start().await;
    let admin = fleet.admin().await;
    let mut operator = OperatorServiceClient::new(admin.clone());
    drop(fleet.agent("one").await);
    let broken = POLICY.replace("\"web\"", "\"broken\"");
    apply(&admin, &broken).await;
    let (client, connection) = tokio_postgres::connect(&fleet.url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute("UPDATE policy_versions SET spec = '{}'; UPDATE jobs SET backup_due_at = NULL").await.unwrap();

    apply(&admin, POLICY).await;
    let scheduled = |policy: &'static str, hosts: usize| {
        let fleet = &fleet;
        async move {
            let jobs = active(fleet, policy).await;
            (jobs.len() == hosts && jobs.iter().all(|job| job.backup_due_at.is_some())).then_some(())
        }
    };
    wait_for("the other policy to be scheduled", || scheduled("web", 1)).await;
    drop(fleet.agent("two").await);
    wait_for("a host that joined meanwhile", || scheduled("web", 2)).await;
    assert_eq!(active(&fleet, "broken").await.len(), 1, "it keeps whom it has, and selects nobody");

    let status = operator.get_status(api::GetStatusRequest::default()).await.unwrap().into_inner();
    let trouble = &status.troubles[0];
    assert_eq!((trouble.host.as_str(), trouble.policy.as_str()), ("", "broken"));
    assert!(trouble.what.contains("cannot be read"), "{trouble:?}");
    let shown = operator
        .get_policy(api::GetPolicyRequest { policy: "broken".into(), host: String::new() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((shown.toml.as_str(), shown.next_due_at_us), (broken.as_str(), 0));
    apply(&admin, &format!("{}# anew\n", shown.toml)).await;
    wait_for("the mended policy to be scheduled", || scheduled("broken", 2)).await;
    drop(client);
    connection.await.unwrap().unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_read_keeps_no_other_late_run_from_being_missed() {
    let fleet = Fleet::start().await;
    drop(fleet.agent("one").await);
    apply(&fleet.admin().await, POLICY).await;
    let job = active(&fleet, "web").await.remove(0);
    let ask = async |kind| {
        let asked = AskedRun {
            id: RunId::random(),
            kind,
            host: job.host,
            job: Some(job.id),
            asked_by: "ada".to_owned(),
            level: None,
            spec: serde_json::json!({}),
            priority: 0,
        };
        fleet.catalog.ask_run(&asked).await.unwrap().id
    };
    let (_, readable) = (ask(RunKind::Backup).await, ask(RunKind::Verify).await);
    let (client, connection) = tokio_postgres::connect(&fleet.url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let late = "UPDATE runs SET attempt = CASE kind WHEN 'backup' THEN -1 ELSE 0 END, late_reason = 'late',
        closes_at = now() - INTERVAL '2 s', start_by = now() - INTERVAL '1 s'";
    client.batch_execute(late).await.unwrap();
    wait_for("the other run to be missed", || async {
        let run = fleet.catalog.run(readable).await.unwrap().unwrap();
        (run.machine.state == RunState::Missed).then_some(())
    })
    .await;
    drop(client);
    connection.await.unwrap().unwrap();
    fleet.stop().await;
}
