//! Mends jobs that a race between joining, labelling and applying left out of step with the selectors.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, keep_jobs};

const EVERY: Duration = Duration::from_secs(30);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("job keeper", EVERY);
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { keep_jobs::keep(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
