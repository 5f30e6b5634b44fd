//! A certificate request from a machine that is not trusted yet: its public key, and nothing else of it.

use coord_shared::tls::fingerprint;
use rcgen::{CertificateSigningRequestParams, PublicKey, PublicKeyData as _};

/// Longest request that is read, in bytes. A P-256 request has some 500.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// An uncompressed point on P-256: one byte of form and two coordinates.
const P256_POINT_BYTES: usize = 65;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Larger than any honest request.
    #[error("the certificate request is larger than {MAX_REQUEST_BYTES} bytes")]
    TooLarge,
    /// Not PKCS#10, or its signature does not prove possession of the key.
    #[error("the certificate request cannot be read, or its signature is wrong")]
    Malformed(#[source] rcgen::Error),
    /// Another kind of key than we take.
    #[error("the key is of a kind that is not accepted: use P-256 or Ed25519")]
    Algorithm,
}

/// The public key of a request whose signature proved that the sender has the private one.
#[derive(Debug, Clone)]
pub struct RequestedKey {
    key: PublicKey,
    sha256: [u8; 32],
}

impl RequestedKey {
    /// Reads a PKCS#10 request in PEM.
    pub fn from_pem(pem: &str) -> Result<RequestedKey, RequestError> {
        if pem.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge);
        }
        let key = CertificateSigningRequestParams::from_pem(pem).map_err(RequestError::Malformed)?.public_key;
        let algorithm = key.algorithm();
        // The signature algorithm does not name the curve, so the length has to.
        let p256 = *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == P256_POINT_BYTES;
        if !p256 && *algorithm != rcgen::PKCS_ED25519 {
            return Err(RequestError::Algorithm);
        }
        let sha256 = fingerprint(&key.subject_public_key_info());
        Ok(RequestedKey { key, sha256 })
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the same key is recognised by it.
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    pub(super) const fn key(&self) -> &PublicKey {
        &self.key
    }
}
