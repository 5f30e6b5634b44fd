//! The agent's state folder: where everything in it lies, and the lock that keeps a second agent out of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use coord_shared::durable;
use rustix::fs::{FlockOperation, flock};

/// Where an agent installed by a package keeps its state.
pub const DEFAULT_STATE: &str = "/var/lib/coord-agent";

/// The state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder cannot be made or opened.
    #[error("cannot use the state folder {}", folder.display())]
    Folder {
        /// The folder given.
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another agent process holds it.
    #[error("another coord-agent runs with the state folder {}", folder.display())]
    InUse {
        /// The folder given.
        folder: PathBuf,
    },
}

/// A state folder, absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFolder {
    path: PathBuf,
}

/// Held for as long as a daemon runs. The kernel drops it with the process, however that ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateFolder {
    /// The folder at `path`, made 0700 if it is missing.
    pub fn open(path: &Path) -> Result<StateFolder, StateError> {
        let failed = |source| StateError::Folder { folder: path.to_owned(), source };
        durable::private_folder(path).map_err(failed)?;
        Ok(StateFolder { path: path.canonicalize().map_err(failed)? })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the administrator sets.
    pub fn config_file(&self) -> PathBuf {
        self.path.join("agent.toml")
    }

    /// Key, certificate, authority.
    pub fn identity_file(&self) -> PathBuf {
        self.path.join("identity.toml")
    }

    /// A key that was sent in a request whose answer is not stored yet.
    pub fn pending_key_file(&self) -> PathBuf {
        self.path.join("pending.key")
    }

    /// What survives a crash of the agent.
    pub fn journal_folder(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// What this host does while it is cut off.
    pub fn plan_file(&self) -> PathBuf {
        self.path.join("plan")
    }

    /// Where coordinators are, and how it stands with them; losing it costs nothing.
    pub fn contact_file(&self) -> PathBuf {
        self.path.join("contact.json")
    }

    /// What scans remember; losing it costs time only.
    pub fn cache_folder(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// Takes the lock that a daemon holds.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let failed = |source| StateError::Folder { folder: self.path.clone(), source };
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(self.path.join("lock"));
        let file = file.map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse { folder: self.path.clone() }),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_second_agent_is_kept_out_until_the_first_has_ended() {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateFolder::open(&scratch.path().join("state")).unwrap();
        let first = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(StateError::InUse { .. })));
        drop(first);
        state.lock().unwrap();
    }
}
