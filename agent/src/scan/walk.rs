//! The walker: every name of a selection, in path order, each looked at once.
//!
//! Owns three promises: names come in the order of [`coord_archive::entry::cmp_paths`]; a folder is announced only after
//! its list of names was read, so that whoever compares knows whether absence means anything; memory is one list of names
//! for each depth. Iterating looks at every name; [`Walk::find`] leaves to its caller what is no folder, so that several
//! threads can look. What one look gives is in `look`. What an entry *means* is decided in `full` and `compare`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use coord_archive::entry::{Flags, Kind};
use coord_archive::header::{Mount, escape};
use coord_archive::rules::Mark;
use coord_shared::left_out::LeftOutBy;
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use super::error::ScanError;
use super::look::{At, Reach, Seen, WalkPlan, weight};
use super::mounts::absolute;
use super::notes::Rule;
use super::selection::Selection;
use super::tree::Stat;

/// Size of the buffer that a folder's names are read into, in bytes.
const LIST_BUFFER_BYTES: usize = 64 << 10;
/// Folders kept open at once; deeper trees open theirs again on the way back.
const MAX_OPEN_FOLDERS: usize = 128;
/// How often a name is looked at again when it changes under our eyes.
const MAX_LOOKS: usize = 3;

/// A folder's names, sorted as bytes, which is path order within a folder.
#[derive(Debug, Default)]
struct Names {
    bytes: Vec<u8>,
    /// Start, length and kind (as far as the folder told) of each.
    index: Vec<(u32, u16, Option<Kind>)>,
}

impl Names {
    fn push(&mut self, name: &[u8], kind: Option<Kind>) -> bool {
        let (Ok(start), Ok(length)) = (u32::try_from(self.bytes.len()), u16::try_from(name.len())) else {
            return false;
        };
        self.bytes.extend_from_slice(name);
        self.index.push((start, length, kind));
        true
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        let name = |(start, length, _): &(u32, u16, Option<Kind>)| &bytes[*start as usize..][..usize::from(*length)];
        self.index.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        self.index.dedup_by(|a, b| name(a) == name(b));
    }

    /// The number of a name, if it is there.
    fn find(&self, wanted: &[u8]) -> Option<usize> {
        let name =
            |(start, length, _): &(u32, u16, Option<Kind>)| &self.bytes[*start as usize..][..usize::from(*length)];
        self.index.binary_search_by(|entry| name(entry).cmp(wanted)).ok()
    }

    /// This name alone, as far as it is there.
    fn only(mut self, name: &[u8]) -> Self {
        self.index = self.find(name).map(|number| self.index[number]).into_iter().collect();
        self
    }

    fn get(&self, number: usize) -> Option<(&[u8], Option<Kind>)> {
        let (start, length, kind) = self.index.get(number)?;
        Some((&self.bytes[*start as usize..][..usize::from(*length)], *kind))
    }
}

/// How the names of a folder are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// By listing it: it is, or lies below, a source.
    All,
    /// Only those that lead to a source: it is an ancestor.
    Sources,
}

#[derive(Debug)]
struct Frame {
    /// `None` while too many others are open.
    folder: Option<Arc<OwnedFd>>,
    /// Whether it could not be opened again.
    is_lost: bool,
    /// Whether nothing in it needs more than a look: it is listed, and no source lies below it.
    is_plain: bool,
    path_length: usize,
    inode: ((u32, u32), u64),
    mount: u64,
    scope: Scope,
    names: Names,
    next: usize,
}

/// Iterates over the names of a selection. After an error it ends.
#[derive(Debug)]
pub struct Walk {
    plan: Arc<WalkPlan>,
    frames: Vec<Frame>,
    path: Vec<u8>,
    buffer: Vec<u8>,
    begun: bool,
    done: bool,
}

/// A name that its folder's list calls no folder, not looked at yet.
#[derive(Debug)]
pub(super) struct Leaf {
    /// The open folder that holds it.
    pub(super) folder: Arc<OwnedFd>,
    /// Number of the folder's mount.
    pub(super) mount: u64,
    /// Length of its name, the last part of its path.
    pub(super) name_length: usize,
    /// What the list says it is.
    pub(super) kind: Kind,
}

