//! What a file system says of the names in a tree, read back name by name through open folders.
//!
//! Owns that a path of any length is read, and that nothing of the product helps to read it: it can contradict us. A huge
//! file costs no more than its data, since holes are asked for and passed over.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, IFlags, Mode, OFlags, SeekFrom, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

/// Everything below a folder by its path, and the folder itself as the empty path.
pub type Tree = BTreeMap<Vec<u8>, Facts>;

/// The longest list of names, and the longest value, of extended attributes that Linux knows.
const MAX_XATTR_BYTES: usize = 64 << 10;

/// Content is compared in blocks of this many bytes; one that is all zeros says as much as a hole.
const BLOCK_BYTES: u64 = 4 << 10;

/// Inode flags that a user sets and a restore has to set again.
const FLAGS: StatxAttributes = StatxAttributes::IMMUTABLE.union(StatxAttributes::APPEND).union(StatxAttributes::NODUMP);

/// All that a restore promises of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: FileType,
    /// Bytes of a regular file; 0 for everything else.
    pub size: u64,
    /// A digest of a file's content, the same however its zeros are stored.
    pub content: u64,
    /// Where a file has data, as `SEEK_DATA` and `SEEK_HOLE` give it.
    pub data: Vec<(u64, u64)>,
    /// Permissions with suid, sgid and sticky; 0 for a symbolic link, which has none.
    pub mode: u32,
    /// Numeric owner.
    pub owner: u32,
    /// Numeric group.
    pub group: u32,
    /// Modification time.
    pub time: (i64, u32),
    /// Device numbers of a device.
    pub device: (u32, u32),
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// All extended attributes, ACLs and capabilities among them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Immutable, append-only, nodump.
    pub flags: StatxAttributes,
    /// All names of the inode within the tree, in order; none when it has one name there.
    pub names: Arc<[Vec<u8>]>,
}

impl Facts {
    /// In which respects two states of one name differ, in words; nothing for equal ones.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let mut found = self.own_differences(other);
        found.extend((self.names != other.names).then_some("hard links"));
        found
    }

    /// As [`Self::differences`], names of the same inode apart.
    #[must_use]
    pub fn own_differences(&self, other: &Self) -> Vec<&'static str> {
        if self.kind != other.kind {
            return vec!["kind"];
        }
        let respects = [
            (self.has_content_of(other), "content"),
            (self.data == other.data || self.size != other.size, "holes"),
            (self.mode == other.mode, "mode"),
            (self.owner == other.owner, "owner"),
            (self.group == other.group, "group"),
            (self.time == other.time, "time"),
            (self.device == other.device, "device"),
            (self.target == other.target, "target"),
            (self.xattrs == other.xattrs, "extended attributes"),
            (self.flags == other.flags, "inode flags"),
        ];
        respects.into_iter().filter(|(same, _)| !same).map(|(_, what)| what).collect()
    }

    /// Whether the bytes are the same.
    #[must_use]
    pub fn has_content_of(&self, other: &Self) -> bool {
        (self.kind, self.size, self.content) == (other.kind, other.size, other.content)
    }
}

/// Reads the tree at `root`.
///
/// # Errors
/// The first thing that cannot be read.
pub fn read(root: &Path) -> io::Result<Tree> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let mut reading = Reading::default();
    reading.name(root.as_fd(), b".", &[])?;
    reading.folder(&root, &[])?;
    for mut names in reading.inodes.into_values().filter(|names| names.len() > 1) {
        names.sort();
        let names: Arc<[Vec<u8>]> = names.into();
        for name in names.iter() {
            reading.tree.entry(name.clone()).and_modify(|facts| facts.names = Arc::clone(&names));
        }
    }
    Ok(reading.tree)
}

/// Takes from everything below `root` the flags that keep it from being removed.
///
/// # Errors
/// The first thing that cannot be looked at or changed.
pub fn release(root: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut found: Vec<Vec<u8>> =
        read(root)?.into_iter().filter(|(_, it)| !it.flags.is_empty()).map(|it| it.0).collect();
    found.sort_by_key(Vec::len);
    for path in found {
        let fd = rustix::fs::open(root.join(OsStr::from_bytes(&path)), flags, Mode::empty())?;
        let kept = rustix::fs::ioctl_getflags(&fd)?.difference(IFlags::IMMUTABLE | IFlags::APPEND);
        rustix::fs::ioctl_setflags(&fd, kept)?;
    }
    Ok(())
}

#[derive(Default)]
struct Reading {
    tree: Tree,
    /// Names of inodes that have more than one.
    inodes: BTreeMap<(u32, u32, u64), Vec<Vec<u8>>>,
}

