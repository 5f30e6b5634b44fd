//! The content of one regular file, read through the frames that hold it.

use std::io::{self, Read};
use std::vec;

use super::{ArchiveReader, Part, ReadError, read_at};
use crate::entry::{ContentRef, DataRange, Entry, Flags};
use crate::pack::MAX_FILE_BYTES;

/// Up to here in a frame a content is taken from the frame's beginning. Frames are about this long.
const MAX_PREFIX_BYTES: u64 = 4 << 20;

/// The stored bytes of a file, data range after data range. Each frame is decompressed when it is reached.
#[derive(Debug)]
pub struct StoredContent<'a> {
    reader: &'a ArchiveReader,
    raw: Vec<u8>,
    at: usize,
    /// Bytes of the next frame that come before.
    skip: usize,
    next_frame: u64,
    remaining: u64,
}

impl<'a> StoredContent<'a> {
    pub(super) fn new(reader: &'a ArchiveReader, entry: &Entry) -> Result<Self, ReadError> {
        if entry.size > MAX_FILE_BYTES {
            return Err(ReadError::Inconsistent("an entry is larger than any file that is backed up"));
        }
        let remaining = entry.stored_bytes();
        let mut content = Self { reader, raw: Vec::new(), at: 0, skip: 0, next_frame: 0, remaining };
        if remaining == 0 && entry.digest.is_some() {
            return Ok(content);
        }
        let no_content = || ReadError::NoContent { path: entry.path.clone() };
        let position = entry.content.ok_or_else(no_content)?;
        if entry.flags.contains(Flags::CONTENT_IN_BASE) && reader.header().level == crate::header::Level::Differential {
            return Err(no_content());
        }
        content.at = position.offset as usize;
        // A frame of that number is not there, as the first look at it says.
        content.next_frame = position.frame.saturating_add(1);
        // A file that fits into its first frame costs no look into the frame table, and what is behind it in the frame is
        // not decompressed: the file's digest protects it. Everything longer takes the table's word for every frame.
        let end = u64::from(position.offset).saturating_add(remaining);
        if end <= MAX_PREFIX_BYTES {
            content.beginning_of_frame(&position, end as usize)?;
        }
        if (content.raw.len() as u64) < end {
            reader.frame(position.frame, &mut content.raw)?;
        }
        if content.at > content.raw.len() {
            return Err(ReadError::Inconsistent("an entry refers behind its frame"));
        }
        Ok(content)
    }

    /// `remaining` stored bytes from a place on, frame and offset, which need not be where a content begins. `raw` is working memory.
    pub(crate) fn at(reader: &'a ArchiveReader, mut raw: Vec<u8>, place: (u64, usize), remaining: u64) -> Self {
        raw.clear();
        Self { reader, raw, at: 0, skip: place.1, next_frame: place.0, remaining }
    }

    /// The working memory.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.raw
    }

    fn beginning_of_frame(&mut self, position: &ContentRef, wanted: usize) -> Result<(), ReadError> {
        let ContentRef { frame: number, frame_offset: offset, frame_length: length, .. } = *position;
        let inside = offset
            .checked_add(u64::from(length))
            .is_some_and(|end| end <= self.reader.table.head.offset && number < self.reader.frame_count());
        if !inside || length as usize > 2 * crate::codec::MAX_FRAME_BYTES {
            return Err(ReadError::NoSuchPart { part: Part::Frame, number });
        }
        let stored = read_at(&self.reader.store, offset, u64::from(length))?;
        let raw = &mut self.raw;
        self.reader.with_scratch(|scratch| {
            scratch.decompressor.decompress_prefix(&stored, wanted, raw).map_err(|source| ReadError::Codec {
                part: Part::Frame,
                offset,
                source,
            })
        })
    }

    /// The next stored bytes, borrowed from the frame they are in; empty at the end.
    pub fn next_bytes(&mut self, limit: usize) -> Result<&[u8], ReadError> {
        if self.remaining == 0 || limit == 0 {
            return Ok(&[]);
        }
        while self.at == self.raw.len() {
            self.reader.frame(self.next_frame, &mut self.raw)?;
            self.next_frame += 1;
            self.at = std::mem::take(&mut self.skip);
            if self.at > self.raw.len() {
                return Err(ReadError::Inconsistent("a content begins behind its frame"));
            }
        }
        let left = (self.raw.len() - self.at) as u64;
        let take = left.min(self.remaining).min(limit as u64);
        let from = self.at;
        // Bounded by the frame's length, which fits.
        self.at += take as usize;
        self.remaining -= take;
        Ok(&self.raw[from..self.at])
    }
}

impl Read for StoredContent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.next_bytes(buffer.len()).map_err(io::Error::other)?;
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

/// The content of a file as it was, holes as zeros.
#[derive(Debug)]
pub struct Content<'a> {
    stored: StoredContent<'a>,
    ranges: vec::IntoIter<DataRange>,
    current: DataRange,
    at: u64,
    size: u64,
}

impl<'a> Content<'a> {
    pub(super) fn new(reader: &'a ArchiveReader, entry: &Entry) -> Result<Self, ReadError> {
        let stored = StoredContent::new(reader, entry)?;
        let whole = || vec![DataRange { offset: 0, length: entry.size }];
        let mut ranges = entry.data_ranges.clone().unwrap_or_else(whole).into_iter();
        let end = DataRange { offset: entry.size, length: 0 };
        let current = ranges.next().unwrap_or(end);
        Ok(Self { stored, ranges, current, at: 0, size: entry.size })
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = DataRange { offset: self.size, length: 0 };
        while self.at == self.current.offset + self.current.length && self.at < self.size {
            self.current = self.ranges.next().unwrap_or(end);
            if self.current == end {
                break;
            }
        }
        let bounded = |length: u64| buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let taken = if self.at < self.current.offset {
            let hole = bounded(self.current.offset - self.at);
            buffer[..hole].fill(0);
            hole
        } else {
            let wanted = bounded(self.current.offset + self.current.length - self.at);
            let bytes = self.stored.next_bytes(wanted).map_err(io::Error::other)?;
            buffer[..bytes.len()].copy_from_slice(bytes);
            if bytes.is_empty() && wanted > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.len()
        };
        self.at += taken as u64;
        Ok(taken)
    }
}
