//! Runs that hosts began by themselves, from their plans, and what the catalog makes of them.

use coord_shared::ids::{Attempt, PolicyVersion, RunId};
use coord_shared::level::Level;
use coord_shared::run::{Disposition, RunKind, RunState};
use jiff::{SignedDuration, Timestamp};

use super::fixture::{Fleet, LEASE, sealed};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{
    Catalog, Commit, Committed, DueRun, FaultRecord, FromPlanRecord, PauseScope, Planned, ReportedEvent, RunBeat,
    RunReport, ScheduleOutcome, ScheduleStep,
};
use crate::domain::timing::{Owing, Start};

const HOW: FromPlanRecord = FromPlanRecord {
    started_at_us: 40,
    cut_off_since_us: 30,
    plan_made_at_us: 20,
    clock_offset_us: -10,
    max_duration_s: Some(3600),
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// Promises the runs due at these seconds; their ids.
async fn promise(fleet: &Fleet, seconds: &[i64]) -> Vec<RunId> {
    let planned = |second: &i64| Planned {
        id: RunId::random(),
        job: fleet.job,
        due_at: at(*second),
        level: Level::Full,
        policy_version: PolicyVersion(1),
    };
    let wanted: Vec<Planned> = seconds.iter().map(planned).collect();
    fleet.catalog.plan_runs(&wanted).await.unwrap().into_iter().map(|run| run.id).collect()
}

/// A scheduler that comes late inserts these runs, each missed or not.
async fn schedule(fleet: &Fleet, runs: &[(i64, bool)], owing: Owing) -> Vec<(RunId, RunState)> {
    let run = |(second, missed): &(i64, bool)| DueRun {
        id: RunId::random(),
        due_at: at(*second),
        missed: missed.then(|| "nobody was there".to_owned()),
        priority: 0,
        start: Start::default(),
        spec: serde_json::json!({}),
    };
    let step = ScheduleStep {
        job: fleet.job,
        policy_version: PolicyVersion(1),
        kind: RunKind::Backup,
        seen_due_at: None,
        runs: runs.iter().map(run).collect(),
        next_due_at: None,
        owing,
    };
    match fleet.catalog.schedule(&step).await.unwrap() {
        ScheduleOutcome::Scheduled(runs) => runs,
        ScheduleOutcome::Changed => panic!("the step was not taken"),
    }
}

async fn hold(fleet: &Fleet, held: &[(RunId, bool)]) -> Vec<Disposition> {
    let beat = |(run, finished): &(RunId, bool)| RunBeat {
        run: *run,
        attempt: Attempt(1),
        finished: *finished,
        progress: None,
    };
    let beats: Vec<RunBeat> = held.iter().map(beat).collect();
    let outcomes = fleet.catalog.beat_runs(fleet.host, fleet.session, LEASE, &beats).await.unwrap();
    outcomes.into_iter().map(|outcome| outcome.disposition).collect()
}

async fn commit(fleet: &Fleet, run: RunId, ordinal: u64) -> Committed {
    let commit = fleet.commit_of(run, Attempt(1), ordinal, sealed(Level::Full, None, 1));
    let commit = Commit { level_reason: Some("no full of its own".to_owned()), ..commit };
    fleet.catalog.commit_backup(&commit).await.unwrap()
}

async fn report(fleet: &Fleet, run: RunId, sequence: u64, event: ReportedEvent) {
    let report = RunReport {
        host: fleet.host,
        session: fleet.session,
        run,
        attempt: Attempt(1),
        sequence,
        event,
        checked: Vec::new(),
        lease: LEASE,
        retry_after: std::time::Duration::ZERO,
    };
    fleet.catalog.accept_report(&report).await.unwrap();
}

async fn started(fleet: &Fleet, run: RunId) {
    report(fleet, run, 1, ReportedEvent::StartedFromPlan(HOW)).await;
}

#[tokio::test]
async fn a_run_that_its_host_has_finished_is_given_to_nobody_while_its_end_is_on_the_way() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let [run] = promise(&fleet, &[0]).await[..] else { panic!() };
        assert_eq!(schedule(&fleet, &[(0, false)], Owing::Unchanged).await, [(run, RunState::Queued)]);
        assert_eq!(hold(&fleet, &[(run, true)]).await, [Disposition::Report]);
        assert_eq!(fleet.claim().await, None);
        started(&fleet, run).await;
        assert!(matches!(commit(&fleet, run, 1).await, Committed::Committed(_)));
        assert!(matches!(commit(&fleet, run, 1).await, Committed::OtherBackup(_)), "only once");
        let record = catalog.run(run).await.unwrap().unwrap();
        assert_eq!((record.machine.state, record.machine.attempt), (RunState::Succeeded, Attempt(1)));
        assert_eq!((record.level, record.reason.as_str()), (Some(Level::Full), "no full of its own"));
        assert_eq!(record.spec.get("from_plan"), Some(&serde_json::to_value(HOW).unwrap()));
    })
    .await;
}

