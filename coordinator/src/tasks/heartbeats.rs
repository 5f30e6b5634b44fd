//! Stores heartbeats, those together that came meanwhile.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, heartbeat};

/// The first that waits wakes it; this is for none.
const EVERY: Duration = Duration::from_secs(1);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("heartbeats", EVERY).nudged_by(&app.beats.arrived).until_the_end();
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { heartbeat::store_waiting(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
