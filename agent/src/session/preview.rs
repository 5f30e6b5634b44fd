//! Sends what a selection would take, in a stream beside the session, at the operator's pace. One scan at a time: an operator in a
//! hurry must not slow the host down.

use std::sync::Arc;

use coord_shared::api::{PreviewOrder, PreviewPart, preview_part::Part};
use coord_shared::fault::{ErrorCode, Fault};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::Client;
use crate::engine::{HostWork, preview};
use crate::printable::printable;

/// Parts between the scan and the stream.
const MAX_PARTS: usize = 4;

/// What previews look at, and whether one is under way. Clones share that.
#[derive(Debug, Clone)]
pub struct Previews {
    work: Arc<HostWork>,
    slot: Arc<Semaphore>,
}

impl Previews {
    /// Previews of what backups of this host would take.
    #[must_use]
    pub fn new(work: Arc<HostWork>) -> Self {
        Self { work, slot: Arc::new(Semaphore::new(1)) }
    }

    pub(super) async fn send(self, mut client: Client, order: PreviewOrder, now: Timestamp, over: CancellationToken) {
        let (parts, stream) = mpsc::channel(MAX_PARTS);
        let request_id = order.request_id.clone();
        let slot = Arc::clone(&self.slot).try_acquire_owned().ok();
        let scanning = tokio::task::spawn_blocking(move || scan(&self.work, &order, now, (slot, &parts)));
        tokio::select! {
            sent = client.send_preview(ReceiverStream::new(stream)) => {
                if let Err(status) = sent {
                    let fault = Fault::from(status);
                    tracing::info!(request = %request_id, code = %fault.code, message = %printable(&fault.message), "a preview was not sent to its end");
                }
            }
            // Dropping the stream ends the scan at its next part.
            () = over.cancelled() => {}
        }
        if scanning.await.is_err() {
            tracing::error!(request = %request_id, "a preview ended by a defect of this program");
        }
    }
}

/// Scans with the slot that is held meanwhile; without one it says that it must not.
fn scan(
    work: &HostWork,
    order: &PreviewOrder,
    now: Timestamp,
    (slot, parts): (Option<OwnedSemaphorePermit>, &mpsc::Sender<PreviewPart>),
) {
    let mut emit = |part| {
        let part = PreviewPart { request_id: order.request_id.clone(), part: Some(part) };
        parts.blocking_send(part).is_ok()
    };
    let scanned = match slot {
        Some(_held) => preview(work, order, now, &mut emit).map_err(|failure| failure.fault),
        None => Err(Fault::new(ErrorCode::LimitExceeded, "this host looks for another preview already")
            .with_hint("try again when that has ended")),
    };
    if let Err(fault) = scanned {
        // Nobody may want to know any more.
        let _gone = emit(Part::Fault(fault.to_api()));
    }
}
