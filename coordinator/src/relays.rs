//! Files on their way from an agent to the operator who asked. Bytes pass through a bounded channel and are never stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use coord_shared::api::FileChunk;
use coord_shared::ids::{HostId, RequestId};
use tokio::sync::mpsc;

/// Chunks between the agent and a slow operator; an agent waits when they are full.
const MAX_WAITING_CHUNKS: usize = 16;
/// Transfers at once at this coordinator.
const MAX_RELAYS: usize = 64;

#[derive(Debug)]
struct Relay {
    host: HostId,
    chunks: mpsc::Sender<FileChunk>,
}

/// All transfers of this coordinator. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Relays {
    waiting: Arc<Mutex<HashMap<RequestId, Relay>>>,
}

/// The operator's end of a transfer. Dropping it ends the transfer.
#[derive(Debug)]
pub struct Receiving {
    /// What the agent is asked under.
    pub id: RequestId,
    chunks: mpsc::Receiver<FileChunk>,
    relays: Relays,
}

/// Too many transfers are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_RELAYS} files are being read already")]
pub struct TooMany;

impl Relays {
    /// No transfers.
    pub fn new() -> Relays {
        Relays::default()
    }

    fn locked<R>(&self, act: impl FnOnce(&mut HashMap<RequestId, Relay>) -> R) -> R {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Expects a file from `host`.
    pub fn open(&self, host: HostId) -> Result<Receiving, TooMany> {
        let (sender, chunks) = mpsc::channel(MAX_WAITING_CHUNKS);
        let id = RequestId::random();
        self.locked(|waiting| {
            if waiting.len() >= MAX_RELAYS {
                return Err(TooMany);
            }
            waiting.insert(id, Relay { host, chunks: sender });
            Ok(())
        })?;
        Ok(Receiving { id, chunks, relays: self.clone() })
    }

    /// Where `host` is to put the chunks of a request; `None` when nobody waits, or somebody else was asked. Given out once.
    pub fn take(&self, host: HostId, id: RequestId) -> Option<mpsc::Sender<FileChunk>> {
        self.locked(|waiting| {
            if waiting.get(&id)?.host != host {
                return None;
            }
            waiting.remove(&id).map(|relay| relay.chunks)
        })
    }
}

impl Receiving {
    /// The next chunk; `None` when the agent's stream is over.
    pub async fn next(&mut self) -> Option<FileChunk> {
        self.chunks.recv().await
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.relays.locked(|waiting| waiting.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn a_file_comes_only_from_the_host_that_was_asked_and_only_once() {
        let (relays, host) = (Relays::new(), HostId::random());
        let mut receiving = relays.open(host).unwrap();
        assert!(relays.take(HostId::random(), receiving.id).is_none());
        let sender = relays.take(host, receiving.id).unwrap();
        assert!(relays.take(host, receiving.id).is_none());
        sender.send(FileChunk::default()).await.unwrap();
        drop(sender);
        assert!(receiving.next().await.is_some());
        assert!(receiving.next().await.is_none());
    }

    #[tokio::test]
    async fn a_transfer_that_nobody_waits_for_is_forgotten() {
        let (relays, host) = (Relays::new(), HostId::random());
        let receiving = relays.open(host).unwrap();
        let id = receiving.id;
        drop(receiving);
        assert!(relays.take(host, id).is_none());
    }
}
