//! Keeps the planned nights of levelled fulls in step with the fleet.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, level_fulls};

const EVERY: Duration = Duration::from_secs(30);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("full planner", EVERY).nudged_by(&app.nudges.full_planner);
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { level_fulls::keep(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
