//! The checker itself: nothing is wrong with an undisturbed fleet, and a violation of each kind is found when it is planted.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use coord_shared::failpoint::POINTS;
use fleet_tests::checker::{self, Catalog, Rule, Violation};
use fleet_tests::faults::world::{Setup, World};
use fleet_tests::harness::build::workspace;
use fleet_tests::random::Random;
use fleet_tests::tree::compare::list;

/// Statements that break one rule each; rolled back when it was found.
const PLANTED: &[(Rule, &str)] = &[
    (
        Rule::DueOnce,
        "UPDATE runs SET asked_by = 'schedule' WHERE kind = 'backup';
         ALTER TABLE runs DROP CONSTRAINT runs_job_kind_due_at_key;
         UPDATE runs SET due_at = '2026-01-01' WHERE kind = 'backup'",
    ),
    (
        Rule::DueInstantKept,
        "UPDATE jobs SET backup_due_at = '2026-01-01 00:05';
         WITH numbered AS (SELECT run_id, row_number() OVER (ORDER BY due_at) AS n FROM runs WHERE kind = 'backup')
         UPDATE runs r SET asked_by = 'schedule', due_at = '2026-01-01'::timestamptz + n * INTERVAL '1 minute'
         FROM numbered WHERE numbered.run_id = r.run_id",
    ),
    (Rule::RunEnded, "UPDATE runs SET state = 'queued' WHERE run_id = (SELECT run_id FROM runs LIMIT 1)"),
    (
        Rule::ReasonGiven,
        "UPDATE runs SET state = 'failed', fault = NULL WHERE run_id = (SELECT run_id FROM runs LIMIT 1)",
    ),
    (Rule::OneBackup, "UPDATE backups SET run_id = (SELECT run_id FROM backups ORDER BY backup LIMIT 1)"),
    (Rule::SuccessHasBackup, "UPDATE runs SET backup_id = gen_random_uuid() WHERE kind = 'backup'"),
    (Rule::BackupHasSuccess, "UPDATE runs SET state = 'cancelled' WHERE kind = 'backup'"),
    (Rule::AttemptsInOrder, "UPDATE attempts SET attempt = 2"),
    (
        Rule::NewestAttemptCommits,
        "INSERT INTO attempts (run_id, attempt, session, outcome) SELECT run_id, 2, 1, 'succeeded' FROM runs LIMIT 1",
    ),
    (
        Rule::EventsInOrder,
        "INSERT INTO run_events (run_id, attempt, kind, detail) SELECT run_id, 0, 'leased', '' FROM runs LIMIT 1",
    ),
    (Rule::SearchableOrReason, "UPDATE backups SET searchable = 'not_searchable', searchable_reason = ''"),
];

#[test]
fn every_named_point_is_in_the_code_once_and_no_other() {
    let mut found = Vec::new();
    for package in ["agent/src", "coordinator/src"] {
        let folder = workspace().join(package);
        for name in list(&folder).unwrap().into_keys() {
            let path = folder.join(OsStr::from_bytes(&name));
            if path.extension().is_some_and(|extension| extension == "rs") {
                found.extend(points_in(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort_unstable();
    let mut listed: Vec<&str> = POINTS.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    assert_eq!(found, listed);
}

/// The names of the points that a text of Rust passes.
fn points_in(text: &str) -> Vec<String> {
    let calls = ["failpoint::reach(\"", "failpoint::fails(\""];
    let after = |call| text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
    calls.into_iter().flat_map(after).map(str::to_owned).collect()
}

/// A full, a differential, and a point that names the differential's archive.
fn fleet_with_three_points() -> World {
    let mut world = World::of_processes(&Setup::of(1)).unwrap();
    world.protect("srv", "0 2 1 1 *").unwrap();
    let mut random = Random::new(1);
    for changes in [true, true, false] {
        if changes {
            world.change("host-1", &mut random).unwrap();
        }
        let run = world.begin_backup("host-1/srv", None).unwrap();
        assert_eq!(world.await_end(&run).unwrap()["state"], "succeeded");
    }
    world
}

fn rules(found: &[Violation]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = found.iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

fn look(world: &World) -> Vec<Violation> {
    checker::look(&world.ground().unwrap()).unwrap().1
}

#[test]
fn an_undisturbed_fleet_is_right_and_every_planted_violation_is_found() {
    let mut world = fleet_with_three_points();
    let checked = world.check().unwrap();
    assert_eq!((checked.runs, checked.points, checked.archives, checked.trees), (3, 3, 2, 3), "{checked}");

    let mut shown = Vec::new();
    let catalog = Catalog::connect(world.url()).unwrap();
    for (rule, statements) in PLANTED {
        catalog.execute(&format!("BEGIN; {statements}")).unwrap();
        let found = checker::catalog(&catalog).unwrap();
        catalog.execute("ROLLBACK").unwrap();
        assert!(rules(&found).contains(rule), "{rule:?} was planted, found: {found:?}");
        shown.push(*rule);
    }
    assert_eq!(look(&world), [], "what was planted is gone");
    shown.extend(damage_archives(&mut world));
    shown.sort_unstable();
    assert_eq!(shown, Rule::ALL, "a rule that was never seen broken proves nothing");
}

/// Breaks each rule of archives and trees, and mends it again.
fn damage_archives(world: &mut World) -> Vec<Rule> {
    let mut shown = Vec::new();
    let archives: Vec<PathBuf> = archives(world);
    let [differential, full] = &archives[..] else { panic!("{archives:?}") };
    let aside = world.folder().join("aside");
    let mut expect = |world: &World, rule| {
        let found = rules(&look(world));
        assert_eq!(found, [rule]);
        shown.push(rule);
    };

    fs::rename(differential, &aside).unwrap();
    expect(world, Rule::ArchiveThere);
    fs::copy(full, differential).unwrap();
    expect(world, Rule::ArchiveSame);
    let whole = fs::read(&aside).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 3] ^= 1;
    fs::write(differential, damaged).unwrap();
    expect(world, Rule::ArchiveGood);
    fs::rename(&aside, differential).unwrap();

    let stray = full.with_file_name("20260101T000000Z-full-nobody.1.tar.zst");
    fs::copy(full, &stray).unwrap();
    expect(world, Rule::ArchiveWanted);
    fs::write(&stray, &whole[..whole.len() / 2]).unwrap();
    expect(world, Rule::NothingHalfWritten);
    fs::remove_file(&stray).unwrap();

    let recorded = world.states()[0].tree.join("state");
    let said = fs::read(&recorded).unwrap();
    fs::write(&recorded, "another state").unwrap();
    expect(world, Rule::PointExact);
    fs::write(&recorded, said).unwrap();
    shown
}

/// The archives of the host, the smaller first: a differential, then its full.
fn archives(world: &World) -> Vec<PathBuf> {
    let catalog = Catalog::connect(world.url()).unwrap();
    let question = "SELECT convert_from(location_folder, 'UTF8') || '/' || location_key FROM backups
        WHERE archive_of = backup ORDER BY level";
    catalog.texts(question).unwrap().into_iter().map(PathBuf::from).collect()
}
