//! F8: an agent is held still beyond its lease and woken, with and without another attempt claimed meanwhile.

use std::time::Duration;

use fleet_tests::checker::Catalog;
use fleet_tests::faults::seed;
use fleet_tests::faults::world::{Setup, World};
use fleet_tests::harness::wait::wait_for;
use fleet_tests::random::Random;

/// Held at this point: the archive is good and nobody knows.
const POINT: &str = "agent.verified";
/// How long the agent itself stays there; it is held still within that time.
const STAY_MS: u64 = 3000;
/// Repetitions of the long form.
const MANY: usize = 100;

/// Pauses the agent of `host` at the end of a backup, until its lease has lapsed and was taken back; gives the run.
fn pause_beyond_the_lease(world: &mut World, host: &str, is_claimed_again: bool) -> String {
    let acted = world.reached.actions(&format!("{POINT} pause"));
    world.agent(host).unwrap().stop().unwrap();
    world.start_agent_to_die(host, &format!("{POINT}=pause:{STAY_MS}")).unwrap();
    world.await_connected(host).unwrap();
    let run = world.begin_backup(&format!("{host}/srv"), None).unwrap();
    let reached = world.reached.clone();
    wait_for("the archive to be verified", Duration::from_secs(30), || {
        if reached.actions(&format!("{POINT} pause")) > acted { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .unwrap();
    if !is_claimed_again {
        // Nothing begins on a paused host.
        world.coordctl(&["host", "pause", host, "--reason", "a story"]).unwrap().success().unwrap();
    }
    world.agent(host).unwrap().pause().unwrap();
    let catalog = Catalog::connect(world.url()).unwrap();
    let question = format!("SELECT state || ' ' || attempt FROM runs WHERE run_id::text = '{run}'");
    let is = |wanted: &str| {
        let found = catalog.texts(&question)?;
        if found.iter().any(|found| found == wanted) { Ok(()) } else { Err(format!("{found:?}")) }
    };
    wait_for("the lease to lapse", Duration::from_secs(60), || is("queued 1")).unwrap();
    if is_claimed_again {
        // A host that is silent is given nothing. A heartbeat that was on its way all the time arrives now.
        let heard = format!("UPDATE hosts SET last_seen_at = now() WHERE name = '{host}' RETURNING name");
        assert_eq!(catalog.texts(&heard).unwrap(), [host]);
        wait_for("another attempt to be claimed", Duration::from_secs(60), || is("leased 2")).unwrap();
    }
    run
}

fn wake(world: &mut World, host: &str, run: &str, attempt: u32) {
    world.agent(host).unwrap().resume().unwrap();
    let ended = world.await_end(run).unwrap();
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["attempt"], attempt, "{ended}");
}

fn fleet(random: &mut Random) -> World {
    let mut world = World::of_processes(&Setup::of(2)).unwrap();
    world.protect("srv", "0 2 1 1 *").unwrap();
    for host in ["host-1", "host-2"] {
        world.change(host, random).unwrap();
    }
    world
}

fn both_ways(times: usize, random: &mut Random) {
    let mut world = fleet(random);
    for _ in 0..times {
        for host in ["host-1", "host-2"] {
            world.change(host, random).unwrap();
        }
        let fenced = pause_beyond_the_lease(&mut world, "host-1", true);
        wake(&mut world, "host-1", &fenced, 2);
        let kept = pause_beyond_the_lease(&mut world, "host-2", false);
        wake(&mut world, "host-2", &kept, 1);
        world.coordctl(&["host", "resume", "host-2"]).unwrap().success().unwrap();
    }
    let checked = world.check().unwrap();
    println!("paused: {times} late commits refused, {times} taken, {checked}");
}

#[test]
fn an_agent_woken_after_its_lease_is_refused_where_another_attempt_was_claimed_and_counts_where_none_was() {
    both_ways(1, &mut seed::random("an_agent_woken_after_its_lease"));
}

#[test]
#[ignore = "long: F8, a hundred late commits of each kind"]
fn long_agents_paused_two_hundred_times() {
    both_ways(MANY, &mut seed::random("long_agents_paused_two_hundred_times"));
}
