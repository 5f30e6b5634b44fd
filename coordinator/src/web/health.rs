//! `/livez` and `/readyz`: two questions with an answer of one line a check, for people, or JSON for whoever accepts that. A closed number of
//! connections, each of one short question; who asks often gets the answer of a moment ago.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coord_shared::lifecycle::Lifecycle;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

use crate::app::health::{Check, Health};

/// Questions at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 32;
/// From the connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer that is younger is given again: probes cost the catalog at most one question in this time.
const FRESH: Duration = Duration::from_millis(500);
/// Pause after a failed accept (for example: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Longest head of a question, in bytes.
const MAX_HEAD_BYTES: usize = 8 << 10;

/// The listener, not yet answering.
#[derive(Debug)]
pub struct HealthListener {
    listener: TcpListener,
}

/// What all connections share.
struct Shared {
    health: Health,
    ready: Mutex<Option<(Instant, Vec<Check>)>>,
}

impl HealthListener {
    /// Listens on `address`; port 0 takes any.
    pub async fn bind(address: SocketAddr) -> io::Result<HealthListener> {
        Ok(HealthListener { listener: TcpListener::bind(address).await? })
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends, also while it is starting and while it is drained.
    pub fn start(self, health: Health, life: &Lifecycle) {
        let ending = life.ending().clone();
        let beside = life.clone();
        life.spawn("health listener", async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = self.accept(health, beside) => {}
            }
        });
    }

    async fn accept(self, health: Health, life: Lifecycle) {
        let shared = Arc::new(Shared { health, ready: Mutex::new(None) });
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (shared, ending) = (Arc::clone(&shared), life.ending().clone());
                    life.spawn("health question", async move {
                        let answered = tokio::time::timeout(PATIENCE, serve(stream, shared));
                        tokio::select! {
                            _ = answered => {}
                            () = ending.cancelled() => {}
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let answer = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a question about our health was not finished");
    }
}

async fn answer<B>(shared: &Shared, request: &Request<B>) -> Response<String> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    let checks = match request.uri().path() {
        "/livez" => shared.health.live(),
        "/readyz" => shared.ready().await,
        _ => return plain(StatusCode::NOT_FOUND, "there is /livez and /readyz\n".to_owned()),
    };
    let wants_json = request.headers().get(ACCEPT).is_some_and(|accept| {
        accept.to_str().is_ok_and(|accept| accept.split(',').any(|kind| kind.trim().starts_with("application/json")))
    });
    let passed = checks.iter().all(|check| check.passed);
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !wants_json {
        return plain(status, text(&checks));
    }
    let mut response = plain(status, document(&checks, passed));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Shared {
    async fn ready(&self) -> Vec<Check> {
        let mut last = self.ready.lock().await;
        match &*last {
            Some((at, checks)) if at.elapsed() < FRESH => checks.clone(),
            Some(_) | None => {
                let checks = self.health.ready().await;
                *last = Some((Instant::now(), checks.clone()));
                checks
            }
        }
    }
}

fn plain(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// One line a check, what failed first.
fn text(checks: &[Check]) -> String {
    let line = |check: &Check| {
        format!("{} {}: {}\n", if check.passed { "ok    " } else { "FAILED" }, check.name, check.detail)
    };
    let (passed, failed): (Vec<&Check>, Vec<&Check>) = checks.iter().partition(|check| check.passed);
    failed.into_iter().chain(passed).map(line).collect()
}

fn document(checks: &[Check], passed: bool) -> String {
    let checks: serde_json::Value = checks
        .iter()
        .map(|check| serde_json::json!({ "name": check.name, "passed": check.passed, "detail": check.detail }))
        .collect();
    format!("{}\n", serde_json::json!({ "passed": passed, "checks": checks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_said_first_and_every_check_is_named() {
        let checks = [
            Check { name: "catalog".into(), passed: true, detail: "answers".into() },
            Check { name: "draining".into(), passed: false, detail: "ada asked for it".into() },
        ];
        assert_eq!(text(&checks), "FAILED draining: ada asked for it\nok     catalog: answers\n");
        let document: serde_json::Value = serde_json::from_str(&document(&checks, false)).unwrap_or_default();
        assert_eq!(document["passed"], false);
        assert_eq!(document["checks"][1]["name"], "draining");
    }
}
