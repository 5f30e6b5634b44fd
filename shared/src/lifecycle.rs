//! The life of a process: every task it starts is tracked and hears when it is time to end. Nothing is detached.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Starts tasks and ends them. Clones share one life.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    ending: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// A life in which nothing has started.
    pub fn new() -> Lifecycle {
        Lifecycle::default()
    }

    /// Starts a tracked task. It must end soon after [`Lifecycle::ending`] is cancelled.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tasks.spawn(task.instrument(tracing::debug_span!("task", name))));
    }

    /// Cancelled when the process is to end.
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Asks everything to end.
    pub fn end(&self) {
        self.ending.cancel();
    }

    /// Asks everything to end and waits; `false` when some task was still running after `patience`.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.end();
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }

    /// Waits for SIGTERM or SIGINT, or for somebody else to end this life.
    pub async fn until_signal(&self) -> std::io::Result<()> {
        let mut signals = Signals::listen()?;
        tokio::select! {
            () = signals.next() => {}
            () = self.ending.cancelled() => {}
        }
        self.end();
        Ok(())
    }
}

/// The signals that ask a process to end. While this lives they do not end it by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Comes back with the next of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("asked to end by SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("asked to end by SIGINT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_listens_ends_with_the_process() {
        let life = Lifecycle::new();
        let ending = life.ending().clone();
        life.spawn("listener", async move { ending.cancelled().await });
        assert!(life.finish(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_task_that_does_not_listen_is_told_of() {
        let life = Lifecycle::new();
        life.spawn("deaf", std::future::pending());
        assert!(!life.finish(Duration::from_millis(10)).await);
    }
}
