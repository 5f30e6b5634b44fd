//! Takes back the runs of agents that were not heard of for a lease, and says to the other coordinators that this one lives.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, reap};

const EVERY: Duration = Duration::from_secs(5);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("lease reaper", EVERY).until_the_end();
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { reap::reap(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
