//! The composition root: everything is built here and nowhere else, from settings, files and the environment, and taken down in
//! the reverse order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use coord_shared::api::agent_service_server::AgentServiceServer;
use coord_shared::api::enrolment_service_server::EnrolmentServiceServer;
use coord_shared::api::operator_service_server::OperatorServiceServer;
use coord_shared::clock::{Clock, SystemClock};
use coord_shared::durable;
use coord_shared::ids::CoordinatorId;
use coord_shared::lifecycle::{Lifecycle, Signals};
use coord_shared::tls::{Acceptor, ClientAuth, Connections, PeerKind, ServerTls, TlsError};
use coord_shared::wire;
use jiff::Timestamp;
use tokio::sync::watch;
use tonic::transport::Server;

use crate::app::authorize::Standings;
use crate::app::dispatch::Unordered;
use crate::app::health::Health;
use crate::app::heartbeat::Beats;
use crate::app::jobs::Reported;
use crate::app::known_policies::KnownPolicies;
use crate::app::send_plans::Plans;
use crate::app::{App, Endpoints, Nudges, drain};
use crate::catalog::{Catalog, CatalogConfig, CatalogError, ConfigError, MigrateError};
use crate::draining::Draining;
use crate::grpc::agent::Agents;
use crate::grpc::enrolment::Enrolment;
use crate::grpc::identity::IdentityLayer;
use crate::grpc::operator::Operators;
use crate::pki::{Authority, AuthorityError, CertificateOrder};
use crate::postgres::{self, Private};
use crate::pulses::Pulses;
use crate::relays::Relays;
use crate::sessions::Sessions;
use crate::settings::{RENEWAL_GRACE, Settings, reachable};
use crate::tasks;
use crate::web::health::HealthListener;

/// Connections for scheduling, claims, heartbeats and leases: as many as there are such reconcilers.
const DUTY_POOL_SIZE: usize = 4;
/// Longest wait for tasks and calls at the end.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// Calls under way on one connection.
const MAX_CALLS_PER_CONNECTION: usize = 64;
/// Pause between two tries of a database that does not answer at the start. It is waited for as long as it takes.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);
/// Tries of one that answers and does not let us in: whoever sets it up may not be done yet.
const MAX_REFUSED_TRIES: u32 = 30;
/// Every so many tries it is said again that the database is waited for.
const SAID_EVERY: u32 = 30;
/// Written when the coordinator serves: where it listens.
pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// What to serve.
#[derive(Debug)]
pub struct Config {
    /// State folder.
    pub state: PathBuf,
    /// Its settings.
    pub settings: Settings,
    /// Postgres, instead of what the settings say.
    pub database: Option<String>,
}

