//! Reading an archive back and checking all of it: every stored byte, every content, the way a restore would come, and that the
//! tar inside, which stock tools read, says what the index says.
//!
//! Damage is found, named and contained: one damaged frame names the files in it, and everything else is still checked.
//! Verification says what is there; it never repairs.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::digest::Digest;
use crate::header::escape;
use crate::progress::{Advance, Progress};
use crate::reader::{ArchiveReader, ReadError};

mod blocks;
mod content;
mod members;
mod plan;
mod turns;

use blocks::Blocks;
use content::{content_digest, reads_alone};
use members::{Likeness, Members};
use plan::{Job, Planner, Span};
use turns::Turns;

/// Most damaged files that a verification lists; the count goes on.
pub const MAX_DAMAGED: usize = 1000;

/// How to verify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Worker threads; 0 means one for each core.
    pub threads: usize,
    /// How many files are read one by one the way a restore of a single file reads them; of one that is longer than 8 MiB, that much.
    pub samples: usize,
    /// The archive's length and digest as known from elsewhere, so that one archive swapped for another is noticed.
    pub expected: Option<Expected>,
}

/// What is known of an archive from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Length in bytes.
    pub stored_bytes: u64,
    /// Its footer's digest.
    pub archive_digest: Digest,
}

/// One of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckName {
    /// The file is there.
    Exists,
    /// It has the length that its footer, and whoever knows better, says.
    Size,
    /// Footer, table, index and all frames can be read, with the right digests.
    Readable,
    /// Every content has its digest, and the archive the expected one.
    Digest,
    /// Some files were found and read one by one.
    Sample,
    /// Stock tools, which read the tar and not the index, would restore the same.
    Tar,
}

impl CheckName {
    /// The name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Size => "size",
            Self::Readable => "readable",
            Self::Digest => "digest",
            Self::Sample => "sample",
            Self::Tar => "tar",
        }
    }
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Passed,
    /// It is not; what was found.
    Failed(String),
    /// It could not be done, because an earlier check failed.
    NotDone,
}

/// A check and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Which check.
    pub name: CheckName,
    /// How it ended.
    pub outcome: Outcome,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// The six checks in order.
    pub checks: Vec<Check>,
    /// Paths of the first [`MAX_DAMAGED`] files whose content is damaged or cannot be reached.
    pub damaged: Vec<Vec<u8>>,
    /// How many such files there are.
    pub damaged_count: u64,
    /// Frames that cannot be read.
    pub damaged_frames: u64,
    /// Index blocks that cannot be read; what they list is unknown.
    pub damaged_blocks: u64,
    /// Files whose content was checked.
    pub files: u64,
    /// Bytes of content that were checked.
    pub bytes: u64,
}

impl Verification {
    /// Whether every check passed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.outcome == Outcome::Passed)
    }
}

/// The progress receiver asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("verification was cancelled")]
pub struct Cancelled;

/// Verifies the archive file at `path`.
pub fn verify(path: &Path, options: &VerifyOptions, progress: &dyn Progress) -> Result<Verification, Cancelled> {
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) => return Ok(Verification::ended_at(CheckName::Exists, describe(&error))),
    };
    let wrong = |expected: u64| format!("{size} bytes where {expected} were written");
    if let Some(expected) = options.expected.filter(|expected| expected.stored_bytes != size) {
        return Ok(Verification::ended_at(CheckName::Size, wrong(expected.stored_bytes)));
    }
    match ArchiveReader::open_path(path) {
        Ok(reader) => verify_reader(&reader, options, progress),
        Err(error @ ReadError::Inconsistent(_)) => Ok(Verification::ended_at(CheckName::Size, describe(&error))),
        Err(error) => Ok(Verification::ended_at(CheckName::Readable, describe(&error))),
    }
}

