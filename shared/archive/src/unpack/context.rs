//! What all passes and threads of one restore share.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::Statx;
use rustix::io::Errno;

use super::journal::Journal;
use super::report::{Collector, UnpackReport};
use super::stream::{Point, Stream};
use super::tree::{InodeId, Tree, status_of};
use super::{UnpackError, UnpackOptions};
use crate::digest::Digest;
use crate::entry::{Entry, FileTime, Kind};
use crate::overlay::Placed;
use crate::progress::{Advance, Progress};

/// What happened to an entry, by its number.
pub(super) mod mark {
    /// A folder whose attributes are all to be set.
    pub(in crate::unpack) const APPLY: u8 = 1;
    /// A name in the folder was created, replaced or removed.
    pub(in crate::unpack) const CHANGED_INSIDE: u8 = 2;
    /// Its inode flags are to be set at the end.
    pub(in crate::unpack) const FLAGS: u8 = 4;
    /// This restore created the folder: nothing but what it restored is in it.
    pub(in crate::unpack) const CREATED: u8 = 8;
}

/// The name of a hard-link group that others are linked to.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) path: Vec<u8>,
    pub(super) id: InodeId,
    kind: Kind,
    digest: Option<Digest>,
    link_target: Vec<u8>,
}

impl Leader {
    /// Whether `entry` can be another name of the same thing; an index may say anything.
    pub(super) fn is_like(&self, entry: &Entry) -> bool {
        self.kind == entry.kind && self.digest == entry.digest && self.link_target == entry.link_target
    }
}

/// Identifies a hard-link group. A differential goes on with its full's numbers and gives higher ones to its own groups.
pub(super) type GroupKey = u64;

/// See the module.
pub(super) struct Context<'a> {
    pub(super) point: Point<'a>,
    pub(super) options: &'a UnpackOptions<'a>,
    pub(super) tree: Tree,
    pub(super) journal: Journal,
    pub(super) report: Collector,
    /// Only root can give files away; for everybody else owners are no difference.
    pub(super) owners_matter: bool,
    progress: &'a dyn Progress,
    root_was_empty: bool,
    marks: Mutex<Vec<u8>>,
    leaders: Mutex<HashMap<GroupKey, Leader>>,
    stopped: AtomicBool,
    bytes_written: AtomicU64,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        point: Point<'a>,
        target: OwnedFd,
        options: &'a UnpackOptions<'a>,
        progress: &'a dyn Progress,
    ) -> Result<Self, UnpackError> {
        let failed = |errno: Errno| UnpackError::Target { path: Vec::new(), source: errno.into() };
        let root_before = status_of(target.as_fd()).map_err(failed)?;
        let root_was_empty = is_empty(&target).map_err(failed)?;
        let tree = Tree::new(target);
        let journal = Journal::open(&tree, mtime_of(&root_before));
        Ok(Self {
            point,
            options,
            tree,
            journal,
            report: Collector::default(),
            owners_matter: rustix::process::geteuid().is_root(),
            progress,
            root_was_empty,
            marks: Mutex::default(),
            leaders: Mutex::default(),
            stopped: AtomicBool::new(false),
            bytes_written: AtomicU64::new(0),
        })
    }

    /// A pass over the selected entries.
    pub(super) fn stream(&'a self) -> Stream<'a> {
        Stream::new(self.point, self.options)
    }

    /// Whether the target was an empty folder, and so counts as created by this restore.
    pub(super) fn root_was_empty(&self) -> bool {
        self.root_was_empty || self.journal.was_unfinished(b"")
    }

    pub(super) fn mark(&self, number: usize, bits: u8) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() <= number {
            marks.resize(number + 1, 0);
        }
        marks[number] |= bits;
    }

    /// Says that names in the folder `path`, of this number, are about to change, so that its time is set again.
    pub(super) fn will_change(&self, number: usize, path: &[u8]) {
        if !self.is_marked(number, mark::CHANGED_INSIDE | mark::CREATED) {
            self.journal.note_change(path);
        }
        self.mark(number, mark::CHANGED_INSIDE);
    }

    pub(super) fn is_marked(&self, number: usize, bits: u8) -> bool {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(number).is_some_and(|mark| mark & bits != 0)
    }

    fn leaders(&self) -> MutexGuard<'_, HashMap<GroupKey, Leader>> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn leader(&self, key: GroupKey) -> Option<Leader> {
        self.leaders().get(&key).cloned()
    }

    /// Remembers that `placed` is in place as inode `id`, if it is hard-linked.
    pub(super) fn lead(&self, placed: &Placed, id: InodeId) {
        if placed.entry.link_group != 0 {
            let Entry { path, kind, digest, link_target, .. } = &placed.entry;
            let leader =
                Leader { path: path.clone(), id, kind: *kind, digest: *digest, link_target: link_target.clone() };
            self.leaders().insert(placed.entry.link_group, leader);
        }
    }

    /// Tells the progress receiver of `bytes` of content, and of `entry` when it is done.
    pub(super) fn advance(&self, path: &[u8], done: Option<&Entry>, bytes: u64) -> Result<(), UnpackError> {
        let files = u64::from(done.is_some_and(|entry| entry.kind == Kind::File));
        let step = Advance { entries: u64::from(done.is_some()), files, bytes, stored_bytes: 0, path };
        match self.progress.advance(step) {
            ControlFlow::Continue(()) if !self.is_stopped() => Ok(()),
            ControlFlow::Continue(()) | ControlFlow::Break(()) => {
                self.stop();
                Err(UnpackError::Cancelled)
            }
        }
    }

    /// Makes all threads end soon.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Counts content that is about to be written. Entries that share frames could ask for any amount: they get no more
    /// than twice what the archives say they store, and some slack.
    pub(super) fn charge(&self, path: &[u8], bytes: u64) -> Result<(), UnpackError> {
        const SLACK: u64 = 64 << 20;
        let before = self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        let limit = self.point.stored_content_bytes().saturating_mul(2).saturating_add(SLACK);
        if before.saturating_add(bytes) > limit {
            let what = "the index asks for more content than the archives store";
            return Err(UnpackError::Index { path: path.to_vec(), what });
        }
        Ok(())
    }

    pub(super) fn into_report(self) -> UnpackReport {
        self.report.into_report()
    }
}

/// Whether a folder holds nothing.
fn is_empty(folder: &OwnedFd) -> Result<bool, Errno> {
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an error of the target ends the whole restore instead of one name.
pub(super) fn is_fatal(error: Errno) -> bool {
    matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS | Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// Modification time of a status.
pub(super) fn mtime_of(status: &Statx) -> FileTime {
    FileTime { seconds: status.stx_mtime.tv_sec, nanos: status.stx_mtime.tv_nsec }
}
