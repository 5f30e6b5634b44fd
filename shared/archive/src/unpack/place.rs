//! Putting one name that is not a folder in its place.
//!
//! Owns the order of steps: whatever a name becomes is made whole without a name, or under a temporary one in the same
//! folder, with its digest checked and its attributes set, and then linked or renamed. A name that was not there is never
//! replaced in between.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Statx, linkat, makedev, mknodat, openat, renameat, renameat_with,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::attributes::{self, Freed, Handle};
use super::content::{self, ContentError, LastFrame};
use super::context::{Context, is_fatal, mark};
use super::existing::{self, LookError, Verdict};
use super::tree::{InodeId, LastFolder, Temporary, split, status, status_of};
use super::{Overwrite, UnpackError, extra};
use crate::entry::{Entry, Flags, Kind};
use crate::overlay::Placed;
use crate::recipe::RESTORABLE_INODE_FLAGS;

/// A name to be restored.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) placed: Placed,
    /// Number of the entry.
    pub(super) number: usize,
    /// Number of its folder.
    pub(super) folder: usize,
}

/// What a thread keeps from one name to the next.
#[derive(Debug, Default)]
pub(super) struct Hands {
    frames: LastFrame,
    folder: LastFolder,
}

/// Why a name is not in place.
enum PlaceError {
    /// Reported; the others go on.
    Name(&'static str, Errno),
    Damaged(String),
    Ends(UnpackError),
}

impl From<UnpackError> for PlaceError {
    fn from(error: UnpackError) -> Self {
        Self::Ends(error)
    }
}

fn name_error(what: &'static str) -> impl Fn(Errno) -> PlaceError {
    move |error| PlaceError::Name(what, error)
}

/// Whether there is something to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// This restore made the folder and nobody looked: nothing is expected.
    Unseen,
    Free,
    Taken,
}

/// What became of a thing that was made.
enum Made {
    Placed(InodeId),
    /// Somebody else took the name meanwhile; it is reported.
    Left,
    /// There is something where nothing was expected.
    Collided,
}

/// Restores one name. Errors end the whole restore; everything else is in the report.
pub(super) fn place(context: &Context<'_>, hands: &mut Hands, job: &Job) -> Result<(), UnpackError> {
    let entry = &job.placed.entry;
    let ended = try_place(context, hands, job);
    match ended {
        Ok(()) => {}
        Err(PlaceError::Damaged(why)) => context.report.damaged(&entry.path, || why),
        Err(PlaceError::Name(_, error)) if is_fatal(error) => {
            return Err(UnpackError::Target { path: entry.path.clone(), source: error.into() });
        }
        Err(PlaceError::Name(what, error)) => context.report.failed(&entry.path, what, error),
        Err(PlaceError::Ends(error)) => return Err(error),
    }
    context.advance(&entry.path, Some(entry), 0)
}

fn try_place(context: &Context<'_>, hands: &mut Hands, job: &Job) -> Result<(), PlaceError> {
    let entry = &job.placed.entry;
    if entry.flags.contains(Flags::UNREAD) {
        context.report.unread(&entry.path);
        return Ok(());
    }
    let (above, name) = split(&entry.path);
    let folder = hands.folder.get(&context.tree, above).map_err(name_error("its folder cannot be opened"))?;
    let mut slot = Slot::Unseen;
    if context.is_marked(job.folder, mark::CREATED) {
        context.will_change(job.folder, above);
    } else {
        let Some(found) = prepare(context, folder, name, job)? else { return Ok(()) };
        slot = found;
    }
    let mut made = make(context, &mut hands.frames, (folder, name, slot), &job.placed)?;
    if matches!(made, Made::Collided) {
        let Some(slot) = prepare(context, folder, name, job)? else { return Ok(()) };
        made = make(context, &mut hands.frames, (folder, name, slot), &job.placed)?;
    }
    let Made::Placed(id) = made else { return Ok(()) };
    note_placed(context, entry);
    if entry.attributes.inode_flags & RESTORABLE_INODE_FLAGS != 0 {
        context.mark(job.number, mark::FLAGS);
    }
    context.lead(&job.placed, id);
    Ok(())
}

