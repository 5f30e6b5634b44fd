//! Writing an archive: steps in path order become a tar in independent frames with a sealed index.
//!
//! Owns the order of what is written and that an archive without a valid footer never passes for one: any failure ends
//! before the footer. What is to be stored is decided by the caller (the scan), how a recipe line reads by `recipe`.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use self::content::Moment;
use self::feeder::Feeder;
use self::index_writer::IndexWriter;
use self::links::LinkBoard;
use self::sealer::Sealer;
use self::settling::Settling;
use self::worker::{Shared, Worker};
use crate::codec::{Codec, CodecError, Compressor};
use crate::entry::{Attributes, Entry};
use crate::file::SealedFile;
use crate::footer::Footer;
use crate::header::Header;
use crate::progress::Progress;
use crate::reader::ArchiveReader;
use crate::recipe::Recipe;

mod content;
mod ending;
mod feeder;
pub(crate) mod index_writer;
mod links;
mod lost;
pub(crate) mod sealer;
mod settling;
mod worker;

/// One name and what the packer does for it. Items come in path order ([`crate::entry::cmp_paths`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What the scan saw.
    pub entry: Entry,
    /// What to do.
    pub plan: Plan,
}

/// What the packer does for one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Write a tar member. The content of a regular file is read through [`Source::open`]; digest, pieces, content, data
    /// ranges, the size really stored and [`crate::entry::Flags::CHANGED_WHILE_READ`] are filled in by the packer, which
    /// also takes newer attributes from the open file.
    Store,
    /// Write a tar link member. `target` is an earlier [`Plan::Store`] of this archive or, with `in_base`, a name of the
    /// base that is neither removed nor a member here. In this archive the content's facts are copied from the target's;
    /// in the base the caller has filled them in, with [`crate::entry::Flags::CONTENT_IN_BASE`]. If the target turns out
    /// to be unreadable or gone, this name is stored instead.
    Link {
        /// The other name of the same inode.
        target: Vec<u8>,
        /// Whether `target` is a name of the base.
        in_base: bool,
    },
    /// No member, only an index entry and lines in `attributes.sh`: nothing but attributes differs from the base.
    Attributes {
        /// What the base says, so that what is gone can be removed.
        base: Box<Attributes>,
    },
    /// Index only: a tombstone (its name also goes to `deleted`), a stale or an unread entry.
    IndexOnly,
}

/// What a scan tells the packer, in path order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A name.
    Item(Item),
    /// Differential only: the base's name is of another type and must be removed before the `Store` that follows. When a
    /// folder became something else its children come as tombstones.
    Removed {
        /// The name.
        path: Vec<u8>,
    },
    /// Differential only: leaving a folder in which the recipe creates or removes a name, or whose own attributes changed.
    /// Not indexed. Every differential ends with the root's, because the recipe itself changes the root's times.
    FolderExit {
        /// The folder as it is now.
        entry: Entry,
        /// As it was in the base, if it was there.
        base: Option<Box<Attributes>>,
    },
}

/// Where content comes from.
pub trait Source: Sync {
    /// Opens a regular file for reading, beneath the root, following no symbolic link and not waiting for a pipe's writer.
    fn open(&self, path: &[u8]) -> io::Result<File>;

    /// Puts what lstat does not give, extended attributes and inode flags, out of the open file into its entry, so that they
    /// are of the moment of its content. A source whose steps have them already need not.
    fn complete(&self, file: &File, entry: &mut Entry) {
        let _unchanged = (file, entry);
    }

    /// The full that a differential stands on, which is asked about names that could not be stored. Without it a
    /// differential cannot keep their state.
    fn base(&self) -> Option<&ArchiveReader> {
        None
    }

    /// The host's clock; asked once, when the last byte of content has been read.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// How to pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackOptions {
    /// The codec.
    pub codec: Codec,
    /// Its level.
    pub level: i32,
    /// Worker threads; 0 means one for each core.
    pub threads: usize,
    /// Uncompressed length at which a frame of small files is closed, in bytes.
    pub frame_bytes: usize,
}

impl PackOptions {
    /// The recommended settings for a codec.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self { codec, level: codec.default_level(), threads: 0, frame_bytes: 2 << 20 }
    }
}

/// Most warnings that a report lists; the count goes on.
pub const MAX_WARNINGS: usize = 1000;

/// Something that was not packed as the scan saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The name.
    pub path: Vec<u8>,
    /// What happened.
    pub reason: Reason,
}

/// Why an entry is not what the scan saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was gone when it was to be read; it is not in the archive. A differential has a tombstone of a name of its base.
    Vanished,
    /// It could not be read; indexed with [`crate::entry::Flags::UNREAD`], without content, or in a differential as its base
    /// has it, with [`crate::entry::Flags::STALE`]. The text is the system's.
    Unreadable(String),
    /// It changed in both readings; what is stored mixes states.
    ChangedWhileRead,
    /// It is larger than [`MAX_FILE_BYTES`]; indexed as one that could not be read.
    TooLarge,
}

