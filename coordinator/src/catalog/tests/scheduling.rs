//! Due runs, plans, policies and jobs.

use coord_shared::ids::{Attempt, JobId, PolicyVersion, RunId};
use coord_shared::level::Level;
use coord_shared::run::{Disposition, RunKind, RunState};
use jiff::Timestamp;

use super::fixture::{Fleet, LEASE, sealed};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{
    Catalog, Committed, DueRun, JobState, NewPolicyVersion, PassedOver, Planned, PolicyChange, RunBeat, RunFilter,
    ScheduleOutcome, ScheduleStep, VersionOrigin,
};
use crate::domain::timing::{Owing, Start};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(super) fn due(second: i64) -> DueRun {
    DueRun {
        id: RunId::random(),
        due_at: at(second),
        missed: None,
        priority: 0,
        start: Start::default(),
        spec: serde_json::json!({}),
    }
}

pub(super) fn step(fleet: &Fleet, seen: Option<i64>, runs: Vec<DueRun>, next: i64) -> ScheduleStep {
    ScheduleStep {
        job: fleet.job,
        policy_version: PolicyVersion(1),
        kind: RunKind::Backup,
        seen_due_at: seen.map(at),
        runs,
        next_due_at: Some(at(next)),
        owing: Owing::Unchanged,
    }
}

#[tokio::test]
async fn a_due_run_is_inserted_once_by_any_number_of_schedulers() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        assert_eq!(catalog.jobs_to_schedule(10, &PassedOver::default()).await.unwrap(), [fleet.job]);
        for without in [
            PassedOver { policies: [fleet.policy].into(), ..PassedOver::default() },
            PassedOver { jobs: [fleet.job].into(), ..PassedOver::default() },
        ] {
            assert!(catalog.jobs_to_schedule(10, &without).await.unwrap().is_empty(), "{without:?}");
        }
        catalog.schedule(&step(&fleet, None, Vec::new(), 0)).await.unwrap();
        let steps: Vec<ScheduleStep> = (0..4).map(|_| step(&fleet, Some(0), vec![due(0)], 60)).collect();
        let tries = futures_util::future::join_all(steps.iter().map(|step| catalog.schedule(step))).await;
        let done = tries.into_iter().filter(|outcome| *outcome.as_ref().unwrap() != ScheduleOutcome::Changed).count();
        assert_eq!(done, 1);
        let runs = catalog.runs(RunFilter { host: Some(fleet.host), ..RunFilter::default() }).await.unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].machine.state, runs[0].due_at), (RunState::Queued, at(0)));
        assert_eq!(catalog.job(fleet.job).await.unwrap().unwrap().backup_due_at, Some(at(60)));
    })
    .await;
}

#[tokio::test]
async fn a_due_run_that_finds_one_open_is_missed_with_that_reason() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let gone = DueRun { missed: Some("the coordinators were away".to_owned()), ..due(-60) };
        let runs = vec![gone.clone(), due(0), due(60)];
        let outcome = catalog.schedule(&step(&fleet, None, runs.clone(), 120)).await.unwrap();
        let ScheduleOutcome::Scheduled(inserted) = outcome else { panic!("{outcome:?}") };
        let states: Vec<RunState> = inserted.iter().map(|(_, state)| *state).collect();
        assert_eq!(states, [RunState::Missed, RunState::Queued, RunState::Missed]);
        let missed = catalog.run(runs[2].id).await.unwrap().unwrap();
        assert!(missed.reason.contains(&runs[1].id.short()), "{}", missed.reason);
        assert_eq!(catalog.run(gone.id).await.unwrap().unwrap().reason, "the coordinators were away");
    })
    .await;
}

#[tokio::test]
async fn thousands_of_missed_runs_are_written_in_bounded_batches() {
    with_config(async |config| {
        let catalog = Catalog::new(config.clone()).unwrap();
        let (fleet, client) = (Fleet::new(&catalog).await, config.connect().await.unwrap());
        let counting = "CREATE TABLE statements (runs bigint NOT NULL);
            CREATE FUNCTION count_runs() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO statements SELECT count(*) FROM made; RETURN NULL; END $$;
            CREATE TRIGGER count_runs AFTER INSERT ON runs REFERENCING NEW TABLE AS made
                FOR EACH STATEMENT EXECUTE FUNCTION count_runs();";
        client.batch_execute(counting).await.unwrap();
        let planned = Planned {
            id: RunId::random(),
            job: fleet.job,
            due_at: at(7),
            level: Level::Full,
            policy_version: PolicyVersion(1),
        };
        catalog.plan_runs(&[planned]).await.unwrap();
        let away = |second| DueRun { missed: Some(format!("nobody was there at {second}")), ..due(second) };
        let mut runs: Vec<DueRun> = (0..3200).map(away).collect();
        runs.push(due(3200));
        let outcome = catalog.schedule(&step(&fleet, None, runs.clone(), 3600)).await.unwrap();
        let ScheduleOutcome::Scheduled(inserted) = outcome else { panic!("{outcome:?}") };
        assert_eq!(inserted.len(), 3201);
        assert_eq!(inserted.last(), Some(&(runs[3200].id, RunState::Queued)));
        let rows = client.query("SELECT runs FROM statements ORDER BY runs DESC", &[]).await.unwrap();
        let batches: Vec<i64> = rows.iter().map(|row| row.get("runs")).collect();
        assert_eq!(batches, [500, 500, 500, 500, 500, 500, 200, 1]);
        let promised = catalog.run(planned.id).await.unwrap().unwrap();
        assert_eq!((promised.machine.state, promised.due_at), (RunState::Missed, at(7)), "the promised id is kept");
        let one = catalog.run(runs[1234].id).await.unwrap().unwrap();
        assert_eq!((one.machine.state, one.due_at), (RunState::Missed, at(1234)));
        assert_eq!((one.reason.as_str(), one.ended_at.is_some()), ("nobody was there at 1234", true));
        // What has a row already keeps it.
        let again = step(&fleet, Some(3600), runs[..10].to_vec(), 7200);
        assert_eq!(catalog.schedule(&again).await.unwrap(), ScheduleOutcome::Scheduled(Vec::new()));
    })
    .await;
}