/// Verifies an archive that could be opened.
pub fn verify_reader(
    reader: &ArchiveReader,
    options: &VerifyOptions,
    progress: &dyn Progress,
) -> Result<Verification, Cancelled> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    let blocks = Blocks::new(reader);
    let members = Turns::new(Members::new(reader, &blocks), Members::frame);
    let state = State {
        reader,
        progress,
        cancelled: AtomicBool::new(false),
        found: Mutex::default(),
        sample: Mutex::new(Outcome::Passed),
        members,
    };
    let mut planner = Planner::new(reader, &blocks, options.samples);
    std::thread::scope(|scope| {
        let (send, receive) = crossbeam_channel::bounded::<Job>(2 * threads);
        for _ in 0..threads {
            let receive = receive.clone();
            let state = &state;
            scope.spawn(move || {
                let _guard = StopOnPanic(state);
                let mut raw = Vec::new();
                receive.into_iter().for_each(|job| state.check(job, &mut raw));
            });
        }
        drop(receive);
        planner.run(&mut |job| {
            // Nobody receives only when every worker has ended, which they do not before the planner.
            !state.cancelled.load(Ordering::Relaxed) && send.send(job).is_ok()
        });
    });
    if state.cancelled.load(Ordering::Relaxed) {
        return Err(Cancelled);
    }
    let sample = state.sample.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut found = state.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.damaged_blocks = planner.damaged_blocks();
    let tar = likeness(state.members.into_inner().map_or(Likeness::Unknown, Members::finish), reader);
    Ok(conclude(found, reader, options, [(CheckName::Sample, sample), (CheckName::Tar, tar)]))
}

fn likeness(members: Likeness, reader: &ArchiveReader) -> Outcome {
    match (members, reader.is_index_last()) {
        (Likeness::Unlike(first, 0), _) => Outcome::Failed(first),
        (Likeness::Unlike(first, more), _) => Outcome::Failed(format!("{first}; and {more} more differences")),
        (Likeness::Unknown, _) | (_, Err(_)) => Outcome::NotDone,
        (Likeness::Alike, Ok(false)) => Outcome::Failed("the tar does not end with the index".to_owned()),
        (Likeness::Alike, Ok(true)) => Outcome::Passed,
    }
}

/// A worker that panics must not leave the others waiting for its frame.
struct StopOnPanic<'s, 'a>(&'s State<'a>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.members.stop();
        }
    }
}

fn conclude(
    mut found: Verification,
    reader: &ArchiveReader,
    options: &VerifyOptions,
    last: [(CheckName, Outcome); 2],
) -> Verification {
    let readable = if found.damaged_frames + found.damaged_blocks == 0 {
        Outcome::Passed
    } else {
        let (frames, blocks) = (found.damaged_frames, found.damaged_blocks);
        Outcome::Failed(format!("{frames} damaged frames and {blocks} damaged index blocks"))
    };
    let is_other = options.expected.is_some_and(|expected| expected.archive_digest != reader.footer().archive_digest);
    let digest = if is_other {
        Outcome::Failed("this is another archive than the one that was written".to_owned())
    } else if found.damaged_count > 0 {
        let first = found.damaged.first().map(|path| escape(path)).unwrap_or_default();
        Outcome::Failed(format!("{} files are damaged, the first is {first}", found.damaged_count))
    } else {
        Outcome::Passed
    };
    let first = [
        (CheckName::Exists, Outcome::Passed),
        (CheckName::Size, Outcome::Passed),
        (CheckName::Readable, readable),
        (CheckName::Digest, digest),
    ];
    found.checks = first.into_iter().chain(last).map(|(name, outcome)| Check { name, outcome }).collect();
    found
}

impl Verification {
    /// A verification that could not go on behind `failed`.
    fn ended_at(failed: CheckName, reason: String) -> Self {
        let mut outcome = Some(Outcome::Failed(reason));
        let names = [
            CheckName::Exists,
            CheckName::Size,
            CheckName::Readable,
            CheckName::Digest,
            CheckName::Sample,
            CheckName::Tar,
        ];
        let mut before = true;
        let checks = names
            .map(|name| {
                before &= name != failed;
                let outcome = if before { Outcome::Passed } else { outcome.take().unwrap_or(Outcome::NotDone) };
                Check { name, outcome }
            })
            .into();
        Self { checks, ..Self::default() }
    }
}

/// What the workers share.
struct State<'a> {
    reader: &'a ArchiveReader,
    progress: &'a dyn Progress,
    cancelled: AtomicBool,
    found: Mutex<Verification>,
    /// How reading the samples ended.
    sample: Mutex<Outcome>,
    members: Turns<Members<'a>>,
}

