//! The index while it grows: blocks and chunks of the frame table, compressed, in unnamed temporary files.
//!
//! Memory holds the block at hand, the chunk at hand, and a line for each finished block and chunk. At the end everything
//! is copied into the archive as one tar member, followed by the table, the two zero blocks that end a tar, and the footer.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::path::Path;

use super::sealer::SealError;
use crate::block::{BlockBuilder, stored_digest};
use crate::codec::{Codec, CodecError, Compressor, MAX_FRAME_BYTES};
use crate::cursor::pad_to_block;
use crate::digest::Digest;
use crate::entry::{Entry, FileTime};
use crate::file::SealedFile;
use crate::footer::{FORMAT_VERSION, Footer};
use crate::header::{Header, MAX_HEADER_BYTES};
use crate::spool;
use crate::table::{BlockInfo, ChunkInfo, Counts, FRAMES_PER_CHUNK, FrameInfo, Table, encode_chunk};
use crate::tar::{BLOCK, Body, Member, own_attributes, put_header};

/// See the module.
pub(crate) struct IndexWriter {
    codec: Codec,
    compressor: Compressor,
    stored: Vec<u8>,
    block: BlockBuilder,
    /// Offsets in these are wrong until the end: only then is it known where the index begins.
    blocks: Vec<BlockInfo>,
    block_spool: File,
    frames: Vec<FrameInfo>,
    frame_count: u64,
    chunks: Vec<ChunkInfo>,
    chunk_spool: File,
    entries: u64,
}

/// What the footer says of the content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl IndexWriter {
    pub(crate) fn new(folder: &Path, codec: Codec, level: i32) -> Result<Self, SealError> {
        Ok(Self {
            codec,
            compressor: Compressor::new(codec, level).map_err(SealError::Codec)?,
            stored: Vec::new(),
            block: BlockBuilder::default(),
            blocks: Vec::new(),
            block_spool: spool::unnamed(folder).map_err(SealError::Spool)?,
            frames: Vec::new(),
            frame_count: 0,
            chunks: Vec::new(),
            chunk_spool: spool::unnamed(folder).map_err(SealError::Spool)?,
            entries: 0,
        })
    }

    /// Adds the next entry in path order.
    pub(crate) fn push(&mut self, entry: &Entry) -> Result<(), SealError> {
        self.block.push(entry);
        self.entries += 1;
        if self.block.is_full() { self.close_block() } else { Ok(()) }
    }

    /// Adds the next frame of members; gives its number.
    pub(crate) fn frame(&mut self, info: FrameInfo) -> Result<u64, SealError> {
        self.frames.push(info);
        self.frame_count += 1;
        if self.frames.len() == FRAMES_PER_CHUNK {
            self.close_chunk()?;
        }
        Ok(self.frame_count - 1)
    }

    fn close_block(&mut self) -> Result<(), SealError> {
        if let Some(block) = self.block.take() {
            let frame = self.compress(&block.raw)?;
            self.block_spool.write_all(&self.stored).map_err(SealError::Spool)?;
            self.blocks.push(BlockInfo { first_path: block.first_path, entries: block.entries, frame });
        }
        Ok(())
    }

    fn close_chunk(&mut self) -> Result<(), SealError> {
        if let Some(first) = self.frames.first() {
            let (frames, first_offset) = (self.frames.len() as u64, first.offset);
            let raw = encode_chunk(&self.frames);
            self.frames.clear();
            let frame = self.compress(&raw)?;
            self.chunk_spool.write_all(&self.stored).map_err(SealError::Spool)?;
            self.chunks.push(ChunkInfo { frames, first_offset, frame });
        }
        Ok(())
    }

    /// Compresses into `self.stored`.
    fn compress(&mut self, raw: &[u8]) -> Result<FrameInfo, SealError> {
        self.compressor.compress(raw, &mut self.stored).map_err(SealError::Codec)?;
        Ok(FrameInfo {
            offset: 0,
            stored_length: length_of(&self.stored)?,
            raw_length: length_of(raw)?,
            digest: stored_digest(&self.stored),
        })
    }

    /// Writes index, end of tar and footer.
    pub(crate) fn finish(mut self, header: &Header, totals: Totals, out: &mut SealedFile) -> Result<Footer, SealError> {
        self.close_block()?;
        self.close_chunk()?;
        let counts = Counts {
            level: header.level as u64,
            dot_coord: u64::from(header.dot_coord),
            entries: self.entries,
            files: totals.files,
            bytes: totals.bytes,
            frames: self.frame_count,
        };
        let nowhere =
            FrameInfo { offset: out.written(), stored_length: 0, raw_length: BLOCK as u32, digest: Digest([0; 32]) };
        let blocks = std::mem::take(&mut self.blocks);
        let chunks = std::mem::take(&mut self.chunks);
        let mut table = Table { counts, head: nowhere, blocks, chunks };
        // Frames have a fixed width in the table, so its length is known before the head is.
        let table_length = table.encode().len().next_multiple_of(BLOCK) as u64;
        let head = head_record(header, table_length, &table)?;
        table.head = FrameInfo { offset: nowhere.offset, ..self.compress(&head)? };
        out.write_all(&self.stored).map_err(SealError::Sink)?;
        copy_spool(&mut self.block_spool, out)?;
        copy_spool(&mut self.chunk_spool, out)?;
        self.write_table(&table, header, out)
    }

    fn write_table(&mut self, table: &Table, header: &Header, out: &mut SealedFile) -> Result<Footer, SealError> {
        let mut raw = table.encode();
        pad_to_block(&mut raw);
        // The table ends the index member; two zero blocks end the tar.
        raw.resize(raw.len() + 2 * BLOCK, 0);
        let table_offset = out.written();
        let frame = self.compress(&raw)?;
        out.write_all(&self.stored).map_err(SealError::Sink)?;
        let footer_length = Footer::stored_length(self.codec) as u64;
        let footer = Footer {
            version: FORMAT_VERSION,
            codec: self.codec,
            level: header.level,
            dot_coord: header.dot_coord,
            table_offset,
            table_length: frame.stored_length,
            entries: table.counts.entries,
            files: table.counts.files,
            bytes: table.counts.bytes,
            frames: table.counts.frames,
            stored_bytes: out.written() + footer_length,
            archive_digest: frame.digest,
        };
        out.write_all(&footer.encode()).map_err(SealError::Sink)?;
        Ok(footer)
    }
}

