//! The steps of a differential, kept in an unlinked temporary file between the scan and the packing.
//!
//! The level is confirmed only after the scan, with its exact figures; until then the steps wait here, in path order, in
//! memory that does not grow. They can be read any number of times. The file disappears with its last descriptor.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use coord_archive::block::{decode_one, encode_one};
use coord_archive::entry::{Attributes, Entry, Kind};
use coord_archive::pack::{Item, Plan, Step};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::ScanError;
use super::look::blank_entry;

/// Longest record that is read back, in bytes: an entry of a very large file lists many pieces.
const MAX_RECORD_BYTES: usize = 64 << 20;

mod tag {
    pub(super) const STORE: u8 = 1;
    pub(super) const LINK_HERE: u8 = 2;
    pub(super) const LINK_BASE: u8 = 3;
    pub(super) const ATTRIBUTES: u8 = 4;
    pub(super) const INDEX_ONLY: u8 = 5;
    pub(super) const REMOVED: u8 = 6;
    pub(super) const EXIT: u8 = 7;
    pub(super) const EXIT_WITH_BASE: u8 = 8;
}

/// Collects steps.
#[derive(Debug)]
pub struct ChangeListWriter {
    out: BufWriter<File>,
    folder: PathBuf,
    scratch: Vec<u8>,
    steps: u64,
}

/// Steps in path order.
#[derive(Debug)]
pub struct ChangeList {
    file: File,
    folder: PathBuf,
    steps: u64,
}

impl ChangeListWriter {
    /// An empty list in a temporary file of `folder`.
    ///
    /// # Errors
    /// The folder is not there, not writable or full.
    pub fn create(folder: &Path) -> Result<Self, ScanError> {
        let file = unlinked_file(folder).map_err(|source| spool_error(folder, source))?;
        let out = BufWriter::with_capacity(256 << 10, file);
        Ok(Self { out, folder: folder.to_path_buf(), scratch: Vec::new(), steps: 0 })
    }

    /// Adds a step.
    ///
    /// # Errors
    /// The folder's file system is full, or fails.
    pub fn push(&mut self, step: &Step) -> Result<(), ScanError> {
        self.steps += 1;
        self.write(step).map_err(|source| spool_error(&self.folder, source))
    }

    fn write(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Item(Item { entry, plan }) => match plan {
                Plan::Store => self.entry(tag::STORE, entry),
                Plan::Link { target, in_base } => {
                    self.entry(if *in_base { tag::LINK_BASE } else { tag::LINK_HERE }, entry)?;
                    self.bytes(target)
                }
                Plan::Attributes { base } => {
                    self.entry(tag::ATTRIBUTES, entry)?;
                    self.attributes(base)
                }
                Plan::IndexOnly => self.entry(tag::INDEX_ONLY, entry),
            },
            Step::Removed { path } => {
                self.out.write_all(&[tag::REMOVED])?;
                self.bytes(path)
            }
            Step::FolderExit { entry, base: None } => self.entry(tag::EXIT, entry),
            Step::FolderExit { entry, base: Some(base) } => {
                self.entry(tag::EXIT_WITH_BASE, entry)?;
                self.attributes(base)
            }
        }
    }

    fn entry(&mut self, tag: u8, entry: &Entry) -> io::Result<()> {
        self.out.write_all(&[tag])?;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        encode_one(entry, &mut scratch);
        let written = self.bytes(&scratch);
        self.scratch = scratch;
        written
    }

    /// Attributes travel as an entry that has nothing else.
    fn attributes(&mut self, attributes: &Attributes) -> io::Result<()> {
        let mut entry = blank_entry(b"", Kind::File);
        entry.attributes = attributes.clone();
        let mut bytes = Vec::new();
        encode_one(&entry, &mut bytes);
        self.bytes(&bytes)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::Error::from(Errno::FBIG))?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(bytes)
    }

    /// The complete list.
    ///
    /// # Errors
    /// As [`ChangeListWriter::push`].
    pub fn finish(self) -> Result<ChangeList, ScanError> {
        let Self { out, folder, steps, .. } = self;
        let file = out.into_inner().map_err(|error| spool_error(&folder, error.into_error()))?;
        Ok(ChangeList { file, folder, steps })
    }
}

