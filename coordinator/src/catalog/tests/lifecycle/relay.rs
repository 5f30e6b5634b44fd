//! The way between a coordinator and its database, on which a test cuts the connection at a chosen statement. The relay knows of
//! PostgreSQL's protocol where a request and its answer end: a request ends with Sync, or is a simple query, and its answer ends with
//! ReadyForQuery. Requests pass one by one, each with its whole answer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_postgres::config::Host;

/// Of a client: the end of a group of messages, a simple query, the end of the connection.
const SYNC: u8 = b'S';
const QUERY: u8 = b'Q';
const TERMINATE: u8 = b'X';
/// Of the server: the end of an answer.
const READY: u8 = b'Z';
/// A message's kind and length.
const HEAD: usize = 5;

/// On which side of a statement the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The statement does not reach the server.
    Before,
    /// The server has done it, and its answer does not come back.
    After,
}

/// Which request of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// The nth. Preparing a statement is one as well.
    Nth(usize),
    /// The first that ends a transaction.
    Commit,
}

/// Where a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// At this request.
    pub(super) spot: Spot,
    /// On which side of it.
    pub(super) side: Side,
    /// No other connection is to be had for the rest of the step.
    pub(super) stays_away: bool,
}

/// What passed in a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Passed {
    /// So many requests.
    pub(super) requests: usize,
    /// The cut was reached.
    pub(super) cut: bool,
}

#[derive(Debug, Default)]
struct Plan {
    cut: Option<Cut>,
    passed: Passed,
}

/// A relay to one server. Its connections end with it.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    /// Listens on a free port of loopback.
    pub(super) async fn start(server: (Host, u16)) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, plan) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Plan::default())));
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&plan)));
        Relay { address, plan, accepting }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A step begins: its requests are counted from one.
    pub(super) fn begin(&self, cut: Option<Cut>) {
        *locked(&self.plan) = Plan { cut, passed: Passed::default() };
    }

    /// The step is over: nothing is cut, and connections may be made again.
    pub(super) fn end(&self) -> Passed {
        std::mem::take(&mut *locked(&self.plan)).passed
    }
}

fn locked(plan: &Mutex<Plan>) -> std::sync::MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plan {
    /// Counts a request. `Some`: the connection ends at it.
    fn meet(&mut self, request: &[u8]) -> Option<Side> {
        let is_query = |text: &[u8]| request[0] == QUERY && request[HEAD..].starts_with(text);
        // The pool's look at a new connection, and the end of a transaction that was dropped, which nobody waits for.
        if is_query(b"SHOW") || is_query(b"ROLLBACK") {
            return None;
        }
        self.passed.requests += 1;
        let cut = self.cut.filter(|_| !self.passed.cut)?;
        self.passed.cut = match cut.spot {
            Spot::Nth(number) => number == self.passed.requests,
            Spot::Commit => is_query(b"COMMIT"),
        };
        self.passed.cut.then_some(cut.side)
    }

    fn stays_away(&self) -> bool {
        self.passed.cut && self.cut.is_some_and(|cut| cut.stays_away)
    }
}

async fn accept(listener: TcpListener, server: (Host, u16), plan: Arc<Mutex<Plan>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if locked(&plan).stays_away() {
            continue;
        }
        let (server, plan) = (server.clone(), Arc::clone(&plan));
        connections.spawn(async move {
            // Whoever had the connection sees that it ended, which is all that there is to say.
            let _ended = converse(client, &server, &plan).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn dial((host, port): &(Host, u16)) -> io::Result<End> {
    Ok(match host {
        Host::Tcp(name) => End::new(TcpStream::connect((name.as_str(), *port)).await?),
        Host::Unix(folder) => End::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?),
    })
}

async fn converse(client: TcpStream, server: &(Host, u16), plan: &Mutex<Plan>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut client, mut server) = (End::new(client), dial(server).await?);
    greet(&mut client, &mut server).await?;
    loop {
        let request = tokio::select! {
            request = client.take_until(&[SYNC, QUERY, TERMINATE]) => request?,
            // It says nothing unasked but that it ends.
            ended = server.take_until(&[READY]) => return ended.map(drop),
        };
        let cut = locked(plan).meet(&request);
        if cut == Some(Side::Before) {
            return Ok(());
        }
        server.stream.write_all(&request).await?;
        let answer = server.take_until(&[READY]).await?;
        if cut == Some(Side::After) {
            return Ok(());
        }
        client.stream.write_all(&answer).await?;
    }
}

/// The beginning of a connection, whose first message has no kind.
async fn greet(client: &mut End, server: &mut End) -> io::Result<()> {
    loop {
        tokio::select! {
            read = client.stream.read_buf(&mut client.bytes) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                server.stream.write_all(&client.bytes.split()).await?;
            }
            message = server.take_until(&[]) => {
                let message = message?;
                client.stream.write_all(&message).await?;
                if message[0] == READY {
                    return Ok(());
                }
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One end of a connection, and what was read of it and not passed on yet.
struct End {
    stream: Box<dyn Stream>,
    bytes: BytesMut,
}

impl End {
    fn new(stream: impl Stream + 'static) -> End {
        End { stream: Box::new(stream), bytes: BytesMut::new() }
    }

    /// The next messages up to the first of one of these kinds; without kinds, the next one. What is given up in the middle is lost to
    /// nobody.
    async fn take_until(&mut self, kinds: &[u8]) -> io::Result<BytesMut> {
        loop {
            if let Some(length) = length_until(&self.bytes, kinds) {
                return Ok(self.bytes.split_to(length));
            }
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The bytes up to the end of the first message of one of these kinds, if all of it is there.
fn length_until(bytes: &[u8], kinds: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        let head = bytes.get(end..end + HEAD)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        end += 1 + usize::try_from(length).ok()?;
        if end > bytes.len() {
            return None;
        }
        if kinds.is_empty() || kinds.contains(&head[0]) {
            return Some(end);
        }
    }
}