/// The tar header of the index member, and behind it the archive's header: its length, then JSON.
fn head_record(header: &Header, table_length: u64, table: &Table) -> Result<Vec<u8>, SealError> {
    let json = serde_json::to_vec(header).map_err(|error| SealError::Spool(error.into()))?;
    if json.len() > MAX_HEADER_BYTES {
        let found = json.len() as u64;
        return Err(SealError::Codec(CodecError::TooLarge { found, limit: MAX_HEADER_BYTES }));
    }
    let mut record = length_of(&json)?.to_le_bytes().to_vec();
    record.extend(json);
    pad_to_block(&mut record);
    let parts = table.blocks.iter().map(|block| &block.frame).chain(table.chunks.iter().map(|chunk| &chunk.frame));
    let size = record.len() as u64 + table_length + parts.map(|frame| u64::from(frame.raw_length)).sum::<u64>();
    let path = format!("{}/index", header.dot_coord_name());
    let mtime = FileTime { seconds: header.scan_started_at.as_second(), nanos: 0 };
    let attributes = own_attributes(mtime);
    let mut head = Vec::new();
    put_header(&mut head, &Member { path: path.as_bytes(), body: Body::File(size), attributes: &attributes });
    head.extend(record);
    Ok(head)
}

fn copy_spool(spool: &mut File, out: &mut SealedFile) -> Result<(), SealError> {
    spool.rewind().map_err(SealError::Spool)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match spool.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => out.write_all(&buffer[..count]).map_err(SealError::Sink)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SealError::Spool(error)),
        }
    }
}

fn length_of(bytes: &[u8]) -> Result<u32, SealError> {
    let too_large = CodecError::TooLarge { found: bytes.len() as u64, limit: MAX_FRAME_BYTES };
    u32::try_from(bytes.len()).map_err(|_| SealError::Codec(too_large))
}
