//! Making the authority, loading it, and issuing certificates from it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coord_shared::durable;
use coord_shared::tls::{IdentityError, PeerIdentity, PeerKind, ca_pin};
use coord_shared::token::CaPin;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::RequestedKey;

/// A host whose clock is behind by less than this can still connect, and is told of in `coordctl status`: to it, a certificate that
/// begins in the future is none.
const BACKDATE: Duration = Duration::from_secs(3600);
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 86_400);
const AGENT_LIFE: Duration = Duration::from_secs(24 * 3600);
const OPERATOR_LIFE: Duration = Duration::from_secs(30 * 86_400);
const COORDINATOR_LIFE: Duration = Duration::from_secs(24 * 3600);

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";

/// Why the authority cannot be made, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is one already; a second would orphan the fleet.
    #[error("{} holds a certificate authority already", folder.display())]
    Exists {
        /// The state folder.
        folder: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The key's file can be read by others.
    #[error("{} can be read by others: chmod 600", path.display())]
    Exposed {
        /// The key's file.
        path: PathBuf,
    },
    /// What is in the files is no authority.
    #[error("the authority in {} cannot be used", folder.display())]
    Content {
        /// The state folder.
        folder: PathBuf,
        #[source]
        source: rcgen::Error,
    },
    /// The certificate cannot be read back.
    #[error("the authority's certificate cannot be read")]
    Identity(#[source] IdentityError),
    /// Signing failed.
    #[error("cannot sign a certificate")]
    Sign(#[source] rcgen::Error),
    /// The system gives no randomness.
    #[error("the system gives no random numbers")]
    Randomness,
}

/// What to issue: the name, and until when.
#[derive(Debug, Clone, Copy)]
pub struct CertificateOrder<'a> {
    /// Agent, operator or coordinator: decides life and purposes.
    pub kind: PeerKind,
    /// Host id, user name, or coordinator id.
    pub id: &'a str,
    /// Now, by the coordinator's clock.
    pub now: Timestamp,
}

/// A certificate as issued.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// The leaf alone.
    pub pem: String,
    /// What it says.
    pub identity: PeerIdentity,
}

/// The loaded authority of one fleet.
pub struct Authority {
    fleet: String,
    pem: String,
    pin: CaPin,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority and stores it in `folder`: the key 0600. Refuses when there is one.
    pub fn create(folder: &Path, fleet: &str, now: Timestamp) -> Result<Authority, AuthorityError> {
        let (key_path, certificate_path) = (folder.join(KEY_FILE), folder.join(CERTIFICATE_FILE));
        if key_path.exists() || certificate_path.exists() {
            return Err(AuthorityError::Exists { folder: folder.to_owned() });
        }
        let content = |source| AuthorityError::Content { folder: folder.to_owned(), source };
        let key = KeyPair::generate().map_err(content)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("coord {fleet} authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial()?);
        set_validity(&mut params, now, AUTHORITY_LIFE);
        let pem = params.self_signed(&key).map_err(content)?.pem();
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::File { path, source }
        };
        durable::write(&key_path, key.serialize_pem().as_bytes(), durable::SECRET_MODE).map_err(file(&key_path))?;
        durable::write(&certificate_path, pem.as_bytes(), durable::PUBLIC_MODE).map_err(file(&certificate_path))?;
        Authority::load(folder, fleet)
    }

