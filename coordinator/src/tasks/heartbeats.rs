//! Stores heartbeats, those together that came meanwhile.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, heartbeat};

/// Those that extend a lease wake it; the others wait for at most this long.
const EVERY: Duration = Duration::from_millis(250);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("heartbeats", EVERY).nudged_by(&app.beats.arrived).until_the_end();
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { heartbeat::store_waiting(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
