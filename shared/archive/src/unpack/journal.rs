//! What a restore has begun and not finished, so that a rerun after a kill goes on.
//!
//! A folder gets its attributes only when everything in it is done. Until then a small file in the target, with a name of
//! our own, lists the folders created or written in (as short digests of their paths), behind the target's own time. A journal that nobody holds a lock on belongs to
//! a restore that died: its folders are taken as created by this one, and its temporary names are removed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, futimens, openat, unlinkat};
use rustix::io::Errno;

use super::attributes::times;
use super::tree::{OWN_PREFIX, Tree};
use crate::digest::Digest;
use crate::entry::FileTime;

const RECORD_BYTES: usize = 16;

/// Longest journal that is read: some four million folders.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;

const JOURNAL_WORD: &[u8] = b"journal-";

/// How long a restore waits for the lock on another's journal. A killed process keeps its locks until the kernel is done
/// with its last write; a journal that stays locked belongs to a restore that runs.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_STEP: Duration = Duration::from_millis(50);

/// The journals of this restore and of those that died.
#[derive(Debug)]
pub(super) struct Journal {
    own: Option<Mutex<File>>,
    own_name: Vec<u8>,
    has_notes: AtomicBool,
    root_mtime: FileTime,
    unfinished: HashSet<[u8; RECORD_BYTES]>,
    dead: Vec<Dead>,
}

/// A journal whose restore does not run any more; the lock is held until this restore ends.
#[derive(Debug)]
struct Dead {
    name: Vec<u8>,
    run: Vec<u8>,
    _locked: File,
}

fn record_of(path: &[u8]) -> [u8; RECORD_BYTES] {
    let digest = Digest::of(path);
    let mut record = [0; RECORD_BYTES];
    record.copy_from_slice(&digest.0[..RECORD_BYTES]);
    record
}

/// No path ends with a slash, so this is no other path's record.
fn record_of_change(path: &[u8]) -> [u8; RECORD_BYTES] {
    record_of(&[path, b"/"].concat())
}

fn record_of_time(time: FileTime) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&time.seconds.to_le_bytes());
    record[8..12].copy_from_slice(&time.nanos.to_le_bytes());
    record
}

fn time_of_record(record: &[u8; RECORD_BYTES]) -> FileTime {
    let (mut seconds, mut nanos) = ([0; 8], [0; 4]);
    seconds.copy_from_slice(&record[..8]);
    nanos.copy_from_slice(&record[8..12]);
    FileTime { seconds: i64::from_le_bytes(seconds), nanos: u32::from_le_bytes(nanos).min(999_999_999) }
}

