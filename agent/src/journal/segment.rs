//! The journal's file: a head, then records of length, CRC-32 and bytes. Appending flushes. A new file replaces the old one whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use coord_shared::durable;
use prost::Message as _;

use super::record::Record;

const HEAD: &[u8; 8] = b"coordjn1";
/// Largest record, in bytes: an order with many excludes, or a report with its notes.
const MAX_RECORD_BYTES: usize = 8 << 20;
/// Largest journal that is read, in bytes. Compaction keeps it far below.
const MAX_SEGMENT_BYTES: u64 = 256 << 20;

/// The journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file of another kind, or of a version that this program does not know.
    #[error("{} is not a journal that this version reads", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// A record is larger than any may be.
    #[error("a record of {length} bytes is larger than a journal takes")]
    TooLarge {
        /// Its length.
        length: usize,
    },
}

impl SegmentError {
    /// Whether a full disk is the cause.
    pub fn is_disk_full(&self) -> bool {
        match self {
            SegmentError::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            SegmentError::Foreign { .. } | SegmentError::TooLarge { .. } => false,
        }
    }
}

/// The open file, positioned at its end.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    number: u64,
    length: u64,
    length_at_start: u64,
    /// A record that was not written whole may lie behind `length`.
    torn: bool,
}

impl Segment {
    /// The newest segment of `folder` with its records, and how many bytes of a torn tail were cut.
    pub(super) fn open(folder: &Path) -> Result<(Segment, Vec<Record>, u64), SegmentError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SegmentError::Io { what, path, source }
        };
        durable::private_folder(folder).map_err(failed("make", folder))?;
        let numbers = numbers(folder).map_err(failed("list", folder))?;
        let Some(&number) = numbers.last() else {
            return Ok((Segment::create(folder, 1, &[])?, Vec::new(), 0));
        };
        for old in &numbers[..numbers.len() - 1] {
            let path = path_of(folder, *old);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        let path = path_of(folder, number);
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed("open", &path))?;
        let mut bytes = Vec::new();
        (&file).take(MAX_SEGMENT_BYTES).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        if !bytes.starts_with(HEAD) {
            return Err(SegmentError::Foreign { path });
        }
        let (records, whole) = decode(&bytes);
        let cut = (bytes.len() - whole) as u64;
        if cut > 0 {
            tracing::warn!(path = %path.display(), bytes = cut, "the journal has a torn end, which is cut off");
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(failed("cut", &path))?;
        }
        file.seek(SeekFrom::Start(whole as u64)).map_err(failed("seek", &path))?;
        let segment = Segment { path, file, number, length: whole as u64, length_at_start: whole as u64, torn: false };
        Ok((segment, records, cut))
    }

    /// A file with these records, durable under its name when this returns.
    fn create(folder: &Path, number: u64, records: &[Record]) -> Result<Segment, SegmentError> {
        let path = path_of(folder, number);
        let failed = |what| {
            let path = path.clone();
            move |source| SegmentError::Io { what, path, source }
        };
        let mut bytes = HEAD.to_vec();
        for record in records {
            encode(record, &mut bytes)?;
        }
        durable::write(&path, &bytes, durable::SECRET_MODE).map_err(failed("write"))?;
        let mut file =
            OpenOptions::new().read(true).write(true).mode(durable::SECRET_MODE).open(&path).map_err(failed("open"))?;
        let length = file.seek(SeekFrom::End(0)).map_err(failed("seek"))?;
        Ok(Segment { path, file, number, length, length_at_start: length, torn: false })
    }

    /// The next segment, with these records alone; the old file is removed.
    pub(super) fn rewrite(&self, folder: &Path, records: &[Record]) -> Result<Segment, SegmentError> {
        let next = Segment::create(folder, self.number + 1, records)?;
        if let Err(error) = fs::remove_file(&self.path) {
            // The next start removes it: the higher number counts.
            tracing::debug!(%error, "the old journal is still there");
        }
        Ok(next)
    }

    /// Appends and flushes. After an error nothing of it is in the file.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), SegmentError> {
        let mut bytes = Vec::new();
        for record in records {
            encode(record, &mut bytes)?;
        }
        let written = self.mend().and_then(|()| {
            self.torn = true;
            self.file.write_all(&bytes)?;
            self.file.sync_data()
        });
        if let Err(source) = written {
            if let Err(error) = self.mend() {
                tracing::warn!(%error, path = %self.path.display(), "a torn record is still in the journal; it is cut before the next");
            }
            return Err(SegmentError::Io { what: "append to", path: self.path.clone(), source });
        }
        self.torn = false;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Cuts what was not written whole: nothing good may ever follow something torn.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            self.torn = false;
        }
        Ok(())
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Length when it was opened or made: what it had to hold then.
    pub(super) fn length_at_start(&self) -> u64 {
        self.length_at_start
    }
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.log"))
}

fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|digits| digits.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn encode(record: &Record, out: &mut Vec<u8>) -> Result<(), SegmentError> {
    let bytes = record.encode_to_vec();
    let length = bytes.len();
    if length > MAX_RECORD_BYTES {
        return Err(SegmentError::TooLarge { length });
    }
    let stored = u32::try_from(length).map_err(|_| SegmentError::TooLarge { length })?;
    out.extend(stored.to_le_bytes());
    // The length is under the checksum too: a zeroed tail is not an endless row of empty records.
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&stored.to_le_bytes());
    hasher.update(&bytes);
    out.extend(hasher.finalize().to_le_bytes());
    out.extend(bytes);
    Ok(())
}

/// Whole records from the beginning, and where they end.
fn decode(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut at = HEAD.len();
    while let Some((record, end)) = decode_one(bytes, at) {
        records.push(record);
        at = end;
    }
    (records, at)
}

fn decode_one(bytes: &[u8], at: usize) -> Option<(Record, usize)> {
    let stored = bytes.get(at..at + 4)?.first_chunk::<4>()?;
    let crc = bytes.get(at + 4..at + 8)?.first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*stored)).ok().filter(|length| *length <= MAX_RECORD_BYTES)?;
    let body = bytes.get(at + 8..at + 8 + length)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(stored);
    hasher.update(body);
    if hasher.finalize() != u32::from_le_bytes(*crc) {
        return None;
    }
    Some((Record::decode(body).ok()?, at + 8 + length))
}
