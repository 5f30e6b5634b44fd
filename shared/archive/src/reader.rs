//! Reading an archive: from the footer to the table, to an index block, to a frame.
//!
//! [`ArchiveReader::open`] succeeds only when footer, table and header agree with each other and with the file's length.
//! Every block, chunk and frame is checked against its digest before it is decompressed. All methods work on `&self` and
//! from several threads. Files' digests are checked by whoever reads contents (`verify`, `unpack`), not here.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::block::{self, BlockError};
use crate::codec::{Codec, CodecError, Decompressor, MAX_FRAME_BYTES};
use crate::entry::{Entry, Kind, cmp_paths, is_at_or_below};
use crate::footer::{Footer, FooterError, MAX_FOOTER_BYTES};
use crate::glance::Glances;
use crate::header::{Header, MAX_HEADER_BYTES};
use crate::table::{self, BlockInfo, FRAMES_PER_CHUNK, FrameInfo, Table};
use crate::tar;
use tail::Tailed;

mod content;
mod tail;

pub use content::{Content, StoredContent};

/// Zeros that end a tar.
const TAR_END: usize = 1024;

/// Chunks of the frame table that are kept in memory at most; each describes some 32 GB of content.
const MAX_CACHED_CHUNKS: usize = 4;

/// Something that can be read at any place: a file, a range-reading client, bytes in memory.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` from `offset` on, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Length of the whole, in bytes.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = usize::try_from(offset)
            .ok()
            .and_then(|from| self.get(from..from.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(range);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// Why an archive, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused; the archive itself may be whole.
    #[error("cannot read the archive at byte {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No usable footer.
    #[error("the archive cannot be opened")]
    Footer(#[source] FooterError),
    /// Footer, table, header and length do not agree.
    #[error("the archive is damaged: {0}")]
    Inconsistent(&'static str),
    /// Stored bytes are not those that were written.
    #[error("{part} at byte {offset} is damaged: its digest is wrong")]
    Digest {
        /// Which part.
        part: Part,
        /// Where it begins.
        offset: u64,
    },
    /// Stored bytes are those that were written, but do not decompress.
    #[error("{part} at byte {offset} does not decompress")]
    Codec {
        /// Which part.
        part: Part,
        /// Where it begins.
        offset: u64,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// A block that breaks the format.
    #[error("index block {number} cannot be used")]
    Block {
        /// Which block.
        number: usize,
        /// Why.
        #[source]
        source: BlockError,
    },
    /// The archive has no such block or frame, or an entry refers outside the archive.
    #[error("there is no {part} {number}")]
    NoSuchPart {
        /// What was asked for.
        part: Part,
        /// Its number.
        number: u64,
    },
    /// The entry's content is not in this archive.
    #[error("the content of {} is not in this archive", crate::header::escape(path))]
    NoContent {
        /// The entry.
        path: Vec<u8>,
    },
}

impl ReadError {
    /// Whether the archive is damaged, as opposed to a failure of the system that a second try may not have.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::UnexpectedEof,
            Self::NoContent { .. } | Self::Footer(FooterError::Unsupported(_)) => false,
            Self::Footer(FooterError::Missing | FooterError::Damaged)
            | Self::Inconsistent(_)
            | Self::Digest { .. }
            | Self::Codec { .. }
            | Self::Block { .. }
            | Self::NoSuchPart { .. } => true,
        }
    }
}

/// A part of an archive, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A frame of members.
    Frame,
    /// The table.
    Table,
    /// The header's frame.
    Header,
    /// A block of the index.
    Block,
    /// A chunk of the frame table.
    Chunk,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Frame => "frame",
            Self::Table => "table",
            Self::Header => "header",
            Self::Block => "index block",
            Self::Chunk => "frame table chunk",
        })
    }
}

/// An open archive.
pub struct ArchiveReader {
    store: Tailed,
    footer: Footer,
    header: Header,
    table: Table,
    chunks: Mutex<VecDeque<(usize, Arc<Vec<FrameInfo>>)>>,
    idle: Mutex<Vec<Scratch>>,
}

/// Working memory for one frame, used again and again.
struct Scratch {
    decompressor: Decompressor,
    stored: Vec<u8>,
}

