//! Names and entries that wait in temporary files: those of the members found, and those that a differential deletes.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::RebuildError;
use crate::block::{decode_one, encode_one};
use crate::entry::{Entry, Kind, MAX_PATH_BYTES, cmp_paths, is_clean_path};
use crate::spool;

/// Most runs of ascending paths. One run is one stretch of undamaged tar, so there are few.
const MAX_RUNS: usize = 4096;
/// How much of a run is read at a time.
const RUN_BUFFER_BYTES: usize = 16 << 10;
/// How much of the deleted names is read back at a time; holds several of the longest.
const REVERSE_WINDOW: usize = 4 * MAX_PATH_BYTES;

/// Entries in runs of ascending paths.
pub(super) struct EntrySpool {
    file: BufWriter<File>,
    length: u64,
    runs: Vec<(u64, u64)>,
    last: Option<Vec<u8>>,
    buffer: Vec<u8>,
}

impl EntrySpool {
    pub(super) fn new(folder: &Path) -> Result<Self, RebuildError> {
        let file = BufWriter::new(spool::unnamed(folder).map_err(RebuildError::Spool)?);
        Ok(Self { file, length: 0, runs: Vec::new(), last: None, buffer: Vec::new() })
    }

    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), RebuildError> {
        if self.last.as_ref().is_none_or(|last| cmp_paths(last, &entry.path).is_ge()) {
            if self.runs.len() == MAX_RUNS {
                return Err(RebuildError::TooManyParts);
            }
            self.runs.push((self.length, self.length));
        }
        self.buffer.clear();
        encode_one(entry, &mut self.buffer);
        let length = u32::try_from(self.buffer.len()).map_err(|_| RebuildError::TooManyParts)?;
        self.file.write_all(&length.to_le_bytes()).map_err(RebuildError::Spool)?;
        self.file.write_all(&self.buffer).map_err(RebuildError::Spool)?;
        self.length += u64::from(length) + 4;
        if let Some(run) = self.runs.last_mut() {
            run.1 = self.length;
        }
        self.last = Some(entry.path.clone());
        Ok(())
    }

    /// The runs, to be read any number of times.
    pub(super) fn finish(self) -> Result<EntryRuns, RebuildError> {
        let file = self.file.into_inner().map_err(|error| RebuildError::Spool(error.into_error()))?;
        Ok(EntryRuns { file, runs: self.runs })
    }
}

/// Runs of entries in ascending paths.
pub(super) struct EntryRuns {
    file: File,
    runs: Vec<(u64, u64)>,
}

impl EntryRuns {
    pub(super) fn runs(&self) -> impl Iterator<Item = EntryRun<'_>> {
        self.runs.iter().map(|(from, to)| EntryRun {
            reader: BufReader::with_capacity(RUN_BUFFER_BYTES, Part { file: &self.file, at: *from, end: *to }),
        })
    }
}

/// A part of a file, read from its beginning.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl io::Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// One run.
pub(super) struct EntryRun<'a> {
    reader: BufReader<Part<'a>>,
}

impl EntryRun<'_> {
    pub(super) fn next(&mut self) -> Result<Option<Entry>, RebuildError> {
        let part = self.reader.get_ref();
        if part.at == part.end && self.reader.buffer().is_empty() {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.reader.read_exact(&mut length).map_err(RebuildError::Spool)?;
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.reader.read_exact(&mut bytes).map_err(RebuildError::Spool)?;
        decode_one(&bytes).map(Some).map_err(|error| RebuildError::Spool(io::Error::other(error)))
    }
}

/// Content of one of our own members, kept as it is.
pub(super) struct Kept {
    pub(super) file: File,
    pub(super) length: u64,
    /// Whether all of it was found.
    pub(super) is_whole: bool,
}

impl Kept {
    pub(super) fn new(folder: &Path) -> Result<Self, RebuildError> {
        Ok(Self { file: spool::unnamed(folder).map_err(RebuildError::Spool)?, length: 0, is_whole: false })
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), RebuildError> {
        self.file.write_all(bytes).map_err(RebuildError::Spool)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Reads it from its beginning.
    pub(super) fn reader(&mut self) -> Result<BufReader<&File>, RebuildError> {
        self.file.rewind().map_err(RebuildError::Spool)?;
        Ok(BufReader::new(&self.file))
    }
}

/// The names of `.coord/deleted` in path order: they are stored deepest first, the exact opposite.
pub(super) struct Deleted<'a> {
    kept: &'a Kept,
    /// Where the window begins.
    start: u64,
    window: Vec<u8>,
}

impl<'a> Deleted<'a> {
    pub(super) fn new(kept: &'a Kept) -> Self {
        Self { kept, start: kept.length, window: Vec::new() }
    }

    /// The next name that may stand in an index.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, RebuildError> {
        while let Some(name) = self.next_name()? {
            let path = name.strip_prefix(b"./").filter(|path| !path.is_empty() && is_clean_path(path));
            if let Some(path) = path {
                return Ok(Some(Entry::tombstone(path.to_vec())));
            }
        }
        Ok(None)
    }

    fn next_name(&mut self) -> Result<Option<Vec<u8>>, RebuildError> {
        loop {
            // The last byte is the NUL behind the last name; what is behind that is half a name.
            if let Some(end) = self.window.iter().rposition(|byte| *byte == 0) {
                let before = self.window[..end].iter().rposition(|byte| *byte == 0);
                if before.is_some() || self.start == 0 {
                    let name = self.window[before.map_or(0, |nul| nul + 1)..end].to_vec();
                    self.window.truncate(before.map_or(0, |nul| nul + 1));
                    return Ok(Some(name));
                }
            }
            if self.start == 0 || self.window.len() > REVERSE_WINDOW {
                return Ok(None);
            }
            let from = self.start.saturating_sub(REVERSE_WINDOW as u64);
            // At most the window.
            let mut longer = vec![0; (self.start - from) as usize];
            self.kept.file.read_exact_at(&mut longer, from).map_err(RebuildError::Spool)?;
            longer.append(&mut self.window);
            self.window = longer;
            self.start = from;
        }
    }
}

/// An entry of which nothing is known but its name and kind.
pub(super) fn named(path: Vec<u8>, kind: Kind) -> Entry {
    Entry { kind, ..Entry::tombstone(path) }
}
