//! Safe unpacking: a full and at most one differential become a tree below one open folder.
//!
//! Owns that nothing outside the target is touched, whatever an archive or somebody else in the target does: every name is
//! reached through folders opened beneath the target without following a symbolic link, and nothing appears under its own
//! name before its content's digest was right. What an archive says is read by `reader` and merged by `overlay`.
//!
//! Four passes over the overlaid index, each in constant memory but for one byte an entry: write files and folders, then
//! hard links, then remove what is extra, then set folders' attributes and inode flags, deepest first.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::header::{Mount, escape};
use crate::overlay::Origin;
use crate::progress::Progress;
use crate::reader::{ArchiveReader, ReadError};

mod attributes;
mod content;
mod context;
mod existing;
mod extra;
mod finish;
mod folders;
mod journal;
mod links;
mod place;
mod report;
mod selection;
mod stream;
mod tree;
mod workers;

pub use report::{Counts, Listing, MAX_LISTED, Note, UnpackReport};
pub use selection::{PatternError, Selection};

use context::Context;

/// What to do with a name that exists and is not as in the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Leave it and report it.
    #[default]
    Never,
    /// Replace it.
    IfChanged,
    /// Replace it when its modification time is before the backup's; else leave it and report it.
    IfNewer,
    /// Replace everything, without looking whether it differs.
    Always,
}

/// Whether the backup's selection covers a path, so that its absence from the backup means that it was not there.
pub type Covers<'a> = &'a (dyn Fn(&[u8]) -> bool + Sync);

/// Whether the recorded mount is what is mounted on the open folder now.
pub type IsMounted<'a> = &'a (dyn Fn(&Mount, BorrowedFd<'_>) -> bool + Sync);

/// How to unpack.
#[derive(Clone)]
pub struct UnpackOptions<'a> {
    /// What to restore.
    pub selection: Selection,
    /// What to do with names that exist and differ. A folder in the way of something else is removed only when it is
    /// empty, or when `delete_extra` covers everything in it.
    pub overwrite: Overwrite,
    /// Removes names below selected folders that the backup does not have, this covers and the selection's patterns take.
    /// Nothing is removed at or below a stale or unread entry, below a mount point that is not recognised, below something that
    /// is not covered, or what the rules in the archive's header would leave out of a backup now.
    pub delete_extra: Option<Covers<'a>>,
    /// Recognises the mounts that the backup recorded; without it, what is below any mount point is spared.
    pub is_mounted: Option<IsMounted<'a>>,
    /// Threads that decode and write; 0 means one for each core.
    pub threads: usize,
}

impl Default for UnpackOptions<'_> {
    fn default() -> Self {
        Self {
            selection: Selection::everything(),
            overwrite: Overwrite::Never,
            delete_extra: None,
            is_mounted: None,
            threads: 0,
        }
    }
}

/// Why a restore ended early. Everything that concerns one name only is in the report instead.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The differential stands on another full.
    #[error("the differential does not belong to this full: it needs {needed}, given {given}")]
    WrongBase {
        /// What the differential's header names.
        needed: String,
        /// What was given.
        given: String,
    },
    /// The archive given as a full is a differential, or the other way round.
    #[error("the archive given as the {0:?} is none")]
    WrongLevel(Origin),
    /// None of the selected paths is in the backup.
    #[error("nothing to restore: {} is not in the backup", escape(path))]
    NothingThere {
        /// The first selected path.
        path: Vec<u8>,
    },
    /// An archive cannot be read.
    #[error("cannot read the {origin:?} archive")]
    Archive {
        /// Which of the two.
        origin: Origin,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// An index that no writer of ours makes.
    #[error("the index is wrong at {}: {what}", escape(path))]
    Index {
        /// Where.
        path: Vec<u8>,
        /// Which rule is broken.
        what: &'static str,
    },
    /// The target does not take any more: it is full, read-only, or its device fails.
    #[error("cannot write {}", escape(path))]
    Target {
        /// The name being restored, relative to the target.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The progress receiver asked to stop. What is in place is whole; unpacking again goes on.
    #[error("unpacking was cancelled")]
    Cancelled,
}

/// Restores the state of `full`, overlaid by `differential`, into the open folder `target`.
///
/// A name that is there and equal is left. A rerun after any interruption ends in the same tree. When this returns,
/// everything restored has been synced to disk. Not restored at all: access times, and what the report lists.
pub fn unpack(
    full: &ArchiveReader,
    differential: Option<&ArchiveReader>,
    target: OwnedFd,
    options: &UnpackOptions<'_>,
    progress: &dyn Progress,
) -> Result<UnpackReport, UnpackError> {
    let point = stream::Point::new(full, differential)?;
    let mut options = options.clone();
    let missing = point.drop_missing(&mut options.selection)?;
    let context = Context::new(point, target, &options, progress)?;
    missing.into_iter().for_each(|path| context.report.not_found(path));
    match run(&context) {
        Ok(()) => Ok(context.into_report()),
        Err(error) => {
            context.journal.abandon(&context.tree);
            Err(error)
        }
    }
}

fn run(context: &Context<'_>) -> Result<(), UnpackError> {
    let deferred_links = workers::write_all(context)?;
    if deferred_links {
        links::write_all(context)?;
    }
    if context.options.delete_extra.is_some() {
        extra::remove_all(context)?;
    }
    finish::finish(context)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod hostile;
