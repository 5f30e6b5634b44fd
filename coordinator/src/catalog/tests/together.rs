//! What is done for many hosts at once does for each what would be done for it alone.

use std::collections::HashSet;

use coord_shared::ids::{PolicyVersion, RunId, SessionNumber};
use coord_shared::level::Level;
use coord_shared::run::{RunKind, RunState};
use coord_shared::tls::PeerKind;

use super::fixture::{Fleet, LEASE, new_certificate};
use super::scheduling::{at, due, step};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{
    Catalog, CatalogError, HostBeat, PhaseWord, Planned, ProgressRecord, RunBeat, ScheduleOutcome, ScheduleStep,
};

fn beat(fleet: &Fleet, session: SessionNumber, runs: Vec<RunBeat>) -> HostBeat {
    HostBeat { host: fleet.host, session, sent_at_us: 0, runs }
}

#[tokio::test]
async fn heartbeats_of_many_hosts_extend_what_each_holds_and_leave_the_unusual_to_be_looked_at() {
    with_config(async |config| {
        let mut client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let (one, two, replaced) = (Fleet::new(&catalog).await, Fleet::new(&catalog).await, Fleet::new(&catalog).await);
        let mut held = Vec::new();
        for fleet in [&one, &two, &replaced] {
            fleet.ask(RunKind::Backup).await;
            let (run, attempt) = fleet.claim().await.unwrap();
            let progress = ProgressRecord {
                phase: PhaseWord::Packing,
                files_done: 3,
                files_total: 9,
                bytes_done: 0,
                bytes_total: 0,
            };
            held.push(RunBeat { run, attempt, finished: false, progress: Some(progress) });
        }
        let old = replaced.session;
        replaced.connect().await;
        // Somebody works on the second host's run just now.
        let busy = client.transaction().await.unwrap();
        busy.execute("SELECT FROM runs WHERE run_id = $1 FOR UPDATE", &[&held[1].run.uuid()]).await.unwrap();

        let beats = [
            beat(&one, one.session, vec![held[0]]),
            beat(&two, two.session, vec![held[1]]),
            beat(&replaced, old, vec![held[2]]),
        ];
        let beaten = catalog.beat_hosts(&beats, LEASE).await.unwrap();
        assert_eq!(beaten.hosts, HashSet::from([one.host, two.host]));
        assert_eq!(beaten.runs.into_iter().collect::<Vec<_>>(), [(held[0].run, false)]);
        let run = catalog.run(held[0].run).await.unwrap().unwrap();
        assert_eq!(run.progress.map(|progress| progress.files_done), Some(3));
        busy.rollback().await.unwrap();
        let beaten = catalog.beat_hosts(&beats, LEASE).await.unwrap();
        assert_eq!(beaten.runs.len(), 2, "a session that was replaced extends nothing");
        catalog.close();
    })
    .await;
}

#[tokio::test]
async fn due_runs_of_many_jobs_are_what_each_would_have_had_by_itself() {
    with_catalog(async |catalog| {
        let mut fleets = Vec::new();
        for _ in 0..5 {
            fleets.push(Fleet::new(&catalog).await);
        }
        let [plain, promised, open, seen_late, other_version] = &fleets[..] else { panic!("five fleets") };
        let first: Vec<ScheduleStep> = fleets.iter().map(|fleet| step(fleet, None, Vec::new(), 0)).collect();
        assert!(
            catalog.schedule_many(&first).await.unwrap().iter().all(|outcome| *outcome != ScheduleOutcome::Changed)
        );
        let planned = Planned {
            id: RunId::random(),
            job: promised.job,
            due_at: at(0),
            level: Level::Full,
            policy_version: PolicyVersion(1),
        };
        catalog.plan_runs(&[planned]).await.unwrap();
        let busy = open.ask(RunKind::Backup).await;

        let mut steps: Vec<ScheduleStep> =
            [plain, promised, open].map(|fleet| step(fleet, Some(0), vec![due(0)], 60)).into();
        steps.push(step(seen_late, Some(7), vec![due(7)], 60));
        steps.push(ScheduleStep { policy_version: PolicyVersion(2), ..step(other_version, Some(0), vec![due(0)], 60) });
        let missed = steps[2].runs[0].id;
        let outcomes = catalog.schedule_many(&steps).await.unwrap();
        let done = |run, state| ScheduleOutcome::Scheduled(vec![(run, state)]);
        assert_eq!(
            outcomes,
            [
                done(steps[0].runs[0].id, RunState::Queued),
                done(planned.id, RunState::Queued),
                done(missed, RunState::Missed),
                ScheduleOutcome::Changed,
                ScheduleOutcome::Changed,
            ]
        );
        let missed = catalog.run(missed).await.unwrap().unwrap();
        assert!(missed.reason.contains(&busy.short()), "{}", missed.reason);
        for (fleet, next) in [(plain, 60), (promised, 60), (open, 60), (seen_late, 0), (other_version, 0)] {
            assert_eq!(catalog.job(fleet.job).await.unwrap().unwrap().backup_due_at, Some(at(next)));
        }
        let again = catalog.schedule_many(&steps[..1]).await.unwrap();
        assert_eq!(again, [ScheduleOutcome::Changed], "an instant is scheduled once");
        let two_runs = step(plain, Some(60), vec![due(60), due(61)], 120);
        assert!(matches!(catalog.schedule_many(&[two_runs]).await, Err(CatalogError::OutOfRange { .. })));
    })
    .await;
}

#[tokio::test]
async fn certificates_fall_with_their_host_and_with_a_later_generation() {
    with_catalog(async |catalog| {
        let (one, two) = (Fleet::new(&catalog).await, Fleet::new(&catalog).await);
        let mut serials = Vec::new();
        for fleet in [&one, &two] {
            let newest = catalog.newest_certificate(PeerKind::Agent, &fleet.host.to_string()).await.unwrap().unwrap();
            serials.push(newest.serial);
        }
        let unknown = new_certificate(&one.host.to_string(), PeerKind::Agent, 1).serial;
        let shown = [(serials[0].as_str(), one.host), (serials[1].as_str(), two.host), (unknown.as_str(), one.host)];
        assert_eq!(catalog.fallen_certificates(&shown).await.unwrap(), HashSet::from([unknown.clone()]));
        let wrong_host = [(serials[0].as_str(), coord_shared::ids::HostId::random())];
        assert_eq!(catalog.fallen_certificates(&wrong_host).await.unwrap(), HashSet::from([serials[0].clone()]));
    })
    .await;
}