impl State<'_> {
    /// `raw` is working memory.
    fn check(&self, job: Job, raw: &mut Vec<u8>) {
        if self.cancelled.load(Ordering::Relaxed) {
            return;
        }
        let mut part = Verification::default();
        // What is long is told of as it is read.
        let mut told = 0;
        match job {
            Job::Frame { number, spans } => self.check_frame(number, spans, raw, &mut part),
            Job::Long(entry) => {
                part.files = 1;
                part.bytes = entry.stored_bytes();
                told = part.bytes;
                match content_digest(self.reader, &entry, &|bytes| self.has_read(bytes)) {
                    Ok(None) => return,
                    Ok(found) if found == entry.digest => {}
                    Ok(Some(_)) | Err(_) => part.add_damaged(entry.path.clone()),
                }
            }
            Job::Run(run) => {
                part.files = u64::from(run.is_first());
                part.bytes = run.stored_bytes;
                told = part.bytes;
                match run.check(self.reader, raw, &|bytes| self.has_read(bytes)) {
                    Ok(None) => return,
                    Ok(Some(true)) => {}
                    Ok(Some(false)) | Err(_) => part.add_damaged(run.entry.path.clone()),
                }
            }
            Job::Unreachable(path) => part.add_damaged(path),
            Job::Sample(path) => {
                if let Err(reason) = self.read_alone(&path) {
                    let failed = Outcome::Failed(format!("{}: {reason}", escape(&path)));
                    *self.sample.lock().unwrap_or_else(PoisonError::into_inner) = failed;
                }
            }
        }
        let advance = Advance { files: part.files, bytes: part.bytes - told, ..Advance::default() };
        self.goes_on(advance);
        self.found.lock().unwrap_or_else(PoisonError::into_inner).merge(part);
    }

    /// Tells of stored bytes that were read. `false`: nobody wants the rest.
    fn has_read(&self, bytes: u64) -> bool {
        self.goes_on(Advance { bytes, ..Advance::default() })
    }

    /// Tells what was done. `false`: nobody wants the rest.
    fn goes_on(&self, advance: Advance<'_>) -> bool {
        if matches!(self.progress.advance(advance), ControlFlow::Break(())) {
            self.cancelled.store(true, Ordering::Relaxed);
            self.members.stop();
        }
        !self.cancelled.load(Ordering::Relaxed)
    }

    /// Finds a file and reads it as a restore of it alone would; says what is wrong.
    fn read_alone(&self, path: &[u8]) -> Result<(), String> {
        let found = self.reader.find(path).map_err(|error| describe(&error))?;
        let entry = found.ok_or("it is not found")?;
        match reads_alone(self.reader, &entry, &|_| self.goes_on(Advance::default()))? {
            Some(false) => Err("its content has another digest".to_owned()),
            // A verification that was ended has no outcome.
            Some(true) | None => Ok(()),
        }
    }

    fn check_frame(&self, number: u64, spans: Vec<Span>, raw: &mut Vec<u8>, part: &mut Verification) {
        // Where it is not alone, stock tools would go on with what stands behind it.
        let readable = self.reader.frame_alone(number, raw).unwrap_or(false);
        part.damaged_frames = u64::from(!readable);
        for span in spans {
            part.files += u64::from(span.is_first());
            part.bytes += span.length as u64;
            if !readable || !span.matches(raw) {
                part.add_damaged(span.path);
            }
        }
        self.members.bring(number, raw, readable);
    }
}

impl Verification {
    fn add_damaged(&mut self, path: Vec<u8>) {
        // The pieces of one file come one after the other from one worker, or from several at about the same time.
        if self.damaged.contains(&path) {
            return;
        }
        self.damaged_count += 1;
        if self.damaged.len() < MAX_DAMAGED {
            self.damaged.push(path);
        }
    }

    fn merge(&mut self, part: Self) {
        self.damaged_frames += part.damaged_frames;
        self.files += part.files;
        // An index may say anything.
        self.bytes = self.bytes.saturating_add(part.bytes);
        part.damaged.into_iter().for_each(|path| self.add_damaged(path));
    }
}

/// An error with its causes, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