/// Why the coordinator cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The private Postgres does not start.
    #[error("cannot start the private database")]
    Postgres(#[source] postgres::PostgresError),
    /// The database's address cannot be used.
    #[error("cannot use the database")]
    Database(#[source] ConfigError),
    /// The catalog's schema cannot be brought up to date.
    #[error("cannot prepare the catalog")]
    Migrate(#[source] MigrateError),
    /// The catalog does not answer.
    #[error("cannot use the catalog")]
    Catalog(#[source] CatalogError),
    /// The database is another fleet's.
    #[error("the database belongs to the fleet {found}, not to {ours}")]
    OtherFleet {
        /// Whose it is.
        found: String,
        /// Ours.
        ours: String,
    },
    /// The authority cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Certificates cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[source] TlsError),
    /// A listener cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: String,
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
}

impl ServerError {
    /// What to do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            ServerError::Listen { .. } => Some("is another coordinator running? change listen in coordinator.toml"),
            ServerError::Database(_) | ServerError::Migrate(_) | ServerError::Catalog(_) => {
                Some("check --database, and that the server runs and lets this user in")
            }
            ServerError::OtherFleet { .. } => Some("give each fleet a database of its own"),
            ServerError::Postgres(_)
            | ServerError::Authority(_)
            | ServerError::Tls(_)
            | ServerError::File { .. }
            | ServerError::Signals(_) => None,
        }
    }
}

/// Serves until a signal comes or `life` is ended.
pub async fn run(config: Config, life: Lifecycle) -> Result<(), ServerError> {
    let url = config.database.clone().or_else(|| Some(config.settings.database.clone()).filter(|url| !url.is_empty()));
    let database = match url {
        Some(url) => Database { url, private: None },
        None => {
            let folder = config.state.join("postgres");
            let server = Private::start(&folder).await.map_err(ServerError::Postgres)?;
            Database { url: server.url(), private: Some((server, folder)) }
        }
    };
    let served = serve(config, &database, &life).await;
    if !life.finish(END_PATIENCE).await {
        tracing::warn!("some tasks did not end in time");
    }
    if let Some((server, _)) = database.private {
        server.stop().await.map_err(ServerError::Postgres)?;
    }
    served
}

/// The catalog's database.
struct Database {
    url: String,
    /// The server that we start and stop ourselves, and its folder.
    private: Option<(Private, PathBuf)>,
}

async fn serve(config: Config, database: &Database, life: &Lifecycle) -> Result<(), ServerError> {
    let Config { state, settings, .. } = config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let authority = Authority::load(&state, &settings.fleet)?;
    let mut signals = Signals::listen().map_err(ServerError::Signals)?;
    let pulses = Pulses::default();
    let health = Health::new(pulses.clone());
    let health_address = answer_about_health(&settings, health.clone(), life).await?;
    let catalog = tokio::select! {
        catalog = open_catalog(&database.url, &settings.fleet) => catalog?,
        () = signals.next() => return Ok(()),
        () = life.ending().cancelled() => return Ok(()),
    };
    let coordinator = CoordinatorId::random();
    let listeners = listen(&authority, &settings, coordinator, clock.as_ref()).await?;
    let endpoints = listeners.endpoints(&settings)?;
    let app = Arc::new(App {
        duties: catalog.apart(DUTY_POOL_SIZE).map_err(ServerError::Database)?,
        catalog,
        sessions: Sessions::new(),
        relays: Relays::default(),
        previews: Relays::default(),
        authority,
        settings,
        endpoints: endpoints.clone(),
        coordinator,
        clock,
        nudges: Nudges::default(),
        standings: Standings::new(),
        known_policies: KnownPolicies::default(),
        unordered: Unordered::default(),
        beats: Beats::default(),
        reported: Reported::default(),
        plans: Plans::default(),
        draining: Draining::default(),
        pulses,
        whereabouts: ArcSwap::default(),
        certificate_ends: watch::Sender::new(listeners.certificate_ends),
    });
    // Whoever waits for the announcement below finds the first operator let in.
    if let Err(fault) = crate::app::bootstrap::take_grants(&app, &state).await {
        tracing::warn!(why = %fault.message, "grants are taken later");
    }
    start_tasks(&app, &listeners, &state, life);
    if let Some((_, folder)) = &database.private {
        tasks::database_keeper::start(&app, folder, life);
    }
    let closing = app.draining.closing();
    let main = listeners.main.start_until(life, closing.clone());
    let enrolment = listeners.enrolment.start_until(life, closing.clone());
    life.spawn("main listener", serve_main(Arc::clone(&app), life.clone(), main));
    life.spawn("enrolment listener", serve_enrolment(Arc::clone(&app), life.clone(), enrolment));
    health.serves(&app);
    announce(&state, &endpoints, health_address)?;
    tracing::info!(main = ?endpoints.main, enrolment = ?endpoints.enrolment, "serving");
    until_drained(&app, &mut signals, life).await;
    life.end();
    crate::app::reap::say_goodbye(&app).await;
    Ok(())
}

/// Opens the listener for probes, where one is wanted; where it listens.
async fn answer_about_health(
    settings: &Settings,
    health: Health,
    life: &Lifecycle,
) -> Result<Option<SocketAddr>, ServerError> {
    let Some(address) = settings.health_listen else { return Ok(None) };
    let failed = |source| ServerError::Listen { address: address.to_string(), source };
    let listener = HealthListener::bind(address).await.map_err(failed)?;
    let address = listener.local_address().map_err(failed)?;
    listener.start(health, life);
    Ok(Some(address))
}

/// Serves until a signal, an operator or a newer schema asks this coordinator to leave, and drains it then. A second signal, or the end of
/// `life`, ends it at once.
async fn until_drained(app: &App, signals: &mut Signals, life: &Lifecycle) {
    tokio::select! {
        () = signals.next() => app.draining.begin("asked by a signal"),
        () = app.draining.begun().cancelled() => {}
        () = life.ending().cancelled() => return,
    }
    let drained = async {
        drain::drain(app).await;
        // The main listener ends this life when its last call has ended.
        if tokio::time::timeout(drain::CALLS_PATIENCE, life.ending().cancelled()).await.is_err() {
            tracing::warn!("some calls did not end in time");
        }
    };
    tokio::select! {
        () = drained => {}
        () = signals.next() => tracing::warn!("asked again: ending at once"),
        () = life.ending().cancelled() => {}
    }
}

/// Connects, brings the schema up to date, and makes sure that the database is this fleet's. A database that is not there is waited for: it
/// may be started after us. One that does not let us in is given up after half a minute.
async fn open_catalog(url: &str, fleet: &str) -> Result<Catalog, ServerError> {
    let config = CatalogConfig::from_url(url).map_err(ServerError::Database)?;
    let catalog = Catalog::new(config).map_err(ServerError::Database)?;
    let mut tries = 0_u32;
    let version = loop {
        match catalog.migrate().await {
            Ok(version) => break version,
            Err(MigrateError::Database(error))
                if error.is_retryable() && (!error.is_refused_login() || tries < MAX_REFUSED_TRIES) =>
            {
                if tries.is_multiple_of(SAID_EVERY) {
                    tracing::warn!(cause = %crate::app::chain(&error), "waiting for the database");
                }
                tries = tries.wrapping_add(1);
                tokio::time::sleep(DATABASE_PAUSE).await;
            }
            Err(error) => return Err(ServerError::Migrate(error)),
        }
    };
    let found = catalog.claim_fleet(fleet).await.map_err(ServerError::Catalog)?.name;
    if found != fleet {
        return Err(ServerError::OtherFleet { found, ours: fleet.to_owned() });
    }
    tracing::info!(schema = version, "the catalog is ready");
    Ok(catalog)
}

/// Both listeners with their swappable certificates.
struct Listeners {
    main: Acceptor,
    enrolment: Acceptor,
    certificates: [Arc<ServerTls>; 2],
    certificate_ends: Timestamp,
    renew_at: Timestamp,
}

impl Listeners {
    fn endpoints(&self, settings: &Settings) -> Result<Endpoints, ServerError> {
        let of = |said: &[String], acceptor: &Acceptor, address: String| -> Result<Vec<String>, ServerError> {
            if !said.is_empty() {
                return Ok(said.to_vec());
            }
            let local = acceptor.local_address().map_err(|source| ServerError::Listen { address, source })?;
            Ok(vec![reachable(local)])
        };
        Ok(Endpoints {
            main: of(&settings.advertise, &self.main, settings.listen.to_string())?,
            enrolment: of(&settings.advertise_enrol, &self.enrolment, settings.enrol_listen.to_string())?,
        })
    }
}

async fn listen(
    authority: &Authority,
    settings: &Settings,
    coordinator: CoordinatorId,
    clock: &dyn Clock,
) -> Result<Listeners, ServerError> {
    let id = coordinator.to_string();
    let order = CertificateOrder { kind: PeerKind::Coordinator, id: &id, now: clock.now() };
    let (certificate, key) = authority.issue_with_key(order)?;
    let tls = |auth| ServerTls::new(authority.pem(), &certificate.pem, &key, auth).map_err(ServerError::Tls);
    let certificates = [tls(ClientAuth::Required)?, tls(ClientAuth::OptionalExpired { grace: RENEWAL_GRACE })?];
    let bind = async |address: SocketAddr, tls: &Arc<ServerTls>| {
        Acceptor::bind(address, Arc::clone(tls))
            .await
            .map_err(|source| ServerError::Listen { address: address.to_string(), source })
    };
    let main = bind(settings.listen, &certificates[0]).await?;
    let enrolment = bind(settings.enrol_listen, &certificates[1]).await?;
    let (certificate_ends, renew_at) = (certificate.identity.not_after, certificate.identity.life_at(2, 3));
    Ok(Listeners { main, enrolment, certificates, certificate_ends, renew_at })
}

fn start_tasks(app: &Arc<App>, listeners: &Listeners, state: &Path, life: &Lifecycle) {
    tasks::bootstrap_importer::start(app, state, life);
    tasks::certificate_renewer::start(app, &listeners.certificates, listeners.renew_at, life);
    tasks::heartbeats::start(app, life);
    tasks::session_judge::start(app, life);
    tasks::scheduler::start(app, life);
    tasks::dispatcher::start(app, life);
    tasks::order_giver::start(app, life);
    tasks::canceller::start(app, life);
    tasks::lease_reaper::start(app, life);
    tasks::ingester::start(app, life);
    tasks::housekeeper::start(app, life);
    tasks::job_keeper::start(app, life);
    tasks::full_planner::start(app, life);
    tasks::plan_sender::start(app, life);
}

fn builder() -> Server {
    Server::builder()
        .initial_stream_window_size(wire::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(wire::CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(wire::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(wire::KEEPALIVE_TIMEOUT))
        .concurrency_limit_per_connection(MAX_CALLS_PER_CONNECTION)
}

/// When a listener takes no more calls.
fn closing(app: &App, life: &Lifecycle) -> impl Future<Output = ()> + Send + 'static {
    let (closing, ending) = (app.draining.closing().clone(), life.ending().clone());
    async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = ending.cancelled() => {}
        }
    }
}

