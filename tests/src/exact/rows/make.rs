//! Small steps that many rows take.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};

/// Where the holes and data of our sparse files begin and end: file systems allocate in blocks of up to this size.
pub const CHUNK: u64 = 64 << 10;

/// Refuses what nobody but root could back up.
pub fn as_root() -> io::Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(rustix::io::Errno::PERM.into()) }
}

/// Sets permissions, set-id bits included.
pub fn mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Sets the owner or the group or both, of a symbolic link itself.
pub fn owner(path: &Path, owner: Option<u32>, group: Option<u32>) -> io::Result<()> {
    let (owner, group) = (owner.map(rustix::fs::Uid::from_raw), group.map(rustix::fs::Gid::from_raw));
    Ok(rustix::fs::chownat(CWD, path, owner, group, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets the modification time, of a symbolic link itself.
pub fn time(path: &Path, seconds: i64, nanos: u32) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Does something to a name, or in a folder, and puts back its modification time.
pub fn keeping_time(path: &Path, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let before = rustix::fs::lstat(path)?;
    act()?;
    time(path, before.st_mtime, u32::try_from(before.st_mtime_nsec).map_err(io::Error::other)?)
}

/// Sets an extended attribute, of a symbolic link itself.
pub fn attribute(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?)
}

/// Removes an extended attribute, of a symbolic link itself.
pub fn no_attribute(path: &Path, name: &str) -> io::Result<()> {
    Ok(rustix::fs::lremovexattr(path, name)?)
}

/// A FIFO, device or socket with this mode.
pub fn special(path: &Path, kind: FileType, mode: u32, device: (u32, u32)) -> io::Result<()> {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device)?;
    self::mode(path, mode)
}

/// Adds and takes inode flags of a file or folder.
pub fn flags(path: &Path, add: IFlags, take: IFlags) -> io::Result<()> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let present = rustix::fs::ioctl_getflags(&fd)?;
    Ok(rustix::fs::ioctl_setflags(&fd, present.difference(take) | add)?)
}

/// A file of `size` bytes with data only in these chunks.
pub fn sparse(path: &Path, size: u64, chunks: &[u64]) -> io::Result<()> {
    File::create(path)?.set_len(size)?;
    chunks.iter().try_for_each(|chunk| overwrite(path, chunk * CHUNK, &noise(*chunk, CHUNK)))
}

/// Writes into a file that is there.
pub fn overwrite(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all_at(bytes, offset)
}

/// Bytes that do not compress.
pub fn noise(seed: u64, size: u64) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(usize::try_from(size / 8).unwrap_or(0)).flatten().collect()
}
