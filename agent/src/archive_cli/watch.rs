//! Progress on standard error, and the user's wish to stop.
//!
//! On a terminal one line that changes; elsewhere a line for each phase and one every thirty seconds.

use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_archive::progress::{Advance, Progress};
use coord_shared::exit::Exit;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Watches one piece of work.
#[derive(Debug)]
pub(super) struct Watch {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    stop: Arc<AtomicBool>,
    entries: AtomicU64,
    bytes: AtomicU64,
    stored_bytes: AtomicU64,
    said: Mutex<Instant>,
    began: Instant,
}

impl Watch {
    /// Begins; from now on an interrupt lets the work end in order instead of killing it.
    pub(super) fn begin(phase: &str, is_quiet: bool) -> Self {
        let stop = stop_on_signal();
        let bar = (!is_quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {msg}  {elapsed}") {
                bar.set_style(style);
            }
            bar.set_prefix(phase.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() && !is_quiet {
            eprintln!("{phase}");
        }
        let now = Instant::now();
        Self {
            bar,
            is_quiet,
            stop,
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            said: Mutex::new(now),
            began: now,
        }
    }

    /// Another phase of the same work.
    pub(super) fn phase(&self, phase: &str) {
        match &self.bar {
            Some(bar) => bar.set_prefix(phase.to_owned()),
            None if !self.is_quiet => eprintln!("{phase}"),
            None => {}
        }
        for counter in [&self.entries, &self.bytes, &self.stored_bytes] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Ends the line and says how it went.
    pub(super) fn finish(&self, summary: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.is_quiet {
            eprintln!("{summary}  ({:.1} s)", self.began.elapsed().as_secs_f64());
        }
    }

    fn line(&self) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bytes = read(&self.bytes);
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        // Precision beyond what a person reads is not needed.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "display"
        )]
        let rate = (bytes as f64 / seconds) as u64;
        format!(
            "{} names  {} read  {} stored  {}/s",
            HumanCount(read(&self.entries)),
            HumanBytes(bytes),
            HumanBytes(read(&self.stored_bytes)),
            HumanBytes(rate)
        )
    }
}

impl Progress for Watch {
    fn advance(&self, step: Advance<'_>) -> ControlFlow<()> {
        self.entries.fetch_add(step.entries, Ordering::Relaxed);
        self.bytes.fetch_add(step.bytes, Ordering::Relaxed);
        self.stored_bytes.fetch_add(step.stored_bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_message(self.line());
        } else if !self.is_quiet {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.elapsed() >= LINE_EVERY {
                *said = Instant::now();
                eprintln!("{}", self.line());
            }
        }
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A flag that SIGINT and SIGTERM raise. A second signal ends the process at once.
fn stop_on_signal() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    // Without it a signal ends the process at once, as it would anyway.
    if let Err(error) = listen(Arc::clone(&stop)) {
        tracing::debug!(%error, "signals are not listened to");
    }
    stop
}

/// Signals are listened to from the moment this returns.
fn listen(raise: Arc<AtomicBool>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            for is_second in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if is_second {
                    std::process::exit(i32::from(Exit::Interrupted.code()));
                }
                raise.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}
