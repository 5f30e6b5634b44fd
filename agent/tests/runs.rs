//! Whole runs over real trees: the engine with the real file system, and a coordinator that is only a script.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coord_agent::engine::{Deps, Engine, Event, HostWork, Outgoing, Part, read_file};
use coord_agent::journal::Journal;
use coord_agent::plan::PlanFile;
use coord_agent::store::LocalStore;
use coord_shared::api::agent_message::Message as ToCoordinator;
use coord_shared::api::coordinator_message::Message as FromCoordinator;
use coord_shared::api::run_order::Task;
use coord_shared::api::{self, finished, run_report};
use coord_shared::clock::{Clock as _, SystemClock};
use coord_shared::fault::ErrorCode;
use coord_shared::lifecycle::Lifecycle;
use rustix::mount::{MountFlags, UnmountFlags};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing here waits for it.
const CUT_OFF_AFTER: Duration = Duration::from_secs(3600);
const POLICY: &str = "7a1f4f57-6d3a-4a55-9a0e-0d5f6f1f5a01";
const HOST: &str = "7a1f4f57-6d3a-4a55-9a0e-0d5f6f1f5a02";

/// A host with one policy over `/srv`, and its agent's engine.
struct Host {
    scratch: tempfile::TempDir,
    store: LocalStore,
    events: mpsc::Sender<Event>,
    link: mpsc::Receiver<Outgoing>,
    life: Lifecycle,
    runs: u32,
    exclude: Vec<String>,
}

/// How a run ended, with everything it said before.
#[derive(Debug)]
struct Ended {
    scanned: Option<api::Scanned>,
    notes: Vec<api::PathNote>,
    finished: api::Finished,
}

impl Ended {
    fn backup(&self) -> &api::BackupResult {
        match &self.finished.result {
            Some(finished::Result::Backup(backup)) => backup,
            other => panic!("no backup: {other:?}, {:?}", self.finished.fault),
        }
    }

    fn location(&self) -> api::ArchiveLocation {
        self.backup().sealed.as_ref().expect("an archive").location.clone().unwrap()
    }

    fn fault(&self) -> &str {
        &self.finished.fault.as_ref().expect("a fault").code
    }
}

impl Host {
    async fn start() -> Host {
        let scratch = tempfile::tempdir().unwrap();
        let archives = scratch.path().join("archives");
        Host::start_with(scratch, &archives).await
    }

    async fn start_with(scratch: tempfile::TempDir, archives: &Path) -> Host {
        let root = scratch.path().join("root");
        fs::create_dir_all(root.join("srv")).unwrap();
        let (journal, _) = Journal::open(&scratch.path().join("journal")).unwrap();
        let store = LocalStore::open(archives).unwrap();
        let work = HostWork {
            host_id: HOST.to_owned(),
            root: root.canonicalize().unwrap(),
            store: store.clone(),
            cache: scratch.path().join("cache"),
            own_folders: vec![root.join("srv/own-state")],
            threads: 2,
        };
        let life = Lifecycle::new();
        let clock = Arc::new(SystemClock);
        let (engine, events) = Engine::new(Deps {
            host_name: "web-1".into(),
            journal,
            store: store.clone(),
            work: Arc::new(work),
            clock,
            life: life.clone(),
            plan: PlanFile::open(scratch.path().join("plan")),
            cut_off_after: CUT_OFF_AFTER,
        });
        life.spawn("engine", engine.run());
        let (link, outgoing) = mpsc::channel(64);
        let host = Host { scratch, store, events, link: outgoing, life, runs: 0, exclude: Vec::new() };
        host.greet(0, link).await;
        host
    }

    async fn greet(&self, now_us: i64, link: mpsc::Sender<Outgoing>) {
        let answer = Box::new(api::HelloAnswer { now_us, ..Default::default() });
        self.events.send(Event::Connected { answer, link }).await.unwrap();
    }