fn make(
    context: &Context<'_>,
    frames: &mut LastFrame,
    place: (BorrowedFd<'_>, &[u8], Slot),
    placed: &Placed,
) -> Result<Made, PlaceError> {
    let entry = &placed.entry;
    // The note comes first: after a kill, flags that were not set yet are known.
    if entry.attributes.inode_flags & RESTORABLE_INODE_FLAGS != 0 {
        context.journal.note(&entry.path);
    }
    match entry.kind {
        Kind::File => make_file(context, frames, place, placed),
        Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => make_special(context, place, entry),
        Kind::Folder | Kind::Tombstone => Ok(Made::Left),
    }
}

fn note_stale(context: &Context<'_>, entry: &Entry) {
    if entry.flags.contains(Flags::STALE) {
        context.report.stale(&entry.path);
    }
}

fn note_placed(context: &Context<'_>, entry: &Entry) {
    note_stale(context, entry);
    if entry.flags.contains(Flags::CHANGED_WHILE_READ) {
        context.report.changed_while_read(&entry.path);
    }
}

/// Looks at what is there and makes room as far as that is allowed. `None`: the name is dealt with.
fn prepare(context: &Context<'_>, folder: BorrowedFd<'_>, name: &[u8], job: &Job) -> Result<Option<Slot>, PlaceError> {
    let entry = &job.placed.entry;
    let found = status(folder, name).map_err(name_error("it cannot be looked at"))?;
    let above = split(&entry.path).0;
    let Some(found) = found else {
        context.will_change(job.folder, above);
        return Ok(Some(Slot::Free));
    };
    let overwrite = context.options.overwrite;
    let mut why = "exists";
    if overwrite != Overwrite::Always {
        // Flags that an interrupted restore had still to set are no difference; they are set at the end.
        let mut expected = std::borrow::Cow::Borrowed(entry);
        if context.journal.was_unfinished(&entry.path) {
            expected.to_mut().attributes.inode_flags = 0;
            context.mark(job.number, mark::FLAGS);
            context.journal.note(&entry.path);
        }
        match existing::look(context, folder, name, &found, &expected) {
            Ok(Verdict::Equal(id)) => {
                note_equal(context, job, id);
                return Ok(None);
            }
            Ok(Verdict::Different(difference)) => why = difference,
            Err(LookError::Name(error)) => return Err(PlaceError::Name("it cannot be compared", error)),
            Err(LookError::Ends(error)) => return Err(error.into()),
        }
    }
    if !existing::may_replace(overwrite, entry, &found) {
        context.report.different(&entry.path, why);
        return Ok(None);
    }
    context.will_change(job.folder, above);
    make_room(context, folder, (name, &found), entry)
}

fn note_equal(context: &Context<'_>, job: &Job, id: InodeId) {
    let entry = &job.placed.entry;
    context.report.count(|counts| counts.equal += 1);
    note_stale(context, entry);
    context.lead(&job.placed, id);
}

/// A folder in the way is removed when it is empty or all of it is extra; anything else is replaced by the rename.
fn make_room(
    context: &Context<'_>,
    folder: BorrowedFd<'_>,
    (name, found): (&[u8], &Statx),
    entry: &Entry,
) -> Result<Option<Slot>, PlaceError> {
    if existing::type_of(found) != FileType::Directory {
        return Ok(Some(Slot::Taken));
    }
    extra::empty_folder(context, folder, name, &entry.path)?;
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(Some(Slot::Free)),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            context.report.different(&entry.path, "a folder that is not empty is in the way");
            Ok(None)
        }
        Err(error) => Err(PlaceError::Name("the folder in its place cannot be removed", error)),
    }
}

/// Gives what is under the temporary name its own name.
fn give_name(temporary: &mut Temporary<'_>, name: &[u8], slot: Slot) -> Result<(), Errno> {
    let (folder, from) = (temporary.folder, temporary.name.as_slice());
    match slot {
        Slot::Free | Slot::Unseen => rename_new(folder, from, name),
        Slot::Taken => match renameat(folder, from, folder, name) {
            Err(Errno::PERM) => {
                let _freed = Freed::open(folder, name)
                    .inspect_err(|error| tracing::debug!(%error, "flags of a file in the way stay"));
                renameat(folder, from, folder, name)
            }
            other => other,
        },
    }?;
    temporary.kept = true;
    Ok(())
}

