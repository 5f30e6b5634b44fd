//! The one conversation with the coordinator: dial, Hello, then messages both ways until the stream breaks; and again, for ever. It
//! decides nothing: `Turns` says whom to dial next and when, the engine says what to send and acts on what comes.
//!
//! Invariant: nothing passes before Hello was answered, and every message is one of the engine's events or answered here at once
//! (Ping). Indexes and files go beside the stream, in tasks of their own.

mod file;
mod index;
mod preview;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use coord_shared::api::agent_message::Message as ToCoordinator;
use coord_shared::api::agent_service_client::AgentServiceClient;
use coord_shared::api::coordinator_message::Message as FromCoordinator;
use coord_shared::api::{AgentMessage, CoordinatorMessage, Hello, HelloAnswer, Pong};
use coord_shared::clock::Clock;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::ArchiveStoreId;
use coord_shared::lifecycle::Lifecycle;
use coord_shared::tls::{ClientTls, HeldIdentity};
use coord_shared::turns::Turns;
use coord_shared::version;
use coord_shared::wire::MAX_MESSAGE_BYTES;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::contact::Contact;
use crate::engine::{Event, Greeting, Outgoing};
use crate::identity::Identity;
use crate::printable::printable;
use crate::status::HostFacts;
use crate::store::LocalStore;

/// Messages between engine and stream.
const MAX_OUTGOING: usize = 64;
/// Longest wait for the answer to Hello: a coordinator may first have to ask another session of ours.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

pub use preview::Previews;

type Client = AgentServiceClient<Channel>;

/// How to hold the conversation.
pub struct Session {
    /// Where the main listeners are, tried in turn.
    pub contact: Arc<Contact>,
    /// Who we are.
    pub identity: Arc<ArcSwap<Identity>>,
    /// The same for TLS.
    pub held: Arc<HeldIdentity>,
    /// Changes when there is a new certificate: the conversation goes on under it.
    pub generation: watch::Receiver<u32>,
    /// This process.
    pub instance_id: String,
    /// Where archives are.
    pub store: LocalStore,
    /// Which folder that is, where it is known.
    pub store_id: Option<ArchiveStoreId>,
    /// What previews look at.
    pub previews: Previews,
    /// Where the engine takes its events.
    pub events: mpsc::Sender<Event>,
    /// The host's clock.
    pub clock: Arc<dyn Clock>,
    /// Longest wait for a stream with an answered Hello; [`HELLO_TIMEOUT`] but for tests. A coordinator whose connection lives
    /// and whose service hangs must not keep us from the next one.
    pub patience: Duration,
    /// Tracks what runs beside the stream.
    pub life: Lifecycle,
}

/// A random number, for spreading waits.
pub fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

impl Session {
    /// Talks until the process is to end.
    pub async fn run(mut self) {
        let ending = self.life.ending().clone();
        let mut turns = Turns::default();
        let mut endpoint = self.contact.main().into_iter().next().unwrap_or_default();
        loop {
            let began = tokio::time::Instant::now();
            let ended = tokio::select! {
                ended = self.talk(&endpoint) => ended,
                () = ending.cancelled() => return,
            };
            // The engine is gone only when the process ends.
            drop(self.events.send(Event::Disconnected).await);
            let fault = match ended {
                Ended::Renewed => continue,
                Ended::Fault(fault) => fault,
            };
            self.contact.not_connected(&endpoint, &fault, self.clock.now());
            let next = turns.after(&endpoint, began.elapsed(), &self.contact.main(), random());
            tracing::warn!(
                %endpoint, code = %fault.code, message = %printable(&fault.message), hint = %printable(&fault.hint), trace = %fault.trace,
                wait_ms = u64::try_from(next.wait.as_millis()).unwrap_or(u64::MAX), next = %next.endpoint, "not connected to the coordinator"
            );
            tokio::select! {
                () = tokio::time::sleep(next.wait) => {}
                () = ending.cancelled() => return,
            }
            endpoint = next.endpoint;
        }
    }

