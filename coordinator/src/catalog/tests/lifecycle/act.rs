//! What is asked of the catalog in a step, word for word, and what it answers.

use std::collections::BTreeSet;

use coord_shared::ids::{BackupId, HostId, RunId};
use coord_shared::level::Level;
use coord_shared::run::{Disposition, Run, RunKind, RunState};

use super::story::Saying;

/// Where a message comes from and what it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) host: usize,
    pub(super) session: u64,
    pub(super) run: RunId,
    pub(super) attempt: u32,
    pub(super) sequence: u64,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Ask { run: RunId, job: usize, kind: RunKind },
    AskOnce { run: RunId, job: usize, key: Option<u8>, level: Option<Level> },
    Promise { run: RunId, job: usize, instant: u8 },
    Due { run: RunId, job: usize, seen: Option<u8>, instant: u8, next: u8, missed: bool, together: bool },
    Claim { sessions: Vec<(usize, u64)> },
    Hold { message: Message, finished: bool },
    Beat { message: Message },
    Report { message: Message, saying: Saying },
    Commit { message: Message, backup: BackupId, ordinal: u64, same_as: Option<BackupId> },
    Keep { run: RunId, attempt: u32 },
    Cancel { run: RunId },
    Retry { run: RunId },
    Reap,
    Connect { host: usize, seen: u64 },
    Pass { half_hours: u8 },
}

/// What the catalog answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    New(RunId),
    Known(RunId),
    Open(RunId),
    Other(RunId),
    Promised(Option<RunId>),
    Scheduled(Vec<(RunId, RunState)>),
    Changed,
    Claimed(BTreeSet<(RunId, u32, HostId)>),
    Disposed(Disposition),
    /// Whether the session counts, and whether the run is held and to be cancelled.
    Beaten(bool, Option<bool>),
    Taken(Run),
    Repeated(Run),
    Refused,
    Committed(i64),
    AlreadyThere(i64),
    OtherBackup(BackupId),
    Updated(Run),
    Unchanged(Run),
    Hurried(bool),
    Reaped(BTreeSet<(RunId, u32, RunState)>),
    Opened(u64),
    NotFound,
    Occupied,
    Impossible,
    Passed,
}

impl Act {
    /// Requests that it takes: where a cut may be. More, while a connection does not know its statements yet.
    pub(super) const fn longest(&self) -> usize {
        match self {
            Act::Commit { .. } => 20,
            Act::Claim { .. } => 16,
            Act::AskOnce { .. } | Act::Due { .. } | Act::Hold { .. } | Act::Report { .. } => 14,
            Act::Beat { .. } | Act::Cancel { .. } => 8,
            Act::Ask { .. } | Act::Promise { .. } => 6,
            Act::Keep { .. } | Act::Retry { .. } | Act::Reap | Act::Connect { .. } => 2,
            Act::Pass { .. } => 1,
        }
    }
}
