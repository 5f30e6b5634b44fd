//! Looks again at the certificates and hosts behind open sessions, all of them at once: a revocation acts within five seconds.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, judge_sessions};

const EVERY: Duration = Duration::from_secs(4);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("session judge", EVERY).until_the_end();
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { judge_sessions::judge(&app).await.map(|()| Pass::Settled) }
    });
}