    async fn talk(&mut self, endpoint: &str) -> Ended {
        match self.converse(endpoint).await {
            Ok(ended) => ended,
            Err(fault) => Ended::Fault(fault),
        }
    }

    async fn converse(&mut self, endpoint: &str) -> Result<Ended, Fault> {
        // First: what is renewed from here on ends this conversation, and what was renewed before is shown in it.
        self.generation.mark_unchanged();
        let identity = self.identity.load_full();
        let tls = ClientTls::new(&identity.ca_pem, Arc::clone(&self.held))
            .map_err(|error| Fault::new(ErrorCode::InvalidConfiguration, crate::chain::chain(&error)))?;
        let channel = tls.connect(endpoint).await.map_err(|error| Fault::from(&error))?;
        let mut client = AgentServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (to_stream, stream) = mpsc::channel::<AgentMessage>(MAX_OUTGOING);
        let hello = ToCoordinator::Hello(self.hello(&identity).await?);
        put(&to_stream, hello).await?;
        let greet = async {
            let mut incoming = client.session(ReceiverStream::new(stream)).await.map_err(Fault::from)?.into_inner();
            let answer = hello_answer(&mut incoming).await?;
            Ok::<_, Fault>((incoming, answer))
        };
        let greeted = tokio::time::timeout(self.patience, greet).await;
        let (mut incoming, answer) =
            greeted.map_err(|_| Fault::new(ErrorCode::TimedOut, "Hello was not answered"))??;
        tracing::info!(%endpoint, host = %printable(&answer.host_name), session = answer.session_number, "connected to the coordinator");
        check_version(&answer)?;
        self.contact.connected(endpoint, self.clock.now());
        self.contact.told(&answer.endpoints, &answer.enrol_endpoints);
        let (link, mut outgoing) = mpsc::channel(MAX_OUTGOING);
        self.tell(Event::Connected { answer: Box::new(answer), link }).await?;
        // What runs beside the stream ends with it.
        let over = self.life.ending().child_token();
        let _over = over.clone().drop_guard();
        loop {
            tokio::select! {
                message = incoming.message() => match message.map_err(Fault::from)? {
                    Some(message) => self.receive(message, &to_stream, &client, &over).await?,
                    None => return Err(Fault::new(ErrorCode::Unavailable, "the coordinator ended the stream")),
                },
                Some(outgoing) = outgoing.recv() => match outgoing {
                    Outgoing::Message(message) => put(&to_stream, *message).await?,
                    Outgoing::SendIndex(location) => self.send_index(client.clone(), location, over.clone()),
                },
                Ok(()) = self.generation.changed() => return Ok(Ended::Renewed),
            }
        }
    }

    async fn hello(&self, identity: &Identity) -> Result<Hello, Fault> {
        let (reply, greeting) = oneshot::channel();
        self.tell(Event::Greeting(reply)).await?;
        let Greeting { held, unsent_indexes, ordinals } = greeting.await.map_err(|_| engine_gone())?;
        coord_shared::failpoint::reach("agent.hello.made");
        let facts = HostFacts::read();
        Ok(Hello {
            instance_id: self.instance_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: facts.hostname,
            operating_system: facts.operating_system,
            sent_at_us: self.clock.now().as_microsecond(),
            held,
            unsent_index_backup_ids: unsent_indexes,
            ordinals,
            archive_folder: std::os::unix::ffi::OsStrExt::as_bytes(self.store.folder().as_os_str()).to_vec(),
            generation: identity.generation,
            archive_store_id: self.store_id.map_or_else(String::new, |id| id.to_string()),
        })
    }

