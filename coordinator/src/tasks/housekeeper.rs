//! Forgets old rows, every hour.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, housekeeping};

const EVERY: Duration = Duration::from_secs(3600);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("housekeeper", EVERY);
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { housekeeping::tidy_up(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
