//! Forgetting runs that ended long ago, so that the tables of runs stop growing: after `keep_runs_days`, what is written in a day is as much
//! as what goes.

use coord_shared::fault::Fault;

use super::App;
use crate::catalog::Forgotten;

/// Transactions of one pass: a day's runs of a large fleet are through within some hours, and nobody waits for it.
const MAX_BATCHES: usize = 40;

/// Forgets what is older than the settings say.
pub async fn forget_runs(app: &App) -> Result<Forgotten, Fault> {
    let mut forgotten = Forgotten::default();
    for _ in 0..MAX_BATCHES {
        let some = app.catalog.forget_runs(app.settings.keep_runs()).await?;
        forgotten.runs += some.runs;
        forgotten.steps += some.steps;
        if some.total() == 0 {
            break;
        }
    }
    Ok(forgotten)
}
