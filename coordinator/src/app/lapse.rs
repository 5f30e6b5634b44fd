//! Ends runs whose time is over: what did not begin when it had to is missed, what takes longer than it may is cancelled, each with
//! the reason.

use coord_shared::fault::Fault;
use coord_shared::run::RunState;

use super::{App, cancel_run};

/// Runs ended in one pass, of each kind.
const MAX_LAPSED: u32 = 100;

/// One pass. Answers whether more is waiting.
///
/// # Errors
/// Those of the catalog.
pub async fn end_lapsed_runs(app: &App) -> Result<bool, Fault> {
    let found = app.catalog.lapsed_runs(MAX_LAPSED).await?;
    for id in &found {
        let Some(lapsed) = app.catalog.end_lapsed(*id).await? else { continue };
        tracing::warn!(run = %lapsed.run, state = %lapsed.state, why = %lapsed.why, "its time is over");
        if RunState::HELD.contains(&lapsed.state)
            && let Some(run) = app.catalog.run(lapsed.run).await?
        {
            cancel_run::tell_host(app, &run, &lapsed.why);
        }
    }
    Ok(found.len() >= MAX_LAPSED as usize)
}