impl ArchiveReader {
    /// Opens the archive file at `path`.
    pub fn open_path(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Io { offset: 0, source })?;
        Self::open(Box::new(file))
    }

    /// Opens an archive: reads footer, table and header, and checks that they agree.
    pub fn open(store: Box<dyn ReadAt>) -> Result<Self, ReadError> {
        let store = Tailed::read(store)?;
        let size = store.len();
        let footer = Footer::decode(store.last(MAX_FOOTER_BYTES)).map_err(ReadError::Footer)?;
        let footer_length = Footer::stored_length(footer.codec) as u64;
        let table_end = footer.table_offset.checked_add(u64::from(footer.table_length));
        if footer.table_length as usize > 2 * MAX_FRAME_BYTES {
            return Err(ReadError::Inconsistent("its table is impossibly large"));
        }
        if footer.stored_bytes != size || table_end.is_none() || table_end != size.checked_sub(footer_length) {
            return Err(ReadError::Inconsistent("its length is not what the footer says"));
        }
        let table = read_table(&store, &footer)?;
        let mut raw = Vec::new();
        let mut scratch = Scratch { decompressor: new_decompressor(footer.codec)?, stored: Vec::new() };
        scratch.load(&store, &table.head, Part::Header, &mut raw)?;
        let header = decode_head(&raw).ok_or(ReadError::Inconsistent("its header cannot be read"))?;
        if header.level != footer.level || header.dot_coord != footer.dot_coord {
            return Err(ReadError::Inconsistent("header and footer differ"));
        }
        let idle = Mutex::new(vec![scratch]);
        Ok(Self { store, footer, header, table, chunks: Mutex::default(), idle })
    }

    /// What the archive says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The archive's facts.
    #[must_use]
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// How many blocks the index has.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.table.blocks.len()
    }

    /// Where block `number` is and what it begins with.
    #[must_use]
    pub fn block_info(&self, number: usize) -> Option<&BlockInfo> {
        self.table.blocks.get(number)
    }

    /// The stored bytes of block `number`, digest checked, for [`block::decode_stored`].
    pub fn stored_block(&self, number: usize) -> Result<Vec<u8>, ReadError> {
        let missing = ReadError::NoSuchPart { part: Part::Block, number: number as u64 };
        let info = self.table.blocks.get(number).ok_or(missing)?;
        let mut stored = Vec::new();
        read_checked(&self.store, &info.frame, Part::Block, &mut stored)?;
        Ok(stored)
    }

    /// The entries of block `number`.
    pub fn block(&self, number: usize) -> Result<Vec<Entry>, ReadError> {
        let missing = ReadError::NoSuchPart { part: Part::Block, number: number as u64 };
        let info = self.table.blocks.get(number).ok_or(missing)?;
        let mut raw = Vec::new();
        self.load(&info.frame, Part::Block, &mut raw)?;
        let entries = block::decode(&raw).map_err(|source| ReadError::Block { number, source })?;
        let first = entries.first().map(|entry| entry.path.as_slice());
        if entries.len() as u64 != info.entries || first != Some(&info.first_path) {
            return Err(ReadError::Inconsistent("an index block and the table differ"));
        }
        Ok(entries)
    }

    /// A quick look at the entries of block `number`; `raw` is working memory.
    pub fn glances<'b>(&self, number: usize, raw: &'b mut Vec<u8>) -> Result<Glances<'b>, ReadError> {
        let missing = ReadError::NoSuchPart { part: Part::Block, number: number as u64 };
        let info = self.table.blocks.get(number).ok_or(missing)?;
        self.load(&info.frame, Part::Block, raw)?;
        let glances = Glances::new(raw).map_err(|source| ReadError::Block { number, source })?;
        if glances.left() as u64 != info.entries {
            return Err(ReadError::Inconsistent("an index block and the table differ"));
        }
        Ok(glances)
    }

    /// All entries in path order.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries::new(self, 0, None)
    }

    /// The entry of `path` and everything below it, in path order.
    #[must_use]
    pub fn entries_below(&self, path: &[u8]) -> Entries<'_> {
        Entries::new(self, self.block_of(path), Some(path.to_vec()))
    }

    /// The entry of `path`, if the index has one. Reads one block.
    pub fn find(&self, path: &[u8]) -> Result<Option<Entry>, ReadError> {
        if self.table.blocks.is_empty() {
            return Ok(None);
        }
        let mut entries = self.block(self.block_of(path))?;
        let found = entries.binary_search_by(|entry| cmp_paths(&entry.path, path)).ok();
        Ok(found.map(|at| entries.swap_remove(at)))
    }

    /// Number of the last block whose first path is not after `path`; the first one, where there is none.
    #[must_use]
    pub fn block_of(&self, path: &[u8]) -> usize {
        let after = self.table.blocks.partition_point(|block| cmp_paths(&block.first_path, path).is_le());
        after.saturating_sub(1)
    }

    /// Reads all of the index: every block and every chunk of the frame table. Without an error, everything the archive
    /// holds can be listed, and its frames be found.
    pub fn check_index(&self) -> Result<(), ReadError> {
        for entry in self.entries() {
            entry?;
        }
        (0..self.table.chunks.len()).try_for_each(|number| self.chunk(number).map(|_| ()))
    }

    /// How many frames of members there are.
    #[must_use]
    pub fn frame_count(&self) -> u64 {
        self.footer.frames
    }

    /// Where frame `number` is.
    pub fn frame_info(&self, number: u64) -> Result<FrameInfo, ReadError> {
        let missing = || ReadError::NoSuchPart { part: Part::Frame, number };
        let chunk_number = usize::try_from(number / FRAMES_PER_CHUNK as u64).map_err(|_| missing())?;
        let chunk = self.chunk(chunk_number).map_err(|error| match error {
            ReadError::NoSuchPart { .. } => missing(),
            other => other,
        })?;
        let at = (number % FRAMES_PER_CHUNK as u64) as usize;
        chunk.get(at).copied().ok_or_else(missing)
    }

    /// Replaces the content of `raw` by the decompressed frame `number`; its digest is checked first.
    pub fn frame(&self, number: u64, raw: &mut Vec<u8>) -> Result<(), ReadError> {
        let info = self.frame_info(number)?;
        self.load(&info, Part::Frame, raw)
    }

    /// The content of a regular file as it was, holes as zeros. Fails for an entry without content in this archive.
    pub fn content(&self, entry: &Entry) -> Result<Content<'_>, ReadError> {
        Content::new(self, entry)
    }

    /// The stored bytes of a regular file, one data range after the other. Fails as [`Self::content`] does.
    pub fn stored_content(&self, entry: &Entry) -> Result<StoredContent<'_>, ReadError> {
        StoredContent::new(self, entry)
    }

    /// As [`Self::frame`]; and whether the frame is all that stock tools see where it stands.
    pub(crate) fn frame_alone(&self, number: u64, raw: &mut Vec<u8>) -> Result<bool, ReadError> {
        let info = self.frame_info(number)?;
        self.with_scratch(|scratch| {
            scratch.load_with(&self.store, &info, Part::Frame, raw, Decompressor::decompress_alone)
        })
    }

    fn is_alone(&self, frame: &FrameInfo, part: Part) -> Result<bool, ReadError> {
        if self.footer.codec == Codec::Zstd {
            return Ok(true);
        }
        self.with_scratch(|scratch| {
            read_checked(&self.store, frame, part, &mut scratch.stored)?;
            Ok(scratch.decompressor.is_alone(&scratch.stored))
        })
    }

    /// Whether stock tools see the index as the last member of the tar, with its name and its length, and then the tar's end.
    pub(crate) fn is_index_last(&self) -> Result<bool, ReadError> {
        let mut raw = Vec::new();
        self.load(&self.table.head, Part::Header, &mut raw)?;
        let Some((member, length)) = tar::read::parse(&raw) else { return Ok(false) };
        let (table, table_raw) = read_raw_table(&self.store, &self.footer)?;
        let parts = self.table.blocks.iter().map(|block| (&block.frame, Part::Block));
        let parts = parts.chain(self.table.chunks.iter().map(|chunk| (&chunk.frame, Part::Chunk)));
        let mut member_length = (raw.len() - length + table_raw.len()) as u64;
        for (frame, part) in parts.chain([(&self.table.head, Part::Header), (&table, Part::Table)]) {
            if !self.is_alone(frame, part)? {
                return Ok(false);
            }
            if matches!(part, Part::Block | Part::Chunk) {
                member_length += u64::from(frame.raw_length);
            }
        }
        let is_ours = matches!(&member.what, tar::read::What::Entry(entry) if entry.kind == Kind::File)
            && member.path == format!("{}/index", self.header.dot_coord_name()).as_bytes()
            && length == head_length(&raw);
        let is_end = table_raw.last_chunk::<TAR_END>().is_some_and(|end| end.iter().all(|byte| *byte == 0));
        Ok(is_ours && is_end && member.content_length + TAR_END as u64 == member_length)
    }

    fn chunk(&self, number: usize) -> Result<Arc<Vec<FrameInfo>>, ReadError> {
        let mut cached = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, chunk)) = cached.iter().find(|(at, _)| *at == number) {
            return Ok(Arc::clone(chunk));
        }
        let missing = ReadError::NoSuchPart { part: Part::Chunk, number: number as u64 };
        let info = self.table.chunks.get(number).ok_or(missing)?;
        let mut raw = Vec::new();
        self.load(&info.frame, Part::Chunk, &mut raw)?;
        let frames = table::decode_chunk(&raw, info).map_err(|malformed| ReadError::Inconsistent(malformed.0))?;
        let next = self.table.chunks.get(number + 1).map_or(self.table.head.offset, |chunk| chunk.first_offset);
        if frames.last().map(FrameInfo::end) != Some(next) {
            return Err(ReadError::Inconsistent("the frame table leaves a gap"));
        }
        let chunk = Arc::new(frames);
        if cached.len() == MAX_CACHED_CHUNKS {
            cached.pop_front();
        }
        cached.push_back((number, Arc::clone(&chunk)));
        Ok(chunk)
    }

    /// Reads, checks and decompresses one part.
    fn load(&self, frame: &FrameInfo, part: Part, raw: &mut Vec<u8>) -> Result<(), ReadError> {
        self.with_scratch(|scratch| scratch.load(&self.store, frame, part, raw))
    }

    fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = match idle {
            Some(scratch) => scratch,
            None => Scratch { decompressor: new_decompressor(self.footer.codec)?, stored: Vec::new() },
        };
        let result = work(&mut scratch);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        result
    }
}