impl Leaf {
    /// Where to look for it; `path` is its path.
    pub(super) fn at<'a>(&'a self, path: &'a [u8]) -> At<'a> {
        At {
            folder: self.folder.as_fd(),
            name: &path[path.len() - self.name_length..],
            mount: Some(self.mount),
            in_source: true,
            kind: Some(self.kind),
        }
    }
}

/// What the walker came to.
#[derive(Debug)]
pub(super) enum Found {
    /// A name that was looked at.
    Seen(Box<Seen>),
    /// One that somebody else may look at.
    Leaf(Leaf),
}

/// What became of a name.
enum Visit {
    Passed,
    Seen(Box<Seen>),
    /// A folder to go into after it was announced.
    Enter(Box<Seen>, Frame),
}

impl Walk {
    /// A walker that has seen nothing yet.
    #[must_use]
    pub fn new(plan: WalkPlan) -> Self {
        let buffer = Vec::with_capacity(LIST_BUFFER_BYTES);
        let plan = Arc::new(plan);
        Self { plan, frames: Vec::new(), path: Vec::new(), buffer, begun: false, done: false }
    }

    /// Goes on to the next name; [`Walk::path`] is its path then.
    pub(super) fn find(&mut self) -> Result<Option<Found>, ScanError> {
        if !self.begun {
            self.begun = true;
            let tree = Arc::clone(&self.plan.tree);
            let at = At { folder: tree.root(), name: b"", mount: None, in_source: false, kind: Some(Kind::Folder) };
            let visit = self.visit(&at)?;
            return Ok(self.settle(visit));
        }
        loop {
            let Some(top) = self.frames.last_mut() else { return Ok(None) };
            let number = top.next;
            top.next += 1;
            if number >= top.names.index.len() {
                self.frames.pop();
                continue;
            }
            if let Some(found) = self.child(number)? {
                return Ok(Some(found));
            }
        }
    }

    /// Path of the name that was found last.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What is walked.
    pub(super) fn plan(&self) -> &Arc<WalkPlan> {
        &self.plan
    }

    /// Looks at name `number` of the innermost folder, or leaves that to others.
    fn child(&mut self, number: usize) -> Result<Option<Found>, ScanError> {
        let Some(mut top) = self.frames.pop() else { return Ok(None) };
        self.path.truncate(top.path_length);
        if top.folder.is_none() && !top.is_lost {
            self.reopen(&mut top);
        }
        let Some((name, kind)) = top.names.get(number) else {
            self.frames.push(top);
            return Ok(None);
        };
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if let (Some(folder), Some(kind), true) = (&top.folder, kind, top.is_plain)
            && kind != Kind::Folder
        {
            let leaf = Leaf { folder: Arc::clone(folder), mount: top.mount, name_length: name.len(), kind };
            self.frames.push(top);
            return Ok(Some(Found::Leaf(leaf)));
        }
        let in_source = top.scope == Scope::All;
        // Where the folder was lost nothing is known of its names, least of all that they are gone.
        let tree = Arc::clone(&self.plan.tree);
        let folder = top.folder.as_ref().map_or(tree.root(), |folder| folder.as_fd());
        let at = At { folder, name, mount: Some(top.mount), in_source, kind };
        let visit = if top.is_lost {
            self.unseen(&at, io::Error::other("its folder was replaced while it was read"))
        } else {
            self.visit(&at)
        };
        self.frames.push(top);
        Ok(self.settle(visit?))
    }

    /// Looks at a name that was left to others.
    fn look_now(&mut self, leaf: &Leaf) -> Result<Option<Found>, ScanError> {
        let path = self.path.clone();
        let visit = self.visit(&leaf.at(&path))?;
        Ok(self.settle(visit))
    }

