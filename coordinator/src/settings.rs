//! The coordinator's settings file, `coordinator.toml` in its state folder, and what of it is fixed.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coord_shared::durable;
use serde::{Deserialize, Serialize};

const FILE: &str = "coordinator.toml";
/// Main listener when none is named.
pub const DEFAULT_LISTEN: &str = "0.0.0.0:7443";
/// Enrolment listener when none is named.
pub const DEFAULT_ENROL_LISTEN: &str = "0.0.0.0:7444";
/// Longest fleet name.
const MAX_FLEET_NAME: usize = 63;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No settings file: not initialised.
    #[error("{} is not the state folder of a coordinator", folder.display())]
    NotInitialised {
        /// The folder given.
        folder: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The settings file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} has an error", path.display())]
    Syntax {
        /// The settings file.
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    /// The settings cannot be written as TOML.
    #[error("the settings cannot be written")]
    Encode(#[source] toml::ser::Error),
    /// A fleet's name is in certificates.
    #[error("'{}' cannot be a fleet's name: write 1 to {MAX_FLEET_NAME} of a-z, 0-9 and '-'", name.escape_debug())]
    FleetName {
        /// As given.
        name: String,
    },
}

/// What an administrator sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of the fleet, in every certificate. Cannot be changed later.
    pub fleet: String,
    /// Where agents and operators connect.
    pub listen: SocketAddr,
    /// Where they join and renew.
    pub enrol_listen: SocketAddr,
    /// `host:port` of the main listener as the fleet reaches it; empty: derived from `listen` and this machine's name.
    #[serde(default)]
    pub advertise: Vec<String>,
    /// `host:port` of the enrolment listener as the fleet reaches it; empty: derived likewise.
    #[serde(default)]
    pub advertise_enrol: Vec<String>,
    /// Postgres as a URL; empty: a private server in the state folder.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub database: String,
    /// How often agents report that they live, in seconds.
    #[serde(default = "default_heartbeat_s")]
    pub heartbeat_s: u32,
    /// How long an attempt lives without being heard of, in seconds. It outlives a reconnect.
    #[serde(default = "default_lease_s")]
    pub lease_s: u32,
}

const fn default_heartbeat_s() -> u32 {
    5
}

const fn default_lease_s() -> u32 {
    60
}

impl Settings {
    /// Settings of a new fleet.
    pub fn new(fleet: &str, listen: SocketAddr, enrol_listen: SocketAddr) -> Result<Settings, SettingsError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if fleet.is_empty() || fleet.len() > MAX_FLEET_NAME || !fleet.chars().all(fits) {
            return Err(SettingsError::FleetName { name: fleet.to_owned() });
        }
        Ok(Settings {
            fleet: fleet.to_owned(),
            listen,
            enrol_listen,
            advertise: Vec::new(),
            advertise_enrol: Vec::new(),
            database: String::new(),
            heartbeat_s: default_heartbeat_s(),
            lease_s: default_lease_s(),
        })
    }

    /// Reads the settings of a state folder.
    pub fn load(folder: &Path) -> Result<Settings, SettingsError> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SettingsError::NotInitialised { folder: folder.to_owned() },
            _ => SettingsError::File { path: path.clone(), source },
        })?;
        toml::from_str(&text).map_err(|source| SettingsError::Syntax { path, source })
    }

    /// Writes them to a state folder.
    pub fn store(&self, folder: &Path) -> Result<(), SettingsError> {
        let path = folder.join(FILE);
        let text = toml::to_string_pretty(self).map_err(SettingsError::Encode)?;
        durable::write(&path, text.as_bytes(), durable::PUBLIC_MODE)
            .map_err(|source| SettingsError::File { path, source })
    }

    /// Whether a folder has been initialised.
    pub fn exist(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Lease of an attempt.
    pub const fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s as u64)
    }
}

/// How the fleet reaches a listener that is bound to `address`, when nobody said.
pub fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        // The kernel's name of this machine; where it is hidden, only this machine can connect, and `advertise` says better.
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "localhost".to_owned());
        return format!("{}:{}", name.trim(), address.port());
    }
    address.to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn settings_come_back_from_their_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Settings::load(folder.path()), Err(SettingsError::NotInitialised { .. })));
        let any = "127.0.0.1:0".parse().unwrap();
        let settings = Settings::new("demo", any, any).unwrap();
        settings.store(folder.path()).unwrap();
        assert_eq!(Settings::load(folder.path()).unwrap(), settings);
    }

    #[test]
    fn an_unknown_key_and_a_name_that_breaks_certificates_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "fleet = 'x'\nlisten = '1.2.3.4:5'\nspeed = 9\n").unwrap();
        assert!(matches!(Settings::load(folder.path()), Err(SettingsError::Syntax { .. })));
        let any = "127.0.0.1:0".parse().unwrap();
        for name in ["", "a/b", "Fleet", "a b"] {
            assert!(Settings::new(name, any, any).is_err());
        }
    }
}
