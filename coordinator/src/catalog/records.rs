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

/// How a host that was cut off began a run by itself. Instants are microseconds by the host's clock, corrected by the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromPlanRecord {
    /// When it began.
    pub started_at_us: i64,
    /// When its last session had ended.
    pub cut_off_since_us: i64,
    /// When the plan was made.
    pub plan_made_at_us: i64,
    /// What was added to the host's clock, as measured in its last session.
    pub clock_offset_us: i64,
    /// The most that the run may take, as the plan said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration_s: Option<u32>,
}
