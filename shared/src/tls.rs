//! Mutual TLS between the parts of one fleet: TLS 1.3 only, one crypto provider, the fleet's own authority and no other.
//!
//! Invariants: a client talks to certificates of kind *coordinator* only, so that a stolen agent key cannot play coordinator;
//! sessions are never resumed, because rustls does not verify the peer again when they are; handshakes are bounded in number and in
//! time; certificates are swapped under running listeners and dialers. Who may do what is not decided here: a handshake proves
//! that the authority signed the key, the coordinator's layers look the certificate up on every call.

mod client;
mod identity;
mod server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

pub use client::{ClientTls, ConnectError, HeldIdentity};
pub use identity::{IdentityError, PeerIdentity, PeerKind, ca_pin, fingerprint};
pub use server::{Acceptor, ClientAuth, Connections, MAX_PENDING_HANDSHAKES, ServerTls};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text does not hold what it should.
    #[error("the {what} is not valid PEM")]
    Pem {
        /// Which text.
        what: &'static str,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A PEM text is empty.
    #[error("the {what} holds no certificate")]
    Empty {
        /// Which text.
        what: &'static str,
    },
    /// A certificate cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// rustls refuses the material.
    #[error("the certificates cannot be used")]
    Rustls(#[source] rustls::Error),
    /// The verifier of client certificates cannot be built.
    #[error("the authority cannot verify clients")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// The one provider. Passed explicitly everywhere, so that no process-wide default is needed.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificates of a PEM text, at least one.
fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if found.is_empty() {
        return Err(TlsError::Empty { what });
    }
    Ok(found)
}

/// A chain and its key, checked to belong together.
fn certified_key(chain: Vec<CertificateDer<'static>>, key_pem: &str) -> Result<CertifiedKey, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|source| TlsError::Pem { what: "private key", source })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Rustls)
}

#[cfg(test)]
mod tests;
