//! A run as it goes on, until it has ended. The catalog is looked at again and again: whichever coordinator moves the run, and
//! however often a watcher reconnects, the end is seen.

use std::time::Duration;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RunId;

use super::{App, runs};

/// How often a watched run is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// How long a database outage is waited out before the watcher is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is said to those who watch when this coordinator ends.
pub fn ending() -> Fault {
    Fault::new(ErrorCode::Unavailable, "this coordinator is going down").with_hint("try again: the run goes on")
}

/// Hands `see` the run now and whenever it has changed, and comes back when it has ended or nobody looks any more (`see` says no).
///
/// # Errors
/// `not_found` when the run is not there any more; `unavailable` when the database stays away.
pub async fn watch<S, F>(app: &App, id: RunId, see: S) -> Result<(), Fault>
where
    S: Fn(api::Run) -> F,
    F: Future<Output = bool>,
{
    let mut seen: Option<api::Run> = None;
    let mut away = Duration::ZERO;
    loop {
        match runs::by_id(app, id).await {
            Ok(run) => {
                away = Duration::ZERO;
                let ended = runs::has_ended(&run);
                if seen.as_ref() != Some(&run) {
                    seen = Some(run.clone());
                    if !see(run).await {
                        return Ok(());
                    }
                }
                if ended {
                    return Ok(());
                }
            }
            Err(fault) if fault.is_transient() && away < PATIENCE => away += LOOK,
            Err(fault) => return Err(fault),
        }
        tokio::time::sleep(LOOK).await;
    }
}
