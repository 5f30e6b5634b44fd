//! Which frames have to be looked at, and what lies in each.
//!
//! Contents lie in the order of their paths, so one pass over the index gives every frame its files. What does not follow
//! that order, or does not lie piece by piece in frames, is read on its own.

use std::sync::Arc;

use super::blocks::Blocks;
use super::content::{Run, may_be_sample, runs};
use crate::digest::{Digest, PIECE_BYTES, merge_pieces, piece_value};
use crate::entry::{ContentRef, Entry, Flags, Kind};
use crate::header::Level;
use crate::reader::ArchiveReader;
use crate::table::FrameInfo;

/// A piece of work for one thread.
#[derive(Debug)]
pub(super) enum Job {
    /// Decompress a frame and check what lies in it.
    Frame { number: u64, spans: Vec<Span> },
    /// Read one content through all its frames.
    Long(Arc<Entry>),
    /// Read a part of one.
    Run(Run),
    /// Find a file by its path and read it as a restore of it alone would.
    Sample(Vec<u8>),
    /// A file whose reference leads nowhere.
    Unreachable(Vec<u8>),
}

/// A content, or a piece of one, within a frame.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) path: Vec<u8>,
    pub(super) length: usize,
    offset: usize,
    /// Number of the piece; `None` for a content that is whole.
    piece: Option<u64>,
    digest: Digest,
}

impl Span {
    /// Whether a file begins here.
    pub(super) fn is_first(&self) -> bool {
        self.piece.is_none_or(|piece| piece == 0)
    }

    /// Whether the frame holds what it should.
    pub(super) fn matches(&self, raw: &[u8]) -> bool {
        let Some(bytes) = raw.get(self.offset..).and_then(|rest| rest.get(..self.length)) else { return false };
        let found = match self.piece {
            None => Digest::of(bytes),
            Some(number) => piece_value(number, bytes),
        };
        found == self.digest
    }
}

/// See the module.
pub(super) struct Planner<'a> {
    reader: &'a ArchiveReader,
    blocks: &'a Blocks<'a>,
    frame: u64,
    spans: Vec<Span>,
    last: Option<(u64, u32)>,
    wanted_samples: usize,
    samples: Vec<Vec<u8>>,
    damaged_blocks: u64,
}

/// Takes jobs; `false` ends the planning.
type Give<'g> = &'g mut dyn FnMut(Job) -> bool;

impl<'a> Planner<'a> {
    pub(super) fn new(reader: &'a ArchiveReader, blocks: &'a Blocks<'a>, wanted_samples: usize) -> Self {
        Self {
            reader,
            blocks,
            frame: 0,
            spans: Vec::new(),
            last: None,
            wanted_samples,
            samples: Vec::new(),
            damaged_blocks: 0,
        }
    }

    pub(super) fn damaged_blocks(&self) -> u64 {
        self.damaged_blocks
    }

    /// Goes through the index and gives out all jobs.
    pub(super) fn run(&mut self, give: Give<'_>) {
        let blocks = self.reader.block_count();
        for number in 0..blocks {
            let Ok(entries) = self.blocks.read(number) else {
                self.damaged_blocks += 1;
                continue;
            };
            // As many samples as asked for, spread over the blocks.
            let due = (number + 1) * self.wanted_samples / blocks;
            let stride = (entries.len() / (due - self.samples.len()).max(1)).max(1);
            for (at, entry) in entries.iter().enumerate() {
                if self.samples.len() < due && at % stride == 0 && self.may_be_sample(entry) {
                    self.samples.push(entry.path.clone());
                }
                if !self.plan(entry, give) {
                    return;
                }
            }
        }
        while self.frame < self.reader.frame_count() {
            if !self.close_frame(give) {
                return;
            }
        }
        std::mem::take(&mut self.samples).into_iter().all(|path| give(Job::Sample(path)));
    }

