//! Setting and comparing attributes of things that are reached by descriptor.
//!
//! Nothing here resolves a path: files and folders come as open descriptors, everything else as an `O_PATH` descriptor
//! used through `/proc/self/fd`. What cannot be set is reported and never fails a name.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Gid, IFlags, Mode, OFlags, Statx, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat,
    fchmod, fsetxattr, futimens, ioctl_getflags, ioctl_setflags, openat, setxattr, utimensat,
};
use rustix::io::Errno;

use super::context::{Context, mtime_of};
use super::tree::status_of;
use crate::entry::{Attributes, Entry, FileTime, Kind, Xattr};
use crate::recipe::RESTORABLE_INODE_FLAGS;

/// Longest list of names and longest value of extended attributes (the kernel's own limits).
const MAX_XATTR_BYTES: usize = 64 << 10;

/// The bits that lend an owner's rights to whoever runs a file.
const SET_IDS: u32 = 0o6000;

/// Room for the few names that most files have.
const FEW_XATTR_BYTES: usize = 1 << 10;

/// A thing whose attributes are set or read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handle<'a> {
    /// Open for reading or writing.
    Open(BorrowedFd<'a>),
    /// Opened with `O_PATH`.
    Path(BorrowedFd<'a>),
}

impl Handle<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) | Self::Path(fd) => fd.as_fd(),
        }
    }

    fn magic(&self) -> String {
        format!("/proc/self/fd/{}", self.fd().as_raw_fd())
    }

    fn set_xattr(&self, xattr: &Xattr) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => fsetxattr(fd, xattr.name.as_slice(), &xattr.value, XattrFlags::empty()),
            Self::Path(_) => setxattr(self.magic(), xattr.name.as_slice(), &xattr.value, XattrFlags::empty()),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Path(_) => rustix::fs::removexattr(self.magic(), name),
        }
    }

    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            Self::Path(_) => chmod(self.magic(), mode),
        }
    }

    fn set_mtime(&self, mtime: FileTime) -> Result<(), Errno> {
        let times = times(mtime);
        match self {
            Self::Open(fd) => futimens(fd, &times),
            Self::Path(fd) => utimensat(fd, "", &times, AtFlags::EMPTY_PATH),
        }
    }

    /// Names of the extended attributes; none where the file system has none.
    fn xattr_names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        // Nearly always there are few; the largest buffer is only taken when they do not fit.
        let mut few = [0; FEW_XATTR_BYTES];
        let mut many = Vec::new();
        let listed = match self.list_xattrs(&mut few) {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) => {
                many.resize(MAX_XATTR_BYTES, 0);
                let length = self.list_xattrs(&mut many)?;
                &many[..length]
            }
            other => &few[..other?],
        };
        Ok(listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn list_xattrs(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::Path(_) => rustix::fs::listxattr(self.magic(), buffer),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; MAX_XATTR_BYTES];
        let length = match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer.as_mut_slice())?,
            Self::Path(_) => rustix::fs::getxattr(self.magic(), name, buffer.as_mut_slice())?,
        };
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// A modification time alone, as the calls that set times take it.
pub(super) fn times(mtime: FileTime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
    }
}

/// Whether an extended attribute that the backup does not have is left: labels that the target's own policy puts on files.
fn belongs_to_target(name: &[u8]) -> bool {
    name.starts_with(b"security.") && name != b"security.capability"
}

/// Sets everything but inode flags: owner, extended attributes, mode, time, in this order, since a new owner clears
/// capabilities and set-id bits. What `found`, the status at hand, has already is not set again.
pub(super) fn apply(context: &Context<'_>, handle: Handle<'_>, entry: &Entry, found: &Statx) {
    let wanted = &entry.attributes;
    let check = |what: &str, result: Result<(), Errno>| {
        if let Err(error) = result {
            context.report.not_settable(&entry.path, what, error);
        }
    };
    let mut is_untouched = (found.stx_uid, found.stx_gid) == (wanted.uid, wanted.gid);
    let mut mode = wanted.mode & 0o7777;
    if !is_untouched {
        let owned = set_owner(handle, wanted);
        if owned.is_err() && mode & SET_IDS != 0 {
            // Whoever restores would lend their own rights to the content of somebody else.
            mode &= !SET_IDS;
            check("set-id bits for another owner", Err(Errno::PERM));
        }
        check("owner", owned);
    }
    is_untouched &= apply_xattrs(handle, wanted, &check);
    let has_mode = is_untouched && u32::from(found.stx_mode) & 0o7777 == mode;
    if entry.kind != Kind::Symlink && !has_mode {
        check("mode", handle.set_mode(mode));
    }
    check("time", handle.set_mtime(wanted.mtime));
}

