//! Reconcilers: each brings the world a step nearer to what the catalog says. They take no input, are idempotent and bounded per
//! pass, and are started by a timer and by a nudge alike, so that the happy path and the recovery are one path. Any number of
//! coordinators may run them on one catalog.

pub mod bootstrap_importer;
pub mod canceller;
pub mod certificate_renewer;
pub mod database_keeper;
pub mod dispatcher;
pub mod full_planner;
pub mod housekeeper;
pub mod ingester;
pub mod job_keeper;
pub mod lease_reaper;
pub mod scheduler;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coord_shared::fault::Fault;
use coord_shared::lifecycle::Lifecycle;
use tokio::sync::Notify;

/// Longest pause after passes that failed, so that a database that comes back is noticed soon.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Whether a pass did all there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Nothing is left until something changes.
    Settled,
    /// The bound was reached: go on at once.
    More,
}

/// When a reconciler runs.
#[derive(Debug, Clone)]
pub struct Rhythm {
    /// For logs.
    pub name: &'static str,
    /// At the latest this long after the last pass.
    pub every: Duration,
    /// And at once when notified.
    pub nudge: Arc<Notify>,
}

/// Runs `pass` in its rhythm until the process ends. A failing pass is reported once, not at every repetition.
pub fn start<F, R>(life: &Lifecycle, rhythm: Rhythm, pass: F)
where
    F: Fn() -> R + Send + 'static,
    R: Future<Output = Result<Pass, Fault>> + Send + 'static,
{
    let ending = life.ending().clone();
    life.spawn(rhythm.name, async move {
        let mut failures = 0_u32;
        loop {
            let outcome = tokio::select! {
                outcome = pass() => outcome,
                () = ending.cancelled() => return,
            };
            let pause = match outcome {
                Ok(done) => {
                    if failures > 0 {
                        tracing::info!(task = rhythm.name, failures, "works again");
                        failures = 0;
                    }
                    if done == Pass::More { Duration::ZERO } else { rhythm.every }
                }
                Err(fault) => {
                    if failures == 0 {
                        tracing::warn!(task = rhythm.name, code = %fault.code, why = %fault.message, "failed, will be repeated");
                    }
                    failures = failures.saturating_add(1);
                    rhythm.every.saturating_mul(failures.min(8)).min(MAX_PAUSE)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = rhythm.nudge.notified() => {}
                () = ending.cancelled() => return,
            }
        }
    });
}
