//! Cuts the steps into jobs, each numbered by its place in the archive.
//!
//! A batch is about a frame's worth of small things. A large file without holes is handed out piece by piece, one job each,
//! so that all workers read and hash it; when its last piece has been read, and before anything else is handed out, it is
//! looked at again: if it changed, it is read once more into a second member that follows at once.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use super::content::{Moment, OpenFile};
use super::links::LinkBoard;
use super::{Item, PackError, Plan, Source, Step};
use crate::digest::{Digest, MAX_PIECES, PIECE_BYTES, piece_count};
use crate::entry::{Entry, Kind, cmp_paths};

/// Most steps in a batch, whatever their size.
const MAX_STEPS: usize = 4096;

/// What a batch is made of.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are steps, and a box for each would cost more")]
pub(super) enum Work {
    /// Bytes of the tar stream as they are.
    Raw(Vec<u8>),
    /// A step of the scan.
    Step(Step),
    /// The header of a large file whose pieces are the jobs that follow.
    Head(Arc<Large>),
    /// The end of a large file: its padding was written with its last piece, its entry can be made.
    Done(Arc<Large>),
}

/// A job for a worker.
#[derive(Debug)]
pub(super) enum Job {
    /// Small things in order.
    Batch { seq: u64, work: Vec<Work> },
    /// Piece `index` of a large file.
    Piece { seq: u64, large: Arc<Large>, index: u64 },
}

/// A large file that several workers read at once.
#[derive(Debug)]
pub(super) struct Large {
    /// Its entry, brought up to date when the file was opened.
    pub(super) entry: Entry,
    /// The file.
    pub(super) file: OpenFile,
    /// Whether this is the second member of a file that changed while the first was read.
    pub(super) is_second: bool,
    /// Whether the scan saw several names of it, which wait to hear what becomes of this one.
    linked: bool,
    /// Whether it was still the same when all of it had been read.
    pub(super) changed: OnceLock<bool>,
    /// Number of the job of its first piece.
    pub(super) first_seq: OnceLock<u64>,
    progress: Mutex<Pieces>,
    read: Condvar,
}

#[derive(Debug)]
struct Pieces {
    values: Vec<Digest>,
    left: u64,
    error: Option<String>,
}

impl Large {
    fn new(entry: Entry, file: OpenFile, linked: bool) -> Self {
        let count = piece_count(entry.size);
        // Bounded by MAX_PIECES: larger files do not come here.
        let values = vec![Digest([0; 32]); count as usize];
        Self {
            entry,
            file,
            is_second: false,
            linked,
            changed: OnceLock::new(),
            first_seq: OnceLock::new(),
            progress: Mutex::new(Pieces { values, left: count, error: None }),
            read: Condvar::new(),
        }
    }

    /// Length of piece `index`.
    pub(super) fn piece_length(&self, index: u64) -> u64 {
        (self.entry.size - index * PIECE_BYTES).min(PIECE_BYTES)
    }

    /// Reports that piece `index` was read, or why it could not be.
    pub(super) fn piece_read(&self, index: u64, value: Result<Digest, String>) {
        let mut pieces = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Ok(digest) => pieces.values[index as usize] = digest,
            Err(error) => pieces.error = Some(error),
        }
        pieces.left -= 1;
        self.read.notify_all();
    }

    /// Whether no piece has failed so far.
    fn was_read(&self) -> bool {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).error.is_none()
    }

    /// Waits until all pieces were read.
    fn wait(&self) {
        let mut pieces = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        while pieces.left > 0 {
            pieces = self.read.wait(pieces).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The values of all pieces, once they were read, or the first error.
    pub(super) fn take_values(&self) -> Result<Vec<Digest>, String> {
        let mut pieces = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.error.take().map_or_else(|| Ok(std::mem::take(&mut pieces.values)), Err)
    }
}

/// See the module.
pub(super) struct Feeder<'a, I> {
    steps: I,
    source: &'a dyn Source,
    links: &'a LinkBoard,
    moment: Moment<'a>,
    frame_bytes: u64,
    next_seq: u64,
    large: Option<(Arc<Large>, u64)>,
    carried: VecDeque<Work>,
    last_path: Option<Vec<u8>>,
    ended: bool,
}

