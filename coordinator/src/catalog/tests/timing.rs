//! Runs whose time is over, and runs that make up for missed ones.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_shared::ids::{Attempt, JobId, PolicyVersion, RunId};
use coord_shared::level::Level;
use coord_shared::run::{RunKind, RunState};
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Client;

use super::fixture::{Fleet, LEASE, sealed};
use crate::catalog::testing::with_config;
use crate::catalog::{
    Catalog, Committed, DueRun, FaultRecord, MadeUp, NewPolicyVersion, Relabelled, ReportedEvent, RunFilter, RunReport,
    ScheduleOutcome, ScheduleStep, VersionOrigin,
};
use crate::domain::timing::{Owing, Start};

fn due(due_at: Timestamp, start: Start) -> DueRun {
    DueRun { id: RunId::random(), due_at, missed: None, priority: 0, start, spec: serde_json::json!({}) }
}

/// Schedules a run, in a step that owes `owing`.
async fn schedule(fleet: &Fleet, run: Option<&DueRun>, owing: Owing) {
    let job = fleet.catalog.job(fleet.job).await.unwrap().unwrap();
    let step = ScheduleStep {
        job: fleet.job,
        policy_version: job.policy_version,
        kind: RunKind::Backup,
        seen_due_at: job.backup_due_at,
        runs: run.cloned().into_iter().collect(),
        next_due_at: Some("2100-01-01T00:00:00Z".parse().unwrap()),
        owing,
    };
    assert_ne!(fleet.catalog.schedule(&step).await.unwrap(), ScheduleOutcome::Changed);
}

/// A fleet with a clock of its database, and a way to what no code does.
async fn with_fleet<F>(test: F)
where
    F: AsyncFnOnce(Fleet, Client, Timestamp),
{
    with_config(async |config| {
        let catalog = Catalog::new(config.clone()).unwrap();
        let (fleet, client) = (Fleet::new(&catalog).await, config.connect().await.unwrap());
        let now = catalog.now().await.unwrap();
        test(fleet, client, now).await;
    })
    .await;
}

async fn lapse(catalog: &Catalog) -> Vec<(RunState, String)> {
    let mut ended = Vec::new();
    for run in catalog.lapsed_runs(100, &[]).await.unwrap() {
        ended.extend(catalog.end_lapsed(run).await.unwrap().map(|lapsed| (lapsed.state, lapsed.why)));
    }
    ended
}

async fn report(fleet: &Fleet, (run, attempt): (RunId, Attempt), sequence: u64, event: ReportedEvent) {
    let report = RunReport {
        host: fleet.host,
        session: fleet.session,
        run,
        attempt,
        sequence,
        event,
        checked: Vec::new(),
        lease: LEASE,
        retry_after: Duration::ZERO,
    };
    fleet.catalog.accept_report(&report).await.unwrap();
}

fn fault(code: &str) -> FaultRecord {
    FaultRecord { code: code.to_owned(), message: "what the host says".to_owned(), hint: String::new() }
}

#[tokio::test]
async fn a_run_that_did_not_begin_in_time_is_missed_with_the_reason_of_its_policy() {
    with_fleet(async |fleet, _, now| {
        let start =
            Start { by: Some(now), late: "it did not begin within 2h of being due".to_owned(), ..Start::default() };
        let late = due(now, start);
        schedule(&fleet, Some(&late), Owing::Unchanged).await;
        assert_eq!(fleet.claim().await, None, "no host gets what is late");
        assert_eq!(
            lapse(&fleet.catalog).await,
            [(RunState::Missed, "it did not begin within 2h of being due".to_owned())]
        );
        let run = fleet.catalog.run(late.id).await.unwrap().unwrap();
        assert_eq!(
            (run.machine.state, run.reason.as_str()),
            (RunState::Missed, "it did not begin within 2h of being due")
        );
        assert!(run.ended_at.is_some() && lapse(&fleet.catalog).await.is_empty());
        let in_time = due(
            now + SignedDuration::from_secs(1),
            Start { by: Some(now + SignedDuration::from_hours(1)), ..Start::default() },
        );
        schedule(&fleet, Some(&in_time), Owing::Unchanged).await;
        assert!(lapse(&fleet.catalog).await.is_empty());
        assert_eq!(fleet.claim().await, Some((in_time.id, Attempt(1))));
    })
    .await;
}

