//! Runs seen from a host: a scripted agent over real mTLS, against coordinators in this process with a database of their own.

use std::time::Duration;

use crate::support::{DEADLINE, Fleet, Member, wait_for};
use coord_shared::api::agent_message::Message as ToCoordinator;
use coord_shared::api::agent_service_client::AgentServiceClient;
use coord_shared::api::coordinator_message::Message as ToAgent;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_order::Task;
use coord_shared::api::run_report::Event;
use coord_shared::api::{self, AgentMessage, Disposition};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{BackupId, InstanceId, RunId};
use coord_shared::run::{RunKind, RunState};
use coord_shared::tls::PeerKind;
use coord_shared::wire::to_us;
use coordinator::catalog::{AskedRun, BackupFilter, BackupStatus, JobFilter, RunFilter, ScheduleOutcome, ScheduleStep};
use coordinator::domain::timing::Owing;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::Channel;

pub const POLICY: &str = "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = { cron = \"0 3 1 1 *\", zone = \"UTC\" }\n";

/// The agent's side of one session.
pub struct Script {
    say: mpsc::Sender<AgentMessage>,
    hear: Streaming<api::CoordinatorMessage>,
    pub greeting: api::HelloAnswer,
}

pub async fn dial(fleet: &Fleet, member: &Member, hello: api::Hello) -> Result<Script, Fault> {
    dial_at(&fleet.main, member, hello).await
}

/// The same at the coordinator whose main listener is named.
pub async fn dial_at(main: &str, member: &Member, hello: api::Hello) -> Result<Script, Fault> {
    let mut client = AgentServiceClient::new(member.tls.connect(main).await.unwrap());
    let (say, messages) = mpsc::channel(64);
    say.send(AgentMessage { message: Some(ToCoordinator::Hello(hello)) }).await.unwrap();
    let hear = client.session(tokio_stream::wrappers::ReceiverStream::new(messages)).await?.into_inner();
    let mut script = Script { say, hear, greeting: api::HelloAnswer::default() };
    match script.next().await? {
        ToAgent::HelloAnswer(answer) => script.greeting = answer,
        other => panic!("the first message is {other:?}"),
    }
    Ok(script)
}

pub fn hello(instance: InstanceId) -> api::Hello {
    api::Hello { instance_id: instance.to_string(), sent_at_us: to_us(jiff::Timestamp::now()), ..Default::default() }
}

impl Script {
    async fn next(&mut self) -> Result<ToAgent, Fault> {
        let message = tokio::time::timeout(DEADLINE, self.hear.message()).await.unwrap()?;
        Ok(message.unwrap().message.unwrap())
    }

    /// The next message that `pick` wants; others are passed over.
    pub async fn wait<T>(&mut self, pick: impl Fn(ToAgent) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.next().await.unwrap()) {
                return picked;
            }
        }
    }

    pub async fn order(&mut self) -> api::RunOrder {
        self.wait(|message| if let ToAgent::Run(order) = message { Some(order) } else { None }).await
    }

    /// Says something that a later version may say, and nobody here understands.
    pub async fn say_what_nobody_knows(&mut self) {
        self.say.send(AgentMessage { message: None }).await.unwrap();
    }

    pub async fn report(&mut self, order: &api::RunOrder, sequence: u64, event: Event) -> Disposition {
        let report =
            api::RunReport { run_id: order.run_id.clone(), attempt: order.attempt, sequence, event: Some(event) };
        self.say.send(AgentMessage { message: Some(ToCoordinator::Report(report)) }).await.unwrap();
        let ack = |message| match message {
            ToAgent::Ack(ack) if ack.sequence == sequence => Some(ack.disposition()),
            _ => None,
        };
        self.wait(ack).await
    }
}

pub fn backup_of(order: &api::RunOrder) -> api::BackupTask {
    match order.task.clone().unwrap() {
        Task::Backup(task) => task,
        other => panic!("not a backup: {other:?}"),
    }
}

/// The final report of a backup that sealed an archive.
pub fn finished(task: &api::BackupTask) -> Event {
    let now = to_us(jiff::Timestamp::now());
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
        started_at_us: now - 1_000_000,
        captured_at_us: now,
        entries: 10,
        files: 5,
        content_bytes: 4000,
        source_files: 5,
        source_bytes: 4000,
        index_blocks: 1,
        ..Default::default()
    };
    let check = api::Check { name: "digest".into(), passed: true, detail: "5 files".into() };
    let result = api::BackupResult { sealed: Some(sealed), unchanged: None, checks: vec![check], verify_ms: 5 };
    Event::Finished(api::Finished {
        outcome: api::Outcome::Succeeded.into(),
        finished_at_us: now,
        result: Some(api::finished::Result::Backup(result)),
        ..Default::default()
    })
}

