//! That this coordinator is being drained: begun once, for one reason, and never taken back. What follows from it is for those who ask.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// How far the draining of this process is. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Draining {
    begun: CancellationToken,
    closing: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl Draining {
    /// Nothing new is taken on from now; only the first reason counts.
    pub fn begin(&self, why: &str) {
        if self.why.set(why.to_owned()).is_ok() {
            tracing::info!(why, "draining: nothing new is taken on");
        }
        self.begun.cancel();
    }

    /// Whether it has begun.
    pub fn is_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Why it has; `None` before.
    pub fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// Cancelled when it begins.
    pub fn begun(&self) -> &CancellationToken {
        &self.begun
    }

    /// The listeners close from now; calls under way go on.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Cancelled when the listeners are to close.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}
