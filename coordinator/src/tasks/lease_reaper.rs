//! Takes back the runs of agents that were not heard of for a lease, and says to the other coordinators that this one lives.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;
use tokio::sync::Notify;

use super::{Pass, Rhythm};
use crate::app::{App, reap};

const EVERY: Duration = Duration::from_secs(5);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let app = Arc::clone(app);
    let rhythm = Rhythm { name: "lease reaper", every: EVERY, nudge: Arc::new(Notify::new()) };
    super::start(life, rhythm, move || {
        let app = Arc::clone(&app);
        async move { reap::reap(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
