//! Merges complete indexes into the catalog, in the order of each job's backups, and asks for those that never came.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, ingest};

const EVERY: Duration = Duration::from_secs(5);
/// The merge of a large index is one statement with no bound of its own.
const LONGEST_MERGE: Duration = Duration::from_secs(2 * 3600);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("ingester", EVERY).nudged_by(&app.nudges.ingester).with_passes_of(LONGEST_MERGE);
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move {
            let more = ingest::merge_waiting(&app).await?;
            ingest::ask_for_missing(&app).await?;
            Ok(if more { Pass::More } else { Pass::Settled })
        }
    });
}
