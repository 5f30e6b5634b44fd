//! The verification that a policy has of its own, beside the one after each backup.

use coord_shared::api::run_order::Task;
use coord_shared::api::{self, Disposition};
use coord_shared::ids::InstanceId;
use coord_shared::run::{RunKind, RunState};
use coordinator::catalog::{Job, JobFilter, RunFilter, RunRecord, ScheduleOutcome, ScheduleStep};
use coordinator::domain::timing::Owing;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::runs::{POLICY, apply, backup_of, dial, finished, hello, start_backup, verified};
use super::support::{Fleet, wait_for};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Verifications, by the name of their host.
async fn verifications(fleet: &Fleet) -> Vec<RunRecord> {
    let runs = fleet.catalog.runs(RunFilter::default()).await.unwrap();
    let mut runs: Vec<RunRecord> = runs.into_iter().filter(|run| run.kind == RunKind::Verify).collect();
    runs.sort_by(|a, b| a.host_name.cmp(&b.host_name));
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daily_verification_is_one_durable_run_whatever_number_of_coordinators_there_is() {
    let fleet = Fleet::start().await;
    let second = fleet.second().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    drop(fleet.agent("two").await);
    apply(&admin, &format!("{POLICY}verify = {{ cron = \"0 6 * * *\" }}\n")).await;
    let mut agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let order = agent.order().await;
    let backup = backup_of(&order).backup_id;
    assert_eq!(agent.report(&order, 1, finished(&backup_of(&order))).await, Disposition::Forget);

    let scheduled = || async {
        let jobs = fleet.catalog.jobs(JobFilter::default()).await.unwrap();
        (jobs.len() == 2 && jobs.iter().all(|job| job.verify_due_at.is_some())).then_some(jobs)
    };
    let jobs = wait_for("the due instants", scheduled).await;
    let six = jobs[0].verify_due_at.unwrap();
    let told = six.to_zoned(TimeZone::UTC);
    assert_eq!((told.hour(), told.minute(), jobs[1].verify_due_at), (6, 0, Some(six)), "in the policy's zone");
    // As if nobody had looked since the day before.
    let back = |job: &Job, seen: Timestamp| ScheduleStep {
        job: job.id,
        policy_version: job.policy_version,
        kind: RunKind::Verify,
        seen_due_at: Some(seen),
        runs: Vec::new(),
        next_due_at: Some(six - DAY),
        owing: Owing::Unchanged,
    };
    for job in &jobs {
        assert_ne!(fleet.catalog.schedule(&back(job, six)).await.unwrap(), ScheduleOutcome::Changed);
    }
    let order = agent.order().await;
    let Some(Task::Verify(task)) = &order.task else { panic!("not a verification: {order:?}") };
    assert_eq!(task.archives.iter().map(|archive| archive.backup_id.as_str()).collect::<Vec<_>>(), [backup.as_str()]);
    let check = api::Check { name: "digest".into(), passed: true, detail: "5 files".into() };
    assert_eq!(agent.report(&order, 1, verified(&backup, vec![check])).await, Disposition::Forget);

    let both = || async { Some(verifications(&fleet).await).filter(|runs| runs.len() == 2) };
    let runs = wait_for("the verification of the other host", both).await;
    let facts = |run: &RunRecord| (run.host_name.clone(), run.machine.state, run.due_at, run.asked_by.clone());
    assert_eq!(facts(&runs[0]), ("one".into(), RunState::Succeeded, six - DAY, "schedule".into()));
    assert_eq!(facts(&runs[1]), ("two".into(), RunState::Missed, six - DAY, "schedule".into()));
    assert_eq!(runs[1].reason, "there is no backup to verify yet");
    // The same instant again is no second run.
    assert_ne!(fleet.catalog.schedule(&back(&jobs[0], six)).await.unwrap(), ScheduleOutcome::Changed);
    let moved_on = || async {
        let job = fleet.catalog.job(jobs[0].id).await.unwrap().unwrap();
        (job.verify_due_at == Some(six)).then_some(())
    };
    wait_for("the schedule to move on", moved_on).await;
    assert_eq!(verifications(&fleet).await.len(), 2);
    second.end().await;
    fleet.stop().await;
}
