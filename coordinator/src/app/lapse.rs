//! Ends runs whose time is over: what did not begin when it had to is missed, what takes longer than it may is cancelled, each with
//! the reason.

use coord_shared::fault::Fault;
use coord_shared::ids::RunId;
use coord_shared::run::RunState;

use super::jobs::leave_out;
use super::{App, cancel_run};

/// Runs ended in one pass, of each kind.
const MAX_LAPSED: u32 = 100;

/// One pass. A run that cannot be ended is left out, so that it stands in nobody's way. Answers whether more is waiting.
///
/// # Errors
/// Those of the catalog.
pub async fn end_lapsed_runs(app: &App) -> Result<bool, Fault> {
    let mut without: Vec<RunId> = Vec::new();
    loop {
        let found = app.duties.lapsed_runs(MAX_LAPSED, &without).await?;
        let full = found.len() >= MAX_LAPSED as usize;
        let mut passed_over = false;
        for id in found {
            if let Err(fault) = end(app, id).await {
                leave_out(app, &format!("run {id}"), fault)?;
                without.push(id);
                passed_over = true;
            }
        }
        // A page that holds some of these may hold nothing else: the next one is without them.
        if !full || !passed_over {
            return Ok(full);
        }
    }
}

async fn end(app: &App, id: RunId) -> Result<(), Fault> {
    let Some(lapsed) = app.duties.end_lapsed(id).await? else { return Ok(()) };
    tracing::warn!(run = %lapsed.run, state = %lapsed.state, why = %lapsed.why, "its time is over");
    if RunState::HELD.contains(&lapsed.state)
        && let Some(run) = app.duties.run(lapsed.run).await?
    {
        cancel_run::tell_host(app, &run, &lapsed.why);
    }
    Ok(())
}
