//! What lstat does not give: link target, extended attributes, inode flags.
//!
//! A name whose attributes cannot all be read is archived with those that can be, and a warning: a failure here never
//! loses content. Only a symbolic link without a target is of no use and is flagged unread.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use coord_archive::entry::{Entry, Flags, Kind};
use rustix::io::Errno;

use super::notes::SharedNotes;
use super::tree::{ExtraAttributes, Tree};

/// Whether a name was still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Its attributes were read, or as many as can be.
    Done,
    /// It is gone, or something else.
    Gone,
}

/// Reads what lstat does not give into `entry`, which is `name` in the open `folder` (an empty name: the folder itself).
pub fn load_at(tree: &Tree, folder: BorrowedFd<'_>, name: &[u8], entry: &mut Entry, notes: &SharedNotes) -> Loaded {
    if entry.kind == Kind::Symlink {
        match rustix::fs::readlinkat(folder, name, Vec::new()) {
            Ok(target) => entry.link_target = target.into_bytes(),
            Err(Errno::INVAL | Errno::NOENT) => return Loaded::Gone,
            Err(error) => {
                notes.lock().warn(&entry.path, format!("its link target cannot be read: {error}"));
                entry.flags = entry.flags.with(Flags::UNREAD);
            }
        }
    }
    put(tree.extra_at(folder, name, entry.kind), entry, notes)
}

fn put(extra: io::Result<ExtraAttributes>, entry: &mut Entry, notes: &SharedNotes) -> Loaded {
    match extra {
        Ok(extra) => {
            for (attribute, error) in extra.failed {
                let reason = format!("attribute {} cannot be read: {error}", attribute.escape_ascii());
                notes.lock().warn(&entry.path, reason);
            }
            entry.attributes.xattrs = extra.xattrs;
            entry.attributes.inode_flags = extra.inode_flags;
            Loaded::Done
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Loaded::Gone,
        Err(error) => {
            notes.lock().warn(&entry.path, format!("its attributes cannot be read: {error}"));
            Loaded::Done
        }
    }
}

/// As [`load_at`], of the entry's open file.
pub fn load_open(tree: &Tree, file: BorrowedFd<'_>, entry: &mut Entry, notes: &SharedNotes) {
    let extra = tree.extra_of(file);
    put(extra, entry, notes);
}

/// As [`load_at`], by the entry's path.
pub fn load(tree: &Tree, entry: &mut Entry, notes: &SharedNotes) -> Loaded {
    let path = entry.path.clone();
    match tree.locate(&path) {
        Ok((folder, name)) => load_at(tree, folder.as_fd(), name, entry, notes),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Loaded::Gone,
        Err(error) => {
            notes.lock().warn(&path, format!("its folder cannot be opened: {error}"));
            Loaded::Done
        }
    }
}
