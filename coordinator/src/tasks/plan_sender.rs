//! Gives the hosts that are connected here the plans that they hold for the time they may be cut off.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, send_plans};

/// Also the pace: a pass makes a bounded number of plans, so that a fleet that reconnects is served before it is planned for.
const EVERY: Duration = Duration::from_secs(10);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("plan sender", EVERY).nudged_by(&app.nudges.plan_sender);
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { send_plans::send_plans(&app).await.map(|()| Pass::Settled) }
    });
}
