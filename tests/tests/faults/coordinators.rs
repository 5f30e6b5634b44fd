//! F3: three coordinators side by side on one database, any of them killed at random, many jobs with short schedules.

use std::time::{Duration, Instant};

use coord_shared::failpoint::PLAN_VARIABLE;
use fleet_tests::checker::{self, Catalog, Checked, Rule};
use fleet_tests::faults::seed;
use fleet_tests::faults::world::{Setup, World};
use fleet_tests::random::Random;

use super::await_death;

/// Coordinators side by side.
const COORDINATORS: usize = 3;
/// The longest time between two kills, in milliseconds.
const BETWEEN_KILLS_MS: usize = 3000;
/// How long one of them stays away, at most, in milliseconds.
const AWAY_MS: usize = 1500;

/// Points of the scheduler.
const SCHEDULING: [&str; 2] = ["coordinator.due.uncommitted", "coordinator.due.committed"];

/// Makes the instant that began with this minute due now, as if every coordinator had been away when it came. A job that has its run of
/// this minute already comes due with the next one.
const DUE_NOW: &str = "UPDATE jobs j SET backup_due_at = date_trunc('minute', now())
    WHERE backup_due_at > date_trunc('minute', now())
      AND NOT EXISTS (SELECT FROM runs r WHERE r.job = j.job AND r.due_at = date_trunc('minute', now()))";

/// One policy more for each number, on every host, every minute.
fn protect_many(world: &mut World, policies: usize, random: &mut Random) {
    let hosts: Vec<String> = world.agents.keys().cloned().collect();
    for host in &hosts {
        world.change(host, random).unwrap();
    }
    for number in 1..=policies {
        world.protect(&format!("policy-{number}"), "* * * * *").unwrap();
    }
    let wanted = i64::try_from(hosts.len() * policies).unwrap();
    let catalog = Catalog::connect(world.url()).unwrap();
    fleet_tests::harness::wait::wait_for("every job to know when it is due", Duration::from_secs(30), || {
        let rows = catalog.rows("SELECT count(*) AS n FROM jobs WHERE backup_due_at IS NOT NULL")?;
        let found: i64 = rows[0].get("n");
        if found == wanted { Ok(()) } else { Err(format!("{found} of {wanted} jobs")) }
    })
    .unwrap();
}

/// Every coordinator is away while every job comes due; the first two that come back die as they insert what is due.
fn die_while_scheduling(world: &mut World) {
    for coordinator in &mut world.coordinators {
        coordinator.kill().unwrap();
    }
    Catalog::connect(world.url()).unwrap().execute(DUE_NOW).unwrap();
    for (coordinator, point) in world.coordinators.iter_mut().zip(SCHEDULING) {
        coordinator.set_variable(PLAN_VARIABLE, Some(&format!("{point}=kill")));
        coordinator.start().unwrap();
        coordinator.set_variable(PLAN_VARIABLE, None);
        await_death(coordinator.as_mut());
    }
    for coordinator in &mut world.coordinators {
        coordinator.start().unwrap();
    }
    for point in SCHEDULING {
        assert_eq!(world.reached.kills(point), 1, "{point} was never reached: nothing was shown there");
    }
}

/// Kills and starts coordinators for `time`.
fn kill_at_random(world: &mut World, time: Duration, random: &mut Random) -> usize {
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < time {
        let pause = |random: &mut Random, most| std::thread::sleep(Duration::from_millis(random.below(most) as u64));
        // The moments are the fault.
        pause(random, BETWEEN_KILLS_MS);
        let victim = &mut world.coordinators[random.below(COORDINATORS)];
        victim.kill().unwrap();
        kills += 1;
        pause(random, AWAY_MS);
        victim.start().unwrap();
    }
    kills
}

/// Nothing new is due from here on: what was due has to end. No instant may be without its run until now.
fn end_schedules(world: &World) {
    let catalog = Catalog::connect(world.url()).unwrap();
    let found = checker::catalog(&catalog).unwrap();
    let lost: Vec<_> = found.iter().filter(|violation| violation.rule == Rule::DueInstantKept).collect();
    assert!(lost.is_empty(), "{lost:?}");
    catalog.execute(&format!("UPDATE jobs SET backup_due_at = '{}'", checker::NEVER)).unwrap();
}

fn three_coordinators(hosts: usize, policies: usize, time: Duration, random: &mut Random) -> Checked {
    let mut world = World::of_processes(&Setup::of(hosts).coordinators(COORDINATORS)).unwrap();
    protect_many(&mut world, policies, random);
    die_while_scheduling(&mut world);
    let kills = kill_at_random(&mut world, time, random);
    end_schedules(&world);
    let checked = world.check().unwrap();
    let catalog = Catalog::connect(world.url()).unwrap();
    let failed = catalog
        .texts("SELECT format('%s %s', run_id, fault) FROM runs WHERE state IN ('failed', 'cancelled')")
        .unwrap();
    assert_eq!(failed, Vec::<String>::new());
    let missed = catalog.texts("SELECT reason FROM runs WHERE state = 'missed'").unwrap();
    println!("three coordinators: {kills} killed, {checked}, {} missed and told so", missed.len());
    assert!(missed.iter().all(|reason| reason.contains("still open")), "{missed:?}");
    checked
}

#[test]
fn three_coordinators_killed_at_random_miss_no_due_run_and_commit_none_twice() {
    let mut random = seed::random("three_coordinators_killed_at_random");
    let (hosts, policies) = (3, 6);
    let checked = three_coordinators(hosts, policies, Duration::from_secs(62), &mut random);
    assert!(checked.due_runs >= 2 * (hosts * policies) as u64, "two instants of each job were due: {checked}");
}

#[test]
#[ignore = "long: F3, thirty minutes, fifty agents, two hundred jobs"]
fn long_three_coordinators_for_half_an_hour() {
    let mut random = seed::random("long_three_coordinators_for_half_an_hour");
    let checked = three_coordinators(50, 4, Duration::from_secs(1800), &mut random);
    assert!(checked.due_runs >= 5000, "{checked}");
}