#[tokio::test]
async fn of_the_runs_of_a_job_that_a_host_tells_of_the_one_that_goes_on_is_open_and_the_others_commit_all_the_same() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let [first, second, third] = promise(&fleet, &[0, 60, 120]).await[..] else { panic!() };
        let held = [(third, false), (first, true), (second, true)];
        let answers = [Disposition::Continue, Disposition::Report, Disposition::Report];
        assert_eq!(hold(&fleet, &held).await, answers);
        let state = async |run| catalog.run(run).await.unwrap().unwrap().machine.state;
        assert_eq!((state(first).await, state(third).await), (RunState::Missed, RunState::Running));
        let late = schedule(&fleet, &[(0, true), (60, true), (120, false)], Owing::Unchanged).await;
        assert_eq!(late, [], "each instant has its run");
        for (ordinal, run) in [(1, first), (2, second), (3, third)] {
            started(&fleet, run).await;
            assert!(matches!(commit(&fleet, run, ordinal).await, Committed::Committed(_)));
            let record = catalog.run(run).await.unwrap().unwrap();
            assert_eq!(record.machine.state, RunState::Succeeded);
            assert!(record.spec.get("from_plan").is_some(), "also of a run that was missed here");
        }
    })
    .await;
}

#[tokio::test]
async fn a_run_that_was_missed_here_and_failed_there_does_not_succeed_by_a_report_that_comes_again() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let [run] = promise(&fleet, &[0]).await[..] else { panic!() };
        schedule(&fleet, &[(0, true)], Owing::Unchanged).await;
        started(&fleet, run).await;
        // The archive of an attempt that failed is set aside.
        let fault = FaultRecord { code: "io".to_owned(), message: "the disk broke".to_owned(), hint: String::new() };
        let failed = ReportedEvent::Failed { fault: fault.clone(), retryable: true, result: None, warnings_total: 0 };
        report(&fleet, run, 2, failed).await;
        let record = catalog.run(run).await.unwrap().unwrap();
        assert_eq!((record.machine.state, record.machine.attempt), (RunState::Missed, Attempt(1)));
        assert_eq!(record.fault, Some(fault));
        assert!(matches!(commit(&fleet, run, 1).await, Committed::Refused(_)));
        assert_eq!(hold(&fleet, &[(run, true)]).await, [Disposition::Abort]);
    })
    .await;
}

#[tokio::test]
async fn a_run_that_was_claimed_for_a_host_which_began_it_by_itself_is_one_attempt() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let [run] = promise(&fleet, &[0]).await[..] else { panic!() };
        schedule(&fleet, &[(0, false)], Owing::Unchanged).await;
        // Its order went into a connection that was broken already.
        assert_eq!(fleet.claim().await, Some((run, Attempt(1))));
        assert_eq!(hold(&fleet, &[(run, false)]).await, [Disposition::Continue]);
        started(&fleet, run).await;
        assert_eq!(fleet.claim().await, None);
        assert!(matches!(commit(&fleet, run, 1).await, Committed::Committed(_)));
        let record = catalog.run(run).await.unwrap().unwrap();
        assert_eq!((record.machine.state, record.machine.attempt), (RunState::Succeeded, Attempt(1)));
    })
    .await;
}

