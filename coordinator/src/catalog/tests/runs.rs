//! Runs: claims, leases, heartbeats, reaping, reports and cancelling.

use std::time::Duration;

use coord_shared::ids::{Attempt, HostId, RunId, SessionNumber};
use coord_shared::run::{Disposition, Illegal, Run, RunKind, RunState};

use super::fixture::{Fleet, LEASE, beat_of};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{
    AttemptOutcome, Catalog, Claimed, FaultRecord, NoteRecord, PhaseWord, ProgressRecord, ReportOutcome, ReportedEvent,
    RunBeat, RunReport, Transition,
};

fn fault() -> FaultRecord {
    FaultRecord { code: "io".to_owned(), message: "it broke".to_owned(), hint: String::new() }
}

fn report(fleet: &Fleet, run: RunId, attempt: u32, sequence: u64, event: ReportedEvent) -> RunReport {
    RunReport {
        host: fleet.host,
        session: fleet.session,
        run,
        attempt: Attempt(attempt),
        sequence,
        event,
        checked: Vec::new(),
        lease: LEASE,
        retry_after: Duration::ZERO,
    }
}

fn beat(run: RunId, attempt: u32) -> RunBeat {
    RunBeat { run, attempt: Attempt(attempt), finished: false, progress: None }
}

async fn state(fleet: &Fleet, run: RunId) -> Run {
    fleet.catalog.run(run).await.unwrap().unwrap().machine
}

async fn disposition(fleet: &Fleet, beat: RunBeat) -> Disposition {
    let outcomes = fleet.catalog.beat_runs(fleet.host, fleet.session, LEASE, &[beat]).await.unwrap();
    outcomes[0].disposition
}

/// Lets every lease of the database run out.
async fn lapse(catalog: &Catalog, client: &tokio_postgres::Client) -> Vec<(RunId, RunState)> {
    client
        .batch_execute("UPDATE runs SET lease_until = now() - INTERVAL '1 s' WHERE lease_until IS NOT NULL")
        .await
        .unwrap();
    let none = Duration::ZERO;
    let reaped = catalog.reap_lapsed_runs(none, none, none).await.unwrap();
    reaped.into_iter().map(|reaped| (reaped.run, reaped.state)).collect()
}

/// A test with the catalog, a fleet, and a client of its own for what time would do.
async fn with_fleet<F>(test: F)
where
    F: AsyncFnOnce(Fleet, tokio_postgres::Client),
{
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let fleet = Fleet::new(&Catalog::new(config).unwrap()).await;
        test(fleet, client).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_is_claimed_once_however_many_try() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let wanted: Vec<RunId> = vec![fleet.ask(RunKind::Verify).await, fleet.ask(RunKind::Backup).await];
        let claims = (0..8).map(|_| fleet.claim());
        let mut claimed: Vec<RunId> =
            futures_util::future::join_all(claims).await.into_iter().flatten().map(|(run, _)| run).collect();
        claimed.extend(fleet.claim().await.map(|(run, _)| run));
        claimed.sort();
        let mut wanted = wanted;
        wanted.sort();
        assert_eq!(claimed, wanted);
    })
    .await;
}

#[tokio::test]
async fn only_the_newest_session_claims_and_beats() {
    with_catalog(async |catalog| {
        let mut fleet = Fleet::new(&catalog).await;
        let run = fleet.ask(RunKind::Backup).await;
        let old = fleet.session;
        fleet.session = fleet.connect().await;
        assert_eq!(catalog.claim_runs(&[(fleet.host, old)], LEASE, 9).await.unwrap(), []);
        assert_eq!(fleet.claim().await, Some((run, Attempt(1))));
    })
    .await;
}