async fn serve_main(app: Arc<App>, life: Lifecycle, connections: Connections) {
    let closing = closing(&app, &life);
    let agents = AgentServiceServer::new(Agents::new(Arc::clone(&app), life.clone()))
        .max_decoding_message_size(wire::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(wire::MAX_MESSAGE_BYTES);
    let operators = OperatorServiceServer::new(Operators::new(Arc::clone(&app), life.clone()))
        .max_decoding_message_size(wire::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(wire::MAX_MESSAGE_BYTES);
    let served = builder()
        .layer(IdentityLayer::new(app))
        .add_service(agents)
        .add_service(operators)
        .serve_with_incoming_shutdown(connections, closing)
        .await;
    stop(served, &life);
}

async fn serve_enrolment(app: Arc<App>, life: Lifecycle, connections: Connections) {
    let closing = closing(&app, &life);
    let enrolment = EnrolmentServiceServer::new(Enrolment::new(app)).max_decoding_message_size(64 << 10);
    let served = builder().add_service(enrolment).serve_with_incoming_shutdown(connections, closing).await;
    if let Err(error) = served {
        stop(Err(error), &life);
    }
}

/// A listener that stops takes the process with it: half a coordinator is worse than none.
fn stop(served: Result<(), tonic::transport::Error>, life: &Lifecycle) {
    if let Err(error) = served {
        tracing::error!(%error, "listener failed");
    }
    life.end();
}

/// Says where the coordinator listens, for scripts: written when it serves.
fn announce(state: &Path, endpoints: &Endpoints, health: Option<SocketAddr>) -> Result<(), ServerError> {
    let path = state.join(ENDPOINTS_FILE);
    let text = serde_json::json!({
        "main": endpoints.main,
        "enrolment": endpoints.enrolment,
        "health": health.map(|address| address.to_string()),
        "process": std::process::id(),
    });
    durable::write(&path, text.to_string().as_bytes(), durable::PUBLIC_MODE)
        .map_err(|source| ServerError::File { path, source })
}
