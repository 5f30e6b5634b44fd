//! Saying that this coordinator lives, hearing what is wanted of it, and taking back what its hosts lost. Nothing is taken back for one
//! reconnect period after a coordinator's start or an outage of the database, or every restart would look like a fleet of lost agents.

use std::time::Duration;

use coord_shared::fault::Fault;
use coord_shared::retry::Class;

use super::{App, coordinators};
use crate::catalog::{Beat, SCHEMA_VERSION};

/// How many the catalog takes back at once; as many more wait for the next pass.
const MAX_REAPED: usize = 100;
/// Longest wait for a catalog to hear that this coordinator is leaving: it would find out by itself.
pub const TELL_PATIENCE: Duration = Duration::from_secs(2);
/// A pause of this length between two beats was an outage.
const OUTAGE: Duration = Duration::from_secs(20);

/// One pass. Answers whether more is waiting.
pub async fn reap(app: &App) -> Result<bool, Fault> {
    beat(app).await?;
    coordinators::look_around(app).await?;
    if app.draining.is_begun() {
        return Ok(false);
    }
    let backoff = Class::Interrupted.rule().backoff;
    let reaped = app.duties.reap_lapsed_runs(app.settings.lease(), backoff.first, backoff.most).await?;
    for lost in &reaped {
        tracing::warn!(run = %lost.run, attempt = %lost.attempt, state = %lost.state, "the host was not heard of: taken back");
    }
    if !reaped.is_empty() {
        coord_shared::failpoint::reach("coordinator.reap.done");
        app.nudges.dispatcher.notify_one();
    }
    Ok(reaped.len() >= MAX_REAPED)
}

/// Tells the catalog how this coordinator is, and acts on what it answers.
///
/// # Errors
/// Those of the catalog.
pub async fn beat(app: &App) -> Result<(), Fault> {
    let duties = app.pulses.ages_ms();
    let beat = Beat {
        id: app.coordinator,
        endpoints: &app.endpoints.main,
        enrol_endpoints: &app.endpoints.enrolment,
        version: env!("CARGO_PKG_VERSION"),
        sessions: u32::try_from(app.sessions.all().len()).unwrap_or(u32::MAX),
        duties: &duties,
        draining: app.draining.is_begun(),
    };
    let heard = app.duties.beat_coordinator(beat, app.settings.lease(), OUTAGE).await?;
    if heard.compatible_from > SCHEMA_VERSION {
        app.draining.begin(&format!(
            "the catalog's schema asks for programs of version {} or later, and this one is of {SCHEMA_VERSION}: install a newer coordinator",
            heard.compatible_from
        ));
    } else if let Some(user) = heard.drain_asked_by {
        app.draining.begin(&format!("{user} asked for it"));
    }
    Ok(())
}

/// Says goodbye, so that the others need not wait to see that this coordinator is gone.
pub async fn say_goodbye(app: &App) {
    match tokio::time::timeout(TELL_PATIENCE, app.catalog.forget_coordinator(app.coordinator)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "cannot say goodbye"),
        Err(_) => tracing::debug!("cannot say goodbye: the catalog does not answer"),
    }
}