#[tokio::test]
async fn a_lost_host_gives_its_run_back_and_takes_it_up_again_while_nobody_else_has() {
    with_fleet(async |fleet, client| {
        let run = fleet.ask(RunKind::Backup).await;
        fleet.claim().await.unwrap();
        assert_eq!(lapse(&fleet.catalog, &client).await, [(run, RunState::Queued)]);
        assert!(state(&fleet, run).await.reaped);
        assert_eq!(disposition(&fleet, beat(run, 1)).await, Disposition::Continue);
        let taken_up = state(&fleet, run).await;
        assert_eq!((taken_up.state, taken_up.attempt, taken_up.reaped), (RunState::Running, Attempt(1), false));
        assert!(fleet.catalog.is_held(run, Attempt(1)).await.unwrap());
        let attempts = fleet.catalog.attempts(run).await.unwrap();
        assert_eq!((attempts.len(), attempts[0].outcome), (1, None));
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_was_replaced_is_aborted_and_cannot_report() {
    with_fleet(async |fleet, client| {
        let run = fleet.ask(RunKind::Backup).await;
        fleet.claim().await.unwrap();
        lapse(&fleet.catalog, &client).await;
        fleet.beats().await;
        assert_eq!(fleet.claim().await, Some((run, Attempt(2))));
        assert_eq!(disposition(&fleet, beat(run, 1)).await, Disposition::Abort);
        let late = report(&fleet, run, 1, 1, ReportedEvent::Started);
        let outcome = fleet.catalog.accept_report(&late).await.unwrap();
        assert_eq!(outcome, ReportOutcome::Refused(Illegal::Superseded { given: Attempt(1), newest: Attempt(2) }));
        assert_eq!(disposition(&fleet, beat(run, 2)).await, Disposition::Continue);
        let outcomes: Vec<_> =
            fleet.catalog.attempts(run).await.unwrap().into_iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Some(AttemptOutcome::Lapsed), None]);
    })
    .await;
}

#[tokio::test]
async fn a_host_that_let_a_lease_lapse_is_given_nothing_until_it_is_heard_of() {
    with_fleet(async |fleet, client| {
        let other = Fleet::new(&fleet.catalog).await;
        let run = fleet.ask(RunKind::Backup).await;
        fleet.claim().await.unwrap();
        lapse(&fleet.catalog, &client).await;
        let check = fleet.ask(RunKind::Verify).await;
        let others = other.ask(RunKind::Backup).await;
        assert!(fleet.catalog.is_silent(fleet.host).await.unwrap());
        assert_eq!(fleet.claim().await, None, "its session may be dead: an order would cost an attempt");
        assert_eq!(other.claim().await, Some((others, Attempt(1))));
        fleet.beats().await;
        assert!(!fleet.catalog.is_silent(fleet.host).await.unwrap());
        let sessions = [(fleet.host, fleet.session)];
        let claimed = fleet.catalog.claim_runs(&sessions, LEASE, 10).await.unwrap();
        let claimed: Vec<_> = claimed.iter().map(|claimed| (claimed.run, claimed.attempt)).collect();
        assert_eq!(claimed.len(), 2);
        assert!(claimed.contains(&(run, Attempt(2))) && claimed.contains(&(check, Attempt(1))), "{claimed:?}");
    })
    .await;
}

#[tokio::test]
async fn a_hello_gives_back_what_an_earlier_session_held_and_nothing_of_a_later_one() {
    with_fleet(async |fleet, _| {
        let run = fleet.ask(RunKind::Backup).await;
        assert_eq!(fleet.claim().await, Some((run, Attempt(1))));
        let before = async |session| fleet.catalog.held_before(fleet.host, session).await.unwrap();
        assert_eq!(before(fleet.session).await, vec![], "it was claimed for this session");
        let next = SessionNumber(fleet.session.get() + 1);
        assert_eq!(before(next).await, [Claimed { run, attempt: Attempt(1), host: fleet.host }]);
    })
    .await;
}

#[tokio::test]
async fn orders_that_never_arrive_cost_no_attempt() {
    with_fleet(async |fleet, _| {
        let run = fleet.ask(RunKind::Backup).await;
        let first = RunKind::Backup.max_attempts();
        for attempt in 1..=first {
            assert_eq!(fleet.claim().await, Some((run, Attempt(attempt))));
            let lost = report(&fleet, run, attempt, 0, ReportedEvent::Lost { fault: fault() });
            assert!(matches!(fleet.catalog.accept_report(&lost).await.unwrap(), ReportOutcome::Taken(_)));
            assert_eq!(state(&fleet, run).await.state, RunState::Queued);
        }
        assert_eq!(state(&fleet, run).await.max_attempts, 2 * first);
        assert_eq!(fleet.catalog.attempts(run).await.unwrap()[0].outcome, Some(AttemptOutcome::Failed));
    })
    .await;
}

#[tokio::test]
async fn the_last_attempt_fails_the_run_when_it_lapses() {
    with_fleet(async |fleet, client| {
        let run = fleet.ask(RunKind::Backup).await;
        for attempt in 1..=RunKind::Backup.max_attempts() {
            assert_eq!(fleet.claim().await, Some((run, Attempt(attempt))));
            lapse(&fleet.catalog, &client).await;
            fleet.beats().await;
        }
        let ended = fleet.catalog.run(run).await.unwrap().unwrap();
        assert_eq!((ended.machine.state, ended.machine.reaped), (RunState::Failed, true));
        assert_eq!(ended.fault.unwrap().code, "lease_lapsed");
        assert!(ended.ended_at.is_some());
        assert_eq!(fleet.claim().await, None);
    })
    .await;
}

#[tokio::test]
async fn reaping_is_what_the_state_machine_says() {
    with_fleet(async |fleet, client| {
        for (attempts, cancelling) in [(1, false), (1, true), (3, false), (3, true)] {
            let run = fleet.ask(RunKind::Verify).await;
            let set = "UPDATE runs SET attempt = $2 - 1 WHERE run_id = $1";
            client.execute(set, &[&run.uuid(), &attempts]).await.unwrap();
            fleet.claim().await.unwrap();
            if cancelling {
                fleet.catalog.cancel_run(run).await.unwrap();
            }
            let before = state(&fleet, run).await;
            let expected = before.apply(coord_shared::run::Event::Reaped(before.attempt)).unwrap();
            lapse(&fleet.catalog, &client).await;
            assert_eq!(state(&fleet, run).await, expected);
            client.execute("UPDATE runs SET run_after = 'infinity' WHERE run_id = $1", &[&run.uuid()]).await.unwrap();
            fleet.beats().await;
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_reaped_in_the_quiet_time_after_a_start() {
    with_fleet(async |fleet, client| {
        let run = fleet.ask(RunKind::Backup).await;
        fleet.claim().await.unwrap();
        let (minute, id) = (Duration::from_secs(60), coord_shared::ids::CoordinatorId::random());
        fleet.catalog.beat_coordinator(beat_of(id), minute, minute).await.unwrap();
        assert_eq!(lapse(&fleet.catalog, &client).await, []);
        client.batch_execute("UPDATE coordinators SET quiet_until = now()").await.unwrap();
        // The database itself has just been started for a grace of a day.
        let day = Duration::from_secs(365 * 86_400);
        assert_eq!(fleet.catalog.reap_lapsed_runs(day, minute, minute).await.unwrap(), []);
        assert_eq!(lapse(&fleet.catalog, &client).await, [(run, RunState::Queued)]);
    })
    .await;
}

#[tokio::test]
async fn a_beat_that_comes_late_begins_a_quiet_time() {
    with_fleet(async |fleet, client| {
        let (short, minute) = (Duration::from_secs(10), Duration::from_secs(60));
        let quiet = async || -> bool {
            let query = "SELECT bool_or(quiet_until > now()) AS quiet FROM coordinators";
            client.query_one(query, &[]).await.unwrap().get("quiet")
        };
        let again = async || fleet.catalog.beat_coordinator(beat_of(fleet.coordinator), minute, short).await.unwrap();
        again().await;
        assert!(!quiet().await, "it beat just now");
        client.batch_execute("UPDATE coordinators SET last_beat_at = now() - INTERVAL '11 s'").await.unwrap();
        again().await;
        assert!(quiet().await);
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_extends_the_lease_and_carries_progress() {
    with_fleet(async |fleet, client| {
        let run = fleet.ask(RunKind::Backup).await;
        fleet.claim().await.unwrap();
        client.batch_execute("UPDATE runs SET lease_until = now() - INTERVAL '1 s'").await.unwrap();
        let progress =
            ProgressRecord { phase: PhaseWord::Packing, files_done: 3, files_total: 9, bytes_done: 1, bytes_total: 2 };
        let beat = RunBeat { progress: Some(progress), ..beat(run, 1) };
        assert_eq!(disposition(&fleet, beat).await, Disposition::Continue);
        let none = Duration::ZERO;
        assert_eq!(fleet.catalog.reap_lapsed_runs(none, none, none).await.unwrap(), []);
        assert_eq!(fleet.catalog.run(run).await.unwrap().unwrap().progress, Some(progress));
    })
    .await;
}

#[tokio::test]
async fn cancelling_tells_the_host_and_ends_with_its_answer() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let run = fleet.ask(RunKind::Backup).await;
        fleet.claim().await.unwrap();
        assert!(matches!(catalog.cancel_run(run).await.unwrap(), Transition::Updated(run) if run.cancelling));
        assert!(matches!(catalog.cancel_run(run).await.unwrap(), Transition::AlreadyThere(_)));
        assert_eq!(disposition(&fleet, beat(run, 1)).await, Disposition::Abort);
        let stopped = report(&fleet, run, 1, 1, ReportedEvent::Stopped { fault: fault() });
        catalog.accept_report(&stopped).await.unwrap();
        assert_eq!(state(&fleet, run).await.state, RunState::Cancelled);
        assert_eq!(catalog.attempts(run).await.unwrap()[0].outcome, Some(AttemptOutcome::Cancelled));
        let queued = fleet.ask(RunKind::Backup).await;
        catalog.cancel_run(queued).await.unwrap();
        assert_eq!(state(&fleet, queued).await.state, RunState::Cancelled);
        assert!(matches!(catalog.cancel_run(queued).await.unwrap(), Transition::AlreadyThere(_)));
    })
    .await;
}

#[tokio::test]
async fn reports_may_be_repeated_reordered_and_late() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let run = fleet.ask(RunKind::Verify).await;
        fleet.claim().await.unwrap();
        let note =
            |name: &[u8]| NoteRecord { path: name.to_vec(), kind: "unreadable".to_owned(), detail: "x\0".to_owned() };
        let warnings = report(&fleet, run, 1, 2, ReportedEvent::Warnings(vec![note(b"\xff"), note(b"b")]));
        let taken = async |report: &RunReport| catalog.accept_report(report).await.unwrap();
        assert!(matches!(taken(&warnings).await, ReportOutcome::Taken(_)));
        assert!(matches!(taken(&warnings).await, ReportOutcome::Repeated(_)));
        let started = report(&fleet, run, 1, 1, ReportedEvent::Started);
        assert!(matches!(taken(&started).await, ReportOutcome::Taken(run) if run.state == RunState::Running));
        let result = ReportedEvent::Succeeded { result: serde_json::json!({"ok": true}), warnings_total: 7 };
        let end = report(&fleet, run, 1, 3, result);
        assert!(matches!(taken(&end).await, ReportOutcome::Taken(run) if run.state == RunState::Succeeded));
        assert!(matches!(taken(&end).await, ReportOutcome::Repeated(run) if run.state == RunState::Succeeded));
        let late = report(&fleet, run, 1, 4, ReportedEvent::Scanned);
        assert!(matches!(taken(&late).await, ReportOutcome::Refused(_)));
        let kept = catalog.run_warnings(run, 10).await.unwrap();
        assert_eq!(kept.iter().map(|note| note.path.clone()).collect::<Vec<_>>(), [&b"\xff"[..], b"b"]);
        assert_eq!(catalog.run(run).await.unwrap().unwrap().warnings_total, 7);
    })
    .await;
}

#[tokio::test]
async fn the_notes_of_a_run_are_bounded() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let run = fleet.ask(RunKind::Verify).await;
        fleet.claim().await.unwrap();
        let note = NoteRecord { path: b"a".to_vec(), kind: "unreadable".to_owned(), detail: String::new() };
        for sequence in 1..=3 {
            let notes = ReportedEvent::Warnings(vec![note.clone(); 600]);
            catalog.accept_report(&report(&fleet, run, 1, sequence, notes)).await.unwrap();
        }
        assert_eq!(catalog.run_warnings(run, 5000).await.unwrap().len(), 1000);
    })
    .await;
}

