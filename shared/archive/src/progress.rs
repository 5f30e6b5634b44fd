//! How long work tells what it has done and learns that it should stop.
//!
//! One trait for packing, verifying and unpacking. Calls come from several threads; an implementation must not block.

use std::ops::ControlFlow;

/// What was done since the last call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advance<'a> {
    /// Names dealt with.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of content read (packing) or decoded (verifying, unpacking).
    pub bytes: u64,
    /// Bytes written to, or read from, the archive.
    pub stored_bytes: u64,
    /// A path being worked on, for display only. May be empty.
    pub path: &'a [u8],
}

/// Receives progress and may ask for an early end.
pub trait Progress: Sync {
    /// Adds `step` to what was done so far. [`ControlFlow::Break`] asks the work to stop; it ends with an error that says
    /// "cancelled" and leaves nothing that looks complete.
    fn advance(&self, step: Advance<'_>) -> ControlFlow<()>;
}

/// Nobody is watching.
impl Progress for () {
    fn advance(&self, _step: Advance<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
