//! What a policy promises: what is told before it is applied, by the reports, and by the fleet's state.

use coord_shared::api;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_report::Event;
use jiff::{Timestamp, ToSpan};

use super::operator::{Host, Operator, apply, restore, start, tree};
use super::support::Fleet;

/// Due once a year, so that only what the tests ask for runs.
const PROMISING: &str = "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = { cron = \"0 3 1 1 *\" }\n\
                         objectives = { rpo = \"26h\", rto = \"5m\" }\n";

async fn standing(operator: &mut Operator) -> api::ObjectivesOfJob {
    let report = operator.report_objectives(api::ReportObjectivesRequest::default()).await.unwrap().into_inner();
    assert_eq!(report.jobs.len(), 1, "{report:?}");
    report.jobs.into_iter().next().unwrap()
}

async fn status(operator: &mut Operator) -> api::FleetStatus {
    operator.get_status(api::GetStatusRequest::default()).await.unwrap().into_inner()
}

fn words(job: &api::ObjectivesOfJob) -> (&str, &str) {
    (job.rpo.as_str(), job.rto.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_is_not_kept_is_told_before_and_after_it_is_broken() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    let applied = apply(&mut operator, PROMISING).await;
    let warning = applied.warnings.iter().find(|warning| warning.key == "objectives.rpo").unwrap();
    assert!(warning.message.contains("the RPO of 26h cannot be kept"), "{warning:?}");
    assert_eq!(words(&standing(&mut operator).await), ("out", "out"), "there is no backup yet");

    // Verified at 4000 bytes in 5 ms, and taken to be restored in twice the time.
    let now = Timestamp::now();
    start(&mut operator, "web").await.unwrap();
    let backup = host.back_up(&fleet, now - 30.hours(), tree("etc", 100)).await;
    let job = standing(&mut operator).await;
    assert_eq!(words(&job), ("out", "met"), "{job:?}");
    assert_eq!((job.predicted_restore_ms, job.basis.as_str(), job.restore_bytes), (Some(10), "verifications", 4000));
    assert_eq!((job.newest_backup_id, job.age_s / 3600), (backup.to_string(), 30));
    let told = status(&mut operator).await;
    assert_eq!((told.jobs_protected, told.troubles.len()), (0, 1), "{told:?}");
    assert_eq!(told.troubles[0].what, "the newest good backup is 30 hours old, and the RPO is 26h");

    start(&mut operator, "web").await.unwrap();
    host.back_up(&fleet, now, tree("etc", 200)).await;
    assert_eq!(words(&standing(&mut operator).await), ("met", "met"));
    assert_eq!(status(&mut operator).await.troubles.len(), 0);

    operator.start_restore(restore(&[], None)).await.unwrap();
    let order = host.order().await;
    let result = api::RestoreResult { restored: 2, bytes: 4000, restore_ms: 600_000, ..Default::default() };
    let done = api::Finished {
        outcome: api::Outcome::Succeeded.into(),
        result: Some(api::finished::Result::Restore(result)),
        ..Default::default()
    };
    host.report(&order, 1, Event::Finished(done)).await;
    let job = standing(&mut operator).await;
    assert_eq!((words(&job), job.basis.as_str()), (("met", "out"), "restores"), "{job:?}");
    let told = status(&mut operator).await;
    assert_eq!(told.jobs_protected, 1, "slow is not lost");
    assert!(told.troubles[0].what.contains("the RTO is 5m"), "{told:?}");
    let lint = operator.lint_policy(api::LintPolicyRequest { toml: PROMISING.into() }).await.unwrap().into_inner();
    assert!(lint.warnings.iter().any(|warning| warning.key == "objectives.rto"), "{lint:?}");

    let asked = |host: &str, selector: &str| api::ReportObjectivesRequest {
        host: host.into(),
        selector: selector.into(),
        ..Default::default()
    };
    let jobs = operator.report_objectives(asked("one", "env = prod")).await.unwrap().into_inner().jobs;
    assert_eq!(jobs.len(), 0, "it has another label");
    assert!(operator.report_objectives(asked("two", "")).await.is_err());
    fleet.stop().await;
}
