//! What stands where a name is to be restored, and whether it is already as the backup has it.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Statx, openat, readlinkat};
use rustix::io::Errno;

use super::Overwrite;
use super::UnpackError;
use super::attributes::{self, Handle};
use super::context::{Context, mtime_of};
use super::tree::{InodeId, status_of};
use crate::digest::ContentHasher;
use crate::entry::{Entry, Flags, Kind};

/// How much of an existing file is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Result of looking at a name that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Content and attributes are those of the backup.
    Equal(InodeId),
    /// Something is not.
    Different(&'static str),
}

/// Why it cannot be said.
#[derive(Debug)]
pub(super) enum LookError {
    /// The name could not be looked at.
    Name(Errno),
    /// The whole restore ends.
    Ends(UnpackError),
}

impl From<Errno> for LookError {
    fn from(error: Errno) -> Self {
        Self::Name(error)
    }
}

/// Whether `overwrite` lets something that differs be replaced.
pub(super) fn may_replace(overwrite: Overwrite, entry: &Entry, existing: &Statx) -> bool {
    match overwrite {
        Overwrite::Never => false,
        Overwrite::IfChanged | Overwrite::Always => true,
        Overwrite::IfNewer => mtime_of(existing) < entry.attributes.mtime,
    }
}

fn file_type(kind: Kind) -> Option<FileType> {
    match kind {
        Kind::File => Some(FileType::RegularFile),
        Kind::Folder => Some(FileType::Directory),
        Kind::Symlink => Some(FileType::Symlink),
        Kind::Fifo => Some(FileType::Fifo),
        Kind::CharDevice => Some(FileType::CharacterDevice),
        Kind::BlockDevice => Some(FileType::BlockDevice),
        Kind::Tombstone => None,
    }
}

/// The type of what exists.
pub(super) fn type_of(status: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(status.stx_mode))
}

/// Opens a name for its attributes, whatever it is, without following it and without waking a device.
pub(super) fn open_path(folder: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Compares what stands at `name` with `entry`: attributes first, then content.
pub(super) fn look(
    context: &Context<'_>,
    folder: BorrowedFd<'_>,
    name: &[u8],
    status: &Statx,
    entry: &Entry,
) -> Result<Verdict, LookError> {
    if Some(type_of(status)) != file_type(entry.kind) {
        return Ok(Verdict::Different("another type"));
    }
    let id = InodeId::of(status);
    match entry.kind {
        Kind::File => look_at_file(context, folder, name, entry),
        Kind::Folder | Kind::Tombstone => Ok(Verdict::Equal(id)),
        Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
            if entry.kind == Kind::Symlink {
                let target = readlinkat(folder, name, Vec::new())?;
                if target.as_bytes() != entry.link_target {
                    return Ok(Verdict::Different("another link target"));
                }
            }
            let is_device = matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice);
            if is_device && (status.stx_rdev_major, status.stx_rdev_minor) != entry.device {
                return Ok(Verdict::Different("another device"));
            }
            let fd = open_path(folder, name)?;
            let difference = attributes::difference(context, Handle::Path(fd.as_fd()), status, entry)?;
            Ok(difference.map_or(Verdict::Equal(id), Verdict::Different))
        }
    }
}

fn look_at_file(
    context: &Context<'_>,
    folder: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
) -> Result<Verdict, LookError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(folder, name, flags, Mode::empty())?;
    let status = status_of(fd.as_fd())?;
    if type_of(&status) != FileType::RegularFile {
        return Ok(Verdict::Different("another type"));
    }
    if status.stx_size != entry.size {
        return Ok(Verdict::Different("another size"));
    }
    if let Some(difference) = attributes::difference(context, Handle::Open(fd.as_fd()), &status, entry)? {
        return Ok(Verdict::Different(difference));
    }
    if entry.flags.contains(Flags::UNREAD) {
        return Ok(Verdict::Equal(InodeId::of(&status)));
    }
    let mut hasher = ContentHasher::new();
    let mut file = File::from(fd);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = file.read(&mut buffer).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
        context.advance(&entry.path, None, 0).map_err(LookError::Ends)?;
    }
    if Some(hasher.finish().digest) == entry.digest {
        context.report.count(|counts| counts.digests_verified += 1);
        Ok(Verdict::Equal(InodeId::of(&status)))
    } else {
        Ok(Verdict::Different("another content"))
    }
}
