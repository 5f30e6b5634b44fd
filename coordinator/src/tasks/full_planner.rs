//! Keeps the planned nights of levelled fulls in step with the fleet.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, level_fulls};

const EVERY: Duration = Duration::from_secs(30);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let app = Arc::clone(app);
    let rhythm = Rhythm { name: "full planner", every: EVERY, nudge: Arc::clone(&app.nudges.full_planner) };
    super::start(life, rhythm, move || {
        let app = Arc::clone(&app);
        async move { level_fulls::keep(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
