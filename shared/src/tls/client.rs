//! The dialing side: agents and operators. The server's certificate must come from the pinned authority and be of kind coordinator;
//! our own certificate is asked for at every handshake, so that a renewed one is used from the next connection on.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::{PeerIdentity, PeerKind, TlsError, ca_pin, certificates, certified_key, provider};
use crate::fault::{ErrorCode, Fault};
use crate::token::CaPin;
use crate::wire;

/// Our own certificate and key, replaceable while connections are open.
#[derive(Debug, Default)]
pub struct HeldIdentity {
    current: ArcSwapOption<CertifiedKey>,
}

impl HeldIdentity {
    /// Nobody yet: for joining.
    pub fn anonymous() -> Arc<HeldIdentity> {
        Arc::default()
    }

    /// A certificate (PEM, leaf first) and its key (PEM).
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Arc<HeldIdentity>, TlsError> {
        let held = HeldIdentity::default();
        held.replace(certificate_pem, key_pem)?;
        Ok(Arc::new(held))
    }

    /// Uses another certificate from the next handshake on.
    pub fn replace(&self, certificate_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        let chain = certificates("certificate", certificate_pem)?;
        self.current.store(Some(Arc::new(certified_key(chain, key_pem)?)));
        Ok(())
    }

    /// What the current certificate says; `None` while anonymous.
    pub fn identity(&self) -> Option<PeerIdentity> {
        let key = self.current.load_full()?;
        PeerIdentity::from_der(key.end_entity_cert().ok()?).ok()
    }
}

impl ResolvesClientCert for HeldIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }

    fn has_certs(&self) -> bool {
        self.current.load().is_some()
    }
}

/// How to dial a coordinator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint is not `host:port`.
    #[error("{endpoint:?} is not an endpoint: write host:port")]
    Endpoint {
        /// As given.
        endpoint: String,
    },
    /// No TCP connection, no handshake in time, or the connection was cut.
    #[error("cannot reach the coordinator at {endpoint}")]
    Unreachable {
        /// Whom we dialed.
        endpoint: String,
        #[source]
        source: tonic::transport::Error,
    },
    /// Somebody answers, but it is not our coordinator.
    #[error("{endpoint} is not a coordinator of this fleet")]
    WrongAuthority {
        /// Whom we dialed.
        endpoint: String,
        #[source]
        source: tonic::transport::Error,
    },
}

impl From<&ConnectError> for Fault {
    fn from(error: &ConnectError) -> Fault {
        let hint = match error {
            ConnectError::Endpoint { .. } => return Fault::new(ErrorCode::InvalidArgument, error.to_string()),
            ConnectError::Unreachable { .. } => "is it running, and does a firewall let you through?",
            ConnectError::WrongAuthority { .. } => {
                "the certificate authority differs from the one pinned: check the endpoint, or get a new token from this fleet"
            }
        };
        let code = match error {
            ConnectError::Endpoint { .. } => ErrorCode::InvalidArgument,
            ConnectError::Unreachable { .. } => ErrorCode::Unavailable,
            ConnectError::WrongAuthority { .. } => ErrorCode::WrongAuthority,
        };
        let mut message = error.to_string();
        if let Some(cause) = deepest(error) {
            message = format!("{message}: {cause}");
        }
        Fault::new(code, message).with_hint(hint)
    }
}

/// The innermost cause, which is the one that says something.
fn deepest(error: &dyn std::error::Error) -> Option<String> {
    let mut cause = error.source()?;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Some(cause.to_string())
}

