//! The ground that the simulated fleet stands on: a real coordinator process with a real Postgres, and the ways to look at them from
//! outside.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::tls::{ClientTls, HeldIdentity};
use coord_shared::token::Token;
use coord_shared::wire::MAX_MESSAGE_BYTES;
use serde::Deserialize;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};
use tonic::transport::Channel;

use super::gauge::{Gauge, children_of};
use crate::harness::fleet::Fleet;
use crate::harness::postgres::Database;

/// How often something is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Coordinator, Postgres, and a connection to look at it.
pub struct Ground {
    fleet: Mutex<Option<Fleet>>,
    folder: TempDir,
    /// The catalog's database.
    pub catalog: Client,
    state: std::path::PathBuf,
    enrol: String,
}

#[derive(Deserialize)]
struct Endpoints {
    main: Vec<String>,
    process: u32,
}

impl Ground {
    /// Starts a coordinator with a Postgres of its own, or one in a container where none is installed.
    ///
    /// # Errors
    /// What could not be built or started.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleet-sim-").tempdir()?;
        // The database's user has to get through.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let path = folder.path().to_owned();
        let started = tokio::task::spawn_blocking(move || -> Result<(Fleet, Option<String>), String> {
            let database = Database::private()?;
            let url = database.url().map(str::to_owned);
            Ok((Fleet::start(&path, database)?, url))
        });
        let (fleet, url) = started.await?.map_err(|error| anyhow!(error))?;
        let state = fleet.coordinator_state();
        let url = match url {
            Some(url) => url,
            None => private_url(&state)?,
        };
        let (catalog, connection) = tokio_postgres::connect(&url, NoTls).await.context("connecting to the catalog")?;
        drop(tokio::spawn(connection));
        let enrol = fleet.enrol_endpoint().to_owned();
        Ok(Self { fleet: Mutex::new(Some(fleet)), folder, catalog, state, enrol })
    }

    /// Does something with the fleet's harness, off the tasks of the agents.
    ///
    /// # Errors
    /// Those of `act`.
    pub async fn with_fleet<R: Send>(
        &self,
        act: impl FnOnce(&mut Fleet) -> Result<R, String> + Send,
    ) -> anyhow::Result<R> {
        tokio::task::block_in_place(|| {
            let mut fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
            act(fleet.as_mut().ok_or("the fleet has ended")?)
        })
        .map_err(|error: String| anyhow!(error))
    }

    fn endpoints(&self) -> anyhow::Result<Endpoints> {
        Ok(serde_json::from_str(&fs::read_to_string(self.state.join("endpoints.json"))?)?)
    }

    /// The main listener, `host:port`.
    ///
    /// # Errors
    /// The coordinator has not said yet.
    pub fn main(&self) -> anyhow::Result<String> {
        self.endpoints()?.main.into_iter().next().context("no main listener")
    }

    /// The enrolment listener, `host:port`.
    #[must_use]
    pub fn enrolment(&self) -> &str {
        &self.enrol
    }

    /// A token that many hosts may join with.
    ///
    /// # Errors
    /// As `coordctl token create`.
    pub async fn token(&self, uses: usize, labels: &[&str]) -> anyhow::Result<Token> {
        let uses = uses.to_string();
        let line = self
            .with_fleet(|fleet| {
                let mut arguments = vec!["token", "create", "--uses", &uses, "-o", "json"];
                labels.iter().for_each(|label| arguments.extend(["--label", label]));
                let token = fleet.coordctl(&arguments)?.success()?.json()?;
                token["secret_line"].as_str().map(str::to_owned).ok_or_else(|| "no secret_line".to_owned())
            })
            .await?;
        Ok(line.parse()?)
    }

    /// Applies a policy.
    ///
    /// # Errors
    /// As `coordctl policy apply`.
    pub async fn apply_policy(&self, toml: &str) -> anyhow::Result<()> {
        self.with_fleet(|fleet| fleet.apply_policy(toml)?.success().map(drop)).await
    }

    /// The fleet's first operator, connected.
    ///
    /// # Errors
    /// The coordinator does not let them in.
    pub async fn operator(&self) -> anyhow::Result<OperatorServiceClient<Channel>> {
        let home = self.with_fleet(|fleet| Ok(fleet.config_home())).await?.join("coordctl");
        let config: toml::Table = fs::read_to_string(home.join("config.toml"))?.parse()?;
        let current = config["current"].as_str().unwrap_or_default();
        let entry = &config["contexts"][current];
        let read = |key: &str| -> anyhow::Result<String> {
            let path = home.join(entry[key].as_str().unwrap_or_default());
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let held = HeldIdentity::from_pem(&read("certificate")?, &read("key")?)?;
        let channel = ClientTls::new(&read("ca")?, held)?.connect(&self.main()?).await?;
        Ok(OperatorServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// What the coordinator's process uses.
    ///
    /// # Errors
    /// It is gone.
    pub fn coordinator(&self) -> anyhow::Result<Gauge> {
        Gauge::read(self.endpoints()?.process)
    }

    /// Processor time of the private Postgres, all of its processes together. `None` where it is in a container.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn postgres(&self) -> anyhow::Result<Option<Duration>> {
        let Some(postmaster) = postmaster(&self.state) else { return Ok(None) };
        let mut used = Duration::ZERO;
        for process in children_of(postmaster)? {
            // One that ended meanwhile counts no more.
            used += Gauge::read(process).map(|gauge| gauge.used).unwrap_or_default();
        }
        Ok(Some(used))
    }

    /// Kills the coordinator at once and starts another on the same state.
    ///
    /// # Errors
    /// It does not serve again.
    pub async fn restart_coordinator(&self) -> anyhow::Result<()> {
        self.with_fleet(|fleet| {
            fleet.coordinator_process().ok_or("no coordinator")?.kill().map_err(|error| error.to_string())?;
            fleet.start_coordinator()
        })
        .await
    }

    /// The number that a query answers.
    ///
    /// # Errors
    /// The query is wrong or the database is gone.
    pub async fn count(&self, sql: &str) -> anyhow::Result<u64> {
        let row = self.catalog.query_one(sql, &[]).await.with_context(|| sql.to_owned())?;
        Ok(u64::try_from(row.get::<_, i64>(0))?)
    }

    /// Statements and transactions that the database has finished.
    ///
    /// # Errors
    /// The database is gone.
    pub async fn transactions(&self) -> anyhow::Result<u64> {
        self.count("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()").await
    }

    /// Waits until a query answers at least `wanted`.
    ///
    /// # Errors
    /// It does not within `patience`.
    pub async fn wait_for_count(&self, sql: &str, wanted: u64, patience: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let asked = Instant::now();
            let found = self.count(sql).await?;
            if found >= wanted {
                return Ok(());
            }
            // Looking takes the processor from what is looked at: a twentieth of it at most.
            let pause = LOOK_EVERY.max(asked.elapsed() * 20);
            ensure!(begun.elapsed() < patience, "{found} of {wanted} after {patience:?}: {sql}");
            tokio::time::sleep(pause).await;
        }
    }

    /// The folder of everything.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends coordinator and Postgres.
    ///
    /// # Errors
    /// The task that ends them panicked.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self { fleet, catalog, folder, .. } = self;
        drop(catalog);
        tokio::task::spawn_blocking(move || {
            drop(fleet);
            drop(folder);
        })
        .await?;
        Ok(())
    }
}

fn postmaster(state: &Path) -> Option<u32> {
    let text = fs::read_to_string(state.join("postgres/data/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// The private server's address, from the file in which it says where its socket is.
fn private_url(state: &Path) -> anyhow::Result<String> {
    let path = state.join("postgres/data/postmaster.pid");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let socket = text.lines().nth(4).context("the private server does not say where its socket is")?;
    Ok(format!("host='{socket}' user=postgres dbname=coordinator"))
}
