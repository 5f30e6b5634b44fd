//! The last pass: attributes of folders, deepest first, inode flags, and one sync before anybody says "done".

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Statx, openat, syncfs};
use rustix::io::Errno;

use super::UnpackError;
use super::attributes::{self, Handle};
use super::context::{Context, mark};
use super::existing::type_of;
use super::stream::Picked;
use super::tree::{InodeId, split, status_of};
use crate::entry::{Flags, Kind, is_at_or_below};

/// Most file systems that are synced by themselves; more make no sense below one target.
const MAX_FILE_SYSTEMS: usize = 64;

/// File systems that were written to, each by some folder on it.
type FileSystems = HashMap<(u32, u32), OwnedFd>;

/// Ends a restore: when it returns, everything is in place and on disk.
pub(super) fn finish(context: &Context<'_>) -> Result<(), UnpackError> {
    let mut systems = FileSystems::new();
    let mut open: Vec<Picked> = Vec::new();
    let mut stream = context.stream();
    while let Some(picked) = stream.next_picked()? {
        let path = &picked.entry().path;
        while let Some(folder) = open.pop_if(|folder| !is_at_or_below(path, &folder.entry().path)) {
            leave(context, &folder, &mut systems);
        }
        match picked.entry().kind {
            Kind::Folder => open.push(picked),
            Kind::File if context.is_marked(picked.number, mark::FLAGS) => set_file_flags(context, &picked),
            Kind::File | Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice | Kind::Tombstone => {}
        }
    }
    while let Some(folder) = open.pop() {
        if open.is_empty() {
            context.journal.close(&context.tree);
        }
        leave(context, &folder, &mut systems);
    }
    sync(context, &systems)
}

fn leave(context: &Context<'_>, folder: &Picked, systems: &mut FileSystems) {
    let entry = folder.entry();
    let apply = context.is_marked(folder.number, mark::APPLY);
    let changed = context.is_marked(folder.number, mark::CHANGED_INSIDE);
    if !apply && !changed && !entry.path.is_empty() {
        return;
    }
    let opened = context.tree.folder(&entry.path);
    let fd = match opened {
        Ok(fd) => fd,
        Err(error) => return context.report.not_settable(&entry.path, "the folder cannot be opened", error),
    };
    let status = match status_of(fd.as_fd()) {
        Ok(status) => status,
        Err(error) => return context.report.not_settable(&entry.path, "the folder cannot be looked at", error),
    };
    if apply {
        attributes::apply(context, Handle::Open(fd.as_fd()), entry, &status);
        set_flags(context, fd.as_fd(), folder);
    } else if changed && folder.selected && !entry.flags.contains(Flags::ANCESTOR) {
        attributes::apply_mtime(context, Handle::Open(fd.as_fd()), &entry.path, entry.attributes.mtime);
    } else if !changed {
        // Only the root comes here: the journal came and went, and nothing else changed in it.
        attributes::apply_mtime(context, Handle::Open(fd.as_fd()), &entry.path, context.journal.root_mtime());
    }
    if systems.len() < MAX_FILE_SYSTEMS {
        systems.entry(InodeId::of(&status).device()).or_insert(fd);
    }
}

fn set_file_flags(context: &Context<'_>, picked: &Picked) {
    let (above, name) = split(&picked.entry().path);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = context.tree.folder(above).and_then(|folder| openat(&folder, name, flags, Mode::empty()));
    match opened {
        Ok(fd) if status_of(fd.as_fd()).is_ok_and(|status| is_ours(context, picked, &status)) => {
            set_flags(context, fd.as_fd(), picked);
        }
        Ok(_) => context.report.not_settable(&picked.entry().path, "inode flags", Errno::AGAIN),
        Err(error) => context.report.not_settable(&picked.entry().path, "inode flags", error),
    }
}

/// Whether what has the name now can be what was restored there. Somebody who may write in the folder could have put
/// another name of a file outside in its place: a file that has more names is only known by its group.
fn is_ours(context: &Context<'_>, picked: &Picked, status: &Statx) -> bool {
    let leader = context.leader(picked.entry().link_group);
    let is_known = leader.is_some_and(|leader| leader.id == InodeId::of(status));
    type_of(status) == FileType::RegularFile && (status.stx_nlink == 1 || is_known)
}

fn set_flags(context: &Context<'_>, fd: BorrowedFd<'_>, picked: &Picked) {
    let entry = picked.entry();
    if let Err(error) = attributes::apply_inode_flags(fd, entry.attributes.inode_flags) {
        context.report.not_settable(&entry.path, "inode flags", error);
    }
}

fn sync(context: &Context<'_>, systems: &FileSystems) -> Result<(), UnpackError> {
    let roots = systems.values().map(|fd| fd.as_fd()).chain([context.tree.root()]);
    for fd in roots {
        syncfs(fd).map_err(|error| UnpackError::Target { path: Vec::new(), source: error.into() })?;
    }
    Ok(())
}
