//! One simulated agent: it dials, says Hello, beats, works on what it is ordered, sends indexes, and dials again when the stream breaks,
//! with the real agent's waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use coord_shared::api::agent_message::Message as ToCoordinator;
use coord_shared::api::agent_service_client::AgentServiceClient;
use coord_shared::api::coordinator_message::Message as FromCoordinator;
use coord_shared::api::{
    self, AgentMessage, CoordinatorMessage, Heartbeat, Hello, HelloAnswer, IndexBlock, IndexProgressRequest, Pong,
    RunHeartbeat,
};
use coord_shared::turns::{GOOD_SESSION, Turns};
use coord_shared::wire::MAX_MESSAGE_BYTES;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::crowd::Shared;
use super::entries::{Index, Tree, mixed};
use super::identity::Member;
use super::work::{Attempt, Temper};

/// Messages on their way out.
const MAX_OUTGOING: usize = 64;
/// Blocks of an index on their way out.
const MAX_BLOCKS: usize = 4;
/// Longest wait for the answer to Hello, as real agents have it.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// When nothing is planned.
const FAR: Duration = Duration::from_secs(86_400);

/// An open session.
pub struct Link {
    /// For what goes beside the stream.
    pub client: AgentServiceClient<Channel>,
    /// The answer to Hello.
    pub answer: HelloAnswer,
    outgoing: mpsc::Sender<AgentMessage>,
    incoming: Streaming<CoordinatorMessage>,
}

impl Link {
    /// Dials and says Hello.
    ///
    /// # Errors
    /// No connection, or no answer.
    pub async fn open(member: &Member, endpoint: &str, held: Vec<api::HeldRun>) -> anyhow::Result<Self> {
        let channel = member.tls.connect(endpoint).await?;
        let mut client = AgentServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (outgoing, stream) = mpsc::channel(MAX_OUTGOING);
        let hello = Hello {
            instance_id: member.instance_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: member.name.clone(),
            operating_system: "simulated".to_owned(),
            sent_at_us: now_us(),
            held,
            archive_folder: b"/var/lib/coord-agent/archives".to_vec(),
            generation: 1,
            ..Hello::default()
        };
        put(&outgoing, ToCoordinator::Hello(hello)).await?;
        let greet = async {
            let mut incoming = client.session(ReceiverStream::new(stream)).await?.into_inner();
            match incoming.message().await?.and_then(|message| message.message) {
                Some(FromCoordinator::HelloAnswer(answer)) => Ok((incoming, answer)),
                other => bail!("Hello was answered with {other:?}"),
            }
        };
        let (incoming, answer) =
            tokio::time::timeout(HELLO_TIMEOUT, greet).await.context("Hello was not answered")??;
        Ok(Self { client, answer, outgoing, incoming })
    }

