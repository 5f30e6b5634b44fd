//! The table: what the footer points to and what finds everything else.
//!
//! It lists the index blocks with their first paths and the chunks of the frame table, each with the digest of its stored
//! bytes, and repeats the footer's counts. Its own digest, in the footer, therefore covers every stored byte before it.

use crate::codec::MAX_FRAME_BYTES;
use crate::cursor::{Cursor, Malformed, put_bytes, put_u64};
use crate::digest::Digest;
use crate::entry::{MAX_PATH_BYTES, cmp_paths, is_clean_path};

/// Most bytes of first paths in one table, as they are in memory: what a path shares with the one before takes nothing in the table.
const MAX_PATHS_BYTES: usize = 64 << 20;

/// Frames listed in one chunk of the frame table.
pub(crate) const FRAMES_PER_CHUNK: usize = 16 << 10;

/// A frame and how to check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Where it begins in the stored archive, in bytes.
    pub offset: u64,
    /// Its stored length.
    pub stored_length: u32,
    /// Its decompressed length.
    pub raw_length: u32,
    /// BLAKE3 of its stored bytes.
    pub digest: Digest,
}

impl FrameInfo {
    /// Where the next frame begins.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.stored_length))
    }
}

/// An index block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Path of its first entry.
    pub first_path: Vec<u8>,
    /// How many entries it holds.
    pub entries: u64,
    /// Where it is.
    pub frame: FrameInfo,
}

/// A chunk of the frame table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkInfo {
    /// How many frames it lists.
    pub(crate) frames: u64,
    /// Where the first of them begins.
    pub(crate) first_offset: u64,
    /// Where the chunk is.
    pub(crate) frame: FrameInfo,
}

/// Counts that footer and table must agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) level: u64,
    pub(crate) dot_coord: u64,
    pub(crate) entries: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) frames: u64,
}

/// The decoded table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) counts: Counts,
    /// The frame with the tar header of the index member and the archive's header.
    pub(crate) head: FrameInfo,
    pub(crate) blocks: Vec<BlockInfo>,
    pub(crate) chunks: Vec<ChunkInfo>,
}

impl Table {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let counts = &self.counts;
        for number in [counts.level, counts.dot_coord, counts.entries, counts.files, counts.bytes, counts.frames] {
            put_u64(&mut out, number);
        }
        put_u64(&mut out, self.head.offset);
        put_frame(&mut out, &self.head);
        put_u64(&mut out, self.blocks.len() as u64);
        let mut previous: &[u8] = &[];
        for block in &self.blocks {
            let shared = block.first_path.iter().zip(previous).take_while(|(a, b)| a == b).count();
            put_u64(&mut out, shared as u64);
            put_bytes(&mut out, &block.first_path[shared..]);
            put_u64(&mut out, block.entries);
            put_frame(&mut out, &block.frame);
            previous = &block.first_path;
        }
        put_u64(&mut out, self.chunks.len() as u64);
        for chunk in &self.chunks {
            put_u64(&mut out, chunk.frames);
            put_u64(&mut out, chunk.first_offset);
            put_frame(&mut out, &chunk.frame);
        }
        out
    }

    /// Reads a table. Head, blocks and chunks follow each other without a gap, so only the head's offset is stored.
    pub(crate) fn decode(raw: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(raw);
        let counts = Counts {
            level: cursor.u64()?,
            dot_coord: cursor.u64()?,
            entries: cursor.u64()?,
            files: cursor.u64()?,
            bytes: cursor.u64()?,
            frames: cursor.u64()?,
        };
        let head_offset = cursor.u64()?;
        let head = take_frame(&mut cursor, head_offset)?;
        let mut end = head.end();
        let blocks = decode_blocks(&mut cursor, &mut end)?;
        let count = cursor.count(42)?;
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            let (frames, first_offset) = (cursor.u64()?, cursor.u64()?);
            let frame = take_frame(&mut cursor, end)?;
            end = frame.end();
            chunks.push(ChunkInfo { frames, first_offset, frame });
        }
        let table = Self { counts, head, blocks, chunks };
        table.check()?;
        Ok(table)
    }

    /// Where the table frame itself has to begin.
    pub(crate) fn end(&self) -> u64 {
        let last_block = self.blocks.last().map(|block| block.frame.end());
        self.chunks.last().map(|chunk| chunk.frame.end()).or(last_block).unwrap_or(self.head.end())
    }

    fn check(&self) -> Result<(), Malformed> {
        let entries = self.blocks.iter().try_fold(0_u64, |sum, block| sum.checked_add(block.entries));
        let frames = self.chunks.iter().try_fold(0_u64, |sum, chunk| sum.checked_add(chunk.frames));
        if entries != Some(self.counts.entries) || frames != Some(self.counts.frames) {
            return Err(Malformed("the table's counts do not add up"));
        }
        let whole_chunks = self.chunks.split_last().is_none_or(|(last, others)| {
            others.iter().all(|chunk| chunk.frames == FRAMES_PER_CHUNK as u64)
                && (1..=FRAMES_PER_CHUNK as u64).contains(&last.frames)
        });
        let ascending = self.blocks.windows(2).all(|pair| cmp_paths(&pair[0].first_path, &pair[1].first_path).is_lt());
        if whole_chunks && ascending { Ok(()) } else { Err(Malformed("the table is not in order")) }
    }
}