impl std::fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveReader").field("footer", &self.footer).finish_non_exhaustive()
    }
}

fn new_decompressor(codec: Codec) -> Result<Decompressor, ReadError> {
    Decompressor::new(codec).map_err(|source| ReadError::Codec { part: Part::Frame, offset: 0, source })
}

fn read_at(store: &dyn ReadAt, offset: u64, length: u64) -> Result<Vec<u8>, ReadError> {
    let eof = || ReadError::Io { offset, source: io::ErrorKind::UnexpectedEof.into() };
    let length = usize::try_from(length).map_err(|_| eof())?;
    let mut bytes = vec![0; length];
    store.read_exact_at(&mut bytes, offset).map_err(|source| ReadError::Io { offset, source })?;
    Ok(bytes)
}

fn read_checked(store: &dyn ReadAt, frame: &FrameInfo, part: Part, stored: &mut Vec<u8>) -> Result<(), ReadError> {
    stored.resize(frame.stored_length as usize, 0);
    store.read_exact_at(stored, frame.offset).map_err(|source| ReadError::Io { offset: frame.offset, source })?;
    if block::stored_digest(stored) == frame.digest {
        Ok(())
    } else {
        Err(ReadError::Digest { part, offset: frame.offset })
    }
}

impl Scratch {
    fn load(&mut self, store: &dyn ReadAt, frame: &FrameInfo, part: Part, raw: &mut Vec<u8>) -> Result<(), ReadError> {
        self.load_with(store, frame, part, raw, Decompressor::decompress)
    }