/// The numbers of every bit mean "leave it" to the system, which would leave whoever restores as the owner.
fn set_owner(handle: Handle<'_>, wanted: &Attributes) -> Result<(), Errno> {
    if wanted.uid == u32::MAX || wanted.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
    chownat(handle.fd(), "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

/// Returns whether there was nothing to do: an ACL that is set or removed changes the mode as well.
fn apply_xattrs(handle: Handle<'_>, wanted: &Attributes, check: &dyn Fn(&str, Result<(), Errno>)) -> bool {
    let mut is_untouched = wanted.xattrs.is_empty();
    let present = handle.xattr_names().unwrap_or_default();
    for name in present.iter().filter(|name| !belongs_to_target(name)) {
        if wanted.xattrs.iter().all(|xattr| xattr.name != *name) {
            check("extended attribute", handle.remove_xattr(name));
            is_untouched = false;
        }
    }
    for xattr in &wanted.xattrs {
        check(&format!("extended attribute {}", xattr.name.escape_ascii()), handle.set_xattr(xattr));
    }
    is_untouched
}

/// Sets the modification time alone.
pub(super) fn apply_mtime(context: &Context<'_>, handle: Handle<'_>, path: &[u8], mtime: FileTime) {
    if let Err(error) = handle.set_mtime(mtime) {
        context.report.not_settable(path, "time", error);
    }
}

/// The restorable inode flags; none where the file system has none.
fn inode_flags(fd: BorrowedFd<'_>) -> u32 {
    ioctl_getflags(fd).map_or(0, |flags| flags.bits() & RESTORABLE_INODE_FLAGS)
}

/// Sets the restorable inode flags to `wanted`, and leaves all others.
pub(super) fn apply_inode_flags(fd: BorrowedFd<'_>, wanted: u32) -> Result<(), Errno> {
    let wanted = wanted & RESTORABLE_INODE_FLAGS;
    let present = match ioctl_getflags(fd) {
        Ok(flags) => flags.bits(),
        Err(_) if wanted == 0 => return Ok(()),
        Err(error) => return Err(error),
    };
    let next = present & !RESTORABLE_INODE_FLAGS | wanted;
    if next == present { Ok(()) } else { ioctl_setflags(fd, IFlags::from_bits_retain(next)) }
}

/// A file that was freed of what keeps root from taking its name away. It may have other names, outside the target too:
/// these keep the flags, which are set again when this is dropped.
#[derive(Debug)]
pub(super) struct Freed {
    fd: OwnedFd,
    flags: IFlags,
}

impl Freed {
    /// Takes the flags from `name` in `folder`, a file or a folder.
    pub(super) fn open(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Self, Errno> {
        let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(folder, name, open, Mode::empty())?;
        let flags = ioctl_getflags(&fd)?;
        let next = flags.difference(IFlags::IMMUTABLE | IFlags::APPEND);
        if next != flags {
            ioctl_setflags(&fd, next)?;
        }
        Ok(Self { fd, flags })
    }
}

impl Drop for Freed {
    fn drop(&mut self) {
        let is_gone = status_of(self.fd.as_fd()).is_ok_and(|status| status.stx_nlink == 0);
        if !is_gone && let Err(error) = ioctl_setflags(&self.fd, self.flags) {
            tracing::warn!(%error, "a file that lost a name did not get its flags back");
        }
    }
}

/// The first attribute in which a thing that exists is not as `entry` says; times of folders do not count.
pub(super) fn difference(
    context: &Context<'_>,
    handle: Handle<'_>,
    status: &Statx,
    entry: &Entry,
) -> Result<Option<&'static str>, Errno> {
    let wanted = &entry.attributes;
    let has_owner = (status.stx_uid, status.stx_gid) == (wanted.uid, wanted.gid);
    // Set-id bits were left out where the owner could not be set.
    let compared = if has_owner || context.owners_matter { 0o7777 } else { 0o7777 & !SET_IDS };
    if entry.kind != Kind::Symlink && (u32::from(status.stx_mode) ^ wanted.mode) & compared != 0 {
        return Ok(Some("another mode"));
    }
    if context.owners_matter && !has_owner {
        return Ok(Some("another owner"));
    }
    if entry.kind != Kind::Folder && mtime_of(status) != wanted.mtime {
        return Ok(Some("another modification time"));
    }
    let present = handle.xattr_names()?;
    for name in present.iter().filter(|name| !belongs_to_target(name)) {
        if wanted.xattrs.iter().all(|xattr| xattr.name != *name) {
            return Ok(Some("an extended attribute more"));
        }
    }
    for xattr in &wanted.xattrs {
        if !present.contains(&xattr.name) || handle.xattr(&xattr.name)? != xattr.value {
            return Ok(Some("another extended attribute"));
        }
    }
    if let Handle::Open(fd) = handle
        && inode_flags(fd) != wanted.inode_flags & RESTORABLE_INODE_FLAGS
    {
        return Ok(Some("other inode flags"));
    }
    Ok(None)
}
