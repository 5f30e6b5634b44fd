//! Sends one file that an operator asked for, at the operator's pace, in a stream beside the session.

use coord_shared::api::{FileChunk, FileEnd, ReadFileOrder, file_chunk};
use coord_shared::fault::Fault;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::Client;
use crate::engine::{Part, read_file};
use crate::printable::printable;
use crate::store::LocalStore;

/// Chunks between the reader and the stream.
const MAX_CHUNKS: usize = 4;

pub(super) async fn send(mut client: Client, store: LocalStore, order: ReadFileOrder, over: CancellationToken) {
    let (chunks, stream) = mpsc::channel(MAX_CHUNKS);
    let request_id = order.request_id.clone();
    let reading = tokio::task::spawn_blocking(move || read(&store, &order, &chunks));
    tokio::select! {
        sent = client.send_file(ReceiverStream::new(stream)) => {
            if let Err(status) = sent {
                let fault = Fault::from(status);
                tracing::info!(request = %request_id, code = %fault.code, message = %printable(&fault.message), "a file was not sent to its end");
            }
        }
        // Dropping the stream ends the reader at its next chunk.
        () = over.cancelled() => {}
    }
    if reading.await.is_err() {
        tracing::error!(request = %request_id, "sending a file ended by a defect of this program");
    }
}

fn read(store: &LocalStore, order: &ReadFileOrder, chunks: &mpsc::Sender<FileChunk>) {
    let chunk = |part| FileChunk { request_id: order.request_id.clone(), part: Some(part) };
    let mut emit = |part| {
        let part = match part {
            Part::Data(data) => file_chunk::Part::Data(data),
            Part::End { size_bytes, digest, stale, changed_while_read } => {
                file_chunk::Part::End(FileEnd { size_bytes, digest, stale, changed_while_read })
            }
        };
        chunks.blocking_send(chunk(part)).is_ok()
    };
    if let Err(failure) = read_file(store, order, &mut emit) {
        // Nobody may want to know any more.
        drop(chunks.blocking_send(chunk(file_chunk::Part::Fault(failure.fault.to_api()))));
    }
}
