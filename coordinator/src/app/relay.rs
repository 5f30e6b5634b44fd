//! What an operator asks of a host and the host answers in a stream of its own: the order goes down the session, the parts come up and
//! pass through a bounded channel. The operator's pace is the agent's pace.

use std::time::Duration;

use coord_shared::api::coordinator_message::Message;
use coord_shared::api::{self, FileChunk, PreviewPart, file_chunk, preview_part};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{HostId, RequestId};
use coord_shared::wire::{MAX_FILE_CHUNK_BYTES, MAX_PREVIEW_NAMES_PER_PART};
use tokio::sync::mpsc;

use super::App;
use crate::relays::{Receiving, Relays};

/// Longest silence of a host that was asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// One message of a stream that is handed through.
pub trait Part: Sized {
    /// What the stream brings, in words.
    const WHAT: &'static str;

    /// Under which request it comes.
    fn request_id(&self) -> &str;

    /// Why the host cannot answer, if that is what this says.
    fn fault(&self) -> Option<&api::Fault>;

    /// Whether nothing follows.
    fn is_last(&self) -> bool;

    /// Whether it keeps to the contract's bounds.
    ///
    /// # Errors
    /// `limit_exceeded`.
    fn check(&self) -> Result<(), Fault>;
}

impl Part for FileChunk {
    const WHAT: &'static str = "file";

    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn fault(&self) -> Option<&api::Fault> {
        match &self.part {
            Some(file_chunk::Part::Fault(fault)) => Some(fault),
            Some(file_chunk::Part::Data(_) | file_chunk::Part::End(_)) | None => None,
        }
    }

    fn is_last(&self) -> bool {
        matches!(self.part, Some(file_chunk::Part::End(_)))
    }

    fn check(&self) -> Result<(), Fault> {
        match &self.part {
            Some(file_chunk::Part::Data(data)) if data.len() > MAX_FILE_CHUNK_BYTES => {
                Err(Fault::new(ErrorCode::LimitExceeded, format!("a chunk has at most {MAX_FILE_CHUNK_BYTES} bytes")))
            }
            Some(file_chunk::Part::Data(_) | file_chunk::Part::End(_) | file_chunk::Part::Fault(_)) | None => Ok(()),
        }
    }
}

impl Part for PreviewPart {
    const WHAT: &'static str = "preview";

    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn fault(&self) -> Option<&api::Fault> {
        match &self.part {
            Some(preview_part::Part::Fault(fault)) => Some(fault),
            Some(preview_part::Part::Names(_) | preview_part::Part::End(_)) | None => None,
        }
    }

    fn is_last(&self) -> bool {
        matches!(self.part, Some(preview_part::Part::End(_)))
    }

    fn check(&self) -> Result<(), Fault> {
        let names = match &self.part {
            Some(preview_part::Part::Names(names)) => names.names.len(),
            Some(preview_part::Part::End(_) | preview_part::Part::Fault(_)) | None => 0,
        };
        if names > MAX_PREVIEW_NAMES_PER_PART {
            let message = format!("a part has at most {MAX_PREVIEW_NAMES_PER_PART} names");
            return Err(Fault::new(ErrorCode::LimitExceeded, message));
        }
        Ok(())
    }
}

/// Asks `host` by the order that `order` makes of a request's id. `hint` is what to do when the host is not connected.
///
/// # Errors
/// `host_not_connected`; `limit_exceeded` when too many operators wait.
pub fn ask<T>(
    app: &App,
    relays: &Relays<T>,
    host: HostId,
    order: impl FnOnce(RequestId) -> Message,
    hint: &str,
) -> Result<Receiving<T>, Fault> {
    let receiving = relays.open(host).map_err(|error| Fault::new(ErrorCode::LimitExceeded, error.to_string()))?;
    let sent = app.sessions.send(host, order(receiving.id));
    sent.map_err(|error| Fault::new(ErrorCode::HostNotConnected, error.to_string()).with_hint(hint))?;
    Ok(receiving)
}

/// Where the parts of a stream go that begins with `first`.
///
/// # Errors
/// `not_found` when nobody waits for it.
pub fn feed<T: Part>(relays: &Relays<T>, host: HostId, first: &T) -> Result<mpsc::Sender<T>, Fault> {
    let id = first.request_id().parse().ok();
    id.and_then(|id| relays.take(host, id))
        .ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("nobody waits for that {}", T::WHAT)))
}

/// Hands a part on, waiting for the operator to take it.
///
/// # Errors
/// `limit_exceeded` for what no agent of ours sends; `cancelled` when the operator is gone.
pub async fn deliver<T: Part>(feed: &mpsc::Sender<T>, part: T) -> Result<(), Fault> {
    part.check()?;
    let gone = || Fault::new(ErrorCode::Cancelled, format!("nobody waits for that {} any more", T::WHAT));
    feed.send(part).await.map_err(|_| gone())
}

/// Hands the parts to `take` until the last one came or nobody takes them any more (`take` says no).
///
/// # Errors
/// What the host says is wrong; `timed_out` when it is silent; `host_not_connected` when it goes away in the middle.
pub async fn pass_on<T: Part, F>(receiving: &mut Receiving<T>, take: impl Fn(T) -> F) -> Result<(), Fault>
where
    F: Future<Output = bool>,
{
    loop {
        let part = tokio::time::timeout(PATIENCE, receiving.next()).await.map_err(|_| {
            Fault::new(ErrorCode::TimedOut, format!("the host did not send the {} in time", T::WHAT))
                .with_hint("try again; an agent of an older version may not know how: upgrade it then")
        })?;
        let Some(part) = part else {
            let message = format!("the host went away in the middle of the {}", T::WHAT);
            return Err(Fault::new(ErrorCode::HostNotConnected, message).with_hint("try again"));
        };
        if let Some(fault) = part.fault() {
            return Err(Fault::from_api(fault));
        }
        let last = part.is_last();
        if !take(part).await || last {
            return Ok(());
        }
    }
}