    /// Reads and checks one part, and decompresses it in the given way.
    fn load_with<T>(
        &mut self,
        store: &dyn ReadAt,
        frame: &FrameInfo,
        part: Part,
        raw: &mut Vec<u8>,
        decompress: impl FnOnce(&mut Decompressor, &[u8], usize, &mut Vec<u8>) -> Result<T, CodecError>,
    ) -> Result<T, ReadError> {
        read_checked(store, frame, part, &mut self.stored)?;
        let result = decompress(&mut self.decompressor, &self.stored, frame.raw_length as usize, raw)
            .map_err(|source| ReadError::Codec { part, offset: frame.offset, source })?;
        if raw.len() == frame.raw_length as usize {
            Ok(result)
        } else {
            Err(ReadError::Inconsistent("a frame has another length than the table says"))
        }
    }
}

/// The table's frame, its digest checked, and its raw form.
fn read_raw_table(store: &dyn ReadAt, footer: &Footer) -> Result<(FrameInfo, Vec<u8>), ReadError> {
    let stored = read_at(store, footer.table_offset, u64::from(footer.table_length))?;
    if block::stored_digest(&stored) != footer.archive_digest {
        return Err(ReadError::Digest { part: Part::Table, offset: footer.table_offset });
    }
    let mut raw = Vec::new();
    new_decompressor(footer.codec)?
        .decompress(&stored, MAX_FRAME_BYTES, &mut raw)
        .map_err(|source| ReadError::Codec { part: Part::Table, offset: footer.table_offset, source })?;
    let frame = FrameInfo {
        offset: footer.table_offset,
        stored_length: footer.table_length,
        // Bounded by MAX_FRAME_BYTES.
        raw_length: raw.len() as u32,
        digest: footer.archive_digest,
    };
    Ok((frame, raw))
}

