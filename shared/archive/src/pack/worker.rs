//! A worker: takes jobs, reads and hashes content straight into tar frames, compresses them.
//!
//! Everything about one file happens here and in `content`; an unreadable file is a record with a warning, never an error.

use std::io::{self, Read as _};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::content::{Moment, NotStored, OpenFile};
use super::feeder::{Feeder, Job, Large, Work};
use super::links::{LinkBoard, Resolution};
use super::lost::{Instead, instead_of, unread};
use super::sealer::{Finished, Frame, Place, Record, Recorded, SealError, Sealer, Tally};
use super::{Item, PackError, Plan, Reason, Source, Step, Timings, Warning};
use crate::codec::Compressor;
use crate::digest::{ContentHasher, Digest, PIECE_BYTES, merge_pieces, piece_value};
use crate::entry::{DataRange, Entry, Flags, Kind};
use crate::header::Level;
use crate::tar::{BLOCK, Body, Member, put_header};

/// What all workers share.
pub(super) struct Shared<'a, 's, I> {
    pub(super) feeder: Mutex<Feeder<'a, I>>,
    pub(super) source: &'a dyn Source,
    pub(super) links: &'a LinkBoard,
    pub(super) sealer: &'a Sealer<'s>,
    pub(super) moment: Moment<'a>,
    pub(super) level: Level,
}

/// One thread of the packer.
pub(super) struct Worker<'a, 's> {
    source: &'a dyn Source,
    links: &'a LinkBoard,
    sealer: &'a Sealer<'s>,
    moment: Moment<'a>,
    level: Level,
    compressor: Compressor,
    stored: Vec<u8>,
    raw: Vec<u8>,
    /// Room for a piece of a large file.
    piece: Vec<u8>,
    timings: Timings,
    job: JobState,
}

/// What the present job has produced so far.
#[derive(Default)]
struct JobState {
    seq: u64,
    /// Frames of this job that are already with the sealer.
    frames: u64,
    records: Vec<Record>,
    tally: Tally,
    /// Bytes of content that the sealer tells of with this job.
    to_tell: u64,
    /// Those of them that it has told of already.
    told_ahead: u64,
    is_first_piece: bool,
}

/// What became of a regular file.
enum Stored {
    /// Its content is in the tar.
    Yes { place: Place, changed: bool },
    No {
        reason: Reason,
        /// A member of it was begun, and is in the tar.
        begun: bool,
    },
}

/// Gives the next bytes of a content from an offset on; the offsets ascend.
type ReadContent<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>;

impl<'a, 's> Worker<'a, 's> {
    pub(super) fn new<I>(shared: &Shared<'a, 's, I>, compressor: Compressor) -> Self {
        Self {
            source: shared.source,
            links: shared.links,
            sealer: shared.sealer,
            moment: shared.moment,
            level: shared.level,
            compressor,
            stored: Vec::new(),
            raw: Vec::new(),
            piece: Vec::new(),
            timings: Timings::default(),
            job: JobState::default(),
        }
    }

    /// Works until there are no more jobs.
    pub(super) fn run<I, E>(mut self, shared: &Shared<'a, 's, I>) -> Result<Timings, PackError<E>>
    where
        I: Iterator<Item = Result<Step, E>>,
    {
        loop {
            let asked = Instant::now();
            let job = shared.feeder.lock().unwrap_or_else(PoisonError::into_inner).next()?;
            self.timings.steps += nanos(asked);
            match job {
                None => return Ok(self.timings),
                Some(Job::Batch { seq, work }) => self.batch(seq, work)?,
                Some(Job::Piece { seq, large, index }) => self.piece(seq, &large, index)?,
            }
        }
    }

    fn batch(&mut self, seq: u64, work: Vec<Work>) -> Result<(), SealError> {
        self.job = JobState { seq, ..JobState::default() };
        self.raw.clear();
        let (begun, before) = (Instant::now(), self.timings.beside_reading());
        for piece in work {
            match piece {
                Work::Raw(bytes) => self.raw.extend(bytes),
                Work::Head(large) => put_file_header(&mut self.raw, &large.entry),
                Work::Done(large) => self.large_done(&large)?,
                Work::Step(step) => self.step(step)?,
            }
            if self.raw.len() as u64 >= 2 * PIECE_BYTES {
                self.emit(0)?;
            }
        }
        self.timings.read += nanos(begun).saturating_sub(self.timings.beside_reading() - before);
        let frame = self.take_frame()?;
        self.finish_job(frame)
    }