#[tokio::test]
async fn another_attempt_begins_before_the_window_closes_or_the_run_is_cancelled() {
    with_fleet(async |fleet, client, now| {
        let soon = now + SignedDuration::from_hours(1);
        let run = due(
            now,
            Start { by: Some(soon), closes_at: Some(soon), late: "its window closed".to_owned(), ..Start::default() },
        );
        schedule(&fleet, Some(&run), Owing::Unchanged).await;
        let claimed = fleet.claim().await.unwrap();
        let failed = ReportedEvent::Failed { fault: fault("io"), retryable: true, result: None, warnings_total: 0 };
        report(&fleet, claimed, 1, failed).await;
        client.execute("UPDATE runs SET closes_at = now()", &[]).await.unwrap();
        assert_eq!(fleet.claim().await, None);
        let ended = lapse(&fleet.catalog).await;
        assert_eq!(ended[0].0, RunState::Cancelled);
        let run = fleet.catalog.run(run.id).await.unwrap().unwrap();
        let said = run.fault.unwrap();
        assert_eq!(
            (said.code.as_str(), said.message.ends_with("in time: its window closed")),
            ("timed_out", true),
            "{said:?}"
        );
    })
    .await;
}

/// As if nobody had heard of the host for longer than its lease, after the window closed if `closed`.
async fn lose_sight(fleet: &Fleet, client: &Client, closed: bool) -> RunState {
    let window = if closed { "closes_at = now()," } else { "" };
    let lapse = format!("UPDATE runs SET {window} lease_until = now() - INTERVAL '1 s' WHERE state = 'leased'");
    client.execute(&lapse, &[]).await.unwrap();
    client.execute("UPDATE coordinators SET quiet_until = now()", &[]).await.unwrap();
    let none = Duration::ZERO;
    fleet.catalog.reap_lapsed_runs(none, none, none).await.unwrap()[0].state
}