#[tokio::test]
async fn a_run_of_a_plan_is_bounded_by_what_the_plan_said_also_when_its_host_does_not_stop_it() {
    with_config(async |config| {
        let (catalog, client) = (Catalog::new(config.clone()).unwrap(), config.connect().await.unwrap());
        let fleet = Fleet::new(&catalog).await;
        let [run] = promise(&fleet, &[0]).await[..] else { panic!() };
        assert_eq!(hold(&fleet, &[(run, false)]).await, [Disposition::Continue]);
        started(&fleet, run).await;
        assert_eq!(catalog.lapsed_runs(10, &[]).await.unwrap(), []);
        client.execute("UPDATE runs SET started_at = now() - INTERVAL '1 hour'", &[]).await.unwrap();
        assert_eq!(catalog.lapsed_runs(10, &[]).await.unwrap(), [run]);
        let lapsed = catalog.end_lapsed(run).await.unwrap().unwrap();
        assert_eq!(lapsed.why, "it took longer than 1h, the most that its policy allows");
        assert_eq!(hold(&fleet, &[(run, false)]).await, [Disposition::Abort]);
    })
    .await;
}

#[tokio::test]
async fn what_a_host_did_by_itself_is_not_owed_any_more() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let [older, newest] = promise(&fleet, &[0, 60]).await[..] else { panic!() };
        let owing = Owing::More {
            runs: 1,
            due_at: at(60),
            why: "nobody was there".to_owned(),
            most: 1,
            from: catalog.now().await.unwrap() - SignedDuration::from_secs(1),
        };
        schedule(&fleet, &[(0, true), (60, true)], owing).await;
        commit(&fleet, older, 1).await;
        assert_eq!(catalog.owing_jobs(10, &[]).await.unwrap(), [fleet.job], "one run makes up for the newest of them");
        commit(&fleet, newest, 2).await;
        assert_eq!(catalog.owing_jobs(10, &[]).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_run_that_was_cancelled_or_given_to_a_later_attempt_does_not_succeed_by_the_plan() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let [cancelled] = promise(&fleet, &[0]).await[..] else { panic!() };
        schedule(&fleet, &[(0, false)], Owing::Unchanged).await;
        catalog.cancel_run(cancelled).await.unwrap();
        assert_eq!(hold(&fleet, &[(cancelled, true)]).await, [Disposition::Abort]);
        assert!(matches!(commit(&fleet, cancelled, 1).await, Committed::Refused(_)));
        let stranger = Fleet::new(&catalog).await;
        let [promised] = promise(&stranger, &[0]).await[..] else { panic!() };
        assert_eq!(hold(&fleet, &[(promised, true)]).await, [Disposition::Forget], "another host's promise is none");
        assert_eq!(catalog.run(promised).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn what_a_plan_goes_by_prints_otherwise_when_it_changes() {
    with_catalog(async |catalog| {
        let (fleet, other) = (Fleet::new(&catalog).await, Fleet::new(&catalog).await);
        let print = async || catalog.plan_prints(&[fleet.host]).await.unwrap().remove(&fleet.host).unwrap();
        let mut known = vec![print().await];
        assert_eq!(print().await, known[0]);
        let paused = PauseScope { host: Some(other.host), policy: None };
        catalog.set_pause(paused, None, "disks", "ada").await.unwrap();
        assert_eq!(print().await, known[0], "that is another host's");
        fleet.back_up(1, sealed(Level::Full, None, 1)).await;
        known.push(print().await);
        catalog.set_pause(PauseScope { host: Some(fleet.host), policy: None }, None, "disks", "ada").await.unwrap();
        known.push(print().await);
        let all = known.len();
        known.dedup();
        assert_eq!(known.len(), all, "{known:?}");
    })
    .await;
}

#[tokio::test]
async fn a_promise_is_forgotten_when_its_run_is_there_and_kept_while_it_may_be_reported() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let now = catalog.now().await.unwrap();
        let hours = |hours: i64| now - SignedDuration::from_hours(hours);
        let planned = |due_at| Planned {
            id: RunId::random(),
            job: fleet.job,
            due_at,
            level: Level::Full,
            policy_version: PolicyVersion(1),
        };
        let wanted = [planned(hours(31 * 24)), planned(hours(3)), planned(hours(2)), planned(hours(-1))];
        let promised = catalog.plan_runs(&wanted).await.unwrap();
        assert_eq!(hold(&fleet, &[(promised[1].id, true)]).await.len(), 1);
        assert_eq!(catalog.forget_old_plans().await.unwrap(), 2, "the one of a month ago and the one with a run");
        let again = catalog.plan_runs(&wanted).await.unwrap();
        let ids = |runs: &[Planned]| runs.iter().map(|run| run.id).collect::<Vec<_>>();
        assert_eq!(ids(&again[1..]), ids(&promised[2..]), "and the instant of that run is not promised again");
    })
    .await;
}
