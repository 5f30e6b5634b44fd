//! Reconcilers: each brings the world a step nearer to what the catalog says. They take no input, are idempotent and bounded per
//! pass, and are started by a timer and by a nudge alike, so that the happy path and the recovery are one path. Any number of
//! coordinators may run them on one catalog.

pub mod bootstrap_importer;
pub mod canceller;
pub mod certificate_renewer;
pub mod database_keeper;
pub mod dispatcher;
pub mod full_planner;
pub mod heartbeats;
pub mod housekeeper;
pub mod ingester;
pub mod job_keeper;
pub mod lease_reaper;
pub mod order_giver;
pub mod plan_sender;
pub mod scheduler;
pub mod session_judge;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coord_shared::fault::Fault;
use coord_shared::lifecycle::Lifecycle;
use tokio::sync::Notify;

use crate::app::App;

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

/// Longest pass of a reconciler whose statements have the usual bound of a minute; beyond that it hangs.
const LONGEST_PASS: Duration = Duration::from_secs(180);

/// When a reconciler runs.
#[derive(Debug, Clone)]
pub struct Rhythm {
    /// For logs and checks.
    name: &'static str,
    /// At the latest this long after the last pass.
    every: Duration,
    /// And at once when notified.
    nudge: Arc<Notify>,
    /// A pass that takes longer hangs.
    longest_pass: Duration,
    /// Goes on while the coordinator is drained.
    in_drain: bool,
}

impl Rhythm {
    /// A pass at the latest `every` so often, given up when the coordinator is drained.
    pub fn new(name: &'static str, every: Duration) -> Rhythm {
        Rhythm { name, every, nudge: Arc::default(), longest_pass: LONGEST_PASS, in_drain: false }
    }

    /// Begins a pass at once when notified.
    #[must_use]
    pub fn nudged_by(self, nudge: &Arc<Notify>) -> Rhythm {
        Rhythm { nudge: Arc::clone(nudge), ..self }
    }

    /// Passes that may take longer than others.
    #[must_use]
    pub fn with_passes_of(self, longest_pass: Duration) -> Rhythm {
        Rhythm { longest_pass, ..self }
    }

    /// What a coordinator needs until its last moment.
    #[must_use]
    pub fn until_the_end(self) -> Rhythm {
        Rhythm { in_drain: true, ..self }
    }

    /// The next turn comes within this time after the last.
    fn turns_within(&self) -> Duration {
        self.every.max(MAX_PAUSE) + self.longest_pass
    }
}

/// Runs `pass` in its rhythm until the process ends or is drained; a pass under way when draining begins is finished. A failing
/// pass is reported once, not at every repetition.
pub fn start<F, R>(app: &App, life: &Lifecycle, rhythm: Rhythm, pass: F)
where
    F: Fn() -> R + Send + 'static,
    R: Future<Output = Result<Pass, Fault>> + Send + 'static,
{
    let ending = life.ending().clone();
    let leaving = if rhythm.in_drain { ending.clone() } else { app.draining.begun().clone() };
    let pulses = app.pulses.clone();
    pulses.turn(rhythm.name, rhythm.turns_within());
    life.spawn(rhythm.name, async move {
        let mut failures = 0_u32;
        while !leaving.is_cancelled() {
            pulses.turn(rhythm.name, rhythm.turns_within());
            let outcome = tokio::select! {
                outcome = pass() => outcome,
                () = ending.cancelled() => break,
            };
            pulses.turn(rhythm.name, rhythm.turns_within());
            let pause = match outcome {
                Ok(done) => {
                    pulses.done(rhythm.name);
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
                () = ending.cancelled() => break,
                () = leaving.cancelled() => break,
            }
        }
        pulses.given_up(rhythm.name);
    });
}