/// What it means that something whole did not get its name.
fn not_named(context: &Context<'_>, slot: Slot, path: &[u8], error: Errno) -> Result<Made, PlaceError> {
    match (error, slot) {
        (Errno::EXIST, Slot::Unseen) => Ok(Made::Collided),
        (Errno::EXIST, Slot::Free) => {
            context.report.different(path, "appeared while restoring");
            Ok(Made::Left)
        }
        (error, Slot::Unseen | Slot::Free | Slot::Taken) => Err(PlaceError::Name("it cannot get its name", error)),
    }
}

fn rename_new(folder: BorrowedFd<'_>, from: &[u8], name: &[u8]) -> Result<(), Errno> {
    match renameat_with(folder, from, folder, name, RenameFlags::NOREPLACE) {
        // File systems without it: a second name does not replace either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            linkat(folder, from, folder, name, AtFlags::empty())?;
            unlinkat(folder, from, AtFlags::empty())
        }
        other => other,
    }
}

/// A file that does not replace anything is made without a name where the file system can do that: nobody can reach it
/// before it is whole, and a kill leaves nothing behind.
fn make_file(
    context: &Context<'_>,
    frames: &mut LastFrame,
    (folder, name, slot): (BorrowedFd<'_>, &[u8], Slot),
    placed: &Placed,
) -> Result<Made, PlaceError> {
    if slot != Slot::Taken
        && let Some(file) = context.tree.unnamed_file(folder, placed.entry.attributes.mode)
    {
        let id = fill(context, frames, placed, &file)?;
        if let Some(linked) = context.tree.name_file(file.as_fd(), folder, name) {
            return linked.map_or_else(
                |error| not_named(context, slot, &placed.entry.path, error),
                |()| Ok(count_file(context, &placed.entry, id)),
            );
        }
    }
    let temporary_name = context.tree.temporary_name();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(folder, temporary_name.as_slice(), flags, Mode::RUSR | Mode::WUSR)
        .map_err(name_error("it cannot be created"))?;
    let mut temporary = Temporary { folder, name: temporary_name, kept: false };
    let id = fill(context, frames, placed, &File::from(fd))?;
    match give_name(&mut temporary, name, slot) {
        Ok(()) => Ok(count_file(context, &placed.entry, id)),
        Err(error) => not_named(context, slot, &placed.entry.path, error),
    }
}

/// Gives an empty new file its content, with its digest checked, and its attributes.
fn fill(context: &Context<'_>, frames: &mut LastFrame, placed: &Placed, file: &File) -> Result<InodeId, PlaceError> {
    let status = status_of(file.as_fd()).map_err(name_error("it cannot be looked at"))?;
    content::write(context, frames, placed, file).map_err(|error| match error {
        ContentError::Damaged(why) => PlaceError::Damaged(why),
        ContentError::Target(error) => {
            PlaceError::Name("it cannot be written", Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
        ContentError::Ends(error) => PlaceError::Ends(error),
    })?;
    attributes::apply(context, Handle::Open(file.as_fd()), &placed.entry, &status);
    Ok(InodeId::of(&status))
}

fn count_file(context: &Context<'_>, entry: &Entry, id: InodeId) -> Made {
    context.report.count(|counts| {
        counts.files += 1;
        counts.bytes += entry.stored_bytes();
        counts.digests_verified += 1;
    });
    Made::Placed(id)
}

fn make_special(
    context: &Context<'_>,
    (folder, name, slot): (BorrowedFd<'_>, &[u8], Slot),
    entry: &Entry,
) -> Result<Made, PlaceError> {
    let temporary_name = context.tree.temporary_name();
    let create = |file_type| {
        let device = makedev(entry.device.0, entry.device.1);
        mknodat(folder, temporary_name.as_slice(), file_type, Mode::RUSR | Mode::WUSR, device)
    };
    let made = match entry.kind {
        Kind::Symlink => symlinkat(entry.link_target.as_slice(), folder, temporary_name.as_slice()),
        Kind::Fifo => create(FileType::Fifo),
        Kind::CharDevice => create(FileType::CharacterDevice),
        Kind::BlockDevice => create(FileType::BlockDevice),
        Kind::File | Kind::Folder | Kind::Tombstone => Ok(()),
    };
    made.map_err(name_error("it cannot be created"))?;
    let mut temporary = Temporary { folder, name: temporary_name, kept: false };
    let fd = existing::open_path(folder, &temporary.name).map_err(name_error("it cannot be looked at"))?;
    let found = status_of(fd.as_fd()).map_err(name_error("it cannot be looked at"))?;
    // Somebody who may write in this folder could have put another file in its place.
    if found.stx_nlink != 1 || existing::type_of(&found) == FileType::RegularFile {
        return Err(PlaceError::Name("it was replaced while it was made", Errno::AGAIN));
    }
    let is_device = matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice);
    if is_device && (found.stx_rdev_major, found.stx_rdev_minor) != entry.device {
        return Err(PlaceError::Name("its device number does not fit here", Errno::INVAL));
    }
    attributes::apply(context, Handle::Path(fd.as_fd()), entry, &found);
    if let Err(error) = give_name(&mut temporary, name, slot) {
        return not_named(context, slot, &entry.path, error);
    }
    context.report.count(|counts| match entry.kind {
        Kind::Symlink => counts.symlinks += 1,
        Kind::File | Kind::Folder | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice | Kind::Tombstone => {
            counts.specials += 1;
        }
    });
    Ok(Made::Placed(InodeId::of(&found)))
}

/// Makes the name of `job` a further link to what `leader` is; falls back to a copy of its own.
pub(super) fn link(
    context: &Context<'_>,
    hands: &mut Hands,
    job: &Job,
    leader: &super::context::Leader,
) -> Result<(), UnpackError> {
    let entry = &job.placed.entry;
    match try_link(context, hands, job, leader) {
        Ok(true) => context.advance(&entry.path, Some(entry), 0),
        Ok(false) => place(context, hands, job),
        Err(PlaceError::Ends(error)) => Err(error),
        Err(PlaceError::Name(_, error)) if is_fatal(error) => {
            Err(UnpackError::Target { path: entry.path.clone(), source: error.into() })
        }
        Err(PlaceError::Name(..) | PlaceError::Damaged(_)) => place(context, hands, job),
    }
}

/// `false`: it could not be linked and has to be restored by itself.
fn try_link(
    context: &Context<'_>,
    hands: &mut Hands,
    job: &Job,
    leader: &super::context::Leader,
) -> Result<bool, PlaceError> {
    let entry = &job.placed.entry;
    let (leader_above, leader_name) = split(&leader.path);
    let leader_folder = context.tree.folder(leader_above).map_err(name_error("its folder cannot be opened"))?;
    let (above, name) = split(&entry.path);
    let folder = hands.folder.get(&context.tree, above).map_err(name_error("its folder cannot be opened"))?;
    let found = status(folder, name).map_err(name_error("it cannot be looked at"))?;
    let slot = match &found {
        None => Slot::Free,
        Some(found) if InodeId::of(found) == leader.id => {
            context.report.count(|counts| counts.equal += 1);
            note_stale(context, entry);
            return Ok(true);
        }
        Some(found) if existing::may_replace(context.options.overwrite, entry, found) => {
            match make_room(context, folder, (name, found), entry)? {
                Some(slot) => slot,
                None => return Ok(true),
            }
        }
        Some(_) => {
            context.report.different(&entry.path, "not a hard link as in the backup");
            return Ok(true);
        }
    };
    context.will_change(job.folder, above);
    let temporary_name = context.tree.temporary_name();
    linkat(&leader_folder, leader_name, folder, temporary_name.as_slice(), AtFlags::empty())
        .map_err(name_error("it cannot be linked"))?;
    let mut temporary = Temporary { folder, name: temporary_name, kept: false };
    let linked = status(folder, &temporary.name).map_err(name_error("it cannot be looked at"))?;
    if linked.is_none_or(|linked| InodeId::of(&linked) != leader.id) {
        return Ok(false);
    }
    match give_name(&mut temporary, name, slot) {
        Ok(()) => {
            context.report.count(|counts| counts.links += 1);
            note_stale(context, entry);
        }
        Err(error) => {
            not_named(context, slot, &entry.path, error)?;
        }
    }
    Ok(true)
}
