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
/// Longest time between two heartbeats, in seconds.
pub const MAX_HEARTBEAT_S: u32 = 60;
/// Shortest time between two heartbeats of an agent that holds no run, in seconds: there are many of them, and they say nothing else.
pub const MIN_IDLE_HEARTBEAT_S: u32 = 5;
/// Longest, in seconds. Whoever goes by when a host was last heard of waits for so long: a process that comes after one that was
/// killed, and comes to another coordinator, is taken for a second one until then.
pub const MAX_IDLE_HEARTBEAT_S: u32 = 300;
/// A lease lasts for at least so many heartbeats: two may be lost.
pub const MIN_LEASE_HEARTBEATS: u32 = 3;
/// Longest lease, in seconds. A lost host's run is taken back after it.
pub const MAX_LEASE_S: u32 = 3600;
/// Certificates may have expired this long ago and still renew: a fleet that was off for a month comes back by itself.
pub const RENEWAL_GRACE: Duration = Duration::from_secs(30 * 86_400);
/// Shortest time that ended runs are kept, in days: what a cut-off host did by its plan is told within it.
pub const MIN_KEEP_RUNS_DAYS: u32 = 60;
const _: () = assert!(
    MIN_KEEP_RUNS_DAYS as u64 * 86_400 >= 2 * RENEWAL_GRACE.as_secs(),
    "a host may come back for as long as its certificate is renewed"
);
/// Longest, in days: a century.
pub const MAX_KEEP_RUNS_DAYS: u32 = 36_500;
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
    /// Heartbeats and leases that cannot work together.
    #[error(
        "{}: heartbeat_s = {heartbeat_s} and lease_s = {lease_s} do not go together: heartbeat_s is from 1 to {MAX_HEARTBEAT_S}, \
         and lease_s from {MIN_LEASE_HEARTBEATS} heartbeats to {MAX_LEASE_S}",
        path.display()
    )]
    Patience {
        /// The settings file.
        path: PathBuf,
        /// As it says.
        heartbeat_s: u32,
        /// As it says.
        lease_s: u32,
    },
    /// Idle heartbeats that flood the coordinators, or make hosts look lost.
    #[error(
        "{}: idle_heartbeat_s = {idle_heartbeat_s} cannot be used: it is from {MIN_IDLE_HEARTBEAT_S}, or a large fleet floods its \
         coordinators, to {MAX_IDLE_HEARTBEAT_S}, or hosts look lost that are not",
        path.display()
    )]
    IdlePatience {
        /// The settings file.
        path: PathBuf,
        /// As it says.
        idle_heartbeat_s: u32,
    },
    /// A history that is too short to be one.
    #[error(
        "{}: keep_runs_days = {keep_runs_days} cannot be used: it is from {MIN_KEEP_RUNS_DAYS}, or the report of a host that was long away finds \
         nothing to belong to, to {MAX_KEEP_RUNS_DAYS}",
        path.display()
    )]
    History {
        /// The settings file.
        path: PathBuf,
        /// As it says.
        keep_runs_days: u32,
    },
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
    /// Where `/livez` and `/readyz` are answered over plain HTTP; not set: nowhere. Whoever reaches it reads versions and errors, so it
    /// belongs on loopback or into a pod's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_listen: Option<SocketAddr>,
    /// How often agents report that they live, in seconds: from 1 to [`MAX_HEARTBEAT_S`].
    #[serde(default = "default_heartbeat_s")]
    pub heartbeat_s: u32,
    /// The same while they hold no run, in seconds: from [`MIN_IDLE_HEARTBEAT_S`] to [`MAX_IDLE_HEARTBEAT_S`]. A broken connection is
    /// noticed by itself, so this is only for who was last heard of.
    #[serde(default = "default_idle_heartbeat_s")]
    pub idle_heartbeat_s: u32,
    /// How long an attempt lives without being heard of, in seconds: from [`MIN_LEASE_HEARTBEATS`] heartbeats to [`MAX_LEASE_S`]. It
    /// outlives a reconnect. The same on every coordinator of a fleet.
    #[serde(default = "default_lease_s")]
    pub lease_s: u32,
    /// How long runs are kept after their end, in days: from [`MIN_KEEP_RUNS_DAYS`] to [`MAX_KEEP_RUNS_DAYS`]. A run that made a restore point
    /// stays as long as that, without its steps. The same on every coordinator of a fleet: the shortest counts.
    #[serde(default = "default_keep_runs_days")]
    pub keep_runs_days: u32,
}

