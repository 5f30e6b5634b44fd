//! What the administrator of the coordinator's own machine grants without asking a running coordinator: the first operator's
//! certificate, and operator tokens. Each grant is a file in `bootstrap/` of the state folder, which only its owner can write; a
//! running coordinator takes it into the catalog and removes the file. A crash in between takes it in twice, which changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use coord_shared::durable;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FOLDER: &str = "bootstrap";
/// Grants taken in at once; more wait for the next pass.
const MAX_GRANTS: usize = 100;
/// Largest grant file, in bytes.
const MAX_GRANT_BYTES: u64 = 64 << 10;

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "grant", rename_all = "snake_case", deny_unknown_fields)]
pub enum Grant {
    /// A certificate issued on this machine.
    Operator {
        /// User name.
        user: String,
        /// Role.
        role: String,
        /// The certificate; its key is in the operator's context.
        certificate_pem: String,
    },
    /// A token that an operator logs in with.
    Token {
        /// The token's id.
        id: Uuid,
        /// SHA-256 of its secret, hexadecimal.
        secret_sha256: String,
        /// User name.
        user: String,
        /// Role.
        role: String,
        /// When it ends.
        expires_at: Timestamp,
    },
}

/// A grant and the file it lies in.
#[derive(Debug)]
pub struct PendingGrant {
    /// What is granted.
    pub grant: Grant,
    path: PathBuf,
}

impl PendingGrant {
    /// It is in the catalog: forget the file.
    pub fn taken(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Leaves a grant for the coordinator.
pub fn leave(state: &Path, grant: &Grant) -> io::Result<()> {
    let folder = state.join(FOLDER);
    durable::private_folder(&folder)?;
    let text = serde_json::to_vec_pretty(grant).map_err(io::Error::other)?;
    durable::write(&folder.join(format!("{}.json", Uuid::new_v4())), &text, durable::SECRET_MODE)
}

/// What waits to be taken in. A file that is no grant is reported and left where it is.
pub fn pending(state: &Path) -> io::Result<Vec<PendingGrant>> {
    let entries = match fs::read_dir(state.join(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut grants = Vec::new();
    for entry in entries.take(MAX_GRANTS) {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Ok(grant) => grants.push(PendingGrant { grant, path }),
            Err(error) => tracing::warn!(path = %path.display(), %error, "not a grant: left alone"),
        }
    }
    Ok(grants)
}

fn read(path: &Path) -> io::Result<Grant> {
    if fs::metadata(path)?.len() > MAX_GRANT_BYTES {
        return Err(io::Error::other("the file is too large"));
    }
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_grant_waits_until_it_is_taken() {
        let state = tempfile::tempdir().unwrap();
        assert!(pending(state.path()).unwrap().is_empty());
        let grant = Grant::Operator { user: "ada".into(), role: "admin".into(), certificate_pem: "pem".into() };
        leave(state.path(), &grant).unwrap();
        fs::write(state.path().join(FOLDER).join("broken.json"), "{").unwrap();
        let found = pending(state.path()).unwrap();
        assert_eq!(found.iter().map(|pending| &pending.grant).collect::<Vec<_>>(), [&grant]);
        found.into_iter().for_each(|pending| pending.taken().unwrap());
        assert!(pending(state.path()).unwrap().is_empty());
    }
}
