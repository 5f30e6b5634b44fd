//! F16: hosts whose clocks are wrong. Five minutes do no harm; beyond that somebody is told, and still nothing is lost.

use std::path::{Path, PathBuf};

use fleet_tests::faults::seed;
use fleet_tests::faults::world::{Setup, World};

/// The library that gives a program another time; the Debian package libfaketime.
fn libfaketime() -> PathBuf {
    let folder = Path::new("/usr/lib").join(format!("{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH));
    assert!(folder.exists(), "{} is missing: install the package libfaketime", folder.display());
    folder
}

/// Starts a host's agent again with a clock that is off by so much.
fn set_clock(world: &mut World, host: &str, seconds: i64) {
    let library = libfaketime().to_string_lossy().into_owned();
    let agent = world.agent(host).unwrap();
    agent.stop().unwrap();
    agent.set_variable("LD_PRELOAD", Some(&library));
    agent.set_variable("FAKETIME", Some(&format!("{seconds:+}s")));
    // Waits and timers are not what is wrong.
    agent.set_variable("FAKETIME_DONT_FAKE_MONOTONIC", Some("1"));
    agent.start().unwrap();
    world.await_connected(host).unwrap();
}

/// What the fleet's status says of the clock of a host.
fn told(world: &World, host: &str) -> Option<String> {
    let status = world.ask(&["status"]).unwrap();
    let troubles = status["troubles"].as_array().unwrap();
    let of_clock = troubles.iter().find(|trouble| {
        trouble["host"] == host && trouble["what"].as_str().is_some_and(|what| what.contains("clock"))
    })?;
    of_clock["what"].as_str().map(str::to_owned)
}

#[test]
fn a_clock_that_is_wrong_by_minutes_is_told_of_and_loses_nothing() {
    let mut random = seed::random("a_clock_that_is_wrong");
    let mut world = World::of_processes(&Setup::of(4)).unwrap();
    world.protect("srv", "0 2 1 1 *").unwrap();
    let clocks = [
        ("host-1", 290, None),
        ("host-2", -290, None),
        ("host-3", 600, Some("its clock is 10m ahead of the fleet's")),
        ("host-4", -1800, Some("its clock is 30m behind the fleet's")),
    ];
    for (host, seconds, _) in clocks {
        set_clock(&mut world, host, seconds);
    }
    for _ in 0..2 {
        for (host, ..) in clocks {
            world.change(host, &mut random).unwrap();
            let run = world.begin_backup(&format!("{host}/srv"), None).unwrap();
            let ended = world.await_end(&run).unwrap();
            assert_eq!((&ended["state"], &ended["attempt"]), (&"succeeded".into(), &1.into()), "{ended}");
        }
    }
    for (host, _, expected) in clocks {
        assert_eq!(told(&world, host).as_deref(), expected, "{host}");
    }
    // Restore points are found by the fleet's time, whatever the host's clock said.
    let checked = world.check().unwrap();
    assert_eq!(checked.trees, 8, "{checked}");
}