#[tokio::test]
async fn a_run_that_was_missed_here_may_still_succeed_at_a_host_that_was_cut_off() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let planned = Planned {
            id: RunId::random(),
            job: fleet.job,
            due_at: at(0),
            level: Level::Full,
            policy_version: PolicyVersion(1),
        };
        assert_eq!(catalog.plan_runs(&[planned]).await.unwrap(), [planned]);
        let again = Planned { id: RunId::random(), level: Level::Differential, ..planned };
        let kept = Planned { id: planned.id, ..again };
        assert_eq!(catalog.plan_runs(&[again]).await.unwrap(), [kept], "a promise is kept");
        let missed = DueRun { missed: Some("away".to_owned()), ..due(0) };
        let outcome = catalog.schedule(&step(&fleet, None, vec![missed], 60)).await.unwrap();
        assert_eq!(outcome, ScheduleOutcome::Scheduled(vec![(planned.id, RunState::Missed)]));
        let commit = fleet.commit_of(planned.id, Attempt(1), 1, sealed(Level::Full, None, 1));
        assert!(matches!(catalog.commit_backup(&commit).await.unwrap(), Committed::Committed(_)));
    })
    .await;
}

#[tokio::test]
async fn a_planned_run_gets_its_row_when_its_host_says_that_it_runs() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let planned = Planned {
            id: RunId::random(),
            job: fleet.job,
            due_at: at(0),
            level: Level::Full,
            policy_version: PolicyVersion(1),
        };
        catalog.plan_runs(&[planned]).await.unwrap();
        let beat = |run| RunBeat { run, attempt: Attempt(1), finished: false, progress: None };
        let beats = [beat(planned.id), beat(RunId::random())];
        let outcomes = catalog.beat_runs(fleet.host, fleet.session, LEASE, &beats).await.unwrap();
        let dispositions: Vec<Disposition> = outcomes.iter().map(|outcome| outcome.disposition).collect();
        assert_eq!(dispositions, [Disposition::Continue, Disposition::Abort]);
        let run = catalog.run(planned.id).await.unwrap().unwrap();
        assert_eq!((run.machine.state, run.machine.attempt), (RunState::Running, Attempt(1)));
        assert_eq!(fleet.claim().await, None);
        let outcome = catalog.schedule(&step(&fleet, None, vec![due(0)], 60)).await.unwrap();
        assert_eq!(outcome, ScheduleOutcome::Scheduled(Vec::new()), "the instant has its run");
    })
    .await;
}

#[tokio::test]
async fn a_policy_is_versioned_and_its_jobs_follow_its_hosts() {
    with_catalog(async |catalog| {
        let (one, two) = (Fleet::new(&catalog).await, Fleet::new(&catalog).await);
        let policy = |toml: &str, hosts: Vec<_>| NewPolicyVersion {
            name: "nightly".to_owned(),
            toml: toml.to_owned(),
            spec: serde_json::json!({ "toml": toml }),
            applied_by: "ada".to_owned(),
            new_job_ids: hosts.iter().map(|_| JobId::random()).collect(),
            hosts,
            origin: VersionOrigin::Applied,
            equals: None,
            renew: false,
            expected: None,
        };
        let names = async |host| vec![catalog.host(host).await.unwrap().unwrap().name];
        let first = catalog.apply_policy(&policy("a", vec![one.host])).await.unwrap();
        assert_eq!((first.change, first.policy.version), (PolicyChange::Created, PolicyVersion(1)));
        assert_eq!(first.hosts_added, names(one.host).await);
        let same = catalog.apply_policy(&policy("a", vec![one.host])).await.unwrap();
        assert_eq!((same.change, same.hosts_added.len()), (PolicyChange::Unchanged, 0));
        let moved = catalog.apply_policy(&policy("b", vec![two.host])).await.unwrap();
        assert_eq!((moved.change, moved.policy.version), (PolicyChange::Updated, PolicyVersion(2)));
        assert_eq!((moved.hosts_added, moved.hosts_removed), (names(two.host).await, names(one.host).await));
        let ended = catalog.job_of(one.host, first.policy.id).await.unwrap().unwrap();
        assert_eq!(ended.state, JobState::Ended);
        let back = catalog.apply_policy(&policy("b", vec![one.host, two.host])).await.unwrap();
        assert_eq!((back.change, back.hosts_added), (PolicyChange::Unchanged, names(one.host).await));
        let begun = catalog.job_of(one.host, first.policy.id).await.unwrap().unwrap();
        assert_eq!((begun.id, begun.state), (ended.id, JobState::Active), "the job is the same one");
        let old = catalog.policy_at(first.policy.id, PolicyVersion(1)).await.unwrap().unwrap();
        assert_eq!(old.toml, "a");
        catalog.set_host_jobs(one.host, &[(one.policy, JobId::random())]).await.unwrap();
        assert_eq!(catalog.job_of(one.host, first.policy.id).await.unwrap().unwrap().state, JobState::Ended);
        assert_eq!(catalog.job(one.job).await.unwrap().unwrap().state, JobState::Active);
    })
    .await;
}
