//! The live streams of agents at this coordinator: a way to wake an agent, never a truth. Whoever finds a host missing here waits
//! for its next Hello; nothing is lost, because orders are made of rows.
//!
//! Invariant: at most one session a host, the one with the highest session number seen here. Not here: which coordinator a host is
//! connected to, and whether a session still counts; the catalog says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_shared::api::{CoordinatorMessage, Ping, coordinator_message::Message};
use coord_shared::fault::Fault;
use coord_shared::ids::{HostId, InstanceId, SessionNumber};
use coord_shared::tls::PeerIdentity;
use tokio::sync::{mpsc, watch};

/// Messages waiting for one agent. An agent that lets more pile up is disconnected: it reconnects and says what it holds.
pub const MAX_WAITING_MESSAGES: usize = 256;

/// A message on its way to an agent. Boxed, because channels keep room for some messages of the largest kind, and most sessions have none.
pub type Outgoing = Box<CoordinatorMessage>;

/// A session as the rest of the coordinator sees it.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whose stream this is.
    pub host: HostId,
    /// Its number in the catalog.
    pub number: SessionNumber,
    /// The agent process at the other end.
    pub instance: InstanceId,
    /// What its certificate says: looked at again every few seconds.
    pub identity: Arc<PeerIdentity>,
    outgoing: mpsc::Sender<Outgoing>,
    ending: watch::Sender<Option<Fault>>,
    pong: watch::Sender<u64>,
}

/// The stream's own end of a session.
#[derive(Debug)]
pub struct SessionStream {
    /// What to send to the agent.
    pub outgoing: mpsc::Receiver<Outgoing>,
    /// Becomes `Some` when the session is to end, with the reason for the agent.
    pub ending: watch::Receiver<Option<Fault>>,
}

/// The host has no session here, or it does not take messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host's agent is not connected to this coordinator")]
pub struct NotConnected;

impl Session {
    /// A session and the end that its stream holds.
    pub fn new(
        host: HostId,
        number: SessionNumber,
        instance: InstanceId,
        identity: Arc<PeerIdentity>,
    ) -> (Session, SessionStream) {
        let (outgoing, receiver) = mpsc::channel(MAX_WAITING_MESSAGES);
        let (ending, ended) = watch::channel(None);
        let session = Session { host, number, instance, identity, outgoing, ending, pong: watch::Sender::new(0) };
        (session, SessionStream { outgoing: receiver, ending: ended })
    }

    /// Queues a message. An agent that does not read is cut off instead of waited for.
    pub fn send(&self, message: Message) -> Result<(), NotConnected> {
        let sent = self.outgoing.try_send(Box::new(CoordinatorMessage { message: Some(message) }));
        sent.map_err(|_| {
            self.end(Fault::new(
                coord_shared::fault::ErrorCode::LimitExceeded,
                "the agent does not read its messages: reconnect",
            ));
            NotConnected
        })
    }

    /// Ends the stream, telling the agent why. Only the first reason counts.
    pub fn end(&self, reason: Fault) {
        self.ending.send_if_modified(|ending| {
            let first = ending.is_none();
            if first {
                *ending = Some(reason);
            }
            first
        });
    }

    /// The agent answered a ping.
    pub fn record_pong(&self, number: u64) {
        self.pong.send_replace(number);
    }

    /// Whether the agent answers a ping within `patience`.
    pub async fn answers(&self, patience: Duration) -> bool {
        let mut pongs = self.pong.subscribe();
        let number = pongs.borrow_and_update().saturating_add(1);
        if self.send(Message::Ping(Ping { number })).is_err() {
            return false;
        }
        let answered = pongs.wait_for(|pong| *pong >= number);
        matches!(tokio::time::timeout(patience, answered).await, Ok(Ok(_)))
    }
}

/// All sessions at this coordinator. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    live: Arc<Mutex<HashMap<HostId, Session>>>,
}

impl Sessions {
    /// Nobody is connected.
    pub fn new() -> Sessions {
        Sessions::default()
    }