    /// Loads the authority of `folder`.
    pub fn load(folder: &Path, fleet: &str) -> Result<Authority, AuthorityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| AuthorityError::File { path, source })
        };
        let (pem, key_pem) = (read(CERTIFICATE_FILE)?, read(KEY_FILE)?);
        refuse_exposed(&folder.join(KEY_FILE))?;
        let content = |source| AuthorityError::Content { folder: folder.to_owned(), source };
        let key = KeyPair::from_pem(&key_pem).map_err(content)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(content)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| AuthorityError::Identity(IdentityError::NotACertificate))?;
        let pin = ca_pin(&der).map_err(AuthorityError::Identity)?;
        Ok(Authority { fleet: fleet.to_owned(), pem, pin, issuer })
    }

    /// The fleet's name.
    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// The authority's certificate, which every member of the fleet trusts.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What tokens carry.
    pub const fn pin(&self) -> CaPin {
        self.pin
    }

    /// Issues a certificate for the key of a request.
    pub fn issue(&self, order: CertificateOrder<'_>, key: &RequestedKey) -> Result<IssuedCertificate, AuthorityError> {
        self.sign(order, key.key())
    }

    /// Makes a key and issues a certificate for it: for our own use. The key is returned as PEM.
    pub fn issue_with_key(&self, order: CertificateOrder<'_>) -> Result<(IssuedCertificate, String), AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        Ok((self.sign(order, &key)?, key.serialize_pem()))
    }

    fn sign(&self, order: CertificateOrder<'_>, key: &impl PublicKeyData) -> Result<IssuedCertificate, AuthorityError> {
        let name = format!("spiffe://{}/{}/{}", self.fleet, order.kind, order.id);
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(order.id);
        params.subject_alt_names = vec![SanType::URI(name.try_into().map_err(AuthorityError::Sign)?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (life, purposes) = match order.kind {
            PeerKind::Agent => (AGENT_LIFE, vec![ExtendedKeyUsagePurpose::ClientAuth]),
            PeerKind::Operator => (OPERATOR_LIFE, vec![ExtendedKeyUsagePurpose::ClientAuth]),
            PeerKind::Coordinator => (COORDINATOR_LIFE, vec![ExtendedKeyUsagePurpose::ServerAuth]),
        };
        params.extended_key_usages = purposes;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial()?);
        set_validity(&mut params, order.now, life);
        let certificate = params.signed_by(key, &self.issuer).map_err(AuthorityError::Sign)?;
        let identity = PeerIdentity::from_der(certificate.der()).map_err(AuthorityError::Identity)?;
        Ok(IssuedCertificate { pem: certificate.pem(), identity })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fleet", &self.fleet).field("pin", &self.pin).finish_non_exhaustive()
    }
}

fn refuse_exposed(path: &Path) -> Result<(), AuthorityError> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = fs::metadata(path).map_err(|source| AuthorityError::File { path: path.to_owned(), source })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(AuthorityError::Exposed { path: path.to_owned() });
    }
    Ok(())
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// 128 random bits with the top bit cleared, as a serial is a positive number of the same length then.
fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthorityError::Randomness)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + (now + life);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use rcgen::CertificateParams;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;
    use crate::pki::RequestError;

    fn authority() -> (tempfile::TempDir, Authority) {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), "demo", Timestamp::now()).unwrap();
        (folder, authority)
    }

    #[test]
    fn a_request_that_asks_to_be_an_authority_gets_only_its_key() {
        let (_folder, authority) = authority();
        let key = KeyPair::generate().unwrap();
        let mut wish = CertificateParams::default();
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wish.distinguished_name = common_name("coordinator.internal");
        wish.subject_alt_names = vec![
            SanType::DnsName("coordinator.internal".try_into().unwrap()),
            SanType::URI("spiffe://demo/operator/admin".try_into().unwrap()),
        ];
        wish.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let request = RequestedKey::from_pem(&wish.serialize_request(&key).unwrap().pem().unwrap()).unwrap();
        let now = Timestamp::now();
        let issued = authority.issue(CertificateOrder { kind: PeerKind::Agent, id: "h1", now }, &request).unwrap();
        assert_eq!(issued.identity.name(), "spiffe://demo/agent/h1");
        assert_eq!(&issued.identity.public_key_sha256, request.sha256());
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let (_, read) = X509Certificate::from_der(&der).unwrap();
        assert!(!read.is_ca());
        assert!(!read.key_usage().unwrap().unwrap().value.key_cert_sign());
        assert_eq!(read.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
        assert!(read.extended_key_usage().unwrap().unwrap().value.client_auth);
        assert!(!read.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert!(issued.identity.not_after.as_second() - now.as_second() <= 24 * 3600);
    }

    #[test]
    fn two_certificates_of_one_key_have_different_serials() {
        let (_folder, authority) = authority();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let request = RequestedKey::from_pem(&request).unwrap();
        let order = CertificateOrder { kind: PeerKind::Operator, id: "ada", now: Timestamp::now() };
        let (one, two) = (authority.issue(order, &request).unwrap(), authority.issue(order, &request).unwrap());
        assert_ne!(one.identity.serial, two.identity.serial);
        assert_eq!(one.identity.serial.len(), 32);
    }

    #[test]
    fn an_authority_is_made_once_and_kept_from_others() {
        let (folder, authority) = authority();
        assert!(matches!(
            Authority::create(folder.path(), "demo", Timestamp::now()),
            Err(AuthorityError::Exists { .. })
        ));
        assert_eq!(Authority::load(folder.path(), "demo").unwrap().pin(), authority.pin());
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder.path().join(KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Authority::load(folder.path(), "demo"), Err(AuthorityError::Exposed { .. })));
    }

    #[test]
    fn a_request_with_another_kind_of_key_is_refused() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        assert!(matches!(RequestedKey::from_pem(&request), Err(RequestError::Algorithm)));
        assert!(matches!(RequestedKey::from_pem("hello"), Err(RequestError::Malformed(_))));
    }
}
