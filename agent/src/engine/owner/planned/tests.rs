//! Each reason for which a planned run does not begin, and what one that begins stands on.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::journal::{Journal, RememberedBackup};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const AFTER: Duration = Duration::from_secs(300);

fn look(now_us: i64) -> Look {
    Look { now_us, since_us: 0, plan_made_at_us: 0, after: AFTER }
}

/// Due after ten hours, and to begin within the hour.
fn run() -> api::PlannedRun {
    api::PlannedRun {
        run_id: "r1".into(),
        policy_id: "p1".into(),
        kind: api::RunKind::Backup.into(),
        due_at_us: 10 * HOUR,
        begin_before_us: 11 * HOUR,
        level: api::Level::Differential.into(),
        reason: "as planned".into(),
        ..Default::default()
    }
}

fn location(id: &str, level: api::Level) -> api::ArchiveLocation {
    api::ArchiveLocation {
        backup_id: id.into(),
        key: format!("{id}.tar.zst"),
        level: level.into(),
        ..Default::default()
    }
}

/// The coordinator knows the full `f5`, and the next backup is the seventh.
fn job() -> api::BackupTask {
    api::BackupTask {
        policy_id: "p1".into(),
        base: Some(location("f5", api::Level::Full)),
        ordinal_floor: 7,
        compression: Some(api::Compression { codec: api::Codec::Zstd.into(), level: 3 }),
        full_compression: Some(api::Compression { codec: api::Codec::Zstd.into(), level: 9 }),
        ..Default::default()
    }
}

struct Notes {
    _folder: tempfile::TempDir,
    journal: Journal,
}

impl Notes {
    fn new() -> Notes {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(folder.path()).unwrap();
        Notes { _folder: folder, journal }
    }

    fn accept(&mut self, run: &str, policy: &str) {
        let task = Task::Backup(api::BackupTask { policy_id: policy.into(), ..Default::default() });
        let order = api::RunOrder { run_id: run.into(), attempt: 1, task: Some(task), ..Default::default() };
        self.journal.append(Body::Accepted(order)).unwrap();
    }

    fn remember(&mut self, id: &str, level: api::Level, ordinal: u64) {
        let location = Some(location(id, level));
        let backup = RememberedBackup { policy_id: "p1".into(), location, ordinal, ..Default::default() };
        self.journal.append(Body::Backup(backup)).unwrap();
    }

    fn verdict(&self, now_us: i64) -> Verdict {
        look(now_us).at(&run(), Some(&job()), self.journal.memory())
    }

    fn own(&self, run: &api::PlannedRun, job: &api::BackupTask) -> (api::Level, String, String, String) {
        let (task, why) = own_task(run, job, self.journal.memory());
        let id = |archive: Option<&api::ArchiveLocation>| archive.map(|x| x.backup_id.clone()).unwrap_or_default();
        (task.level(), id(task.base.as_ref()), id(task.newest.as_ref()), why)
    }
}

#[test]
fn a_run_begins_between_a_while_after_it_was_due_and_the_end_of_its_time() {
    let notes = Notes::new();
    assert_eq!(notes.verdict(10 * HOUR - 1), Verdict::Waits);
    assert_eq!(notes.verdict(10 * HOUR + 299 * SECOND), Verdict::Waits, "a coordinator that comes back begins it");
    assert_eq!(notes.verdict(10 * HOUR + 300 * SECOND), Verdict::Begins);
    assert_eq!(notes.verdict(11 * HOUR - 1), Verdict::Begins);
    assert_eq!(notes.verdict(11 * HOUR), Verdict::Done);
    let soon = api::PlannedRun { begin_before_us: 10 * HOUR + 60 * SECOND, ..run() };
    let at = |seconds| look(10 * HOUR + seconds * SECOND).at(&soon, Some(&job()), notes.journal.memory());
    assert_eq!((at(29), at(30), at(60)), (Verdict::Waits, Verdict::Begins, Verdict::Done));
}

#[test]
fn a_run_that_leaves_any_trace_in_the_journal_never_begins_again() {
    let mut notes = Notes::new();
    notes.accept("r1", "p2");
    assert_eq!(notes.verdict(11 * HOUR - 1), Verdict::Done, "it is held");
    let closed = crate::journal::Closed { run_id: "r1".into(), attempt: 1 };
    notes.journal.append(Body::Closed(closed)).unwrap();
    assert!(notes.journal.memory().attempts().is_empty());
    assert_eq!(notes.verdict(11 * HOUR - 1), Verdict::Done, "both ends have closed it");
}