impl Journal {
    /// Takes over the journals of dead restores and begins one. A target in which none can be made is used without.
    /// `root_mtime` is the target's own modification time before anything was done.
    pub(super) fn open(tree: &Tree, root_mtime: FileTime) -> Self {
        let mut journal = Self {
            own: None,
            own_name: Vec::new(),
            has_notes: AtomicBool::new(false),
            root_mtime,
            unfinished: HashSet::new(),
            dead: Vec::new(),
        };
        for name in own_names(tree.root(), JOURNAL_WORD) {
            journal.take_over(tree, name);
        }
        let name = [OWN_PREFIX, JOURNAL_WORD, tree.run().as_bytes()].concat();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(tree.root(), name.as_slice(), flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => {
                if let Err(error) = flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                    tracing::debug!(%error, "the journal of a restore cannot be locked");
                }
                let mut file = File::from(fd);
                if let Err(error) = file.write_all(&record_of_time(journal.root_mtime)) {
                    tracing::warn!(%error, "the journal of a restore cannot be written");
                }
                journal.own = Some(Mutex::new(file));
                journal.own_name = name;
            }
            Err(error) => tracing::debug!(%error, "a restore goes on without a journal"),
        }
        journal
    }

    fn take_over(&mut self, tree: &Tree, name: Vec<u8>) {
        let run = name[OWN_PREFIX.len() + JOURNAL_WORD.len()..].to_vec();
        if run.len() != tree.run().len() {
            return;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = openat(tree.root(), name.as_slice(), flags, Mode::empty()) else { return };
        if !lock_patiently(&fd) {
            tracing::warn!("another restore is running in the same target");
            return;
        }
        let mut file = File::from(fd);
        let mut bytes = Vec::new();
        if let Err(error) = (&mut file).take(MAX_JOURNAL_BYTES).read_to_end(&mut bytes) {
            tracing::warn!(%error, "the journal of an interrupted restore cannot be read");
        }
        if let Some((first, records)) = bytes.as_chunks::<RECORD_BYTES>().0.split_first() {
            // The dead restore may itself have come after a dead one: the earliest time is the one from before all.
            self.root_mtime = self.root_mtime.min(time_of_record(first));
            self.unfinished.extend(records);
        }
        self.dead.push(Dead { name, run, _locked: file });
    }

    /// The target's own modification time before this restore and those that died.
    pub(super) fn root_mtime(&self) -> FileTime {
        self.root_mtime
    }

    /// Notes that this restore creates the folder `path`, whose attributes are not set yet.
    pub(super) fn note(&self, path: &[u8]) {
        self.write(record_of(path));
    }

    /// Notes that this restore changes names in the folder `path`, whose time is to be set again.
    pub(super) fn note_change(&self, path: &[u8]) {
        self.write(record_of_change(path));
    }

    /// Whether a restore that died changed names in `path`.
    pub(super) fn was_changed(&self, path: &[u8]) -> bool {
        !self.unfinished.is_empty() && self.unfinished.contains(&record_of_change(path))
    }

    fn write(&self, record: [u8; RECORD_BYTES]) {
        let Some(own) = &self.own else { return };
        self.has_notes.store(true, Ordering::Relaxed);
        let mut file = own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(&record) {
            tracing::warn!(%error, "the journal of a restore cannot be written");
        }
    }

    /// Whether a restore that died created `path`, or had still to set its flags.
    pub(super) fn was_unfinished(&self, path: &[u8]) -> bool {
        !self.unfinished.is_empty() && self.unfinished.contains(&record_of(path))
    }

    /// Removes the temporary names that dead restores left in `folder`.
    pub(super) fn clean(&self, folder: BorrowedFd<'_>) {
        for dead in &self.dead {
            for name in own_names(folder, &dead.run) {
                if let Err(error) = unlinkat(folder, name.as_slice(), AtFlags::empty()) {
                    tracing::warn!(%error, "a temporary name of an interrupted restore could not be removed");
                }
            }
        }
    }

    /// After a failure: a journal without notes has nothing to tell the next restore.
    pub(super) fn abandon(&self, tree: &Tree) {
        if self.own.is_some() && !self.has_notes.load(Ordering::Relaxed) {
            remove(tree, &self.own_name);
            // The journal itself changed the target's time.
            if let Err(error) = futimens(tree.root(), &times(self.root_mtime)) {
                tracing::debug!(%error, "the target's time cannot be set");
            }
        }
    }

    /// Removes all journals: everything they name is finished.
    pub(super) fn close(&self, tree: &Tree) {
        let names = self.dead.iter().map(|dead| &dead.name).chain(self.own.is_some().then_some(&self.own_name));
        names.for_each(|name| remove(tree, name));
    }
}

fn lock_patiently(fd: &OwnedFd) -> bool {
    let begun = Instant::now();
    loop {
        if flock(fd, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        if begun.elapsed() >= LOCK_PATIENCE {
            return false;
        }
        std::thread::sleep(LOCK_STEP);
    }
}

fn remove(tree: &Tree, name: &[u8]) {
    if let Err(error) = unlinkat(tree.root(), name, AtFlags::empty())
        && error != Errno::NOENT
    {
        tracing::warn!(%error, "the journal of a restore could not be removed");
    }
}

/// Names in `folder` that begin with our prefix and `word`.
fn own_names(folder: BorrowedFd<'_>, word: &[u8]) -> Vec<Vec<u8>> {
    let prefix = [OWN_PREFIX, word].concat();
    let Ok(entries) = Dir::read_from(folder) else { return Vec::new() };
    entries
        .map_while(Result::ok)
        .map(|entry| entry.file_name().to_bytes().to_vec())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}