    fn source(&self) -> PathBuf {
        self.scratch.path().join("root/srv")
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.source().join(name), content).unwrap();
    }

    fn task(&self, base: Option<&Ended>, newest: Option<&Ended>) -> api::BackupTask {
        let level = if base.is_some() { api::Level::Differential } else { api::Level::Full };
        api::BackupTask {
            policy_id: POLICY.to_owned(),
            policy_name: "srv".to_owned(),
            policy_version: 1,
            level: level.into(),
            backup_id: uuid::Uuid::new_v4().to_string(),
            sources: vec![b"/srv".to_vec()],
            exclude: self.exclude.clone(),
            base: base.map(Ended::location),
            newest: newest.map(Ended::location),
            verify_after: true,
            fleet: "demo".to_owned(),
            host_name: "web-1".to_owned(),
            ..Default::default()
        }
    }

    /// Runs `task` to its end; `level` is what the coordinator answers to the scan's figures.
    async fn run(&mut self, task: Task, level: api::Level) -> Ended {
        self.runs += 1;
        let run_id = uuid::Uuid::new_v4().to_string();
        let order = api::RunOrder { run_id: run_id.clone(), attempt: 1, task: Some(task), ..Default::default() };
        self.tell(FromCoordinator::Run(order)).await;
        let (mut scanned, mut notes) = (None, Vec::new());
        loop {
            let next = tokio::time::timeout(PATIENCE, self.link.recv()).await.expect("no report in time").unwrap();
            let Outgoing::Message(message) = next else { continue };
            let ToCoordinator::Report(report) = *message else { continue };
            let acknowledged =
                api::ReportAck { run_id: run_id.clone(), attempt: 1, sequence: report.sequence, ..Default::default() };
            match report.event.unwrap() {
                run_report::Event::Scanned(found) => {
                    scanned = Some(found);
                    let answer = api::LevelAnswer {
                        run_id: run_id.clone(),
                        attempt: 1,
                        level: level.into(),
                        ..Default::default()
                    };
                    self.tell(FromCoordinator::Level(answer)).await;
                }
                run_report::Event::Warnings(warnings) => notes.extend(warnings.notes),
                run_report::Event::Finished(finished) => {
                    let mut last = acknowledged;
                    last.set_disposition(api::Disposition::Forget);
                    self.tell(FromCoordinator::Ack(last)).await;
                    return Ended { scanned, notes, finished };
                }
                run_report::Event::Started(_) | run_report::Event::Sealed(_) => {}
            }
        }
    }

    async fn full(&mut self) -> Ended {
        let task = self.task(None, None);
        self.run(Task::Backup(task), api::Level::Full).await
    }

    async fn differential(&mut self, base: &Ended, newest: Option<&Ended>) -> Ended {
        let task = self.task(Some(base), newest);
        self.run(Task::Backup(task), api::Level::Differential).await
    }

    async fn restore(&mut self, full: &Ended, differential: Option<&Ended>, target: &str) -> Ended {
        let part = api::RestorePart {
            policy_name: "srv".to_owned(),
            full: Some(full.location()),
            differential: differential.map(Ended::location),
            paths: vec![b"srv".to_vec()],
            sources: vec![b"/srv".to_vec()],
            ..Default::default()
        };
        let task = api::RestoreTask {
            parts: vec![part],
            target_folder: target.as_bytes().to_vec(),
            overwrite: api::Overwrite::Never.into(),
            ..Default::default()
        };
        self.run(Task::Restore(task), api::Level::Unspecified).await
    }

    async fn tell(&self, message: FromCoordinator) {
        self.events.send(Event::Received(Box::new(message))).await.unwrap();
    }

    /// Every file of the archive folder, whatever its name.
    fn stored(&self) -> Vec<PathBuf> {
        let folder = self.store.folder().join("web-1/srv");
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn path(&self, ended: &Ended) -> PathBuf {
        self.store.path(&ended.location().key).unwrap()
    }

    async fn end(self) {
        assert!(self.life.finish(PATIENCE).await, "a task did not end");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_taken_and_each_of_its_states_comes_back() {
    let mut host = Host::start().await;
    host.write("stays", b"one");
    host.write("goes", b"two");
    let full = host.full().await;
    let sealed = full.backup().sealed.clone().unwrap();
    assert_eq!((sealed.ordinal, sealed.source_files, sealed.files), (1, 2, 2));
    let checks: Vec<&str> = full.backup().checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(checks, ["exists", "size", "readable", "digest", "sample", "tar"]);
    assert!(full.backup().checks.iter().all(|check| check.passed), "{full:?}");

    let unchanged = host.differential(&full, None).await;
    assert!(unchanged.scanned.as_ref().unwrap().equals_newest);
    let point = unchanged.backup().unchanged.clone().unwrap();
    assert_eq!((point.ordinal, point.source_files), (2, 2));
    assert_eq!(host.stored().len(), 1, "a state that is stored already is not stored again");

    fs::remove_file(host.source().join("goes")).unwrap();
    host.write("comes", b"three");
    let first = host.differential(&full, None).await;
    let scanned = first.scanned.as_ref().unwrap();
    assert_eq!((scanned.changed_files, scanned.changed_bytes, scanned.removed), (1, 5, 1));
    fs::remove_file(host.source().join("comes")).unwrap();
    let second = host.differential(&full, Some(&first)).await;
    assert_eq!(second.scanned.as_ref().unwrap().removed, 1);

    for (differential, expected) in
        [(None, vec!["goes", "stays"]), (Some(&first), vec!["comes", "stays"]), (Some(&second), vec!["stays"])]
    {
        let target = format!("/out/{}", expected.join("-"));
        let restored = host.restore(&full, differential, &target).await;
        assert_eq!(restored.finished.outcome(), api::Outcome::Succeeded, "{restored:?}");
        assert_eq!(restored.finished.warnings_total, 0, "{restored:?}");
        assert_eq!(names(&host.scratch.path().join("root").join(&target[1..]).join("srv")), expected);
    }
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_differential_that_went_back_to_the_fulls_state_is_stored_all_the_same() {
    let mut host = Host::start().await;
    host.write("stays", b"one");
    let full = host.full().await;
    host.write("comes", b"two");
    let first = host.differential(&full, None).await;
    fs::remove_file(host.source().join("comes")).unwrap();
    let back = host.differential(&full, Some(&first)).await;
    assert!(!back.scanned.as_ref().unwrap().equals_newest);
    assert!(back.backup().sealed.is_some(), "{back:?}");
    let restored = host.restore(&full, Some(&back), "/out").await;
    assert_eq!(restored.finished.outcome(), api::Outcome::Succeeded);
    assert_eq!(names(&host.scratch.path().join("root/out/srv")), ["stays"]);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_cannot_be_read_is_said_before_a_full_is_taken() {
    let mut host = Host::start().await;
    host.write("file", b"content");
    let full = host.full().await;
    fs::write(host.path(&full), b"something else").unwrap();
    let task = host.task(Some(&full), None);
    let raised = host.run(Task::Backup(task), api::Level::Full).await;
    assert!(raised.scanned.as_ref().unwrap().base_unavailable);
    assert_eq!(raised.backup().sealed.as_ref().unwrap().level(), api::Level::Full);
    assert!(raised.backup().sealed.as_ref().unwrap().base_backup_id.is_empty());
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_compared_with_the_newest_archive_that_can_be_read_and_a_run_says_when_none_can() {
    let unchecked = |ended: &Ended| ended.notes.iter().filter(|note| note.kind == "mounts_unchecked").count();
    let mut host = Host::start().await;
    host.write("a", b"a");
    let first = host.full().await;
    let second = host.full().await;
    assert_eq!((unchecked(&first), unchecked(&second)), (0, 0));
    fs::write(host.path(&second), b"no archive").unwrap();
    assert_eq!(unchecked(&host.full().await), 0, "the first one tells");
    for archive in host.stored() {
        fs::write(archive, b"no archive").unwrap();
    }
    let alone = host.full().await;
    assert_eq!((unchecked(&alone), alone.finished.warnings_total), (1, 1), "{alone:?}");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_exclude_makes_the_next_backup_a_full() {
    let mut host = Host::start().await;
    host.write("file", b"content");
    host.write("file.tmp", b"passing");
    let full = host.full().await;
    host.exclude = vec!["*.tmp".to_owned()];
    let task = host.task(Some(&full), None);
    let raised = host.run(Task::Backup(task), api::Level::Full).await;
    assert!(raised.scanned.as_ref().unwrap().selection_changed);
    assert_eq!(raised.backup().sealed.as_ref().unwrap().source_files, 1);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_gone_fails_the_run_and_stores_nothing() {
    let mut host = Host::start().await;
    host.write("file", b"content");
    let full = host.full().await;
    fs::rename(host.source(), host.scratch.path().join("root/elsewhere")).unwrap();
    let differential = host.differential(&full, None).await;
    assert_eq!((differential.fault(), differential.finished.retryable), (ErrorCode::SourceMissing.as_str(), false));
    let scheduled = host.full().await;
    assert_eq!(scheduled.fault(), ErrorCode::SourceMissing.as_str(), "a scheduled full too");
    assert_eq!(host.stored().len(), 1, "{:?}", host.stored());
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_named_and_never_restored() {
    let mut host = Host::start().await;
    let noise: Vec<u8> = (0..6_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    host.write("large", &noise);
    host.write("small", b"whole");
    let full = host.full().await;
    let path = host.path(&full);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();

    let task = api::VerifyTask { archives: vec![full.location()] };
    let verified = host.run(Task::Verify(task), api::Level::Unspecified).await;
    assert_eq!(verified.fault(), ErrorCode::ArchiveDamaged.as_str());
    let Some(finished::Result::Verify(found)) = &verified.finished.result else { panic!("{verified:?}") };
    assert!(found.archives[0].checks.iter().any(|check| !check.passed));
    assert!(verified.notes.iter().any(|note| note.path == b"srv/large" && note.kind == "damaged"), "{verified:?}");

    let restored = host.restore(&full, None, "/out").await;
    assert_eq!(restored.fault(), ErrorCode::ArchiveDamaged.as_str());
    let Some(finished::Result::Restore(result)) = &restored.finished.result else { panic!("{restored:?}") };
    assert_eq!(result.damaged, 1);
    assert_eq!(names(&host.scratch.path().join("root/out/srv")), ["small"], "the others come back");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_cannot_be_done_leaves_the_target_alone() {
    let mut host = Host::start().await;
    host.write("file", b"content");
    let full = host.full().await;
    fs::remove_file(host.path(&full)).unwrap();
    let restored = host.restore(&full, None, "/out").await;
    assert_eq!(restored.fault(), ErrorCode::ArchiveMissing.as_str());
    assert!(!host.scratch.path().join("root/out").exists());
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_below_a_link_stays_below_the_hosts_root() {
    let mut host = Host::start().await;
    host.write("file", b"content");
    let full = host.full().await;
    let root = host.scratch.path().join("root");
    fs::create_dir(root.join("place")).unwrap();
    std::os::unix::fs::symlink("/place", root.join("link")).unwrap();
    let restored = host.restore(&full, None, "/link/deeper").await;
    assert_eq!(restored.finished.outcome(), api::Outcome::Succeeded, "{restored:?}");
    assert_eq!(fs::read(root.join("place/deeper/srv/file")).unwrap(), b"content");
    let outside = host.restore(&full, None, "/../outside").await;
    assert_eq!(outside.fault(), ErrorCode::TargetUnusable.as_str());
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_own_state_is_left_out_and_said() {
    let mut host = Host::start().await;
    fs::create_dir(host.source().join("own-state")).unwrap();
    host.write("own-state/journal", b"never in a backup");
    host.write("file", b"content");
    let full = host.full().await;
    assert_eq!(full.backup().sealed.as_ref().unwrap().source_files, 1);
    let said = |note: &api::PathNote| note.path == b"srv/own-state" && note.kind == "own_state_left_out";
    assert!(full.notes.iter().any(said), "{:?}", full.notes);
    assert_eq!(full.finished.warnings_total, 0, "it is no warning");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_what_is_extra_spares_what_no_backup_holds() {
    let mut host = Host::start().await;
    host.write("file", b"content");
    let full = host.full().await;
    host.write("extra", b"not in the backup");
    fs::create_dir(host.source().join("own-state")).unwrap();
    host.write("own-state/journal", b"the agent's own");
    let _listener = std::os::unix::net::UnixListener::bind(host.source().join("socket")).unwrap();
    let part = api::RestorePart {
        full: Some(full.location()),
        paths: vec![b"srv".to_vec()],
        sources: vec![b"/srv".to_vec()],
        ..Default::default()
    };
    let task = api::RestoreTask {
        parts: vec![part],
        overwrite: api::Overwrite::IfChanged.into(),
        delete_extra: true,
        ..Default::default()
    };
    let restored = host.run(Task::Restore(task), api::Level::Unspecified).await;
    assert_eq!(restored.finished.outcome(), api::Outcome::Succeeded, "{restored:?}");
    assert_eq!(names(&host.source()), ["file", "own-state", "socket"]);
    assert_eq!(fs::read(host.source().join("own-state/journal")).unwrap(), b"the agent's own");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_a_backup_are_the_coordinators() {
    const HOUR_US: i64 = 3_600_000_000;
    let mut host = Host::start().await;
    let now = SystemClock.now().as_microsecond();
    let (link, outgoing) = mpsc::channel(64);
    host.greet(now + HOUR_US, link).await;
    host.link = outgoing;
    let sealed = host.full().await.backup().sealed.clone().unwrap();
    for at in [sealed.started_at_us, sealed.captured_at_us] {
        let ahead = at - SystemClock.now().as_microsecond();
        assert!((HOUR_US / 2..=HOUR_US).contains(&ahead), "{ahead} µs ahead of this clock");
    }
    assert!(sealed.captured_at_us >= sealed.started_at_us);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_is_read_out_of_a_chain_and_what_was_deleted_is_not() {
    let mut host = Host::start().await;
    host.write("kept", b"in the full");
    host.write("gone", b"in the full alone");
    fs::create_dir(host.source().join("folder")).unwrap();
    host.write("folder/inner", b"hidden by a file of that name");
    let full = host.full().await;
    fs::remove_file(host.source().join("gone")).unwrap();
    fs::remove_dir_all(host.source().join("folder")).unwrap();
    host.write("folder", b"a file now");
    let differential = host.differential(&full, None).await;

    let read = |path: &str| {
        let order = api::ReadFileOrder {
            path: path.as_bytes().to_vec(),
            full: Some(full.location()),
            differential: Some(differential.location()),
            ..Default::default()
        };
        let mut content = Vec::new();
        let mut take = |part| {
            if let Part::Data(data) = part {
                content.extend(data);
            }
            true
        };
        let ended = read_file(&host.store, &order, &mut take).map_err(|failure| failure.fault.code);
        ended.map(|()| content)
    };
    assert_eq!(read("srv/kept").unwrap(), b"in the full");
    assert_eq!(read("srv/folder").unwrap(), b"a file now");
    for absent in ["srv/gone", "srv/folder/inner", "srv/never"] {
        assert_eq!(read(absent).unwrap_err(), ErrorCode::NotFound, "{absent}");
    }
    assert_eq!(read("srv").unwrap_err(), ErrorCode::InvalidArgument, "a folder is no file");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_run_with_that_cause_and_leaves_no_half_archive() {
    let scratch = tempfile::tempdir().unwrap();
    let small = scratch.path().join("small");
    fs::create_dir(&small).unwrap();
    if let Err(errno) = rustix::mount::mount("tmpfs", &small, "tmpfs", MountFlags::empty(), Some(c"size=4m")) {
        eprintln!("left out: a small file system cannot be mounted here ({errno}); run as root with CAP_SYS_ADMIN");
        return;
    }
    let mut host = Host::start_with(scratch, &small.join("archives")).await;
    let noise: Vec<u8> = (0..2_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    host.write("large", &noise);
    let full = host.full().await;
    assert_eq!((full.fault(), full.finished.retryable), (ErrorCode::DiskFull.as_str(), true), "{full:?}");
    assert!(host.stored().is_empty(), "{:?}", host.stored());

    // The agent lives, and the next run that fits succeeds.
    host.write("large", b"small now");
    let fits = host.full().await;
    assert_eq!(fits.finished.outcome(), api::Outcome::Succeeded, "{fits:?}");
    host.end().await;
    rustix::mount::unmount(&small, UnmountFlags::DETACH).unwrap();
}
