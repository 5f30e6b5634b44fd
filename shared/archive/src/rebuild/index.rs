//! What is left of the index: header, table, frame table, blocks.
//!
//! A table is believed when the archive's own frames are in it; from then on everything it names is known by its digest,
//! wherever in the file it stands now. Without a table, the frames behind the header's frame are taken as blocks as long as
//! they read as such.

use std::collections::HashMap;

use super::RebuildError;
use super::frames::Finder;
use super::survey::Survey;
use crate::block;
use crate::digest::Digest;
use crate::header::{Header, dot_coord_name};
use crate::reader::decode_head;
use crate::table::{self, FrameInfo, Table};
use crate::tar::{BLOCK, read};

/// A block of the index that is still there.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Where it is now.
    pub(super) frame: FrameInfo,
    /// Whether nothing of the index lies between the block before this one, or the beginning, and this one.
    pub(super) follows: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) header: Option<Header>,
    /// The table with its own frame, as it stands now.
    pub(super) table: Option<(Table, FrameInfo)>,
    /// Frames of members as they were, if the frame table is whole.
    pub(super) frame_table: Option<Vec<FrameInfo>>,
    /// In path order.
    pub(super) blocks: Vec<Block>,
    /// Whether there is nothing of the index behind the last block.
    pub(super) ends_with_last: bool,
    /// What the archive was called by its digest, if that is known.
    pub(super) archive_digest: Option<Digest>,
    /// Numbers of the frames that are index, in the order of the file.
    pub(super) frames: Vec<usize>,
}

/// The frames of a file by their digests.
pub(super) type ByDigest = HashMap<Digest, usize>;

impl Index {
    /// Looks for what is left. Stretches whose frames the table knows become the archive's own.
    pub(super) fn find(survey: &mut Survey, finder: &mut Finder<'_>) -> Result<Self, RebuildError> {
        let by_digest: ByDigest =
            survey.frames.iter().enumerate().rev().map(|(number, frame)| (frame.digest, number)).collect();
        let mut index = Self::default();
        for at in (0..survey.tables.len()).rev() {
            if index.take_table(at, survey, finder, &by_digest)? {
                break;
            }
        }
        if index.table.is_some() {
            index.adopt(survey, &by_digest);
            index.known_blocks(survey, finder, &by_digest)?;
        } else {
            index.blocks_behind_head(survey, finder)?;
            index.archive_digest = survey.footers.last().map(|(_, footer)| footer.archive_digest);
        }
        index.frames.sort_unstable();
        index.frames.dedup();
        Ok(index)
    }

    /// Whether every part of the index is there.
    pub(super) fn is_whole(&self) -> bool {
        let blocks = self.table.as_ref().map(|(table, _)| table.blocks.len());
        self.header.is_some() && self.frame_table.is_some() && blocks == Some(self.blocks.len())
    }

    /// Whether every name that was in the archive is in the blocks that are left.
    pub(super) fn is_all_blocks(&self) -> bool {
        self.ends_with_last && self.blocks.iter().all(|block| block.follows)
    }

    /// Takes a table, if it is this archive's.
    fn take_table(
        &mut self,
        at: usize,
        survey: &Survey,
        finder: &mut Finder<'_>,
        by_digest: &ByDigest,
    ) -> Result<bool, RebuildError> {
        let (number, table) = &survey.tables[at];
        let mut frames = Vec::new();
        let mut is_whole = true;
        for chunk in &table.chunks {
            let Some(found) = by_digest.get(&chunk.frame.digest) else {
                is_whole = false;
                continue;
            };
            finder.read_frame(&survey.frames[*found])?;
            match table::decode_chunk(finder.raw(), chunk) {
                Ok(listed) => frames.extend(listed),
                Err(_) => is_whole = false,
            }
        }
        let begins_at_zero = frames.first().is_none_or(|frame| frame.offset == 0);
        let without_gap = frames.windows(2).all(|pair| pair[0].end() == pair[1].offset);
        let reaches_head = frames.last().map_or(0, FrameInfo::end) == table.head.offset;
        let is_known = |frame: &FrameInfo| by_digest.get(&frame.digest).is_some_and(|found| survey.is_own(*found));
        if !survey.is_own(*number) && !frames.iter().any(is_known) {
            return Ok(false);
        }
        let is_complete = is_whole && begins_at_zero && without_gap && reaches_head;
        self.frame_table = is_complete.then_some(frames);
        let frame = survey.frames[*number];
        self.archive_digest = Some(frame.digest);
        self.table = Some((table.clone(), frame));
        Ok(true)
    }

