//! What agents send to the operator who asked for it, files for one. It passes through a bounded channel and is never stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use coord_shared::ids::{HostId, RequestId};
use tokio::sync::mpsc;

/// Parts between the agent and a slow operator; an agent waits when they are full.
const MAX_WAITING_PARTS: usize = 16;
/// Transfers at once at this coordinator.
const MAX_RELAYS: usize = 64;

#[derive(Debug)]
struct Relay<T> {
    host: HostId,
    /// Given out to the host's call, once.
    parts: Option<mpsc::Sender<T>>,
}

/// All transfers of one kind at this coordinator.
#[derive(Debug)]
pub struct Relays<T> {
    /// From the request to its end.
    open: Arc<Mutex<HashMap<RequestId, Relay<T>>>>,
}

/// The operator's end of a transfer. Dropping it ends the transfer.
#[derive(Debug)]
pub struct Receiving<T> {
    /// What the agent is asked under.
    pub id: RequestId,
    parts: mpsc::Receiver<T>,
    relays: Relays<T>,
}

/// Too many transfers are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_RELAYS} operators wait for hosts already")]
pub struct TooMany;

impl<T> Default for Relays<T> {
    fn default() -> Self {
        Relays { open: Arc::default() }
    }
}

impl<T> Relays<T> {
    fn locked<R>(&self, act: impl FnOnce(&mut HashMap<RequestId, Relay<T>>) -> R) -> R {
        act(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Expects a transfer from `host`.
    pub fn open(&self, host: HostId) -> Result<Receiving<T>, TooMany> {
        let (sender, parts) = mpsc::channel(MAX_WAITING_PARTS);
        let id = RequestId::random();
        self.locked(|open| {
            if open.len() >= MAX_RELAYS {
                return Err(TooMany);
            }
            open.insert(id, Relay { host, parts: Some(sender) });
            Ok(())
        })?;
        Ok(Receiving { id, parts, relays: Relays { open: Arc::clone(&self.open) } })
    }

    /// Where `host` is to put the parts of a request; `None` when nobody waits, or somebody else was asked. Given out once.
    pub fn take(&self, host: HostId, id: RequestId) -> Option<mpsc::Sender<T>> {
        self.locked(|open| open.get_mut(&id).filter(|relay| relay.host == host)?.parts.take())
    }

    /// The hosts that are asked, or are sending.
    pub fn hosts(&self) -> std::vec::IntoIter<HostId> {
        self.locked(|open| open.values().map(|relay| relay.host).collect::<Vec<_>>()).into_iter()
    }
}

impl<T> Receiving<T> {
    /// The next part; `None` when the agent's stream is over.
    pub async fn next(&mut self) -> Option<T> {
        self.parts.recv().await
    }
}

impl<T> Drop for Receiving<T> {
    fn drop(&mut self) {
        self.relays.locked(|open| open.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn a_transfer_comes_only_from_the_host_that_was_asked_and_only_once() {
        let (relays, host) = (Relays::<u32>::default(), HostId::random());
        let mut receiving = relays.open(host).unwrap();
        assert!(relays.take(HostId::random(), receiving.id).is_none());
        let sender = relays.take(host, receiving.id).unwrap();
        assert!(relays.take(host, receiving.id).is_none());
        sender.send(7).await.unwrap();
        assert_eq!(relays.hosts().collect::<Vec<_>>(), [host]);
        drop(sender);
        assert!(receiving.next().await.is_some());
        assert!(receiving.next().await.is_none());
        drop(receiving);
        assert_eq!(relays.hosts().count(), 0);
    }

    #[tokio::test]
    async fn a_transfer_that_nobody_waits_for_is_forgotten() {
        let (relays, host) = (Relays::<u32>::default(), HostId::random());
        let receiving = relays.open(host).unwrap();
        let id = receiving.id;
        drop(receiving);
        assert!(relays.take(host, id).is_none());
    }
}
