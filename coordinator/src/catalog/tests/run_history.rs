//! Runs that ended long ago.

use std::time::Duration;

use coord_shared::ids::RunId;
use coord_shared::level::Level;
use coord_shared::run::{RunKind, RunState};
use tokio_postgres::Client;

use super::fixture::{Fleet, sealed};
use crate::catalog::testing::with_config;
use crate::catalog::{Catalog, DecisionStage, Forgotten, NewDecision};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// As if a run had been made, and had ended, two years ago.
async fn age(client: &Client, run: RunId) {
    let sql = "UPDATE runs SET due_at = due_at - INTERVAL '2 years', created_at = created_at - INTERVAL '2 years',
               ended_at = ended_at - INTERVAL '2 years' WHERE run_id = $1";
    assert_eq!(client.execute(sql, &[&run.uuid()]).await.unwrap(), 1);
}

/// A backup run that was asked for and cancelled.
async fn cancelled(fleet: &Fleet) -> RunId {
    let run = fleet.ask(RunKind::Backup).await;
    fleet.catalog.cancel_run(run).await.unwrap();
    run
}

/// A backup run that made a restore point, with its decision.
async fn backed_up(fleet: &Fleet, ordinal: u64) -> RunId {
    let run = fleet.ask(RunKind::Backup).await;
    let (claimed, attempt) = fleet.claim().await.unwrap();
    assert_eq!(claimed, run);
    let decision = NewDecision {
        run,
        attempt,
        stage: DecisionStage::BeforeScan,
        level: Level::Full,
        rule: "no_full".to_owned(),
        reason: "there is no full".to_owned(),
        estimate_bytes: None,
        exact_bytes: None,
        inputs: serde_json::json!({}),
        options: serde_json::json!({}),
    };
    fleet.catalog.record_decision(&decision).await.unwrap();
    let commit = fleet.commit_of(run, attempt, ordinal, sealed(Level::Full, None, 1));
    fleet.catalog.commit_backup(&commit).await.unwrap();
    run
}

async fn with_fleet(story: impl AsyncFnOnce(&Client, Fleet)) {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let fleet = Fleet::new(&catalog).await;
        story(&client, fleet).await;
    })
    .await;
}

/// Runs of which nothing is left, and runs that stay without their steps.
async fn forget(fleet: &Fleet) -> (u64, u64) {
    let Forgotten { runs, steps, .. } = fleet.catalog.forget_runs(YEAR).await.unwrap();
    (runs, steps)
}

/// As if what stayed had been looked at two months ago.
async fn two_months_pass(client: &Client) {
    let sql = "UPDATE runs SET steps_forgotten_at = steps_forgotten_at - INTERVAL '2 months'";
    client.execute(sql, &[]).await.unwrap();
}

/// A backup run that was missed.
async fn missed(fleet: &Fleet, client: &Client) -> RunId {
    let run = cancelled(fleet).await;
    client.execute("UPDATE runs SET state = 'missed' WHERE run_id = $1", &[&run.uuid()]).await.unwrap();
    run
}

async fn is_there(fleet: &Fleet, run: RunId) -> bool {
    fleet.catalog.run(run).await.unwrap().is_some()
}

#[tokio::test]
async fn a_run_of_long_ago_goes_with_all_of_its_steps_and_a_young_one_stays() {
    with_fleet(async |client, fleet| {
        let (old, young) = (cancelled(&fleet).await, cancelled(&fleet).await);
        age(client, old).await;
        assert_eq!(forget(&fleet).await, (1, 0));
        assert!(!is_there(&fleet, old).await && is_there(&fleet, young).await);
        assert_eq!(fleet.catalog.run_events(old).await.unwrap().len(), 0);
        assert!(!fleet.catalog.run_events(young).await.unwrap().is_empty());
        assert_eq!(forget(&fleet).await, (0, 0), "nothing is left to forget");
    })
    .await;
}