    fn step(&mut self, step: Step) -> Result<(), SealError> {
        match step {
            Step::Removed { path } => self.job.records.push(Record::Removed(path)),
            Step::FolderExit { entry, base } => self.job.records.push(Record::FolderExit { entry, base }),
            Step::Item(Item { entry, plan }) => match plan {
                Plan::Store => self.store(entry, None)?,
                Plan::Link { target, in_base } => self.link(entry, target, in_base)?,
                Plan::Attributes { base } => self.job.records.push(Record::Attributes { entry, base }),
                Plan::IndexOnly => self.job.records.push(Record::IndexOnly(entry)),
            },
        }
        Ok(())
    }

    fn link(&mut self, entry: Entry, target: Vec<u8>, in_base: bool) -> Result<(), SealError> {
        let linked_to = if in_base { Resolution::LinkTo(target.clone()) } else { self.links.resolve(&target) };
        match linked_to {
            Resolution::Stopped => Err(SealError::Stopped),
            Resolution::StoreInstead => self.store(entry, Some(&target)),
            Resolution::LinkTo(name) => {
                let member = Member { path: &entry.path, body: Body::Link(&name), attributes: &entry.attributes };
                put_header(&mut self.raw, &member);
                let place = if in_base { Place::AsGiven } else { Place::Like(name) };
                self.record(entry, place);
                Ok(())
            }
        }
    }

    fn record(&mut self, entry: Entry, place: Place) {
        self.job.records.push(Record::Member(Box::new(Recorded { entry, place })));
    }

    fn warn(&mut self, path: &[u8], reason: Reason) {
        self.job.records.push(Record::Warning(Warning { path: path.to_vec(), reason }));
    }

    /// Stores an entry as a member and settles its hard-link name, or the one that it stands in for.
    fn store(&mut self, mut entry: Entry, stands_in_for: Option<&[u8]>) -> Result<(), SealError> {
        let linked = entry.link_group != 0;
        if let Some(body) = Body::without_content(&entry) {
            put_header(&mut self.raw, &Member { path: &entry.path, body, attributes: &entry.attributes });
            if linked {
                self.links.settle(stands_in_for.unwrap_or(&entry.path), Some(&entry.path));
            }
            self.record(entry, Place::AsGiven);
            return Ok(());
        }
        let stored = self.store_file(&mut entry)?;
        if linked {
            // A name that has become another file's has left the group, and the next one takes its place.
            let leads = matches!(stored, Stored::Yes { .. }) && entry.link_group != 0;
            self.links.settle(stands_in_for.unwrap_or(&entry.path), leads.then_some(&entry.path));
        }
        match stored {
            Stored::Yes { place, changed } => {
                self.file_done(entry, place, changed);
                Ok(())
            }
            Stored::No { reason, begun } => self.lost(entry, reason, begun),
        }
    }

    /// Stores a file. What changed during the first reading is read once more; if it cannot be opened any more, the first
    /// reading is what there is.
    fn store_file(&mut self, entry: &mut Entry) -> Result<Stored, SealError> {
        let (frames, length) = (self.job.frames, self.raw.len());
        let file = match OpenFile::open(self.source, entry, self.moment) {
            Ok(file) => file,
            Err(NotStored(reason)) => return Ok(Stored::No { reason, begun: false }),
        };
        let mut read = self.read_file(entry, &file)?;
        let mut changed = file.has_changed();
        if changed && read.is_ok() {
            let mut now = entry.clone();
            if let Ok(file) = OpenFile::open(self.source, &mut now, self.moment) {
                if self.job.frames == frames {
                    // Nobody has seen the first reading yet.
                    self.raw.truncate(length);
                }
                read = self.read_file(&mut now, &file)?;
                changed = file.has_changed();
                *entry = now;
            }
        }
        match read {
            Ok(place) => Ok(Stored::Yes { place, changed }),
            Err(error) => {
                let begun = self.job.frames != frames;
                Ok(Stored::No { reason: Reason::Unreadable(error.to_string()), begun })
            }
        }
    }

    /// Writes the member of an open file. An error of reading comes back inside; a member that went to the sealer in part
    /// stays there, filled up with zeros.
    fn read_file(&mut self, entry: &mut Entry, file: &OpenFile) -> Result<io::Result<Place>, SealError> {
        let (stored_bytes, length) = (entry.stored_bytes(), self.raw.len());
        put_file_header(&mut self.raw, entry);
        if stored_bytes <= PIECE_BYTES {
            let read = self.read_inline(entry, file, stored_bytes);
            if read.is_err() {
                self.raw.truncate(length);
            }
            return Ok(read);
        }
        self.read_streaming(entry, &mut |offset, buffer| file.read(offset, buffer))
    }

    /// Records what is known of a file that was not stored.
    fn lost(&mut self, entry: Entry, reason: Reason, begun: bool) -> Result<(), SealError> {
        self.warn(&entry.path, reason.clone());
        let entry = match instead_of(&entry.path, &reason, self.level, self.source) {
            Instead::Nothing => return Ok(()),
            Instead::Tombstone => Entry::tombstone(entry.path),
            Instead::Stale(base) if begun && self.store_base(&base)? => return Ok(()),
            Instead::Stale(base) if !begun => *base,
            Instead::Stale(_) | Instead::Unread => unread(entry),
        };
        self.job.records.push(Record::IndexOnly(entry));
        Ok(())
    }

