//! Turns schedules into due runs. Each due instant of a job becomes one row, whatever number of coordinators look at it. Then those
//! that make up for missed ones, and the end of those whose time is over.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::dispatch::Sooner;
use crate::app::{App, lapse, make_up, schedule};

/// What becomes due waits for half of this, on average.
const EVERY: Duration = Duration::from_millis(500);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("scheduler", EVERY).nudged_by(&app.nudges.scheduler);
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move {
            let mut more = schedule::insert_due_runs(&app).await?;
            app.unordered.note(Sooner::Scheduling, more);
            more |= make_up::make_up_for_missed_runs(&app).await?;
            more |= lapse::end_lapsed_runs(&app).await?;
            Ok(if more { Pass::More } else { Pass::Settled })
        }
    });
}
