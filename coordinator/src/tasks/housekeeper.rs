//! Forgets old rows, every hour.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;
use tokio::sync::Notify;

use super::{Pass, Rhythm};
use crate::app::{App, housekeeping};

const EVERY: Duration = Duration::from_secs(3600);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let app = Arc::clone(app);
    let rhythm = Rhythm { name: "housekeeper", every: EVERY, nudge: Arc::new(Notify::new()) };
    super::start(life, rhythm, move || {
        let app = Arc::clone(&app);
        async move { housekeeping::tidy_up(&app).await.map(|()| Pass::Settled) }
    });
}