pub async fn apply(admin: &Channel, toml: &str) {
    let request = api::ApplyPolicyRequest { toml: toml.into(), dry_run: false, ..Default::default() };
    OperatorServiceClient::new(admin.clone()).apply_policy(request).await.unwrap();
}

pub async fn start_backup(admin: &Channel, level: api::Level) -> api::Run {
    let request =
        api::StartBackupRequest { host: "one".into(), policy: "web".into(), level: level.into(), ..Default::default() };
    OperatorServiceClient::new(admin.clone()).start_backup(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_commits_once_whatever_its_agent_repeats() {
    let fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    apply(&admin, POLICY).await;
    let mut agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    assert_eq!(agent.greeting.host_name, "one");
    start_backup(&admin, api::Level::Unspecified).await;
    let order = agent.order().await;
    let task = backup_of(&order);
    assert_eq!(task.level(), api::Level::Full, "there is no full yet");
    assert_eq!((task.policy_name.as_str(), task.ordinal_floor), ("web", 1));
    let started = Event::Started(api::Started { started_at_us: 1, ..Default::default() });
    assert_eq!(agent.report(&order, 1, started.clone()).await, Disposition::Continue);
    assert_eq!(agent.report(&order, 1, started).await, Disposition::Continue);
    assert_eq!(agent.report(&order, 2, finished(&task)).await, Disposition::Forget);
    assert_eq!(agent.report(&order, 2, finished(&task)).await, Disposition::Forget);
    let backups = fleet.catalog.backups(BackupFilter::default()).await.unwrap();
    assert_eq!(backups.len(), 1);
    assert_eq!(backups[0].id.to_string(), task.backup_id);
    let runs = fleet.catalog.runs(RunFilter::default()).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.machine.state).collect::<Vec<_>>(), [RunState::Succeeded]);
    // The next one stands on it, and the engine hears the exact figures.
    start_backup(&admin, api::Level::Unspecified).await;
    let order = agent.order().await;
    let task = backup_of(&order);
    // On the weekday of the full the first one already counts for that day.
    assert_eq!(task.level(), api::Level::Differential);
    assert_eq!(task.base.as_ref().unwrap().backup_id, backups[0].id.to_string());
    let scanned = api::Scanned { source_bytes: 4000, changed_bytes: 3999, ..Default::default() };
    let report = api::RunReport {
        run_id: order.run_id.clone(),
        attempt: order.attempt,
        sequence: 1,
        event: Some(Event::Scanned(scanned)),
    };
    agent.say.send(AgentMessage { message: Some(ToCoordinator::Report(report)) }).await.unwrap();
    let level = agent.wait(|message| if let ToAgent::Level(level) = message { Some(level) } else { None }).await;
    assert_eq!(level.level(), api::Level::Full, "over the threshold");
    let decisions = fleet.catalog.decisions_of_run(order.run_id.parse().unwrap()).await.unwrap();
    assert_eq!(
        decisions.iter().map(|record| record.decision.rule.as_str()).collect::<Vec<_>>(),
        ["differential", "exact_over_threshold"]
    );
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_lives_on_through_a_restart_of_the_coordinator() {
    let mut fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    apply(&admin, POLICY).await;
    let instance = InstanceId::random();
    let mut agent = dial(&fleet, &member, hello(instance)).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let order = agent.order().await;
    let task = backup_of(&order);
    assert!(task.asked_by_operator);
    fleet.restart().await;
    let ended = agent.wait_for_end().await;
    assert_eq!(ended.code, ErrorCode::Unavailable);
    let held = api::HeldRun { run_id: order.run_id.clone(), attempt: order.attempt, ..Default::default() };
    let again = api::Hello { held: vec![held], ..hello(instance) };
    let mut agent = dial(&fleet, &member, again).await.unwrap();
    assert_eq!(agent.greeting.held[0].disposition(), Disposition::Continue);
    assert_eq!(agent.report(&order, 1, finished(&task)).await, Disposition::Forget);
    assert_eq!(fleet.catalog.backups(BackupFilter::default()).await.unwrap().len(), 1);
    fleet.stop().await;
}

impl Script {
    /// Why the coordinator ended the session.
    pub async fn wait_for_end(&mut self) -> Fault {
        loop {
            match tokio::time::timeout(DEADLINE, self.hear.message()).await.unwrap() {
                Ok(Some(_)) => {}
                Ok(None) => return Fault::new(ErrorCode::Unavailable, "closed without a reason"),
                Err(status) => return Fault::from(&status),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_one_identity_is_refused_while_the_first_lives() {
    let fleet = Fleet::start().await;
    let member = fleet.agent("one").await;
    let mut first = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    let number = first.greeting.session_number;
    let answering = async {
        loop {
            if let ToAgent::Ping(ping) = first.next().await.unwrap() {
                let pong = ToCoordinator::Pong(api::Pong { number: ping.number });
                first.say.send(AgentMessage { message: Some(pong) }).await.unwrap();
                return;
            }
        }
    };
    let (second, ()) = tokio::join!(dial(&fleet, &member, hello(InstanceId::random())), answering);
    assert_eq!(second.err().unwrap().code, ErrorCode::DuplicateAgent);
    drop(first);
    let third = wait_for("the dead one to be replaced", || async {
        dial(&fleet, &member, hello(InstanceId::random())).await.ok()
    })
    .await;
    assert!(third.greeting.session_number > number);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_another_host_s_run_counts_nothing() {
    let fleet = Fleet::start().await;
    let admin = fleet.admin().await;
    let (one, two) = (fleet.agent("one").await, fleet.agent("two").await);
    apply(&admin, POLICY).await;
    let mut agent = dial(&fleet, &one, hello(InstanceId::random())).await.unwrap();
    let mut thief = dial(&fleet, &two, hello(InstanceId::random())).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let order = agent.order().await;
    assert_eq!(thief.report(&order, 1, finished(&backup_of(&order))).await, Disposition::Abort);
    assert!(fleet.catalog.backups(BackupFilter::default()).await.unwrap().is_empty());
    let unknown = api::RunOrder { run_id: BackupId::random().to_string(), attempt: 1, ..order };
    assert_eq!(thief.report(&unknown, 1, Event::Started(api::Started::default())).await, Disposition::Abort);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_lost_on_the_way_is_given_again_at_once() {
    let fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    apply(&admin, POLICY).await;
    let instance = InstanceId::random();
    let mut agent = dial(&fleet, &member, hello(instance)).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let lost = agent.order().await;
    drop(agent);
    let mut agent = dial(&fleet, &member, hello(instance)).await.unwrap();
    let again = agent.order().await;
    assert_eq!((again.run_id.as_str(), lost.attempt, again.attempt), (lost.run_id.as_str(), 1, 2));
    assert_eq!(agent.report(&lost, 1, finished(&backup_of(&lost))).await, Disposition::Abort, "it was replaced");
    assert_eq!(agent.report(&again, 1, finished(&backup_of(&again))).await, Disposition::Forget);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_orders_were_lost_is_tried_again_after_a_failure_like_any_other() {
    let fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    apply(&admin, POLICY).await;
    let (instance, mut operator) = (InstanceId::random(), OperatorServiceClient::new(admin.clone()));
    start_backup(&admin, api::Level::Full).await;
    let mut agent = dial(&fleet, &member, hello(instance)).await.unwrap();
    let mut order = agent.order().await;
    for lost in 1..=3 {
        assert_eq!(order.attempt, lost);
        drop(agent);
        agent = dial(&fleet, &member, hello(instance)).await.unwrap();
        order = agent.order().await;
    }
    let id = order.run_id.parse().unwrap();
    // The table of classes allows three tries and waits after each but the last.
    for (attempt, after) in [(4, RunState::Queued), (5, RunState::Queued), (6, RunState::Failed)] {
        assert_eq!(order.attempt, attempt);
        agent.report(&order, 1, Event::Started(api::Started::default())).await;
        let fault = api::Fault { code: ErrorCode::Io.as_str().into(), ..Default::default() };
        let outcome = api::Outcome::Failed.into();
        let failed = api::Finished { outcome, fault: Some(fault), retryable: true, ..Default::default() };
        agent.report(&order, 2, Event::Finished(failed)).await;
        let run = fleet.catalog.run(id).await.unwrap().unwrap();
        assert_eq!(run.machine.state, after, "{run:?}");
        if after == RunState::Queued {
            operator.retry_run(api::RetryRunRequest { run: order.run_id.clone() }).await.unwrap();
            order = agent.order().await;
        }
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_is_told_to_its_host_and_never_commits() {
    let fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    apply(&admin, POLICY).await;
    let mut agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let order = agent.order().await;
    let beat = || {
        let run = api::RunHeartbeat { run_id: order.run_id.clone(), attempt: order.attempt, progress: None };
        let beat = api::Heartbeat { sent_at_us: to_us(jiff::Timestamp::now()), runs: vec![run] };
        AgentMessage { message: Some(ToCoordinator::Heartbeat(beat)) }
    };
    let acked = |message| if let ToAgent::HeartbeatAck(ack) = message { Some(ack.runs[0].disposition()) } else { None };
    agent.say.send(beat()).await.unwrap();
    assert_eq!(agent.wait(acked).await, Disposition::Continue);
    let cancel = api::CancelRunRequest { run: order.run_id.clone() };
    OperatorServiceClient::new(admin.clone()).cancel_run(cancel).await.unwrap();
    let told = agent.wait(|message| if let ToAgent::Cancel(cancel) = message { Some(cancel) } else { None }).await;
    assert_eq!((told.run_id.as_str(), told.attempt), (order.run_id.as_str(), 1), "told without being asked");
    agent.say.send(beat()).await.unwrap();
    assert_eq!(agent.wait(acked).await, Disposition::Abort);
    let stopped = api::Finished { outcome: api::Outcome::Cancelled.into(), ..Default::default() };
    assert_eq!(agent.report(&order, 1, Event::Finished(stopped)).await, Disposition::Forget);
    let runs = fleet.catalog.runs(RunFilter::default()).await.unwrap();
    assert_eq!(runs[0].machine.state, RunState::Cancelled);
    assert_eq!(agent.report(&order, 2, finished(&backup_of(&order))).await, Disposition::Abort);
    assert!(fleet.catalog.backups(BackupFilter::default()).await.unwrap().is_empty());
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_finds_damage_fails_and_the_next_backup_is_a_full() {
    let fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    apply(&admin, POLICY).await;
    let mut agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let order = agent.order().await;
    let backup = backup_of(&order).backup_id;
    assert_eq!(agent.report(&order, 1, finished(&backup_of(&order))).await, Disposition::Forget);
    let stored = fleet.catalog.backup(backup.parse().unwrap()).await.unwrap().unwrap();
    let asked = AskedRun {
        id: RunId::random(),
        kind: RunKind::Verify,
        host: stored.host,
        job: Some(stored.job),
        asked_by: "schedule".into(),
        level: None,
        spec: serde_json::json!({}),
        priority: 0,
    };
    fleet.catalog.ask_run(&asked).await.unwrap();
    let order = agent.order().await;
    let Some(Task::Verify(task)) = &order.task else { panic!("not a verification: {order:?}") };
    assert_eq!(task.archives.iter().map(|archive| archive.backup_id.as_str()).collect::<Vec<_>>(), [backup.as_str()]);
    let check = api::Check { name: "digest".into(), passed: false, detail: "frame 3".into() };
    assert_eq!(agent.report(&order, 1, verified(&backup, vec![check])).await, Disposition::Forget);
    let run = fleet.catalog.run(asked.id).await.unwrap().unwrap();
    assert_eq!((run.machine.state, run.fault.unwrap().code.as_str()), (RunState::Failed, "archive_damaged"));
    start_backup(&admin, api::Level::Unspecified).await;
    let order = agent.order().await;
    assert_eq!(backup_of(&order).level(), api::Level::Full);
    fleet.stop().await;
}

/// The final report of a verification of one archive.
pub fn verified(backup: &str, checks: Vec<api::Check>) -> Event {
    let archives = vec![api::ArchiveChecks { backup_id: backup.to_owned(), checks }];
    Event::Finished(api::Finished {
        outcome: api::Outcome::Succeeded.into(),
        result: Some(api::finished::Result::Verify(api::VerifyResult { archives, verify_ms: 1 })),
        ..Default::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_looked_at_is_not_protected() {
    let fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    apply(&admin, POLICY).await;
    let mut agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let order = agent.order().await;
    let mut unchecked = finished(&backup_of(&order));
    if let Event::Finished(api::Finished { result: Some(api::finished::Result::Backup(result)), .. }) = &mut unchecked {
        result.checks.clear();
    }
    assert_eq!(agent.report(&order, 1, unchecked).await, Disposition::Abort);
    assert!(fleet.catalog.backups(BackupFilter::default()).await.unwrap().is_empty());
    let run: RunId = order.run_id.parse().unwrap();
    assert_eq!(fleet.catalog.run(run).await.unwrap().unwrap().fault.unwrap().code, "invalid_argument");

    // The next one does look; a verification that does not changes nothing of what the one before it found.
    let cancel = api::CancelRunRequest { run: order.run_id };
    OperatorServiceClient::new(admin.clone()).cancel_run(cancel).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let again = agent.order().await;
    assert_eq!(agent.report(&again, 1, finished(&backup_of(&again))).await, Disposition::Forget);
    let backup = backup_of(&again).backup_id;
    let stored = || async { fleet.catalog.backup(backup.parse().unwrap()).await.unwrap().unwrap() };
    let bad = api::Check { name: "digest".into(), passed: false, detail: "frame 3".into() };
    for (checks, code) in [(vec![bad], "archive_damaged"), (vec![], "invalid_argument")] {
        let asked = AskedRun {
            id: RunId::random(),
            kind: RunKind::Verify,
            host: stored().await.host,
            job: Some(stored().await.job),
            asked_by: "schedule".into(),
            level: None,
            spec: serde_json::json!({}),
            priority: 0,
        };
        fleet.catalog.ask_run(&asked).await.unwrap();
        let order = agent.order().await;
        assert_eq!(agent.report(&order, 1, verified(&backup, checks)).await, Disposition::Forget);
        let run = fleet.catalog.run(asked.id).await.unwrap().unwrap();
        assert_eq!((run.machine.state, run.fault.unwrap().code.as_str()), (RunState::Failed, code));
        assert_eq!(stored().await.status, BackupStatus::Damaged, "{code}");
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_loses_its_open_stream() {
    let fleet = Fleet::start().await;
    let member = fleet.agent("one").await;
    let mut agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    fleet.catalog.revoke_certificates(PeerKind::Agent, &member.subject).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), agent.wait_for_end()).await.unwrap();
    assert_eq!(ended.code, ErrorCode::Revoked);
    assert_eq!(dial(&fleet, &member, hello(InstanceId::random())).await.err().unwrap().code, ErrorCode::Revoked);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_on_one_database_give_each_due_instant_one_run() {
    let fleet = Fleet::start().await;
    let second = fleet.second().await;
    let admin = fleet.admin().await;
    drop(fleet.agent("one").await);
    apply(&admin, &POLICY.replace("0 3 1 1 *", "* * * * *")).await;
    let scheduled = || async {
        let jobs = fleet.catalog.jobs(JobFilter::default()).await.unwrap();
        jobs.into_iter().find(|job| job.backup_due_at.is_some())
    };
    let job = wait_for("the first due instant", scheduled).await;
    // As if nobody had looked for three minutes.
    let minute = fleet.catalog.now().await.unwrap().as_second() / 60;
    let back = ScheduleStep {
        job: job.id,
        policy_version: job.policy_version,
        kind: RunKind::Backup,
        seen_due_at: job.backup_due_at,
        runs: Vec::new(),
        next_due_at: Some(jiff::Timestamp::from_second((minute - 3) * 60).unwrap()),
        owing: Owing::Unchanged,
    };
    assert_ne!(fleet.catalog.schedule(&back).await.unwrap(), ScheduleOutcome::Changed);
    let runs = || async {
        let runs = fleet.catalog.runs(RunFilter::default()).await.unwrap();
        (runs.len() >= 4).then_some(runs)
    };
    let runs = wait_for("the due runs", runs).await;
    // A minute may have begun meanwhile; of the four that were set, three are missed and none is there twice.
    let mut instants: Vec<_> = runs.iter().map(|run| run.due_at).collect();
    instants.sort();
    instants.dedup();
    assert_eq!(instants.len(), runs.len());
    let missed: Vec<_> = runs.iter().filter(|run| run.machine.state == RunState::Missed).collect();
    assert!(missed.len() >= 3 && missed.iter().all(|run| !run.reason.is_empty()));
    assert_eq!(runs.iter().filter(|run| run.machine.state == RunState::Queued).count(), 1);
    second.end().await;
    fleet.stop().await;
}
