//! Removing what the backup does not have.
//!
//! Owns what is spared: names that the backup's selection does not cover or the restore's does not take, what the backup's
//! rules would leave out now, whatever is at or below a stale or unread entry, everything in a folder that the backup only passed through, and everything at or below a
//! mount point that is not the one the backup saw. Folders are emptied through their descriptors; no symbolic link is followed.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxAttributes, openat, unlinkat};
use rustix::io::Errno;

use super::attributes::Freed;
use super::context::{Context, is_fatal, mark};
use super::existing::type_of;
use super::stream::Picked;
use super::tree::{InodeId, OWN_PREFIX, status, status_of};
use super::{Covers, UnpackError};
use crate::entry::{Flags, Kind, is_at_or_below};

/// Deepest folder of extra names that is emptied: each level holds a descriptor.
const MAX_DEPTH: usize = 400;

/// A folder of the backup being left, with the names that the backup has in it.
struct Level {
    picked: Picked,
    names: Vec<Vec<u8>>,
    spared: bool,
}

/// Removes extra names below all selected folders.
pub(super) fn remove_all(context: &Context<'_>) -> Result<(), UnpackError> {
    let Some(covers) = context.options.delete_extra else { return Ok(()) };
    let mut levels: Vec<Level> = Vec::new();
    let mut stream = context.stream();
    while let Some(picked) = stream.next_picked()? {
        let entry = picked.entry();
        while let Some(level) = levels.pop_if(|level| !is_at_or_below(&entry.path, &level.picked.entry().path)) {
            remove_in(context, covers, &level)?;
        }
        let spared = [Flags::STALE, Flags::UNREAD].iter().any(|flag| entry.flags.contains(*flag))
            || levels.last().is_some_and(|level| level.spared)
            || entry.kind == Kind::Folder && is_foreign_mount(context, &entry.path)?;
        if let Some(level) = levels.last_mut() {
            level.names.push(super::tree::split(&entry.path).1.to_vec());
        }
        if entry.kind == Kind::Folder {
            levels.push(Level { picked, names: Vec::new(), spared });
        }
    }
    while let Some(level) = levels.pop() {
        remove_in(context, covers, &level)?;
    }
    Ok(())
}

fn remove_in(context: &Context<'_>, covers: Covers<'_>, level: &Level) -> Result<(), UnpackError> {
    let path = &level.picked.entry().path;
    let is_new = context.is_marked(level.picked.number, mark::CREATED);
    // What is in a folder that was only passed through, or that a kernel's file system covered, was never looked at.
    let is_passed = level.picked.entry().flags.contains(Flags::ANCESTOR);
    if level.spared || !level.picked.selected || is_new || is_passed {
        return Ok(());
    }
    let Ok(folder) = context.tree.folder(path) else { return Ok(()) };
    let listed = names_in(folder.as_fd()).map_err(|error| failed(path, error))?;
    let extra = Extra { context, covers };
    if extra.is_marked(folder.as_fd(), &listed, path) {
        return Ok(());
    }
    for name in listed {
        // The stream's order is that of bytes within one folder.
        if level.names.binary_search(&name).is_ok() {
            continue;
        }
        let is_spared = || extra.spares(folder.as_fd(), &name, &below(path, &name));
        if !context.is_marked(level.picked.number, mark::CHANGED_INSIDE) && !is_spared() {
            context.will_change(level.picked.number, path);
        }
        extra.remove(folder.as_fd(), &name, path, 0)?;
    }
    context.advance(path, None, 0)
}

/// Whether something is mounted on this folder of the backup that was not mounted there then. The target itself is where
/// it was asked for.
fn is_foreign_mount(context: &Context<'_>, path: &[u8]) -> Result<bool, UnpackError> {
    if path.is_empty() {
        return Ok(false);
    }
    let (above, name) = super::tree::split(path);
    let opened = context.tree.folder(above).and_then(|parent| Ok((open_folder(parent.as_fd(), name)?, parent)));
    let (folder, parent) = match opened {
        Ok(opened) => opened,
        // Nothing is there that could be removed.
        Err(_) => return Ok(false),
    };
    if !is_mounted(parent.as_fd(), folder.as_fd()).map_err(|error| failed(path, error))? {
        return Ok(false);
    }
    let recorded = context.point.mounts().find(|mount| mount.path == path);
    let is_known =
        recorded.is_some_and(|mount| context.options.is_mounted.is_some_and(|ask| ask(mount, folder.as_fd())));
    if !is_known {
        let why = "another file system is mounted here; nothing in it was removed";
        context.report.different(path, why);
    }
    Ok(!is_known)
}

