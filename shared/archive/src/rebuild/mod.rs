//! Making a readable archive out of one whose index or footer is lost.
//!
//! The damaged file is only read. What is made is another archive file that every reader of this format takes. If all of
//! the index is still somewhere in the file, the result is the same archive again, with the same digest: frames are put
//! where the frame table says they were, and those that are gone are zeros, which a restore finds by their digests and
//! names their files. Otherwise the index is made anew, from the blocks that are left and, where none is, from the headers
//! of the members. Nothing is restored as good that is known not to be: whatever is lost is in the report by its name, as far
//! as names are left.
//!
//! Goes through the file a bounded number of times, a frame at a time. Memory holds a line for each frame and block and the
//! facts of hard links, as packing does; names wait in temporary files.

use std::io;
use std::ops::{ControlFlow, Range};

use crate::codec::{Codec, CodecError};
use crate::entry::Entry;
use crate::file::SealedFile;
use crate::footer::Footer;
use crate::header::Level;
use crate::pack::Sink;
use crate::pack::sealer::SealError;
use crate::progress::{Advance, Progress};
use crate::reader::{ArchiveReader, ReadAt, ReadError};

mod assemble;
mod frames;
mod index;
mod layout;
mod members;
mod merge;
mod names;
mod origin;
mod renew;
mod reunite;
mod script;
mod survey;

use frames::Finder;
use index::Index;
use survey::Survey;

/// Most lost names that a report lists; the count goes on.
pub const MAX_LOST: usize = 1000;

/// What is known of the archive besides the file.
#[derive(Clone, Copy, Default)]
pub struct RebuildOptions<'a> {
    /// The full that a differential stands on.
    pub base: Option<&'a ArchiveReader>,
    /// What the archive is, for a file in which nothing says so any more.
    pub level: Option<Level>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct RebuildReport {
    /// The facts of the archive that was made.
    pub footer: Footer,
    /// Whether it is the archive that was damaged: its digest is the same, and what refers to it still does.
    pub is_same: bool,
    /// Parts of the damaged file that were of no use, as offsets in bytes.
    pub unusable: Vec<Range<u64>>,
    /// Frames of members that were in the archive and are gone; `None` when nothing says how many there were.
    pub lost_frames: Option<u64>,
    /// Names of which something is lost.
    pub lost: Lost,
    /// Entries that come from members' headers, because nothing of the index says anything of them.
    pub from_members: u64,
    /// Whether there may have been names of which nothing is left.
    pub names_unknown: bool,
    /// What else is to be known.
    pub notes: Vec<&'static str>,
}

/// Names of which something is lost.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    /// The first [`MAX_LOST`] of them, with what is lost.
    pub listed: Vec<(Vec<u8>, &'static str)>,
    /// How many there are.
    pub count: u64,
}

impl Lost {
    fn add(&mut self, path: &[u8], what: &'static str) {
        self.count += 1;
        if self.listed.len() < MAX_LOST {
            self.listed.push((path.to_vec(), what));
        }
    }
}

/// Why nothing could be made.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The damaged file cannot be read there; the system refused.
    #[error("cannot read the damaged archive at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A frame that was whole a moment ago is not any more.
    #[error("the damaged archive changes while it is read")]
    Changing,
    /// There is not one whole frame.
    #[error("not one frame of an archive is left in this file")]
    Nothing,
    /// Nothing that is left says whether this was a full or a differential.
    #[error("nothing that is left says whether this was a full or a differential")]
    NoLevel,
    /// A differential without its index needs what the full's index says.
    #[error("of this differential, the index is lost: without the full it stands on it cannot be rebuilt")]
    NeedsBase,
    /// The archive given as the full is another one.
    #[error("the archive given as the full is not the one that this differential stands on")]
    WrongBase,
    /// The full cannot be read.
    #[error("the full cannot be read")]
    Base(#[source] ReadError),
    /// More frames, or more pieces, than any archive of ours has.
    #[error("this file has more parts than an archive can have")]
    TooManyParts,
    /// A frame cannot be compressed or decompressed.
    #[error("a frame cannot be used")]
    Codec(#[source] CodecError),
    /// The new archive could not be written; a full disk is the usual cause.
    #[error("cannot write the archive")]
    Sink(#[source] io::Error),
    /// A temporary file beside the new archive could not be used.
    #[error("cannot use a temporary file beside the archive")]
    Spool(#[source] io::Error),
    /// The new archive does not read back; a defect of this program.
    #[error("the archive that was made cannot be read")]
    Unreadable(#[source] ReadError),
    /// The progress receiver asked to stop.
    #[error("rebuilding was cancelled")]
    Cancelled,
}

impl From<SealError> for RebuildError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Sink(source) => Self::Sink(source),
            SealError::Spool(source) => Self::Spool(source),
            SealError::Codec(source) => Self::Codec(source),
            SealError::Cancelled | SealError::Stopped => Self::Cancelled,
        }
    }
}

/// Reads the damaged archive in `store` and writes what can be made of it to `out`, footer included; the caller then seals
/// the file. An archive that can be opened and whose index is whole ([`ArchiveReader::check_index`]) need not come here.
pub fn rebuild(
    store: &dyn ReadAt,
    options: &RebuildOptions<'_>,
    out: &mut SealedFile,
    progress: &dyn Progress,
) -> Result<RebuildReport, RebuildError> {
    let (mut finder, mut survey) = first_survey(store, progress)?;
    let index = Index::find(&mut survey, &mut finder)?;
    let report = if index.is_whole() {
        reunite::reunite(&survey, &index, &mut finder, out, progress)?
    } else {
        renew::renew(&survey, &index, &mut finder, options, Sink { out, progress })?
    };
    let written = out.reader().map_err(|error| RebuildError::Sink(io::Error::other(error)))?;
    ArchiveReader::open(Box::new(written)).map_err(RebuildError::Unreadable)?;
    Ok(report)
}

/// Nothing says which codec it was: the one of which there are frames.
fn first_survey<'a>(store: &'a dyn ReadAt, progress: &dyn Progress) -> Result<(Finder<'a>, Survey), RebuildError> {
    let mut beginning = [0; 2];
    let is_gzip = store.read_exact_at(&mut beginning, 0).is_ok() && beginning == [0x1f, 0x8b];
    let codecs = if is_gzip { [Codec::Gzip, Codec::Zstd] } else { [Codec::Zstd, Codec::Gzip] };
    for codec in codecs {
        let mut finder = Finder::new(store, codec)?;
        let survey = Survey::make(&mut finder, progress)?;
        if !survey.frames.is_empty() {
            return Ok((finder, survey));
        }
    }
    Err(RebuildError::Nothing)
}

fn say(progress: &dyn Progress, advance: Advance<'_>) -> Result<(), RebuildError> {
    match progress.advance(advance) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(RebuildError::Cancelled),
    }
}

/// The frames that the content of `entry` lies in, by the raw lengths of all frames.
fn frames_of(entry: &Entry, raw_length: impl Fn(u64) -> Option<u32>) -> Option<Range<u64>> {
    let content = entry.content?;
    let mut left = u64::from(content.offset).saturating_add(entry.stored_bytes());
    let mut end = content.frame;
    while left > 0 {
        left = left.saturating_sub(u64::from(raw_length(end)?));
        end += 1;
    }
    Some(content.frame..end)
}
