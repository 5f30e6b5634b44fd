//! A PostgreSQL server of a story's own, on loopback, which it may kill: several coordinators share it, each over its own way.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::process_host::{Ready, Service};

/// The database that fleets use.
pub const DATABASE: &str = "fleet";

/// A prepared server that does not run yet.
#[derive(Debug)]
pub struct Server {
    /// How to start it.
    pub service: Service,
    /// `host:port`
    pub address: String,
}

/// PostgreSQL's programs, and whom they run as when we are root: it refuses to.
struct Programs {
    folder: PathBuf,
    user: Option<(u32, u32)>,
}

impl Programs {
    fn find() -> Result<Programs, String> {
        let folder = programs().ok_or("PostgreSQL's server programs are missing: install the package postgresql")?;
        let user = if rustix::process::geteuid().is_root() { Some(database_user()?) } else { None };
        Ok(Programs { folder, user })
    }

    /// A data folder in `folder`, empty, for its user alone.
    fn data_folder(&self, folder: &Path) -> Result<PathBuf, String> {
        let data = folder.join("data");
        fs::create_dir_all(&data).map_err(|error| error.to_string())?;
        for path in [folder, &data] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| error.to_string())?;
            if let Some((user, group)) = self.user {
                chown(path, Some(user), Some(group)).map_err(|error| error.to_string())?;
            }
        }
        Ok(data)
    }

    /// Runs one that makes a cluster.
    fn run(&self, program: &str, arguments: &[&str], data: &Path) -> Result<(), String> {
        let mut command = Command::new(self.folder.join(program));
        command.args(arguments).arg("-D").arg(data).current_dir("/").stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        let made = command.output().map_err(|error| error.to_string())?;
        if made.status.success() {
            return Ok(());
        }
        Err(format!("{program}: {}", String::from_utf8_lossy(&made.stderr)))
    }

    /// The cluster in `data`, on a port that is free now.
    fn server(&self, data: &Path) -> Result<Server, String> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = port.map_err(|error| error.to_string())?;
        let command = [
            self.folder.join("postgres").to_string_lossy().into_owned(),
            "-D".to_owned(),
            data.to_string_lossy().into_owned(),
            "-c".to_owned(),
            "listen_addresses=127.0.0.1".to_owned(),
            "-c".to_owned(),
            format!("port={}", address.port()),
            "-c".to_owned(),
            "unix_socket_directories=".to_owned(),
            "-c".to_owned(),
            "max_connections=150".to_owned(),
        ];
        let service = Service {
            command: command.into(),
            user: self.user,
            // PostgreSQL's fast shutdown.
            stop_signal: Signal::INT,
            ready: Ready::Database(url(&address.to_string(), "postgres")),
        };
        Ok(Server { service, address: address.to_string() })
    }
}

impl Server {
    /// Makes a cluster below `folder`, which PostgreSQL's user must be able to reach.
    ///
    /// # Errors
    /// The programs are missing, or `initdb` failed.
    pub fn prepare(folder: &Path) -> Result<Server, String> {
        let programs = Programs::find()?;
        let data = programs.data_folder(folder)?;
        let arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"];
        programs.run("initdb", &arguments, &data)?;
        programs.server(&data)
    }

    /// Makes a standby of a running cluster below `folder`: once started, it follows.
    ///
    /// # Errors
    /// `pg_basebackup` failed.
    pub fn standby_of(primary: &Server, folder: &Path) -> Result<Server, String> {
        let programs = Programs::find()?;
        let data = programs.data_folder(folder)?;
        let (host, port) = primary.address.split_once(':').ok_or("an address without a port")?;
        let arguments =
            ["--host", host, "--port", port, "--username=postgres", "--write-recovery-conf", "--checkpoint=fast"];
        programs.run("pg_basebackup", &arguments, &data)?;
        programs.server(&data)
    }
}

/// The address of a database as coordinators take it.
#[must_use]
pub fn url(address: &str, database: &str) -> String {
    format!("postgresql://postgres@{address}/{database}")
}

/// The same of a database with a standby, of which the one that takes writes is meant.
#[must_use]
pub fn url_of_any(addresses: &[String], database: &str) -> String {
    url(&addresses.join(","), database)
}

/// The folder with `initdb` and `postgres`: in PATH, else the newest of Debian's.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter_map(|folder| fs::canonicalize(folder.join("initdb")).ok());
    let mut versions: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    versions.sort_by_key(|version| version.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let debian = versions.into_iter().rev().map(|version| version.join("bin"));
    let mut folders = in_path.filter_map(|initdb| initdb.parent().map(Path::to_owned)).chain(debian);
    folders.find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

/// User and group that PostgreSQL's package made: it refuses to run as root.
fn database_user() -> Result<(u32, u32), String> {
    let users = fs::read_to_string("/etc/passwd").map_err(|error| error.to_string())?;
    let line = users.lines().find(|line| line.starts_with("postgres:")).ok_or("there is no user postgres")?;
    let number = |nth| line.split(':').nth(nth).and_then(|text: &str| text.parse().ok());
    number(2).zip(number(3)).ok_or_else(|| format!("cannot read '{line}'"))
}
