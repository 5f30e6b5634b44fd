//! Connections to the catalog's database. Invariant: every wait has a bound, so that a database that went away shows as
//! [`CatalogError::Unavailable`] within seconds and never as a hang.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};

use super::error::{CatalogError, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(3);
/// A peer that does not acknowledge for this long is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Of the session: no statement of the request path takes longer. A merge lifts the first for itself. Compiling a plan would take longer than
/// any of ours takes.
const SESSION_OPTIONS: &str = "-c statement_timeout=60s -c lock_timeout=15s -c idle_in_transaction_session_timeout=60s -c timezone=UTC -c jit=off";
/// Connections kept at most by one coordinator.
pub const DEFAULT_POOL_SIZE: usize = 16;

/// A statement of the catalog. Every one is such a constant, so that a test can prepare each against the schema.
///
/// One that knows the keys of its rows says `state || '' = ..`, or asks for the state outside of a subquery with OFFSET 0: that keeps it from the
/// indexes of what is queued, held or pending. Empty when Postgres last looked, they seem the shortest way to any row, and when ten thousand
/// rows are in them all of those are read for each.
pub(super) struct Sql(pub(super) &'static str);

/// Where the database is.
#[derive(Debug, Clone)]
pub struct CatalogConfig {
    config: tokio_postgres::Config,
    pool_size: usize,
}

/// The database's address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a connection string.
    #[error("the database's address does not read: use postgresql://user@host:port/database")]
    Url(#[source] tokio_postgres::Error),
    /// The pool cannot be made.
    #[error("the pool of database connections cannot be made")]
    Pool(#[source] deadpool_postgres::BuildError),
}

impl CatalogConfig {
    /// The configuration behind `postgresql://...` or `host=... user=...`.
    ///
    /// # Errors
    /// [`ConfigError::Url`] when the text is no address.
    pub fn from_url(url: &str) -> std::result::Result<CatalogConfig, ConfigError> {
        let config = tokio_postgres::Config::from_str(url).map_err(ConfigError::Url)?;
        Ok(CatalogConfig { config, pool_size: DEFAULT_POOL_SIZE })
    }

    /// Another number of connections than [`DEFAULT_POOL_SIZE`].
    #[must_use]
    pub fn with_pool_size(mut self, pool_size: usize) -> CatalogConfig {
        self.pool_size = pool_size;
        self
    }

    /// The same server, another database.
    #[cfg(test)]
    pub(super) fn with_database(&self, name: &str) -> CatalogConfig {
        let mut other = self.clone();
        other.config.dbname(name);
        other
    }

    /// Where the server is, if it is one.
    #[cfg(test)]
    pub(super) fn server(&self) -> (tokio_postgres::config::Host, u16) {
        (self.config.get_hosts()[0].clone(), self.config.get_ports().first().copied().unwrap_or(5432))
    }

    /// The same database by way of a relay.
    #[cfg(test)]
    pub(super) fn through(&self, relay: std::net::SocketAddr) -> CatalogConfig {
        let mut config = tokio_postgres::Config::new();
        config.host(relay.ip().to_string()).port(relay.port());
        config.user(self.config.get_user().unwrap_or_default()).dbname(self.config.get_dbname().unwrap_or_default());
        config.password(self.config.get_password().unwrap_or_default());
        CatalogConfig { config, pool_size: self.pool_size }
    }

    /// The same with our timeouts.
    fn bounded(&self) -> tokio_postgres::Config {
        let mut config = self.config.clone();
        config
            .options(SESSION_OPTIONS)
            .application_name("coordinator")
            .connect_timeout(CONNECT_TIMEOUT)
            // Of several hosts, the first that takes writes: a catalog that cannot write is none.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .keepalives_idle(Duration::from_secs(30))
            .tcp_user_timeout(TCP_USER_TIMEOUT);
        config
    }

    pub(super) async fn connect(&self) -> Result<tokio_postgres::Client> {
        let (client, connection) =
            self.bounded().connect(NoTls).await.map_err(|error| CatalogError::Unavailable(Box::new(error)))?;
        // Ends by itself when the client is dropped.
        drop(tokio::spawn(connection));
        Ok(client)
    }
}

/// When a server last refused a write because it takes none any more: it became a standby. Connections made until then are thrown away before
/// their next use, and the next ones are made to the server that takes writes. Asking each before each use would double the statements.
#[derive(Debug, Clone, Default)]
struct Demotion(Arc<Mutex<Option<Instant>>>);

impl Demotion {
    /// Looks at what a statement came to.
    fn watch<T>(
        &self,
        outcome: std::result::Result<T, tokio_postgres::Error>,
    ) -> std::result::Result<T, tokio_postgres::Error> {
        if let Err(error) = &outcome
            && error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
        {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        outcome
    }

    /// Whether a connection made then may lead to a server that takes no writes.
    fn concerns(&self, made: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| made <= at)
    }

    /// Asked by the pool before it gives a connection away again.
    fn hook(&self) -> Hook {
        let demotion = self.clone();
        Hook::sync_fn(move |_, metrics| {
            if demotion.concerns(metrics.created) {
                return Err(HookError::message("its server takes no writes any more"));
            }
            Ok(())
        })
    }
}

/// The catalog. Clones share the pool.
#[derive(Clone)]
pub struct Catalog {
    config: CatalogConfig,
    pool: Pool,
    demotion: Demotion,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// A catalog that connects when it is first used.
    ///
    /// # Errors
    /// [`ConfigError::Pool`] when the pool cannot be made.
    pub fn new(config: CatalogConfig) -> std::result::Result<Catalog, ConfigError> {
        let manager = Manager::from_config(
            config.bounded(),
            NoTls,
            // A connection whose server is gone is seen to be closed; asking each whether it still answers would double the statements.
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let demotion = Demotion::default();
        let pool = Pool::builder(manager)
            .pre_recycle(demotion.hook())
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(RECYCLE_TIMEOUT))
            .build()
            .map_err(ConfigError::Pool)?;
        Ok(Catalog { config, pool, demotion })
    }

    /// The same catalog over as many connections of its own: what goes over them does not wait behind what goes over others.
    ///
    /// # Errors
    /// [`ConfigError::Pool`] when the pool cannot be made.
    pub fn apart(&self, pool_size: usize) -> std::result::Result<Catalog, ConfigError> {
        Catalog::new(self.config.clone().with_pool_size(pool_size))
    }

    /// Brings the schema up to this version's.
    ///
    /// # Errors
    /// [`super::MigrateError`]: the database cannot be reached, or its schema is newer than this program.
    pub async fn migrate(&self) -> std::result::Result<u32, super::MigrateError> {
        super::migrate::run(&self.config).await
    }

    /// Ends all connections; later calls fail.
    pub fn close(&self) {
        self.pool.close();
    }

    pub(super) async fn connection(&self) -> Result<Connection> {
        let object = self.pool.get().await.map_err(|error| CatalogError::Unavailable(Box::new(error)))?;
        Ok(Connection(object, self.demotion.clone()))
    }
}

/// Parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

#[cfg(test)]
std::thread_local! {
    /// Statements that this thread has put outside of transactions.
    pub(crate) static STATEMENTS_PUT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A connection whose statements commit by themselves.
pub(super) struct Connection(Object, Demotion);

impl Connection {
    pub(super) async fn query(&self, sql: &Sql, params: Params<'_>) -> Result<Vec<Row>> {
        #[cfg(test)]
        STATEMENTS_PUT.with(|put| put.set(put.get() + 1));
        let statement = self.0.prepare_cached(sql.0).await.map_err(CatalogError::undone)?;
        self.1.watch(self.0.query(&statement, params).await).map_err(CatalogError::maybe_done)
    }

    pub(super) async fn query_opt(&self, sql: &Sql, params: Params<'_>) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    pub(super) async fn execute(&self, sql: &Sql, params: Params<'_>) -> Result<u64> {
        let statement = self.0.prepare_cached(sql.0).await.map_err(CatalogError::undone)?;
        self.1.watch(self.0.execute(&statement, params).await).map_err(CatalogError::maybe_done)
    }

    pub(super) async fn begin(&mut self) -> Result<Transaction<'_>> {
        let begun = self.0.transaction().await.map_err(CatalogError::undone)?;
        Ok(Transaction(begun, &self.1))
    }
}

/// A transaction: dropped without `commit`, nothing happened.
pub(super) struct Transaction<'a>(deadpool_postgres::Transaction<'a>, &'a Demotion);

impl Transaction<'_> {
    pub(super) async fn query(&self, sql: &Sql, params: Params<'_>) -> Result<Vec<Row>> {
        let statement = self.0.prepare_cached(sql.0).await.map_err(CatalogError::undone)?;
        self.1.watch(self.0.query(&statement, params).await).map_err(CatalogError::undone)
    }

    pub(super) async fn query_opt(&self, sql: &Sql, params: Params<'_>) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    pub(super) async fn execute(&self, sql: &Sql, params: Params<'_>) -> Result<u64> {
        let statement = self.0.prepare_cached(sql.0).await.map_err(CatalogError::undone)?;
        self.1.watch(self.0.execute(&statement, params).await).map_err(CatalogError::undone)
    }

    pub(super) async fn copy_in(&self, sql: &Sql) -> Result<tokio_postgres::CopyInSink<bytes::Bytes>> {
        let statement = self.0.prepare_cached(sql.0).await.map_err(CatalogError::undone)?;
        self.1.watch(self.0.copy_in(&statement).await).map_err(CatalogError::undone)
    }

    pub(super) async fn commit(self) -> Result<()> {
        self.1.watch(self.0.commit().await).map_err(CatalogError::maybe_done)
    }
}

/// Where a question that only reads can be asked: a connection, or a transaction with bounds of its own.
pub(super) trait Ask {
    /// The first row of the answer.
    async fn ask(&self, sql: &Sql, params: Params<'_>) -> Result<Option<Row>>;
}

impl Ask for Connection {
    async fn ask(&self, sql: &Sql, params: Params<'_>) -> Result<Option<Row>> {
        self.query_opt(sql, params).await
    }
}

impl Ask for Transaction<'_> {
    async fn ask(&self, sql: &Sql, params: Params<'_>) -> Result<Option<Row>> {
        self.query_opt(sql, params).await
    }
}
