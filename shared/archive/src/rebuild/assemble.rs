//! The index anew: for each name one entry, out of what is known of it.
//!
//! Owns that paths ascend, that every entry of a full is preceded by its folder, and that an entry refers to content only
//! where all of its frames are. What is not known to be right becomes an unread entry and is reported as lost.

use std::collections::{HashMap, HashSet};

use super::layout::Layout;
use super::members::torn;
use super::merge::Known;
use super::names::named;
use super::script;
use super::{Lost, RebuildError};
use crate::entry::{ContentRef, Entry, Flags, Identity, Kind, cmp_paths, is_at_or_below, parent};
use crate::header::Level;
use crate::pack::index_writer::{IndexWriter, Totals};
use crate::reader::ArchiveReader;

/// Hard-link groups that are made here get numbers from here on, which no full and no differential gives.
const FIRST_GROUP: u64 = 1 << 48;

const NO_CONTENT: &str = "its content is lost";
const NO_LINK: &str = "what it is a hard link to is lost";
const NO_FOLDER: &str = "its folder is lost";
const NO_ATTRIBUTES: &str = "the folder's attributes are lost";
const NO_BASE_NAME: &str = "what it is a hard link to is not in the full";

/// See the module.
pub(super) struct Assembler<'a> {
    layout: &'a Layout,
    level: Level,
    base: Option<&'a ArchiveReader>,
    /// For names that others link to: their group, and their entry once it was met.
    targets: HashMap<Vec<u8>, (u64, Option<Entry>)>,
    /// Where the content of a group of the old index is.
    groups: HashMap<u64, Option<ContentRef>>,
    /// Groups whose content was counted.
    counted: HashSet<u64>,
    /// The folder looked for in the base last, and whether it is there.
    looked_for: Option<(Vec<u8>, bool)>,
    folders: Vec<Vec<u8>>,
    /// The last name that is no folder: nothing can be below it.
    no_folder: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
    pub(super) index: IndexWriter,
    pub(super) totals: Totals,
    pub(super) lost: Lost,
    /// Entries that come from members' headers.
    pub(super) from_members: u64,
}

impl<'a> Assembler<'a> {
    /// `targets` are the names that members link to.
    pub(super) fn new(
        layout: &'a Layout,
        level: Level,
        base: Option<&'a ArchiveReader>,
        targets: Vec<Vec<u8>>,
        index: IndexWriter,
    ) -> Self {
        let mut all = HashMap::new();
        for target in targets {
            let number = FIRST_GROUP + all.len() as u64;
            all.entry(target).or_insert((number, None));
        }
        Self {
            layout,
            level,
            base,
            targets: all,
            groups: HashMap::new(),
            counted: HashSet::new(),
            looked_for: None,
            folders: Vec::new(),
            no_folder: None,
            last: None,
            index,
            totals: Totals { files: 0, bytes: 0 },
            lost: Lost::default(),
            from_members: 0,
        }
    }

    /// Adds what is known of the next name in path order.
    pub(super) fn add(&mut self, known: Known) -> Result<(), RebuildError> {
        let Known { indexed, member, deleted, script, is_covered, .. } = known;
        let entry = match (indexed, member) {
            (Some(entry), member) => Some(self.indexed(entry, member)),
            // The old index is whole here and does not name it: it vanished while it was packed.
            (None, Some(_)) if is_covered => None,
            (None, Some(member)) => {
                self.from_members += 1;
                let inode_flags = script.map_or(0, |script| script.attributes.inode_flags);
                self.member(member)?.map(|mut entry| {
                    entry.attributes.inode_flags |= inode_flags;
                    entry
                })
            }
            (None, None) if is_covered => None,
            // The root's attributes are in the script too.
            (None, None) if self.level == Level::Full => script
                .filter(|script| script::says_all(script) && script.path.is_empty())
                .map(|script| Entry { attributes: script.attributes, ..named(Vec::new(), Kind::Folder) }),
            (None, None) => match deleted {
                Some(tombstone) => Some(tombstone),
                None => self.only_attributes(script.filter(script::says_all))?,
            },
        };
        match entry {
            Some(entry) => self.push(entry),
            None => Ok(()),
        }
    }

    /// An entry of the old index, referring to where its content is now.
    fn indexed(&mut self, entry: Entry, member: Option<Entry>) -> Entry {
        let has_content = entry.kind == Kind::File
            && !entry.flags.contains(Flags::CONTENT_IN_BASE)
            && entry.digest.is_some()
            && entry.stored_bytes() > 0;
        if !has_content {
            return entry;
        }
        let of_member = member.filter(|member| (member.digest, member.size) == (entry.digest, entry.size));
        let of_group = || self.groups.get(&entry.link_group).copied().flatten();
        let found = self.layout.keep(&entry).or_else(|| of_member.and_then(|member| member.content)).or_else(of_group);
        if entry.link_group != 0 {
            self.groups.entry(entry.link_group).or_insert(found);
        }
        match found {
            Some(content) => Entry { content: Some(content), ..entry },
            None => {
                self.lost.add(&entry.path, NO_CONTENT);
                torn(entry)
            }
        }
    }