#[tokio::test]
async fn a_backup_that_ends_after_its_lease_and_its_window_still_counts() {
    with_fleet(async |fleet, client, now| {
        let hours = |hours| now + SignedDuration::from_hours(hours);
        let start = Start { by: Some(hours(1)), closes_at: Some(hours(1)), late: "closed".into(), ..Start::default() };
        // The window closes before the lease lapses, then after it.
        for (ordinal, closed) in [(1u64, true), (2, false)] {
            let run = due(now + SignedDuration::from_secs(ordinal.cast_signed()), start.clone());
            schedule(&fleet, Some(&run), Owing::Unchanged).await;
            let (id, attempt) = fleet.claim().await.unwrap();
            let state = lose_sight(&fleet, &client, closed).await;
            assert_eq!(state, if closed { RunState::Failed } else { RunState::Queued });
            client.execute("UPDATE runs SET closes_at = now() WHERE state = 'queued'", &[]).await.unwrap();
            let ended = lapse(&fleet.catalog).await;
            if closed {
                assert_eq!(ended, []);
            } else {
                assert_eq!(ended[0].0, RunState::Failed);
                assert!(ended[0].1.ends_with("and no other attempt began in time: closed"), "{ended:?}");
            }
            let run = fleet.catalog.run(id).await.unwrap().unwrap();
            assert_eq!((run.machine.state, run.machine.reaped, run.ended_at.is_some()), (RunState::Failed, true, true));
            assert_eq!(run.fault.unwrap().code, "lease_lapsed");
            let commit = fleet.commit_of(id, attempt, ordinal, sealed(Level::Full, None, 0));
            assert!(matches!(fleet.catalog.commit_backup(&commit).await.unwrap(), Committed::Committed(_)));
            assert_eq!(fleet.catalog.run(id).await.unwrap().unwrap().machine.state, RunState::Succeeded);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_owed_is_looked_at_anew_when_what_held_it_back_may_be_gone() {
    with_fleet(async |fleet, client, now| {
        let later = now + SignedDuration::from_hours(24 * 30);
        let owe = || Owing::More { runs: 1, due_at: now, why: "held".to_owned(), most: 1, from: later };
        schedule(&fleet, None, owe()).await;
        assert!(fleet.catalog.owing_jobs(10, &[]).await.unwrap().is_empty(), "it is held back for a month");
        let labels = BTreeMap::from([("size".to_owned(), "large".to_owned())]);
        assert_eq!(fleet.relabel(labels).await, Relabelled::Done);
        assert_eq!(fleet.catalog.owing_jobs(10, &[]).await.unwrap(), [fleet.job], "its host has other labels");
        client.execute("UPDATE jobs SET owed_from = now() + INTERVAL '30 days'", &[]).await.unwrap();
        let policy = fleet.catalog.policy(fleet.policy).await.unwrap().unwrap();
        let changed = NewPolicyVersion {
            name: policy.name,
            toml: "another".to_owned(),
            spec: policy.spec,
            applied_by: "ada".to_owned(),
            hosts: vec![fleet.host],
            new_job_ids: vec![JobId::random()],
            origin: VersionOrigin::Applied,
            equals: None,
            renew: false,
            expected: None,
        };
        fleet.catalog.apply_policy(&changed).await.unwrap();
        assert_eq!(fleet.catalog.owing_jobs(10, &[]).await.unwrap(), [fleet.job], "the policy has changed");
        assert_eq!(fleet.catalog.owed(fleet.job).await.unwrap().unwrap().runs, 1);
    })
    .await;
}

/// Applies the policy's next version while `writing` waits for the job, as it does when both come at once.
async fn apply_meanwhile<T>(client: &mut Client, writing: impl Future<Output = T>) -> T {
    let applying = client.transaction().await.unwrap();
    applying.execute("UPDATE jobs SET verify_due_at = NULL", &[]).await.unwrap();
    let apply = async {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted) AS waits";
        while !applying.query_one(waits, &[]).await.unwrap().get::<_, bool>("waits") {
            tokio::task::yield_now().await;
        }
        applying.execute("UPDATE policies SET version = version + 1", &[]).await.unwrap();
        applying.commit().await.unwrap();
    };
    tokio::join!(writing, apply).0
}

#[tokio::test]
async fn a_step_by_a_policy_that_changes_meanwhile_writes_nothing() {
    with_fleet(async |fleet, mut client, now| {
        let step = ScheduleStep {
            job: fleet.job,
            policy_version: PolicyVersion(1),
            kind: RunKind::Backup,
            seen_due_at: None,
            runs: vec![due(now, Start::default())],
            next_due_at: Some(now),
            owing: Owing::Unchanged,
        };
        let outcome = apply_meanwhile(&mut client, fleet.catalog.schedule(&step)).await;
        assert_eq!(outcome.unwrap(), ScheduleOutcome::Changed);
        assert!(fleet.catalog.runs(RunFilter::default()).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn nothing_is_made_up_for_by_a_policy_that_changes_meanwhile() {
    with_fleet(async |fleet, mut client, now| {
        schedule(&fleet, None, Owing::More { runs: 1, due_at: now, why: "paused".to_owned(), most: 1, from: now })
            .await;
        let owed = fleet.catalog.owed(fleet.job).await.unwrap().unwrap();
        let run = due(now, Start::default());
        let making = fleet.catalog.make_up(&owed, PolicyVersion(1), &run, 1);
        assert_eq!(apply_meanwhile(&mut client, making).await.unwrap(), MadeUp::Changed);
        assert!(fleet.catalog.runs(RunFilter::default()).await.unwrap().is_empty());
        // Looked at again, it goes by the version that is now.
        let made = fleet.catalog.make_up(&owed, PolicyVersion(2), &run, 1).await.unwrap();
        assert_eq!(made, MadeUp::Queued(run.id));
        let queued = fleet.catalog.run(run.id).await.unwrap().unwrap();
        assert_eq!(queued.policy_version, Some(PolicyVersion(2)));
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_left_out_of_a_pass_keeps_no_other_from_ending() {
    with_fleet(async |fleet, _, now| {
        let late = due(now, Start { by: Some(now), late: "late".to_owned(), ..Start::default() });
        schedule(&fleet, Some(&late), Owing::Unchanged).await;
        assert_eq!(fleet.catalog.lapsed_runs(1, &[]).await.unwrap(), [late.id]);
        assert!(fleet.catalog.lapsed_runs(1, &[late.id]).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_cancelled_with_that_reason_whatever_its_host_says() {
    with_fleet(async |fleet, client, now| {
        let run = due(now, Start { max_duration_s: Some(21_600), ..Start::default() });
        schedule(&fleet, Some(&run), Owing::Unchanged).await;
        let claimed = fleet.claim().await.unwrap();
        report(&fleet, claimed, 1, ReportedEvent::Started).await;
        assert!(lapse(&fleet.catalog).await.is_empty(), "it has just begun");
        client.execute("UPDATE runs SET started_at = now() - INTERVAL '6 hours'", &[]).await.unwrap();
        let ended = lapse(&fleet.catalog).await;
        assert_eq!(ended, [(RunState::Running, "it took longer than 6h, the most that its policy allows".to_owned())]);
        assert!(lapse(&fleet.catalog).await.is_empty(), "its host is told already");
        report(&fleet, claimed, 2, ReportedEvent::Stopped { fault: fault("cancelled") }).await;
        let run = fleet.catalog.run(run.id).await.unwrap().unwrap();
        assert_eq!(run.machine.state, RunState::Cancelled);
        assert_eq!(run.fault.unwrap().message, "it took longer than 6h, the most that its policy allows");
        let told = fleet.catalog.job_healths(None).await.unwrap().remove(0).last_run.unwrap();
        assert_eq!(told.state, RunState::Failed, "nobody asked for that end");
        assert_eq!(fleet.catalog.fleet_figures(None).await.unwrap().runs_failed_24h, 1);
    })
    .await;
}

#[tokio::test]
async fn a_missed_run_is_made_up_for_once_by_any_number_of_coordinators() {
    with_fleet(async |fleet, _, now| {
        let catalog = &fleet.catalog;
        let owe = |runs, most| Owing::More { runs, due_at: now, why: "paused".to_owned(), most, from: now };
        schedule(&fleet, None, owe(3, 1)).await;
        assert_eq!(catalog.owing_jobs(10, &[]).await.unwrap(), [fleet.job]);
        assert!(catalog.owing_jobs(10, &[fleet.job]).await.unwrap().is_empty());
        let owed = catalog.owed(fleet.job).await.unwrap().unwrap();
        assert_eq!((owed.runs, owed.why.as_str(), owed.due_at), (1, "paused", now), "one for all of them");
        let tries: Vec<DueRun> = (0..4).map(|_| due(now, Start::default())).collect();
        let tries = tries.iter().map(|run| catalog.make_up(&owed, PolicyVersion(1), run, 1));
        let done: Vec<MadeUp> = futures_util::future::join_all(tries).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(done.iter().filter(|done| matches!(done, MadeUp::Queued(_))).count(), 1, "{done:?}");
        assert_eq!(done.iter().filter(|done| **done == MadeUp::Changed).count(), 3, "{done:?}");
        assert_eq!(catalog.owed(fleet.job).await.unwrap(), None);
        // While one is open, all of them wait for their turn, and one for all is settled by it.
        schedule(&fleet, None, owe(2, 100)).await;
        let owed = catalog.owed(fleet.job).await.unwrap().unwrap();
        assert_eq!(
            catalog.make_up(&owed, PolicyVersion(1), &due(now, Start::default()), 100).await.unwrap(),
            MadeUp::Later
        );
        let owed = catalog.owed(fleet.job).await.unwrap().unwrap();
        assert_eq!((owed.runs, owed.from > now), (2, true));
        assert!(catalog.put_off(&owed, now).await.unwrap() && !catalog.put_off(&owed, now).await.unwrap());
        let owed = catalog.owed(fleet.job).await.unwrap().unwrap();
        assert_eq!(
            catalog.make_up(&owed, PolicyVersion(1), &due(now, Start::default()), 1).await.unwrap(),
            MadeUp::Settled
        );
        assert_eq!(catalog.owed(fleet.job).await.unwrap(), None);
        assert_eq!(catalog.runs(RunFilter::default()).await.unwrap().len(), 1);
        schedule(&fleet, None, owe(1, 1)).await;
        schedule(&fleet, None, Owing::Settled).await;
        assert_eq!(catalog.owed(fleet.job).await.unwrap(), None, "the next due run makes up for it");
    })
    .await;
}
