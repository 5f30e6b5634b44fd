//! The folders on the way to the entry at hand, created when something in them is restored.
//!
//! A folder is created with mode 0700 and gets its attributes in the last pass.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, Statx, mkdirat, unlinkat};
use rustix::io::Errno;

use super::attributes::{self, Handle};
use super::context::{Context, is_fatal, mark};
use super::existing;
use super::stream::Picked;
use super::tree::{LastFolder, split, status, status_of};
use super::{Overwrite, UnpackError};
use crate::entry::{Flags, Kind, is_at_or_below};

/// What is known of a folder's place in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing was done yet.
    Unknown,
    /// It is there.
    Ready,
    /// It cannot be used: nothing below it is restored.
    Blocked,
}

/// The folders from the root to the entry at hand.
#[derive(Debug, Default)]
pub(super) struct Folders {
    open: Vec<(Picked, Place)>,
    last: LastFolder,
}

impl Folders {
    /// Goes on to `picked`: leaves the folders that do not hold it and enters it if it is a folder.
    pub(super) fn enter(&mut self, picked: &Picked) {
        let path = &picked.entry().path;
        while self.open.last().is_some_and(|(folder, _)| !is_at_or_below(path, &folder.entry().path)) {
            self.open.pop();
        }
        if picked.entry().kind == Kind::Folder {
            self.open.push((picked.clone(), Place::Unknown));
        }
    }

