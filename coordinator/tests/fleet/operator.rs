//! What operators see and do: a coordinator in this process, over real mTLS, with a scripted host.

use std::collections::HashMap;

use super::support::{DEADLINE, Fleet, wait_for};
use coord_archive::digest::Digest;
use coord_archive::entry::{Attributes, Entry, FileTime, Flags, Identity, Kind};
use coord_shared::api::agent_message::Message as ToCoordinator;
use coord_shared::api::agent_service_client::AgentServiceClient;
use coord_shared::api::coordinator_message::Message as ToAgent;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_order::Task;
use coord_shared::api::run_report::Event;
use coord_shared::api::{self, AgentMessage};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{ArchiveStoreId, BackupId, InstanceId};
use coord_shared::wire::to_us;
use jiff::{Timestamp, ToSpan};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

pub(super) type Operator = OperatorServiceClient<Channel>;

fn policy(name: &str, sources: &str) -> String {
    format!("name = \"{name}\"\nhosts = \"env = test\"\nsources = {sources}\nschedule = {{ cron = \"0 3 1 1 *\" }}\n")
}

pub(super) fn refused<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) -> Fault {
    Fault::from(answer.unwrap_err())
}

/// A host that does what it is told, without a file system.
pub(super) struct Host {
    name: String,
    say: mpsc::Sender<AgentMessage>,
    hear: Streaming<api::CoordinatorMessage>,
}

impl Host {
    pub(super) async fn join(fleet: &Fleet, name: &str) -> Host {
        Host::join_at(fleet, name, None).await
    }

    pub(super) async fn join_at(fleet: &Fleet, name: &str, store: Option<ArchiveStoreId>) -> Host {
        let member = fleet.agent(name).await;
        let mut client = AgentServiceClient::new(member.tls.connect(&fleet.main).await.unwrap());
        let (say, messages) = mpsc::channel(64);
        let hello = api::Hello {
            instance_id: InstanceId::random().to_string(),
            sent_at_us: to_us(Timestamp::now()),
            archive_folder: b"/archives".to_vec(),
            archive_store_id: store.map_or_else(String::new, |store| store.to_string()),
            ..Default::default()
        };
        say.send(AgentMessage { message: Some(ToCoordinator::Hello(hello)) }).await.unwrap();
        let hear = client.session(tokio_stream::wrappers::ReceiverStream::new(messages)).await.unwrap().into_inner();
        let mut host = Host { name: name.to_owned(), say, hear };
        host.wait(|message| matches!(message, ToAgent::HelloAnswer(_)).then_some(())).await;
        host
    }

    pub(super) async fn wait<T>(&mut self, pick: impl Fn(ToAgent) -> Option<T>) -> T {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.hear.message()).await.unwrap().unwrap();
            if let Some(picked) = pick(message.unwrap().message.unwrap()) {
                return picked;
            }
        }
    }

    pub(super) async fn order(&mut self) -> api::RunOrder {
        self.wait(|message| if let ToAgent::Run(order) = message { Some(order) } else { None }).await
    }

    pub(super) async fn report(&mut self, order: &api::RunOrder, sequence: u64, event: Event) {
        let report =
            api::RunReport { run_id: order.run_id.clone(), attempt: order.attempt, sequence, event: Some(event) };
        self.say.send(AgentMessage { message: Some(ToCoordinator::Report(report)) }).await.unwrap();
        self.wait(|message| matches!(message, ToAgent::Ack(ack) if ack.sequence == sequence).then_some(())).await;
    }

    /// Reports the backup that was ordered as done.
    pub(super) async fn finish(&mut self, order: &api::RunOrder, captured_at: Timestamp, entries: &[Entry]) {
        let Some(Task::Backup(task)) = &order.task else { panic!("not a backup: {order:?}") };
        self.report(order, 1, finished(task, captured_at, entries)).await;
    }

    /// Does the backup that is ordered next, of these entries, and puts them into the catalog.
    pub(super) async fn back_up(&mut self, fleet: &Fleet, captured_at: Timestamp, entries: Vec<Entry>) -> BackupId {
        let order = self.order().await;
        let Some(Task::Backup(task)) = order.task.clone() else { panic!("not a backup: {order:?}") };
        self.report(&order, 1, finished(&task, captured_at, &entries)).await;
        let id: BackupId = task.backup_id.parse().unwrap();
        let host = fleet.catalog.backup(id).await.unwrap().unwrap().host;
        let mut intake = fleet.catalog.index_intake(id, host).await.unwrap().unwrap();
        intake.store_block(0, &entries).await.unwrap();
        wait_for("the entries to be searchable", || async {
            let backup = fleet.catalog.backup(id).await.unwrap().unwrap();
            (backup.searchable == coordinator::catalog::Searchable::Searchable).then_some(())
        })
        .await;
        id
    }
}

