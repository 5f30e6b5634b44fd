//! Where the frames of members stand in the archive that is made.
//!
//! Where the frame table is whole every frame keeps its number and its place, so that what a differential says of its full
//! stays true. Otherwise the frames that were found follow each other in the order of the file.

use std::collections::HashSet;

use super::index::{ByDigest, Index};
use super::survey::Survey;
use crate::entry::{ContentRef, Entry};
use crate::table::FrameInfo;

/// A frame of members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Where it is in the damaged file; `None` when it is gone.
    pub(super) found: Option<FrameInfo>,
    /// What it is in the new archive.
    pub(super) placed: FrameInfo,
    /// Whether the tar goes on here from the slot before, or begins here.
    pub(super) follows: bool,
}

/// All frames of members, by their numbers in the new archive.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) slots: Vec<Slot>,
    /// Whether numbers and places are those of the archive that was damaged.
    pub(super) is_original: bool,
}

impl Layout {
    pub(super) fn of(survey: &Survey, index: &Index) -> Self {
        match &index.frame_table {
            Some(frames) => Self::original(survey, frames),
            None => Self::found(survey, index),
        }
    }

    fn original(survey: &Survey, frames: &[FrameInfo]) -> Self {
        let by_digest: ByDigest =
            survey.frames.iter().enumerate().map(|(number, frame)| (frame.digest, number)).collect();
        let mut follows = true;
        let slots = frames.iter().map(|frame| {
            let found = by_digest.get(&frame.digest).map(|number| survey.frames[*number]);
            let slot = Slot { found, placed: *frame, follows };
            follows = found.is_some();
            slot
        });
        Self { slots: slots.collect(), is_original: true }
    }

    fn found(survey: &Survey, index: &Index) -> Self {
        let of_index: HashSet<usize> = index.frames.iter().copied().collect();
        let mut slots = Vec::new();
        let (mut source_end, mut offset) = (0, 0);
        for stretch in survey.stretches.iter().filter(|stretch| stretch.is_own) {
            for number in stretch.frames.clone().filter(|number| !of_index.contains(number)) {
                let frame = survey.frames[number];
                let placed = FrameInfo { offset, ..frame };
                slots.push(Slot { found: Some(frame), placed, follows: frame.offset == source_end });
                source_end = frame.end();
                offset = placed.end();
            }
        }
        Self { slots, is_original: false }
    }

    pub(super) fn slot(&self, number: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(number).ok()?)
    }

    /// The reference to a content that begins there.
    pub(super) fn refer(&self, number: u64, offset: u32) -> Option<ContentRef> {
        let placed = self.slot(number)?.placed;
        Some(ContentRef { frame: number, frame_offset: placed.offset, frame_length: placed.stored_length, offset })
    }

    /// Where the content that an entry of the old index refers to is now, if all of it is there.
    pub(super) fn keep(&self, entry: &Entry) -> Option<ContentRef> {
        let old = entry.content?;
        let number = if self.is_original {
            old.frame
        } else {
            // Nothing moved if the frame stands where it stood.
            let at = self.slots.partition_point(|slot| slot.found.is_some_and(|found| found.offset < old.frame_offset));
            let found = self.slots.get(at)?.found?;
            if (found.offset, found.stored_length) != (old.frame_offset, old.frame_length) {
                return None;
            }
            at as u64
        };
        let kept = self.refer(number, old.offset)?;
        let moved = Entry { content: Some(kept), ..entry.clone() };
        let spanned = super::frames_of(&moved, |number| Some(self.slot(number)?.placed.raw_length))?;
        let is_there = spanned.clone().all(|number| {
            let slot = self.slot(number);
            slot.is_some_and(|slot| slot.found.is_some() && (number == spanned.start || slot.follows))
        });
        is_there.then_some(kept)
    }
}
