//! The engine with scripted work and a scripted coordinator: no network, no source tree.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coord_shared::api::agent_message::Message as ToCoordinator;
use coord_shared::api::coordinator_message::Message as FromCoordinator;
use coord_shared::api::{self, Disposition, run_report};
use coord_shared::clock::SystemClock;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::lifecycle::Lifecycle;

use super::*;
use crate::journal::Journal;
use crate::plan::PlanFile;
use crate::store::LocalStore;

mod alone;

const PATIENCE: Duration = Duration::from_secs(10);

struct Script<F>(F);

impl<F> Work for Script<F>
where
    F: Fn(&RunContext) -> Result<Done, Failure> + Send + Sync + 'static,
{
    fn perform(&self, context: &RunContext) -> Result<Done, Failure> {
        (self.0)(context)
    }
}

/// One process of the agent over a folder that outlives it.
struct Process {
    events: mpsc::Sender<Event>,
    life: Lifecycle,
    link: Option<mpsc::Receiver<Outgoing>>,
}

impl Process {
    fn start<F>(folder: &Path, work: F) -> Process
    where
        F: Fn(&RunContext) -> Result<Done, Failure> + Send + Sync + 'static,
    {
        Process::start_to_be_alone(folder, PATIENCE, work)
    }

    /// The same, cut off after so long.
    fn start_to_be_alone<F>(folder: &Path, cut_off_after: Duration, work: F) -> Process
    where
        F: Fn(&RunContext) -> Result<Done, Failure> + Send + Sync + 'static,
    {
        let (journal, _) = Journal::open(&folder.join("journal")).unwrap();
        let store = LocalStore::open(&folder.join("archives")).unwrap();
        let life = Lifecycle::new();
        let (work, clock) = (Arc::new(Script(work)), Arc::new(SystemClock));
        let plan = PlanFile::open(folder.join("plan"));
        let deps =
            Deps { host_name: "one".into(), journal, store, work, clock, life: life.clone(), plan, cut_off_after };
        let (engine, events) = Engine::new(deps);
        life.spawn("engine", engine.run());
        Process { events, life, link: None }
    }

    /// A session with this answer to Hello; what Hello said.
    async fn connect(&mut self, answer: api::HelloAnswer) -> Greeting {
        let (reply, greeting) = oneshot::channel();
        self.events.send(Event::Greeting(reply)).await.unwrap();
        let greeting = greeting.await.unwrap();
        let (link, outgoing) = mpsc::channel(64);
        self.events.send(Event::Connected { answer: Box::new(answer), link }).await.unwrap();
        self.link = Some(outgoing);
        greeting
    }

    async fn disconnect(&mut self) {
        self.link = None;
        self.events.send(Event::Disconnected).await.unwrap();
    }

    async fn receive(&self, message: FromCoordinator) {
        self.events.send(Event::Received(Box::new(message))).await.unwrap();
    }

    async fn order(&self, run: &str) {
        let task = api::run_order::Task::Backup(api::BackupTask { policy_id: "p1".into(), ..Default::default() });
        let order = api::RunOrder { run_id: run.into(), attempt: 1, task: Some(task), ..Default::default() };
        self.receive(FromCoordinator::Run(order)).await;
    }

    async fn acknowledge(&self, run: &str, sequence: u64, disposition: Disposition) {
        let ack = api::ReportAck { run_id: run.into(), attempt: 1, sequence, disposition: disposition.into() };
        self.receive(FromCoordinator::Ack(ack)).await;
    }

    async fn next(&mut self) -> Outgoing {
        let next = self.link.as_mut().unwrap().recv();
        tokio::time::timeout(PATIENCE, next).await.expect("nothing was sent").expect("the engine has ended")
    }

    /// The next report, passing over heartbeats.
    async fn report(&mut self) -> api::RunReport {
        loop {
            if let Outgoing::Message(message) = self.next().await
                && let ToCoordinator::Report(report) = *message
            {
                return report;
            }
        }
    }

