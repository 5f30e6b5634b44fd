//! One story over processes and over containers: every host has its bad day, and nothing is lost.

use std::time::Duration;

use fleet_tests::faults::container_host::engine_answers;
use fleet_tests::faults::seed;
use fleet_tests::faults::world::{Setup, World};
use fleet_tests::random::Random;

/// Longer than the lease of these fleets.
const AWAY: Duration = Duration::from_secs(10);

/// Hosts of the story.
const HOSTS: usize = 3;

fn back_up_all(world: &mut World, random: &mut Random) -> Vec<String> {
    let hosts: Vec<String> = world.agents.keys().cloned().collect();
    for host in &hosts {
        world.change(host, random).unwrap();
    }
    hosts.iter().map(|host| world.begin_backup(&format!("{host}/srv"), None).unwrap()).collect()
}

fn await_all(world: &World, runs: &[String]) {
    for run in runs {
        let ended = world.await_end(run).unwrap();
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
}

/// Backup, pause, cut, kill, restore, check.
fn a_bad_day(world: &mut World, random: &mut Random) {
    world.protect("srv", "0 2 1 1 *").unwrap();
    let runs = back_up_all(world, random);
    await_all(world, &runs);

    let runs = back_up_all(world, random);
    world.agent("host-1").unwrap().pause().unwrap();
    world.agent("host-2").unwrap().cut().unwrap();
    world.agent("host-3").unwrap().kill().unwrap();
    // How long they are away is the fault.
    std::thread::sleep(AWAY);
    world.agent("host-1").unwrap().resume().unwrap();
    world.agent("host-2").unwrap().mend().unwrap();
    world.agent("host-3").unwrap().start().unwrap();
    await_all(world, &runs);

    let runs = back_up_all(world, random);
    world.coordinators[0].kill().unwrap();
    world.coordinators[0].start().unwrap();
    await_all(world, &runs);

    for host in ["host-1", "host-2", "host-3"] {
        world.await_connected(host).unwrap();
        assert_eq!(world.restored_newest_differs(host).unwrap(), Vec::<String>::new(), "{host}");
    }
    let checked = world.check().unwrap();
    assert_eq!((checked.points, checked.trees), (9, 9), "{checked}");
}

#[test]
fn processes_that_are_paused_cut_off_and_killed_lose_nothing() {
    let mut random = seed::random("processes_that_are_paused_cut_off_and_killed");
    a_bad_day(&mut World::of_processes(&Setup::of(HOSTS)).unwrap(), &mut random);
}

#[test]
fn containers_that_are_paused_cut_off_and_killed_lose_nothing() {
    let mut random = seed::random("containers_that_are_paused_cut_off_and_killed");
    // Files that a container's root makes can be read here by root only.
    let mut world = if engine_answers() && rustix::process::geteuid().is_root() {
        World::of_containers(&Setup::of(HOSTS)).unwrap()
    } else {
        eprintln!("containers: no engine answers, or this is not root: the story runs over processes");
        World::of_processes(&Setup::of(HOSTS)).unwrap()
    };
    a_bad_day(&mut world, &mut random);
}
