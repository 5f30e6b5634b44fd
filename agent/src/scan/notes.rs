//! What a scan has to tell besides entries: warnings, what was left out and why, and counts. Bounded lists, exact counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most warnings, and most left-out names, that are listed; the counts go on.
pub const MAX_LISTED: usize = 1000;

/// A name that could not be read as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The name, relative to the root.
    pub path: Vec<u8>,
    /// What happened, as a lowercase fragment.
    pub reason: String,
}

/// Why a name that no pattern excludes is not in the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// A file system of the kernel's own; the folder itself is recorded.
    KernelFileSystem,
    /// The agent's own state, journal or archives.
    Own,
    /// A socket.
    Socket,
}

impl LeftOut {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KernelFileSystem => "kernel file system",
            Self::Own => "the agent's own files",
            Self::Socket => "socket",
        }
    }
}

/// What one exclude pattern left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    /// The pattern.
    pub pattern: String,
    /// Names left out; a folder counts once, it is not looked into.
    pub names: u64,
    /// Bytes of the regular files among them.
    pub bytes: u64,
}

/// Everything a scan has to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The first [`MAX_LISTED`] warnings.
    pub warnings: Vec<Warning>,
    /// How many there were.
    pub warning_count: u64,
    /// The first [`MAX_LISTED`] names left out for a reason other than a pattern.
    pub left_out: Vec<(Vec<u8>, LeftOut)>,
    /// How many there were.
    pub left_out_count: u64,
    /// By pattern, in their order.
    pub rules: Vec<RuleCount>,
    /// Names that were gone between listing and looking.
    pub vanished: u64,
    /// Regular files seen.
    pub source_files: u64,
    /// Their bytes, each inode once for each of its names.
    pub source_bytes: u64,
    /// Names seen, of any kind.
    pub source_entries: u64,
    /// Mount points of the newest backup that are plain folders now: what was below keeps its state.
    pub lost_mounts: Vec<Vec<u8>>,
}

impl Notes {
    /// Adds a warning.
    pub fn warn(&mut self, path: &[u8], reason: impl Into<String>) {
        self.warning_count += 1;
        if self.warnings.len() < MAX_LISTED {
            self.warnings.push(Warning { path: path.to_vec(), reason: reason.into() });
        }
    }

    /// Adds a name that is left out.
    pub fn leave_out(&mut self, path: &[u8], why: LeftOut) {
        self.left_out_count += 1;
        if self.left_out.len() < MAX_LISTED {
            self.left_out.push((path.to_vec(), why));
        }
    }
}

/// Notes that the scan goes on writing while somebody else holds its steps.
#[derive(Clone, Debug, Default)]
pub struct SharedNotes(Arc<Mutex<Notes>>);

impl SharedNotes {
    /// Notes for a selection with these patterns.
    #[must_use]
    pub fn new(patterns: &[String]) -> Self {
        let rules = patterns.iter().map(|pattern| RuleCount { pattern: pattern.clone(), names: 0, bytes: 0 }).collect();
        Self(Arc::new(Mutex::new(Notes { rules, ..Notes::default() })))
    }

    /// The notes, to write to.
    pub fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The notes so far.
    #[must_use]
    pub fn snapshot(&self) -> Notes {
        self.lock().clone()
    }
}
