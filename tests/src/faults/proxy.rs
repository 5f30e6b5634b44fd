//! The network between two hosts on loopback: a TCP relay whose traffic a test can hold, delay, halve, double, refuse, or cut at a COMMIT.
//!
//! Bytes are never changed and never reordered; what is held flows on when the fault ends, as TCP would send it again.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes moved at once.
const BUFFER: usize = 64 << 10;
/// How PostgreSQL's simple query ends a transaction.
const COMMIT: &[u8] = b"COMMIT\0";

/// A way that bytes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From whoever connected to whom it connected to.
    Up,
    /// Back.
    Down,
}

/// What becomes of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Everything passes.
    Flows,
    /// Nothing passes and nobody is told: a partition.
    Held,
    /// One way is held: the other end is heard and does not hear.
    OneWayHeld(Way),
    /// Each piece waits this long.
    Delayed(Duration),
    /// Connections end at once, and so do new ones: the other machine answers with a reset.
    Refused,
    /// What is said on a new connection is said on a second one as well, whose answers nobody hears.
    Doubled,
    /// Every nth COMMIT reaches the other end, and the connection ends before its answer comes back.
    AnswerCutAfterCommit(u64),
    /// The connection ends before every nth COMMIT reaches the other end.
    CutBeforeCommit(u64),
}

/// A relay; clones are the same one. It lives as long as the program.
#[derive(Debug, Clone)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: String,
    traffic: watch::Sender<Traffic>,
    /// Connections of an older epoch are half open.
    epoch: watch::Sender<u64>,
    commits: AtomicU64,
    cuts: AtomicU64,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    #[expect(clippy::expect_used, reason = "a test without its network has nothing to say")]
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("network").enable_all().build().expect("a runtime for the network")
    })
}

impl Proxy {
    /// Listens on a free port of loopback and relays to `to` (`host:port`).
    ///
    /// # Errors
    /// No port is to be had.
    pub fn start(to: &str) -> Result<Proxy, String> {
        let listener = StdListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let shared = Arc::new(Shared {
            to: to.to_owned(),
            traffic: watch::Sender::new(Traffic::Flows),
            epoch: watch::Sender::new(0),
            commits: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        });
        let _in_runtime = runtime().enter();
        let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
        runtime().spawn(accept(listener, Arc::clone(&shared)));
        Ok(Proxy { address, shared })
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what becomes of the traffic, from now on.
    pub fn set(&self, traffic: Traffic) {
        self.shared.traffic.send_replace(traffic);
    }

    /// Ends every present connection at the far end only: whoever opened it is told nothing. New ones are whole.
    pub fn leave_half_open(&self) {
        self.shared.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Connections that were cut at a COMMIT.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        if let Ok((near, _)) = listener.accept().await {
            tokio::spawn(relay(near, Arc::clone(&shared)));
        }
    }
}

/// One connection from its beginning to its end.
async fn relay(near: TcpStream, shared: Arc<Shared>) {
    let mut traffic = shared.traffic.subscribe();
    let held = |traffic: &Traffic| matches!(traffic, Traffic::Held | Traffic::OneWayHeld(_));
    if traffic.wait_for(|now| !held(now)).await.is_err() || *traffic.borrow() == Traffic::Refused {
        return;
    }
    let Ok(far) = TcpStream::connect(&shared.to).await else { return };
    let now = *traffic.borrow();
    let twin = match now {
        Traffic::Doubled => TcpStream::connect(&shared.to).await.ok(),
        _ => None,
    };
    let twin = twin.map(|stream| {
        let (mut read, write) = stream.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        write
    });
    for stream in [&near, &far] {
        drop(stream.set_nodelay(true));
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let (over, half_open, answered) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let pipe = |way| Pipe {
        way,
        shared: Arc::clone(&shared),
        over: over.clone(),
        half_open: half_open.clone(),
        answered: answered.clone(),
    };
    let up = pipe(Way::Up).pump(near_read, far_write, twin);
    let down = pipe(Way::Down).pump(far_read, near_write, None);
    let ((near_read, far_write), (far_read, near_write)) = tokio::join!(up, down);
    drop((far_write, far_read));
    if half_open.is_cancelled() {
        // The near end stays until it gives up.
        let mut near = near_read;
        let mut ignored = vec![0; BUFFER];
        while matches!(near.read(&mut ignored).await, Ok(read) if read > 0) {}
    }
    drop(near_write);
}

struct Pipe {
    way: Way,
    shared: Arc<Shared>,
    /// The connection is to end at once.
    over: CancellationToken,
    /// Its near end is to stay, and to be told nothing.
    half_open: CancellationToken,
    /// The far end has a COMMIT whose answer must not come back.
    answered: CancellationToken,
}

impl Pipe {
    /// Moves bytes one way until either end or the test ends it.
    async fn pump(
        self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mut twin: Option<OwnedWriteHalf>,
    ) -> (OwnedReadHalf, OwnedWriteHalf) {
        let mut traffic = self.shared.traffic.subscribe();
        let mut held = traffic.clone();
        let mut epoch = self.shared.epoch.subscribe();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                _ = epoch.changed() => { self.half_open.cancel(); self.over.cancel(); break }
                () = refused(&mut traffic) => { self.over.cancel(); break }
                () = self.over.cancelled() => break,
            };
            let Ok(read @ 1..) = read else {
                // The other way may have more to say.
                drop(to.shutdown().await);
                break;
            };
            let passes = tokio::select! {
                passes = self.pass(&mut held, &buffer[..read]) => passes,
                _ = epoch.changed() => { self.half_open.cancel(); false }
                () = self.over.cancelled() => false,
            };
            if let Some(stream) = &mut twin
                && passes
                && stream.write_all(&buffer[..read]).await.is_err()
            {
                twin = None;
            }
            if !passes || to.write_all(&buffer[..read]).await.is_err() {
                self.over.cancel();
                break;
            }
        }
        (from, to)
    }

