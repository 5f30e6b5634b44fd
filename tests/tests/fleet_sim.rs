//! The simulated fleet in its short form: that everybody is served, and that each run is leased once and none is lost, while connections
//! break and the coordinator is killed. How fast that goes is for `cargo fleet-sim`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::time::Duration;

use coord_shared::api::StartBackupRequest;
use fleet_tests::sim::crowd::Crowd;
use fleet_tests::sim::ground::Ground;
use fleet_tests::sim::work::Temper;

const AGENTS: usize = 200;
const SEED: u64 = 7;
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_hosts_lose_no_run_while_connections_break_and_the_coordinator_is_killed() {
    let ground = Ground::start().await.unwrap();
    let crowd = Crowd::gather(&ground, AGENTS, SEED).await.unwrap();
    crowd.set_temper(Temper { takes: Duration::from_secs(1), failing: 0 });
    let never = "name = \"crowd\"\nhosts = \"crowd=yes\"\nsources = [\"/srv\"]\nschedule = { cron = \"0 0 1 1 *\", zone = \"UTC\" }\n";
    ground.apply_policy(never).await.unwrap();

    let mut operator = ground.operator().await.unwrap();
    let mut runs = HashSet::new();
    for number in 0..AGENTS {
        let host = format!("sim-{number:05}");
        let request = StartBackupRequest { host, policy: "crowd".to_owned(), ..StartBackupRequest::default() };
        runs.insert(operator.start_backup(request).await.unwrap().into_inner().id);
        if number == AGENTS / 2 {
            crowd.cut(AGENTS / 2);
        }
    }
    assert_eq!(runs.len(), AGENTS);
    ground.restart_coordinator().await.unwrap();
    crowd.moves_to(ground.main().unwrap());
    crowd.wait_until_connected(PATIENCE).await.unwrap();

    ground
        .wait_for_count("SELECT count(*) FROM runs WHERE state = 'succeeded'", AGENTS as u64, PATIENCE)
        .await
        .unwrap();
    assert_eq!(ground.count("SELECT count(*) FROM runs").await.unwrap(), AGENTS as u64);
    assert_eq!(ground.count("SELECT count(*) FROM backups").await.unwrap(), AGENTS as u64, "each run committed once");
    let twice = "SELECT count(*) FROM attempts a JOIN attempts b USING (run_id)
        WHERE a.outcome = 'succeeded' AND b.outcome = 'succeeded' AND a.attempt < b.attempt";
    assert_eq!(ground.count(twice).await.unwrap(), 0);
    let orders = crowd.orders();
    let ordered: HashSet<String> = orders.keys().map(|(run, _)| run.clone()).collect();
    assert_eq!(ordered, runs, "every run was ordered at its host");
    assert!(orders.values().all(|times| times.len() == 1), "no attempt was ordered twice");
    crowd.leave().await;
    ground.stop().await.unwrap();
}
