//! The one place that writes: takes finished jobs in the order of their numbers, whoever brings them.
//!
//! A worker that is early leaves its frame in a bounded window and goes on; whoever brings the next number writes it and
//! all that follow. Index entries are made here, because only here is it known where a frame begins.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::index_writer::IndexWriter;
use super::{MAX_WARNINGS, Reason, Sink, Warning};
use crate::block::stored_digest;
use crate::codec::CodecError;
use crate::digest::Digest;
use crate::entry::{Attributes, ContentRef, DataRange, Entry, Flags, Kind};
use crate::progress::Advance;
use crate::recipe::Recipe;
use crate::table::FrameInfo;

/// Why nothing more can be written.
#[derive(Debug)]
pub(crate) enum SealError {
    Sink(io::Error),
    Spool(io::Error),
    Codec(CodecError),
    Cancelled,
    /// Somebody else failed; that error counts.
    Stopped,
}

impl<E> From<SealError> for super::PackError<E> {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Sink(source) => Self::Sink(source),
            SealError::Spool(source) => Self::Spool(source),
            SealError::Codec(source) => Self::Codec(source),
            SealError::Cancelled | SealError::Stopped => Self::Cancelled,
        }
    }
}

/// A compressed frame.
#[derive(Debug)]
pub(super) struct Frame {
    stored: Vec<u8>,
    raw_length: u32,
    digest: Digest,
}

impl Frame {
    pub(super) fn new(stored: Vec<u8>, raw_length: usize) -> Self {
        let digest = stored_digest(&stored);
        // The codec refuses frames of more than MAX_FRAME_BYTES.
        Self { stored, raw_length: raw_length as u32, digest }
    }

    pub(super) fn stored(&self) -> &[u8] {
        &self.stored
    }

    /// The frame's line in the frame table.
    pub(super) fn placed_at(&self, offset: u64) -> FrameInfo {
        FrameInfo {
            offset,
            // Compressing 64 MiB never gives 4 GiB.
            stored_length: self.stored.len() as u32,
            raw_length: self.raw_length,
            digest: self.digest,
        }
    }
}

/// Where the content of a member is.
#[derive(Debug)]
pub(super) enum Place {
    /// As the entry already says: nowhere, or in the base.
    AsGiven,
    /// In this job's frame of that number.
    Here { frame: u64, offset: u32 },
    /// At the beginning of the frame of that job.
    Job(u64),
    /// Where the content of that earlier name is.
    Like(Vec<u8>),
}

/// A member that was written.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) entry: Entry,
    pub(super) place: Place,
}

/// What index and recipe have to be told, in order.
#[derive(Debug)]
pub(super) enum Record {
    Member(Box<Recorded>),
    Attributes { entry: Entry, base: Box<Attributes> },
    IndexOnly(Entry),
    Removed(Vec<u8>),
    FolderExit { entry: Entry, base: Option<Box<Attributes>> },
    Warning(Warning),
}

/// What a job stored.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// A job that is done.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) seq: u64,
    pub(super) frame: Option<Frame>,
    pub(super) records: Vec<Record>,
    pub(super) tally: Tally,
    /// Bytes of content that whoever watches was not told of yet.
    pub(super) to_tell: u64,
    /// Whether the frame is where a large file begins, whose entry comes with a later job.
    pub(super) is_first_piece: bool,
}

/// See the module.
pub(super) struct Sealer<'a> {
    state: Mutex<State<'a>>,
    turn: Condvar,
    window: usize,
}

/// What is left when all jobs are written.
pub(super) struct Written<'a> {
    pub(super) sink: Sink<'a>,
    pub(super) index: IndexWriter,
    pub(super) recipe: Recipe,
    pub(super) root: Option<Entry>,
    pub(super) tally: Tally,
    pub(super) warnings: Vec<Warning>,
    pub(super) warning_count: u64,
    pub(super) changed_while_read: u64,
}

struct State<'a> {
    next_seq: u64,
    pending: BTreeMap<u64, Finished>,
    spare: Vec<Vec<u8>>,
    stopped: bool,
    /// Frames of the job whose turn it is.
    job_frames: Vec<(u64, FrameInfo)>,
    /// Their stored bytes.
    job_bytes: u64,
    /// First frames of large files whose entry has not come yet.
    large_first: BTreeMap<u64, (u64, FrameInfo)>,
    /// Facts of hard-linked members, for the names that link to them.
    linked: HashMap<Vec<u8>, LinkFacts>,
    written: Written<'a>,
}