    /// Copies the base's state of a file behind a member of it that was begun, because tar takes the last member of a
    /// name. False: the base's archive cannot be read either.
    fn store_base(&mut self, base: &Entry) -> Result<bool, SealError> {
        let source = self.source;
        let Some(Ok(mut content)) = source.base().map(|archive| archive.stored_content(base)) else {
            return Ok(false);
        };
        // A member of its own, it is no name of the base's group any more.
        let flags = base.flags.without(Flags::CONTENT_IN_BASE);
        let mut entry = Entry { flags, link_group: 0, content: None, ..base.clone() };
        put_file_header(&mut self.raw, &entry);
        let place = if entry.stored_bytes() == 0 {
            Ok(Place::AsGiven)
        } else {
            self.read_streaming(&mut entry, &mut |_, buffer| content.read_exact(buffer))?
        };
        match place {
            Ok(place) if entry.digest == base.digest => {
                self.file_done(entry, place, false);
                Ok(true)
            }
            Ok(_) | Err(_) => Ok(false),
        }
    }

    fn file_done(&mut self, mut entry: Entry, place: Place, changed: bool) {
        if changed {
            entry.flags = entry.flags.with(Flags::CHANGED_WHILE_READ);
            self.warn(&entry.path.clone(), Reason::ChangedWhileRead);
        }
        self.job.tally.files += 1;
        self.job.tally.bytes += entry.stored_bytes();
        self.job.to_tell += entry.stored_bytes();
        self.record(entry, place);
    }

    /// Reads a small file into the frame at hand.
    fn read_inline(&mut self, entry: &mut Entry, file: &OpenFile, stored_bytes: u64) -> io::Result<Place> {
        let from = self.raw.len();
        // Bounded by PIECE_BYTES.
        let length = stored_bytes as usize;
        match &entry.data_ranges {
            None => {
                file.append(length, &mut self.raw)?;
                let begun = Instant::now();
                entry.digest = Some(Digest::of(&self.raw[from..]));
                self.timings.hash += nanos(begun);
                entry.pieces = Vec::new();
            }
            Some(ranges) => {
                self.raw.resize(from + length, 0);
                let mut hasher = ContentHasher::new();
                let mut rest = &mut self.raw[from..];
                let mut at = 0;
                for range in ranges {
                    let (part, others) = rest.split_at_mut(range.length as usize);
                    file.read(range.offset, part)?;
                    hasher.update_zeros(range.offset - at);
                    hasher.update(part);
                    at = range.offset + range.length;
                    rest = others;
                }
                hasher.update_zeros(entry.size - at);
                let found = hasher.finish();
                (entry.digest, entry.pieces) = (Some(found.digest), found.pieces);
            }
        }
        self.raw.resize(self.raw.len().next_multiple_of(BLOCK), 0);
        if stored_bytes == 0 {
            return Ok(Place::AsGiven);
        }
        Ok(Place::Here { frame: self.job.frames, offset: from as u32 })
    }

    /// Reads a content of any size through frames of its own, in this thread. An error of reading comes back inside, after
    /// the member was filled up with zeros, because its header has been written.
    fn read_streaming(&mut self, entry: &mut Entry, read: ReadContent<'_>) -> Result<io::Result<Place>, SealError> {
        self.emit(0)?;
        let first = self.job.frames;
        let whole = [DataRange { offset: 0, length: entry.size }];
        let ranges = entry.data_ranges.clone().unwrap_or_else(|| whole.to_vec());
        let mut hasher = ContentHasher::new();
        let mut failure = None;
        let (mut at, mut read_ahead) = (0, 0);
        for range in &ranges {
            hasher.update_zeros(range.offset - at);
            at = range.offset;
            let end = range.offset + range.length;
            while at < end {
                let room = PIECE_BYTES - self.raw.len() as u64;
                let from = self.raw.len();
                let take = room.min(end - at);
                self.raw.resize(from + take as usize, 0);
                if let Err(error) = read(at, &mut self.raw[from..]) {
                    self.raw[from..].fill(0);
                    failure = Some(error);
                }
                let begun = Instant::now();
                hasher.update(&self.raw[from..]);
                self.timings.hash += nanos(begun);
                at += take;
                read_ahead += take;
                if self.raw.len() as u64 == PIECE_BYTES {
                    self.emit(std::mem::take(&mut read_ahead))?;
                }
            }
        }
        hasher.update_zeros(entry.size - at);
        self.raw.resize(self.raw.len().next_multiple_of(BLOCK), 0);
        let found = hasher.finish();
        (entry.digest, entry.pieces) = (Some(found.digest), found.pieces);
        if let Some(error) = failure {
            (entry.digest, entry.pieces) = (None, Vec::new());
            return Ok(Err(error));
        }
        Ok(Ok(Place::Here { frame: first, offset: 0 }))
    }