#[test]
fn a_run_of_a_job_with_an_open_one_or_of_an_unknown_job_or_kind_does_not_begin() {
    let mut notes = Notes::new();
    notes.accept("other", "p2");
    assert_eq!(notes.verdict(11 * HOUR - 1), Verdict::Begins, "that is another job");
    notes.accept("open", "p1");
    assert!(matches!(notes.verdict(11 * HOUR - 1), Verdict::Never(why) if why.contains("is open")));
    let finished = api::run_report::Event::Finished(api::Finished::default());
    let report = api::RunReport { run_id: "open".into(), attempt: 1, sequence: 1, event: Some(finished) };
    notes.journal.append(Body::Reported(report)).unwrap();
    assert_eq!(notes.verdict(11 * HOUR - 1), Verdict::Begins, "it waits for nothing but to be reported");
    let verify = api::PlannedRun { kind: api::RunKind::Verify.into(), ..run() };
    let memory = notes.journal.memory();
    assert!(matches!(look(11 * HOUR - 1).at(&verify, Some(&job()), memory), Verdict::Never(_)));
    assert!(matches!(look(11 * HOUR - 1).at(&run(), None, memory), Verdict::Never(_)));
}

#[test]
fn a_host_that_holds_too_many_reports_begins_no_more() {
    let mut notes = Notes::new();
    let held = |number: usize| Body::Accepted(api::RunOrder { run_id: format!("held-{number}"), ..Default::default() });
    notes.journal.append_all((1..MAX_HELD_ATTEMPTS).map(held).collect()).unwrap();
    assert_eq!(notes.verdict(11 * HOUR - 1), Verdict::Begins);
    notes.journal.append(held(0)).unwrap();
    assert!(matches!(notes.verdict(11 * HOUR - 1), Verdict::Never(why) if why.contains("too many")));
}

#[test]
fn the_time_that_a_run_of_the_plan_may_take_counts_from_its_start_also_after_a_restart() {
    let mut notes = Notes::new();
    notes.accept("r1", "p1");
    let key = AttemptKey::new("r1", 1);
    let left_at = |notes: &Notes, second: i64| {
        let now = Timestamp::from_second(second).unwrap();
        left(notes.journal.memory().attempt(&key).unwrap(), now).map(|(_, left)| left.as_secs())
    };
    let begin = |notes: &mut Notes, max_duration_s| {
        let how = Some(api::FromPlan { max_duration_s, ..Default::default() });
        let begun = BegunFromPlan { run_id: "r1".into(), attempt: 1, how, level_reason: String::new() };
        notes.journal.append(Body::FromPlan(begun)).unwrap();
    };
    let started = api::Started { started_at_us: 1000 * SECOND, from_plan: None };
    let event = Some(run_report::Event::Started(started));
    let report = api::RunReport { run_id: "r1".into(), attempt: 1, sequence: 1, event };
    begin(&mut notes, 60);
    assert_eq!(left_at(&notes, 1000), None, "it waits for its turn");
    notes.journal.append(Body::Reported(report)).unwrap();
    let left = [999, 1000, 1059, 1060, 9999].map(|second| left_at(&notes, second));
    assert_eq!(left, [Some(60), Some(60), Some(1), Some(0), Some(0)]);
    begin(&mut notes, 0);
    assert_eq!(left_at(&notes, 9999), None, "the policy has no limit");
    begin(&mut notes, 60);
    let heard = crate::journal::Acknowledged { run_id: "r1".into(), attempt: 1, sequence: 1 };
    notes.journal.append(Body::Acknowledged(heard)).unwrap();
    assert_eq!(left_at(&notes, 9999), None, "a coordinator knows when it started");
}

#[test]
fn a_differential_stands_on_the_newest_full_of_this_host_and_is_compared_with_the_newest_archive() {
    use api::Level::{Differential, Full};
    let mut notes = Notes::new();
    let planned = "as planned".to_owned();
    assert_eq!(
        notes.own(&run(), &job()),
        (Differential, "f5".into(), String::new(), planned.clone()),
        "an empty journal"
    );
    notes.remember("f5", Full, 5);
    notes.remember("d6", Differential, 6);
    assert_eq!(notes.own(&run(), &job()), (Differential, "f5".into(), "d6".into(), planned.clone()));
    notes.remember("f7", Full, 7);
    assert_eq!(notes.own(&run(), &job()), (Differential, "f7".into(), String::new(), planned), "made since the plan");
}

#[test]
fn without_a_full_that_serves_it_is_a_full_with_the_reason() {
    let mut notes = Notes::new();
    let none = api::BackupTask { base: None, ..job() };
    let full = |notes: &Notes, job: &api::BackupTask| {
        let (task, why) = own_task(&run(), job, notes.journal.memory());
        assert_eq!((task.level(), task.base, why.as_str()), (api::Level::Full, None, NO_FULL));
        assert_eq!(task.compression, task.full_compression);
    };
    full(&notes, &none);
    // The coordinator knew this full and does not name it: it is damaged, or of another selection.
    notes.remember("f6", api::Level::Full, 6);
    full(&notes, &none);
    notes.remember("d7", api::Level::Differential, 7);
    full(&notes, &none);
    let asked = api::PlannedRun { level: api::Level::Full.into(), ..run() };
    let (task, why) = own_task(&asked, &job(), notes.journal.memory());
    assert_eq!((task.level(), task.base, why.as_str()), (api::Level::Full, None, "as planned"));
}