    /// Makes the folder at hand, and those above it, exist. `false` when that cannot be.
    pub(super) fn make(&mut self, context: &Context<'_>) -> Result<bool, UnpackError> {
        for at in 0..self.open.len() {
            match self.open[at].1 {
                Place::Ready => {}
                Place::Blocked => return Ok(false),
                Place::Unknown => {
                    let above = at.checked_sub(1).map(|above| self.open[above].0.number);
                    let place = make_one(context, &mut self.last, &self.open[at].0, above)?;
                    self.open[at].1 = place;
                    if place == Place::Blocked {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Whether the folder at hand is there, after a pass that made what could be made.
    pub(super) fn is_there(&mut self, context: &Context<'_>) -> bool {
        let Some((folder, place)) = self.open.last_mut() else { return false };
        if *place == Place::Unknown {
            let found = self.last.get(&context.tree, &folder.entry().path);
            *place = if found.is_ok() { Place::Ready } else { Place::Blocked };
        }
        *place == Place::Ready
    }

    /// Whether the folder at hand, or one above it, could not be read: what is in it is as in the full.
    pub(super) fn is_stale(&self) -> bool {
        self.open.iter().any(|(folder, _)| folder.entry().flags.contains(Flags::STALE))
    }

    /// Number of the folder at hand.
    pub(super) fn number(&self) -> usize {
        self.open.last().map_or(0, |(folder, _)| folder.number)
    }
}

fn make_one(
    context: &Context<'_>,
    last: &mut LastFolder,
    picked: &Picked,
    above: Option<usize>,
) -> Result<Place, UnpackError> {
    let path = &picked.entry().path;
    let made = match above {
        None => use_root(context, picked).map_err(|error| ("the target cannot be looked at", error)),
        Some(above) => make_below(context, last, picked, above),
    };
    match made {
        Ok(place) => {
            // Whatever is restored below it is of the state of the full, whether or not the folder itself was asked for.
            if place == Place::Ready && picked.entry().flags.contains(Flags::STALE) {
                context.report.stale(path);
            }
            Ok(place)
        }
        Err((_, error)) if is_fatal(error) => Err(UnpackError::Target { path: path.clone(), source: error.into() }),
        Err((what, error)) => {
            context.report.failed(path, what, error);
            Ok(Place::Blocked)
        }
    }
}

/// The target exists. If it was empty and is wanted itself it counts as created.
fn use_root(context: &Context<'_>, picked: &Picked) -> Result<Place, Errno> {
    let fd = context.tree.folder(b"")?;
    context.journal.clean(fd.as_fd());
    let is_wanted = picked.selected && !picked.entry().flags.contains(Flags::ANCESTOR);
    if context.root_was_empty() && is_wanted {
        context.journal.note(b"");
        apply_if_known(context, picked);
        note_unread(context, picked);
    } else {
        use_existing(context, fd.as_fd(), &status_of(fd.as_fd())?, picked)?;
    }
    Ok(Place::Ready)
}

fn make_below(
    context: &Context<'_>,
    last: &mut LastFolder,
    picked: &Picked,
    above: usize,
) -> Result<Place, (&'static str, Errno)> {
    let entry = picked.entry();
    let (parent, name) = split(&entry.path);
    let parent = last.get(&context.tree, parent).map_err(|error| ("its folder cannot be opened", error))?;
    let found = status(parent, name).map_err(|error| ("it cannot be looked at", error))?;
    let Some(found) = found else { return create(context, parent, picked, above) };
    if existing::type_of(&found) == FileType::Directory {
        let fd = open(parent, name).map_err(|error| ("it cannot be opened", error))?;
        use_existing(context, fd.as_fd(), &found, picked).map_err(|error| ("it cannot be compared", error))?;
        return Ok(Place::Ready);
    }
    if !existing::may_replace(context.options.overwrite, entry, &found) {
        context.report.different(&entry.path, "something that is no folder is in the way");
        return Ok(Place::Blocked);
    }
    unlinkat(parent, name, AtFlags::empty()).map_err(|error| ("what is in its place cannot be removed", error))?;
    create(context, parent, picked, above)
}

/// The note comes first: after a kill, a folder that exists is known to be unfinished.
fn create(
    context: &Context<'_>,
    parent: BorrowedFd<'_>,
    picked: &Picked,
    above: usize,
) -> Result<Place, (&'static str, Errno)> {
    let path = &picked.entry().path;
    context.will_change(above, split(path).0);
    context.journal.note(path);
    mkdirat(parent, split(path).1, Mode::RWXU).map_err(|error| ("it cannot be created", error))?;
    context.mark(picked.number, mark::CREATED);
    apply_if_known(context, picked);
    context.report.count(|counts| counts.folders += 1);
    note_unread(context, picked);
    Ok(Place::Ready)
}

fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// A folder that could not even be looked at has none to set.
fn apply_if_known(context: &Context<'_>, picked: &Picked) {
    if picked.entry().has_attributes() {
        context.mark(picked.number, mark::APPLY);
    }
}

fn note_unread(context: &Context<'_>, picked: &Picked) {
    let entry = picked.entry();
    if picked.selected && entry.flags.contains(Flags::UNREAD) {
        context.report.unread(&entry.path);
    }
}

/// A folder that was there: its attributes are set only if it differs and that is allowed, or if a restore that died
/// made it.
fn use_existing(context: &Context<'_>, fd: BorrowedFd<'_>, found: &Statx, picked: &Picked) -> Result<(), Errno> {
    let entry = picked.entry();
    context.journal.clean(fd);
    if context.journal.was_unfinished(&entry.path) {
        context.journal.note(&entry.path);
        apply_if_known(context, picked);
        note_unread(context, picked);
        return Ok(());
    }
    if context.journal.was_changed(&entry.path) {
        context.will_change(picked.number, &entry.path);
    }
    if !picked.selected || entry.flags.contains(Flags::ANCESTOR) {
        return Ok(());
    }
    note_unread(context, picked);
    if !entry.has_attributes() {
        return Ok(());
    }
    let difference = attributes::difference(context, Handle::Open(fd), found, entry)?;
    match difference {
        None if context.options.overwrite == Overwrite::Always => context.mark(picked.number, mark::APPLY),
        None => context.report.count(|counts| counts.equal += 1),
        Some(_) if existing::may_replace(context.options.overwrite, entry, found) => {
            context.mark(picked.number, mark::APPLY);
        }
        Some(why) => context.report.different(&entry.path, why),
    }
    Ok(())
}