fn read_table(store: &dyn ReadAt, footer: &Footer) -> Result<Table, ReadError> {
    let (_, raw) = read_raw_table(store, footer)?;
    let table = Table::decode(&raw).map_err(|malformed| ReadError::Inconsistent(malformed.0))?;
    let counts = table::Counts {
        level: footer.level as u64,
        dot_coord: u64::from(footer.dot_coord),
        entries: footer.entries,
        files: footer.files,
        bytes: footer.bytes,
        frames: footer.frames,
    };
    if table.counts != counts || table.end() != footer.table_offset {
        return Err(ReadError::Inconsistent("footer and table differ"));
    }
    Ok(table)
}

/// Length of the tar header of the index member. A pax header of its own comes first when the index is larger than 8 GiB: its
/// block, one of records, and the member's.
fn head_length(raw: &[u8]) -> usize {
    if raw.get(156) == Some(&b'x') { 3 * 512 } else { 512 }
}

/// The header stands behind the tar header of the index member: its length, then JSON.
pub(crate) fn decode_head(raw: &[u8]) -> Option<Header> {
    let at = head_length(raw);
    let length = u32::from_le_bytes(raw.get(at..at + 4)?.try_into().ok()?) as usize;
    if length > MAX_HEADER_BYTES {
        return None;
    }
    serde_json::from_slice(raw.get(at + 4..at.checked_add(4)?.checked_add(length)?)?).ok()
}

/// Entries of an archive in path order; ends after the first error.
#[derive(Debug)]
pub struct Entries<'a> {
    reader: &'a ArchiveReader,
    next_block: usize,
    block: std::vec::IntoIter<Entry>,
    /// The last path of the block at hand: the next block has to go on behind it.
    block_end: Option<Vec<u8>>,
    below: Option<Vec<u8>>,
    done: bool,
}

impl<'a> Entries<'a> {
    fn new(reader: &'a ArchiveReader, next_block: usize, below: Option<Vec<u8>>) -> Self {
        Self { reader, next_block, block: Vec::new().into_iter(), block_end: None, below, done: false }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            for entry in self.block.by_ref() {
                let Some(below) = &self.below else { return Ok(Some(entry)) };
                if is_at_or_below(&entry.path, below) {
                    return Ok(Some(entry));
                }
                if cmp_paths(&entry.path, below).is_gt() {
                    return Ok(None);
                }
            }
            if self.next_block == self.reader.block_count() {
                return Ok(None);
            }
            let block = self.reader.block(self.next_block)?;
            let first = block.first().map(|entry| &entry.path);
            if self.block_end.as_ref().zip(first).is_some_and(|(end, first)| cmp_paths(end, first).is_ge()) {
                return Err(ReadError::Inconsistent("its index blocks overlap"));
            }
            self.block_end = block.last().map(|entry| entry.path.clone());
            self.block = block.into_iter();
            self.next_block += 1;
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.next_entry().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}