#[derive(Clone)]
struct LinkFacts {
    size: u64,
    digest: Option<Digest>,
    pieces: Vec<Digest>,
    data_ranges: Option<Vec<DataRange>>,
    content: Option<ContentRef>,
    flags: Flags,
}

impl<'a> Sealer<'a> {
    pub(super) fn new(sink: Sink<'a>, index: IndexWriter, recipe: Recipe, window: usize) -> Self {
        let written = Written {
            sink,
            index,
            recipe,
            root: None,
            tally: Tally::default(),
            warnings: Vec::new(),
            warning_count: 0,
            changed_while_read: 0,
        };
        let state = State {
            next_seq: 0,
            pending: BTreeMap::new(),
            spare: Vec::new(),
            stopped: false,
            job_frames: Vec::new(),
            job_bytes: 0,
            large_first: BTreeMap::new(),
            linked: HashMap::new(),
            written,
        };
        Self { state: Mutex::new(state), turn: Condvar::new(), window }
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a finished job; gives back a buffer to use again.
    pub(super) fn submit(&self, finished: Finished, waited: &mut u64) -> Result<Vec<u8>, SealError> {
        let mut state = self.lock();
        let begun = Instant::now();
        while finished.seq != state.next_seq && state.pending.len() >= self.window && !state.stopped {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *waited += u64::try_from(begun.elapsed().as_nanos()).unwrap_or(0);
        if state.stopped {
            return Err(SealError::Stopped);
        }
        if finished.seq != state.next_seq {
            state.pending.insert(finished.seq, finished);
            return Ok(state.spare.pop().unwrap_or_default());
        }
        let mut next = Some(finished);
        while let Some(job) = next {
            state.write_job(job)?;
            let seq = state.next_seq;
            next = state.pending.remove(&seq);
        }
        self.turn.notify_all();
        Ok(state.spare.pop().unwrap_or_default())
    }

    /// Writes a frame of the job `seq`, which has more to come, when its turn is there; gives back a buffer.
    /// `told`: the bytes of content in it.
    pub(super) fn stream(&self, seq: u64, frame: Frame, told: u64) -> Result<Vec<u8>, SealError> {
        let mut state = self.lock();
        while seq != state.next_seq && !state.stopped {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return Err(SealError::Stopped);
        }
        state.write_frame(frame)?;
        let stored_bytes = std::mem::take(&mut state.job_bytes);
        state.tell(Advance { bytes: told, stored_bytes, ..Advance::default() })?;
        Ok(state.spare.pop().unwrap_or_default())
    }

    /// Makes everybody give up.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.turn.notify_all();
    }

    /// What is left when all workers are done.
    pub(super) fn into_written(self) -> Written<'a> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).written
    }
}

