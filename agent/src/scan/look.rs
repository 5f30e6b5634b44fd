//! One name of the tree: what is known of it after looking, and whether it belongs to the backup at all.
//!
//! Shared by the walker, which goes into folders, and by the comparison's workers, which look at everything else. A name
//! that is gone is no entry; a name that cannot be looked at is one, of which only the path is known.

use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use coord_archive::entry::{Attributes, Entry, FileTime, Flags, Identity, Kind, MAX_PATH_BYTES};
use coord_archive::header::Mount;
use coord_shared::left_out::LeftOutBy;

use super::error::ScanError;
use super::extras::{Loaded, load_at};
use super::mounts::Mounts;
use super::notes::{Rule, SharedNotes, Weight};
use super::owners::Owners;
use super::selection::Selection;
use super::tree::{Stat, Tree};

/// Whether the walker reads what lstat does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extras {
    /// Yes: extended attributes, inode flags, link targets. Only those of a file with one name are left to whoever opens it
    /// for its content, which saves opening it twice.
    Now,
    /// The caller asks [`Tree`] for them where it needs them.
    Later,
}

/// How far the walker got with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Looked at; a folder's names were read and follow.
    Whole,
    /// A folder that could not be listed. Nothing below it follows, and nothing is known of it.
    Unlisted,
    /// Listed in its folder, but lstat failed: only the path, and perhaps the kind, are known.
    Unseen,
    /// A file system is mounted here that is not entered: one of the kernel's own, or any if one is to be kept to.
    NotEntered,
    /// The newest backup had a file system mounted here; there is none now. Not entered.
    LostMount,
}

/// A name of the tree.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What is known of it; digest and content are not.
    pub entry: Entry,
    /// How far the walker got.
    pub reach: Reach,
    /// Device and inode, which group hard links within this scan.
    pub inode: ((u32, u32), u64),
    /// Number of names of the inode.
    pub links: u32,
    /// Whether the entry has what lstat does not give.
    pub has_extras: bool,
}

/// What to walk and how.
#[derive(Debug)]
pub struct WalkPlan {
    /// The tree.
    pub tree: Arc<Tree>,
    /// What of it.
    pub selection: Arc<Selection>,
    /// The mount table.
    pub mounts: Arc<Mounts>,
    /// Names of owners.
    pub owners: Arc<Owners>,
    /// Inodes (device, inode) that are the agent's own.
    pub own: HashSet<((u32, u32), u64)>,
    /// File systems that were mounted in the newest backup, sorted by path as bytes.
    pub expected_mounts: Arc<Vec<Mount>>,
    /// An entry whose change time is this or later is racy: two seconds before the scan began.
    pub racy_from: FileTime,
    /// Where to tell about what is not an entry.
    pub notes: SharedNotes,
    /// Whether to read what lstat does not give.
    pub extras: Extras,
}

impl WalkPlan {
    /// Whether the name is left out, which is counted.
    pub(super) fn passes_over(&self, path: &[u8], at: &At<'_>, stat: &Stat) -> bool {
        let Some(rule) = self.left_out_by(path, at, stat) else {
            if path.len() > MAX_PATH_BYTES && at.in_source {
                self.notes.lock().warn(&path[..200], "its path is too long; it is left out");
                return true;
            }
            return false;
        };
        self.notes.lock().leave_out(path, rule, weight(stat));
        true
    }

    /// The rule that leaves a name out, mount points of folders aside, which are announced all the same.
    fn left_out_by(&self, path: &[u8], at: &At<'_>, stat: &Stat) -> Option<Rule> {
        if self.own.contains(&(stat.file_system, stat.inode)) {
            return Some(Rule::Other(LeftOutBy::Own));
        }
        let Some(kind) = stat.kind else { return Some(Rule::Other(LeftOutBy::Socket)) };
        if !at.in_source {
            return None;
        }
        if let Some(number) = self.selection.left_out_by(path, kind == Kind::Folder) {
            return Some(Rule::Pattern(number));
        }
        let by = self.left_out_by_rule(at, stat, kind)?;
        Some(Rule::Other(by)).filter(|_| !self.selection.is_exempt(path))
    }

    fn left_out_by_rule(&self, at: &At<'_>, stat: &Stat, kind: Kind) -> Option<LeftOutBy> {
        let rules = self.selection.rules();
        if rules.nodump && stat.nodump {
            return Some(LeftOutBy::Nodump);
        }
        if kind == Kind::File && rules.is_too_large(stat.size) {
            return Some(LeftOutBy::LargerThan);
        }
        if kind == Kind::Folder || at.mount == Some(stat.mount) {
            return None;
        }
        // A file that is mounted over another, such as a named network namespace.
        if self.mounts.of(stat.mount, at.folder).is_pseudo() {
            return Some(LeftOutBy::KernelFileSystem);
        }
        rules.one_file_system.then_some(LeftOutBy::OtherFileSystem)
    }