fn open_folder(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn is_mounted(parent: BorrowedFd<'_>, folder: BorrowedFd<'_>) -> Result<bool, Errno> {
    let (outer, inner) = (status_of(parent)?, status_of(folder)?);
    Ok(inner.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        || InodeId::of(&outer).device() != InodeId::of(&inner).device())
}

/// Removes what is in the folder `name` as far as `delete_extra` covers it; without that option nothing.
pub(super) fn empty_folder(
    context: &Context<'_>,
    parent: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
) -> Result<(), UnpackError> {
    let Some(covers) = context.options.delete_extra else { return Ok(()) };
    let extra = Extra { context, covers };
    match extra.open_same_mount(parent, name) {
        Ok(Some(folder)) => extra.empty(&folder, path, 0).map(drop),
        Ok(None) => Ok(()),
        Err(error) => Err(failed(path, error)),
    }
}

fn failed(path: &[u8], error: Errno) -> UnpackError {
    UnpackError::Target { path: path.to_vec(), source: error.into() }
}

fn names_in(folder: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        // Other restores' names are theirs.
        if !matches!(name, b"." | b"..") && !name.starts_with(OWN_PREFIX) {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

struct Extra<'a> {
    context: &'a Context<'a>,
    covers: Covers<'a>,
}

impl Extra<'_> {
    /// Whether a name is not to be removed, nor anything below it.
    fn spares(&self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> bool {
        !(self.covers)(path)
            || !self.context.options.selection.takes(path)
            || matches!(status(parent, name), Ok(Some(found)) if self.is_left_out(&found))
    }

    /// Whether a backup would leave this out whatever its name is: its absence from one means nothing then.
    fn is_left_out(&self, found: &Statx) -> bool {
        let rules = self.context.point.rules();
        let is_mounted = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let kind = type_of(found);
        kind == FileType::Socket
            || is_mounted && kind != FileType::Directory
            || rules.nodump && found.stx_attributes.contains(StatxAttributes::NODUMP)
            || kind == FileType::RegularFile && rules.is_too_large(found.stx_size)
    }

    /// Whether the folder has a mark by which a backup leaves out what is in it.
    fn is_marked(&self, folder: BorrowedFd<'_>, names: &[Vec<u8>], path: &[u8]) -> bool {
        let rules = self.context.point.rules();
        rules.look_for_marks()
            && !self.context.point.is_exempt(path)
            && rules.mark_of(folder, |wanted| names.iter().any(|name| name == wanted)).is_some()
    }

    /// Removes one name and everything below it as far as that is covered. Says whether anything was removed.
    fn remove(&self, parent: BorrowedFd<'_>, name: &[u8], above: &[u8], depth: usize) -> Result<bool, UnpackError> {
        let path = below(above, name);
        if self.spares(parent, name, &path) {
            return Ok(false);
        }
        let result = match status(parent, name) {
            Ok(Some(found)) if type_of(&found) == FileType::Directory => {
                return self.remove_folder(parent, name, &path, depth);
            }
            Ok(Some(_)) => self.unlink(parent, name),
            Ok(None) => return Ok(false),
            Err(error) => Err(error),
        };
        self.note(&path, result)
    }

    fn unlink(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        match unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::PERM) => {
                let _freed = Freed::open(parent, name)?;
                unlinkat(parent, name, AtFlags::empty())
            }
            other => other,
        }
    }

    fn remove_folder(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<bool, UnpackError> {
        let folder = match self.open_same_mount(parent, name) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(false),
            Err(error) => return self.note(path, Err(error)),
        };
        let removed = self.empty(&folder, path, depth)?;
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // Something in it is not covered, and keeps it.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(removed),
            other => self.note(path, other),
        }
    }

    /// Opens a folder unless something is mounted on it.
    fn open_same_mount(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>, Errno> {
        let folder = open_folder(parent, name)?;
        Ok((!is_mounted(parent, folder.as_fd())?).then_some(folder))
    }

    fn empty(&self, folder: &OwnedFd, path: &[u8], depth: usize) -> Result<bool, UnpackError> {
        if depth > MAX_DEPTH {
            return self.note(path, Err(Errno::MFILE)).map(|_| false);
        }
        let names = match names_in(folder.as_fd()) {
            Ok(names) => names,
            Err(error) => return self.note(path, Err(error)),
        };
        if self.is_marked(folder.as_fd(), &names, path) {
            return Ok(false);
        }
        let mut removed = false;
        for name in names {
            removed |= self.remove(folder.as_fd(), &name, path, depth + 1)?;
        }
        Ok(removed)
    }

    fn note(&self, path: &[u8], result: Result<(), Errno>) -> Result<bool, UnpackError> {
        match result {
            Ok(()) => {
                self.context.report.count(|counts| counts.removed += 1);
                self.context.advance(path, None, 0).map(|()| true)
            }
            Err(error) if is_fatal(error) && error != Errno::MFILE => Err(failed(path, error)),
            Err(error) => {
                self.context.report.failed(path, "it cannot be removed", error);
                Ok(false)
            }
        }
    }
}
