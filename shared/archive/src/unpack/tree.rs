//! Folders beneath the target, and the way to a name in them.
//!
//! Owns that no symbolic link and no `..` is followed on the way: `openat2` with BENEATH and NO_SYMLINKS where the kernel
//! has it, else one folder after another with O_NOFOLLOW. What is done in a folder is done by others, on its descriptor.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, linkat, openat, openat2, statx, unlinkat};
use rustix::io::Errno;

/// What all our temporary names begin with.
pub(super) const OWN_PREFIX: &[u8] = b".coord-restore-";

/// Longest path handed to one call; the kernel's limit is 4096 with the NUL.
const MAX_CALL_BYTES: usize = 4000;

/// Tries of a call that the kernel refuses because something was renamed meanwhile.
const MAX_TRIES: usize = 1000;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How paths are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolver {
    /// By the kernel, in one call.
    Openat2,
    /// One component at a time.
    PerComponent,
}

/// The target.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    resolver: Resolver,
    run: String,
    next_name: AtomicU64,
    /// Whether files can be made without a name and be given one, as far as is known.
    has_unnamed: AtomicBool,
}

impl Tree {
    /// The tree below `root`.
    pub(super) fn new(root: OwnedFd) -> Self {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // Old kernels do not have the call, and some containers' filters refuse it.
        let probe = openat2(&root, ".", FOLDER, Mode::empty(), resolve);
        let resolver = if probe.is_ok() { Resolver::Openat2 } else { Resolver::PerComponent };
        Self::with_resolver(root, resolver)
    }

    pub(super) fn with_resolver(root: OwnedFd, resolver: Resolver) -> Self {
        let run = uuid::Uuid::new_v4().simple().to_string();
        Self { root, resolver, run, next_name: AtomicU64::new(0), has_unnamed: AtomicBool::new(true) }
    }

    /// The target itself.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The random part of this run's temporary names.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// A name that nobody else uses.
    pub(super) fn temporary_name(&self) -> Vec<u8> {
        let number = self.next_name.fetch_add(1, Ordering::Relaxed);
        [OWN_PREFIX, format!("{}-{number:x}", self.run).as_bytes()].concat()
    }

