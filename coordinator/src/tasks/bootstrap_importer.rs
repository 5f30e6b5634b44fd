//! Takes grants that were made on this machine (see `bootstrap`) into the catalog.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, bootstrap};

const EVERY: Duration = Duration::from_secs(1);

/// Starts the reconciler for the state folder `state`.
pub fn start(app: &Arc<App>, state: &Path, life: &Lifecycle) {
    let (owned, state) = (Arc::clone(app), state.to_owned());
    let rhythm = Rhythm::new("bootstrap importer", EVERY);
    super::start(app, life, rhythm, move || {
        let (app, state) = (Arc::clone(&owned), state.clone());
        async move { bootstrap::take_grants(&app, &state).await.map(|()| Pass::Settled) }
    });
}
