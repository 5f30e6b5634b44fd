//! A catalog on a real PostgreSQL for each test: a clone of a migrated template, dropped when the test ends, however it ends.
//!
//! The server is the one that `COORD_TEST_DATABASE_URL` names, else one in a container where an engine answers, else a private one that
//! the test processes of this checkout share: the last to leave stops it. Which one it is is said on standard error.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use fleet_tests::harness::postgres::Database;
use futures_util::FutureExt;

use super::migrate::SCHEMA_TEXTS;
use super::pool::{Catalog, CatalogConfig};
use crate::postgres::Private;

/// Names the server to test on, as a connection string whose user may create databases.
const SERVER_VARIABLE: &str = "COORD_TEST_DATABASE_URL";

/// A place for the private server and the locks of those who use it.
struct Shared {
    folder: PathBuf,
    setup: File,
    users: File,
}

impl Shared {
    fn open() -> Shared {
        let checkout = blake3::hash(env!("CARGO_MANIFEST_DIR").as_bytes()).to_hex();
        let name = format!("coord-catalog-{}-{}", rustix::process::geteuid().as_raw(), &checkout[..8]);
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        // The database's user has to get through.
        std::fs::set_permissions(&folder, Permissions::from_mode(0o711)).unwrap();
        let lock = |name: &str| File::options().create(true).append(true).open(folder.join(name)).unwrap();
        Shared { setup: lock("setup.lock"), users: lock("users.lock"), folder }
    }
}

/// The server of a test, and how to let go of it.
enum Server {
    Named,
    Container(Database),
    Private { shared: Shared, server: Private },
}

/// Runs a test with a catalog of its own. It has one connection: what holds one while it waits for another never ends, as it does not in a
/// coordinator where as many do so at once as there are connections.
pub(crate) async fn with_catalog<F>(test: F)
where
    F: AsyncFnOnce(Catalog),
{
    with_config(async |config| {
        let catalog = Catalog::new(config.with_pool_size(1)).unwrap();
        test(catalog.clone()).await;
        catalog.close();
    })
    .await;
}

/// Runs a test with the address of a migrated database of its own.
pub(crate) async fn with_config<F>(test: F)
where
    F: AsyncFnOnce(CatalogConfig),
{
    with_database(true, test).await;
}

/// Runs a test with the address of an empty database of its own.
pub(crate) async fn with_empty<F>(test: F)
where
    F: AsyncFnOnce(CatalogConfig),
{
    with_database(false, test).await;
}

async fn with_database<F>(migrated: bool, test: F)
where
    F: AsyncFnOnce(CatalogConfig),
{
    let (admin, server) = server().await;
    let template = template(&admin).await;
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    let source = if migrated { &template } else { "template0" };
    execute(&admin, &format!("CREATE DATABASE {name} TEMPLATE {source}")).await;
    release(&server);
    let outcome = std::panic::AssertUnwindSafe(test(admin.with_database(&name))).catch_unwind().await;
    drop_database(&admin, &name).await;
    leave(server).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// The server to use. A private one comes with the setup lock held.
#[expect(clippy::disallowed_methods, reason = "the composition root of these tests")]
async fn server() -> (CatalogConfig, Server) {
    if let Ok(url) = std::env::var(SERVER_VARIABLE) {
        eprintln!("database: PostgreSQL of {SERVER_VARIABLE}");
        return (CatalogConfig::from_url(&url).unwrap(), Server::Named);
    }
    let obtained = tokio::task::spawn_blocking(Database::obtain).await.unwrap().unwrap();
    if let Some(url) = obtained.url() {
        let admin = CatalogConfig::from_url(url).unwrap().with_database("postgres");
        return (admin, Server::Container(obtained));
    }
    let locked = tokio::task::spawn_blocking(|| {
        let shared = Shared::open();
        shared.setup.lock().unwrap();
        shared.users.lock_shared().unwrap();
        shared
    });
    let shared = locked.await.unwrap();
    let server = Private::start(&shared.folder.join("server")).await.unwrap();
    let admin = CatalogConfig::from_url(&server.address("postgres")).unwrap();
    (admin, Server::Private { shared, server })
}

fn release(server: &Server) {
    match server {
        Server::Named | Server::Container(_) => {}
        Server::Private { shared, .. } => shared.setup.unlock().unwrap(),
    }
}

async fn leave(server: Server) {
    match server {
        Server::Named => {}
        Server::Container(database) => drop(database),
        Server::Private { shared, server } => {
            let (shared, last) = tokio::task::spawn_blocking(move || {
                shared.setup.lock().unwrap();
                shared.users.unlock().unwrap();
                let last = shared.users.try_lock().is_ok();
                (shared, last)
            })
            .await
            .unwrap();
            if last {
                server.stop().await.unwrap();
            }
            drop(shared);
        }
    }
}

/// The name of the migrated template, made when it is missing. Its name says which migrations it has.
async fn template(admin: &CatalogConfig) -> String {
    let digest = blake3::hash(SCHEMA_TEXTS.concat().as_bytes()).to_hex();
    let name = format!("template_{}", &digest[..16]);
    let client = admin.connect().await.unwrap();
    // For servers that are not ours alone.
    client.query("SELECT pg_advisory_lock(7526)", &[]).await.unwrap();
    let found = client.query("SELECT datname FROM pg_database WHERE datname = $1", &[&name]).await.unwrap();
    if found.is_empty() {
        let draft = format!("draft_{}", uuid::Uuid::new_v4().simple());
        execute(admin, &format!("CREATE DATABASE {draft} TEMPLATE template0")).await;
        super::migrate::run(&admin.with_database(&draft)).await.unwrap();
        rename(admin, &draft, &name).await;
    }
    name
}

/// Renames the draft once its last connection is gone.
async fn rename(admin: &CatalogConfig, draft: &str, name: &str) {
    let client = admin.connect().await.unwrap();
    let query = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1";
    client.query(query, &[&draft]).await.unwrap();
    execute(admin, &format!("ALTER DATABASE {draft} RENAME TO {name}")).await;
}

async fn drop_database(admin: &CatalogConfig, name: &str) {
    execute(admin, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

async fn execute(admin: &CatalogConfig, statement: &str) {
    admin.connect().await.unwrap().batch_execute(statement).await.unwrap();
}