impl Reading {
    fn folder(&mut self, fd: &OwnedFd, path: &[u8]) -> io::Result<()> {
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
            if self.name(fd.as_fd(), name, &path)? == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = rustix::fs::openat(fd, name, flags, Mode::empty())?;
                self.folder(&folder, &path)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, folder: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> io::Result<FileType> {
        let status = rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
        let kind = FileType::from_raw_mode(u32::from(status.stx_mode));
        let mut facts = Facts {
            kind,
            size: 0,
            content: 0,
            data: Vec::new(),
            mode: if kind == FileType::Symlink { 0 } else { u32::from(status.stx_mode) & 0o7777 },
            owner: status.stx_uid,
            group: status.stx_gid,
            time: (status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
            device: (status.stx_rdev_major, status.stx_rdev_minor),
            target: Vec::new(),
            xattrs: xattrs(folder, name)?,
            flags: status.stx_attributes & FLAGS,
            names: Arc::default(),
        };
        if kind == FileType::Symlink {
            facts.target = rustix::fs::readlinkat(folder, name, Vec::new())?.into_bytes();
        }
        if kind == FileType::RegularFile {
            facts.size = status.stx_size;
            read_content(folder, name, &status, &mut facts)?;
        }
        if kind != FileType::Directory && status.stx_nlink > 1 {
            let inode = (status.stx_dev_major, status.stx_dev_minor, status.stx_ino);
            self.inodes.entry(inode).or_default().push(path.to_vec());
        }
        self.tree.insert(path.to_vec(), facts);
        Ok(kind)
    }
}

fn read_content(folder: BorrowedFd<'_>, name: &[u8], status: &Statx, facts: &mut Facts) -> io::Result<()> {
    if status.stx_size == 0 {
        return Ok(());
    }
    let file =
        match rustix::fs::openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => File::from(fd),
            // Who is not root cannot read all: then only the size is known.
            Err(Errno::ACCESS) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
    let mut hasher = DefaultHasher::new();
    let mut at = 0;
    while let Some((begin, end)) = next_data(&file, at, status.stx_size)? {
        facts.data.push((begin, end));
        hash(&file, begin, end, &mut hasher)?;
        at = end;
    }
    facts.content = hasher.finish();
    Ok(())
}

/// The next range of data that begins at `at` or later.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(begin) => begin,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(begin))?;
    Ok(Some((begin, end.min(size))))
}

/// Blocks of zeros are passed over, each other one counts with its place.
fn hash(file: &File, begin: u64, end: u64, hasher: &mut DefaultHasher) -> io::Result<()> {
    const ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
    let mut block = [0; BLOCK_BYTES as usize];
    let mut at = begin - begin % BLOCK_BYTES;
    while at < end {
        let length = usize::try_from((end - at).min(BLOCK_BYTES)).map_err(io::Error::other)?;
        file.read_exact_at(&mut block[..length], at)?;
        if block[..length] != ZEROS[..length] {
            hasher.write_u64(at);
            hasher.write(&block[..length]);
        }
        at += BLOCK_BYTES;
    }
    Ok(())
}

fn xattrs(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let own = [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat();
    let mut names = [0; 1024];
    let length = match rustix::fs::llistxattr(own.as_slice(), &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; MAX_XATTR_BYTES];
        let length = rustix::fs::lgetxattr(own.as_slice(), name, value.as_mut_slice())?;
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn make(root: &Path) {
        fs::create_dir(root.join("folder")).unwrap();
        fs::write(root.join("file"), [7; 3 << 16]).unwrap();
        fs::write(root.join("zeros"), [0; 3 << 16]).unwrap();
        fs::write(root.join("folder/linked"), "linked").unwrap();
        fs::hard_link(root.join("folder/linked"), root.join("other")).unwrap();
        symlink("target", root.join("link")).unwrap();
        for name in ["file", "zeros", "other", "folder", ""] {
            let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5);
            File::open(root.join(name)).unwrap().set_modified(time).unwrap();
        }
    }

    fn differences_of(left: &Path, right: &Path, path: &str) -> Vec<&'static str> {
        let (left, right) = (read(left).unwrap(), read(right).unwrap());
        left[path.as_bytes()].differences(&right[path.as_bytes()])
    }

    #[test]
    fn each_fact_that_is_another_is_named_and_no_other_one() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (left, right) = (left.path(), right.path());
        make(left);
        make(right);
        for path in ["", "file", "zeros", "folder", "folder/linked", "other"] {
            assert_eq!(differences_of(left, right, path), Vec::<&str>::new(), "{path}");
        }
        let file = fs::OpenOptions::new().write(true).open(right.join("file")).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"x", 70_000).unwrap();
        file.set_modified(time).unwrap();
        assert_eq!(differences_of(left, right, "file"), ["content"]);
        file.set_modified(time + std::time::Duration::from_nanos(1)).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o4711)).unwrap();
        assert_eq!(differences_of(left, right, "file"), ["content", "mode", "time"]);

        let zeros = fs::OpenOptions::new().write(true).open(right.join("zeros")).unwrap();
        zeros.set_len(0).unwrap();
        zeros.set_len(3 << 16).unwrap();
        zeros.set_modified(time).unwrap();
        assert_eq!(differences_of(left, right, "zeros"), ["holes"]);

        fs::remove_file(right.join("link")).unwrap();
        symlink("targeT", right.join("link")).unwrap();
        assert!(differences_of(left, right, "link").contains(&"target"));
        fs::remove_file(right.join("other")).unwrap();
        assert_eq!(differences_of(left, right, "folder/linked"), ["hard links"]);
        fs::create_dir(right.join("other")).unwrap();
        assert_eq!(differences_of(left, right, "other"), ["kind", "hard links"]);
    }
}
