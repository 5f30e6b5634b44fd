//! Gives queued runs to the hosts whose agents are connected here. A run belongs to its host, so it is given by whichever
//! coordinator the host is connected to.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, dispatch, drain};

const EVERY: Duration = Duration::from_secs(2);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new(drain::DISPATCHER, EVERY).nudged_by(&app.nudges.dispatcher);
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { dispatch::dispatch_all(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
