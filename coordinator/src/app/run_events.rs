//! What happened to a run, step by step.

use coord_shared::api;
use coord_shared::fault::Fault;
use coord_shared::wire::to_us;

use super::{App, runs};
use crate::catalog::RunEvent;

/// The events of a run, oldest first, and the run.
///
/// # Errors
/// `not_found`, or `ambiguous` with the candidates.
pub async fn list(app: &App, text: &str) -> Result<api::RunEventList, Fault> {
    // The run first: an end that it shows has its event.
    let run = runs::show(app, text).await?;
    let events = app.catalog.run_events(runs::find(app, &run.id).await?.id).await?;
    Ok(api::RunEventList { events: events.iter().map(encode).collect(), run: Some(run) })
}

fn encode(event: &RunEvent) -> api::RunEvent {
    api::RunEvent {
        number: event.number,
        at_us: to_us(event.at),
        attempt: event.attempt.get(),
        kind: event.kind.as_str().to_owned(),
        detail: event.detail.clone(),
    }
}
