//! Leaving without a gap. A coordinator that is drained claims and schedules nothing more, finishes the orders it was giving, sends its
//! agents to the others, and lets the calls under way come to their end. Runs know nothing of it: an attempt lives in the catalog and at
//! its host, and the next coordinator's answer to Hello goes on with it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::HostId;

use super::{App, reap};

/// Agents are sent away at this pace, so that a fleet does not knock elsewhere at one moment.
const PER_SESSION: Duration = Duration::from_millis(2);
/// Sending all of them away takes no longer than this, however many there are.
const MAX_SPREAD: Duration = Duration::from_secs(8);
/// Longest wait for orders that are being given, and for files on their way from agents to operators.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for calls under way once the listeners are closed.
pub const CALLS_PATIENCE: Duration = Duration::from_secs(10);
/// Where probes look at this coordinator, its listeners stay open for at least this long: a balancer in front sends nobody here any more once
/// it has seen that we are not ready.
const NOTICE: Duration = Duration::from_secs(3);
/// How often it is looked whether there is something left to wait for.
const LOOK: Duration = Duration::from_millis(20);
/// The duty that claims runs for agents.
pub const DISPATCHER: &str = "dispatcher";

/// What an agent is told that is sent to another coordinator, or that comes to one which is leaving.
fn leaving() -> Fault {
    Fault::new(ErrorCode::Unavailable, "this coordinator is leaving: another one takes over")
        .with_hint("nothing is lost: runs go on under the same attempt")
}

/// Refuses whoever would begin a session here while this coordinator is leaving.
///
/// # Errors
/// `unavailable` once it is.
pub fn refuse_newcomers(app: &App) -> Result<(), Fault> {
    if app.draining.is_begun() { Err(leaving()) } else { Ok(()) }
}

/// Drains: comes back when no agent is connected here any more and the listeners are to close, at the latest after the patience and the
/// spread above.
pub async fn drain(app: &App) {
    // The others, and operators, see it at once. A catalog that is away sees it with the next beat.
    match tokio::time::timeout(reap::TELL_PATIENCE, reap::beat(app)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => tracing::debug!("the catalog does not know of the draining yet"),
    }
    let began = Instant::now();
    // First the last claim, then the orders of all that was claimed.
    wait_until(began + PATIENCE, || !app.pulses.names().contains(&DISPATCHER) && app.unordered.is_empty()).await;
    let number = app.sessions.all().len();
    tracing::info!(sessions = number, "sending the agents to other coordinators");
    let pace = PER_SESSION.min(MAX_SPREAD / u32::try_from(number.max(1)).unwrap_or(u32::MAX));
    send_away(app, pace, &transferring(app)).await;
    wait_until(began + PATIENCE, || transferring(app).is_empty()).await;
    send_away(app, pace, &HashSet::new()).await;
    let left = wait_until(Instant::now() + PATIENCE, || app.sessions.all().is_empty()).await;
    if !left {
        tracing::warn!("some agents did not hang up");
    }
    if app.settings.health_listen.is_some() {
        wait_until(began + NOTICE, || false).await;
    }
    app.draining.close();
}

/// Ends every session but those of `kept`.
async fn send_away(app: &App, pace: Duration, kept: &HashSet<HostId>) {
    for session in app.sessions.all().into_iter().filter(|session| !kept.contains(&session.host)) {
        session.end(leaving());
        tokio::time::sleep(pace).await;
    }
}

/// Hosts that are sending something to an operator.
fn transferring(app: &App) -> HashSet<HostId> {
    app.relays.hosts().chain(app.previews.hosts()).collect()
}

/// Whether it came true in time.
async fn wait_until(deadline: Instant, is_true: impl Fn() -> bool) -> bool {
    while !is_true() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}
