//! An open regular file: what it is now, where its data lies, and whether it changed while it was read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Stat, fgetxattr, flistxattr, fstat};
use rustix::io::{Errno, pread};

use super::settling::{Settling, rest, system_time};
use super::{MAX_FILE_BYTES, Reason, Source};
use crate::entry::{Entry, FileTime, Flags, Xattr};
use crate::holes::data_ranges_of;

/// Largest value of an extended attribute that Linux knows.
const MAX_XATTR_BYTES: usize = 64 << 10;

/// A file being stored.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    before: Seen,
    /// Whether nobody can have been writing into it when it was opened.
    at_rest: bool,
}

/// What a packer knows when it opens a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    /// Start of the scan.
    pub(super) scan_start: FileTime,
    /// Time for files that change at this moment.
    pub(super) settling: &'a Settling,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    size: u64,
    mtime: FileTime,
    ctime: FileTime,
}

/// A file that cannot be stored.
#[derive(Debug)]
pub(super) struct NotStored(pub(super) Reason);

impl OpenFile {
    /// Opens the file of `entry`, brings the entry up to its present state, and finds its holes. A name that was given to
    /// another file since the scan leaves its group of hard links.
    pub(super) fn open(source: &dyn Source, entry: &mut Entry, moment: Moment<'_>) -> Result<Self, NotStored> {
        let file = source.open(&entry.path).map_err(|error| NotStored(reason(&error)))?;
        let (stat, at_rest) = stat_at_rest(&file, moment.settling).map_err(|errno| NotStored(reason(&errno.into())))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(NotStored(Reason::Vanished));
        }
        let before = Seen::of(&stat);
        if before.size > MAX_FILE_BYTES {
            return Err(NotStored(Reason::TooLarge));
        }
        // Another file has taken the name: whatever the group's other names are, it is none of them.
        if entry.identity.inode != 0 && stat.st_ino != entry.identity.inode {
            entry.link_group = 0;
        }
        refresh(entry, &stat, &file, moment.scan_start);
        source.complete(&file, entry);
        entry.size = before.size;
        entry.data_ranges = data_ranges_of(&file, &stat);
        Ok(Self { file, before, at_rest })
    }

    /// Appends the first `length` bytes to `out`; what the file no longer has becomes zeros. The room for them is not
    /// written twice.
    pub(super) fn append(&self, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let begin = out.len();
        let end = begin + length;
        out.reserve(length);
        while out.len() < end {
            let at = (out.len() - begin) as u64;
            match pread(&self.file, spare_capacity(out), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // It may have grown, and there may have been room for more.
        out.resize(end, 0);
        Ok(())
    }

    /// Fills `buffer` from `offset` on; what the file no longer has becomes zeros.
    pub(super) fn read(&self, mut offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset) {
                Ok(0) => {
                    buffer[filled..].fill(0);
                    return Ok(());
                }
                Ok(count) => {
                    filled += count;
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the file is not any more what it was when it was opened, or may have been changing then.
    pub(super) fn has_changed(&self) -> bool {
        !self.at_rest || fstat(&self.file).map_or(true, |stat| Seen::of(&stat) != self.before)
    }
}

/// The state of a file that rests. One that was changed a moment ago is given time; false when it changed again meanwhile.
fn stat_at_rest(file: &File, settling: &Settling) -> Result<(Stat, bool), Errno> {
    let stat = fstat(file)?;
    let seen = Seen::of(&stat);
    if rest(seen.ctime, system_time()).is_none() {
        return Ok((stat, true));
    }
    let had_time = FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || settling.wait(seen.ctime);
    let now = fstat(file)?;
    let same = Seen::of(&now) == seen;
    Ok((now, had_time && same))
}

impl Seen {
    fn of(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: file_time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: file_time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

fn file_time(seconds: i64, nanos: u64) -> FileTime {
    FileTime { seconds, nanos: u32::try_from(nanos).unwrap_or(0) }
}

/// The reason why a file was not read.
pub(super) fn reason(error: &io::Error) -> Reason {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        // NXIO: a socket or a pipe has taken the name; LOOP: a symbolic link. STALE is a server that lost its handles: the
        // name may well be there.
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Reason::Vanished,
        Some(_) | None => Reason::Unreadable(error.to_string()),
    }
}

/// Takes over what changed between scan and opening, so that content and attributes are of one moment.
fn refresh(entry: &mut Entry, stat: &Stat, file: &File, scan_start: FileTime) {
    let seen = Seen::of(stat);
    let attributes = &mut entry.attributes;
    if seen.ctime == entry.identity.ctime && stat.st_ino == entry.identity.inode {
        return;
    }
    attributes.mode = stat.st_mode & 0o7777;
    for (id, name, now) in [
        (&mut attributes.uid, &mut attributes.user, stat.st_uid),
        (&mut attributes.gid, &mut attributes.group, stat.st_gid),
    ] {
        if *id != now {
            *id = now;
            name.clear();
        }
    }
    attributes.mtime = seen.mtime;
    if let Ok(xattrs) = xattrs(file) {
        attributes.xattrs = xattrs;
    }
    entry.identity.ctime = seen.ctime;
    entry.identity.inode = stat.st_ino;
    if seen.ctime >= (FileTime { seconds: scan_start.seconds - 2, nanos: scan_start.nanos }) {
        entry.flags = entry.flags.with(Flags::RACY);
    }
}

fn xattrs(file: &File) -> Result<Vec<Xattr>, Errno> {
    let mut names = vec![0; MAX_XATTR_BYTES];
    let length = flistxattr(file, &mut names[..])?;
    let mut value = vec![0; MAX_XATTR_BYTES];
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match fgetxattr(file, name, &mut value[..]) {
            Ok(length) => found.push(Xattr { name: name.to_vec(), value: value[..length].to_vec() }),
            Err(Errno::NODATA) => {}
            Err(other) => return Err(other),
        }
    }
    found.sort();
    Ok(found)
}