const fn default_heartbeat_s() -> u32 {
    5
}

const fn default_idle_heartbeat_s() -> u32 {
    30
}

const fn default_lease_s() -> u32 {
    60
}

/// A year, and what happened at this time a year ago.
const fn default_keep_runs_days() -> u32 {
    400
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
            health_listen: None,
            heartbeat_s: default_heartbeat_s(),
            idle_heartbeat_s: default_idle_heartbeat_s(),
            lease_s: default_lease_s(),
            keep_runs_days: default_keep_runs_days(),
        })
    }

    /// Reads the settings of a state folder.
    pub fn load(folder: &Path) -> Result<Settings, SettingsError> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SettingsError::NotInitialised { folder: folder.to_owned() },
            _ => SettingsError::File { path: path.clone(), source },
        })?;
        let settings: Settings =
            toml::from_str(&text).map_err(|source| SettingsError::Syntax { path: path.clone(), source })?;
        let Settings { heartbeat_s, idle_heartbeat_s, lease_s, keep_runs_days, .. } = settings;
        let fits = (1..=MAX_HEARTBEAT_S).contains(&heartbeat_s)
            && (heartbeat_s * MIN_LEASE_HEARTBEATS..=MAX_LEASE_S).contains(&lease_s);
        if !fits {
            return Err(SettingsError::Patience { path, heartbeat_s, lease_s });
        }
        if !(MIN_IDLE_HEARTBEAT_S..=MAX_IDLE_HEARTBEAT_S).contains(&idle_heartbeat_s) {
            return Err(SettingsError::IdlePatience { path, idle_heartbeat_s });
        }
        if !(MIN_KEEP_RUNS_DAYS..=MAX_KEEP_RUNS_DAYS).contains(&keep_runs_days) {
            return Err(SettingsError::History { path, keep_runs_days });
        }
        Ok(settings)
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

    /// How long runs are kept after their end.
    pub const fn keep_runs(&self) -> Duration {
        Duration::from_secs(self.keep_runs_days as u64 * 86_400)
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
    fn a_lease_that_a_lost_heartbeat_would_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let load = |heartbeat_s, lease_s| {
            Settings { heartbeat_s, lease_s, ..Settings::new("demo", any, any).unwrap() }.store(folder.path()).unwrap();
            Settings::load(folder.path())
        };
        for (heartbeat_s, lease_s) in [(1, 3), (5, 60), (60, 3600)] {
            assert_eq!(load(heartbeat_s, lease_s).unwrap().lease_s, lease_s);
        }
        for (heartbeat_s, lease_s) in [(0, 60), (5, 14), (61, 3600), (60, 3601), (u32::MAX, u32::MAX)] {
            let error = load(heartbeat_s, lease_s).unwrap_err();
            assert!(matches!(error, SettingsError::Patience { .. }), "{error}");
        }
    }

    #[test]
    fn idle_heartbeats_that_flood_or_make_hosts_look_lost_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let load = |idle_heartbeat_s| {
            Settings { idle_heartbeat_s, ..Settings::new("demo", any, any).unwrap() }.store(folder.path()).unwrap();
            Settings::load(folder.path())
        };
        for seconds in [MIN_IDLE_HEARTBEAT_S, default_idle_heartbeat_s(), MAX_IDLE_HEARTBEAT_S] {
            assert_eq!(load(seconds).unwrap().idle_heartbeat_s, seconds);
        }
        for seconds in [0, 4, 301, u32::MAX] {
            let error = load(seconds).unwrap_err().to_string();
            let says = format!("idle_heartbeat_s = {seconds} cannot be used: it is from 5, or");
            assert!(error.contains(&says) && error.contains("to 300, or"), "{error}");
        }
    }

    #[test]
    fn a_history_that_forgets_what_may_still_be_reported_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let load = |keep_runs_days| {
            Settings { keep_runs_days, ..Settings::new("demo", any, any).unwrap() }.store(folder.path()).unwrap();
            Settings::load(folder.path())
        };
        for days in [MIN_KEEP_RUNS_DAYS, default_keep_runs_days(), MAX_KEEP_RUNS_DAYS] {
            assert_eq!(load(days).unwrap().keep_runs().as_secs(), u64::from(days) * 86_400);
        }
        for days in [0, 59, 36_501, u32::MAX] {
            let error = load(days).unwrap_err().to_string();
            assert!(error.contains(&format!("keep_runs_days = {days} cannot be used: it is from 60, or")), "{error}");
        }
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