    /// An entry made of a member's headers; `None` for a link to something that is lost.
    fn member(&mut self, member: Entry) -> Result<Option<Entry>, RebuildError> {
        let is_link = member.kind == Kind::File && !member.link_target.is_empty();
        if !is_link {
            if member.flags.contains(Flags::UNREAD) {
                self.lost.add(&member.path, NO_CONTENT);
            }
            return Ok(Some(member));
        }
        if let Some((_, Some(target))) = self.targets.get(&member.link_target) {
            let entry = Entry { path: member.path, ..target.clone() };
            if entry.flags.contains(Flags::UNREAD) {
                self.lost.add(&entry.path, NO_LINK);
            }
            return Ok(Some(entry));
        }
        let base = self.base.map_or(Ok(None), |base| base.find(&member.link_target)).map_err(RebuildError::Base)?;
        let Some(target) = base.filter(|_| self.level == Level::Differential) else {
            let why = if self.level == Level::Full { NO_LINK } else { NO_BASE_NAME };
            self.lost.add(&member.path, why);
            return Ok(None);
        };
        let group = self.targets.get(&member.link_target).map_or(FIRST_GROUP, |(group, _)| *group);
        let link_group = if target.link_group == 0 { group } else { target.link_group };
        let flags = target.flags.with(Flags::CONTENT_IN_BASE);
        Ok(Some(Entry { path: member.path, link_group, flags, ..target }))
    }

    /// A name of the full that has other attributes now.
    fn only_attributes(&mut self, script: Option<Entry>) -> Result<Option<Entry>, RebuildError> {
        let (Some(script), Some(base)) = (script, self.base) else { return Ok(None) };
        let Some(mut entry) = base.find(&script.path).map_err(RebuildError::Base)? else { return Ok(None) };
        self.from_members += 1;
        let (old, mut new) = (entry.attributes, script.attributes);
        if (old.uid, old.gid) == (new.uid, new.gid) {
            (new.user, new.group) = (old.user, old.group);
        }
        if new.mode > 0o7777 {
            new.mode = old.mode;
        }
        entry.attributes = new;
        entry.flags = entry.flags.with(Flags::CONTENT_IN_BASE);
        entry.identity = Identity::default();
        Ok(Some(entry))
    }

    fn push(&mut self, mut entry: Entry) -> Result<(), RebuildError> {
        if self.last.as_ref().is_some_and(|last| cmp_paths(last, &entry.path).is_ge()) {
            return Ok(());
        }
        if self.no_folder.as_ref().is_some_and(|above| is_at_or_below(&entry.path, above))
            && entry.kind != Kind::Tombstone
        {
            self.lost.add(&entry.path, NO_FOLDER);
            return Ok(());
        }
        self.lead_to(&entry.path)?;
        if let Some((group, known)) = self.targets.get_mut(&entry.path) {
            if entry.link_group == 0 {
                entry.link_group = *group;
            }
            *known = Some(entry.clone());
        }
        self.write(entry)
    }

    /// Makes the folders above `path` that are lost.
    fn lead_to(&mut self, path: &[u8]) -> Result<(), RebuildError> {
        while self.folders.last().is_some_and(|folder| !is_at_or_below(path, folder)) {
            self.folders.pop();
        }
        let mut missing = Vec::new();
        let mut above = parent(path);
        while let Some(folder) = above {
            if self.folders.last().map(Vec::as_slice) == Some(folder) || self.base_has(folder)? {
                break;
            }
            missing.push(folder.to_vec());
            above = parent(folder);
        }
        for folder in missing.into_iter().rev() {
            self.lost.add(&folder, NO_ATTRIBUTES);
            // Flagged unread and without identity: a restore makes the folder and leaves its attributes.
            self.write(Entry { flags: Flags::UNREAD, ..named(folder, Kind::Folder) })?;
        }
        Ok(())
    }

    fn base_has(&mut self, folder: &[u8]) -> Result<bool, RebuildError> {
        let Some(base) = self.base.filter(|_| self.level == Level::Differential) else { return Ok(false) };
        if let Some((last, found)) = &self.looked_for
            && last == folder
        {
            return Ok(*found);
        }
        let found = base.find(folder).map_err(RebuildError::Base)?.is_some_and(|found| found.kind == Kind::Folder);
        self.looked_for = Some((folder.to_vec(), found));
        Ok(found)
    }

    fn write(&mut self, entry: Entry) -> Result<(), RebuildError> {
        match entry.kind {
            Kind::Folder => self.folders.push(entry.path.clone()),
            Kind::File | Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice | Kind::Tombstone => {
                self.no_folder = Some(entry.path.clone());
            }
        }
        let is_stored = entry.kind == Kind::File && !entry.flags.contains(Flags::CONTENT_IN_BASE);
        if is_stored && entry.digest.is_some() && (entry.link_group == 0 || self.counted.insert(entry.link_group)) {
            self.totals.files += 1;
            self.totals.bytes = self.totals.bytes.saturating_add(entry.stored_bytes());
        }
        self.last = Some(entry.path.clone());
        self.index.push(&entry).map_err(RebuildError::from)
    }
}