impl ChangeList {
    /// How many steps there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.steps
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// The steps, from the first.
    #[must_use]
    pub fn steps(&self) -> Steps<'_> {
        let at = FileAt { file: &self.file, offset: 0 };
        Steps { from: BufReader::with_capacity(256 << 10, at), folder: &self.folder, left: self.steps }
    }
}

#[derive(Debug)]
struct FileAt<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for FileAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Steps read back. After an error it ends.
#[derive(Debug)]
pub struct Steps<'a> {
    from: BufReader<FileAt<'a>>,
    folder: &'a Path,
    left: u64,
}

impl Steps<'_> {
    fn read(&mut self) -> Result<Step, ScanError> {
        let mut tag = [0];
        self.fill(&mut tag)?;
        if tag[0] == tag::REMOVED {
            return Ok(Step::Removed { path: self.bytes()? });
        }
        let entry = self.entry()?;
        let plan = match tag[0] {
            tag::STORE => Plan::Store,
            tag::LINK_HERE => Plan::Link { target: self.bytes()?, in_base: false },
            tag::LINK_BASE => Plan::Link { target: self.bytes()?, in_base: true },
            tag::ATTRIBUTES => Plan::Attributes { base: Box::new(self.entry()?.attributes) },
            tag::INDEX_ONLY => Plan::IndexOnly,
            tag::EXIT => return Ok(Step::FolderExit { entry, base: None }),
            tag::EXIT_WITH_BASE => {
                let base = Some(Box::new(self.entry()?.attributes));
                return Ok(Step::FolderExit { entry, base });
            }
            _ => return Err(ScanError::SpoolDamaged(None)),
        };
        Ok(Step::Item(Item { entry, plan }))
    }

    fn entry(&mut self) -> Result<Entry, ScanError> {
        let bytes = self.bytes()?;
        decode_one(&bytes).map_err(|error| ScanError::SpoolDamaged(Some(error)))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, ScanError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_RECORD_BYTES {
            return Err(ScanError::SpoolDamaged(None));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ScanError> {
        self.from.read_exact(buffer).map_err(|source| spool_error(self.folder, source))
    }
}

impl Iterator for Steps<'_> {
    type Item = Result<Step, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let step = self.read();
        if step.is_err() {
            self.left = 0;
        }
        Some(step)
    }
}

fn spool_error(folder: &Path, source: io::Error) -> ScanError {
    ScanError::Spool { folder: folder.to_path_buf(), source }
}

/// A file without a name in `folder`.
pub(super) fn unlinked_file(folder: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => Ok(File::from(fd)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let path = folder.join(format!(".coord-scan-{}", uuid::Uuid::new_v4()));
            let fd = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode)?;
            std::fs::remove_file(&path)?;
            Ok(File::from(fd))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_step_reads_back_as_it_was_and_more_than_once() {
        let entry = |path: &[u8]| {
            let mut entry = blank_entry(path, Kind::File);
            entry.attributes.user = b"ann".to_vec();
            entry.size = 77;
            entry
        };
        let base = || Box::new(Attributes { mode: 0o640, uid: 7, ..Attributes::default() });
        let item = |path: &[u8], plan| Step::Item(Item { entry: entry(path), plan });
        let steps = vec![
            item(b"", Plan::Attributes { base: base() }),
            Step::Removed { path: b"a\xff".to_vec() },
            item(b"a\xff", Plan::Store),
            item(b"b", Plan::Link { target: b"a\xff".to_vec(), in_base: false }),
            item(b"c", Plan::Link { target: b"z".to_vec(), in_base: true }),
            item(b"d", Plan::IndexOnly),
            Step::FolderExit { entry: entry(b"f"), base: None },
            Step::FolderExit { entry: entry(b""), base: Some(base()) },
        ];
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ChangeListWriter::create(folder.path()).unwrap();
        for step in &steps {
            writer.push(step).unwrap();
        }
        let list = writer.finish().unwrap();
        assert_eq!(list.len(), 8);
        for _ in 0..2 {
            assert_eq!(list.steps().map(Result::unwrap).collect::<Vec<_>>(), steps);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }
}