    /// Waits until these bytes may pass. False: the connection ends instead.
    async fn pass(&self, traffic: &mut watch::Receiver<Traffic>, bytes: &[u8]) -> bool {
        let way = self.way;
        let held = |now: &Traffic| *now == Traffic::Held || *now == Traffic::OneWayHeld(way);
        if traffic.wait_for(|now| !held(now)).await.is_err() {
            return false;
        }
        let now = *traffic.borrow();
        match now {
            Traffic::Delayed(time) => tokio::time::sleep(time).await,
            Traffic::Refused => return false,
            Traffic::CutBeforeCommit(every) if self.is_chosen(every, bytes) => {
                self.shared.cuts.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            Traffic::AnswerCutAfterCommit(every) if self.is_chosen(every, bytes) => self.answered.cancel(),
            Traffic::AnswerCutAfterCommit(_) if way == Way::Down && self.answered.is_cancelled() => {
                // The answer is here: the far end has committed.
                self.shared.cuts.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            _ => {}
        }
        true
    }

    fn is_chosen(&self, every: u64, bytes: &[u8]) -> bool {
        let is_commit = self.way == Way::Up && bytes.windows(COMMIT.len()).any(|window| window == COMMIT);
        is_commit && (self.shared.commits.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every)
    }
}

async fn refused(traffic: &mut watch::Receiver<Traffic>) {
    if traffic.wait_for(|now| *now == Traffic::Refused).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::{Proxy, Traffic, Way};

    /// Short enough for a test, long enough for loopback.
    const MOMENT: Duration = Duration::from_millis(300);

    /// A far end that says everything twice.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut bytes = [0; 100];
                    while let Ok(read @ 1..) = stream.read(&mut bytes) {
                        stream.write_all(&bytes[..read]).unwrap();
                    }
                });
            }
        });
        address
    }

    fn dial(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(MOMENT)).unwrap();
        stream
    }

    fn hear(stream: &mut TcpStream) -> Result<String, ErrorKind> {
        let mut bytes = [0; 100];
        let read = stream.read(&mut bytes).map_err(|error| error.kind())?;
        Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
    }

    fn say_and_hear(stream: &mut TcpStream, text: &str) -> Result<String, ErrorKind> {
        stream.write_all(text.as_bytes()).map_err(|error| error.kind())?;
        hear(stream)
    }

    #[test]
    fn what_is_held_comes_when_the_partition_ends() {
        let proxy = Proxy::start(&echo()).unwrap();
        let mut stream = dial(&proxy);
        assert_eq!(say_and_hear(&mut stream, "one").unwrap(), "one");
        for fault in [Traffic::Held, Traffic::OneWayHeld(Way::Up), Traffic::OneWayHeld(Way::Down)] {
            proxy.set(fault);
            assert_eq!(say_and_hear(&mut stream, "two"), Err(ErrorKind::WouldBlock), "{fault:?}");
            proxy.set(Traffic::Flows);
            stream.set_read_timeout(Some(MOMENT * 10)).unwrap();
            assert_eq!(hear(&mut stream).unwrap(), "two", "{fault:?}");
            stream.set_read_timeout(Some(MOMENT)).unwrap();
        }
    }

    #[test]
    fn a_half_open_connection_is_silent_and_the_next_one_works() {
        let proxy = Proxy::start(&echo()).unwrap();
        let mut stream = dial(&proxy);
        assert_eq!(say_and_hear(&mut stream, "one").unwrap(), "one");
        proxy.leave_half_open();
        assert_eq!(say_and_hear(&mut stream, "two"), Err(ErrorKind::WouldBlock));
        assert_eq!(say_and_hear(&mut dial(&proxy), "three").unwrap(), "three");
    }

    #[test]
    fn a_refused_connection_ends() {
        let proxy = Proxy::start(&echo()).unwrap();
        let mut stream = dial(&proxy);
        assert_eq!(say_and_hear(&mut stream, "one").unwrap(), "one");
        proxy.set(Traffic::Refused);
        assert!(matches!(hear(&mut stream).as_deref(), Ok("") | Err(ErrorKind::ConnectionReset)));
    }

    #[test]
    fn the_answer_to_the_second_commit_is_cut_and_the_far_end_has_it() {
        let proxy = Proxy::start(&echo()).unwrap();
        proxy.set(Traffic::AnswerCutAfterCommit(2));
        let mut stream = dial(&proxy);
        assert_eq!(say_and_hear(&mut stream, "Q COMMIT\0").unwrap(), "Q COMMIT\0");
        assert_eq!(proxy.cuts(), 0);
        assert_eq!(say_and_hear(&mut stream, "Q COMMIT\0").unwrap(), "");
        assert_eq!(proxy.cuts(), 1);
    }
}