#[tokio::test]
async fn a_run_that_made_a_restore_point_keeps_its_decision_and_loses_its_steps() {
    with_fleet(async |client, fleet| {
        let run = backed_up(&fleet, 1).await;
        cancelled(&fleet).await;
        age(client, run).await;
        assert_eq!(forget(&fleet).await, (0, 1));
        let record = fleet.catalog.run(run).await.unwrap().unwrap();
        assert_eq!(record.machine.state, RunState::Succeeded);
        assert_eq!(fleet.catalog.decisions_of_run(run).await.unwrap().len(), 1);
        assert_eq!(fleet.catalog.run_events(run).await.unwrap().len(), 0);
        assert_eq!(forget(&fleet).await, (0, 0), "it is not looked at again");
    })
    .await;
}

#[tokio::test]
async fn the_newest_run_of_each_end_stays_however_old_it_is() {
    with_fleet(async |client, fleet| {
        let held_back = missed(&fleet, client).await;
        let (first, last) = (cancelled(&fleet).await, cancelled(&fleet).await);
        for run in [held_back, first, last] {
            age(client, run).await;
        }
        let open = fleet.ask(RunKind::Backup).await;
        assert_eq!(forget(&fleet).await, (1, 2), "an open run is no newer end");
        assert!(!is_there(&fleet, first).await);
        for run in [held_back, last, open] {
            assert!(is_there(&fleet, run).await);
        }
    })
    .await;
}

#[tokio::test]
async fn a_run_that_stayed_as_the_newest_goes_when_there_is_a_newer_one_and_a_restore_point_never() {
    with_fleet(async |client, fleet| {
        let point = backed_up(&fleet, 1).await;
        let newest = cancelled(&fleet).await;
        age(client, point).await;
        age(client, newest).await;
        assert_eq!(forget(&fleet).await, (0, 2));
        two_months_pass(client).await;
        assert_eq!(forget(&fleet).await, (0, 0), "it is the newest still");
        cancelled(&fleet).await;
        assert_eq!(forget(&fleet).await, (0, 0), "and is looked at once in a month");
        two_months_pass(client).await;
        assert_eq!(forget(&fleet).await, (1, 0));
        assert!(is_there(&fleet, point).await && !is_there(&fleet, newest).await);
        let century = fleet.catalog.forget_runs(100 * YEAR).await.unwrap();
        assert_eq!(century.looked_at, 0);
    })
    .await;
}

#[tokio::test]
async fn an_open_run_is_never_forgotten() {
    with_fleet(async |client, fleet| {
        let open = fleet.ask(RunKind::Backup).await;
        age(client, open).await;
        assert_eq!(forget(&fleet).await, (0, 0));
        assert_eq!(fleet.catalog.run(open).await.unwrap().unwrap().machine.state, RunState::Queued);
        assert!(!fleet.catalog.run_events(open).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_run_that_somebody_works_on_is_passed_over() {
    with_fleet(async |client, fleet| {
        let (old, other) = (cancelled(&fleet).await, cancelled(&fleet).await);
        cancelled(&fleet).await;
        age(client, old).await;
        age(client, other).await;
        client.batch_execute("BEGIN").await.unwrap();
        client.execute("SELECT FROM runs WHERE run_id = $1 FOR UPDATE", &[&old.uuid()]).await.unwrap();
        assert_eq!(forget(&fleet).await, (1, 0));
        client.batch_execute("COMMIT").await.unwrap();
        assert!(is_there(&fleet, old).await);
        assert_eq!(forget(&fleet).await, (1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_key_of_a_run_of_long_ago_asks_for_a_new_run_where_the_old_one_is_gone() {
    with_fleet(async |client, fleet| {
        let (old, kept) = (cancelled(&fleet).await, backed_up(&fleet, 1).await);
        cancelled(&fleet).await;
        let insert = "INSERT INTO run_keys (job, key, run_id) SELECT job, $2, run_id FROM runs WHERE run_id = $1";
        for (run, key) in [(old, "nightly"), (kept, "weekly")] {
            client.execute(insert, &[&run.uuid(), &key]).await.unwrap();
            age(client, run).await;
        }
        assert_eq!(forget(&fleet).await, (1, 1));
        let keys = client.query("SELECT key FROM run_keys", &[]).await.unwrap();
        assert_eq!(keys.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["weekly"]);
    })
    .await;
}
