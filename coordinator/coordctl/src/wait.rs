//! Waiting for a run: progress while it goes on, its result, and the exit code that follows from it.

use std::pin::Pin;
use std::time::{Duration, Instant};

use coord_shared::api::{self, GetRunRequest, RunState};
use coord_shared::exit::Exit;
use coord_shared::fault::Fault;
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::session::Session;
use crate::{json, shown};

/// Without a terminal, a line is printed this often even when the phase stays.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// Pause before a broken watch is taken up again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a coordinator may be away while somebody waits.
const AWAY_PATIENCE: Duration = Duration::from_secs(60);

/// How the time until the end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// To people, on standard error.
    Talk,
    /// To scripts: each change of the run is a line of JSON on standard output.
    Events,
}

/// Waits until the run has ended.
///
/// Ctrl-C and SIGTERM detach: the run goes on. A coordinator that is restarted meanwhile is waited for.
pub async fn until_end(
    session: &mut Session,
    run_id: &str,
    timeout: Option<Duration>,
    telling: Telling,
) -> Result<api::Run, Failure> {
    let mut stop = Stop::after(timeout);
    let mut display = Display::new(session, telling);
    let mut patience = Patience::default();
    loop {
        let watching = watch(session, run_id, &mut display, &mut patience);
        let ended = match stop.unless(watching).await {
            Ok(ended) => ended,
            Err(exit) => return Err(goes_on(session, &display, run_id, exit)),
        };
        match ended {
            Ok(Some(run)) => {
                display.clear();
                return Ok(run);
            }
            Ok(None) => {}
            Err(Failure::Fault(fault)) if fault.is_transient() && patience.lasts() => {
                if let Err(exit) = stop.unless(tokio::time::sleep(RETRY_PAUSE)).await {
                    return Err(goes_on(session, &display, run_id, exit));
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn goes_on(session: &Session, display: &Display, run_id: &str, exit: Exit) -> Failure {
    display.clear();
    session.out.talk(&format!("run continues: coordctl run watch {}", shown::short(run_id)));
    Failure::Ended(exit)
}

/// How long a coordinator that was there may be away.
#[derive(Debug, Default)]
pub struct Patience {
    away_since: Option<Instant>,
}

impl Patience {
    /// It has answered.
    pub fn renew(&mut self) {
        self.away_since = None;
    }

    /// It has not; whether to go on asking.
    pub fn lasts(&mut self) -> bool {
        self.away_since.get_or_insert_with(Instant::now).elapsed() < AWAY_PATIENCE
    }
}

/// What ends the waiting before the work is done. It lives as long as the waiting: a signal between two looks is not missed.
pub struct Stop {
    deadline: Option<Instant>,
    interrupted: Pin<Box<dyn Future<Output = ()>>>,
}

impl Stop {
    /// At a signal, or when this time is over.
    pub fn after(timeout: Option<Duration>) -> Self {
        Self { deadline: timeout.map(|timeout| Instant::now() + timeout), interrupted: Box::pin(interrupted()) }
    }

    /// The work's result, unless the signal (130) or the deadline (7) comes first. Then nothing may follow but the end.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Exit> {
        tokio::select! {
            done = work => Ok(done),
            () = passed(self.deadline) => Err(Exit::TimedOut),
            () = &mut self.interrupted => Err(Exit::Interrupted),
        }
    }
}

/// Ctrl-C, or the signal by which services and containers are ended.
async fn interrupted() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminated) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        },
        // Without a handler the signal ends the process, as it always does.
        Err(_) => {
            let _interrupted = tokio::signal::ctrl_c().await;
        }
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Follows one watch; `None` when it broke off before the end.
async fn watch(
    session: &mut Session,
    run_id: &str,
    display: &mut Display,
    patience: &mut Patience,
) -> Result<Option<api::Run>, Failure> {
    let mut stream = answer(session.client.watch_run(request(GetRunRequest { run: run_id.to_owned() })).await)?;
    while let Some(run) = stream.message().await.map_err(|status| Fault::from(&status))? {
        patience.renew();
        if has_ended(&run) {
            return Ok(Some(run));
        }
        display.show(session, &run)?;
    }
    Ok(None)
}

/// Whether a run has ended.
#[must_use]
pub fn has_ended(run: &api::Run) -> bool {
    match run.state() {
        RunState::Succeeded | RunState::Failed | RunState::Cancelled | RunState::Missed => true,
        RunState::Unspecified | RunState::Queued | RunState::Leased | RunState::Running | RunState::Verifying => false,
    }
}

/// The exit code of an ended run: its fault's, or 3 for one that left something to read.
#[must_use]
pub fn exit_of(run: &api::Run) -> Exit {
    let read_the_list =
        run.restore.as_ref().is_some_and(|r| r.left_different > 0 || r.not_settable > 0 || r.stale > 0 || r.unread > 0);
    let damaged = run.restore.as_ref().is_some_and(|r| r.damaged > 0);
    match run.state() {
        RunState::Succeeded if damaged => Exit::Damaged,
        RunState::Succeeded if read_the_list || run.warnings_total > 0 => Exit::Warnings,
        RunState::Succeeded => Exit::Done,
        RunState::Failed | RunState::Cancelled | RunState::Missed => {
            if damaged {
                Exit::Damaged
            } else {
                run.fault.as_ref().map_or(Exit::Failed, |fault| Fault::from_api(fault).exit())
            }
        }
        RunState::Unspecified | RunState::Queued | RunState::Leased | RunState::Running | RunState::Verifying => {
            Exit::Failed
        }
    }
}

/// Prints a run's fault, and ends with its exit code unless all is well.
pub fn conclude(session: &Session, run: &api::Run) -> Result<(), Failure> {
    let exit = exit_of(run);
    if let Some(fault) = &run.fault
        && run.state() != RunState::Succeeded
    {
        Failure::Fault(Fault::from_api(fault)).report(&session.out);
    }
    if exit == Exit::Warnings {
        session.out.talk(&format!("hint: coordctl run warnings {}", shown::short(&run.id)));
    }
    if exit == Exit::Done { Ok(()) } else { Err(Failure::Ended(exit)) }
}

/// Progress while a run goes on.
struct Display {
    telling: Telling,
    bar: Option<ProgressBar>,
    phase: String,
    printed: Instant,
}

impl Display {
    fn new(session: &Session, telling: Telling) -> Self {
        let style = ProgressStyle::with_template(
            "{msg:<28} {bar:24} {percent:>3}% {bytes:>10} {binary_bytes_per_sec:>12} ETA {eta}",
        );
        let bar = match style {
            Ok(style) if telling == Telling::Talk && session.out.can_redraw() => {
                Some(ProgressBar::new(0).with_style(style))
            }
            Ok(_) | Err(_) => None,
        };
        Self { telling, bar, phase: String::new(), printed: Instant::now() }
    }

    fn show(&mut self, session: &Session, run: &api::Run) -> Result<(), Failure> {
        if self.telling == Telling::Events {
            return session.out.event("progress", "document", &session.out.chosen(&json::run(run))?);
        }
        let progress = run.progress.unwrap_or_default();
        let phase =
            Some(shown::phase(progress.phase)).filter(|phase| !phase.is_empty()).unwrap_or(shown::state(run.state));
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} {phase}", shown::kind(run.kind)));
            bar.set_length(progress.bytes_total.max(progress.bytes_done));
            bar.set_position(progress.bytes_done);
        } else if phase != self.phase || self.printed.elapsed() >= LINE_EVERY {
            let line = format!(
                "{} {}: {phase}, {} done",
                shown::kind(run.kind),
                shown::short(&run.id),
                shown::size(progress.bytes_done)
            );
            session.out.talk(&line);
            self.printed = Instant::now();
        }
        self.phase = phase;
        Ok(())
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::exit_of;
    use coord_shared::api::{Fault, RestoreResult, Run, RunState};
    use coord_shared::exit::Exit;

    fn run(state: RunState) -> Run {
        Run { state: state.into(), ..Run::default() }
    }

    #[test]
    fn the_exit_code_follows_from_the_result() {
        assert_eq!(exit_of(&run(RunState::Succeeded)), Exit::Done);
        assert_eq!(exit_of(&Run { warnings_total: 1, ..run(RunState::Succeeded) }), Exit::Warnings);
        let restore = |r| Run { restore: Some(r), ..run(RunState::Succeeded) };
        assert_eq!(exit_of(&restore(RestoreResult { left_different: 1, ..RestoreResult::default() })), Exit::Warnings);
        assert_eq!(exit_of(&restore(RestoreResult { damaged: 1, ..RestoreResult::default() })), Exit::Damaged);
        let fault = Fault { code: "archive_missing".into(), ..Fault::default() };
        assert_eq!(exit_of(&Run { fault: Some(fault), ..run(RunState::Failed) }), Exit::NotFound);
        assert_eq!(exit_of(&run(RunState::Cancelled)), Exit::Failed);
    }
}