    async fn receive(
        &self,
        message: CoordinatorMessage,
        to_stream: &mpsc::Sender<AgentMessage>,
        client: &Client,
        over: &CancellationToken,
    ) -> Result<(), Fault> {
        match message.message {
            Some(FromCoordinator::Ping(ping)) => {
                put(to_stream, ToCoordinator::Pong(Pong { number: ping.number })).await
            }
            Some(FromCoordinator::ReadFile(order)) => {
                let (client, store, over) = (client.clone(), self.store.clone(), over.clone());
                self.life.spawn("send file", async move { file::send(client, store, order, over).await });
                Ok(())
            }
            Some(FromCoordinator::Preview(order)) => {
                let (client, previews, over) = (client.clone(), self.previews.clone(), over.clone());
                let now = self.clock.now();
                self.life.spawn("send preview", async move { previews.send(client, order, now, over).await });
                Ok(())
            }
            Some(
                message @ (FromCoordinator::Run(_)
                | FromCoordinator::Level(_)
                | FromCoordinator::Ack(_)
                | FromCoordinator::Cancel(_)
                | FromCoordinator::HeartbeatAck(_)
                | FromCoordinator::IndexWanted(_)
                | FromCoordinator::Plan(_)),
            ) => self.tell(Event::Received(Box::new(message))).await,
            // A second answer, or a message of a later version: nothing to act on.
            Some(FromCoordinator::HelloAnswer(_)) | None => Ok(()),
        }
    }

    fn send_index(&self, client: Client, location: coord_shared::api::ArchiveLocation, over: CancellationToken) {
        let (events, store) = (self.events.clone(), self.store.clone());
        self.life.spawn("send index", async move {
            let backup_id = location.backup_id.clone();
            let sent = tokio::select! {
                sent = index::send(client, store, location) => sent,
                () = over.cancelled() => return,
            };
            let event = match sent {
                Ok(()) => Event::IndexSent { backup_id },
                Err(error) => {
                    tracing::warn!(backup = %backup_id, error = %crate::chain::chain(&error), "an index was not sent");
                    Event::IndexFailed { backup_id, why: error.why() }
                }
            };
            drop(events.send(event).await);
        });
    }

    async fn tell(&self, event: Event) -> Result<(), Fault> {
        self.events.send(event).await.map_err(|_| engine_gone())
    }
}

enum Ended {
    /// There is a new certificate: talk again at once, to the same one.
    Renewed,
    Fault(Fault),
}

fn engine_gone() -> Fault {
    Fault::new(ErrorCode::Unavailable, "the agent is ending")
}

async fn put(stream: &mpsc::Sender<AgentMessage>, message: ToCoordinator) -> Result<(), Fault> {
    let sent = stream.send(AgentMessage { message: Some(message) }).await;
    sent.map_err(|_| Fault::new(ErrorCode::Unavailable, "the stream is over"))
}

/// The coordinator may be older or newer by one minor version.
fn check_version(answer: &HelloAnswer) -> Result<(), Fault> {
    let Err(apart) = version::check(version::OURS, &answer.version) else { return Ok(()) };
    let message = format!(
        "the coordinator is of version {}, and this agent of {}: they do not work together",
        answer.version,
        version::OURS
    );
    let hint = match apart.theirs {
        Ordering::Less => "upgrade the coordinator first, or install an older agent",
        Ordering::Equal | Ordering::Greater => "upgrade this agent",
    };
    Err(Fault::new(ErrorCode::Unsupported, message).with_hint(hint))
}

async fn hello_answer(incoming: &mut Streaming<CoordinatorMessage>) -> Result<HelloAnswer, Fault> {
    match incoming.message().await.map_err(Fault::from)?.and_then(|message| message.message) {
        Some(FromCoordinator::HelloAnswer(answer)) => Ok(answer),
        Some(_) => Err(Fault::new(ErrorCode::Internal, "the coordinator did not answer Hello first")),
        None => Err(Fault::new(ErrorCode::Unavailable, "the coordinator ended the stream before it answered Hello")),
    }
}
