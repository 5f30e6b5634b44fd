//! F4 and F5: the database is killed and started again, or its standby takes over, and a connection ends between COMMIT and its answer.

use std::time::{Duration, Instant};

use fleet_tests::faults::proxy::Traffic;
use fleet_tests::faults::seed;
use fleet_tests::faults::world::{Setup, World};
use fleet_tests::faults::world_of_processes::{DATABASE, coordinator_name};
use fleet_tests::harness::wait::wait_for;
use fleet_tests::random::Random;

/// After the database is up again, a coordinator answers within this.
const RESUMES: Duration = Duration::from_secs(10);

fn fleet(hosts: usize, random: &mut Random) -> World {
    let mut world = World::of_processes(&Setup::of(hosts)).unwrap();
    world.protect("srv", "0 2 1 1 *").unwrap();
    change_all(&mut world, random);
    world
}

fn change_all(world: &mut World, random: &mut Random) -> Vec<String> {
    let hosts: Vec<String> = world.agents.keys().cloned().collect();
    for host in &hosts {
        world.change(host, random).unwrap();
    }
    hosts
}

fn begin_all(world: &World, hosts: &[String]) -> Vec<String> {
    hosts.iter().map(|host| world.begin_backup(&format!("{host}/srv"), None).unwrap()).collect()
}

fn await_all(world: &World, runs: &[String]) {
    for run in runs {
        let ended = world.await_end(run).unwrap();
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
}

fn end_the_database(times: usize, random: &mut Random) {
    let mut world = fleet(2, random);
    let mut slowest = Duration::ZERO;
    for time in 0..times {
        let hosts = change_all(&mut world, random);
        let runs = begin_all(&world, &hosts);
        // The moment is the fault.
        std::thread::sleep(Duration::from_millis(random.below(1500) as u64));
        if time % 2 == 0 {
            world.database.kill().unwrap()
        } else {
            world.database.stop().unwrap()
        }
        std::thread::sleep(Duration::from_millis(random.below(2000) as u64));
        wait_for("the database to start again", Duration::from_secs(60), || world.database.start()).unwrap();
        let up = Instant::now();
        world.ask_until_answered(&["host", "list"]).unwrap();
        slowest = slowest.max(up.elapsed());
        await_all(&world, &runs);
    }
    println!("database: ended {times} times, slowest answer after its return {} ms", slowest.as_millis());
    assert!(slowest <= RESUMES, "{slowest:?}");
    world.check().unwrap();
}

fn cut_commits(traffic: Traffic, cuts: u64, random: &mut Random) {
    let mut world = fleet(2, random);
    let way = world.way(&coordinator_name(1), DATABASE).unwrap().clone();
    while way.cuts() < cuts {
        let hosts = change_all(&mut world, random);
        way.set(traffic);
        let runs = begin_all(&world, &hosts);
        await_all(&world, &runs);
        way.set(Traffic::Flows);
    }
    println!("database: {} connections cut at COMMIT ({traffic:?})", way.cuts());
    world.check().unwrap();
}

#[test]
fn a_database_killed_and_started_again_loses_nothing_and_is_used_at_once() {
    end_the_database(2, &mut seed::random("a_database_killed_and_started_again"));
}

#[test]
fn a_database_whose_standby_takes_over_loses_nothing_that_was_confirmed() {
    let mut random = seed::random("a_database_whose_standby_takes_over");
    let mut world = World::of_processes(&Setup::of(2).standby()).unwrap();
    world.protect("srv", "0 2 1 1 *").unwrap();
    let hosts = change_all(&mut world, &mut random);
    await_all(&world, &begin_all(&world, &hosts));
    change_all(&mut world, &mut random);
    let runs = begin_all(&world, &hosts);
    // The moment is the fault.
    std::thread::sleep(Duration::from_millis(random.below(1500) as u64));
    world.fail_over().unwrap();
    let up = Instant::now();
    world.ask_until_answered(&["host", "list"]).unwrap();
    println!("database: failed over, first answer {} ms after the standby took over", up.elapsed().as_millis());
    assert!(up.elapsed() <= RESUMES, "{:?}", up.elapsed());
    await_all(&world, &runs);
    change_all(&mut world, &mut random);
    await_all(&world, &begin_all(&world, &hosts));
    let checked = world.check().unwrap();
    assert_eq!((checked.points, checked.trees), (6, 6), "{checked}");
}

#[test]
fn a_commit_whose_answer_is_lost_is_read_again_and_nothing_is_done_twice() {
    let mut random = seed::random("a_commit_whose_answer_is_lost");
    cut_commits(Traffic::AnswerCutAfterCommit(6), 6, &mut random);
    cut_commits(Traffic::CutBeforeCommit(6), 6, &mut random);
}

#[test]
#[ignore = "long: F4, the database is ended fifty times"]
fn long_database_ended_fifty_times() {
    end_the_database(50, &mut seed::random("long_database_ended_fifty_times"));
}

#[test]
#[ignore = "long: F5, a thousand connections cut at COMMIT, half of them after it"]
fn long_thousand_commits_cut() {
    let mut random = seed::random("long_thousand_commits_cut");
    cut_commits(Traffic::AnswerCutAfterCommit(6), 500, &mut random);
    cut_commits(Traffic::CutBeforeCommit(6), 500, &mut random);
}