fn finished(task: &api::BackupTask, captured_at: Timestamp, entries: &[Entry]) -> Event {
    let sealed = api::Sealed {
        level: task.level,
        location: Some(api::ArchiveLocation {
            folder: b"/archives".to_vec(),
            key: format!("one/web/{}.tar.zst", task.backup_id),
            archive_digest: vec![7; 32],
            stored_bytes: 1000,
            backup_id: task.backup_id.clone(),
            level: task.level,
            codec: api::Codec::Zstd.into(),
        }),
        ordinal: task.ordinal_floor,
        backup_id: task.backup_id.clone(),
        base_backup_id: task.base.as_ref().map(|base| base.backup_id.clone()).unwrap_or_default(),
        selection_digest: vec![1; 32],
        started_at_us: to_us(captured_at) - 1_000_000,
        captured_at_us: to_us(captured_at),
        entries: entries.len() as u64,
        files: 2,
        content_bytes: 4000,
        source_files: 2,
        source_bytes: 4000,
        index_blocks: 1,
        scan_ms: 10,
        pack_ms: 1000,
        effort: Some(api::Effort { threads: 2, read_us: 500_000, compress_us: 1_500_000, ..Default::default() }),
        ..Default::default()
    };
    let check = api::Check { name: "digest".into(), passed: true, detail: "2 files".into() };
    let result = api::BackupResult { sealed: Some(sealed), unchanged: None, checks: vec![check], verify_ms: 5 };
    Event::Finished(api::Finished {
        outcome: api::Outcome::Succeeded.into(),
        finished_at_us: to_us(captured_at),
        result: Some(api::finished::Result::Backup(result)),
        ..Default::default()
    })
}

fn entry(path: &str, kind: Kind, size: u64) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        flags: Flags::default(),
        size,
        attributes: Attributes {
            mode: 0o644,
            uid: 0,
            gid: 0,
            user: Vec::new(),
            group: Vec::new(),
            mtime: FileTime { seconds: 1_700_000_000, nanos: 5 },
            inode_flags: 0,
            xattrs: Vec::new(),
        },
        identity: Identity::default(),
        link_target: Vec::new(),
        device: (0, 0),
        link_group: 0,
        data_ranges: None,
        digest: (kind == Kind::File).then(|| Digest::of(path.as_bytes())),
        pieces: Vec::new(),
        content: None,
    }
}

/// A root with a folder and two files in it.
pub(super) fn tree(folder: &str, size: u64) -> Vec<Entry> {
    vec![
        entry("", Kind::Folder, 0),
        entry(folder, Kind::Folder, 0),
        entry(&format!("{folder}/hosts"), Kind::File, size),
        entry(&format!("{folder}/nginx"), Kind::Folder, 0),
        entry(&format!("{folder}/nginx/nginx.conf"), Kind::File, 2 * size),
    ]
}

pub(super) async fn apply(operator: &mut Operator, toml: &str) -> api::AppliedPolicy {
    let request = api::ApplyPolicyRequest { toml: toml.into(), dry_run: false, ..Default::default() };
    operator.apply_policy(request).await.unwrap().into_inner()
}

pub(super) async fn start(operator: &mut Operator, policy: &str) -> Result<Response<api::Run>, Status> {
    let request = api::StartBackupRequest { host: "one".into(), policy: policy.into(), ..Default::default() };
    operator.start_backup(request).await
}