    fn settle(&mut self, visit: Visit) -> Option<Found> {
        match visit {
            Visit::Passed => None,
            Visit::Seen(seen) => Some(Found::Seen(seen)),
            Visit::Enter(seen, frame) => {
                self.frames.push(frame);
                if self.frames.len() > MAX_OPEN_FOLDERS {
                    let close = self.frames.len() - 1 - MAX_OPEN_FOLDERS;
                    self.frames[close].folder = None;
                }
                Some(Found::Seen(seen))
            }
        }
    }

    fn unseen(&self, at: &At<'_>, error: io::Error) -> Result<Visit, ScanError> {
        let seen = self.plan.unseen(&self.path, at, error)?;
        Ok(seen.map_or(Visit::Passed, |seen| Visit::Seen(Box::new(seen))))
    }

    /// Opens a folder again that had to be closed; it is lost when another one is in its place.
    fn reopen(&mut self, frame: &mut Frame) {
        let tree = &self.plan.tree;
        let opened = match frame.scope {
            Scope::All => tree.list(&self.path),
            Scope::Sources => tree.folder(&self.path).and_then(|fd| fd.try_clone()),
        };
        let same = opened.and_then(|fd| {
            let stat = tree.stat_at(fd.as_fd(), b"", &self.path)?;
            Ok((fd, (stat.file_system, stat.inode) == frame.inode))
        });
        let reason = match same {
            Ok((fd, true)) => {
                frame.folder = Some(Arc::new(fd));
                return;
            }
            Ok((_, false)) => "was replaced while it was read; the rest of it was not seen".to_owned(),
            Err(error) => format!("cannot be opened again, the rest of it was not seen: {error}"),
        };
        frame.is_lost = true;
        self.plan.notes.lock().warn(&self.path, reason);
    }

    /// Looks at one name. `self.path` is its path.
    fn visit(&mut self, at: &At<'_>) -> Result<Visit, ScanError> {
        for _ in 0..MAX_LOOKS {
            let stat = match self.plan.tree.stat_at(at.folder, at.name, &self.path) {
                Ok(stat) => stat,
                Err(error) => return self.unseen(at, error),
            };
            if let Some(visit) = self.look(at, &stat)? {
                return Ok(visit);
            }
        }
        self.unseen(at, io::Error::other("it changes faster than it can be looked at"))
    }

    /// What follows from lstat. `None`: it changed meanwhile, look again.
    fn look(&mut self, at: &At<'_>, stat: &Stat) -> Result<Option<Visit>, ScanError> {
        let is_left_out = self.plan.passes_over(&self.path, at, stat);
        let Some(kind) = stat.kind.filter(|_| !is_left_out) else { return Ok(Some(Visit::Passed)) };
        let is_folder = kind == Kind::Folder;
        let is_source = self.plan.selection.is_source(&self.path);
        if is_source {
            self.check_source(at, stat)?;
        }
        let mut seen = self.plan.seen(&self.path, stat, kind);
        let scope = self.scope(at, is_source);
        if scope == Scope::Sources {
            seen.entry.flags = seen.entry.flags.with(Flags::ANCESTOR);
        }
        if !is_folder {
            if scope == Scope::Sources {
                let source = io::Error::from(Errno::NOTDIR);
                return Err(ScanError::SourceUnreadable { path: self.path.clone(), source });
            }
            return Ok(self.plan.extras(&mut seen, at.folder, at.name).then(|| Visit::Seen(Box::new(seen))));
        }
        if let Some(reach) = self.stops_at_mount(at, stat, is_source) {
            seen.reach = reach;
            if reach == Reach::NotEntered {
                seen.entry.flags = seen.entry.flags.with(Flags::ANCESTOR);
                seen.has_extras = true;
            } else {
                self.plan.extras(&mut seen, at.folder, at.name);
            }
            return Ok(Some(Visit::Seen(Box::new(seen))));
        }
        self.enter(at, stat, scope, seen)
    }

