//! The protected tree, reached through one descriptor of its root.
//!
//! Owns the rule that nothing outside the root is ever opened and no symbolic link is followed below it. Everything the
//! scan asks of the system goes through here, which is also where a test puts a [`Lens`]: another time, another device
//! number, a folder that cannot be read. What the answers mean is decided elsewhere (`walk`, `compare`).

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coord_archive::entry::{FileTime, Kind, Xattr, parent};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

/// Longest path handed to the kernel at once, in bytes; longer ones are walked in parts.
const MAX_STEP_BYTES: usize = 4000;
/// The kernel's limit of a list of attribute names, and of one value, in bytes.
const MAX_XATTR_BYTES: usize = 64 << 10;
/// Folders kept open for those who name paths; about one for each thread.
const KEPT_FOLDERS: usize = 4;
/// Inode flags that a restore can set again (those of chattr that users may modify).
const RESTORABLE_INODE_FLAGS: u32 = 0x2083_C4FF;

/// What lstat says of a name.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// `None` for a socket, which is never archived.
    pub kind: Option<Kind>,
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: FileTime,
    /// Change time.
    pub ctime: FileTime,
    /// Inode number.
    pub inode: u64,
    /// Device number of the file system: tells file systems apart within one scan and never longer.
    pub file_system: (u32, u32),
    /// Device numbers of a device node.
    pub device: (u32, u32),
    /// Number of names.
    pub links: u32,
    /// Number of the mount, or a number made of the device where the kernel does not tell.
    pub mount: u64,
    /// Whether the inode asks not to be dumped. False on a file system that does not tell.
    pub nodump: bool,
}

impl Stat {
    fn from_statx(statx: &Statx) -> Self {
        let kind = match FileType::from_raw_mode(statx.stx_mode.into()) {
            FileType::RegularFile => Some(Kind::File),
            FileType::Directory => Some(Kind::Folder),
            FileType::Symlink => Some(Kind::Symlink),
            FileType::Fifo => Some(Kind::Fifo),
            FileType::CharacterDevice => Some(Kind::CharDevice),
            FileType::BlockDevice => Some(Kind::BlockDevice),
            FileType::Socket | FileType::Unknown => None,
        };
        let knows_mount = statx.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        let by_device = u64::from(statx.stx_dev_major) << 32 | u64::from(statx.stx_dev_minor);
        Self {
            kind,
            mode: u32::from(statx.stx_mode) & 0o7777,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            size: statx.stx_size,
            mtime: FileTime { seconds: statx.stx_mtime.tv_sec, nanos: statx.stx_mtime.tv_nsec },
            ctime: FileTime { seconds: statx.stx_ctime.tv_sec, nanos: statx.stx_ctime.tv_nsec },
            inode: statx.stx_ino,
            file_system: (statx.stx_dev_major, statx.stx_dev_minor),
            device: (statx.stx_rdev_major, statx.stx_rdev_minor),
            links: statx.stx_nlink,
            mount: if knows_mount { statx.stx_mnt_id } else { by_device },
            nodump: statx.stx_attributes.contains(StatxAttributes::NODUMP),
        }
    }

    /// Whether both are the same inode of one scan.
    #[must_use]
    pub fn is_same_inode(&self, other: &Self) -> bool {
        (self.file_system, self.inode) == (other.file_system, other.inode)
    }
}

/// What a test may put between the scan and the system. The default changes nothing.
pub trait Lens: Send + Sync {
    /// What lstat of `path` shall have answered.
    ///
    /// # Errors
    /// Those the test makes up, or the system's own.
    fn stat(&self, path: &[u8], seen: io::Result<Stat>) -> io::Result<Stat> {
        let _path = path;
        seen
    }

    /// Asked before a folder is listed or a file is opened.
    ///
    /// # Errors
    /// Those the test makes up.
    fn open(&self, path: &[u8]) -> io::Result<()> {
        let _path = path;
        Ok(())
    }
}

/// The lens that changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Clear;

impl Lens for Clear {}

/// Attributes that lstat does not give.
#[derive(Clone, Debug, Default)]
pub struct ExtraAttributes {
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Restorable inode flags.
    pub inode_flags: u32,
    /// Names of attributes that could not be read, and why.
    pub failed: Vec<(Vec<u8>, Errno)>,
}

