//! What agents call: their one long-lived stream, index blocks, and files asked for by operators.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use coord_shared::api::agent_message::Message as FromAgent;
use coord_shared::api::agent_service_server::AgentService;
use coord_shared::api::coordinator_message::Message as ToAgent;
use coord_shared::api::{
    AgentMessage, CoordinatorMessage, FileChunk, Hello, IndexBlock, IndexProgress, IndexProgressRequest, PreviewPart,
    SendFileResponse, SendPreviewResponse,
};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::lifecycle::Lifecycle;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::identity::judged;
use super::{Caller, caller, refused};
use crate::app::relay::Part;
use crate::app::{App, heartbeat, hello, ingest, relay, report};
use crate::relays::Relays;
use crate::sessions::{self, Session, SessionStream};

/// Longest wait for the first message of a stream.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an agent to read what was queued for it when its session is ended.
const LAST_MESSAGES: Duration = Duration::from_secs(2);
/// Messages between the session and HTTP/2.
const MAX_BUFFERED_MESSAGES: usize = 16;

/// The service for agents.
#[derive(Debug, Clone)]
pub struct Agents {
    app: Arc<App>,
    life: Lifecycle,
}

impl Agents {
    /// Serves agents of the fleet of `app`; streams end with `life`.
    pub fn new(app: Arc<App>, life: Lifecycle) -> Agents {
        Agents { app, life }
    }
}

/// Boxed as in the session, so that a stream without messages has no room for the largest of them.
type Outgoing = mpsc::Sender<Result<sessions::Outgoing, Status>>;

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = caller(&request)?;
        let (outgoing, stream) = mpsc::channel(MAX_BUFFERED_MESSAGES);
        let (app, life) = (Arc::clone(&self.app), self.life.clone());
        // The answer's headers go out at once; the greeting follows in the stream.
        self.life.spawn("session", async move { serve(app, life, caller, request.into_inner(), outgoing).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream).map(|message| message.map(|message| *message)))))
    }

    async fn upload_index(&self, request: Request<Streaming<IndexBlock>>) -> Result<Response<IndexProgress>, Status> {
        let caller = caller(&request)?;
        let host = caller.host().map_err(|fault| refused(&caller, fault))?;
        let mut blocks = request.into_inner();
        let taken = async {
            let mut upload = ingest::Upload::new();
            while let Some(block) = blocks.message().await? {
                let progress = upload.accept(&self.app, host, block).await?;
                if progress.complete {
                    return Ok(progress);
                }
            }
            upload.progress(&self.app).await
        };
        let progress = tokio::select! {
            progress = taken => progress,
            fault = judged(&self.app, &caller) => Err(fault),
        };
        progress.map(Response::new).map_err(|fault| refused(&caller, fault))
    }

    async fn get_index_progress(
        &self,
        request: Request<IndexProgressRequest>,
    ) -> Result<Response<IndexProgress>, Status> {
        let caller = caller(&request)?;
        let host = caller.host().map_err(|fault| refused(&caller, fault))?;
        let progress = ingest::progress(&self.app, host, request.get_ref()).await;
        progress.map(Response::new).map_err(|fault| refused(&caller, fault))
    }

    async fn send_file(&self, request: Request<Streaming<FileChunk>>) -> Result<Response<SendFileResponse>, Status> {
        hand_through(&self.app, &self.app.relays, request).await?;
        Ok(Response::new(SendFileResponse {}))
    }

    async fn send_preview(
        &self,
        request: Request<Streaming<PreviewPart>>,
    ) -> Result<Response<SendPreviewResponse>, Status> {
        hand_through(&self.app, &self.app.previews, request).await?;
        Ok(Response::new(SendPreviewResponse {}))
    }
}

/// Hands a stream through to the operator who waits for it.
async fn hand_through<T: Part>(app: &App, relays: &Relays<T>, request: Request<Streaming<T>>) -> Result<(), Status> {
    let caller = caller(&request)?;
    let host = caller.host().map_err(|fault| refused(&caller, fault))?;
    let mut parts = request.into_inner();
    let handed = async {
        let mut feed = None;
        while let Some(part) = parts.message().await? {
            let feed = match &feed {
                Some(feed) => feed,
                None => feed.insert(relay::feed(relays, host, &part)?),
            };
            relay::deliver(feed, part).await?;
        }
        Ok(())
    };
    let result = tokio::select! {
        result = handed => result,
        fault = judged(app, &caller) => Err(fault),
    };
    result.map_err(|fault| refused(&caller, fault))
}

