//! The session over real mutual TLS, with a coordinator that is only a script: it records what arrives and says what it is told to.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use coord_agent::contact::Contact;
use coord_agent::engine::{Deps, Engine, HostWork};
use coord_agent::identity::Identity;
use coord_agent::journal::Journal;
use coord_agent::plan::PlanFile;
use coord_agent::session::{Previews, Session};
use coord_agent::store::LocalStore;
use coord_shared::api::agent_message::Message as FromAgent;
use coord_shared::api::agent_service_server::{AgentService, AgentServiceServer};
use coord_shared::api::coordinator_message::Message as ToAgent;
use coord_shared::api::{self, AgentMessage, CoordinatorMessage, run_report};
use coord_shared::clock::SystemClock;
use coord_shared::lifecycle::Lifecycle;
use coord_shared::tls::{Acceptor, ClientAuth, HeldIdentity, PeerIdentity, ServerTls};
use coord_shared::wire;
use futures_util::Stream;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(20);
const BACKUP: &str = "7a1f4f57-6d3a-4a55-9a0e-0d5f6f1f5a03";

/// Something that reached the coordinator.
#[derive(Debug)]
enum Arrived {
    /// A stream began: Hello, the certificate's serial, and how to speak to the agent. Dropping the sender ends the stream.
    Hello(Box<api::Hello>, String, mpsc::Sender<Result<CoordinatorMessage, Status>>),
    Message(Box<FromAgent>),
    Block(api::IndexBlock),
    Chunk(api::FileChunk),
    Preview(api::PreviewPart),
}

#[derive(Debug, Clone)]
struct Script {
    arrived: mpsc::Sender<Arrived>,
    /// Sessions that still are to hang.
    unanswered: Arc<AtomicUsize>,
    /// What the operator of the preview [`HELD`] takes after its first part: a part for each permit.
    pace: Arc<Semaphore>,
}

/// The request whose operator is slow.
const HELD: &str = "held";