/// A tree below one root.
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
    lens: Box<dyn Lens>,
    /// The folders that were asked for last: names come in path order, mostly of one folder for each thread.
    last_folders: Mutex<VecDeque<(Vec<u8>, Arc<OwnedFd>)>>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Tree {
    /// Opens the tree at `root`. Symbolic links in `root` itself are followed, as its name was given by a person.
    ///
    /// # Errors
    /// As openat(2); not a folder.
    pub fn open(root: &Path) -> io::Result<Self> {
        Self::open_through(root, Box::new(Clear))
    }

    /// As [`Tree::open`], seen through a lens.
    ///
    /// # Errors
    /// As [`Tree::open`].
    pub fn open_through(root: &Path, lens: Box<dyn Lens>) -> io::Result<Self> {
        let path = root.canonicalize()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { root, path, lens, last_folders: Mutex::default() })
    }

    /// Absolute path of the root, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Descriptor of the root, good only as a starting point.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// lstat of `name` in the open folder `folder`; `path` is what the lens is told. An empty name is the folder itself.
    ///
    /// # Errors
    /// As statx(2).
    pub fn stat_at(&self, folder: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> io::Result<Stat> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
        let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let seen = rustix::fs::statx(folder, name, flags, mask).map_err(io::Error::from);
        self.lens.stat(path, seen.map(|statx| Stat::from_statx(&statx)))
    }

    /// Opens folder `name` of the open folder `folder` for listing. An empty name is the folder itself.
    ///
    /// # Errors
    /// As openat(2); a symbolic link or anything else that is no folder is an error too.
    pub fn list_at(&self, folder: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> io::Result<OwnedFd> {
        self.lens.open(path)?;
        let name = if name.is_empty() { b"." } else { name };
        Ok(open_quietly(folder, name, OFlags::RDONLY | OFlags::DIRECTORY)?)
    }

    /// Opens folder `name` only to go on from it: needs no permission to list it.
    ///
    /// # Errors
    /// As openat(2).
    pub fn pass_at(&self, folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = if name.is_empty() { b"." } else { name };
        Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
    }

    /// Opens the folder at `path` only to go on from it.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn folder(&self, path: &[u8]) -> io::Result<Arc<OwnedFd>> {
        let mut last = self.last_folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, fd)) = last.iter().find(|(known, _)| known == path) {
            return Ok(Arc::clone(fd));
        }
        let fd = Arc::new(self.beneath(path, OFlags::PATH | OFlags::DIRECTORY)?);
        last.truncate(KEPT_FOLDERS - 1);
        last.push_front((path.to_vec(), Arc::clone(&fd)));
        Ok(fd)
    }

    /// Opens the folder at `path` for listing.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn list(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.lens.open(path)?;
        self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// As openat2(2); `NotFound` also when the name is no regular file any more.
    pub fn open_file(&self, path: &[u8]) -> io::Result<File> {
        let file = self.open_any(path)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::NotFound, "is no regular file any more"));
        }
        Ok(file)
    }

    /// As [`Tree::open_file`], for a caller that finds out itself what it has opened.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open_any(&self, path: &[u8]) -> io::Result<File> {
        self.lens.open(path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let (folder, name) = self.locate(path)?;
        let name = if name.is_empty() { b"." } else { name };
        let fd = match open_step(folder.as_fd(), name, flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open_step(folder.as_fd(), name, flags)?,
            other => other?,
        };
        Ok(File::from(fd))
    }

    /// Extended attributes and inode flags of an open file.
    ///
    /// # Errors
    /// When their list cannot be read.
    pub fn extra_of(&self, file: BorrowedFd<'_>) -> io::Result<ExtraAttributes> {
        let mut extra = Place::Open(file).xattrs()?;
        extra.inode_flags = inode_flags(file);
        Ok(extra)
    }

    /// lstat of the name at `path`.
    ///
    /// # Errors
    /// As statx(2).
    pub fn stat(&self, path: &[u8]) -> io::Result<Stat> {
        let (folder, name) = self.locate(path)?;
        self.stat_at(folder.as_fd(), name, path)
    }

    /// Extended attributes and inode flags of `name` in an open folder; an empty name is the folder itself.
    ///
    /// # Errors
    /// When the name is gone, or the list itself cannot be read.
    pub fn extra_at(&self, folder: BorrowedFd<'_>, name: &[u8], kind: Kind) -> io::Result<ExtraAttributes> {
        let opened = match kind {
            Kind::File => Some(open_quietly(folder, name, OFlags::RDONLY)),
            Kind::Folder => Some(open_quietly(
                folder,
                if name.is_empty() { b"." } else { name },
                OFlags::RDONLY | OFlags::DIRECTORY,
            )),
            Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice | Kind::Tombstone => None,
        };
        // A file that may not be read still has attributes: they are reached by name then.
        let place = match &opened {
            Some(Ok(fd)) => Place::Open(fd.as_fd()),
            Some(Err(_)) | None => Place::named(folder, name),
        };
        let mut extra = match place.xattrs() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.stat_at(folder, name, b"").is_ok() => {
                return Err(io::Error::other("/proc is needed for this and is not mounted"));
            }
            other => other?,
        };
        if let Some(Ok(fd)) = &opened {
            extra.inode_flags = inode_flags(fd.as_fd());
        }
        Ok(extra)
    }

    /// The folder that holds `path`, and the name in it; for the root the folder itself and an empty name.
    ///
    /// # Errors
    /// As [`Tree::folder`].
    pub fn locate<'p>(&self, path: &'p [u8]) -> io::Result<(Arc<OwnedFd>, &'p [u8])> {
        match parent(path) {
            None => Ok((self.folder(b"")?, b"")),
            Some(folder) => {
                let name_at = if folder.is_empty() { 0 } else { folder.len() + 1 };
                Ok((self.folder(folder)?, &path[name_at..]))
            }
        }
    }

    /// Opens `path` below the root, through no symbolic link.
    fn beneath(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        while rest.len() > MAX_STEP_BYTES {
            let cut = rest[..MAX_STEP_BYTES].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
            let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let next = open_step(from, &rest[..cut], OFlags::PATH | OFlags::DIRECTORY)?;
            at = Some(next);
            rest = &rest[cut + 1..];
        }
        let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        Ok(open_step(from, if rest.is_empty() { b"." } else { rest }, flags)?)
    }
}

