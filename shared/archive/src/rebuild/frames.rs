//! Telling frames without an index: what begins at a place of the file, and where the next frame begins behind damage.
//!
//! A frame counts when it decodes to its end with its own checksum, is of the form this format writes, and takes no more
//! memory than a frame may. Nothing here knows what is in a frame.

use std::io::{self, BufRead, Read};

use super::RebuildError;
use crate::block::stored_digest;
use crate::codec::{Codec, Decompressor, MAX_FRAME_BYTES};
use crate::footer::Footer;
use crate::reader::ReadAt;
use crate::table::FrameInfo;
use crate::tar::BLOCK;

/// How much of the file is looked through at a time for the next frame.
const SEARCH_BYTES: usize = 256 << 10;
/// How much of a gzip member is read at a time.
const READ_BYTES: usize = 64 << 10;
/// The beginning of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The beginning of a zstd skippable frame of the footer's number.
const SKIPPABLE_MAGIC: [u8; 4] = [0x5c, 0x2a, 0x4d, 0x18];
/// The beginning of a gzip member that holds deflate.
const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Longest block within a zstd frame.
const ZSTD_BLOCK_BYTES: u64 = 128 << 10;

/// What begins at a place.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole frame; [`Finder::raw`] is what it holds.
    Frame(FrameInfo),
    /// A footer of that stored length.
    Footer(Footer, u64),
    /// Neither. A frame whose outline can be followed though its content is damaged would end at `outlined`.
    Nothing { outlined: Option<u64> },
}

