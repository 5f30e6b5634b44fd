//! Claims within limits, the order of the queue, and wishes that are asked for more than once.

use std::collections::{BTreeMap, BTreeSet};

use coord_shared::ids::{HostId, RunId, SessionNumber};
use coord_shared::level::Level;
use coord_shared::run::RunKind;
use tokio_postgres::Client;

use super::fixture::{Fleet, LEASE};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{Asked, AskedRun, Catalog, CatalogError};
use crate::domain::queue::{Bound, Scope};

fn asked(fleet: &Fleet, kind: RunKind, level: Option<Level>) -> AskedRun {
    AskedRun {
        id: RunId::random(),
        kind,
        host: fleet.host,
        job: Some(fleet.job),
        asked_by: "ada".to_owned(),
        level,
        spec: serde_json::json!({}),
        priority: 0,
    }
}

fn keys(fleets: &[Fleet]) -> Vec<(HostId, SessionNumber)> {
    fleets.iter().map(|fleet| (fleet.host, fleet.session)).collect()
}

async fn set(catalog: &Catalog, name: &str, scope: Scope, runs: u32) {
    catalog.set_limit(name, &Bound { scope, runs }, "ada").await.unwrap();
}

async fn ended(client: &Client, run: RunId) {
    let end = "UPDATE runs SET state = 'succeeded', lease_until = NULL, lease_session = NULL WHERE run_id = $1";
    client.execute(end, &[&run.uuid()]).await.unwrap();
}

/// Everybody claims at once, again and again, while what was claimed ends; answers what was claimed in all.
async fn storm(catalog: &Catalog, client: &Client, fleets: &[Fleet], most: u64) -> BTreeSet<RunId> {
    let mut claimed = BTreeSet::new();
    loop {
        let sessions = keys(fleets);
        let claims = (0..8).map(|_| catalog.claim_runs(&sessions, LEASE, 3));
        let found: Vec<_> = futures_util::future::join_all(claims).await.into_iter().flat_map(Result::unwrap).collect();
        let held = catalog.held_runs().await.unwrap();
        let (all, busiest) = (held.iter().map(|held| held.runs).sum::<u64>(), held.iter().map(|held| held.runs).max());
        assert!(all <= most, "{all} go on at once");
        assert!(busiest.unwrap_or(0) <= 2, "{busiest:?} go on at once on one host");
        if found.is_empty() {
            assert_eq!(all, 0, "something is left that nobody claims");
            return claimed;
        }
        assert!(all == most || claimed.len() + found.len() > 10, "there was room for more than {all}");
        for run in found {
            assert!(claimed.insert(run.run), "claimed twice");
            ended(client, run.run).await;
        }
    }
}

#[tokio::test]
async fn claimers_at_once_never_exceed_a_limit_and_leave_nothing_waiting() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let mut fleets = Vec::new();
        for _ in 0..4 {
            fleets.push(Fleet::new(&catalog).await);
        }
        let mut wanted = BTreeSet::new();
        for fleet in &fleets {
            for _ in 0..5 {
                wanted.insert(fleet.ask(RunKind::Verify).await);
            }
        }
        set(&catalog, "all", Scope::Fleet, 5).await;
        assert_eq!(storm(&catalog, &client, &fleets, 5).await, wanted);
    })
    .await;
}

