//! What an administrator sets for one agent: `agent.toml` in the state folder. Flags and environment come before it.

use std::io;
use std::path::{Path, PathBuf};

use coord_shared::durable;
use serde::{Deserialize, Serialize};

use crate::state::StateFolder;

/// Port of the main listener when the coordinator names none.
pub const DEFAULT_MAIN_PORT: u16 = 7443;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file: this host has not joined.
    #[error("{} does not exist: this host has not joined a fleet", path.display())]
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The configuration file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} has an error", path.display())]
    Syntax {
        /// The configuration file.
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    /// The configuration cannot be written as TOML.
    #[error("the configuration cannot be written")]
    Encode(#[source] toml::ser::Error),
    /// The root folder is not one.
    #[error("the root {} is not a folder", root.display())]
    Root {
        /// As configured.
        root: PathBuf,
    },
}

/// The configuration of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this agent takes for `/`: all sources lie beneath it. Another folder is for tests and demonstrations.
    #[serde(default = "default_root")]
    pub root: PathBuf,
    /// Folder of local archives; relative to the state folder. It can be moved to another file system.
    #[serde(default = "default_archives")]
    pub archives: PathBuf,
    /// The coordinator's main listeners, `host:port`, tried in turn.
    pub endpoints: Vec<String>,
    /// The coordinator's enrolment listeners, for renewing the certificate.
    pub enrol_endpoints: Vec<String>,
    /// Threads that pack, verify and restore; 0: one for each core.
    #[serde(default)]
    pub threads: usize,
    /// A host that was without a session for this many seconds is cut off: it begins the due backups of its plan by itself,
    /// each so long after it was due that a coordinator that comes back would have begun it.
    #[serde(default = "default_cut_off_after_s")]
    pub cut_off_after_s: u32,
}

const fn default_cut_off_after_s() -> u32 {
    300
}

fn default_root() -> PathBuf {
    PathBuf::from("/")
}

fn default_archives() -> PathBuf {
    PathBuf::from("archives")
}

/// Values given on the command line or in the environment; they come before the file's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// See [`Config::root`].
    pub root: Option<PathBuf>,
    /// See [`Config::archives`].
    pub archives: Option<PathBuf>,
    /// See [`Config::endpoints`]; empty: the file's.
    pub endpoints: Vec<String>,
    /// See [`Config::threads`].
    pub threads: Option<usize>,
}

impl Config {
    /// The configuration of a host that joined just now.
    pub fn joined(root: Option<PathBuf>, endpoints: Vec<String>, enrol_endpoints: Vec<String>) -> Config {
        let root = root.unwrap_or_else(default_root);
        Config {
            root,
            archives: default_archives(),
            endpoints,
            enrol_endpoints,
            threads: 0,
            cut_off_after_s: default_cut_off_after_s(),
        }
    }

    /// Reads the file of a state folder.
    pub fn load(state: &StateFolder) -> Result<Config, ConfigError> {
        let path = state.config_file();
        let text = std::fs::read_to_string(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                ConfigError::Missing { path: path.clone() }
            } else {
                ConfigError::File { path: path.clone(), source }
            }
        })?;
        toml::from_str(&text).map_err(|source| ConfigError::Syntax { path, source })
    }

    /// Writes the file of a state folder.
    pub fn store(&self, state: &StateFolder) -> Result<(), ConfigError> {
        let path = state.config_file();
        let text = toml::to_string_pretty(self).map_err(ConfigError::Encode)?;
        durable::write(&path, text.as_bytes(), durable::PUBLIC_MODE)
            .map_err(|source| ConfigError::File { path, source })
    }

    /// The same with `overrides` in the places they name.
    #[must_use]
    pub fn with(mut self, overrides: Overrides) -> Config {
        let Overrides { root, archives, endpoints, threads } = overrides;
        self.root = root.unwrap_or(self.root);
        self.archives = archives.unwrap_or(self.archives);
        self.threads = threads.unwrap_or(self.threads);
        if !endpoints.is_empty() {
            self.endpoints = endpoints;
        }
        self
    }

    /// The folder of local archives, absolute.
    pub fn archive_folder(&self, state: &StateFolder) -> PathBuf {
        state.path().join(&self.archives)
    }

    /// The root, absolute and without symbolic links.
    pub fn canonical_root(&self) -> Result<PathBuf, ConfigError> {
        let wrong = || ConfigError::Root { root: self.root.clone() };
        let root = Path::canonicalize(&self.root).map_err(|_| wrong())?;
        if root.is_dir() { Ok(root) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_written_is_read_and_flags_come_first() {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateFolder::open(scratch.path()).unwrap();
        assert!(matches!(Config::load(&state), Err(ConfigError::Missing { .. })));
        let config = Config::joined(Some("/data".into()), vec!["a:1".into()], vec!["a:2".into()]);
        config.store(&state).unwrap();
        assert_eq!(Config::load(&state).unwrap(), config);
        let flags = Overrides { root: Some("/other".into()), endpoints: vec!["b:1".into()], ..Overrides::default() };
        let merged = config.clone().with(flags);
        assert_eq!((merged.root, merged.endpoints), ("/other".into(), vec!["b:1".to_owned()]));
        assert_eq!(merged.archives, config.archives);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let scratch = tempfile::tempdir().unwrap();
        let state = StateFolder::open(scratch.path()).unwrap();
        std::fs::write(state.config_file(), "endpoints = []\nenrol_endpoints = []\nrooot = '/'\n").unwrap();
        let ConfigError::Syntax { source, .. } = Config::load(&state).unwrap_err() else {
            panic!("not a syntax error")
        };
        assert!(source.to_string().contains("rooot"));
    }
}