#[tokio::test]
async fn a_failed_attempt_is_tried_again_after_its_wait() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let run = fleet.ask(RunKind::Backup).await;
        fleet.claim().await.unwrap();
        let event = ReportedEvent::Failed { fault: fault(), retryable: true, result: None, warnings_total: 0 };
        let mut failed = report(&fleet, run, 1, 1, event);
        failed.retry_after = Duration::from_secs(600);
        catalog.accept_report(&failed).await.unwrap();
        let queued = catalog.run(run).await.unwrap().unwrap();
        assert_eq!((queued.machine.state, queued.fault), (RunState::Queued, Some(fault())));
        assert_eq!(fleet.claim().await, None, "its wait is not over");
        assert_eq!(disposition(&fleet, beat(run, 1)).await, Disposition::Abort, "it ended by the host's own word");
    })
    .await;
}

#[tokio::test]
async fn a_run_of_another_host_does_not_exist() {
    with_catalog(async |catalog| {
        let (mine, other) = (Fleet::new(&catalog).await, Fleet::new(&catalog).await);
        let run = mine.ask(RunKind::Backup).await;
        mine.claim().await.unwrap();
        assert_eq!(disposition(&other, beat(run, 1)).await, Disposition::Abort);
        assert!(catalog.accept_report(&report(&other, run, 1, 1, ReportedEvent::Started)).await.is_err());
        assert_eq!(state(&mine, run).await.state, RunState::Leased);
        assert_eq!(catalog.run(RunId::random()).await.unwrap(), None);
        assert!(catalog.host(HostId::random()).await.unwrap().is_none());
    })
    .await;
}
