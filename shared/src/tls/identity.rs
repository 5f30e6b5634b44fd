//! What a certificate of the fleet says about its holder: `spiffe://<fleet>/<kind>/<id>` as its one URI name.

use std::fmt;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::hex;
use crate::token::CaPin;

/// The kinds of certificates. They never stand in for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerKind {
    /// A protected host's agent; the id is the host's.
    Agent,
    /// A person or a script; the id is the user's name.
    Operator,
    /// A coordinator; the id is its own.
    Coordinator,
}

impl PeerKind {
    /// The word in the certificate's name and in the catalog.
    pub const fn as_str(self) -> &'static str {
        match self {
            PeerKind::Agent => "agent",
            PeerKind::Operator => "operator",
            PeerKind::Coordinator => "coordinator",
        }
    }

    /// The kind behind the word.
    pub fn parse(word: &str) -> Option<PeerKind> {
        [PeerKind::Agent, PeerKind::Operator, PeerKind::Coordinator].into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a certificate does not name a peer of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate.
    #[error("not a certificate")]
    NotACertificate,
    /// No name of the shape `spiffe://<fleet>/<kind>/<id>`, or more than one name.
    #[error("the certificate does not carry exactly one name spiffe://<fleet>/<kind>/<id>")]
    Name,
    /// The dates are outside every calendar.
    #[error("the certificate's dates cannot be read")]
    Dates,
}

/// What a certificate says. Whether it still counts is for the catalog to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The fleet's name.
    pub fleet: String,
    /// What the holder is.
    pub kind: PeerKind,
    /// Host id, user name or coordinator id.
    pub id: String,
    /// Serial number, hexadecimal, without leading zero bytes.
    pub serial: String,
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    pub public_key_sha256: [u8; 32],
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

impl PeerIdentity {
    /// Reads a certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<PeerIdentity, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::NotACertificate)?;
        let names =
            certificate.subject_alternative_name().map_err(|_| IdentityError::Name)?.ok_or(IdentityError::Name)?;
        let uris: Vec<&str> = names
            .value
            .general_names
            .iter()
            .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
            .collect();
        let [uri] = uris[..] else { return Err(IdentityError::Name) };
        let (fleet, kind, id) = parse_name(uri).ok_or(IdentityError::Name)?;
        let instant = |seconds: i64| Timestamp::from_second(seconds).map_err(|_| IdentityError::Dates);
        Ok(PeerIdentity {
            fleet: fleet.to_owned(),
            kind,
            id: id.to_owned(),
            serial: hex::encode(certificate.raw_serial()).trim_start_matches("00").to_owned(),
            sha256: fingerprint(der),
            public_key_sha256: fingerprint(certificate.public_key().raw),
            not_before: instant(certificate.validity().not_before.timestamp())?,
            not_after: instant(certificate.validity().not_after.timestamp())?,
        })
    }

    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<PeerIdentity, IdentityError> {
        use rustls::pki_types::pem::PemObject as _;
        let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| IdentityError::NotACertificate)?;
        PeerIdentity::from_der(&der)
    }

    /// The name as the certificate carries it.
    pub fn name(&self) -> String {
        format!("spiffe://{}/{}/{}", self.fleet, self.kind, self.id)
    }

    /// The instant at which `part` of `whole` of the certificate's life is over: renewal is due at 2 of 3.
    pub fn life_at(&self, part: u8, whole: u8) -> Timestamp {
        let life = self.not_after.as_second() - self.not_before.as_second();
        let at = self.not_before.as_second() + life * i64::from(part) / i64::from(whole.max(1));
        Timestamp::from_second(at).unwrap_or(self.not_after)
    }
}

fn parse_name(uri: &str) -> Option<(&str, PeerKind, &str)> {
    let mut parts = uri.strip_prefix("spiffe://")?.split('/');
    let (fleet, kind, id) = (parts.next()?, PeerKind::parse(parts.next()?)?, parts.next()?);
    (parts.next().is_none() && !fleet.is_empty() && !id.is_empty()).then_some((fleet, kind, id))
}

/// SHA-256 of `bytes`.
pub fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The pin of an authority's certificate in DER, as tokens carry it.
pub fn ca_pin(ca_der: &[u8]) -> Result<CaPin, IdentityError> {
    let (_, certificate) = X509Certificate::from_der(ca_der).map_err(|_| IdentityError::NotACertificate)?;
    Ok(CaPin::of_public_key(certificate.public_key().raw))
}
