//! The composition root of `coord-agent run`: reads configuration and identity, builds every part once, and ends them in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use coord_shared::clock::Clock;
use coord_shared::ids::ArchiveStoreId;
use coord_shared::lifecycle::Lifecycle;
use tokio::sync::watch;

use crate::config::{Config, ConfigError, Overrides};
use crate::contact::Contact;
use crate::engine::{Deps, Engine, HostWork};
use crate::identity::{Identity, IdentityError};
use crate::journal::{Journal, SegmentError};
use crate::plan::PlanFile;
use crate::renewal::Renewal;
use crate::session::{HELLO_TIMEOUT, Previews, Session};
use crate::state::{StateError, StateFolder};
use crate::store::{LocalStore, StoreError};

/// How long runs may take to stop when the process is asked to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No identity.
    #[error("{folder} holds no identity: this host has not joined a fleet")]
    NotJoined {
        /// The state folder.
        folder: String,
    },
    /// The state folder cannot be used.
    #[error("cannot start")]
    State(#[from] StateError),
    /// The configuration cannot be used.
    #[error("cannot use the configuration")]
    Config(#[from] ConfigError),
    /// The identity cannot be used.
    #[error("cannot use the identity")]
    Identity(#[from] IdentityError),
    /// The journal cannot be used.
    #[error("cannot use the journal")]
    Journal(#[from] SegmentError),
    /// The archive folder cannot be used.
    #[error("cannot use the archive folder")]
    Store(#[from] StoreError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
}

/// Runs until SIGTERM or SIGINT, or until `life` is ended.
pub async fn run(
    state: StateFolder,
    overrides: Overrides,
    clock: Arc<dyn Clock>,
    life: Lifecycle,
) -> Result<(), DaemonError> {
    let Some(identity) = Identity::load(&state)? else {
        return Err(DaemonError::NotJoined { folder: state.path().display().to_string() });
    };
    let config = Config::load(&state)?.with(overrides);
    let _lock = state.lock()?;
    let root = config.canonical_root()?;
    let store = LocalStore::open(&config.archive_folder(&state))?;
    let (journal, recovery) = Journal::open(&state.journal_folder())?;
    tracing::info!(
        host = %identity.host_name, fleet = %identity.fleet, root = %root.display(),
        archives = %store.folder().display(), journal_records = recovery.records, "agent starting"
    );
    let held = identity.held()?;
    let (generation, renewed) = watch::channel(identity.generation);
    let work = HostWork {
        host_id: identity.host_id.clone(),
        root,
        store: store.clone(),
        cache: state.cache_folder(),
        own_folders: vec![state.path().to_owned(), store.folder().to_owned()],
        threads: config.threads,
    };
    let work = Arc::new(work);
    let previews = Previews::new(Arc::clone(&work));
    let identity = Arc::new(ArcSwap::from_pointee(identity));
    let (engine, events) = Engine::new(Deps {
        host_name: identity.load().host_name.clone(),
        journal,
        store: store.clone(),
        work,
        clock: Arc::clone(&clock),
        life: life.clone(),
        plan: PlanFile::open(state.plan_file()),
        cut_off_after: Duration::from_secs(u64::from(config.cut_off_after_s)),
    });
    let contact = Contact::open(state.contact_file(), config.endpoints, config.enrol_endpoints);
    let contact = Arc::new(contact);
    let session = Session {
        patience: HELLO_TIMEOUT,
        contact: Arc::clone(&contact),
        identity: Arc::clone(&identity),
        held: Arc::clone(&held),
        generation: renewed,
        instance_id: uuid::Uuid::new_v4().to_string(),
        store_id: known_id(&store),
        store,
        previews,
        events,
        clock: Arc::clone(&clock),
        life: life.clone(),
    };
    let renewal = Renewal { state, identity, held, contact, generation, clock };
    life.spawn("engine", engine.run());
    life.spawn("session", session.run());
    let ending = life.ending().clone();
    life.spawn("renewal", renewal.run(ending));
    life.until_signal().await.map_err(DaemonError::Signals)?;
    if !life.finish(PATIENCE).await {
        tracing::warn!("a run was still stopping; its attempt is reported as failed at the next start");
    }
    Ok(())
}

fn known_id(store: &LocalStore) -> Option<ArchiveStoreId> {
    let id = store.id().inspect_err(|error| {
        tracing::warn!(error = %crate::chain::chain(error), "the archive folder has no id: limits of each target count this host alone");
    });
    id.ok()
}