#[tokio::test]
async fn a_group_is_bounded_by_the_labels_of_its_hosts_and_a_restore_by_nothing() {
    with_catalog(async |catalog| {
        let (one, two) = (Fleet::new(&catalog).await, Fleet::new(&catalog).await);
        one.relabel(BTreeMap::from([("disk".to_owned(), "slow".to_owned())])).await;
        set(&catalog, "slow-disks", Scope::Group("disk=slow".parse().unwrap()), 1).await;
        for fleet in [&one, &two] {
            fleet.ask(RunKind::Backup).await;
            fleet.ask(RunKind::Verify).await;
        }
        let restore = catalog.ask_run(&AskedRun { job: None, ..asked(&one, RunKind::Restore, None) }).await.unwrap();
        let claimed = catalog.claim_runs(&keys(&[one.clone(), two.clone()]), LEASE, 9).await.unwrap();
        assert_eq!(claimed.first().map(|claimed| claimed.run), Some(restore.id), "somebody waits for it");
        let on = |fleet: &Fleet| claimed.iter().filter(|claimed| claimed.host == fleet.host).count();
        assert_eq!((on(&one), on(&two)), (2, 2), "{claimed:?}");
        assert_eq!(catalog.claim_runs(&keys(&[one, two]), LEASE, 9).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_limit_of_each_target_counts_hosts_that_share_a_folder_and_is_one_of_each_host_to_an_older_coordinator() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let fleets = [Fleet::new(&catalog).await, Fleet::new(&catalog).await, Fleet::new(&catalog).await];
        let share = "UPDATE hosts SET archive_store = $2 WHERE host_id = $1";
        let store = uuid::Uuid::new_v4();
        for fleet in &fleets[..2] {
            client.execute(share, &[&fleet.host.uuid(), &store]).await.unwrap();
        }
        set(&catalog, "disks", Scope::EachTarget, 1).await;
        for fleet in &fleets {
            fleet.ask(RunKind::Verify).await;
        }
        let claimed = catalog.claim_runs(&keys(&fleets), LEASE, 9).await.unwrap();
        let hosts: Vec<HostId> = claimed.iter().map(|claimed| claimed.host).collect();
        assert_eq!(hosts, [fleets[0].host, fleets[2].host]);
        assert_eq!(catalog.claim_runs(&keys(&fleets), LEASE, 9).await.unwrap(), []);
        let row = client.query_one("SELECT scope, runs FROM limits WHERE name = 'disks'", &[]).await.unwrap();
        assert_eq!((row.get::<_, &str>("scope"), row.get::<_, i32>("runs")), ("host", 1));
        set(&catalog, "disks", Scope::EachHost, 1).await;
        assert_eq!(catalog.claim_runs(&keys(&fleets), LEASE, 9).await.unwrap().len(), 1, "the other host's turn");
    })
    .await;
}

#[tokio::test]
async fn the_queue_is_one_for_all_coordinators_and_goes_by_waiting_and_priority() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let (here, there) = (Fleet::new(&catalog).await, Fleet::new(&catalog).await);
        set(&catalog, "all", Scope::Fleet, 1).await;
        let (ours, theirs) = (here.ask(RunKind::Backup).await, there.ask(RunKind::Backup).await);
        let wait = "UPDATE runs SET run_after = now() - make_interval(mins => $2), priority = $3 WHERE run_id = $1";
        client.execute(wait, &[&ours.uuid(), &60, &50]).await.unwrap();
        client.execute(wait, &[&theirs.uuid(), &30, &57]).await.unwrap();
        assert_eq!(here.claim().await, None, "the other has waited less, but seven points are worth 35 minutes");
        client.execute(wait, &[&theirs.uuid(), &30, &55]).await.unwrap();
        assert_eq!(there.claim().await, None, "and five are worth 25");
        client.execute("UPDATE coordinators SET last_beat_at = now() - INTERVAL '1 minute'", &[]).await.unwrap();
        client.execute(wait, &[&theirs.uuid(), &30, &57]).await.unwrap();
        assert_eq!(
            here.claim().await.map(|(run, _)| run),
            Some(ours),
            "a coordinator that is gone keeps nobody waiting"
        );
        ended(&client, ours).await;
        assert_eq!(there.claim().await.map(|(run, _)| run), Some(theirs));
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_is_taken_away_holds_nobody_back() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let names =
            |limits: Vec<crate::catalog::LimitRecord>| limits.into_iter().map(|x| (x.name, x.bound.runs)).collect();
        let before: Vec<(String, u32)> = names(catalog.limits().await.unwrap());
        assert_eq!(before, [("each-host".to_owned(), 2)], "the default");
        for _ in 0..4 {
            fleet.ask(RunKind::Verify).await;
        }
        assert_eq!(catalog.claim_runs(&keys(std::slice::from_ref(&fleet)), LEASE, 9).await.unwrap().len(), 2);
        assert!(catalog.remove_limit("each-host").await.unwrap().is_some());
        assert!(catalog.remove_limit("each-host").await.unwrap().is_none());
        assert_eq!(catalog.claim_runs(&keys(std::slice::from_ref(&fleet)), LEASE, 9).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_wish_for_a_backup_is_one_run_however_many_utter_it() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let wishes: Vec<AskedRun> = (0..8).map(|_| asked(&fleet, RunKind::Backup, None)).collect();
        let answers = wishes.iter().map(|wish| catalog.ask_backup(wish, Some("nightly-1")));
        let answers: Vec<Asked> =
            futures_util::future::join_all(answers).await.into_iter().map(Result::unwrap).collect();
        let new: Vec<RunId> = answers
            .iter()
            .filter_map(|answer| if let Asked::New(run) = answer { Some(run.id) } else { None })
            .collect();
        assert_eq!(new.len(), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| matches!(answer, Asked::New(run) | Asked::Known(run) if run.id == new[0])));

        // Another wish is answered with the open run, and has it for good.
        let second = asked(&fleet, RunKind::Backup, None);
        let open = catalog.ask_backup(&second, Some("nightly-2")).await.unwrap();
        assert!(matches!(&open, Asked::Open(run) if run.id == new[0]), "{open:?}");
        let full = asked(&fleet, RunKind::Backup, Some(Level::Full));
        let other = catalog.ask_backup(&full, Some("full")).await.unwrap();
        assert!(
            matches!(&other, Asked::Other(run) if run.id == new[0]),
            "nobody has said that it is a full: {other:?}"
        );
        catalog.cancel_run(new[0]).await.unwrap();
        let again = catalog.ask_backup(&second, Some("nightly-2")).await.unwrap();
        assert!(matches!(&again, Asked::Known(run) if run.id == new[0]), "{again:?}");
        let third = catalog.ask_backup(&full, Some("full")).await.unwrap();
        assert!(
            matches!(&third, Asked::New(run) if run.id == full.id),
            "a refused wish leaves its key free: {third:?}"
        );
        let twice = catalog.ask_run(&second).await;
        assert!(matches!(twice, Err(CatalogError::Taken { .. })), "the index holds as well: {twice:?}");
    })
    .await;
}

