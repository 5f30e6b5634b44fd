//! Forgetting what nobody needs any more: certificates that ended long ago, promises of runs that are past.

use coord_shared::fault::Fault;

use super::App;

/// One pass.
pub async fn tidy_up(app: &App) -> Result<(), Fault> {
    let certificates = app.catalog.forget_old_certificates().await?;
    let plans = app.catalog.forget_old_plans().await?;
    if certificates + plans > 0 {
        tracing::info!(certificates, plans, "forgotten");
    }
    Ok(())
}

/// Whether the database answers now.
pub async fn database_answers(app: &App) -> bool {
    app.catalog.now().await.is_ok()
}
