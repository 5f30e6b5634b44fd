//! Sends the index of one sealed archive, block by block as stored, from the block on that the coordinator wants next.

use coord_archive::codec::Codec;
use coord_archive::reader::{ArchiveReader, ReadError};
use coord_shared::api::{self, ArchiveLocation, IndexBlock, IndexProgressRequest};
use coord_shared::failpoint;
use coord_shared::fault::Fault;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Client;
use crate::engine::Unsent;
use crate::printable::printable;
use crate::store::{LocalStore, StoreError};

/// Blocks between the reader and the stream.
const MAX_BLOCKS: usize = 4;

/// Why an index did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    /// The archive cannot be found.
    #[error("the archive cannot be found")]
    Store(#[source] StoreError),
    /// Its index cannot be read.
    #[error("the index cannot be read")]
    Read(#[source] ReadError),
    /// The coordinator did not take it.
    #[error("the coordinator did not take it")]
    Refused(#[source] Fault),
    /// The coordinator still wants a block.
    #[error("the coordinator still wants block {next}")]
    Incomplete { next: u64 },
    /// A defect.
    #[error("reading the index ended by a defect of this program")]
    Defect,
}

impl IndexError {
    /// Whether it may be sent another time.
    pub(super) fn why(&self) -> Unsent {
        match self {
            IndexError::Store(error) => match error {
                StoreError::Missing { .. } => Unsent::NotThere,
                StoreError::Replaced { .. } | StoreError::Damaged { .. } | StoreError::Key { .. } => Unsent::Damaged,
                StoreError::Io { .. } | StoreError::File(_) => Unsent::Again,
            },
            IndexError::Read(error) if error.is_damage() => Unsent::Damaged,
            IndexError::Read(_) | IndexError::Refused(_) | IndexError::Incomplete { .. } | IndexError::Defect => {
                Unsent::Again
            }
        }
    }
}

/// Sends an index. A coordinator that waits for one that cannot come is told why.
pub(super) async fn send(mut client: Client, store: LocalStore, location: ArchiveLocation) -> Result<(), IndexError> {
    let backup_id = location.backup_id.clone();
    let sent = send_blocks(client.clone(), store, location).await;
    if let Err(error @ (IndexError::Store(_) | IndexError::Read(_))) = &sent {
        let (unavailable, for_good) = (printable(&crate::chain::chain(error)), error.why() == Unsent::Damaged);
        let request = IndexProgressRequest { backup_id, unavailable, for_good };
        // It asks again when it did not hear this.
        let _told = client.get_index_progress(request).await;
    }
    sent
}

async fn send_blocks(mut client: Client, store: LocalStore, location: ArchiveLocation) -> Result<(), IndexError> {
    let backup_id = location.backup_id.clone();
    let about = IndexProgressRequest { backup_id: backup_id.clone(), ..IndexProgressRequest::default() };
    let asked = client.get_index_progress(about).await;
    let progress = asked.map_err(|status| IndexError::Refused(status.into()))?.into_inner();
    if progress.complete {
        return Ok(());
    }
    let opened = tokio::task::spawn_blocking(move || open(&store, &location)).await;
    let reader = opened.map_err(|_| IndexError::Defect)??;
    let count = reader.block_count() as u64;
    let (blocks, stream) = mpsc::channel(MAX_BLOCKS);
    let reading = tokio::task::spawn_blocking(move || read(&reader, &backup_id, progress.next_block, &blocks));
    let sent = client.upload_index(ReceiverStream::new(stream)).await;
    reading.await.map_err(|_| IndexError::Defect)??;
    let progress = sent.map_err(|status| IndexError::Refused(status.into()))?.into_inner();
    if progress.complete || progress.next_block >= count {
        tracing::debug!(blocks = count, "index sent");
        return Ok(());
    }
    Err(IndexError::Incomplete { next: progress.next_block })
}

fn open(store: &LocalStore, location: &ArchiveLocation) -> Result<ArchiveReader, IndexError> {
    let path = store.locate(location).map_err(IndexError::Store)?;
    ArchiveReader::open_path(&path).map_err(IndexError::Read)
}

fn read(
    reader: &ArchiveReader,
    backup_id: &str,
    from: u64,
    blocks: &mpsc::Sender<IndexBlock>,
) -> Result<(), IndexError> {
    let codec = match reader.footer().codec {
        Codec::Zstd => api::Codec::Zstd,
        Codec::Gzip => api::Codec::Gzip,
    };
    let count = reader.block_count();
    for number in usize::try_from(from).unwrap_or(usize::MAX)..count {
        let block = IndexBlock {
            backup_id: backup_id.to_owned(),
            number: number as u64,
            stored: reader.stored_block(number).map_err(IndexError::Read)?,
            codec: codec.into(),
            last: number + 1 == count,
        };
        if blocks.blocking_send(block).is_err() || failpoint::fails("agent.index.block_sent") {
            // The stream ended; its answer says why.
            break;
        }
    }
    Ok(())
}
