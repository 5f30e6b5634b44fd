//! Tells hosts that are connected here of runs that somebody wants to end, whichever coordinator was asked.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, cancel_run};

const EVERY: Duration = Duration::from_secs(1);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("canceller", EVERY);
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { cancel_run::remind(&app).await.map(|()| Pass::Settled) }
    });
}