    fn locked<R>(&self, act: impl FnOnce(&mut HashMap<HostId, Session>) -> R) -> R {
        // The map is whole after every statement, so a panic elsewhere does not spoil it.
        act(&mut self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a greeted session in place. An older one of the host is ended with `reason`; a newer one stays, and this answers false.
    pub fn put(&self, session: Session, reason: Fault) -> bool {
        self.locked(|live| {
            if let Some(current) = live.get(&session.host) {
                if current.number > session.number {
                    return false;
                }
                current.end(reason);
            }
            live.insert(session.host, session);
            true
        })
    }

    /// Takes a session away, unless another has taken its place.
    pub fn remove(&self, host: HostId, number: SessionNumber) {
        self.locked(|live| {
            if live.get(&host).is_some_and(|session| session.number == number) {
                live.remove(&host);
            }
        });
    }

    /// The host's session, if it has one here.
    pub fn get(&self, host: HostId) -> Option<Session> {
        self.locked(|live| live.get(&host).cloned())
    }

    /// The hosts that have a session here, in no order.
    pub fn hosts(&self) -> Vec<HostId> {
        self.locked(|live| live.keys().copied().collect())
    }

    /// Every session here, in no order.
    pub fn all(&self) -> Vec<Session> {
        self.locked(|live| live.values().cloned().collect())
    }

    /// Queues a message for a host.
    pub fn send(&self, host: HostId, message: Message) -> Result<(), NotConnected> {
        self.get(host).ok_or(NotConnected)?.send(message)
    }
}

#[cfg(test)]
mod tests {
    use coord_shared::fault::ErrorCode;
    use coord_shared::tls::PeerKind;
    use jiff::Timestamp;

    use super::*;

    fn session(host: HostId, number: u64) -> (Session, SessionStream) {
        let identity = PeerIdentity {
            kind: PeerKind::Agent,
            fleet: "demo".to_owned(),
            id: host.to_string(),
            serial: String::new(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::MAX,
            public_key_sha256: [0; 32],
            sha256: [0; 32],
        };
        Session::new(host, SessionNumber(number), InstanceId::random(), Arc::new(identity))
    }

    fn reason() -> Fault {
        Fault::new(ErrorCode::Changed, "replaced by a newer session")
    }

    #[tokio::test]
    async fn a_newer_session_replaces_an_older_one_and_never_the_other_way() {
        let (sessions, host) = (Sessions::new(), HostId::random());
        let (old, old_stream) = session(host, 1);
        let (new, new_stream) = session(host, 2);
        assert!(sessions.put(old.clone(), reason()));
        assert!(sessions.put(new, reason()));
        assert!(old_stream.ending.borrow().is_some());
        assert!(!sessions.put(old, reason()));
        assert!(new_stream.ending.borrow().is_none());
        sessions.remove(host, SessionNumber(1));
        assert_eq!(sessions.get(host).map(|session| session.number), Some(SessionNumber(2)));
    }

    #[tokio::test]
    async fn an_agent_that_does_not_read_is_cut_off() {
        let (session, stream) = session(HostId::random(), 1);
        for number in 0..MAX_WAITING_MESSAGES {
            assert_eq!(session.send(Message::Ping(Ping { number: number as u64 })), Ok(()));
        }
        assert_eq!(session.send(Message::Ping(Ping { number: 0 })), Err(NotConnected));
        assert!(stream.ending.borrow().is_some());
    }

    #[tokio::test]
    async fn a_ping_tells_the_living_from_the_dead() {
        let (session, mut stream) = session(HostId::random(), 1);
        let agent = session.clone();
        let answering = async {
            if let Some(Message::Ping(ping)) = stream.outgoing.recv().await.and_then(|message| message.message) {
                agent.record_pong(ping.number);
            }
        };
        let (alive, ()) = tokio::join!(session.answers(Duration::from_secs(5)), answering);
        assert!(alive);
        assert!(!session.answers(Duration::from_millis(20)).await);
    }
}
