//! Forgetting what nobody needs any more: certificates that ended long ago, promises of runs that are past,
//! blocks of indexes that have been taken in, runs that ended long ago.

use coord_shared::fault::Fault;

use super::{App, forget_runs};

/// One pass. Answers whether there may be more to forget.
pub async fn tidy_up(app: &App) -> Result<bool, Fault> {
    let certificates = app.catalog.forget_old_certificates().await?;
    let plans = app.catalog.forget_old_plans().await?;
    let staged = app.catalog.drop_staged_of_taken_in().await?;
    let (runs, more) = forget_runs::forget_runs(app).await?;
    if certificates + plans + staged + runs.runs + runs.steps > 0 {
        tracing::info!(certificates, plans, staged, runs = runs.runs, steps_of_runs = runs.steps, "forgotten");
    }
    Ok(more)
}

/// Whether the database answers now.
pub async fn database_answers(app: &App) -> bool {
    app.catalog.now().await.is_ok()
}