#[tonic::async_trait]
impl AgentService for Script {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if self.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            std::future::pending::<()>().await;
        }
        let serial = PeerIdentity::from_der(&request.peer_certs().unwrap()[0]).unwrap().serial;
        let mut incoming = request.into_inner();
        let (to_agent, stream) = mpsc::channel(16);
        let arrived = self.arrived.clone();
        tokio::spawn(async move {
            let mut to_agent = Some(to_agent);
            while let Ok(Some(AgentMessage { message: Some(message) })) = incoming.message().await {
                let what = match (message, to_agent.take()) {
                    (FromAgent::Hello(hello), Some(to_agent)) => {
                        Arrived::Hello(Box::new(hello), serial.clone(), to_agent)
                    }
                    (message, _) => Arrived::Message(Box::new(message)),
                };
                if arrived.send(what).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn upload_index(
        &self,
        request: Request<Streaming<api::IndexBlock>>,
    ) -> Result<Response<api::IndexProgress>, Status> {
        let mut blocks = request.into_inner();
        let mut next_block = 0;
        while let Some(block) = blocks.message().await? {
            next_block = block.number + 1;
            self.arrived.send(Arrived::Block(block)).await.unwrap();
        }
        Ok(Response::new(api::IndexProgress { next_block, complete: true, ..Default::default() }))
    }

    async fn get_index_progress(
        &self,
        request: Request<api::IndexProgressRequest>,
    ) -> Result<Response<api::IndexProgress>, Status> {
        let backup_id = request.into_inner().backup_id;
        Ok(Response::new(api::IndexProgress { backup_id, next_block: 0, complete: false }))
    }

    async fn send_file(
        &self,
        request: Request<Streaming<api::FileChunk>>,
    ) -> Result<Response<api::SendFileResponse>, Status> {
        let mut chunks = request.into_inner();
        while let Some(chunk) = chunks.message().await? {
            self.arrived.send(Arrived::Chunk(chunk)).await.unwrap();
        }
        Ok(Response::new(api::SendFileResponse {}))
    }

    async fn send_preview(
        &self,
        request: Request<Streaming<api::PreviewPart>>,
    ) -> Result<Response<api::SendPreviewResponse>, Status> {
        let mut parts = request.into_inner();
        while let Some(part) = parts.message().await? {
            let is_held = part.request_id == HELD;
            self.arrived.send(Arrived::Preview(part)).await.unwrap();
            if is_held {
                self.pace.acquire().await.unwrap().forget();
            }
        }
        Ok(Response::new(api::SendPreviewResponse {}))
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Authority { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    /// Certificate and key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// An agent and its scripted coordinator.
struct Pair {
    scratch: tempfile::TempDir,
    life: Lifecycle,
    authority: Authority,
    arrivals: mpsc::Receiver<Arrived>,
    pace: Arc<Semaphore>,
    identity: Arc<ArcSwap<Identity>>,
    held: Arc<HeldIdentity>,
    generation: watch::Sender<u32>,
}

impl Pair {
    async fn start() -> Pair {
        Pair::start_with(PATIENCE, 0, Vec::new()).await
    }

    /// An agent that waits so long for its first answer and knows of others before this coordinator, which never answers the first
    /// so many calls.
    async fn start_with(patience: Duration, unanswered: usize, others: Vec<String>) -> Pair {
        let (scratch, life, authority) = (tempfile::tempdir().unwrap(), Lifecycle::new(), Authority::new());
        let (certificate, key) = authority.issue("spiffe://demo/coordinator/c1");
        let tls = ServerTls::new(&authority.pem, &certificate, &key, ClientAuth::Required).unwrap();
        let acceptor = Acceptor::bind("127.0.0.1:0".parse().unwrap(), tls).await.unwrap();
        let endpoints = [others, vec![acceptor.local_address().unwrap().to_string()]].concat();
        let connections = acceptor.start(&life);
        let (arrived, arrivals) = mpsc::channel(64);
        let pace = Arc::new(Semaphore::new(0));
        let unanswered = Arc::new(AtomicUsize::new(unanswered));
        let service = AgentServiceServer::new(Script { arrived, unanswered, pace: Arc::clone(&pace) });
        // A coordinator's windows: with the library's own, one stream that nobody reads stops all others of its connection.
        let serving = tonic::transport::Server::builder()
            .initial_stream_window_size(wire::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(wire::CONNECTION_WINDOW_BYTES)
            .add_service(service);
        drop(tokio::spawn(serving.serve_with_incoming(connections)));
        let (certificate_pem, key_pem) = authority.issue("spiffe://demo/agent/h1");
        let identity = Identity {
            fleet: "demo".into(),
            host_id: "7a1f4f57-6d3a-4a55-9a0e-0d5f6f1f5a02".into(),
            host_name: "web-1".into(),
            generation: 1,
            ca_pem: authority.pem.clone(),
            certificate_pem,
            key_pem,
        };
        let (held, (generation, renewed)) = (identity.held().unwrap(), watch::channel(1));
        fs::create_dir_all(scratch.path().join("root/srv")).unwrap();
        let (journal, _) = Journal::open(&scratch.path().join("journal")).unwrap();
        let store = LocalStore::open(&scratch.path().join("archives")).unwrap();
        let work = HostWork {
            host_id: identity.host_id.clone(),
            root: scratch.path().join("root"),
            store: store.clone(),
            cache: scratch.path().join("cache"),
            own_folders: Vec::new(),
            threads: 1,
        };
        let (clock, work) = (Arc::new(SystemClock), Arc::new(work));
        let previews = Previews::new(Arc::clone(&work));
        let (engine, events) = Engine::new(Deps {
            host_name: "web-1".into(),
            journal,
            store: store.clone(),
            work,
            clock: clock.clone(),
            life: life.clone(),
            plan: PlanFile::open(scratch.path().join("plan")),
            cut_off_after: PATIENCE,
        });
        let identity = Arc::new(ArcSwap::from_pointee(identity));
        let session = Session {
            patience,
            contact: Arc::new(Contact::open(scratch.path().join("contact"), endpoints, vec![])),
            identity: Arc::clone(&identity),
            held: Arc::clone(&held),
            generation: renewed,
            instance_id: uuid::Uuid::new_v4().to_string(),
            store_id: store.id().ok(),
            store,
            previews,
            events,
            clock,
            life: life.clone(),
        };
        life.spawn("engine", engine.run());
        life.spawn("session", session.run());
        Pair { scratch, life, authority, arrivals, pace, identity, held, generation }
    }

    async fn next(&mut self) -> Arrived {
        tokio::time::timeout(PATIENCE, self.arrivals.recv()).await.expect("nothing arrived").unwrap()
    }

    /// The next Hello, answered.
    async fn hello(&mut self) -> (api::Hello, String, mpsc::Sender<Result<CoordinatorMessage, Status>>) {
        loop {
            if let Arrived::Hello(hello, serial, to_agent) = self.next().await {
                tell(
                    &to_agent,
                    ToAgent::HelloAnswer(api::HelloAnswer { heartbeat_interval_s: 1, ..Default::default() }),
                )
                .await;
                return (*hello, serial, to_agent);
            }
        }
    }

    /// Asks for a file; its content, or the code of the fault.
    async fn read(
        &mut self,
        path: &str,
        full: &Option<api::ArchiveLocation>,
        to_agent: &mpsc::Sender<Result<CoordinatorMessage, Status>>,
    ) -> Result<Vec<u8>, String> {
        let order = api::ReadFileOrder {
            request_id: path.into(),
            path: path.as_bytes().to_vec(),
            full: full.clone(),
            differential: None,
        };
        tell(to_agent, ToAgent::ReadFile(order)).await;
        let mut content = Vec::new();
        loop {
            let Arrived::Chunk(chunk) = self.next().await else { continue };
            assert_eq!(chunk.request_id, path);
            match chunk.part.unwrap() {
                api::file_chunk::Part::Data(data) => content.extend(data),
                api::file_chunk::Part::End(end) => {
                    assert_eq!(end.size_bytes, content.len() as u64);
                    return Ok(content);
                }
                api::file_chunk::Part::Fault(fault) => return Err(fault.code),
            }
        }
    }

    /// The next part of the preview `request`.
    async fn preview_part(&mut self, request: &str) -> api::preview_part::Part {
        loop {
            if let Arrived::Preview(part) = self.next().await
                && part.request_id == request
            {
                return part.part.unwrap();
            }
        }
    }

    async fn end(self) {
        assert!(self.life.finish(PATIENCE).await, "a task did not end");
    }
}

async fn tell(to_agent: &mpsc::Sender<Result<CoordinatorMessage, Status>>, message: ToAgent) {
    to_agent.send(Ok(CoordinatorMessage { message: Some(message) })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_hangs_is_left_for_the_next_try() {
    let mut pair = Pair::start_with(Duration::from_millis(300), 2, Vec::new()).await;
    let (hello, _, _to_agent) = pair.hello().await;
    assert_eq!(hello.generation, 1);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_is_dialed_again_by_the_same_process() {
    let mut pair = Pair::start().await;
    let (first, _, to_agent) = pair.hello().await;
    assert_eq!((first.generation, first.held.len()), (1, 0));
    tell(&to_agent, ToAgent::Ping(api::Ping { number: 7 })).await;
    loop {
        if let Arrived::Message(message) = pair.next().await
            && let FromAgent::Pong(pong) = *message
        {
            assert_eq!(pong.number, 7);
            break;
        }
    }
    drop(to_agent);
    let (second, _, _to_agent) = pair.hello().await;
    assert_eq!(second.instance_id, first.instance_id, "a reconnect, not a second agent");
    assert!(!second.archive_store_id.is_empty(), "the folder is known");
    assert_eq!(second.archive_store_id, first.archive_store_id);
    pair.end().await;
}

/// An address whose connections end before a word was said, and how many there were.
async fn deaf() -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, dialed) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&dialed);
    drop(tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            drop(connection);
        }
    }));
    (address, dialed)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_coordinator_that_is_known_is_tried_once_before_the_wait_grows() {
    let (mut others, mut dialed) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let (address, count) = deaf().await;
        others.push(address);
        dialed.push(count);
    }
    // With a growing wait before each of them the last one would be reached after minutes.
    let mut pair = Pair::start_with(PATIENCE, 0, others).await;
    let (_, _, to_agent) = pair.hello().await;
    let dials = || dialed.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    assert_eq!(dials(), [1; 12]);
    // A session that was too short for a good one ends the round, and the next round begins.
    drop(to_agent);
    let (_, _, _to_agent) = pair.hello().await;
    assert_eq!(dials(), [2; 12]);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let mut pair = Pair::start().await;
    let (_, old_serial, _to_agent) = pair.hello().await;
    let (certificate_pem, key_pem) = pair.authority.issue("spiffe://demo/agent/h1");
    pair.held.replace(&certificate_pem, &key_pem).unwrap();
    let renewed = Identity { generation: 2, certificate_pem, key_pem, ..pair.identity.load().as_ref().clone() };
    pair.identity.store(Arc::new(renewed));
    pair.generation.send_replace(2);
    let (hello, serial, _to_agent) = pair.hello().await;
    assert_eq!(hello.generation, 2);
    assert_ne!(serial, old_serial);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_reported_then_its_index_follows_and_its_files_can_be_asked_for() {
    let mut pair = Pair::start().await;
    fs::write(pair.scratch.path().join("root/srv/file"), b"content").unwrap();
    let (_, _, to_agent) = pair.hello().await;
    let task = api::BackupTask {
        policy_id: "7a1f4f57-6d3a-4a55-9a0e-0d5f6f1f5a01".into(),
        policy_name: "srv".into(),
        host_name: "web-1".into(),
        level: api::Level::Full.into(),
        backup_id: BACKUP.into(),
        sources: vec![b"/srv".to_vec()],
        verify_after: true,
        ..Default::default()
    };
    let run_id = uuid::Uuid::new_v4().to_string();
    let task = Some(api::run_order::Task::Backup(task));
    tell(&to_agent, ToAgent::Run(api::RunOrder { run_id: run_id.clone(), attempt: 1, task, ..Default::default() }))
        .await;
    let mut location = None;
    let mut blocks = Vec::new();
    let mut beats = 0;
    while blocks.last().is_none_or(|block: &api::IndexBlock| !block.last) || beats == 0 {
        match pair.next().await {
            Arrived::Block(block) => {
                assert!(location.is_some(), "an index before its backup is known");
                blocks.push(block);
            }
            Arrived::Message(message) => match *message {
                FromAgent::Heartbeat(_) => beats += 1,
                FromAgent::Report(report) => {
                    if let Some(run_report::Event::Finished(finished)) = &report.event {
                        let Some(api::finished::Result::Backup(backup)) = &finished.result else {
                            panic!("{finished:?}")
                        };
                        location = backup.sealed.as_ref().unwrap().location.clone();
                        let forget = api::Disposition::Forget.into();
                        let ack = api::ReportAck {
                            run_id: run_id.clone(),
                            attempt: 1,
                            sequence: report.sequence,
                            disposition: forget,
                        };
                        tell(&to_agent, ToAgent::Ack(ack)).await;
                    }
                }
                FromAgent::Hello(_) | FromAgent::Pong(_) => {}
            },
            Arrived::Hello(..) | Arrived::Chunk(_) | Arrived::Preview(_) => {}
        }
    }
    assert!(blocks.iter().all(|block| block.backup_id == BACKUP && !block.stored.is_empty()));

    let read = pair.read("srv/file", &location, &to_agent).await;
    assert_eq!(read, Ok(b"content".to_vec()));
    let absent = pair.read("srv/other", &location, &to_agent).await;
    assert_eq!(absent, Err("not_found".to_owned()));
    pair.end().await;
}

fn look(request: &str, limit: u32) -> ToAgent {
    let sources = vec![b"/srv".to_vec()];
    ToAgent::Preview(api::PreviewOrder { request_id: request.to_owned(), sources, limit, ..Default::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_goes_at_its_operators_pace_and_no_second_one_beside_it() {
    const FILES: u64 = 3000;
    let mut pair = Pair::start().await;
    // Four megabytes of paths: more than connection and channels hold for an operator who does not read.
    let deep = ["d".repeat(250), "e".repeat(250), "f".repeat(250), "g".repeat(250)].join("/");
    let folder = pair.scratch.path().join("root/srv").join(&deep);
    fs::create_dir_all(&folder).unwrap();
    for number in 0..FILES {
        fs::write(folder.join(format!("{number:0250}")), b"content").unwrap();
    }
    let (_, _, to_agent) = pair.hello().await;
    tell(&to_agent, look(HELD, 10_000)).await;
    let mut listed = match pair.preview_part(HELD).await {
        api::preview_part::Part::Names(names) => names.names.len() as u64,
        other => panic!("{other:?}"),
    };
    tell(&to_agent, look("second", 10)).await;
    match pair.preview_part("second").await {
        api::preview_part::Part::Fault(fault) => assert_eq!(fault.code, "limit_exceeded"),
        other => panic!("{other:?}"),
    }
    pair.pace.add_permits(1000);
    let totals = loop {
        match pair.preview_part(HELD).await {
            api::preview_part::Part::Names(names) => listed += names.names.len() as u64,
            api::preview_part::Part::End(totals) => break totals,
            api::preview_part::Part::Fault(fault) => panic!("{fault:?}"),
        }
    };
    assert_eq!((totals.files, totals.folders, totals.bytes), (FILES, 5, FILES * 7));
    assert_eq!(listed, FILES + 5, "the way to the source is not part of it");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_lists_no_more_than_was_asked_for_and_ends_with_its_session() {
    let mut pair = Pair::start().await;
    for name in ["a", "b", "c"] {
        fs::write(pair.scratch.path().join("root/srv").join(name), name).unwrap();
    }
    let (_, _, to_agent) = pair.hello().await;
    tell(&to_agent, look("some", 2)).await;
    match pair.preview_part("some").await {
        api::preview_part::Part::Names(names) => {
            let names: Vec<_> = names.names.iter().map(|name| (name.path.as_slice(), name.kind.as_str())).collect();
            assert_eq!(names, [(&b"srv"[..], "folder"), (&b"srv/a"[..], "file")]);
        }
        other => panic!("{other:?}"),
    }
    match pair.preview_part("some").await {
        api::preview_part::Part::End(totals) => assert_eq!((totals.files, totals.folders), (3, 1)),
        other => panic!("{other:?}"),
    }
    // Nobody takes the second part of this one, ever.
    tell(&to_agent, look(HELD, 2)).await;
    pair.preview_part(HELD).await;
    pair.end().await;
}