/// Five thousand hosts with two due runs each.
const MANY: &str = "
    INSERT INTO policies (policy_id, name, version) VALUES (gen_random_uuid(), 'many', 1);
    INSERT INTO hosts (host_id, name, session_number)
        SELECT gen_random_uuid(), 'many-' || n, 1 FROM generate_series(1, 5000) n;
    INSERT INTO jobs (job_id, host, policy)
        SELECT gen_random_uuid(), h.host, p.policy FROM hosts h, policies p WHERE h.name LIKE 'many-%' AND p.name = 'many';
    INSERT INTO runs (run_id, kind, host, job, due_at, state, max_attempts, run_after, priority, asked_by, spec)
        SELECT gen_random_uuid(), 'verify', j.host, j.job, now() - make_interval(secs => n), 'queued', 3, now(), n, 'schedule', '{}'
        FROM jobs j JOIN policies p ON p.policy = j.policy AND p.name = 'many', generate_series(1, 2) n;
    ANALYZE hosts; ANALYZE runs; ANALYZE jobs";

/// Runs that one claim takes at most.
const BATCH: usize = 256;

#[tokio::test]
async fn ten_thousand_due_runs_are_leased_in_full_batches_and_each_once() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        client.batch_execute(MANY).await.unwrap();
        set(&catalog, "all", Scope::Fleet, 10_000).await;
        let rows = client.query("SELECT host_id FROM hosts WHERE name LIKE 'many-%'", &[]).await.unwrap();
        let sessions: Vec<(HostId, SessionNumber)> =
            rows.iter().map(|row| (HostId::from_uuid(row.get(0)), SessionNumber(1))).collect();
        let began = std::time::Instant::now();
        let (mut batches, mut leased) = (0, BTreeSet::new());
        loop {
            let claimed = catalog.claim_runs(&sessions, LEASE, BATCH).await.unwrap();
            if claimed.is_empty() {
                break;
            }
            batches += 1;
            leased.extend(claimed.iter().map(|run| run.run));
        }
        assert_eq!((leased.len(), batches), (10_000, 10_000_usize.div_ceil(BATCH)));
        // How long it takes is for `cargo fleet-sim` to judge, on a quiet machine.
        eprintln!("10,000 runs of 5,000 hosts leased in {:?}", began.elapsed());
    })
    .await;
}
