//! One file from an agent to the operator who asked: the order goes down the session, the chunks come up in a stream of their own, and
//! pass through a bounded channel. The operator's pace is the agent's pace.

use coord_shared::api::coordinator_message::Message;
use coord_shared::api::{FileChunk, ReadFileOrder, file_chunk};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::HostId;
use coord_shared::wire::MAX_FILE_CHUNK_BYTES;
use tokio::sync::mpsc;

use super::App;
use crate::relays::Receiving;

/// Where an agent's chunks go.
pub type Feed = mpsc::Sender<FileChunk>;

/// Asks `host` for a file. The order's request id is set here.
pub fn ask(app: &App, host: HostId, order: ReadFileOrder) -> Result<Receiving, Fault> {
    let receiving = app.relays.open(host).map_err(|error| Fault::new(ErrorCode::LimitExceeded, error.to_string()))?;
    let order = ReadFileOrder { request_id: receiving.id.to_string(), ..order };
    app.sessions.send(host, Message::ReadFile(order)).map_err(|error| {
        Fault::new(ErrorCode::HostNotConnected, error.to_string()).with_hint(
            "its archives lie on the host itself: start its agent (coord-agent run), or wait until it is back",
        )
    })?;
    Ok(receiving)
}

/// Where the chunks of a stream go that begins with `first`.
pub fn feed(app: &App, host: HostId, first: &FileChunk) -> Result<Feed, Fault> {
    let id = first.request_id.parse().ok();
    id.and_then(|id| app.relays.take(host, id))
        .ok_or_else(|| Fault::new(ErrorCode::NotFound, "nobody waits for that file"))
}

/// Hands a chunk on, waiting for the operator to take it.
pub async fn deliver(feed: &Feed, chunk: FileChunk) -> Result<(), Fault> {
    if let Some(file_chunk::Part::Data(data)) = &chunk.part
        && data.len() > MAX_FILE_CHUNK_BYTES
    {
        return Err(Fault::new(ErrorCode::LimitExceeded, format!("a chunk has at most {MAX_FILE_CHUNK_BYTES} bytes")));
    }
    feed.send(chunk).await.map_err(|_| Fault::new(ErrorCode::Cancelled, "nobody waits for that file any more"))
}
