//! What a restore did and, name by name, what it could not do.
//!
//! Lists are bounded, their totals go on. Paths are bytes; whoever prints them escapes them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most names that each list of a report holds.
pub const MAX_LISTED: usize = 1000;

/// A name and what there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Relative to the target.
    pub path: Vec<u8>,
    /// A lowercase fragment without control characters.
    pub why: String,
}

/// The first [`MAX_LISTED`] names of a kind, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// How many there were.
    pub total: u64,
    /// The first of them.
    pub listed: Vec<Note>,
}

impl Listing {
    fn push(&mut self, path: &[u8], why: impl FnOnce() -> String) {
        self.total += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(Note { path: path.to_vec(), why: why() });
        }
    }

    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

/// Numbers of a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files written, each with its digest checked.
    pub files: u64,
    /// Folders created.
    pub folders: u64,
    /// Symbolic links created.
    pub symlinks: u64,
    /// Named pipes and devices created.
    pub specials: u64,
    /// Names made as further hard links.
    pub links: u64,
    /// Names that were there and equal, content compared.
    pub equal: u64,
    /// Names that the backup does not have and that were removed.
    pub removed: u64,
    /// Names not looked at because a folder above them could not be used.
    pub below_blocked: u64,
    /// Bytes of content written, without holes.
    pub bytes: u64,
    /// Digests of contents that were computed and found right.
    pub digests_verified: u64,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnpackReport {
    /// Numbers.
    pub counts: Counts,
    /// Selected paths that the backup does not have.
    pub not_found: Listing,
    /// Names that exist, differ, and were left.
    pub different: Listing,
    /// Owners, modes, extended attributes, times and inode flags that could not be set.
    pub not_settable: Listing,
    /// Tops of subtrees that the backup could not read: restored as the base had them.
    pub stale: Listing,
    /// Entries without content, because the backup could not read them: not restored.
    pub unread: Listing,
    /// Files that changed while they were read; restored as stored.
    pub changed_while_read: Listing,
    /// Files whose content is damaged in the archive: not restored.
    pub damaged: Listing,
    /// Names that could not be restored or removed for another reason.
    pub failed: Listing,
}

impl UnpackReport {
    /// Whether everything selected is in the target exactly as in the index, and nothing has to be told.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.below_blocked == 0
            && [
                &self.not_found,
                &self.different,
                &self.not_settable,
                &self.stale,
                &self.unread,
                &self.changed_while_read,
                &self.damaged,
                &self.failed,
            ]
            .iter()
            .all(|listing| listing.is_empty())
    }
}

/// Collects a report from several threads.
#[derive(Debug, Default)]
pub(super) struct Collector(Mutex<UnpackReport>);

impl Collector {
    fn lock(&self) -> MutexGuard<'_, UnpackReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.lock().counts);
    }

    pub(super) fn not_found(&self, path: Vec<u8>) {
        self.lock().not_found.push(&path, || "not in the backup".to_owned());
    }

    pub(super) fn different(&self, path: &[u8], why: &'static str) {
        self.lock().different.push(path, || why.to_owned());
    }

    pub(super) fn not_settable(&self, path: &[u8], what: &str, error: rustix::io::Errno) {
        self.lock().not_settable.push(path, || format!("{what}: {error}"));
    }

    pub(super) fn stale(&self, path: &[u8]) {
        self.lock().stale.push(path, || "could not be read; this is its state at the full backup".to_owned());
    }

    pub(super) fn unread(&self, path: &[u8]) {
        self.lock().unread.push(path, || "could not be read by the backup".to_owned());
    }

    pub(super) fn changed_while_read(&self, path: &[u8]) {
        self.lock().changed_while_read.push(path, || "changed while the backup read it".to_owned());
    }

    pub(super) fn damaged(&self, path: &[u8], why: impl FnOnce() -> String) {
        self.lock().damaged.push(path, why);
    }

    pub(super) fn failed(&self, path: &[u8], what: &str, error: rustix::io::Errno) {
        self.lock().failed.push(path, || format!("{what}: {error}"));
    }

    pub(super) fn into_report(self) -> UnpackReport {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