    fn plan(&mut self, entry: &Entry, give: Give<'_>) -> bool {
        if !is_stored(self.reader, entry) {
            return true;
        }
        let (Some(content), Some(digest)) = (entry.content, entry.digest) else {
            return entry.stored_bytes() == 0 || give(Job::Unreachable(entry.path.clone()));
        };
        let place = (content.frame, content.offset);
        if entry.link_group != 0 && self.last.is_some_and(|last| place <= last) {
            // Another name of a content that was met before.
            return true;
        }
        // A restore of this file alone goes where the entry says, and not by the frame table.
        if self.reader.frame_info(content.frame).ok().is_none_or(|info| !is_at(&content, &info)) {
            return give(Job::Unreachable(entry.path.clone()));
        }
        if content.frame < self.frame || self.last.is_some_and(|last| place <= last) {
            return self.plan_alone(entry, &content, give);
        }
        self.last = Some(place);
        while self.frame < content.frame {
            if !self.close_frame(give) {
                return false;
            }
        }
        if entry.data_ranges.is_none() && self.is_in_one_frame(&content, entry.size) {
            // Bounded by the frame's length.
            let (length, offset) = (entry.size as usize, content.offset as usize);
            self.spans.push(Span { path: entry.path.clone(), length, offset, piece: None, digest });
            return true;
        }
        if self.is_in_pieces(entry, &content) {
            return self.plan_pieces(entry, give);
        }
        self.plan_alone(entry, &content, give)
    }

    /// What does not lie in frames as it should is read by itself.
    fn plan_alone(&self, entry: &Entry, content: &ContentRef, give: Give<'_>) -> bool {
        let entry = Arc::new(entry.clone());
        match runs(self.reader, &entry, content) {
            Some(runs) => runs.into_iter().all(|run| give(Job::Run(run))),
            None => give(Job::Long(entry)),
        }
    }

    fn plan_pieces(&mut self, entry: &Entry, give: Give<'_>) -> bool {
        let last = entry.pieces.len() - 1;
        for (index, digest) in entry.pieces.iter().enumerate() {
            let start = index as u64 * PIECE_BYTES;
            let length = (entry.size - start).min(PIECE_BYTES) as usize;
            let path = entry.path.clone();
            self.spans.push(Span { path, length, offset: 0, piece: Some(index as u64), digest: *digest });
            if index < last && !self.close_frame(give) {
                return false;
            }
        }
        true
    }

    fn close_frame(&mut self, give: Give<'_>) -> bool {
        let job = Job::Frame { number: self.frame, spans: std::mem::take(&mut self.spans) };
        self.frame += 1;
        give(job)
    }

    fn may_be_sample(&self, entry: &Entry) -> bool {
        is_stored(self.reader, entry) && may_be_sample(entry)
    }

    fn is_in_one_frame(&self, content: &ContentRef, size: u64) -> bool {
        self.reader
            .frame_info(content.frame)
            .ok()
            .zip(u64::from(content.offset).checked_add(size))
            .is_some_and(|(info, end)| end <= u64::from(info.raw_length))
    }

    /// Whether piece after piece begins a frame after frame, and the pieces make up the digest.
    fn is_in_pieces(&self, entry: &Entry, content: &ContentRef) -> bool {
        let count = entry.pieces.len() as u64;
        entry.data_ranges.is_none()
            && content.offset == 0
            && count == entry.size.div_ceil(PIECE_BYTES)
            && merge_pieces(&entry.pieces) == entry.digest
            && content.frame.checked_add(count).is_some_and(|end| end <= self.reader.frame_count())
            && (0..count - 1).all(|index| {
                let info = self.reader.frame_info(content.frame + index);
                info.is_ok_and(|info| u64::from(info.raw_length) == PIECE_BYTES)
            })
    }
}

fn is_at(content: &ContentRef, info: &FrameInfo) -> bool {
    (content.frame_offset, content.frame_length) == (info.offset, info.stored_length)
}

/// Whether the entry's content has to be in this archive.
fn is_stored(reader: &ArchiveReader, entry: &Entry) -> bool {
    let in_base = entry.flags.contains(Flags::CONTENT_IN_BASE) && reader.header().level == Level::Differential;
    entry.kind == Kind::File && !in_base && entry.digest.is_some()
}
