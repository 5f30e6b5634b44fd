//! Mends jobs that a race between joining, labelling and applying left out of step with the selectors.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;
use tokio::sync::Notify;

use super::{Pass, Rhythm};
use crate::app::{App, keep_jobs};

const EVERY: Duration = Duration::from_secs(30);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let app = Arc::clone(app);
    let rhythm = Rhythm { name: "job keeper", every: EVERY, nudge: Arc::new(Notify::new()) };
    super::start(life, rhythm, move || {
        let app = Arc::clone(&app);
        async move { keep_jobs::keep(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
