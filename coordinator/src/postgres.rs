//! A private PostgreSQL server: the default database of a coordinator that was given none.
//!
//! An ordinary server in a folder, reached by a socket that only its owner and root can open; no TCP, fsync stays on. It outlives a
//! coordinator that was killed: the next one finds it running and uses it. Not here: what is in the database (`catalog`).

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio_postgres::NoTls;

mod find;

pub use find::{Programs, find_programs};

/// The database in the private server.
const DATABASE: &str = "coordinator";
/// Its superuser; the socket's folder decides who may connect.
const USER: &str = "postgres";
/// How long a server may take to start: recovery after a crash takes its time.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// What differs from PostgreSQL's defaults, besides its memory. Much log between checkpoints, because an index of millions of entries is
/// written at once, and every page that is touched first after a checkpoint is logged whole.
const SETTINGS: [&str; 4] =
    ["max_connections=100", "max_wal_size=4GB", "checkpoint_timeout=15min", "wal_compression=on"];
/// The part of the machine's memory that the server keeps pages in, and its bounds in MiB.
const MEMORY_PART: u64 = 16;
const MIN_BUFFERS_MIB: u64 = 128;
const MAX_BUFFERS_MIB: u64 = 2048;
/// Pause between two looks at a starting or ending server.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest path of a socket's folder: the kernel's limit is 107 bytes with the socket's name.
const MAX_SOCKET_FOLDER: usize = 80;

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Nothing to start.
    #[error(
        "PostgreSQL's server programs are neither in PATH nor in /usr/lib/postgresql/*/bin: \
         install the package postgresql, or give --database"
    )]
    NotInstalled,
    /// PostgreSQL refuses to run as root, and its user cannot get to the folder.
    #[error("{} cannot be entered by the user {user}: allow it (chmod o+x), or put the state folder elsewhere", path.display())]
    Unreachable {
        /// The closed folder.
        path: PathBuf,
        /// Who has to enter.
        user: String,
    },
    /// PostgreSQL refuses to run as root, and there is no other user for it.
    #[error(
        "PostgreSQL refuses to run as root and there is no user postgres: install the package postgresql, or give --database"
    )]
    NoUser,
    /// A file or program.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `initdb` said no.
    #[error("initdb failed in {}: {said}", data.display())]
    Initialise {
        /// The data folder.
        data: PathBuf,
        /// The end of what it printed.
        said: String,
    },
    /// The server ended or does not answer.
    #[error("the private server in {} does not answer; its log is {}", data.display(), log.display())]
    NoAnswer {
        /// The data folder.
        data: PathBuf,
        /// Its log.
        log: PathBuf,
        /// What the last try said.
        #[source]
        source: Option<tokio_postgres::Error>,
    },
    /// The server does not end.
    #[error("the private server (process {pid}) does not end")]
    NoEnd {
        /// Its process.
        pid: i32,
    },
}

/// A running private server.
#[derive(Debug)]
pub struct Private {
    data: PathBuf,
    socket: PathBuf,
}

impl Private {
    /// Makes the database in `folder` when there is none, starts the server when it does not run, and waits until it answers.
    ///
    /// # Errors
    /// See [`PostgresError`]; nothing is left running that was not running before.
    pub async fn start(folder: &Path) -> Result<Self, PostgresError> {
        let folder = std::path::absolute(folder).map_err(|source| io_error("find", folder, source))?;
        let prepared = tokio::task::spawn_blocking(move || prepare(&folder)).await;
        let server = match prepared {
            Ok(prepared) => prepared?,
            // Preparing does not panic; a runtime that is going away is the only other cause.
            Err(_) => return Err(PostgresError::NotInstalled),
        };
        let private = Self { data: server.data.clone(), socket: server.socket.clone() };
        let mut child = if private.answers().await.is_ok() { None } else { Some(server.spawn()?) };
        private.wait_until_it_answers(&server, child.as_mut()).await?;
        private.make_database(&server).await?;
        Ok(private)
    }

    /// The address for the catalog.
    #[must_use]
    pub fn url(&self) -> String {
        self.address(DATABASE)
    }

    /// The address of another database on this server, for tests.
    #[must_use]
    pub fn address(&self, database: &str) -> String {
        let host = self.socket.to_string_lossy().replace('\\', "\\\\").replace('\'', "\\'");
        format!("host='{host}' user={USER} dbname={database}")
    }

