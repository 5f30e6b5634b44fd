//! What is left of a damaged archive: its whole frames in the order of the file, and those of them that are its index.
//!
//! Owns the judgement which frames are the archive's own. A frame that stands where the one before it ends is. One that was
//! found by searching behind damage may be a piece of another archive, which was a file of this one: such a file does not
//! compress, so its frames stand as they are within a damaged frame. No block within a frame is longer than
//! [`LONGEST_BLOCK`], so a longer stretch of frames is no such piece; nor is one that runs to the end of the file, or one
//! whose frames the archive's own table knows. Any other stretch is left out and reported.

use std::ops::Range;

use super::frames::{Finder, Found};
use super::index::head_of;
use super::{RebuildError, say};
use crate::footer::Footer;
use crate::header::Header;
use crate::progress::{Advance, Progress};
use crate::table::{FrameInfo, Table};

/// Longest stretch of bytes that a frame may hold as they are: zstd's blocks end at 128 KiB, deflate's stored ones below 64.
const LONGEST_BLOCK: u64 = 128 << 10;
/// Most frames of one archive, some 30 TiB of content; bounds the memory, of which each takes less than 200 bytes.
const MAX_FRAMES: usize = 16 << 20;

/// Frames that follow each other without a gap.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    /// Their numbers in [`Survey::frames`].
    pub(super) frames: Range<usize>,
    /// Where it begins and ends in the file, a footer included.
    pub(super) bytes: Range<u64>,
    /// Whether it is known to be of this archive.
    pub(super) is_own: bool,
}

/// How the beginning of a stretch was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// It begins the file, or stands where the damaged frame before it was to end.
    InPlace,
    /// By searching: its frames have to be proven the archive's own.
    Somewhere,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// All whole frames, in the order of the file.
    pub(super) frames: Vec<FrameInfo>,
    pub(super) stretches: Vec<Stretch>,
    /// Frames that hold an archive's header, with their numbers.
    pub(super) heads: Vec<(usize, Header)>,
    /// Frames that read as a table, with their numbers.
    pub(super) tables: Vec<(usize, Table)>,
    /// Footers, with the number of the frame that would stand behind each.
    pub(super) footers: Vec<(usize, Footer)>,
    /// Length of the file.
    pub(super) size: u64,
}

impl Survey {
    /// Goes through the whole file.
    pub(super) fn make(finder: &mut Finder<'_>, progress: &dyn Progress) -> Result<Self, RebuildError> {
        let mut survey = Self { size: finder.size(), ..Self::default() };
        let mut at = 0;
        let mut found = Begins::InPlace;
        while at < survey.size {
            let (end, outlined) = survey.stretch(finder, at, found, progress)?;
            if end == survey.size {
                break;
            }
            let follows = match outlined {
                Some(outlined) if !matches!(finder.look(outlined)?, Found::Nothing { .. }) => Some(outlined),
                Some(_) | None => None,
            };
            found = if follows.is_some() { Begins::InPlace } else { Begins::Somewhere };
            let Some(next) = follows.map_or_else(|| search(finder, end), |next| Ok(Some(next)))? else { break };
            at = next;
        }
        Ok(survey)
    }

    /// Takes the frames from `at` on as long as they follow each other. Gives their end, and where the damaged frame there
    /// would end.
    fn stretch(
        &mut self,
        finder: &mut Finder<'_>,
        at: u64,
        begins: Begins,
        progress: &dyn Progress,
    ) -> Result<(u64, Option<u64>), RebuildError> {
        let first = self.frames.len();
        let mut end = at;
        let mut outlined = None;
        while end < self.size {
            match finder.look(end)? {
                Found::Frame(frame) => {
                    self.take(frame, finder.raw())?;
                    end = frame.end();
                    let advance = Advance {
                        bytes: u64::from(frame.raw_length),
                        stored_bytes: u64::from(frame.stored_length),
                        ..Advance::default()
                    };
                    say(progress, advance)?;
                }
                Found::Footer(footer, length) => {
                    self.footers.push((self.frames.len(), footer));
                    end += length;
                }
                Found::Nothing { outlined: found } => {
                    outlined = found;
                    break;
                }
            }
        }
        if end > at {
            let is_own = begins == Begins::InPlace || end == self.size || end - at > LONGEST_BLOCK;
            self.stretches.push(Stretch { frames: first..self.frames.len(), bytes: at..end, is_own });
        }
        Ok((end, outlined))
    }

    fn take(&mut self, frame: FrameInfo, raw: &[u8]) -> Result<(), RebuildError> {
        let number = self.frames.len();
        if number == MAX_FRAMES {
            return Err(RebuildError::TooManyParts);
        }
        if let Some(header) = head_of(raw) {
            self.heads.push((number, header));
        }
        // A level comes first, so that members are told from a table by their first byte.
        if let Some(1 | 2) = raw.first()
            && let Ok(table) = Table::decode(raw)
        {
            self.tables.push((number, table));
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Whether the frame of that number is known to be of this archive.
    pub(super) fn is_own(&self, number: usize) -> bool {
        self.stretches.iter().any(|stretch| stretch.is_own && stretch.frames.contains(&number))
    }

    /// The parts of the file that hold no frame of this archive.
    pub(super) fn gaps(&self) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut end = 0;
        for stretch in self.stretches.iter().filter(|stretch| stretch.is_own) {
            if stretch.bytes.start > end {
                gaps.push(end..stretch.bytes.start);
            }
            end = stretch.bytes.end;
        }
        if end < self.size {
            gaps.push(end..self.size);
        }
        gaps
    }
}

/// The next place behind `at` where a frame really begins.
fn search(finder: &mut Finder<'_>, at: u64) -> Result<Option<u64>, RebuildError> {
    let mut from = at;
    while let Some(candidate) = finder.next_candidate(from)? {
        if !matches!(finder.look(candidate)?, Found::Nothing { .. }) {
            return Ok(Some(candidate));
        }
        from = candidate;
    }
    Ok(None)
}
