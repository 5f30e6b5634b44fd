//! F2: a coordinator is killed in every named state, and at random; its agents keep working.

use std::time::Duration;

use coord_shared::failpoint::PLAN_VARIABLE;
use fleet_tests::faults::reached::points_of;
use fleet_tests::faults::seed;
use fleet_tests::faults::world::{DEADLINE, Setup, World};
use fleet_tests::harness::wait::wait_for;
use fleet_tests::random::Random;

use super::await_death;

/// Hosts that back up meanwhile.
const HOSTS: usize = 2;
/// Points that need a schedule to be reached: the story of several coordinators passes them.
const SCHEDULED: [&str; 2] = ["coordinator.due.uncommitted", "coordinator.due.committed"];
/// The point that needs an agent that does not come back in time.
const REAPED: &str = "coordinator.reap.done";
/// The latest random kill after runs were asked for, in milliseconds.
const LATEST_KILL_MS: usize = 2000;
/// Random kills of the long form.
const MANY: usize = 500;

fn fleet(random: &mut Random) -> World {
    let mut world = World::of_processes(&Setup::of(HOSTS)).unwrap();
    world.protect("srv", "0 2 1 1 *").unwrap();
    let hosts = change_all(&mut world, random);
    for host in hosts {
        let run = world.begin_backup(&format!("{host}/srv"), None).unwrap();
        assert_eq!(world.await_end(&run).unwrap()["state"], "succeeded");
    }
    world
}

fn change_all(world: &mut World, random: &mut Random) -> Vec<String> {
    let hosts: Vec<String> = world.agents.keys().cloned().collect();
    for host in &hosts {
        world.change(host, random).unwrap();
    }
    hosts
}

/// Starts everything anew, the coordinator to be killed at `point`. The agents are new as well: one whose sessions keep ending soon
/// after they began waits longer and longer before it dials again.
fn restart_to_die(world: &mut World, point: &str) {
    for agent in world.agents.values_mut() {
        agent.stop().unwrap();
    }
    let coordinator = &mut world.coordinators[0];
    coordinator.stop().unwrap();
    coordinator.set_variable(PLAN_VARIABLE, Some(&format!("{point}=kill")));
    coordinator.start().unwrap();
    coordinator.set_variable(PLAN_VARIABLE, None);
    for agent in world.agents.values_mut() {
        agent.start().unwrap();
    }
}

/// Lets the coordinator die at `point` while every host backs up, starts it again when it is dead, and waits for the ends. The
/// same request is repeated until it is answered: it may be the coordinator's last.
fn kill_at(world: &mut World, point: &str, random: &mut Random) {
    let hosts = change_all(world, random);
    restart_to_die(world, point);
    let mut wanted: Vec<(String, String, Option<String>)> =
        hosts.iter().map(|host| (format!("{host}/srv"), uuid::Uuid::new_v4().to_string(), None)).collect();
    let mut died = false;
    wait_for(&format!("death at {point}, and all backups after it"), DEADLINE, || {
        if !world.coordinators[0].is_running() {
            died = true;
            world.coordinators[0].start().unwrap();
        }
        for (job, key, run) in wanted.iter_mut().filter(|(_, _, run)| run.is_none()) {
            *run = Some(world.try_begin_backup(job, key, None)?);
        }
        for run in wanted.iter().filter_map(|(_, _, run)| run.as_ref()) {
            let shown = world.ask(&["run", "show", run])?;
            assert_ne!(shown["state"], "failed", "the coordinator was killed at {point}: {shown}");
            assert!(shown["attempt"].as_u64().unwrap() <= 2, "one fault, at {point}: {shown}");
            if shown["state"] != "succeeded" {
                return Err(shown.to_string());
            }
        }
        if died { Ok(()) } else { Err("it lives".to_owned()) }
    })
    .unwrap();
}

/// An agent is away for longer than its lease, and the coordinator dies as it takes the run back.
fn kill_while_reaping(world: &mut World, random: &mut Random) {
    change_all(world, random);
    restart_to_die(world, REAPED);
    world.await_connected("host-1").unwrap();
    world.agent("host-1").unwrap().stop().unwrap();
    world.start_agent_to_die("host-1", "agent.order.accepted=kill").unwrap();
    let run = world.begin_backup("host-1/srv", None).unwrap();
    await_death(world.agent("host-1").unwrap().as_mut());
    await_death(world.coordinators[0].as_mut());
    world.coordinators[0].start().unwrap();
    world.agent("host-1").unwrap().start().unwrap();
    let ended = world.await_end(&run).unwrap();
    assert_eq!((&ended["state"], &ended["attempt"]), (&"succeeded".into(), &2.into()), "{ended}");
}

#[test]
fn a_coordinator_killed_in_any_state_loses_no_run_and_repeats_none() {
    let random = &mut seed::random("a_coordinator_killed_in_any_state");
    let mut world = fleet(random);
    let points = points_of("coordinator");
    for point in points.iter().filter(|point| !SCHEDULED.contains(point)) {
        if *point == REAPED {
            kill_while_reaping(&mut world, random);
        } else {
            kill_at(&mut world, point, random);
        }
        assert_eq!(world.reached.kills(point), 1, "{point} was never reached: nothing was shown there");
    }
    world.check().unwrap();
}

fn kill_at_random(kills: usize, random: &mut Random) {
    let mut world = fleet(random);
    for _ in 0..kills {
        let hosts = change_all(&mut world, random);
        let runs: Vec<String> =
            hosts.iter().map(|host| world.begin_backup(&format!("{host}/srv"), None).unwrap()).collect();
        // The moment is the fault.
        std::thread::sleep(Duration::from_millis(random.below(LATEST_KILL_MS) as u64));
        world.coordinators[0].kill().unwrap();
        world.coordinators[0].start().unwrap();
        for run in runs {
            let ended = world.await_end(&run).unwrap();
            assert_eq!(ended["state"], "succeeded", "{ended}");
        }
    }
    world.check().unwrap();
}

#[test]
#[ignore = "long: F2, five hundred random kills"]
fn long_coordinator_killed_at_random() {
    kill_at_random(MANY, &mut seed::random("long_coordinator_killed_at_random"));
}