/// Largest regular file that is stored, in bytes with its holes (16 TiB, ext4's own limit): hashing holes takes time.
pub const MAX_FILE_BYTES: u64 = 1 << 44;

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackReport {
    /// The facts of the archive as its footer has them.
    pub footer: Footer,
    /// When the last byte of content had been read.
    pub captured_at: Timestamp,
    /// Regular files whose content was stored.
    pub files: u64,
    /// Bytes of content that were read and stored.
    pub bytes: u64,
    /// The first [`MAX_WARNINGS`] warnings.
    pub warnings: Vec<Warning>,
    /// How many there were.
    pub warning_count: u64,
    /// Files flagged as changed while they were read.
    pub changed_while_read: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// Thread-nanoseconds by kind of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for steps: the scan.
    pub steps: u64,
    /// Opening and reading content.
    pub read: u64,
    /// Hashing it.
    pub hash: u64,
    /// Compressing.
    pub compress: u64,
    /// Writing frames, index entries and recipe lines.
    pub write: u64,
    /// Waiting for another thread's frame.
    pub wait: u64,
    /// How many threads there were.
    pub threads: u32,
}

/// Why there is no archive. Errors of reading a *file* are warnings and are not here.
#[derive(Debug, thiserror::Error)]
pub enum PackError<E> {
    /// The scan failed.
    #[error("the scan ended early")]
    Steps(#[source] E),
    /// The archive could not be written; a full disk is the usual cause.
    #[error("cannot write the archive")]
    Sink(#[source] io::Error),
    /// A temporary file beside the archive could not be used.
    #[error("cannot use a temporary file beside the archive")]
    Spool(#[source] io::Error),
    /// A frame could not be compressed.
    #[error("cannot compress")]
    Codec(#[source] CodecError),
    /// The steps break the contract; a defect of the caller.
    #[error("the scan's steps are wrong at {}: {what}", crate::header::escape(path))]
    Contract {
        /// Where.
        path: Vec<u8>,
        /// Which rule is broken.
        what: &'static str,
    },
    /// The progress receiver asked to stop.
    #[error("packing was cancelled")]
    Cancelled,
}

/// Where an archive goes and who watches.
pub struct Sink<'a> {
    /// The file.
    pub out: &'a mut SealedFile,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// Streams `steps` into the sink's file and ends it with the footer; the caller then seals the file. On an error the file
/// holds no footer and has to be dropped. `header.captured_at` is filled in here.
pub fn pack<E: Send>(
    steps: impl Iterator<Item = Result<Step, E>> + Send,
    source: &dyn Source,
    mut header: Header,
    options: &PackOptions,
    sink: Sink<'_>,
) -> Result<PackReport, PackError<E>> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    let folder = sink.out.folder().to_owned();
    let mut compressors = Vec::new();
    for _ in 0..threads {
        compressors.push(Compressor::new(options.codec, options.level).map_err(PackError::Codec)?);
    }
    let index = IndexWriter::new(&folder, options.codec, options.level)?;
    let recipe = Recipe::new(&folder).map_err(PackError::Spool)?;
    let archive_name = sink.out.path().file_name().unwrap_or_default().as_encoded_bytes().to_vec();
    let first = ending::restore_text_member(&header, options.codec, &archive_name);
    let sealer = Sealer::new(sink, index, recipe, 2 * threads + 2);
    let (links, level) = (LinkBoard::default(), header.level);
    let settling = Settling::new();
    let moment = Moment { scan_start: ending::file_time(header.scan_started_at), settling: &settling };
    let feeder = Feeder::new(steps, first, (source, &links), moment, options.frame_bytes.clamp(64 << 10, 8 << 20));
    let shared = Shared { feeder: Mutex::new(feeder), source, links: &links, sealer: &sealer, moment, level };
    let timings = run_workers(&shared, compressors)?;
    drop(shared);
    header.captured_at = source.now();
    ending::finish(sealer.into_written(), &header, options, timings)
}

/// Runs one worker for each compressor; the first error stops all of them.
fn run_workers<I, E: Send>(shared: &Shared<'_, '_, I>, compressors: Vec<Compressor>) -> Result<Timings, PackError<E>>
where
    I: Iterator<Item = Result<Step, E>> + Send,
{
    let failure = Mutex::new(None);
    let total = Mutex::new(Timings::default());
    std::thread::scope(|scope| {
        for compressor in compressors {
            let (failure, total) = (&failure, &total);
            scope.spawn(move || {
                let _guard = StopOnPanic(&|| {
                    shared.sealer.stop();
                    shared.links.stop();
                });
                match Worker::new(shared, compressor).run(shared) {
                    Ok(timings) => total.lock().unwrap_or_else(PoisonError::into_inner).add(timings),
                    Err(error) => {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        shared.sealer.stop();
                        shared.links.stop();
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// A worker that panics must not leave the others waiting for it; the panic then goes on to the caller.
struct StopOnPanic<'a>(&'a dyn Fn());

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

impl Timings {
    /// What a batch does besides reading: it is timed where it happens.
    const fn beside_reading(&self) -> u64 {
        self.hash + self.compress + self.write + self.wait
    }

    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.read += other.read;
        self.hash += other.hash;
        self.compress += other.compress;
        self.write += other.write;
        self.wait += other.wait;
        self.threads += 1;
    }
}
