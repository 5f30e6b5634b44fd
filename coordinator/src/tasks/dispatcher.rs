//! Gives queued runs to the hosts whose agents are connected here. A run belongs to its host, so it is given by whichever
//! coordinator the host is connected to.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, dispatch};

const EVERY: Duration = Duration::from_secs(2);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let app = Arc::clone(app);
    let rhythm = Rhythm { name: "dispatcher", every: EVERY, nudge: Arc::clone(&app.nudges.dispatcher) };
    super::start(life, rhythm, move || {
        let app = Arc::clone(&app);
        async move { dispatch::dispatch_all(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
