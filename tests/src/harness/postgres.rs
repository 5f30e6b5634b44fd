//! A real PostgreSQL for tests.
//!
//! In this order, and the run says which: a container (an image that is here, else the public one, else one that
//! `tests/images/build-postgres-image` makes from Debian packages), else the coordinator's own private server. Never none in silence.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, GenericImage, ImageExt};

use super::build::workspace;
use super::wait::wait_for;

/// The public image, the default on a user's machine.
const PUBLIC_IMAGE: (&str, &str) = ("postgres", "15");
/// The image our own script makes.
const OWN_IMAGE: (&str, &str) = ("coord-test-postgres", "15");
/// How long a fresh server may take to answer.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// A database for one fleet.
#[derive(Clone, Debug)]
pub enum Database {
    /// A database of its own on a server in a container, which lives as long as anybody holds it.
    Container {
        /// Connection URL for `--database`.
        url: String,
        /// Keeps the server running.
        server: Arc<Server>,
    },
    /// None given: the coordinator starts its private server.
    Private,
}

/// A PostgreSQL server in a container; removed when dropped.
#[derive(Debug)]
pub struct Server {
    container: Option<Container<GenericImage>>,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Stopping it waits, which a task of an asynchronous test may not do.
        let container = self.container.take();
        drop(std::thread::spawn(move || drop(container)).join());
    }
}

impl Database {
    /// The best database this machine offers, fresh and empty.
    ///
    /// # Errors
    /// A server was started but a database could not be made on it.
    pub fn obtain() -> Result<Self, String> {
        let Some(server) = server() else {
            eprintln!("database: no server in a container, using a private PostgreSQL");
            return Ok(Self::Private);
        };
        let name = format!("fleet_{}", uuid::Uuid::new_v4().simple());
        let admin = format!("postgresql://postgres@127.0.0.1:{}/postgres", server.port);
        execute(&admin, &format!("CREATE DATABASE {name}"))?;
        Ok(Self::Container { url: format!("postgresql://postgres@127.0.0.1:{}/{name}", server.port), server })
    }

    /// A private server where its programs are installed, else one in a container: nothing to prepare on either machine.
    ///
    /// # Errors
    /// As [`Database::obtain`]. With neither, the coordinator's own error says what to install.
    pub fn private() -> Result<Self, String> {
        if programs_are_installed() { Ok(Self::Private) } else { Self::obtain() }
    }

    /// The URL for `--database`, if there is one.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Container { url, .. } => Some(url),
            Self::Private => None,
        }
    }
}

/// Whether PostgreSQL's server programs are where a coordinator looks for them.
fn programs_are_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = std::env::split_paths(&path).chain(versions.map(|version| version.path().join("bin")));
    folders.into_iter().any(|folder| folder.join("initdb").is_file())
}

/// What is known of this process's server.
enum Shared {
    /// Whoever has it keeps it running; nobody does at first.
    Some(Weak<Server>),
    /// There is none to be had: the reason was said, and nobody tries again.
    None,
}

/// This process's server, started by the first who asks, stopped when the last lets go.
fn server() -> Option<Arc<Server>> {
    static SHARED: Mutex<Shared> = Mutex::new(Shared::Some(Weak::new()));
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let Shared::Some(running) = &*shared else { return None };
    if let Some(server) = running.upgrade() {
        return Some(server);
    }
    let started = if quiet(Command::new("docker").arg("version")) {
        start()
    } else {
        eprintln!("database: no container engine answers");
        None
    };
    let Some(server) = started.map(Arc::new) else {
        *shared = Shared::None;
        return None;
    };
    *shared = Shared::Some(Arc::downgrade(&server));
    Some(server)
}

fn start() -> Option<Server> {
    let here =
        |(name, tag): (&str, &str)| quiet(Command::new("docker").args(["image", "inspect", &format!("{name}:{tag}")]));
    if here(OWN_IMAGE) {
        return run(OWN_IMAGE).map_err(|error| eprintln!("database: {error}")).ok();
    }
    match run(PUBLIC_IMAGE) {
        Ok(server) => return Some(server),
        Err(error) => eprintln!("database: the public image cannot be had here ({error}); building one"),
    }
    if !quiet(&mut Command::new(workspace().join("tests/images/build-postgres-image"))) {
        eprintln!("database: tests/images/build-postgres-image failed; run it to see why");
        return None;
    }
    run(OWN_IMAGE).map_err(|error| eprintln!("database: {error}")).ok()
}

fn run(image: (&str, &str)) -> Result<Server, String> {
    let container = GenericImage::new(image.0, image.1)
        .with_exposed_port(5432.tcp())
        .with_wait_for(WaitFor::message_on_stderr("database system is ready to accept connections"))
        .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
        .start()
        .map_err(|error| error.to_string())?;
    let port = container.get_host_port_ipv4(5432.tcp()).map_err(|error| error.to_string())?;
    // The public image restarts once after its first start: only an answer counts.
    let url = format!("postgresql://postgres@127.0.0.1:{port}/postgres");
    wait_for("the database in the container", READY_DEADLINE, || execute(&url, "SELECT 1"))?;
    eprintln!("database: PostgreSQL in a container of image {}:{}", image.0, image.1);
    Ok(Server { container: Some(container), port })
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs one statement on a connection of its own.
pub(crate) fn execute(url: &str, statement: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(url, tokio_postgres::NoTls).await.map_err(|error| error.to_string())?;
        let (result, _connection) = tokio::join!(
            async move {
                let result = client.batch_execute(statement).await;
                drop(client);
                result
            },
            connection
        );
        result.map_err(|error| error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::{Database, execute};

    #[test]
    fn a_database_of_its_own_answers() {
        match Database::obtain() {
            Ok(Database::Container { url, server: _server }) => {
                assert_eq!(execute(&url, "CREATE TABLE proof (n int)"), Ok(()));
            }
            Ok(Database::Private) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
