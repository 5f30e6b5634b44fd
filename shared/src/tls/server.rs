//! The listening side: the coordinator's two listeners. Handshakes are bounded in number and in time, and a flood of broken
//! connections costs a pause, not a spinning loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{PeerIdentity, TlsError, certificates, certified_key, provider};
use crate::lifecycle::Lifecycle;
use crate::wire;

/// Handshakes under way at once on one listener; further connections wait in the listener's backlog.
pub const MAX_PENDING_HANDSHAKES: usize = 256;
/// Finished handshakes that the server has not taken yet.
const MAX_READY_CONNECTIONS: usize = 64;
/// Pause after a failed accept (for example: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections whose handshake is done, for `serve_with_incoming`.
pub type Connections = ReceiverStream<io::Result<TlsStream<TcpStream>>>;

/// What is asked of clients in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// A certificate of our authority, in date.
    Required,
    /// A certificate is welcome; one that expired at most `grace` ago too. Only expiry is overlooked, nothing else.
    OptionalExpired {
        /// How long after its expiry a certificate still identifies its holder.
        grace: Duration,
    },
}

/// A listener's certificates, replaceable while it runs.
#[derive(Debug)]
pub struct ServerTls {
    ca_pem: String,
    auth: ClientAuth,
    config: ArcSwap<ServerConfig>,
}

impl ServerTls {
    /// Serves with `certificate_pem` (leaf first) and its key; the authority is sent along, so that a joining client can pin it.
    pub fn new(
        ca_pem: &str,
        certificate_pem: &str,
        key_pem: &str,
        auth: ClientAuth,
    ) -> Result<Arc<ServerTls>, TlsError> {
        let config = build(ca_pem, certificate_pem, key_pem, auth)?;
        Ok(Arc::new(ServerTls { ca_pem: ca_pem.to_owned(), auth, config: ArcSwap::from_pointee(config) }))
    }

    /// Serves new connections with another certificate. Open ones go on.
    pub fn replace(&self, certificate_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        self.config.store(Arc::new(build(&self.ca_pem, certificate_pem, key_pem, self.auth)?));
        Ok(())
    }
}

fn build(ca_pem: &str, certificate_pem: &str, key_pem: &str, auth: ClientAuth) -> Result<ServerConfig, TlsError> {
    let authorities = certificates("authority", ca_pem)?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(TlsError::Rustls)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier: Arc<dyn ClientCertVerifier> = match auth {
        ClientAuth::Required => builder.build().map_err(TlsError::Verifier)?,
        ClientAuth::OptionalExpired { grace } => {
            let strict = builder.allow_unauthenticated().build().map_err(TlsError::Verifier)?;
            Arc::new(OverlooksExpiry { strict, grace })
        }
    };
    let mut chain = certificates("certificate", certificate_pem)?;
    chain.extend(authorities);
    let key = certified_key(chain, key_pem)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Rustls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Accepts connections and completes their handshakes.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    tls: Arc<ServerTls>,
}

impl Acceptor {
    /// Listens on `address`; port 0 takes any.
    pub async fn bind(address: SocketAddr, tls: Arc<ServerTls>) -> io::Result<Acceptor> {
        Ok(Acceptor { listener: TcpListener::bind(address).await?, tls })
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Starts accepting until `life` ends.
    pub fn start(self, life: &Lifecycle) -> Connections {
        self.start_until(life, life.ending().clone())
    }

    /// Starts accepting until `closing` is cancelled, which may be before `life` ends, and not later: then nobody listens here.
    pub fn start_until(self, life: &Lifecycle, closing: CancellationToken) -> Connections {
        let (ready, connections) = mpsc::channel(MAX_READY_CONNECTIONS);
        let life_of_handshakes = life.clone();
        life.spawn("accept", async move {
            let ending = life_of_handshakes.ending().clone();
            tokio::select! {
                () = ending.cancelled() => {}
                () = closing.cancelled() => {}
                () = self.accept(ready, life_of_handshakes) => {}
            }
        });
        ReceiverStream::new(connections)
    }

    async fn accept(self, ready: mpsc::Sender<io::Result<TlsStream<TcpStream>>>, life: Lifecycle) {
        let pending = Arc::new(Semaphore::new(MAX_PENDING_HANDSHAKES));
        loop {
            let Ok(permit) = Arc::clone(&pending).acquire_owned().await else { return };
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let acceptor = TlsAcceptor::from(self.tls.config.load_full());
            let ready = ready.clone();
            life.spawn("handshake", async move {
                let done = handshake(acceptor, stream).await;
                drop(permit);
                match done {
                    Ok(stream) => {
                        if ready.send(Ok(stream)).await.is_err() {
                            tracing::debug!(%peer, "handshake finished after the server ended");
                        }
                    }
                    Err(error) => tracing::debug!(%peer, %error, "handshake failed"),
                }
            });
        }
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    match tokio::time::timeout(wire::HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")),
    }
}

/// Judges an expired certificate as of its last valid second, when that is not too long ago.
#[derive(Debug)]
struct OverlooksExpiry {
    strict: Arc<dyn ClientCertVerifier>,
    grace: Duration,
}

impl ClientCertVerifier for OverlooksExpiry {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refused = match self.strict.verify_client_cert(end_entity, intermediates, now) {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        let expired = matches!(
            refused,
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
        );
        let identity = PeerIdentity::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let not_after = u64::try_from(identity.not_after.as_second()).map_err(|_| CertificateError::Expired)?;
        if !expired || now.as_secs().saturating_sub(not_after) > self.grace.as_secs() {
            return Err(refused);
        }
        let last_valid = UnixTime::since_unix_epoch(Duration::from_secs(not_after.saturating_sub(1)));
        self.strict.verify_client_cert(end_entity, intermediates, last_valid)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