    /// The next message of the coordinator.
    ///
    /// # Errors
    /// The stream is over.
    pub async fn next(&mut self) -> anyhow::Result<FromCoordinator> {
        loop {
            let message = self.incoming.message().await?.context("the coordinator ended the stream")?;
            if let Some(message) = message.message {
                return Ok(message);
            }
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The stream is over.
    pub async fn send(&self, message: ToCoordinator) -> anyhow::Result<()> {
        put(&self.outgoing, message).await
    }
}

async fn put(outgoing: &mpsc::Sender<AgentMessage>, message: ToCoordinator) -> anyhow::Result<()> {
    outgoing.send(AgentMessage { message: Some(message) }).await.context("the stream is over")
}

fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// Sends an index from the block on that is wanted.
///
/// # Errors
/// The coordinator does not take it.
pub async fn send_index(
    mut client: AgentServiceClient<Channel>,
    backup_id: String,
    index: Arc<Index>,
) -> anyhow::Result<()> {
    let about = IndexProgressRequest { backup_id: backup_id.clone(), ..IndexProgressRequest::default() };
    let progress = client.get_index_progress(about).await?.into_inner();
    if progress.complete {
        return Ok(());
    }
    let (blocks, stream) = mpsc::channel(MAX_BLOCKS);
    let sending = async {
        let last = index.blocks.len().saturating_sub(1);
        for (number, stored) in index.blocks.iter().enumerate().skip(usize::try_from(progress.next_block)?) {
            let block = IndexBlock {
                backup_id: backup_id.clone(),
                number: number as u64,
                stored: stored.clone(),
                codec: api::Codec::Zstd.into(),
                last: number == last,
            };
            if blocks.send(block).await.is_err() {
                break;
            }
        }
        drop(blocks);
        anyhow::Ok(())
    };
    let (sent, answered) = tokio::join!(sending, client.upload_index(ReceiverStream::new(stream)));
    sent?;
    let progress = answered?.into_inner();
    if progress.complete || progress.next_block >= index.blocks.len() as u64 {
        return Ok(());
    }
    bail!("the coordinator still wants block {}", progress.next_block)
}

/// A simulated agent.
pub struct Agent {
    member: Member,
    shared: Arc<Shared>,
    cut: Arc<Notify>,
    random: u64,
    /// By run.
    attempts: HashMap<String, Held>,
    /// What the indexes of committed backups are made of.
    trees: HashMap<String, Tree>,
}

struct Held {
    attempt: Attempt,
    began: Instant,
}

impl Held {
    /// When it is to end, if it is at work.
    fn ends(&self, temper: Temper) -> Option<Instant> {
        (!self.attempt.finished && !self.attempt.is_deciding).then(|| self.began + temper.takes)
    }
}

/// Counts a session from its answered Hello to its end, whatever ends it.
struct Presence<'a>(&'a Shared);

impl<'a> Presence<'a> {
    fn of(shared: &'a Shared) -> Self {
        shared.connected.fetch_add(1, Ordering::Relaxed);
        shared.greeted.fetch_add(1, Ordering::Relaxed);
        Presence(shared)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Agent {
    /// The agent of a member. Whoever notifies `cut` breaks its connection.
    #[must_use]
    pub fn new(member: Member, shared: Arc<Shared>, cut: Arc<Notify>, seed: u64) -> Self {
        Self { member, shared, cut, random: seed, attempts: HashMap::new(), trees: HashMap::new() }
    }

    fn random(&mut self) -> u64 {
        self.random = mixed(self.random, 1);
        self.random
    }

    /// Lives until its task is aborted.
    pub async fn live(mut self) {
        let cut = Arc::clone(&self.cut);
        let mut turns = Turns::default();
        loop {
            let (began, endpoint) = (Instant::now(), self.shared.endpoint());
            let lasted = tokio::select! {
                ended = self.talk(&endpoint) => {
                    if let Err(error) = ended {
                        self.shared.note(&error);
                    }
                    began.elapsed()
                }
                // A scene cuts when it pleases: sessions do not count as short for that.
                () = cut.notified() => GOOD_SESSION,
            };
            let known = [self.shared.endpoint()];
            tokio::time::sleep(turns.after(&endpoint, lasted, &known, self.random()).wait).await;
        }
    }

    async fn talk(&mut self, endpoint: &str) -> anyhow::Result<()> {
        let held = self.attempts.values().map(|held| api::HeldRun {
            run_id: held.attempt.order.run_id.clone(),
            attempt: held.attempt.order.attempt,
            phase: held.attempt.progress().phase,
            sequence: held.attempt.unacknowledged.last().map_or(0, |report| report.sequence),
            finished: held.attempt.finished,
        });
        let mut link = Link::open(&self.member, endpoint, held.collect()).await?;
        let shared = Arc::clone(&self.shared);
        let _here = Presence::of(&shared);
        for answer in std::mem::take(&mut link.answer.held) {
            self.dispose(&answer);
            self.send_again(&link, &answer.run_id).await?;
        }
        let pace = Pace::of(&link.answer);
        // The first beat comes anywhere in the first span, so that a fleet does not beat in step.
        let mut beat = Instant::now() + pace.idle.mul_f64((self.random() % 1000) as f64 / 1000.0);
        let (mut beaten, mut with_progress) = (Instant::now(), false);
        loop {
            let temper = self.shared.temper();
            let ends = self.attempts.values().filter_map(|held| held.ends(temper)).min();
            let ends = ends.unwrap_or_else(|| Instant::now() + FAR);
            tokio::select! {
                message = link.next() => match message? {
                    FromCoordinator::HeartbeatAck(ack) => {
                        self.shared.beat(beaten.elapsed(), with_progress);
                        ack.runs.iter().for_each(|answer| self.dispose(answer));
                    }
                    message => {
                        self.receive(&link, message).await?;
                        beat = beat.min(Instant::now() + pace.now(!self.attempts.is_empty()));
                    }
                },
                () = tokio::time::sleep_until(beat) => {
                    (beaten, with_progress) = (Instant::now(), !self.attempts.is_empty());
                    beat = beaten + pace.now(with_progress);
                    link.send(ToCoordinator::Heartbeat(self.heartbeat())).await?;
                }
                () = tokio::time::sleep_until(ends) => self.end_due(&link).await?,
            }
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let runs = self.attempts.values().map(|held| RunHeartbeat {
            run_id: held.attempt.order.run_id.clone(),
            attempt: held.attempt.order.attempt,
            progress: Some(held.attempt.progress()),
        });
        Heartbeat { sent_at_us: now_us(), runs: runs.collect() }
    }

    /// Ends every attempt whose time has come, and reports it.
    async fn end_due(&mut self, link: &Link) -> anyhow::Result<()> {
        let temper = self.shared.temper();
        for held in self.attempts.values_mut() {
            if held.ends(temper).is_none_or(|ends| ends > Instant::now()) {
                continue;
            }
            let before = held.attempt.unacknowledged.len();
            let backup = held.attempt.order.task.as_ref().and_then(|task| match task {
                api::run_order::Task::Backup(task) => Some(task.backup_id.clone()),
                api::run_order::Task::Verify(_) | api::run_order::Task::Restore(_) => None,
            });
            if let (Some(backup), Some(tree)) = (backup, held.attempt.end(temper)) {
                self.trees.insert(backup, tree);
            }
            for report in &held.attempt.unacknowledged[before..] {
                link.send(ToCoordinator::Report(report.clone())).await?;
            }
        }
        Ok(())
    }

    async fn receive(&mut self, link: &Link, message: FromCoordinator) -> anyhow::Result<()> {
        match message {
            FromCoordinator::Run(order) => {
                self.shared.ordered(&order);
                let seed = self.random();
                let attempt = Attempt::begin(order, seed);
                for report in &attempt.unacknowledged {
                    link.send(ToCoordinator::Report(report.clone())).await?;
                }
                let began = Instant::now();
                self.attempts.insert(attempt.order.run_id.clone(), Held { attempt, began });
            }
            FromCoordinator::Level(answer) => {
                if let Some(held) = self.attempts.get_mut(&answer.run_id) {
                    held.attempt.is_deciding = false;
                    if answer.level() == api::Level::Full
                        && let Some(api::run_order::Task::Backup(task)) = &mut held.attempt.order.task
                    {
                        task.base = None;
                    }
                }
            }
            FromCoordinator::Ack(ack) => {
                if let Some(held) = self.attempts.get_mut(&ack.run_id)
                    && held.attempt.order.attempt == ack.attempt
                {
                    held.attempt.unacknowledged.retain(|report| report.sequence != ack.sequence);
                }
                let answer = api::HeldAnswer {
                    run_id: ack.run_id.clone(),
                    attempt: ack.attempt,
                    disposition: ack.disposition,
                    pace: None,
                };
                self.dispose(&answer);
            }
            FromCoordinator::Cancel(cancel) => drop(self.attempts.remove(&cancel.run_id)),
            FromCoordinator::Ping(ping) => link.send(ToCoordinator::Pong(Pong { number: ping.number })).await?,
            FromCoordinator::IndexWanted(wanted) => self.send_index(link, wanted.backup_id),
            FromCoordinator::ReadFile(_)
            | FromCoordinator::Preview(_)
            | FromCoordinator::HelloAnswer(_)
            | FromCoordinator::HeartbeatAck(_)
            | FromCoordinator::Plan(_) => {}
        }
        Ok(())
    }

    /// Does with a held attempt what the coordinator says.
    fn dispose(&mut self, answer: &api::HeldAnswer) {
        let is_it = |held: &Held| held.attempt.order.attempt == answer.attempt;
        match answer.disposition() {
            api::Disposition::Continue | api::Disposition::Report | api::Disposition::Unspecified => {}
            api::Disposition::Forget | api::Disposition::Abort => {
                if self.attempts.get(&answer.run_id).is_some_and(is_it) {
                    self.attempts.remove(&answer.run_id);
                }
            }
        }
    }

    /// After a new session: reports that were on their way when the old one broke.
    async fn send_again(&mut self, link: &Link, run: &str) -> anyhow::Result<()> {
        let reports = self.attempts.get(run).map(|held| held.attempt.unacknowledged.as_slice());
        for report in reports.unwrap_or_default() {
            link.send(ToCoordinator::Report(report.clone())).await?;
        }
        Ok(())
    }

    fn send_index(&mut self, link: &Link, backup_id: String) {
        let Some(tree) = self.trees.get(&backup_id).copied() else { return };
        let (client, shared) = (link.client.clone(), Arc::clone(&self.shared));
        drop(tokio::spawn(async move {
            let index = Arc::new(if tree.turn == 0 { tree.full() } else { tree.differential() });
            // Asked for again when it did not arrive.
            if let Err(error) = send_index(client, backup_id, index).await {
                shared.note(&error);
            }
        }));
    }
}

/// How often it beats.
struct Pace {
    idle: Duration,
    working: Duration,
}

impl Pace {
    fn of(answer: &HelloAnswer) -> Self {
        let working = Duration::from_secs(u64::from(answer.heartbeat_interval_s.clamp(1, 3600)));
        let idle = match answer.idle_heartbeat_interval_s {
            0 => working,
            seconds => Duration::from_secs(u64::from(seconds)),
        };
        Self { idle, working }
    }

    fn now(&self, is_working: bool) -> Duration {
        if is_working { self.working } else { self.idle }
    }
}