    /// A folder that a pattern leaves out and that leads to a source is looked into only for that source.
    fn scope(&self, at: &At<'_>, is_source: bool) -> Scope {
        let selection = &self.plan.selection;
        let only_way = || selection.leads_to_source(&self.path) && selection.matched_by(&self.path, true).is_some();
        if is_source || (at.in_source && !only_way()) { Scope::All } else { Scope::Sources }
    }

    fn check_source(&self, at: &At<'_>, stat: &Stat) -> Result<(), ScanError> {
        let Some(before) = self.expected_mount() else { return Ok(()) };
        let inside = self.plan.tree.pass_at(at.folder, at.name).ok();
        let now = self.plan.mounts.of(stat.mount, inside.as_ref().map_or(at.folder, |folder| folder.as_fd()));
        let same =
            (before.file_system.as_str(), before.identity.as_str()) == (now.kind.as_str(), now.identity.as_str());
        let place = self.other_place(before, stat);
        if same && place.is_none() {
            return Ok(());
        }
        let within = |place: &[u8]| if place.is_empty() { String::new() } else { format!(" at {}", escape(place)) };
        Err(ScanError::SourceMoved {
            path: self.path.clone(),
            before: format!("{} {}{}", before.file_system, before.identity, within(&before.place)),
            now: format!("{} {}{}", now.kind, now.identity, within(&place.unwrap_or_default())),
        })
    }

    /// Where in its file system the source is now, if that is elsewhere because what it lay on is not mounted any more: a subvolume
    /// or bind mount that is gone leaves a folder of the same file system. A mount point that is still there may show
    /// something else, as after a rollback or in a restarted container; and one more mount may show the same.
    fn other_place(&self, before: &Mount, stat: &Stat) -> Option<Vec<u8>> {
        let mounts = &self.plan.mounts;
        if before.mount_point.is_empty() || mounts.is_mount_point(&before.mount_point) {
            return None;
        }
        let (_, place) = mounts.place_of(stat.mount, &absolute(self.plan.tree.path(), &self.path))?;
        (place != before.place).then_some(place)
    }

    fn expected_mount(&self) -> Option<&Mount> {
        let mounts = &self.plan.expected_mounts;
        mounts.binary_search_by(|mount| mount.path.cmp(&self.path)).ok().map(|at| &mounts[at])
    }

    /// Whether a folder is not entered because of what is, or is not, mounted on it.
    fn stops_at_mount(&self, at: &At<'_>, stat: &Stat, is_source: bool) -> Option<Reach> {
        let is_mount_point = at.mount.is_none_or(|mount| mount != stat.mount);
        if is_mount_point {
            let probe = self.plan.tree.pass_at(at.folder, at.name).ok()?;
            let is_other = self.plan.selection.rules().one_file_system && at.in_source;
            let by = if self.plan.mounts.of(stat.mount, probe.as_fd()).is_pseudo() {
                LeftOutBy::KernelFileSystem
            } else if is_other && !self.plan.selection.is_exempt(&self.path) {
                LeftOutBy::OtherFileSystem
            } else {
                return None;
            };
            self.plan.notes.lock().leave_out(&self.path, Rule::Other(by), weight(stat));
            return Some(Reach::NotEntered);
        }
        if is_source || !at.in_source || self.expected_mount().is_none() {
            return None;
        }
        let mut notes = self.plan.notes.lock();
        notes.warn(&self.path, "had a file system mounted on it in the newest backup and has none now");
        notes.lost_mounts.push(self.path.clone());
        Some(Reach::LostMount)
    }

