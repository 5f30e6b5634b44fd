//! F6 and F7: partitions, half-open and one-way connections, and what is said twice.

use std::time::{Duration, Instant};

use coord_shared::wire::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use fleet_tests::faults::proxy::{Traffic, Way};
use fleet_tests::faults::seed;
use fleet_tests::faults::world::{Setup, World};
use fleet_tests::faults::world_of_processes::coordinator_name;
use fleet_tests::harness::wait::wait_for;
use fleet_tests::random::Random;

/// Longer than the lease of these fleets, in seconds.
const PARTITION: Duration = Duration::from_secs(10);
/// The long partition.
const LONG_PARTITION: Duration = Duration::from_secs(300);
/// A dead connection is noticed by the keepalive within this, and the next one made.
const NOTICED: Duration = KEEPALIVE_INTERVAL.saturating_add(KEEPALIVE_TIMEOUT).saturating_add(Duration::from_secs(5));
/// An agent that is cut off while it works: it has packed, and takes its time before it goes on.
const BUSY: &str = "agent.pack.done=pause:3000";

fn fleet(hosts: usize, random: &mut Random) -> World {
    let mut world = World::of_processes(&Setup::of(hosts)).unwrap();
    world.protect("srv", "0 2 1 1 *").unwrap();
    let hosts: Vec<String> = world.agents.keys().cloned().collect();
    for host in &hosts {
        world.change(host, random).unwrap();
    }
    world
}

/// A host that is in the midst of a backup, and its run.
fn busy_host(world: &mut World, host: &str) -> String {
    world.agent(host).unwrap().stop().unwrap();
    world.start_agent_to_die(host, BUSY).unwrap();
    world.await_connected(host).unwrap();
    let run = world.begin_backup(&format!("{host}/srv"), None).unwrap();
    let reached = world.reached.clone();
    wait_for("the agent to be busy", Duration::from_secs(30), || {
        if reached.acted("agent.pack.done pause") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .unwrap();
    run
}

fn partition(time: Duration, random: &mut Random) {
    let mut world = fleet(1, random);
    let run = busy_host(&mut world, "host-1");
    world.agent("host-1").unwrap().cut().unwrap();
    // The length of the partition is the fault.
    std::thread::sleep(time);
    world.agent("host-1").unwrap().mend().unwrap();
    let healed = Instant::now();
    let ended = world.await_end(&run).unwrap();
    assert_eq!(ended["state"], "succeeded", "{ended}");
    println!(
        "network: {} s apart, the run ended {} ms later at attempt {}",
        time.as_secs(),
        healed.elapsed().as_millis(),
        ended["attempt"]
    );
    world.check().unwrap();
}

#[test]
fn a_partition_longer_than_the_lease_ends_in_one_backup() {
    partition(PARTITION, &mut seed::random("a_partition_longer_than_the_lease"));
}

#[test]
#[ignore = "long: F6, five minutes apart"]
fn long_partition_of_five_minutes() {
    partition(LONG_PARTITION, &mut seed::random("long_partition_of_five_minutes"));
}

#[test]
fn half_open_and_one_way_connections_are_noticed_and_replaced() {
    let mut random = seed::random("half_open_and_one_way");
    let world = fleet(3, &mut random);
    let coordinator = coordinator_name(1);
    let sessions = |world: &World| -> Vec<i64> {
        let catalog = fleet_tests::checker::Catalog::connect(world.url()).unwrap();
        let rows = catalog.rows("SELECT session_number FROM hosts ORDER BY name").unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let before = sessions(&world);
    let begun = Instant::now();
    world.way("host-1", &coordinator).unwrap().leave_half_open();
    world.way("host-2", &coordinator).unwrap().set(Traffic::OneWayHeld(Way::Up));
    world.way("host-3", &coordinator).unwrap().set(Traffic::OneWayHeld(Way::Down));
    // The first host has to see by itself that nobody answers, and dials again; of the others, either end may see it.
    let mut noticed = [None; 3];
    wait_for("every dead connection to be noticed", NOTICED, || {
        let shown = world.ask(&["host", "list"])?;
        let now = sessions(&world);
        for (place, host) in ["host-1", "host-2", "host-3"].iter().enumerate() {
            let of_host =
                shown["hosts"].as_array().and_then(|hosts| hosts.iter().find(|shown| shown["name"] == **host));
            let away = of_host.is_some_and(|shown| shown["connected"] == false);
            if (away && place > 0) || now[place] > before[place] {
                noticed[place].get_or_insert_with(|| begun.elapsed());
            }
        }
        if noticed.iter().all(Option::is_some) { Ok(()) } else { Err(format!("{noticed:?} of {shown}")) }
    })
    .unwrap();
    println!("network: half open and one way, noticed after {noticed:?}");
    for host in ["host-2", "host-3"] {
        world.way(host, &coordinator).unwrap().set(Traffic::Flows);
    }
    for host in ["host-1", "host-2", "host-3"] {
        world.await_connected(host).unwrap();
        let run = world.begin_backup(&format!("{host}/srv"), None).unwrap();
        assert_eq!(world.await_end(&run).unwrap()["state"], "succeeded");
    }
    world.check().unwrap();
}

#[test]
fn a_slow_network_and_a_recorded_conversation_said_again_change_nothing() {
    let mut random = seed::random("a_slow_network_and_a_recorded_conversation");
    let mut world = fleet(2, &mut random);
    let coordinator = coordinator_name(1);
    world.way("host-1", &coordinator).unwrap().set(Traffic::Delayed(Duration::from_millis(100)));
    // The next connection is spoken twice to the coordinator; the twin is no handshake of anybody's.
    world.way("host-2", &coordinator).unwrap().set(Traffic::Doubled);
    world.agent("host-2").unwrap().kill().unwrap();
    world.agent("host-2").unwrap().start().unwrap();
    world.await_connected("host-2").unwrap();
    for host in ["host-1", "host-2"] {
        let run = world.begin_backup(&format!("{host}/srv"), None).unwrap();
        let ended = world.await_end(&run).unwrap();
        assert_eq!((&ended["state"], &ended["attempt"]), (&"succeeded".into(), &1.into()), "{ended}");
    }
    world.check().unwrap();
}
