//! Tells hosts that are connected here of runs that somebody wants to end, whichever coordinator was asked.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;
use tokio::sync::Notify;

use super::{Pass, Rhythm};
use crate::app::{App, cancel_run};

const EVERY: Duration = Duration::from_secs(1);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let app = Arc::clone(app);
    let rhythm = Rhythm { name: "canceller", every: EVERY, nudge: Arc::new(Notify::new()) };
    super::start(life, rhythm, move || {
        let app = Arc::clone(&app);
        async move { cancel_run::remind(&app).await.map(|()| Pass::Settled) }
    });
}