impl<'a, I, E> Feeder<'a, I>
where
    I: Iterator<Item = Result<Step, E>>,
{
    pub(super) fn new(
        steps: I,
        first: Vec<u8>,
        sources: (&'a dyn Source, &'a LinkBoard),
        moment: Moment<'a>,
        frame_bytes: usize,
    ) -> Self {
        Self {
            steps,
            source: sources.0,
            links: sources.1,
            moment,
            frame_bytes: frame_bytes as u64,
            next_seq: 0,
            large: None,
            carried: VecDeque::from([Work::Raw(first)]),
            last_path: None,
            ended: false,
        }
    }

    /// The next job, or `None` when everything was handed out.
    pub(super) fn next(&mut self) -> Result<Option<Job>, PackError<E>> {
        if let Some(job) = self.next_piece() {
            return Ok(Some(job));
        }
        let mut work: Vec<Work> = self.carried.drain(..).collect();
        let mut bytes: u64 = 0;
        while !self.ended && bytes < self.frame_bytes && work.len() < MAX_STEPS && self.large.is_none() {
            let Some(step) = self.steps.next() else {
                self.ended = true;
                break;
            };
            let step = step.map_err(PackError::Steps)?;
            self.check_order(&step)?;
            bytes += cost(&step);
            work.push(self.begin(step));
        }
        if let Some((large, _)) = &self.large {
            work.push(Work::Head(Arc::clone(large)));
        }
        if work.is_empty() {
            return Ok(None);
        }
        Ok(Some(Job::Batch { seq: self.take_seq(), work }))
    }

    fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    fn next_piece(&mut self) -> Option<Job> {
        let (large, index) = self.large.take()?;
        if index < piece_count(large.entry.size) {
            let seq = self.take_seq();
            if index == 0 {
                // Set once: a large file is handed out once.
                let _first = large.first_seq.set(seq);
            }
            self.large = Some((Arc::clone(&large), index + 1));
            return Some(Job::Piece { seq, large, index });
        }
        large.wait();
        let changed = large.file.has_changed();
        let second = if changed && !large.is_second { self.open_second(&large) } else { None };
        match second {
            // The first member stays in the tar, and the one that follows it takes its place.
            Some(second) => self.large = Some((second, 0)),
            None => {
                let _first = large.changed.set(changed);
                if large.linked {
                    let leads = large.entry.link_group != 0 && large.was_read();
                    self.links.settle(&large.entry.path, leads.then_some(&large.entry.path));
                }
                self.carried.push_back(Work::Done(large));
            }
        }
        None
    }

    fn check_order(&mut self, step: &Step) -> Result<(), PackError<E>> {
        let Step::Item(item) = step else { return Ok(()) };
        let path = &item.entry.path;
        if self.last_path.as_ref().is_some_and(|last| cmp_paths(last, path).is_ge()) {
            return Err(PackError::Contract { path: path.clone(), what: "names are not in order" });
        }
        if !crate::entry::is_clean_path(path) {
            return Err(PackError::Contract { path: path.clone(), what: "the path is not clean" });
        }
        self.last_path = Some(path.clone());
        Ok(())
    }

    /// Registers what others may link to, and opens a large file.
    fn begin(&mut self, step: Step) -> Work {
        let Step::Item(Item { entry, plan: Plan::Store }) = &step else { return Work::Step(step) };
        let linked = entry.link_group != 0;
        if linked {
            self.links.register(&entry.path);
        }
        if entry.kind == Kind::File
            && let Some(large) = self.open_large(entry)
        {
            let large = Arc::new(large);
            self.large = Some((Arc::clone(&large), 0));
            // `next` appends the head when it sees the large file.
            return Work::Raw(Vec::new());
        }
        Work::Step(step)
    }

    /// Opens a file that is worth several workers; anything else about it is found out by the worker that gets it.
    fn open_large(&self, entry: &Entry) -> Option<Large> {
        if entry.size <= PIECE_BYTES {
            return None;
        }
        let mut entry = entry.clone();
        let linked = entry.link_group != 0;
        let file = OpenFile::open(self.source, &mut entry, self.moment).ok()?;
        let fits = entry.size > PIECE_BYTES && piece_count(entry.size) <= MAX_PIECES;
        (fits && entry.data_ranges.is_none()).then(|| Large::new(entry, file, linked))
    }

    /// Opens a file again that changed while it was read.
    fn open_second(&self, first: &Large) -> Option<Arc<Large>> {
        let second = self.open_large(&first.entry)?;
        Some(Arc::new(Large { is_second: true, linked: first.linked, ..second }))
    }
}

/// About how many bytes of the tar stream a step takes.
fn cost(step: &Step) -> u64 {
    match step {
        Step::Item(Item { entry, plan: Plan::Store }) => 1536 + entry.size.min(PIECE_BYTES),
        Step::Item(Item { plan: Plan::Link { .. }, .. }) => 512,
        Step::Item(Item { plan: Plan::Attributes { .. } | Plan::IndexOnly, .. })
        | Step::Removed { .. }
        | Step::FolderExit { .. } => 64,
    }
}