    /// A new file on the file system of `folder` that has no name yet; `None` where there is no such thing.
    pub(super) fn unnamed_file(&self, folder: BorrowedFd<'_>, mode: u32) -> Option<File> {
        if !self.has_unnamed.load(Ordering::Relaxed) {
            return None;
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        // Nobody can reach it, so it may have its own permissions from the beginning; set-id bits come later.
        match openat(folder, ".", flags, Mode::from_raw_mode(mode & 0o777)) {
            Ok(fd) => Some(File::from(fd)),
            Err(error) => {
                // What is wrong with the folder itself shows again with a named file.
                if matches!(error, Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) {
                    self.has_unnamed.store(false, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// Gives an unnamed file a name that must be free; `None` when that cannot be done here.
    pub(super) fn name_file(
        &self,
        file: BorrowedFd<'_>,
        folder: BorrowedFd<'_>,
        name: &[u8],
    ) -> Option<Result<(), Errno>> {
        match linkat(file, "", folder, name, AtFlags::EMPTY_PATH) {
            // Old kernels want a capability for it, and say that they do not find the file.
            Err(Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM | Errno::XDEV) => {
                self.has_unnamed.store(false, Ordering::Relaxed);
                None
            }
            ended => Some(ended),
        }
    }

    /// Opens the folder `path` for reading.
    pub(super) fn folder(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        match self.resolver {
            Resolver::Openat2 => self.folder_by_calls(path),
            Resolver::PerComponent => self.folder_by_components(path),
        }
    }

    fn folder_by_calls(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        loop {
            let (part, after) = split_for_call(rest);
            let part = if part.is_empty() { b"." } else { part };
            let from = at.as_ref().map_or(self.root(), AsFd::as_fd);
            let folder = open_beneath(from, part)?;
            if after.is_empty() {
                return Ok(folder);
            }
            at = Some(folder);
            rest = after;
        }
    }

    fn folder_by_components(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at = openat(&self.root, ".", FOLDER, Mode::empty())?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if name == b".." {
                return Err(Errno::XDEV);
            }
            at = openat(&at, name, FOLDER, Mode::empty())?;
        }
        Ok(at)
    }
}

fn open_beneath(from: BorrowedFd<'_>, part: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(from, part, FOLDER, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
            other => return other,
        }
    }
}

/// Cuts a path where one call has to end.
fn split_for_call(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= MAX_CALL_BYTES {
        return (path, &[]);
    }
    match path[..MAX_CALL_BYTES].iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        // A name of that length does not exist; the call says so.
        None => (path, &[]),
    }
}

/// The folder of `path` and its name there. The root has no name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// The folder used last, so that neighbours do not open it again.
#[derive(Debug, Default)]
pub(super) struct LastFolder(Option<(Vec<u8>, OwnedFd)>);

impl LastFolder {
    /// The folder `path`, opened unless it is the same as the last.
    pub(super) fn get(&mut self, tree: &Tree, path: &[u8]) -> Result<BorrowedFd<'_>, Errno> {
        if self.0.as_ref().is_none_or(|(last, _)| last != path) {
            self.0 = None;
            self.0 = Some((path.to_vec(), tree.folder(path)?));
        }
        self.0.as_ref().map(|(_, fd)| fd.as_fd()).ok_or(Errno::BADF)
    }
}

/// What a name is, without following it; `None` when there is nothing.
pub(super) fn status(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Statx>, Errno> {
    let name = if name.is_empty() { &b"."[..] } else { name };
    match statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Status of an open descriptor.
pub(super) fn status_of(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// Device and inode, which identify an inode as long as it is not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InodeId {
    device: (u32, u32),
    inode: u64,
}

impl InodeId {
    pub(super) fn of(status: &Statx) -> Self {
        Self { device: (status.stx_dev_major, status.stx_dev_minor), inode: status.stx_ino }
    }

    pub(super) fn device(self) -> (u32, u32) {
        self.device
    }
}

/// A temporary name that is removed unless it is kept.
#[derive(Debug)]
pub(super) struct Temporary<'a> {
    pub(super) folder: BorrowedFd<'a>,
    pub(super) name: Vec<u8>,
    pub(super) kept: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = unlinkat(self.folder, self.name.as_slice(), AtFlags::empty())
            && error != Errno::NOENT
        {
            tracing::warn!(%error, "a temporary name of a restore could not be removed");
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn opened(path: &std::path::Path, resolver: Resolver) -> Tree {
        Tree::with_resolver(std::fs::File::open(path).unwrap().into(), resolver)
    }

    #[test]
    fn no_way_leads_outside_with_either_resolver() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outer.path().join("target/a/b")).unwrap();
        std::fs::create_dir(outer.path().join("outside")).unwrap();
        symlink("../outside", outer.path().join("target/out")).unwrap();
        symlink("b", outer.path().join("target/a/in")).unwrap();
        symlink("/", outer.path().join("target/a/b/root")).unwrap();
        for resolver in [Resolver::Openat2, Resolver::PerComponent] {
            let tree = opened(&outer.path().join("target"), resolver);
            for inside in [&b""[..], b"a", b"a/b"] {
                assert!(tree.folder(inside).is_ok(), "{inside:?} {resolver:?}");
            }
            for refused in [&b"out"[..], b"a/in", b"a/b/root", b"a/b/root/tmp", b"..", b"a/../..", b"a/../../outside"] {
                assert!(tree.folder(refused).is_err(), "{refused:?} {resolver:?}");
            }
        }
    }

    #[test]
    fn a_path_longer_than_one_call_is_reached_in_several() {
        let outer = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(outer.path()).unwrap();
        let name = [b'n'; 250];
        let mut at: OwnedFd = root.try_clone().unwrap().into();
        let mut path = Vec::new();
        for _ in 0..40 {
            rustix::fs::mkdirat(&at, &name[..], Mode::RWXU).unwrap();
            at = openat(&at, &name[..], FOLDER, Mode::empty()).unwrap();
            path.extend_from_slice(&name);
            path.push(b'/');
        }
        path.pop();
        for resolver in [Resolver::Openat2, Resolver::PerComponent] {
            let tree = opened(outer.path(), resolver);
            let found = tree.folder(&path).unwrap();
            let id = |fd: &OwnedFd| InodeId::of(&status(fd.as_fd(), b"").unwrap().unwrap());
            assert_eq!(id(&found), id(&at));
        }
    }
}