/// openat2 where the kernel has it, else one component at a time.
fn open_step(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..16 {
        match rustix::fs::openat2(from, path, flags, Mode::empty(), resolve) {
            // A rename somewhere on the way; the kernel asks to try again.
            Err(Errno::AGAIN) => {}
            // Old kernels do not have it, and some sandboxes forbid what they do not know.
            Err(Errno::NOSYS | Errno::PERM) => return open_by_components(from, path, flags),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn open_by_components(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let pass = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    let mut parts = path.split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        let step = at.as_ref().map_or(from, AsFd::as_fd);
        let flags = if parts.peek().is_some() { pass } else { flags };
        at = Some(rustix::fs::openat(step, part, flags, Mode::empty())?);
    }
    at.ok_or(Errno::NOENT)
}

/// Opens without leaving an access time, without blocking on a FIFO and without following a link.
fn open_quietly(folder: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only owners and root may leave no access time.
        Err(Errno::PERM) => rustix::fs::openat(folder, name, flags, Mode::empty()),
        other => other,
    }
}

/// Restorable flags of an open inode; none where a file system has no such flags and refuses.
fn inode_flags(fd: BorrowedFd<'_>) -> u32 {
    rustix::fs::ioctl_getflags(fd).map_or(0, |flags| flags.bits() & RESTORABLE_INODE_FLAGS)
}

/// Where attributes are read from.
enum Place<'a> {
    Open(BorrowedFd<'a>),
    /// A path through /proc: no call takes a folder's descriptor and a name before Linux 6.13.
    Named(Vec<u8>),
}

impl Place<'_> {
    fn named(folder: BorrowedFd<'_>, name: &[u8]) -> Self {
        let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
        path.extend_from_slice(if name.is_empty() { b"." } else { name });
        Self::Named(path)
    }

    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::Named(path) => rustix::fs::llistxattr(path.as_slice(), buffer),
        }
    }

    fn get(&self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Self::Named(path) => rustix::fs::lgetxattr(path.as_slice(), name, buffer),
        }
    }

    fn xattrs(&self) -> io::Result<ExtraAttributes> {
        let mut extra = ExtraAttributes::default();
        // Nearly every list is empty or short: the first try goes on the stack.
        let mut short = [0_u8; 512];
        let mut long = Vec::new();
        let names = match self.list(&mut short) {
            Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(extra),
            Ok(length) => &short[..length],
            Err(Errno::RANGE) => {
                long.resize(MAX_XATTR_BYTES, 0);
                let length = self.list(&mut long)?;
                &long[..length]
            }
            Err(error) => return Err(error.into()),
        };
        let mut value = [0_u8; 1024];
        let mut large = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let read = match self.get(name, &mut value) {
                Err(Errno::RANGE) => {
                    large.resize(MAX_XATTR_BYTES, 0);
                    self.get(name, &mut large).map(|length| &large[..length])
                }
                other => other.map(|length| &value[..length]),
            };
            match read {
                Ok(value) => extra.xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() }),
                Err(Errno::NODATA) => {}
                Err(error) => extra.failed.push((name.to_vec(), error)),
            }
        }
        extra.xattrs.sort();
        Ok(extra)
    }
}