/// See the module.
pub(super) struct Finder<'a> {
    store: &'a dyn ReadAt,
    size: u64,
    codec: Codec,
    decompressor: Decompressor,
    stored: Vec<u8>,
    raw: Vec<u8>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(store: &'a dyn ReadAt, codec: Codec) -> Result<Self, RebuildError> {
        let size = store.size().map_err(|source| RebuildError::Read { offset: 0, source })?;
        let decompressor = Decompressor::new(codec).map_err(RebuildError::Codec)?;
        Ok(Self { store, size, codec, decompressor, stored: Vec::new(), raw: Vec::new() })
    }

    /// Length of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The codec whose frames are looked for.
    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// What the frame found last holds.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Looks at what begins at `at`.
    pub(super) fn look(&mut self, at: u64) -> Result<Found, RebuildError> {
        if let Some((footer, length)) = self.footer(at)? {
            return Ok(Found::Footer(footer, length));
        }
        match self.codec {
            Codec::Zstd => self.zstd(at),
            Codec::Gzip => self.gzip(at),
        }
    }

    /// The next place behind `at` where a frame or footer may begin.
    pub(super) fn next_candidate(&self, at: u64) -> Result<Option<u64>, RebuildError> {
        let longest = ZSTD_MAGIC.len();
        let mut from = at + 1;
        let mut window = vec![0; SEARCH_BYTES];
        while from < self.size {
            let length = bounded(self.size - from, SEARCH_BYTES);
            self.read(from, &mut window[..length])?;
            let windows = window[..length].windows(GZIP_MAGIC.len());
            let found = windows.enumerate().find(|(place, start)| match self.codec {
                Codec::Gzip => *start == GZIP_MAGIC,
                Codec::Zstd => {
                    [ZSTD_MAGIC, SKIPPABLE_MAGIC].iter().any(|magic| window[*place..length].starts_with(magic))
                }
            });
            if let Some((place, _)) = found {
                return Ok(Some(from + place as u64));
            }
            if length < SEARCH_BYTES {
                return Ok(None);
            }
            // A beginning may lie across the end of the window.
            from += (length - longest + 1) as u64;
        }
        Ok(None)
    }

    fn footer(&self, at: u64) -> Result<Option<(Footer, u64)>, RebuildError> {
        let length = Footer::stored_length(self.codec);
        let mut bytes = vec![0; bounded(self.size - at, length)];
        self.read(at, &mut bytes)?;
        let footer = Footer::decode(&bytes).ok().filter(|_| bytes.len() == length);
        Ok(footer.map(|footer| (footer, length as u64)))
    }

    fn zstd(&mut self, at: u64) -> Result<Found, RebuildError> {
        let Some(end) = self.outline(at)? else { return Ok(Found::Nothing { outlined: None }) };
        let nothing = Found::Nothing { outlined: Some(end) };
        // Bounded by `outline`.
        self.stored.resize((end - at) as usize, 0);
        let mut stored = std::mem::take(&mut self.stored);
        self.read(at, &mut stored)?;
        self.stored = stored;
        let decoded = self.decompressor.decompress(&self.stored, MAX_FRAME_BYTES, &mut self.raw);
        Ok(if decoded.is_ok() && is_frame(&self.raw) { self.frame(at) } else { nothing })
    }

    /// Where the zstd frame at `at` ends, by its header and those of its blocks; `None` for what is no frame of ours.
    fn outline(&self, at: u64) -> Result<Option<u64>, RebuildError> {
        let mut head = [0; 5];
        if !self.read_if_there(at, &mut head)? || head[..4] != ZSTD_MAGIC {
            return Ok(None);
        }
        let descriptor = head[4];
        let is_single = descriptor & 0x20 != 0;
        // Ours have a checksum. Without this check, a flipped bit would take it away and with it all protection.
        if descriptor & 0x04 == 0 || descriptor & 0x08 != 0 {
            return Ok(None);
        }
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size = [u64::from(is_single), 2, 4, 8][usize::from(descriptor >> 6)];
        let mut next = at + 5 + u64::from(!is_single) + dictionary + size;
        let limit = at + 2 * MAX_FRAME_BYTES as u64;
        loop {
            let mut block = [0; 4];
            if next > limit || !self.read_if_there(next, &mut block[..3])? {
                return Ok(None);
            }
            let header = u32::from_le_bytes(block);
            let length = u64::from(header >> 3);
            next += 3 + match header >> 1 & 3 {
                // Run-length encoded: one byte is stored.
                1 => 1,
                0 | 2 if length <= ZSTD_BLOCK_BYTES => length,
                _ => return Ok(None),
            };
            if header & 1 != 0 {
                let end = next + 4;
                return Ok((end <= self.size.min(limit)).then_some(end));
            }
        }
    }

    fn gzip(&mut self, at: u64) -> Result<Found, RebuildError> {
        const NOTHING: Found = Found::Nothing { outlined: None };
        let mut head = [0; 4];
        // The upper bits of the flags are reserved.
        if !self.read_if_there(at, &mut head)? || head[..3] != GZIP_MAGIC || head[3] & 0xe0 != 0 {
            return Ok(NOTHING);
        }
        self.raw.clear();
        let mut member = flate2::bufread::GzDecoder::new(Forward::new(self.store, at, self.size));
        let decoded = (&mut member).take(MAX_FRAME_BYTES as u64 + 1).read_to_end(&mut self.raw);
        let forward = member.into_inner();
        if let Some(source) = forward.failed {
            return Err(RebuildError::Read { offset: forward.at, source });
        }
        let end = forward.at + forward.taken as u64;
        if decoded.is_err() || !is_frame(&self.raw) || end - at > 2 * MAX_FRAME_BYTES as u64 {
            return Ok(NOTHING);
        }
        self.stored.resize((end - at) as usize, 0);
        let mut stored = std::mem::take(&mut self.stored);
        self.read(at, &mut stored)?;
        self.stored = stored;
        // The reader takes whole members only, and so does this.
        let decoded = self.decompressor.decompress(&self.stored, MAX_FRAME_BYTES, &mut self.raw);
        Ok(if decoded.is_ok() { self.frame(at) } else { NOTHING })
    }

    fn frame(&self, at: u64) -> Found {
        Found::Frame(FrameInfo {
            offset: at,
            // Both are bounded by twice the largest frame.
            stored_length: self.stored.len() as u32,
            raw_length: self.raw.len() as u32,
            digest: stored_digest(&self.stored),
        })
    }

    /// Reads a frame that was found before.
    pub(super) fn read_frame(&mut self, frame: &FrameInfo) -> Result<(), RebuildError> {
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(frame.stored_length as usize, 0);
        self.read(frame.offset, &mut stored)?;
        self.stored = stored;
        if stored_digest(&self.stored) != frame.digest {
            return Err(RebuildError::Changing);
        }
        let decoded = self.decompressor.decompress(&self.stored, MAX_FRAME_BYTES, &mut self.raw);
        decoded.map_err(RebuildError::Codec)
    }

    /// The stored bytes of the frame read last.
    pub(super) fn stored(&self) -> &[u8] {
        &self.stored
    }

    fn read_if_there(&self, at: u64, buffer: &mut [u8]) -> Result<bool, RebuildError> {
        if at + buffer.len() as u64 > self.size {
            return Ok(false);
        }
        self.read(at, buffer).map(|()| true)
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), RebuildError> {
        self.store.read_exact_at(buffer, at).map_err(|source| RebuildError::Read { offset: at, source })
    }
}

/// Whether these bytes may be a frame's: whole tar blocks, at least one and not too many.
fn is_frame(raw: &[u8]) -> bool {
    !raw.is_empty() && raw.len() <= MAX_FRAME_BYTES && raw.len().is_multiple_of(BLOCK)
}

fn bounded(left: u64, limit: usize) -> usize {
    usize::try_from(left).map_or(limit, |left| left.min(limit))
}

/// The file from one place on.
struct Forward<'a> {
    store: &'a dyn ReadAt,
    /// Where `buffer` begins.
    at: u64,
    size: u64,
    buffer: Vec<u8>,
    taken: usize,
    /// A failure of the system, which is not damage.
    failed: Option<io::Error>,
}

impl<'a> Forward<'a> {
    fn new(store: &'a dyn ReadAt, at: u64, size: u64) -> Self {
        Self { store, at, size, buffer: Vec::new(), taken: 0, failed: None }
    }
}

impl BufRead for Forward<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.buffer.len() {
            self.at += self.taken as u64;
            self.taken = 0;
            self.buffer.resize(bounded(self.size.saturating_sub(self.at), READ_BYTES), 0);
            if let Err(error) = self.store.read_exact_at(&mut self.buffer, self.at) {
                self.buffer.clear();
                self.failed = Some(error);
                return Err(io::ErrorKind::Other.into());
            }
        }
        Ok(&self.buffer[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
    }
}

impl Read for Forward<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