    /// Lists a folder and announces it.
    fn enter(&mut self, at: &At<'_>, stat: &Stat, scope: Scope, mut seen: Seen) -> Result<Option<Visit>, ScanError> {
        let opened = match scope {
            Scope::All => self.plan.tree.list_at(at.folder, at.name, &self.path),
            Scope::Sources if at.name.is_empty() => at.folder.try_clone_to_owned(),
            Scope::Sources => self.plan.tree.pass_at(at.folder, at.name),
        };
        let listed = opened.and_then(|folder| {
            let now = self.plan.tree.stat_at(folder.as_fd(), b"", &self.path)?;
            if !now.is_same_inode(stat) {
                return Ok(None);
            }
            let (names, mark) = match scope {
                Scope::All => self.list_wanted(folder.as_fd())?,
                Scope::Sources => (names_to_sources(&self.plan.selection, &self.path), None),
            };
            Ok(Some((folder, names, mark)))
        });
        let (folder, names, mark) = match listed {
            Ok(Some(listed)) => listed,
            Ok(None) => return Ok(None),
            Err(error) => return self.unlisted(at, seen, error),
        };
        if !self.plan.extras(&mut seen, folder.as_fd(), b"") {
            return Ok(None);
        }
        if let Some(mark) = mark {
            self.plan.notes.lock().leave_out(&self.path, Rule::Mark(mark), weight(stat));
        }
        let frame = Frame {
            folder: Some(Arc::new(folder)),
            is_lost: false,
            is_plain: scope == Scope::All && !self.plan.selection.leads_to_source(&self.path),
            path_length: self.path.len(),
            inode: (stat.file_system, stat.inode),
            mount: stat.mount,
            scope,
            names,
            next: 0,
        };
        Ok(Some(Visit::Enter(Box::new(seen), frame)))
    }

    /// The names of a folder; of one that is marked, only the mark.
    fn list_wanted(&mut self, folder: BorrowedFd<'_>) -> io::Result<(Names, Option<Mark>)> {
        let names = list_names(folder, &mut self.buffer)?;
        let selection = &self.plan.selection;
        let rules = selection.rules();
        if !rules.look_for_marks() || selection.is_exempt(&self.path) {
            return Ok((names, None));
        }
        let Some(mark) = rules.mark_of(folder, |name| names.find(name).is_some()) else { return Ok((names, None)) };
        Ok((names.only(rules.name_of(mark).as_bytes()), Some(mark)))
    }

    fn unlisted(&mut self, at: &At<'_>, mut seen: Seen, error: io::Error) -> Result<Option<Visit>, ScanError> {
        let is_source = self.plan.selection.is_source(&self.path);
        if is_source || !at.in_source {
            return Err(ScanError::SourceUnreadable { path: self.path.clone(), source: error });
        }
        if error.kind() == io::ErrorKind::NotFound {
            return Ok(None);
        }
        self.plan.notes.lock().warn(&self.path, format!("cannot be listed: {error}"));
        seen.reach = Reach::Unlisted;
        self.plan.extras(&mut seen, at.folder, at.name);
        Ok(Some(Visit::Seen(Box::new(seen))))
    }
}

impl Iterator for Walk {
    type Item = Result<Seen, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let found = self.find().and_then(|found| match found {
                Some(Found::Leaf(leaf)) => self.look_now(&leaf).map(Some),
                Some(seen) => Ok(Some(Some(seen))),
                None => Ok(None),
            });
            match found {
                Ok(Some(Some(Found::Seen(seen)))) => return Some(Ok(*seen)),
                // It was passed over.
                Ok(Some(Some(Found::Leaf(_)) | None)) => {}
                Ok(None) => self.done = true,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

fn list_names(folder: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<Names> {
    let mut names = Names::default();
    buffer.clear();
    let space: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    let mut list = RawDir::new(folder, space);
    while let Some(entry) = list.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::RegularFile => Some(Kind::File),
            FileType::Directory => Some(Kind::Folder),
            FileType::Symlink => Some(Kind::Symlink),
            FileType::Fifo => Some(Kind::Fifo),
            FileType::CharacterDevice => Some(Kind::CharDevice),
            FileType::BlockDevice => Some(Kind::BlockDevice),
            FileType::Socket | FileType::Unknown => None,
        };
        if !names.push(name, kind) {
            return Err(io::Error::other("the folder holds more than 4 GiB of names"));
        }
    }
    names.sort();
    Ok(names)
}

fn names_to_sources(selection: &Selection, path: &[u8]) -> Names {
    let mut names = Names::default();
    for name in selection.steps_to_sources(path) {
        names.push(&name, None);
    }
    names
}