    /// Makes the archive's own whatever the table knows.
    fn adopt(&self, survey: &mut Survey, by_digest: &ByDigest) {
        let Some((table, own)) = &self.table else { return };
        let listed = self.frame_table.iter().flatten().chain([&table.head]);
        let chunks = table.chunks.iter().map(|chunk| &chunk.frame);
        let known = listed.chain(table.blocks.iter().map(|block| &block.frame)).chain(chunks).chain([own]);
        let mut numbers: Vec<usize> = known.filter_map(|frame| by_digest.get(&frame.digest).copied()).collect();
        numbers.sort_unstable();
        for stretch in &mut survey.stretches {
            let from = numbers.partition_point(|number| *number < stretch.frames.start);
            stretch.is_own |= numbers.get(from).is_some_and(|number| *number < stretch.frames.end);
        }
    }

    fn known_blocks(
        &mut self,
        survey: &Survey,
        finder: &mut Finder<'_>,
        by_digest: &ByDigest,
    ) -> Result<(), RebuildError> {
        let Some((table, own)) = &self.table else { return Ok(()) };
        let parts = [&table.head, own].into_iter().chain(table.chunks.iter().map(|chunk| &chunk.frame));
        self.frames.extend(parts.filter_map(|part| by_digest.get(&part.digest).copied()));
        if let Some(head) = by_digest.get(&table.head.digest) {
            finder.read_frame(&survey.frames[*head])?;
            self.header = head_of(finder.raw());
        }
        let mut follows = true;
        for block in &table.blocks {
            let Some(found) = by_digest.get(&block.frame.digest) else {
                follows = false;
                continue;
            };
            self.frames.push(*found);
            self.blocks.push(Block { frame: survey.frames[*found], follows });
            follows = true;
        }
        self.ends_with_last = follows;
        Ok(())
    }

    /// Without a table: blocks follow the header's frame, chunks follow blocks, and nothing says how many there were.
    fn blocks_behind_head(&mut self, survey: &Survey, finder: &mut Finder<'_>) -> Result<(), RebuildError> {
        let Some((head, header)) = survey.heads.iter().rev().find(|(number, _)| survey.is_own(*number)) else {
            return Ok(());
        };
        self.header = Some(header.clone());
        let stretch = survey.stretches.iter().find(|stretch| stretch.frames.contains(head));
        let end = stretch.map_or(*head, |stretch| stretch.frames.end);
        self.frames.extend(*head..end);
        let mut last: Option<Vec<u8>> = None;
        for frame in &survey.frames[*head + 1..end] {
            finder.read_frame(frame)?;
            let Ok(entries) = block::decode(finder.raw()) else { break };
            let (Some(first), Some(end)) = (entries.first(), entries.last()) else { break };
            if last.as_ref().is_some_and(|last| crate::entry::cmp_paths(last, &first.path).is_ge()) {
                break;
            }
            self.blocks.push(Block { frame: *frame, follows: true });
            last = Some(end.path.clone());
        }
        Ok(())
    }
}

/// The archive's header, if this is the frame that holds it and nothing else.
pub(super) fn head_of(raw: &[u8]) -> Option<Header> {
    let (member, length) = read::parse(raw)?;
    let header = decode_head(raw)?;
    let is_index = member.path == format!("{}/index", dot_coord_name(header.dot_coord)).as_bytes();
    // Length and JSON fill the rest.
    let stated = u32::from_le_bytes(raw.get(length..length + 4)?.try_into().ok()?) as usize;
    let fills = length + (4 + stated).next_multiple_of(BLOCK) == raw.len();
    (is_index && fills).then_some(header)
}