impl State<'_> {
    fn write_frame(&mut self, frame: Frame) -> Result<(), SealError> {
        let placed = self.written.write_frame(&frame)?;
        self.job_frames.push(placed);
        self.job_bytes += u64::from(placed.1.stored_length);
        self.spare.push(frame.stored);
        Ok(())
    }

    fn write_job(&mut self, job: Finished) -> Result<(), SealError> {
        if let Some(frame) = job.frame {
            self.write_frame(frame)?;
        }
        let entries = job.records.len() as u64;
        let mut path = Vec::new();
        for record in job.records {
            if let Record::Member(member) = &record
                && path.is_empty()
            {
                path.clone_from(&member.entry.path);
            }
            self.record(record)?;
        }
        if let Some(first) = self.job_frames.first()
            && job.is_first_piece
        {
            self.large_first.insert(job.seq, *first);
        }
        self.job_frames.clear();
        let stored_bytes = std::mem::take(&mut self.job_bytes);
        self.next_seq += 1;
        self.written.tally.files += job.tally.files;
        self.written.tally.bytes += job.tally.bytes;
        let advance = Advance { entries, files: job.tally.files, bytes: job.to_tell, stored_bytes, path: &path };
        self.tell(advance)
    }

    /// Tells whoever watches; waits as long as they do.
    fn tell(&self, advance: Advance<'_>) -> Result<(), SealError> {
        match self.written.sink.progress.advance(advance) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(SealError::Cancelled),
        }
    }

    fn record(&mut self, record: Record) -> Result<(), SealError> {
        match record {
            Record::Warning(warning) => self.written.warn(warning),
            Record::Removed(path) => self.written.recipe.removed(&path).map_err(SealError::Spool)?,
            Record::FolderExit { entry, base } => {
                self.written.recipe.attributes(base.as_deref(), &entry).map_err(SealError::Spool)?;
                if entry.path.is_empty() {
                    self.written.root = Some(entry);
                }
            }
            Record::Attributes { entry, base } => {
                if entry.path.is_empty() {
                    self.written.root = Some(entry.clone());
                }
                self.written.recipe.attributes(Some(&base), &entry).map_err(SealError::Spool)?;
                self.written.index.push(&entry)?;
            }
            Record::IndexOnly(entry) => {
                if entry.kind == Kind::Tombstone {
                    self.written.recipe.removed(&entry.path).map_err(SealError::Spool)?;
                }
                self.written.index.push(&entry)?;
            }
            Record::Member(member) => self.member(*member)?,
        }
        Ok(())
    }

    fn member(&mut self, member: Recorded) -> Result<(), SealError> {
        let Recorded { mut entry, place } = member;
        match place {
            Place::AsGiven => {}
            Place::Here { frame, offset } => {
                entry.content = self.job_frames.get(frame as usize).map(|placed| content_ref(placed, offset));
            }
            Place::Job(seq) => {
                entry.content = self.large_first.remove(&seq).map(|placed| content_ref(&placed, 0));
            }
            Place::Like(target) => match self.linked.get(&target) {
                Some(facts) => facts.clone().copy_to(&mut entry),
                // A name is settled only when its content is known; should one slip through, nobody may miss it.
                None if entry.kind == Kind::File => {
                    entry.flags = entry.flags.with(Flags::UNREAD);
                    let reason = Reason::Unreadable("the name it is linked to was not stored".to_owned());
                    self.written.warn(Warning { path: entry.path.clone(), reason });
                }
                None => {}
            },
        }
        if entry.link_group != 0 && entry.kind == Kind::File && !entry.flags.contains(Flags::CONTENT_IN_BASE) {
            self.linked.entry(entry.path.clone()).or_insert_with(|| LinkFacts::of(&entry));
        }
        if entry.path.is_empty() {
            self.written.root = Some(entry.clone());
        }
        if entry.attributes.inode_flags != 0 {
            self.written.recipe.inode_flags(&entry).map_err(SealError::Spool)?;
        }
        self.written.index.push(&entry)
    }
}

impl LinkFacts {
    fn of(entry: &Entry) -> Self {
        Self {
            size: entry.size,
            digest: entry.digest,
            pieces: entry.pieces.clone(),
            data_ranges: entry.data_ranges.clone(),
            content: entry.content,
            flags: entry.flags,
        }
    }

    fn copy_to(self, entry: &mut Entry) {
        entry.size = self.size;
        entry.digest = self.digest;
        entry.pieces = self.pieces;
        entry.data_ranges = self.data_ranges;
        entry.content = self.content;
        entry.flags = entry.flags.with(self.flags);
    }
}

fn content_ref(placed: &(u64, FrameInfo), offset: u32) -> ContentRef {
    let (frame, info) = placed;
    ContentRef { frame: *frame, frame_offset: info.offset, frame_length: info.stored_length, offset }
}

impl Written<'_> {
    /// Writes a frame of members; gives its number and place.
    fn write_frame(&mut self, frame: &Frame) -> Result<(u64, FrameInfo), SealError> {
        let info = frame.placed_at(self.sink.out.written());
        io::Write::write_all(self.sink.out, &frame.stored).map_err(SealError::Sink)?;
        let number = self.index.frame(info)?;
        Ok((number, info))
    }

    fn warn(&mut self, warning: Warning) {
        if warning.reason == Reason::ChangedWhileRead {
            self.changed_while_read += 1;
        }
        self.warning_count += 1;
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        }
    }
}
