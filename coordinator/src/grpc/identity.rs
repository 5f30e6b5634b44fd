//! The layer in front of every service of the main listener: reads the peer's certificate, looks it up in the allow-list, compares kind
//! and role with what the RPC asks for, and hands the caller on. A request that does not get through never reaches a service.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::HostId;
use coord_shared::telemetry::new_trace_id;
use coord_shared::tls::{PeerIdentity, PeerKind};
use rustls::pki_types::CertificateDer;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use super::access::{self, Access};
use crate::app::App;
use crate::app::authorize::{Role, authorize, authorize_again};

/// Who is calling: what the certificate says, judged by the catalog at most five seconds ago.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the certificate says.
    pub identity: Arc<PeerIdentity>,
    /// An operator's role.
    pub role: Option<Role>,
    /// Under which logs have more about this call.
    pub trace: String,
}

impl Caller {
    /// The host, when an agent calls.
    pub fn host(&self) -> Result<HostId, Fault> {
        let id = (self.identity.kind == PeerKind::Agent).then(|| self.identity.id.parse().ok()).flatten();
        id.ok_or_else(|| Fault::new(ErrorCode::PermissionDenied, "the certificate does not name a host"))
    }

    /// The operator's name, for records of who did what.
    pub fn user(&self) -> &str {
        &self.identity.id
    }
}

/// How often whoever holds a stream open is judged again: a revocation acts within five seconds.
const RECHECK: Duration = Duration::from_secs(4);

/// Comes back when the caller must not be served any more, with the reason. Every stream that may last has it beside its work.
pub async fn judged(app: &App, caller: &Caller) -> Fault {
    loop {
        tokio::time::sleep(RECHECK).await;
        match authorize_again(app, &caller.identity).await {
            Ok(standing) if standing.role < caller.role => {
                return Fault::new(ErrorCode::PermissionDenied, "the role is not what it was when this began");
            }
            Ok(_) => {}
            Err(fault) => return fault,
        }
    }
}

/// Wraps services with the check.
#[derive(Debug, Clone)]
pub struct IdentityLayer {
    app: Arc<App>,
}

impl IdentityLayer {
    /// Checks against the catalog of `app`.
    pub fn new(app: Arc<App>) -> IdentityLayer {
        IdentityLayer { app }
    }
}

impl<S> Layer<S> for IdentityLayer {
    type Service = IdentityService<S>;

    fn layer(&self, inner: S) -> IdentityService<S> {
        IdentityService { app: Arc::clone(&self.app), inner }
    }
}

/// A service behind the check.
#[derive(Debug, Clone)]
pub struct IdentityService<S> {
    app: Arc<App>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for IdentityService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The clone takes the place of the instance that was polled ready, as tower asks for.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let app = Arc::clone(&self.app);
        Box::pin(async move {
            let trace = new_trace_id();
            let path = request.uri().path().to_owned();
            match admit(&app, &path, shown(&request), trace.clone()).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    ready.call(request).await
                }
                Err(fault) => {
                    tracing::info!(%trace, path, code = %fault.code, why = %fault.message, "refused");
                    Ok(Status::from(fault.with_trace(trace)).into_http())
                }
            }
        })
    }
}

/// The certificate that the peer showed in the handshake.
fn shown(request: &http::Request<Body>) -> Option<CertificateDer<'static>> {
    let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?;
    info.peer_certs()?.first().cloned()
}

async fn admit(
    app: &App,
    path: &str,
    certificate: Option<CertificateDer<'static>>,
    trace: String,
) -> Result<Caller, Fault> {
    let Some(access) = access::of(path) else {
        return Err(Fault::new(ErrorCode::Unsupported, "this coordinator does not know that call"));
    };
    let certificate = certificate.ok_or_else(|| Fault::new(ErrorCode::Unauthenticated, "no certificate was shown"))?;
    let identity = PeerIdentity::from_der(&certificate)
        .map_err(|error| Fault::new(ErrorCode::Unauthenticated, error.to_string()))?;
    if access.kind().is_some_and(|kind| kind != identity.kind) {
        return Err(wrong_kind(identity.kind, access));
    }
    let role = authorize(app, &identity).await?.role;
    if let Access::Operator(needed) = access
        && role.is_none_or(|has| has < needed)
    {
        let message = format!("this needs the role {needed}, {} has not got it", identity.id);
        return Err(Fault::new(ErrorCode::PermissionDenied, message).with_hint("ask an admin of the fleet"));
    }
    Ok(Caller { identity: Arc::new(identity), role, trace })
}

fn wrong_kind(kind: PeerKind, access: Access) -> Fault {
    let needed = access.kind().map_or("any", PeerKind::as_str);
    Fault::new(ErrorCode::PermissionDenied, format!("a certificate of kind {kind} was shown; this needs kind {needed}"))
}
