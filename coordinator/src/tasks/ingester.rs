//! Merges complete indexes into the catalog, in the order of each job's backups, and now and then asks for blocks that never came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, ingest};

const EVERY: Duration = Duration::from_secs(5);
/// Passes by the timer between two times of asking.
const ASK_EVERY: u64 = 6;

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let app = Arc::clone(app);
    let passes = Arc::new(AtomicU64::new(0));
    let rhythm = Rhythm { name: "ingester", every: EVERY, nudge: Arc::clone(&app.nudges.ingester) };
    super::start(life, rhythm, move || {
        let (app, passes) = (Arc::clone(&app), Arc::clone(&passes));
        async move {
            let more = ingest::merge_waiting(&app).await?;
            if passes.fetch_add(1, Ordering::Relaxed) % ASK_EVERY == 0 {
                ingest::ask_for_missing(&app).await?;
            }
            Ok(if more { Pass::More } else { Pass::Settled })
        }
    });
}
