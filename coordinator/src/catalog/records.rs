//! Small records that the catalog keeps as JSON, and the words in them.

use serde::{Deserialize, Serialize};

/// Why something failed, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// Stable word: see `coord_shared::fault::ErrorCode`.
    pub code: String,
    /// The sentence.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

/// One check of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// exists, size, readable, digest, sample.
    pub name: String,
    /// PASS or FAIL.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

/// A path and what happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteRecord {
    /// The path's bytes.
    pub path: Vec<u8>,
    /// Stable word.
    pub kind: String,
    /// Free text.
    pub detail: String,
}

/// What an attempt is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseWord {
    /// Not said.
    Unspecified,
    /// Walking the sources.
    Scanning,
    /// Waiting for the level.
    Deciding,
    /// Reading and compressing.
    Packing,
    /// Making the archive durable.
    Sealing,
    /// Reading it back.
    Verifying,
    /// Writing files.
    Restoring,
    /// Sending results.
    Reporting,
}

/// Counters of a running attempt; what is unknown is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRecord {
    /// What it is doing.
    pub phase: PhaseWord,
    /// Files done.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}