    fn large_done(&mut self, large: &Large) -> Result<(), SealError> {
        let mut entry = large.entry.clone();
        let changed = large.changed.get().copied().unwrap_or(true);
        let error = match (large.take_values(), large.first_seq.get()) {
            (Ok(values), Some(first_seq)) => {
                // Its pieces were told of, each by itself.
                self.job.told_ahead += entry.stored_bytes();
                entry.digest = merge_pieces(&values);
                entry.pieces = values;
                self.file_done(entry, Place::Job(*first_seq), changed);
                return Ok(());
            }
            (Err(error), _) => error,
            (Ok(_), None) => "it was never read".to_owned(),
        };
        self.lost(entry, Reason::Unreadable(error), true)
    }

    fn piece(&mut self, seq: u64, large: &Large, index: u64) -> Result<(), SealError> {
        self.job = JobState { seq, is_first_piece: index == 0, ..JobState::default() };
        let begun = Instant::now();
        // Bounded by PIECE_BYTES.
        let length = large.piece_length(index) as usize;
        self.job.to_tell = length as u64;
        // Not cleared between pieces: clearing would cost as much as reading.
        let mut piece = std::mem::take(&mut self.piece);
        piece.resize(length.next_multiple_of(BLOCK), 0);
        let read = large.file.read(index * PIECE_BYTES, &mut piece[..length]);
        if read.is_err() {
            piece.fill(0);
        } else {
            piece[length..].fill(0);
        }
        self.timings.read += nanos(begun);
        let begun = Instant::now();
        let value = read.map(|()| piece_value(index, &piece[..length])).map_err(|error| error.to_string());
        large.piece_read(index, value);
        self.timings.hash += nanos(begun);
        let frame = self.compress(&piece)?;
        self.piece = piece;
        self.finish_job(frame)
    }

    fn compress(&mut self, raw: &[u8]) -> Result<Option<Frame>, SealError> {
        if raw.is_empty() {
            return Ok(None);
        }
        let begun = Instant::now();
        self.compressor.compress(raw, &mut self.stored).map_err(SealError::Codec)?;
        let frame = Frame::new(std::mem::take(&mut self.stored), raw.len());
        self.timings.compress += nanos(begun);
        Ok(Some(frame))
    }

    /// Compresses what was collected, and begins to collect anew.
    fn take_frame(&mut self) -> Result<Option<Frame>, SealError> {
        let mut raw = std::mem::take(&mut self.raw);
        let frame = self.compress(&raw);
        raw.clear();
        self.raw = raw;
        frame
    }

    /// Hands the frame at hand, with so many bytes of a content in it, to the sealer while the job goes on; waits for the job's turn.
    fn emit(&mut self, told: u64) -> Result<(), SealError> {
        if let Some(frame) = self.take_frame()? {
            let begun = Instant::now();
            self.stored = self.sealer.stream(self.job.seq, frame, told)?;
            self.job.told_ahead += told;
            self.job.frames += 1;
            self.timings.write += nanos(begun);
        }
        Ok(())
    }

    fn finish_job(&mut self, frame: Option<Frame>) -> Result<(), SealError> {
        let (begun, waited) = (Instant::now(), self.timings.wait);
        let job = std::mem::take(&mut self.job);
        let finished = Finished {
            seq: job.seq,
            frame,
            records: job.records,
            tally: job.tally,
            to_tell: job.to_tell.saturating_sub(job.told_ahead),
            is_first_piece: job.is_first_piece,
        };
        self.stored = self.sealer.submit(finished, &mut self.timings.wait)?;
        self.timings.write += nanos(begun).saturating_sub(self.timings.wait - waited);
        Ok(())
    }
}

fn put_file_header(raw: &mut Vec<u8>, entry: &Entry) {
    debug_assert_eq!(entry.kind, Kind::File);
    let with_end;
    let body = match &entry.data_ranges {
        None => Body::File(entry.size),
        Some(ranges) => {
            with_end = ending_at_size(ranges, entry.size);
            Body::Sparse(entry.size, &with_end)
        }
    };
    put_header(raw, &Member { path: &entry.path, body, attributes: &entry.attributes });
}

/// GNU tar takes the end of a file that ends with a hole from an empty range there.
fn ending_at_size(ranges: &[DataRange], size: u64) -> Vec<DataRange> {
    let mut with_end = ranges.to_vec();
    if with_end.last().is_none_or(|last| last.offset + last.length < size) {
        with_end.push(DataRange { offset: size, length: 0 });
    }
    with_end
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
