//! Saying that this coordinator lives, and taking back what its hosts lost. Nothing is taken back for one reconnect period after a
//! coordinator's start or an outage of the database, or every restart would look like a fleet of lost agents.

use std::time::Duration;

use coord_shared::fault::Fault;
use coord_shared::retry::Class;

use super::App;

/// How many the catalog takes back at once; as many more wait for the next pass.
const MAX_REAPED: usize = 100;
/// A pause of this length between two beats was an outage.
const OUTAGE: Duration = Duration::from_secs(20);

/// One pass. Answers whether more is waiting.
pub async fn reap(app: &App) -> Result<bool, Fault> {
    let grace = app.settings.lease();
    let endpoint = app.endpoints.main.first().map_or("", String::as_str);
    app.catalog.beat_coordinator(app.coordinator, endpoint, env!("CARGO_PKG_VERSION"), grace, OUTAGE).await?;
    let backoff = Class::Interrupted.rule().backoff;
    let reaped = app.catalog.reap_lapsed_runs(grace, backoff.first, backoff.most).await?;
    for lost in &reaped {
        tracing::warn!(run = %lost.run, attempt = %lost.attempt, state = %lost.state, "the host was not heard of: taken back");
    }
    if !reaped.is_empty() {
        app.nudges.dispatcher.notify_one();
    }
    Ok(reaped.len() >= MAX_REAPED)
}

/// Says goodbye, so that the others need not wait to see that this coordinator is gone.
pub async fn say_goodbye(app: &App) {
    if let Err(error) = app.catalog.forget_coordinator(app.coordinator).await {
        tracing::debug!(%error, "cannot say goodbye");
    }
}