    /// Ends the server, open transactions rolled back, and waits until it is gone.
    ///
    /// # Errors
    /// [`PostgresError::NoEnd`] after a minute.
    pub async fn stop(self) -> Result<(), PostgresError> {
        let Some(pid) = running(&self.data) else { return Ok(()) };
        // Gone between the look and the signal is as good as stopped.
        let _gone = rustix::process::kill_process(pid, Signal::INT);
        let begun = tokio::time::Instant::now();
        while running(&self.data).is_some() {
            if begun.elapsed() > STOP_PATIENCE {
                return Err(PostgresError::NoEnd { pid: pid.as_raw_nonzero().get() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn answers(&self) -> Result<(), tokio_postgres::Error> {
        run(&self.address("postgres"), "SELECT 1").await
    }

    async fn wait_until_it_answers(&self, server: &Server, mut child: Option<&mut Child>) -> Result<(), PostgresError> {
        let begun = tokio::time::Instant::now();
        loop {
            let error = match self.answers().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let ended = child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
            if ended || begun.elapsed() > START_PATIENCE {
                return Err(server.no_answer(Some(error)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn make_database(&self, server: &Server) -> Result<(), PostgresError> {
        match run(&self.address("postgres"), &format!("CREATE DATABASE {DATABASE}")).await {
            Ok(()) => Ok(()),
            Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::DUPLICATE_DATABASE) => Ok(()),
            Err(error) => Err(server.no_answer(Some(error))),
        }
    }
}

/// Memory for pages, in MiB: a part of the machine's, which leaves the most to the kernel's own cache and to everything else.
fn shared_buffers_mib() -> u64 {
    let known = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    known.map_or(MIN_BUFFERS_MIB, |kibibytes| (kibibytes / 1024 / MEMORY_PART).clamp(MIN_BUFFERS_MIB, MAX_BUFFERS_MIB))
}

/// One statement on a connection of its own.
async fn run(address: &str, statement: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await?;
    let work = async move { client.batch_execute(statement).await };
    let (done, _connection_ended) = tokio::join!(work, connection);
    done
}

/// What is needed to start the server.
#[derive(Debug)]
struct Server {
    programs: Programs,
    owner: Option<Owner>,
    data: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

/// Whom the server runs as when we are root.
#[derive(Debug, Clone)]
struct Owner {
    name: String,
    uid: u32,
    gid: u32,
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> PostgresError {
    PostgresError::Io { what, path: path.to_owned(), source }
}

fn prepare(folder: &Path) -> Result<Server, PostgresError> {
    let programs = find_programs().ok_or(PostgresError::NotInstalled)?;
    let owner = if rustix::process::geteuid().is_root() { Some(database_user()?) } else { None };
    fs::create_dir_all(folder).map_err(|error| io_error("make", folder, error))?;
    let socket = if folder.as_os_str().len() <= MAX_SOCKET_FOLDER {
        folder.join("socket")
    } else {
        // A name that follows from the folder, so that the next coordinator finds the same server.
        let name = blake3::hash(folder.as_os_str().as_encoded_bytes()).to_hex();
        std::env::temp_dir().join(format!("coord-postgres-{}", &name[..16]))
    };
    let data = folder.join("data");
    for path in [folder, &data, &socket] {
        own_folder(path, owner.as_ref())?;
    }
    if let Some(owner) = &owner {
        let closed = |path: &Path| PostgresError::Unreachable { path: path.to_owned(), user: owner.name.clone() };
        open_way(folder, owner).map_err(|path| closed(&path))?;
    }
    let server = Server { programs, owner, data, socket, log: folder.join("server.log") };
    if !server.data.join("PG_VERSION").exists() {
        server.initialise()?;
    }
    Ok(server)
}

/// Makes a folder that only its owner (and root) can enter.
fn own_folder(path: &Path, owner: Option<&Owner>) -> Result<(), PostgresError> {
    fs::create_dir_all(path).map_err(|error| io_error("make", path, error))?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|error| io_error("close", path, error))?;
    if let Some(owner) = owner {
        std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))
            .map_err(|error| io_error("give away", path, error))?;
    }
    Ok(())
}

/// Lets `owner` pass through the state folder, which is ours to open; any other closed folder on the way is not.
fn open_way(folder: &Path, owner: &Owner) -> Result<(), PathBuf> {
    for (distance, ancestor) in folder.ancestors().enumerate().skip(1) {
        let Ok(metadata) = fs::metadata(ancestor) else { return Err(ancestor.to_owned()) };
        let passable = metadata.mode() & 0o001 != 0
            || (metadata.uid() == owner.uid && metadata.mode() & 0o100 != 0)
            || (metadata.gid() == owner.gid && metadata.mode() & 0o010 != 0);
        if passable {
            continue;
        }
        // Passing is not listing: names in the folder stay unknown, and every secret in it is 0600.
        let opened = Permissions::from_mode(metadata.mode() & 0o7777 | 0o001);
        if distance != 1 || fs::set_permissions(ancestor, opened).is_err() {
            return Err(ancestor.to_owned());
        }
    }
    Ok(())
}

/// The user PostgreSQL's package made.
fn database_user() -> Result<Owner, PostgresError> {
    let path = Path::new("/etc/passwd");
    let text = fs::read_to_string(path).map_err(|error| io_error("read", path, error))?;
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| *name == "postgres")?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Owner { name: name.to_owned(), uid, gid })
        })
        .ok_or(PostgresError::NoUser)
}

/// The process of the server on this data folder, if it lives.
fn running(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
    // A file left by a crash may name a process that is somebody else by now.
    let comm = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let dead = comm.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    (comm.contains("(postgres)") && !dead).then_some(pid)
}

impl Server {
    /// A command that runs as the database's user when we are root, outside any folder it may not enter.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        if let Some(owner) = &self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    fn initialise(&self) -> Result<(), PostgresError> {
        let output = self
            .command(&self.programs.initdb)
            .args([
                "--username",
                USER,
                "--auth-local=trust",
                "--auth-host=reject",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ])
            .arg("--pgdata")
            .arg(&self.data)
            .output()
            .map_err(|error| io_error("run", &self.programs.initdb, error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned();
        Err(PostgresError::Initialise { data: self.data.clone(), said })
    }

    /// Starts the server in a process group of its own, so that a Ctrl-C meant for the coordinator does not reach it first.
    fn spawn(&self) -> Result<Child, PostgresError> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| io_error("open", &self.log, error))?;
        let errors = log.try_clone().map_err(|error| io_error("open", &self.log, error))?;
        let mut socket = std::ffi::OsString::from("unix_socket_directories=");
        socket.push(&self.socket);
        let mut command = self.command(&self.programs.postgres);
        command
            .process_group(0)
            .arg("-D")
            .arg(&self.data)
            .args(["-c", "listen_addresses="])
            .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
            .arg("-c")
            .arg(format!("shared_buffers={}MB", shared_buffers_mib()))
            .arg("-c")
            .arg(socket)
            .stdout(log)
            .stderr(errors);
        // The runtime collects the child when it ends, whoever still looks at it: an uncollected one would pass for a running server.
        tokio::process::Command::from(command).spawn().map_err(|error| io_error("run", &self.programs.postgres, error))
    }

    fn no_answer(&self, source: Option<tokio_postgres::Error>) -> PostgresError {
        PostgresError::NoAnswer { data: self.data.clone(), log: self.log.clone(), source }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{Private, run, running};
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_server_keeps_its_data_over_a_restart_and_is_found_again_while_it_runs() {
        let scratch = tempfile::tempdir().unwrap();
        // A root's tests: the database's user has to get through.
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let folder = scratch.path().join("state/postgres");
        let first = Private::start(&folder).await.unwrap();
        run(&first.url(), "CREATE TABLE kept (n int)").await.unwrap();

        let again = Private::start(&folder).await.unwrap();
        run(&again.url(), "ALTER TABLE kept ADD m int").await.unwrap();
        let data = again.data.clone();
        again.stop().await.unwrap();
        assert!(running(&data).is_none());
        first.stop().await.unwrap();

        let restarted = Private::start(&folder).await.unwrap();
        run(&restarted.url(), "SELECT n FROM kept").await.unwrap();
        restarted.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_folder_on_the_way_is_named() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("left out: only root starts the server as another user");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let folder = scratch.path().join("state/postgres");
        let error = Private::start(&folder).await.unwrap_err().to_string();
        assert!(error.contains(&scratch.path().to_string_lossy().into_owned()), "{error}");
    }
}
