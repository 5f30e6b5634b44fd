//! The content of one file: from frames into a descriptor, holes kept, with its digest computed on the way.
//!
//! Each thread keeps the frame it decoded last, so that the many small files of one frame cost one decoding.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::UnpackError;
use super::context::Context;
use crate::digest::{ContentHasher, Digest};
use crate::entry::{DataRange, Entry};
use crate::overlay::{Origin, Placed};
use crate::pack::MAX_FILE_BYTES;
use crate::reader::ReadError;

/// How much of a hole is hashed between two looks at whether to stop.
const HOLE_STEP: u64 = 64 << 20;

/// Why a file has not got its content.
#[derive(Debug)]
pub(super) enum ContentError {
    /// The archive does not hold what its index says.
    Damaged(String),
    /// The target did not take it.
    Target(io::Error),
    /// The whole restore ends.
    Ends(UnpackError),
}

impl From<UnpackError> for ContentError {
    fn from(error: UnpackError) -> Self {
        Self::Ends(error)
    }
}

/// The frame decoded last.
#[derive(Debug, Default)]
pub(super) struct LastFrame {
    which: Option<(Origin, u64)>,
    raw: Vec<u8>,
}

impl LastFrame {
    fn get(&mut self, context: &Context<'_>, origin: Origin, number: u64) -> Result<&[u8], ContentError> {
        if self.which != Some((origin, number)) {
            self.which = None;
            let read = context.point.archive(origin).frame(number, &mut self.raw);
            read.map_err(|error| read_error(origin, error))?;
            self.which = Some((origin, number));
        }
        Ok(&self.raw)
    }
}

/// Damage concerns the file; a failing read of the archive concerns everything.
fn read_error(origin: Origin, source: ReadError) -> ContentError {
    if source.is_damage() {
        ContentError::Damaged(source.to_string())
    } else {
        ContentError::Ends(UnpackError::Archive { origin, source })
    }
}

/// Writes the content of `placed` into the empty `file` and checks its digest.
pub(super) fn write(
    context: &Context<'_>,
    frames: &mut LastFrame,
    placed: &Placed,
    file: &File,
) -> Result<(), ContentError> {
    let entry = &placed.entry;
    if entry.size > MAX_FILE_BYTES {
        return Err(ContentError::Damaged("larger than any file that is backed up".to_owned()));
    }
    context.charge(&entry.path, entry.stored_bytes())?;
    let mut source = Source::new(frames, placed)?;
    if entry.data_ranges.is_none()
        && let Some(bytes) = source.all_in_one(context, entry.size)?
    {
        if Some(Digest::of(bytes)) != entry.digest {
            return Err(wrong_digest());
        }
        file.write_all_at(bytes, 0).map_err(ContentError::Target)?;
        return Ok(context.advance(&entry.path, None, entry.size)?);
    }
    let mut hasher = ContentHasher::new();
    let whole = [DataRange { offset: 0, length: entry.size }];
    let ranges = match &entry.data_ranges {
        Some(ranges) => {
            file.set_len(entry.size).map_err(ContentError::Target)?;
            ranges.as_slice()
        }
        None => &whole,
    };
    let mut at = 0;
    for range in ranges {
        hash_hole(context, &mut hasher, entry, range.offset - at)?;
        at = range.offset;
        let end = range.offset + range.length;
        while at < end {
            let bytes = source.next_bytes(context, end - at)?;
            file.write_all_at(bytes, at).map_err(ContentError::Target)?;
            hasher.update(bytes);
            at += bytes.len() as u64;
            context.advance(&entry.path, None, bytes.len() as u64)?;
        }
    }
    hash_hole(context, &mut hasher, entry, entry.size - at)?;
    if Some(hasher.finish().digest) == entry.digest { Ok(()) } else { Err(wrong_digest()) }
}

fn wrong_digest() -> ContentError {
    ContentError::Damaged("its content has another digest than the index says".to_owned())
}

fn hash_hole(context: &Context<'_>, hasher: &mut ContentHasher, entry: &Entry, length: u64) -> Result<(), UnpackError> {
    let mut left = length;
    while left > 0 {
        let step = left.min(HOLE_STEP);
        hasher.update_zeros(step);
        left -= step;
        context.advance(&entry.path, None, 0)?;
    }
    Ok(())
}

/// The stored bytes of one file, frame after frame.
struct Source<'a> {
    frames: &'a mut LastFrame,
    origin: Origin,
    frame: u64,
    at: usize,
}

impl<'a> Source<'a> {
    fn new(frames: &'a mut LastFrame, placed: &Placed) -> Result<Self, ContentError> {
        let origin = placed.content;
        match placed.entry.content {
            Some(content) => Ok(Self { frames, origin, frame: content.frame, at: content.offset as usize }),
            None if placed.entry.stored_bytes() == 0 => Ok(Self { frames, origin, frame: 0, at: 0 }),
            None => Err(ContentError::Damaged("the index does not say where its content is".to_owned())),
        }
    }

    /// The whole content of `size` bytes, if it lies in one frame.
    fn all_in_one(&mut self, context: &Context<'_>, size: u64) -> Result<Option<&[u8]>, ContentError> {
        let Ok(length) = usize::try_from(size) else { return Ok(None) };
        if length == 0 {
            return Ok(Some(&[]));
        }
        let from = self.at;
        let frame = self.frames.get(context, self.origin, self.frame)?;
        Ok(frame.get(from..).and_then(|rest| rest.get(..length)))
    }

    /// The next bytes, at least one and at most `limit`.
    fn next_bytes(&mut self, context: &Context<'_>, limit: u64) -> Result<&[u8], ContentError> {
        loop {
            let length = self.frames.get(context, self.origin, self.frame)?.len();
            if self.at < length {
                break;
            }
            if self.at > length {
                return Err(ContentError::Damaged("its content begins behind a frame's end".to_owned()));
            }
            self.frame += 1;
            self.at = 0;
        }
        let from = self.at;
        let left = self.frames.raw.len() - from;
        let take = usize::try_from(limit).map_or(left, |limit| left.min(limit));
        self.at += take;
        Ok(&self.frames.raw[from..from + take])
    }
}