impl ClientTls {
    /// Trusts the authorities in `ca_pem`, and shows `identity` when it has one.
    pub fn new(ca_pem: &str, identity: Arc<HeldIdentity>) -> Result<ClientTls, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates("authority", ca_pem)? {
            roots.add(authority).map_err(TlsError::Rustls)?;
        }
        ClientTls::with(Trust::Roots(roots), identity)
    }

    /// Trusts the one authority whose public key has this digest: for joining with a token.
    pub fn pinned(pin: CaPin) -> Result<ClientTls, TlsError> {
        ClientTls::with(Trust::Pin(pin), HeldIdentity::anonymous())
    }

    fn with(trust: Trust, identity: Arc<HeldIdentity>) -> Result<ClientTls, TlsError> {
        let verifier = CoordinatorVerifier { trust, provider: provider() };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Rustls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(identity);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(ClientTls { config: Arc::new(config) })
    }

    /// Dials `endpoint` (`host:port`) and completes the handshake.
    pub async fn connect(&self, endpoint: &str) -> Result<Channel, ConnectError> {
        self.connect_any(&[endpoint.to_owned()]).await
    }

    /// Dials these endpoints (`host:port`) in turn until one completes the handshake, and does so again whenever the connection has broken:
    /// who holds the channel goes from a coordinator that is gone to the next.
    pub async fn connect_any(&self, endpoints: &[String]) -> Result<Channel, ConnectError> {
        let malformed = |endpoint: &str| ConnectError::Endpoint { endpoint: endpoint.to_owned() };
        let wrong = |endpoint: &str| {
            endpoint.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        };
        if let Some(endpoint) = endpoints.iter().find(|endpoint| wrong(endpoint)) {
            return Err(malformed(endpoint));
        }
        let first = endpoints.first().ok_or_else(|| malformed(""))?;
        let number = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        // The scheme is http because the connector below brings its own TLS.
        let channel = Endpoint::from_shared(format!("http://{first}"))
            .map_err(|_| malformed(first))?
            .connect_timeout(wire::HANDSHAKE_TIMEOUT.saturating_mul(2).saturating_mul(number))
            .http2_keep_alive_interval(wire::KEEPALIVE_INTERVAL)
            .keep_alive_timeout(wire::KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(wire::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(wire::CONNECTION_WINDOW_BYTES)
            .user_agent("coord")
            .map_err(|_| malformed(first))?;
        let (addresses, connector): (Arc<[String]>, _) =
            (endpoints.into(), TlsConnector::from(Arc::clone(&self.config)));
        let dial =
            tower::service_fn(move |_uri: http::Uri| handshake_with_any(Arc::clone(&addresses), connector.clone()));
        channel.connect_with_connector(dial).await.map_err(|source| {
            let endpoint = endpoints.join(", ");
            if is_distrust(&source) {
                ConnectError::WrongAuthority { endpoint, source }
            } else {
                ConnectError::Unreachable { endpoint, source }
            }
        })
    }
}

/// The first of these addresses that completes the handshake, else why the last did not.
async fn handshake_with_any(
    addresses: Arc<[String]>,
    connector: TlsConnector,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let mut last = std::io::Error::other("no endpoint");
    for address in addresses.iter() {
        match handshake(address.clone(), connector.clone()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn handshake(
    address: String,
    connector: TlsConnector,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
    let stream = tokio::time::timeout(wire::HANDSHAKE_TIMEOUT, TcpStream::connect(&address)).await.map_err(late)??;
    stream.set_nodelay(true)?;
    // Certificates of the fleet carry no DNS names; the verifier goes by the URI name alone.
    let name = ServerName::try_from("coordinator").map_err(std::io::Error::other)?;
    let stream =
        tokio::time::timeout(wire::HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await.map_err(late)??;
    Ok(TokioIo::new(stream))
}

/// Whether a connection failed because the server's certificate was not accepted by us.
fn is_distrust(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(inner) = cause {
        // An io::Error shows its inner error through get_ref, not through source.
        let io = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = io.and_then(|e| e.downcast_ref::<rustls::Error>()).or_else(|| inner.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(_)) = tls {
            return true;
        }
        cause = inner.source();
    }
    false
}

#[derive(Debug)]
enum Trust {
    Roots(RootCertStore),
    Pin(CaPin),
}

/// Accepts certificates of kind coordinator of the pinned authority, and nothing else.
#[derive(Debug)]
struct CoordinatorVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl CoordinatorVerifier {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        match &self.trust {
            Trust::Roots(roots) => verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain, now, algorithms),
            Trust::Pin(pin) => {
                let mut roots = RootCertStore::empty();
                for authority in chain.iter().filter(|der| ca_pin(der).is_ok_and(|found| found == *pin)) {
                    roots.add(authority.clone().into_owned())?;
                }
                if roots.is_empty() {
                    return Err(CertificateError::UnknownIssuer.into());
                }
                verify_server_cert_signed_by_trust_anchor(&parsed, &roots, chain, now, algorithms)
            }
        }
    }
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify_chain(end_entity, intermediates, now)?;
        let identity = PeerIdentity::from_der(end_entity).map_err(|_| CertificateError::NotValidForName)?;
        if identity.kind != PeerKind::Coordinator {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