/// One session from its first message to its end.
async fn serve(
    app: Arc<App>,
    life: Lifecycle,
    caller: Caller,
    mut incoming: Streaming<AgentMessage>,
    outgoing: Outgoing,
) {
    let greeted = async {
        let hello = first_message(&mut incoming).await?;
        if outgoing.is_closed() {
            return Err(Fault::new(ErrorCode::Unavailable, "the agent has given the connection up"));
        }
        // Boxed, here and below: what a session does seldom takes no room in ten thousand that wait.
        Box::pin(hello::greet(&app, caller.host()?, Arc::clone(&caller.identity), hello)).await
    };
    let (session, mut stream) = tokio::select! {
        greeted = greeted => match greeted {
            Ok(greeted) => greeted,
            Err(fault) => return drop(outgoing.send(Err(refused(&caller, fault))).await),
        },
        () = life.ending().cancelled() => return,
    };
    tracing::info!(host = %session.host, number = %session.number, "agent connected");
    let reason = tokio::select! {
        fault = pump(&mut stream, &outgoing) => Some(fault),
        end = listen(&app, &session, &mut incoming) => end.err(),
        () = life.ending().cancelled() => Some(Fault::new(ErrorCode::Unavailable, "the coordinator is ending")),
    };
    hello::farewell(&app, &session).await;
    match &reason {
        Some(fault) => {
            tracing::info!(host = %session.host, code = %fault.code, why = %fault.message, "session ended")
        }
        None => tracing::info!(host = %session.host, "agent disconnected"),
    }
    if let Some(fault) = reason {
        // The agent may be gone already; then nobody needs the reason.
        drop(outgoing.send(Err(fault.with_trace(caller.trace).into())).await);
    }
}

async fn first_message(incoming: &mut Streaming<AgentMessage>) -> Result<Hello, Fault> {
    let late = || Fault::new(ErrorCode::TimedOut, "no Hello in time");
    let message = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await.map_err(|_| late())?;
    match message.map_err(Fault::from)?.and_then(|message| message.message) {
        Some(FromAgent::Hello(hello)) => Ok(hello),
        Some(FromAgent::Heartbeat(_) | FromAgent::Report(_) | FromAgent::Pong(_)) | None => {
            Err(Fault::new(ErrorCode::InvalidArgument, "the first message of a session must be Hello"))
        }
    }
}

/// Carries the session's messages to HTTP/2 until the session is ended from inside. Answers why.
async fn pump(stream: &mut SessionStream, outgoing: &Outgoing) -> Fault {
    let SessionStream { outgoing: messages, ending } = stream;
    let ended = async {
        match ending.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        }
    };
    let carry = async {
        while let Some(message) = messages.recv().await {
            if outgoing.send(Ok(message)).await.is_err() {
                return;
            }
        }
    };
    let gone = || Fault::new(ErrorCode::Unavailable, "the stream is over");
    let reason = tokio::select! {
        () = carry => return gone(),
        reason = ended => reason.unwrap_or_else(gone),
    };
    // An order that waits here is a claimed attempt: an agent that reads still gets it.
    let rest = async {
        while let Ok(message) = messages.try_recv() {
            if outgoing.send(Ok(message)).await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(LAST_MESSAGES, rest).await.is_err() {
        tracing::debug!("the agent did not read its last messages");
    }
    reason
}

/// Acts on the agent's messages until it hangs up or must not be listened to any more.
async fn listen(app: &App, session: &Session, incoming: &mut Streaming<AgentMessage>) -> Result<(), Fault> {
    while let Some(message) = incoming.message().await.map_err(Fault::from)? {
        act(app, session, message).await?;
    }
    Ok(())
}

async fn act(app: &App, session: &Session, message: AgentMessage) -> Result<(), Fault> {
    let answers = match message.message {
        Some(FromAgent::Heartbeat(beat)) => {
            Box::pin(heartbeat::heartbeat(app, session, beat)).await?.map(ToAgent::HeartbeatAck).into_iter().collect()
        }
        Some(FromAgent::Report(message)) => Box::pin(report::accept(app, session, message)).await?,
        Some(FromAgent::Pong(pong)) => {
            session.record_pong(pong.number);
            Vec::new()
        }
        Some(FromAgent::Hello(_)) => {
            return Err(Fault::new(ErrorCode::InvalidArgument, "a session has one Hello"));
        }
        // A message of a later version: nothing that we could act on.
        None => Vec::new(),
    };
    for answer in answers {
        session
            .send(answer)
            .map_err(|_| Fault::new(ErrorCode::LimitExceeded, "the agent does not read its messages"))?;
    }
    Ok(())
}
