//! Forgetting runs that ended long ago, so that the tables of runs stop growing: after `keep_runs_days`, what is written in a day is as much
//! as what goes.

use coord_shared::fault::Fault;

use super::App;
use crate::catalog::Forgotten;

/// Transactions of one pass: 20,000 runs. The next pass follows at once when that was not all.
const MAX_BATCHES: usize = 40;

/// Forgets what is older than the settings say. Answers whether there may be more.
pub async fn forget_runs(app: &App) -> Result<(Forgotten, bool), Fault> {
    let mut forgotten = Forgotten::default();
    for _ in 0..MAX_BATCHES {
        let some = app.catalog.forget_runs(app.settings.keep_runs()).await?;
        forgotten.looked_at += some.looked_at;
        forgotten.runs += some.runs;
        forgotten.steps += some.steps;
        if some.looked_at == 0 {
            return Ok((forgotten, false));
        }
    }
    Ok((forgotten, true))
}
