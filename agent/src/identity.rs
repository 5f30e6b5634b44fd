//! Who this host is in its fleet: key, certificate and authority, in one file that is replaced whole, so that a key never stands
//! beside another key's certificate. A key that was sent in a request is kept until the answer is stored: a request that is repeated
//! after a crash carries the same key and gets the same certificate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coord_shared::durable;
use coord_shared::tls::{HeldIdentity, TlsError};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};

use crate::state::StateFolder;

/// Why the identity cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The identity file is not what it should be.
    #[error("{} has an error", path.display())]
    Syntax {
        /// The identity file.
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    /// The identity cannot be written as TOML.
    #[error("the identity cannot be written")]
    Encode(#[source] toml::ser::Error),
    /// A key cannot be made or read.
    #[error("the key cannot be used")]
    Key(#[source] rcgen::Error),
    /// Certificate and key do not fit, or cannot be read.
    #[error("the certificate cannot be used")]
    Tls(#[source] TlsError),
}

/// Who this host is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The fleet's name.
    pub fleet: String,
    /// The host's id.
    pub host_id: String,
    /// The host's name when it joined.
    pub host_name: String,
    /// 1 after joining, one more after each renewal.
    pub generation: u32,
    /// The authority, PEM.
    pub ca_pem: String,
    /// Our certificate, PEM.
    pub certificate_pem: String,
    /// Its key, PEM. Never leaves this machine.
    pub key_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("fleet", &self.fleet)
            .field("host_id", &self.host_id)
            .field("host_name", &self.host_name)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity in a state folder; `None` when the host has not joined.
    pub fn load(state: &StateFolder) -> Result<Option<Identity>, IdentityError> {
        let path = state.identity_file();
        match read_if_there(&path)? {
            None => Ok(None),
            Some(text) => toml::from_str(&text).map(Some).map_err(|source| IdentityError::Syntax { path, source }),
        }
    }

    /// Writes the identity, and forgets the pending key, whose answer it is.
    pub fn store(&self, state: &StateFolder) -> Result<(), IdentityError> {
        let path = state.identity_file();
        let text = toml::to_string_pretty(self).map_err(IdentityError::Encode)?;
        durable::write(&path, text.as_bytes(), durable::SECRET_MODE)
            .map_err(|source| IdentityError::File { path, source })?;
        let pending = state.pending_key_file();
        match std::fs::remove_file(&pending) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::File { path: pending, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The identity as TLS shows it; replaceable under open connections.
    pub fn held(&self) -> Result<Arc<HeldIdentity>, IdentityError> {
        HeldIdentity::from_pem(&self.certificate_pem, &self.key_pem).map_err(IdentityError::Tls)
    }
}

/// A key whose certificate is asked for.
#[derive(Debug)]
pub struct PendingKey {
    key: KeyPair,
}

impl PendingKey {
    /// The key of an earlier request whose answer did not arrive, or a new one, durable before it is used. `current` is the
    /// key in use: a crash after its certificate was stored leaves it behind as pending, and it is not asked for again.
    pub fn load_or_make(state: &StateFolder, current: Option<&Identity>) -> Result<PendingKey, IdentityError> {
        let path = state.pending_key_file();
        let pending = read_if_there(&path)?;
        if let Some(pem) = pending.filter(|pem| current.is_none_or(|identity| identity.key_pem != *pem)) {
            return Ok(PendingKey { key: KeyPair::from_pem(&pem).map_err(IdentityError::Key)? });
        }
        let key = KeyPair::generate().map_err(IdentityError::Key)?;
        durable::write(&path, key.serialize_pem().as_bytes(), durable::SECRET_MODE)
            .map_err(|source| IdentityError::File { path, source })?;
        Ok(PendingKey { key })
    }

    /// The key itself, PEM.
    pub fn pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A certificate request (PKCS#10, PEM). Only its public key is taken by the coordinator.
    pub fn request(&self) -> Result<String, IdentityError> {
        let request = CertificateParams::default().serialize_request(&self.key).map_err(IdentityError::Key)?;
        request.pem().map_err(IdentityError::Key)
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, IdentityError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_repeated_request_carries_the_same_key_until_the_answer_is_stored() {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateFolder::open(scratch.path()).unwrap();
        let first = PendingKey::load_or_make(&state, None).unwrap();
        let again = PendingKey::load_or_make(&state, None).unwrap();
        assert_eq!(first.pem(), again.pem());
        assert!(first.request().unwrap().contains("CERTIFICATE REQUEST"));
        let mode = std::fs::metadata(state.pending_key_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else reads a key");

        let identity = Identity {
            fleet: "demo".into(),
            host_id: "id".into(),
            host_name: "web-1".into(),
            generation: 1,
            ca_pem: String::new(),
            certificate_pem: String::new(),
            key_pem: first.pem(),
        };
        identity.store(&state).unwrap();
        assert_eq!(Identity::load(&state).unwrap().unwrap(), identity);
        assert!(!format!("{identity:?}").contains("PRIVATE"), "the key is not printed");
        std::fs::write(state.pending_key_file(), first.pem()).unwrap();
        let next = PendingKey::load_or_make(&state, Some(&identity)).unwrap();
        assert_ne!(next.pem(), first.pem(), "a renewal takes a new key, also after a crash left the old one behind");
    }
}
