//! Turns schedules into due runs. Each due instant of a job becomes one row, whatever number of coordinators look at it.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, schedule};

const EVERY: Duration = Duration::from_secs(2);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let app = Arc::clone(app);
    let rhythm = Rhythm { name: "scheduler", every: EVERY, nudge: Arc::clone(&app.nudges.scheduler) };
    super::start(life, rhythm, move || {
        let app = Arc::clone(&app);
        async move { schedule::insert_due_runs(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