fn decode_blocks(cursor: &mut Cursor<'_>, end: &mut u64) -> Result<Vec<BlockInfo>, Malformed> {
    let count = cursor.count(43)?;
    let mut blocks: Vec<BlockInfo> = Vec::new();
    let mut path_bytes = 0_usize;
    for _ in 0..count {
        let shared = usize::try_from(cursor.u64()?).map_err(|_| Malformed("a path is too long"))?;
        let previous = blocks.last().map_or(&[][..], |block| &block.first_path);
        let prefix = previous.get(..shared).ok_or(Malformed("a path shares more than there is"))?;
        let suffix = cursor.bytes()?;
        if prefix.len() + suffix.len() > MAX_PATH_BYTES {
            return Err(Malformed("a path is too long"));
        }
        path_bytes += prefix.len() + suffix.len();
        if path_bytes > MAX_PATHS_BYTES {
            return Err(Malformed("the table's paths are too long together"));
        }
        let first_path = [prefix, suffix].concat();
        if !is_clean_path(&first_path) {
            return Err(Malformed("a path is not clean"));
        }
        let entries = cursor.u64()?;
        let frame = take_frame(cursor, *end)?;
        *end = frame.end();
        blocks.push(BlockInfo { first_path, entries, frame });
    }
    Ok(blocks)
}

/// 40 bytes, whatever the values.
fn put_frame(out: &mut Vec<u8>, frame: &FrameInfo) {
    out.extend(frame.stored_length.to_le_bytes());
    out.extend(frame.raw_length.to_le_bytes());
    out.extend(frame.digest.0);
}

fn take_frame(cursor: &mut Cursor<'_>, offset: u64) -> Result<FrameInfo, Malformed> {
    let lengths = cursor.take(8)?;
    let number = |at: usize| u32::from_le_bytes([lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]]);
    let frame = FrameInfo { offset, stored_length: number(0), raw_length: number(4), digest: cursor.digest()? };
    check_frame(&frame)?;
    Ok(frame)
}

fn check_frame(frame: &FrameInfo) -> Result<(), Malformed> {
    let plausible = frame.raw_length as usize <= MAX_FRAME_BYTES
        && frame.raw_length != 0
        && frame.raw_length.is_multiple_of(512)
        && frame.stored_length as usize <= 2 * MAX_FRAME_BYTES
        && frame.offset.checked_add(u64::from(frame.stored_length)).is_some();
    if plausible { Ok(()) } else { Err(Malformed("a frame's lengths are impossible")) }
}

/// The raw form of a chunk: 40 bytes for each frame.
pub(crate) fn encode_chunk(frames: &[FrameInfo]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.len() * 40 + 512);
    frames.iter().for_each(|frame| put_frame(&mut out, frame));
    crate::cursor::pad_to_block(&mut out);
    out
}

/// Reads the frames that `chunk` lists.
pub(crate) fn decode_chunk(raw: &[u8], chunk: &ChunkInfo) -> Result<Vec<FrameInfo>, Malformed> {
    let mut cursor = Cursor::new(raw);
    let mut frames = Vec::new();
    let mut offset = chunk.first_offset;
    for _ in 0..chunk.frames {
        let frame = take_frame(&mut cursor, offset)?;
        offset = frame.end();
        frames.push(frame);
    }
    Ok(frames)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(offset: u64, stored_length: u32) -> FrameInfo {
        FrameInfo { offset, stored_length, raw_length: 1024, digest: Digest::of(&stored_length.to_le_bytes()) }
    }

    fn table() -> Table {
        let counts = Counts { level: 1, dot_coord: 0, entries: 30, files: 9, bytes: 99, frames: 3 };
        let head = frame(1000, 10);
        let blocks = vec![
            BlockInfo { first_path: Vec::new(), entries: 10, frame: frame(1010, 20) },
            BlockInfo { first_path: b"a/b".to_vec(), entries: 20, frame: frame(1030, 30) },
        ];
        let chunks = vec![ChunkInfo { frames: 3, first_offset: 0, frame: frame(1060, 40) }];
        Table { counts, head, blocks, chunks }
    }

    #[test]
    fn a_table_and_its_chunks_come_back() {
        assert_eq!(Table::decode(&table().encode()).unwrap(), table());
        assert_eq!(table().end(), 1100);
        let frames = [frame(0, 300), frame(300, 300), frame(600, 400)];
        assert_eq!(decode_chunk(&encode_chunk(&frames), &table().chunks[0]).unwrap(), frames);
    }

    #[test]
    fn counts_that_do_not_add_up_are_refused() {
        for change in [|table: &mut Table| table.counts.entries += 1, |table: &mut Table| table.counts.frames -= 1] {
            let mut wrong = table();
            change(&mut wrong);
            assert!(Table::decode(&wrong.encode()).is_err());
        }
        let mut wrong = table();
        wrong.blocks.swap(0, 1);
        assert!(Table::decode(&wrong.encode()).is_err());
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
            let mut raw = table().encode();
            for (at, byte) in changes {
                let at = at.index(raw.len());
                raw[at] = byte;
            }
            if let Ok(table) = Table::decode(&raw) {
                let _may_fail = table.chunks.first().map(|chunk| decode_chunk(&raw, chunk).is_ok());
            }
        }
    }
}
