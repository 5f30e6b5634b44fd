//! Merges complete indexes into the catalog, in the order of each job's backups, and asks for those that never came.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, ingest};

const EVERY: Duration = Duration::from_secs(5);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let app = Arc::clone(app);
    let rhythm = Rhythm { name: "ingester", every: EVERY, nudge: Arc::clone(&app.nudges.ingester) };
    super::start(life, rhythm, move || {
        let app = Arc::clone(&app);
        async move {
            let more = ingest::merge_waiting(&app).await?;
            ingest::ask_for_missing(&app).await?;
            Ok(if more { Pass::More } else { Pass::Settled })
        }
    });
}
