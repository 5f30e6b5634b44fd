//! F1: an agent is killed at every named point of a backup, and at random.

use std::time::Duration;

use fleet_tests::faults::reached::points_of;
use fleet_tests::faults::seed;
use fleet_tests::faults::world::{Setup, World};
use fleet_tests::random::Random;

use super::await_death;

/// Hosts whose agents die side by side.
const HOSTS: usize = 5;
/// The latest random kill after the run was asked for, in milliseconds.
const LATEST_KILL_MS: usize = 2500;
/// Random kills of the long form.
const MANY: usize = 500;
/// Rounds of the long form over every point, each with another tree.
const ROUNDS: usize = 20;

/// A fleet whose hosts have a full each, so that the next run is a differential and passes every point.
fn protected_fleet(random: &mut Random) -> World {
    let mut world = World::of_processes(&Setup::of(HOSTS)).unwrap();
    world.protect("srv", "0 2 1 1 *").unwrap();
    let hosts: Vec<String> = world.agents.keys().cloned().collect();
    for host in &hosts {
        world.change(host, random).unwrap();
    }
    let runs: Vec<String> =
        hosts.iter().map(|host| world.begin_backup(&format!("{host}/srv"), None).unwrap()).collect();
    for run in runs {
        assert_eq!(world.await_end(&run).unwrap()["state"], "succeeded");
    }
    world
}

/// Kills one agent at each of these points, all in the same backup, and lets each come back.
fn kill_at(world: &mut World, points: &[&'static str], random: &mut Random) {
    let hosts: Vec<String> = world.agents.keys().cloned().collect();
    let victims: Vec<(String, &str)> = hosts.into_iter().zip(points.iter().copied()).collect();
    for (host, point) in &victims {
        world.change(host, random).unwrap();
        world.agent(host).unwrap().stop().unwrap();
        world.start_agent_to_die(host, &format!("{point}=kill")).unwrap();
    }
    let runs: Vec<String> =
        victims.iter().map(|(host, _)| world.begin_backup(&format!("{host}/srv"), None).unwrap()).collect();
    for (host, _) in &victims {
        let agent = world.agent(host).unwrap();
        await_death(agent.as_mut());
        agent.start().unwrap();
    }
    for (run, (_, point)) in runs.iter().zip(&victims) {
        let ended = world.await_end(run).unwrap();
        assert_eq!(ended["state"], "succeeded", "killed at {point}: {ended}");
        assert!(ended["attempt"].as_u64().unwrap() <= 2, "killed once, at {point}: {ended}");
    }
}

fn kill_at_every_point(rounds: usize, random: &mut Random) {
    let mut world = protected_fleet(random);
    let points = points_of("agent");
    for _ in 0..rounds {
        for some in points.chunks(HOSTS) {
            kill_at(&mut world, some, random);
        }
    }
    world.check().unwrap();
    for point in points {
        assert_eq!(world.reached.kills(point), rounds, "{point} was never reached: nothing was shown there");
    }
}

fn kill_at_random(kills: usize, random: &mut Random) {
    let mut world = protected_fleet(random);
    let hosts: Vec<String> = world.agents.keys().cloned().collect();
    for _ in 0..kills.div_ceil(HOSTS) {
        let mut runs = Vec::new();
        for host in &hosts {
            world.change(host, random).unwrap();
            runs.push(world.begin_backup(&format!("{host}/srv"), None).unwrap());
        }
        for host in &hosts {
            let wait = random.below(LATEST_KILL_MS / HOSTS);
            // The moment is the fault.
            std::thread::sleep(Duration::from_millis(wait as u64));
            let agent = world.agent(host).unwrap();
            agent.kill().unwrap();
            agent.start().unwrap();
        }
        for run in runs {
            let ended = world.await_end(&run).unwrap();
            assert_eq!(ended["state"], "succeeded", "{ended}");
        }
    }
    world.check().unwrap();
}

#[test]
fn an_agent_killed_at_any_point_of_a_backup_finishes_it_after_its_return() {
    kill_at_every_point(1, &mut seed::random("an_agent_killed_at_any_point"));
}

#[test]
fn agents_killed_at_random_lose_nothing() {
    kill_at_random(HOSTS, &mut seed::random("agents_killed_at_random_lose_nothing"));
}

#[test]
#[ignore = "long: F1, every point twenty times, then five hundred random kills"]
fn long_agents_killed_at_every_point_and_at_random() {
    let mut random = seed::random("long_agents_killed");
    kill_at_every_point(ROUNDS, &mut random);
    kill_at_random(MANY, &mut random);
}
