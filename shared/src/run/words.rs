//! The words for kinds and states of runs, as SQL, wire and screen write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::api;

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// Makes a restore point.
    Backup,
    /// Reads archives back and checks every digest.
    Verify,
    /// Brings files back.
    Restore,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waits for its time and for its host.
    Queued,
    /// Given to the host's session, which has not reported yet.
    Leased,
    /// The host works on it.
    Running,
    /// The archive is durable and is being read back.
    Verifying,
    /// Done and committed.
    Succeeded,
    /// Every attempt failed, or one failed for good.
    Failed,
    /// An operator ended it.
    Cancelled,
    /// It could not start when it was due.
    Missed,
}

/// A text is no word of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no {what}: {known}")]
pub struct UnknownWord {
    /// What was expected.
    pub what: &'static str,
    /// What was given, escaped.
    pub text: String,
    /// The words there are.
    pub known: String,
}

fn find<T: Copy>(
    what: &'static str,
    text: &str,
    all: &[T],
    word: impl Fn(T) -> &'static str,
) -> Result<T, UnknownWord> {
    all.iter().copied().find(|value| word(*value) == text).ok_or_else(|| UnknownWord {
        what,
        text: text.chars().take(40).collect::<String>().escape_debug().to_string(),
        known: all.iter().map(|value| word(*value)).collect::<Vec<_>>().join(", "),
    })
}

impl RunKind {
    /// Every kind, for CHECK lists and tables.
    pub const ALL: [RunKind; 3] = [RunKind::Backup, RunKind::Verify, RunKind::Restore];

    /// The word used in SQL, labels and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            RunKind::Backup => "backup",
            RunKind::Verify => "verify",
            RunKind::Restore => "restore",
        }
    }

    /// How many attempts a run of this kind may have.
    pub const fn max_attempts(self) -> u32 {
        match self {
            RunKind::Backup | RunKind::Verify | RunKind::Restore => 3,
        }
    }

    /// The kind on the wire.
    pub const fn to_api(self) -> api::RunKind {
        match self {
            RunKind::Backup => api::RunKind::Backup,
            RunKind::Verify => api::RunKind::Verify,
            RunKind::Restore => api::RunKind::Restore,
        }
    }

    /// The kind that a message names; `None` when it names none.
    pub const fn from_api(kind: api::RunKind) -> Option<Self> {
        match kind {
            api::RunKind::Unspecified => None,
            api::RunKind::Backup => Some(RunKind::Backup),
            api::RunKind::Verify => Some(RunKind::Verify),
            api::RunKind::Restore => Some(RunKind::Restore),
        }
    }
}

impl RunState {
    /// Every state, in the order of a run's life.
    pub const ALL: [RunState; 8] = [
        RunState::Queued,
        RunState::Leased,
        RunState::Running,
        RunState::Verifying,
        RunState::Succeeded,
        RunState::Failed,
        RunState::Cancelled,
        RunState::Missed,
    ];

    /// The states of a run that has not ended: at most one backup run of a job is in one of them.
    pub const OPEN: [RunState; 4] = [RunState::Queued, RunState::Leased, RunState::Running, RunState::Verifying];

    /// The states of a run that a host holds a lease on.
    pub const HELD: [RunState; 3] = [RunState::Leased, RunState::Running, RunState::Verifying];

    /// The word used in SQL, labels and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            RunState::Queued => "queued",
            RunState::Leased => "leased",
            RunState::Running => "running",
            RunState::Verifying => "verifying",
            RunState::Succeeded => "succeeded",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
            RunState::Missed => "missed",
        }
    }

    /// Whether it has not ended.
    pub const fn is_open(self) -> bool {
        match self {
            RunState::Queued | RunState::Leased | RunState::Running | RunState::Verifying => true,
            RunState::Succeeded | RunState::Failed | RunState::Cancelled | RunState::Missed => false,
        }
    }

    /// The state on the wire.
    pub const fn to_api(self) -> api::RunState {
        match self {
            RunState::Queued => api::RunState::Queued,
            RunState::Leased => api::RunState::Leased,
            RunState::Running => api::RunState::Running,
            RunState::Verifying => api::RunState::Verifying,
            RunState::Succeeded => api::RunState::Succeeded,
            RunState::Failed => api::RunState::Failed,
            RunState::Cancelled => api::RunState::Cancelled,
            RunState::Missed => api::RunState::Missed,
        }
    }

    /// The state that a message names; `None` when it names none.
    pub const fn from_api(state: api::RunState) -> Option<Self> {
        match state {
            api::RunState::Unspecified => None,
            api::RunState::Queued => Some(RunState::Queued),
            api::RunState::Leased => Some(RunState::Leased),
            api::RunState::Running => Some(RunState::Running),
            api::RunState::Verifying => Some(RunState::Verifying),
            api::RunState::Succeeded => Some(RunState::Succeeded),
            api::RunState::Failed => Some(RunState::Failed),
            api::RunState::Cancelled => Some(RunState::Cancelled),
            api::RunState::Missed => Some(RunState::Missed),
        }
    }
}

impl FromStr for RunKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        find("kind of run", text, &RunKind::ALL, RunKind::as_str)
    }
}

impl FromStr for RunState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        find("state of a run", text, &RunState::ALL, RunState::as_str)
    }
}

impl fmt::Display for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