    /// A name whose lstat failed: gone, or of it nothing but the path is known. A source that is either ends the scan.
    pub(super) fn unseen(&self, path: &[u8], at: &At<'_>, error: io::Error) -> Result<Option<Seen>, ScanError> {
        let gone = error.kind() == io::ErrorKind::NotFound;
        if !at.in_source || self.selection.is_source(path) {
            let path = path.to_vec();
            return Err(if gone {
                ScanError::SourceMissing { path }
            } else {
                ScanError::SourceUnreadable { path, source: error }
            });
        }
        let mut notes = self.notes.lock();
        if gone {
            notes.vanished += 1;
            return Ok(None);
        }
        let is_folder = at.kind == Some(Kind::Folder);
        if let Some(number) = self.selection.left_out_by(path, is_folder) {
            notes.leave_out(path, Rule::Pattern(number), Weight { is_folder, bytes: 0 });
            return Ok(None);
        }
        notes.warn(path, format!("cannot be looked at: {error}"));
        drop(notes);
        let entry = blank_entry(path, at.kind.unwrap_or(Kind::File));
        Ok(Some(Seen { entry, reach: Reach::Unseen, inode: ((0, 0), 0), links: 1, has_extras: true }))
    }

    /// What follows from lstat of a name that its folder's list calls no folder, and that is not passed over.
    pub(super) fn leaf(&self, path: &[u8], stat: &Stat) -> Option<Seen> {
        let kind = stat.kind?;
        let mut seen = self.seen(path, stat, kind);
        if kind == Kind::Folder {
            self.notes.lock().warn(path, "became a folder while it was looked at; the next backup takes what is in it");
            seen.reach = Reach::Unlisted;
        }
        Some(seen)
    }

    /// What lstat says of a name.
    pub(super) fn seen(&self, path: &[u8], stat: &Stat, kind: Kind) -> Seen {
        let mut entry = blank_entry(path, kind);
        if stat.ctime >= self.racy_from {
            entry.flags = Flags::RACY;
        }
        entry.size = if kind == Kind::File { stat.size } else { 0 };
        entry.attributes = Attributes {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            user: self.owners.user(stat.uid),
            group: self.owners.group(stat.gid),
            mtime: stat.mtime,
            inode_flags: 0,
            xattrs: Vec::new(),
        };
        entry.identity = Identity { inode: stat.inode, ctime: stat.ctime };
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            entry.device = stat.device;
        }
        Seen { entry, reach: Reach::Whole, inode: (stat.file_system, stat.inode), links: stat.links, has_extras: false }
    }

    /// Reads what lstat does not give, if that is wanted now. False when the name changed meanwhile.
    pub(super) fn extras(&self, seen: &mut Seen, folder: BorrowedFd<'_>, name: &[u8]) -> bool {
        let is_left_to_reader = seen.entry.kind == Kind::File && seen.links < 2;
        if self.extras == Extras::Later || is_left_to_reader {
            return true;
        }
        seen.has_extras = true;
        load_at(&self.tree, folder, name, &mut seen.entry, &self.notes) == Loaded::Done
    }
}

/// What leaving out a name leaves out.
pub(super) fn weight(stat: &Stat) -> Weight {
    let bytes = if stat.kind == Some(Kind::File) { stat.size } else { 0 };
    Weight { is_folder: stat.kind == Some(Kind::Folder), bytes }
}

/// A name in an open folder.
pub(super) struct At<'a> {
    pub(super) folder: BorrowedFd<'a>,
    /// Empty for the root, which is `folder` itself.
    pub(super) name: &'a [u8],
    /// Mount of the folder; `None` for the root.
    pub(super) mount: Option<u64>,
    /// Whether the folder is, or lies below, a source.
    pub(super) in_source: bool,
    /// What the folder's list says it is.
    pub(super) kind: Option<Kind>,
}

/// An entry of which only path and kind are known.
#[must_use]
pub fn blank_entry(path: &[u8], kind: Kind) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        flags: Flags::default(),
        size: 0,
        attributes: Attributes::default(),
        identity: Identity::default(),
        link_target: Vec::new(),
        device: (0, 0),
        link_group: 0,
        data_ranges: None,
        digest: None,
        pieces: Vec::new(),
        content: None,
    }
}