    /// The next report that is a run's last.
    async fn finished(&mut self) -> (u64, api::Finished) {
        loop {
            let report = self.report().await;
            if let Some(run_report::Event::Finished(finished)) = report.event {
                return (report.sequence, finished);
            }
        }
    }

    async fn want_index(&self, backup: &str, location: Option<api::ArchiveLocation>) {
        let wanted = api::IndexWanted { backup_id: backup.into(), next_block: 0, location };
        self.receive(FromCoordinator::IndexWanted(wanted)).await;
    }

    async fn index_wanted(&mut self) -> api::ArchiveLocation {
        loop {
            if let Outgoing::SendIndex(location) = self.next().await {
                return location;
            }
        }
    }

    /// Ends as kill -9 would for the journal: nothing is said any more.
    async fn end(self) {
        assert!(self.life.finish(PATIENCE).await, "a task did not end");
    }
}

fn sealed(store: &Path, context: &RunContext) -> api::Sealed {
    let key = format!("web-1/srv/x-full-{}.{}.tar.zst", context.key.run_id, context.key.attempt);
    let path = store.join("archives").join(&key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(b"archive").unwrap();
    let backup_id = format!("backup-of-{}", context.key.run_id);
    let location = api::ArchiveLocation { key, backup_id: backup_id.clone(), ..Default::default() };
    api::Sealed { backup_id, location: Some(location), ordinal: 1, ..Default::default() }
}

fn done(sealed: Option<api::Sealed>) -> Done {
    let backup = api::BackupResult { sealed, ..Default::default() };
    Done { result: api::finished::Result::Backup(backup), warnings_total: 0 }
}

fn archives(folder: &Path) -> usize {
    let place = folder.join("archives/web-1/srv");
    std::fs::read_dir(place).map_or(0, Iterator::count)
}

fn set_aside(folder: &Path) -> u64 {
    let kept = LocalStore::open(&folder.join("archives")).unwrap().all_set_aside().unwrap();
    kept.map_or(0, |kept| kept.archives)
}

/// A host whose backups succeed at once.
fn sealing(folder: &Path) -> Process {
    let store = folder.to_owned();
    Process::start(folder, move |context| {
        let sealed = sealed(&store, context);
        context.report(run_report::Event::Sealed(sealed.clone()))?;
        Ok(done(Some(sealed)))
    })
}

/// Blocks the work until its stop flag is set, as a long scan does.
fn until_stopped(context: &RunContext) -> Result<Done, Failure> {
    match context.wait_level(Duration::from_secs(60))? {
        Some(_) | None => Ok(done(None)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_reports_in_order_and_is_closed_when_its_end_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Process::start(folder.path(), |_| Ok(done(None)));
    agent.connect(api::HelloAnswer::default()).await;
    agent.order("r1").await;
    let started = agent.report().await;
    assert!(matches!(started.event, Some(run_report::Event::Started(_))));
    assert_eq!((started.run_id.as_str(), started.attempt, started.sequence), ("r1", 1, 1));
    let (sequence, finished) = agent.finished().await;
    assert_eq!((sequence, finished.outcome()), (2, api::Outcome::Succeeded));

    agent.acknowledge("r1", 1, Disposition::Continue).await;
    assert_eq!(agent.connect(api::HelloAnswer::default()).await.held.len(), 1, "its end is not acknowledged yet");
    agent.acknowledge("r1", 2, Disposition::Forget).await;
    assert!(agent.connect(api::HelloAnswer::default()).await.held.is_empty());
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_while_cut_off_is_sent_after_the_reconnect_and_again_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().to_owned();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let mut agent = Process::start(folder.path(), move |context| {
        wait.lock().unwrap().recv().unwrap();
        let sealed = sealed(&store, context);
        context.report(run_report::Event::Sealed(sealed.clone()))?;
        Ok(done(Some(sealed)))
    });
    agent.connect(api::HelloAnswer::default()).await;
    agent.order("r1").await;
    agent.report().await;
    agent.disconnect().await;
    go.send(()).unwrap();

    // The engine takes events in turn: when the greeting has the end of the run, it is in the journal.
    let held = loop {
        let held = agent.connect(api::HelloAnswer::default()).await.held;
        if held[0].finished {
            break held;
        }
        agent.disconnect().await;
        tokio::task::yield_now().await;
    };
    assert_eq!(held[0].sequence, 3);
    assert_eq!(agent.finished().await.0, 3);
    agent.end().await;

    // Killed before any acknowledgement: the next process says the same again.
    let mut agent = Process::start(folder.path(), |_| panic!("nothing is to be done again"));
    let greeting = agent.connect(api::HelloAnswer::default()).await;
    assert!(greeting.held[0].finished);
    let sequences = [agent.report().await.sequence, agent.report().await.sequence, agent.report().await.sequence];
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(archives(folder.path()), 1, "an archive that may count is kept");

    // Its index follows when both ends agree that the backup exists.
    agent.acknowledge("r1", 3, Disposition::Forget).await;
    let location = agent.index_wanted().await;
    assert_eq!(location.backup_id, "backup-of-r1");
    agent.events.send(Event::IndexSent { backup_id: location.backup_id.clone() }).await.unwrap();
    assert!(agent.connect(api::HelloAnswer::default()).await.unsent_indexes.is_empty());

    // The catalog may want it again later.
    agent.want_index("backup-of-r1", None).await;
    assert_eq!(agent.index_wanted().await.backup_id, "backup-of-r1");
    // Also when its archive is not there, and again when it is, and that of one from before this journal was begun.
    let gone = Event::IndexFailed { backup_id: "backup-of-r1".into(), why: Unsent::NotThere };
    agent.events.send(gone).await.unwrap();
    agent.want_index("unheard-of", None).await;
    let older = api::ArchiveLocation { backup_id: "older".into(), ..location };
    agent.want_index("older", Some(older.clone())).await;
    assert_eq!(agent.index_wanted().await, older);
    // One that cannot be read at the moment keeps no other back.
    agent.want_index("backup-of-r1", None).await;
    agent.events.send(Event::IndexFailed { backup_id: "older".into(), why: Unsent::Again }).await.unwrap();
    assert_eq!(agent.index_wanted().await.backup_id, "backup-of-r1");
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_could_not_be_sent_is_sent_again_though_the_next_one_went_through() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Process::start(folder.path(), |_| panic!("nothing is ordered"));
    agent.connect(api::HelloAnswer::default()).await;
    let location = |backup: &str| Some(api::ArchiveLocation { backup_id: backup.into(), ..Default::default() });
    agent.want_index("first", location("first")).await;
    agent.want_index("second", location("second")).await;
    assert_eq!(agent.index_wanted().await.backup_id, "first");
    agent.events.send(Event::IndexFailed { backup_id: "first".into(), why: Unsent::Again }).await.unwrap();
    assert_eq!(agent.index_wanted().await.backup_id, "second");
    agent.events.send(Event::IndexSent { backup_id: "second".into() }).await.unwrap();

    assert_eq!(agent.index_wanted().await.backup_id, "first");
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_died_with_its_process_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Process::start(folder.path(), until_stopped);
    agent.connect(api::HelloAnswer::default()).await;
    agent.order("r1").await;
    agent.report().await;
    agent.end().await;

    let mut agent = Process::start(folder.path(), |_| panic!("an attempt is not begun twice"));
    agent.connect(api::HelloAnswer::default()).await;
    let (_, finished) = agent.finished().await;
    assert_eq!((finished.outcome(), finished.retryable), (api::Outcome::Failed, true));
    assert_eq!(finished.fault.unwrap().code, ErrorCode::AgentRestarted.as_str());
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_was_sealed_before_the_restart_is_verified_after_it_under_the_same_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().to_owned();
    let mut agent = Process::start(folder.path(), move |context| {
        context.report(run_report::Event::Sealed(sealed(&store, context)))?;
        until_stopped(context)
    });
    agent.connect(api::HelloAnswer::default()).await;
    agent.order("r1").await;
    while !matches!(agent.report().await.event, Some(run_report::Event::Sealed(_))) {}
    // Without the last words of the thread: the archive stays as a kill would leave it.
    let bytes = std::fs::read(folder.path().join("journal/00000001.log")).unwrap();
    agent.end().await;
    let again = tempfile::tempdir().unwrap();
    std::fs::create_dir(again.path().join("journal")).unwrap();
    std::fs::write(again.path().join("journal/00000001.log"), bytes).unwrap();

    let mut agent = Process::start(again.path(), |context| Ok(done(context.resumed.clone())));
    agent.connect(api::HelloAnswer::default()).await;
    let (_, finished) = agent.finished().await;
    assert_eq!(finished.outcome(), api::Outcome::Succeeded);
    let Some(api::finished::Result::Backup(result)) = finished.result else { panic!("no backup") };
    assert_eq!(result.sealed.unwrap().backup_id, "backup-of-r1");
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_stops_says_so_and_leaves_no_archive() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().to_owned();
    let mut agent = Process::start(folder.path(), move |context| {
        context.report(run_report::Event::Sealed(sealed(&store, context)))?;
        until_stopped(context)
    });
    agent.connect(api::HelloAnswer::default()).await;
    agent.order("r1").await;
    while !matches!(agent.report().await.event, Some(run_report::Event::Sealed(_))) {}
    assert_eq!(archives(folder.path()), 1);
    agent
        .receive(FromCoordinator::Cancel(api::CancelRun { run_id: "r1".into(), attempt: 1, reason: "test".into() }))
        .await;
    let (sequence, finished) = agent.finished().await;
    assert_eq!(finished.outcome(), api::Outcome::Cancelled);
    assert_eq!(archives(folder.path()), 0, "an archive is there though its end is told");
    agent.acknowledge("r1", sequence, Disposition::Forget).await;
    while !agent.connect(api::HelloAnswer::default()).await.held.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!((archives(folder.path()), set_aside(folder.path())), (0, 1));
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_of_a_late_success_that_does_not_count_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = sealing(folder.path());
    agent.connect(api::HelloAnswer::default()).await;
    agent.order("r1").await;
    let (sequence, _) = agent.finished().await;
    assert_eq!(archives(folder.path()), 1);
    agent.acknowledge("r1", sequence, Disposition::Abort).await;
    let greeting = agent.connect(api::HelloAnswer::default()).await;
    assert!(greeting.held.is_empty() && greeting.unsent_indexes.is_empty(), "{greeting:?}");
    assert_eq!(archives(folder.path()), 0);
    assert_eq!(set_aside(folder.path()), 1);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_answer_to_its_end_says_what_becomes_of_the_archive_of_an_attempt_that_was_cancelled_as_it_ended() {
    for (answer, left) in [(Disposition::Forget, (1, 0)), (Disposition::Abort, (0, 1))] {
        let folder = tempfile::tempdir().unwrap();
        let mut agent = sealing(folder.path());
        agent.connect(api::HelloAnswer::default()).await;
        agent.order("r1").await;
        let (sequence, finished) = agent.finished().await;
        assert_eq!(finished.outcome(), api::Outcome::Succeeded);
        // Said when the run was being cancelled and its end was still on the way, in which it counts.
        agent.acknowledge("r1", sequence - 1, Disposition::Abort).await;
        let beat =
            api::HeldAnswer { run_id: "r1".into(), attempt: 1, disposition: Disposition::Abort.into(), pace: None };
        let beats = api::HeartbeatAck { runs: vec![beat], ..Default::default() };
        agent.receive(FromCoordinator::HeartbeatAck(beats)).await;
        assert_eq!(agent.connect(api::HelloAnswer::default()).await.held.len(), 1);
        assert_eq!((archives(folder.path()), set_aside(folder.path())), (1, 0));

        agent.acknowledge("r1", sequence, answer).await;
        while !agent.connect(api::HelloAnswer::default()).await.held.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!((archives(folder.path()), set_aside(folder.path())), left);
        agent.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_repeats_a_committed_attempt_and_is_aborted_does_not_cost_its_archive() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = sealing(folder.path());
    agent.connect(api::HelloAnswer::default()).await;
    agent.order("r1").await;
    let (sequence, _) = agent.finished().await;
    for sequence in 1..=sequence {
        agent.acknowledge("r1", sequence, Disposition::Forget).await;
    }
    assert!(agent.connect(api::HelloAnswer::default()).await.held.is_empty(), "both ends closed the attempt");
    agent.end().await;

    let mut agent = Process::start(folder.path(), until_stopped);
    agent.connect(api::HelloAnswer::default()).await;
    agent.order("r1").await;
    agent.report().await;
    agent
        .receive(FromCoordinator::Cancel(api::CancelRun { run_id: "r1".into(), attempt: 1, reason: "malice".into() }))
        .await;
    let (sequence, _) = agent.finished().await;
    agent.acknowledge("r1", sequence, Disposition::Abort).await;
    while !agent.connect(api::HelloAnswer::default()).await.held.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!((archives(folder.path()), set_aside(folder.path())), (1, 0));
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_comes_twice_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let mut agent = Process::start(folder.path(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(done(None))
    });
    agent.connect(api::HelloAnswer::default()).await;
    agent.order("r1").await;
    agent.order("r1").await;
    agent.finished().await;
    agent.order("r1").await;
    // The repeated order makes the unacknowledged end be said again.
    agent.finished().await;
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinals_grow_over_restarts_and_never_fall_below_the_coordinators_floor() {
    let folder = tempfile::tempdir().unwrap();
    let (numbers, found) = std::sync::mpsc::channel();
    for (run, floor) in [("r1", 0), ("r2", 7), ("r3", 0)] {
        let numbers = numbers.clone();
        let mut agent = Process::start(folder.path(), move |context| {
            numbers.send(context.next_ordinal("p1", 0)?).unwrap();
            Ok(done(None))
        });
        let floors = vec![api::JobOrdinal { policy_id: "p1".into(), ordinal: floor }];
        agent.connect(api::HelloAnswer { ordinal_floors: floors, ..Default::default() }).await;
        agent.order(run).await;
        loop {
            let report = agent.report().await;
            if report.run_id == run && matches!(report.event, Some(run_report::Event::Finished(_))) {
                break;
            }
        }
        agent.end().await;
    }
    assert_eq!(found.try_iter().collect::<Vec<_>>(), [1, 7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_and_a_defect_are_both_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Process::start(folder.path(), |context| match context.key.run_id.as_str() {
        "full" => Err(Failure::disk_full("no room")),
        "missing" => Err(Failure::lasting(Fault::new(ErrorCode::SourceMissing, "gone"))),
        _ => panic!("a defect, on purpose"),
    });
    agent.connect(api::HelloAnswer::default()).await;
    for (run, code, retryable) in [
        ("full", ErrorCode::DiskFull, true),
        ("missing", ErrorCode::SourceMissing, false),
        ("x", ErrorCode::Internal, true),
    ] {
        agent.order(run).await;
        let (sequence, finished) = agent.finished().await;
        assert_eq!(finished.outcome(), api::Outcome::Failed, "{run}");
        assert_eq!((finished.fault.unwrap().code.as_str(), finished.retryable), (code.as_str(), retryable), "{run}");
        agent.acknowledge(run, sequence, Disposition::Forget).await;
    }
    agent.end().await;
}