async fn ls(operator: &mut Operator, path: &str, recursive: bool) -> Result<Vec<api::File>, Fault> {
    let request = api::ListFilesRequest { host: "one".into(), path: path.into(), recursive, ..Default::default() };
    let mut batches = operator.list_files(request).await.map_err(Fault::from)?.into_inner();
    let mut files = Vec::new();
    while let Some(batch) = batches.message().await.map_err(Fault::from)? {
        files.extend(batch.files);
    }
    Ok(files)
}

fn paths(files: &[api::File]) -> Vec<String> {
    files.iter().map(|file| String::from_utf8(file.path.clone()).unwrap()).collect()
}

pub(super) fn restore(paths: &[&str], at: Option<Timestamp>) -> api::RestoreRequest {
    api::RestoreRequest {
        host: "one".into(),
        paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
        at: at.map(|at| api::At { at: Some(api::at::At::InstantUs(to_us(at))) }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_becomes_a_job_and_a_backup_that_explains_itself() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    let text = policy("web", "[\"/etc\"]");

    let lint = operator.lint_policy(api::LintPolicyRequest { toml: text.clone() }).await.unwrap().into_inner();
    assert_eq!(
        (lint.errors.len(), lint.hosts.as_slice(), lint.next_due_at_us.len()),
        (0, ["one".to_owned()].as_slice(), 5)
    );
    let dry = api::ApplyPolicyRequest { toml: text.clone(), dry_run: true, ..Default::default() };
    let dry = operator.apply_policy(dry).await.unwrap().into_inner();
    assert_eq!((dry.change.as_str(), dry.hosts_added.as_slice()), ("created", ["one".to_owned()].as_slice()));
    assert_eq!(
        operator.list_policies(api::ListPoliciesRequest {}).await.unwrap().into_inner().policies.len(),
        0,
        "nothing was done"
    );
    assert_eq!(apply(&mut operator, &text).await.change, "created");
    assert_eq!(apply(&mut operator, &text).await.change, "unchanged");

    let run = start(&mut operator, "").await.unwrap().into_inner();
    let again = start(&mut operator, "web").await.unwrap().into_inner();
    assert_eq!((again.id.as_str(), again.was_there), (run.id.as_str(), true));
    let backup = host.back_up(&fleet, Timestamp::now(), tree("etc", 100)).await;

    let run = operator.get_run(api::GetRunRequest { run: run.id[..8].to_owned() }).await.unwrap().into_inner();
    assert_eq!((run.state(), run.backup_id.as_str()), (api::RunState::Succeeded, backup.to_string().as_str()));
    assert_eq!((run.attempts.len(), run.checks.len(), run.asked_by.as_str()), (1, 1, "admin"));
    let spent = |stage: &str| run.spent.iter().find(|spent| spent.stage == stage).map_or(0, |spent| spent.ms);
    assert_eq!(
        (spent("scan"), spent("read"), spent("compress"), spent("verify")),
        (10, 250, 750, 5),
        "{:?}",
        run.spent
    );
    assert_eq!(run.limited_by, "compress");
    let why = operator.explain(api::ExplainRequest { subject: "one/web".into() }).await.unwrap().into_inner();
    assert_eq!(why.decisions.len(), 1);
    assert_eq!(why.decisions[0].options.len(), 2);
    for subject in ["one", &backup.to_string()[..8], &run.id[..8]] {
        let why = operator.explain(api::ExplainRequest { subject: subject.to_owned() }).await.unwrap().into_inner();
        assert_eq!(why.decisions[0].run_id, run.id, "{subject}");
    }
    let job =
        operator.get_job(api::GetJobRequest { host: "one".into(), policy: String::new() }).await.unwrap().into_inner();
    assert_eq!(job.newest_full.unwrap().id, backup.to_string());
    let status = operator.get_status(api::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!((status.hosts, status.hosts_connected, status.jobs, status.jobs_protected), (1, 1, 1, 1), "{status:?}");
    assert_eq!((status.backups, status.stored_bytes, status.troubles.len()), (1, 1000, 0), "{status:?}");

    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hosts_have_more_than_once_is_counted_within_each_and_over_all() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut one = Host::join(&fleet, "one").await;
    apply(&mut operator, &policy("web", "[\"/etc\"]")).await;
    start(&mut operator, "web").await.unwrap();
    let copy = Entry { digest: Some(Digest::of(b"etc/hosts")), ..entry("etc/hosts.old", Kind::File, 100) };
    let mut entries = tree("etc", 100);
    entries.insert(3, copy);
    one.back_up(&fleet, Timestamp::now(), entries).await;
    let mut two = Host::join(&fleet, "two").await;
    let again = api::StartBackupRequest { host: "two".into(), policy: "web".into(), ..Default::default() };
    operator.start_backup(again).await.unwrap();
    two.back_up(&fleet, Timestamp::now(), tree("etc", 100)).await;

    let ask = |host: &str| api::ReportDedupRequest { host: host.to_owned() };
    let report = operator.report_dedup(ask("")).await.unwrap().into_inner();
    let found = |figures: Option<api::Duplication>| figures.map(|x| (x.files, x.bytes, x.contents, x.unique_bytes));
    let names: Vec<&str> = report.hosts.iter().map(|host| host.host.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(found(report.hosts[0].figures), Some((3, 400, 2, 300)));
    assert_eq!(found(report.hosts[1].figures), Some((2, 300, 2, 300)), "it has each once");
    assert_eq!(found(report.overall), Some((5, 700, 2, 300)), "what both have counts once");
    let report = operator.report_dedup(ask("one")).await.unwrap().into_inner();
    assert_eq!((report.hosts.len(), found(report.overall)), (1, Some((3, 400, 2, 300))));
    assert_eq!(refused(operator.report_dedup(ask("three")).await).code, ErrorCode::NotFound);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_listed_and_brought_back() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &policy("web", "[\"/etc\"]")).await;
    start(&mut operator, "web").await.unwrap();
    let captured_at = Timestamp::now();
    let backup = host.back_up(&fleet, captured_at, tree("etc", 100)).await;

    assert_eq!(paths(&ls(&mut operator, "", false).await.unwrap()), ["etc"]);
    assert_eq!(paths(&ls(&mut operator, "etc", false).await.unwrap()), ["etc/hosts", "etc/nginx"]);
    assert_eq!(
        paths(&ls(&mut operator, "", true).await.unwrap()),
        ["etc", "etc/hosts", "etc/nginx", "etc/nginx/nginx.conf"]
    );
    let file = ls(&mut operator, "etc/hosts", false).await.unwrap();
    assert_eq!((file[0].kind.as_str(), file[0].size_bytes, file[0].mtime_ns), ("file", 100, 5));
    assert_eq!(ls(&mut operator, "etc/absent", false).await.unwrap_err().code, ErrorCode::NotFound);

    let plan = operator.plan_restore(restore(&["etc/nginx"], None)).await.unwrap().into_inner();
    assert_eq!((plan.files, plan.bytes, plan.archives), (1, 200, 1));
    assert_eq!(plan.points[0].backup_id, backup.to_string());
    let started = operator.start_restore(restore(&["etc/nginx"], Some(captured_at))).await.unwrap().into_inner();
    let order = host.order().await;
    let Some(Task::Restore(task)) = &order.task else { panic!("not a restore: {order:?}") };
    assert_eq!(task.parts[0].paths, [b"etc/nginx".to_vec()]);
    assert_eq!(task.parts[0].sources, [b"/etc".to_vec()]);
    assert_eq!(task.parts[0].exclude, ["*.tmp", "*.log"]);
    assert_eq!(task.parts[0].full.as_ref().unwrap().backup_id, backup.to_string());
    assert_eq!((task.parts[0].differential.as_ref(), task.overwrite()), (None, api::Overwrite::Never));
    let result = api::RestoreResult { restored: 1, verified: 1, bytes: 200, ..Default::default() };
    let done = api::Finished {
        outcome: api::Outcome::Succeeded.into(),
        result: Some(api::finished::Result::Restore(result)),
        ..Default::default()
    };
    host.report(&order, 1, Event::Finished(done)).await;
    let watched = api::GetRunRequest { run: started.run.unwrap().id };
    let mut states = operator.watch_run(watched).await.unwrap().into_inner();
    let mut last = None;
    while let Some(run) = states.message().await.unwrap() {
        last = Some(run);
    }
    assert_eq!(last.unwrap().restore.unwrap(), result, "the stream ends with the result");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_files_cannot_be_counted_in_time_begins_all_the_same() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &policy("web", "[\"/etc\"]")).await;
    start(&mut operator, "web").await.unwrap();
    host.back_up(&fleet, Timestamp::now(), tree("etc", 100)).await;

    // As a tree of many million files would keep them busy.
    let (mut client, connection) = tokio_postgres::connect(&fleet.url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let busy = client.transaction().await.unwrap();
    busy.batch_execute("LOCK TABLE file_versions").await.unwrap();
    let started = operator.start_restore(restore(&["etc"], None)).await.unwrap().into_inner();
    let plan = started.plan.unwrap();
    assert_eq!((plan.files, plan.at_least), (0, true));
    assert!(plan.notes[0].contains("how many there are is not known"), "{:?}", plan.notes);
    let order = host.order().await;
    assert_eq!(order.run_id, started.run.unwrap().id);
    busy.commit().await.unwrap();
    let plan = operator.plan_restore(restore(&["etc"], None)).await.unwrap().into_inner();
    assert_eq!((plan.files, plan.at_least), (2, false));
    drop(client);
    connection.await.unwrap().unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_what_could_not_be_read_names_the_last_backup_that_read_it() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &policy("web", "[\"/etc\"]")).await;
    let unread = |mut entries: Vec<Entry>| {
        for entry in entries.iter_mut().filter(|entry| entry.path == b"etc/hosts") {
            (entry.flags, entry.digest) = (Flags::UNREAD, None);
        }
        entries
    };
    // Read twice, then twice not.
    let mut backups = Vec::new();
    let now = Timestamp::now();
    for (hours_ago, entries) in [
        (4, tree("etc", 50)),
        (3, tree("etc", 100)),
        (2, unread(tree("etc", 100))),
        (1, unread([tree("etc", 100), vec![entry("new", Kind::File, 1)]].concat())),
    ] {
        let request = api::StartBackupRequest {
            host: "one".into(),
            policy: "web".into(),
            level: api::Level::Full.into(),
            ..Default::default()
        };
        operator.start_backup(request).await.unwrap();
        backups.push(host.back_up(&fleet, now - hours_ago.hours(), entries).await);
    }
    operator.start_restore(restore(&["etc"], None)).await.unwrap();
    let order = host.order().await;
    let note = |path: &str, kind: &str| api::PathNote { path: path.into(), kind: kind.into(), detail: String::new() };
    let notes = vec![note("etc/hosts", "unread"), note("etc/never", "stale"), note("etc/nginx", "different")];
    host.report(&order, 1, Event::Warnings(api::Warnings { notes })).await;
    let request = api::ListRunWarningsRequest { run: order.run_id.clone(), limit: 0 };
    let warnings = operator.list_run_warnings(request).await.unwrap().into_inner();
    let said: HashMap<String, String> =
        warnings.notes.into_iter().map(|note| (String::from_utf8(note.path).unwrap(), note.detail)).collect();
    assert!(said["etc/hosts"].contains(&backups[1].short()), "{said:?}");
    assert_eq!((said["etc/never"].as_str(), said["etc/nginx"].as_str()), ("no backup that is kept has read it", ""));
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_what_there_is_instead() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &policy("web", "[\"/etc\"]")).await;

    let unknown = refused(operator.get_host(api::GetHostRequest { host: "onn".into() }).await);
    assert_eq!((unknown.code, unknown.hint.contains("did you mean one?")), (ErrorCode::NotFound, true), "{unknown:?}");
    let unknown = refused(start(&mut operator, "wep").await);
    assert!(unknown.hint.contains("did you mean web?"), "{unknown:?}");
    let wrong = api::ApplyPolicyRequest { toml: "name = \"x\"\nsourcs = []".into(), ..Default::default() };
    let wrong = refused(operator.apply_policy(wrong).await);
    assert_eq!(wrong.code, ErrorCode::InvalidPolicy);
    assert!(wrong.message.contains("sourcs"), "{wrong:?}");
    let selector = api::ListHostsRequest { selector: "env in".into(), ..Default::default() };
    assert_eq!(refused(operator.list_hosts(selector).await).code, ErrorCode::InvalidArgument);
    let label = api::LabelHostRequest {
        host: "one".into(),
        set: HashMap::from([("a b".into(), "c".into())]),
        ..Default::default()
    };
    assert_eq!(refused(operator.label_host(label).await).code, ErrorCode::InvalidArgument);

    let early = refused(operator.plan_restore(restore(&[], None)).await);
    assert_eq!(early.code, ErrorCode::NothingToRestore, "{early:?}");
    start(&mut operator, "web").await.unwrap();
    let captured_at = Timestamp::now();
    host.back_up(&fleet, captured_at, tree("etc", 1)).await;
    let before = refused(operator.start_restore(restore(&[], captured_at.checked_sub(1.hour()).ok())).await);
    assert_eq!(before.code, ErrorCode::NothingToRestore, "{before:?}");
    assert!(before.hint.contains("first restore point"), "{before:?}");
    let outside = refused(operator.plan_restore(restore(&["home"], None)).await);
    assert_eq!(outside.code, ErrorCode::OutsideEveryPolicy);
    assert!(outside.message.contains("/etc (web)"), "{outside:?}");
    let dots = refused(operator.plan_restore(restore(&["etc/../root"], None)).await);
    assert_eq!(dots.code, ErrorCode::InvalidArgument);
    let folder = api::RestoreRequest { to_folder: b"relative".to_vec(), ..restore(&[], None) };
    assert_eq!(refused(operator.plan_restore(folder).await).code, ErrorCode::InvalidArgument);
    let file = api::ReadFileRequest { host: "one".into(), path: b"etc/nginx".to_vec(), ..Default::default() };
    assert!(Fault::from(operator.read_file(file).await.unwrap_err()).message.contains("is a folder"));

    let run = start(&mut operator, "web").await.unwrap().into_inner();
    let cancel = api::CancelRunRequest { run: run.id.clone() };
    operator.cancel_run(cancel.clone()).await.unwrap();
    operator.cancel_run(cancel).await.unwrap();
    let ended = operator.list_runs(api::ListRunsRequest::default()).await.unwrap().into_inner().runs;
    let succeeded = ended.iter().find(|run| run.state() == api::RunState::Succeeded).unwrap();
    let too_late = refused(operator.cancel_run(api::CancelRunRequest { run: succeeded.id.clone() }).await);
    assert_eq!((too_late.code, too_late.message.contains("has ended")), (ErrorCode::NotNow, true));
    assert_eq!(
        refused(operator.get_run(api::GetRunRequest { run: "00000000".into() }).await).code,
        ErrorCode::NotFound
    );
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_begin_and_end_jobs_and_backups_stay() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &policy("web", "[\"/etc\"]")).await;
    start(&mut operator, "web").await.unwrap();
    host.back_up(&fleet, Timestamp::now(), tree("etc", 1)).await;
    let label = |value: &str| api::LabelHostRequest {
        host: "one".into(),
        set: HashMap::from([("env".to_owned(), value.to_owned())]),
        ..Default::default()
    };
    let labelled = operator.label_host(label("prod")).await.unwrap().into_inner();
    assert_eq!((labelled.policies.len(), labelled.labels["env"].as_str()), (0, "prod"));
    assert_eq!(refused(start(&mut operator, "web").await).code, ErrorCode::NotNow);
    assert!(operator.plan_restore(restore(&[], None)).await.is_ok(), "what was protected can be restored");
    let status = operator.get_status(api::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!((status.jobs, status.troubles[0].what.as_str()), (0, "no policy protects it"));
    let labelled = operator.label_host(label("test")).await.unwrap().into_inner();
    assert_eq!(labelled.policies, ["web"]);
    let jobs =
        operator.list_jobs(api::ListJobsRequest { selector: "env!=test".into(), ..Default::default() }).await.unwrap();
    assert_eq!(jobs.into_inner().jobs.len(), 0);
    let request = api::ListHostsRequest { name: "o*".into(), selector: "env=test".into() };
    assert_eq!(operator.list_hosts(request).await.unwrap().into_inner().hosts.len(), 1);
    assert_eq!(host.name, "one");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_policies_over_one_folder_the_newer_backup_answers() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &policy("etc", "[\"/etc\"]")).await;
    let applied = apply(&mut operator, &policy("nginx", "[\"/etc/nginx\"]")).await;
    assert!(applied.warnings.iter().any(|warning| warning.message.contains("policy etc protects")), "{applied:?}");
    let now = Timestamp::now();
    start(&mut operator, "etc").await.unwrap();
    let older = host.back_up(&fleet, now.checked_sub(1.hour()).unwrap(), tree("etc", 10)).await;
    start(&mut operator, "nginx").await.unwrap();
    let mut inner = tree("etc", 77);
    inner.remove(2);
    let newer = host.back_up(&fleet, now, inner).await;

    let files = ls(&mut operator, "", true).await.unwrap();
    assert_eq!(paths(&files), ["etc", "etc/hosts", "etc/nginx", "etc/nginx/nginx.conf"]);
    let seen: Vec<(&str, u64)> = files.iter().map(|file| (file.policy.as_str(), file.size_bytes)).collect();
    assert_eq!(seen, [("etc", 0), ("etc", 10), ("nginx", 0), ("nginx", 154)]);
    operator.start_restore(restore(&[], None)).await.unwrap();
    let order = host.order().await;
    let Some(Task::Restore(task)) = order.task else { panic!("not a restore") };
    let parts: Vec<_> =
        task.parts.iter().map(|part| (part.backup_id.clone(), part.paths.clone(), part.except_paths.clone())).collect();
    assert_eq!(
        parts,
        [
            (newer.to_string(), vec![b"etc/nginx".to_vec()], vec![]),
            (older.to_string(), vec![b"etc".to_vec()], vec![b"etc/nginx".to_vec()]),
        ]
    );
    let chosen = api::RestoreRequest { policy: "etc".into(), ..restore(&["etc/nginx"], None) };
    let chosen = operator.plan_restore(chosen).await.unwrap().into_inner();
    assert_eq!(chosen.points[0].backup_id, older.to_string());
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_shows_its_secret_once_and_can_be_ended() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let request =
        api::CreateTokenRequest { labels: HashMap::from([("env".into(), "test".into())]), ..Default::default() };
    let created = operator.create_token(request).await.unwrap().into_inner();
    assert!(
        created.secret_line.starts_with("coord1.") && created.join_command.contains(&fleet.enrolment),
        "{created:?}"
    );
    let token = created.token.unwrap();
    let listed = operator.list_tokens(api::ListTokensRequest {}).await.unwrap().into_inner().tokens;
    assert!(listed.iter().any(|listed| listed.id == token.id && listed.state == "active" && listed.uses_left == 1));
    let key = rcgen::KeyPair::generate().unwrap();
    let secret = created.secret_line.parse().unwrap();
    let revoked =
        operator.revoke_token(api::RevokeTokenRequest { id: token.id[..8].to_owned() }).await.unwrap().into_inner();
    assert_eq!(revoked.state, "revoked");
    assert_eq!(fleet.join(&secret, "late", &key).await.unwrap_err().code, ErrorCode::TokenRevoked);
    for wrong in [
        api::CreateTokenRequest { kind: "robot".into(), ..Default::default() },
        api::CreateTokenRequest {
            kind: "operator".into(),
            user: "ada".into(),
            role: "king".into(),
            ..Default::default()
        },
        api::CreateTokenRequest { ttl_s: 30 * 86_400, ..Default::default() },
        api::CreateTokenRequest { host: "Not A Name".into(), ..Default::default() },
        api::CreateTokenRequest { host: "two".into(), uses: 2, ..Default::default() },
    ] {
        assert_eq!(refused(operator.create_token(wrong).await).code, ErrorCode::InvalidArgument);
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_a_race_left_out_of_step_are_mended_at_the_next_start() {
    let mut fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let host = fleet.agent("one").await.subject.parse().unwrap();
    apply(&mut operator, &policy("web", "[\"/etc\"]")).await;
    // What a joining host would write that had read the policies a moment too early.
    fleet.catalog.set_host_jobs(host, &[]).await.unwrap();
    fleet.restart().await;
    wait_for("the job to be there again", || async {
        let jobs = fleet.catalog.jobs(coordinator::catalog::JobFilter::default()).await.unwrap();
        (jobs.len() == 1 && jobs[0].state == coordinator::catalog::JobState::Active).then_some(())
    })
    .await;
    fleet.stop().await;
}
