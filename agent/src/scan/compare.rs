//! The comparison: the walk, the base full's index and the newest differential's, merged in path order.
//!
//! Gives the steps of a differential, exact figures, and whether the state equals the base's or the newest backup's. Owns
//! "absent is not deleted": names below a folder that could not be read are passed over, which keeps their base state; the
//! top of such a subtree is recorded as stale. When a name counts as unchanged is decided in `same`, what becomes of hard
//! links in `links`, which folders need mending in `folders`.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use coord_archive::entry::{Entry, Flags, Kind, is_at_or_below};
use coord_archive::pack::{Item, Plan, Step};
use coord_archive::progress::{Advance, Progress};
use coord_archive::reader::ArchiveReader;

use super::batches::Batches;
use super::change_list::{ChangeList, ChangeListWriter};
use super::crew;
use super::error::ScanError;
use super::extras::{Loaded, load};
use super::folders::{FolderStack, Standing};
use super::full::count;
use super::identity_cache::{CacheReader, CacheWriter};
use super::links::{BaseName, Home, LinkGroups, Outcome};
use super::look::{Reach, Seen, blank_entry};
use super::meet::{Compared as Found, Event, Meeting, Met, Run};
use super::notes::SharedNotes;
use super::same::{
    Compared, are_attributes_same, are_extras_same, compare_content, is_identity_same, is_recorded_content_same,
};
use super::tree::Tree;
use super::walk::Walk;

/// What to compare with.
#[derive(Clone, Copy, Debug)]
pub struct Against<'a> {
    /// The base full.
    pub base: &'a ArchiveReader,
    /// The chain's newest differential; `None` when the full itself is the newest backup.
    pub newest: Option<&'a ArchiveReader>,
    /// Where the job's identity cache is kept; it is read and replaced. `None`: without one.
    pub cache: Option<&'a Path>,
    /// Folder for the temporary list of changes.
    pub scratch: &'a Path,
}

/// Exact figures of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Regular files whose content will be stored, links to them not counted.
    pub changed_files: u64,
    /// Their bytes.
    pub changed_bytes: u64,
    /// Names that get an entry because only attributes, or their group of hard links, differ.
    pub metadata_only: u64,
    /// Names of the base that are gone.
    pub removed: u64,
    /// Tops of subtrees that could not be read and keep their base state.
    pub stale: u64,
    /// Names without content because they could not be read and have no base state.
    pub unread: u64,
    /// Entries the differential would have.
    pub entries: u64,
    /// Regular files of the source.
    pub source_files: u64,
    /// Their bytes.
    pub source_bytes: u64,
}

/// What a comparison found.
#[derive(Debug)]
pub struct Comparison {
    /// The steps of the differential.
    pub changes: ChangeList,
    /// Exact figures.
    pub figures: Figures,
    /// The state is that of the chain's newest backup, flags included: there is nothing to store.
    pub equals_newest: bool,
    /// The state is that of the base full: a differential would be empty.
    pub equals_full: bool,
}

pub(super) fn compare(
    walk: Walk,
    tree: &Tree,
    notes: &SharedNotes,
    against: &Against<'_>,
    progress: &dyn Progress,
) -> Result<Comparison, ScanError> {
    let digest = against.base.footer().archive_digest;
    let differ = Differ {
        base: against.base,
        tree,
        notes,
        progress,
        list: ChangeListWriter::create(against.scratch)?,
        figures: Figures::default(),
        links: LinkGroups::of_differential(),
        folders: FolderStack::default(),
        cache: against.cache.map_or_else(CacheReader::empty, |path| CacheReader::open(path, digest)),
        // A cache that cannot be written only costs the next scan some time.
        new_cache: against.cache.and_then(|path| CacheWriter::create(path, digest).ok()),
        equals_newest: true,
        kept_below: None,
        gone_below: None,
        mended_groups: HashSet::new(),
    };
    let batches = Batches::new(walk, against.base);
    crew::run(batches, differ, |plan| Meeting::new(plan, against.base, against.newest))?.finish()
}

/// How a present name's content stands to the base's.
enum Content {
    Same,
    Different,
    /// Gone since it was listed.
    Gone,
    Unreadable(io::Error),
}

pub(super) struct Differ<'a> {
    base: &'a ArchiveReader,
    tree: &'a Tree,
    notes: &'a SharedNotes,
    progress: &'a dyn Progress,
    list: ChangeListWriter,
    figures: Figures,
    links: LinkGroups,
    folders: FolderStack,
    cache: CacheReader,
    new_cache: Option<CacheWriter>,
    equals_newest: bool,
    /// Below this path nothing was looked at and everything keeps its base state.
    kept_below: Option<Vec<u8>>,
    /// A folder that was gone when its attributes were to be read: what was listed below it is gone too.
    gone_below: Option<Vec<u8>>,
    /// Groups of hard links of which one name has lines in the recipe.
    mended_groups: HashSet<u64>,
}

impl Differ<'_> {
    /// Takes what was found out about the next batch.
    pub(super) fn take(&mut self, batch: Found) -> Result<(), ScanError> {
        for event in batch.events {
            match event {
                Event::Met(met) => self.name(*met)?,
                Event::Unchanged(run) => self.unchanged(run)?,
            }
        }
        self.report(batch.paths)
    }

    /// Names that are what the base says. Those below a folder that is gone by now are gone too.
    fn unchanged(&mut self, mut run: Run) -> Result<(), ScanError> {
        if let Some(top) = self.gone_below.clone() {
            let index = |source| ScanError::Index { which: "the base", source };
            let block = self.base.block(run.block).map_err(index)?;
            let names = block.iter().skip(run.first).take(run.count);
            for gone in names.take_while(|name| is_at_or_below(&name.path, &top)) {
                self.absent(Some(gone), None)?;
                run.pass(gone.kind, gone.size);
            }
        }
        let mut notes = self.notes.lock();
        notes.source_entries += run.count as u64;
        notes.source_files += run.files;
        notes.source_bytes += run.bytes;
        Ok(())
    }

    fn report(&self, entries: u64) -> Result<(), ScanError> {
        let advance = Advance { entries, ..Advance::default() };
        if self.progress.advance(advance).is_break() { Err(ScanError::Cancelled) } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> Result<Comparison, ScanError> {
        while let Some(mend) = self.folders.leave() {
            mend.map_or(Ok(()), |step| self.list.push(&step))?;
        }
        if let Some(cache) = self.new_cache
            && let Err(error) = cache.finish()
        {
            tracing::warn!(%error, "identity cache not written");
        }
        let notes = self.notes.lock();
        self.figures.source_files = notes.source_files;
        self.figures.source_bytes = notes.source_bytes;
        drop(notes);
        let equals_full = self.figures.entries == 0;
        let changes = self.list.finish()?;
        Ok(Comparison { changes, figures: self.figures, equals_newest: self.equals_newest, equals_full })
    }

    fn name(&mut self, met: Met) -> Result<(), ScanError> {
        if let Some(top) = &self.kept_below {
            if is_at_or_below(met.path(), top) {
                self.equals_newest &= met.newest.is_none();
                return Ok(());
            }
            self.kept_below = None;
        }
        while let Some(mend) = self.folders.leave_for(met.path()) {
            mend.map_or(Ok(()), |step| self.list.push(&step))?;
        }
        self.gone_below = self.gone_below.take().filter(|top| is_at_or_below(met.path(), top));
        let is_gone = self.gone_below.is_some();
        let Met { seen, base, newest, base_goes_on } = met;
        let seen = seen.filter(|_| !is_gone);
        let Some(seen) = seen else { return self.absent(base.as_ref(), newest.as_ref()) };
        count(self.notes, &seen);
        match seen.reach {
            Reach::Unlisted | Reach::Unseen | Reach::LostMount => self.unread(seen, base.as_ref(), newest.as_ref()),
            Reach::Whole | Reach::NotEntered => self.present(seen, base.as_ref(), newest.as_ref(), base_goes_on),
        }
    }

    /// The folder that held the name was read, and it is not there.
    fn absent(&mut self, base: Option<&Entry>, newest: Option<&Entry>) -> Result<(), ScanError> {
        let Some(base) = base else {
            // At most the newest differential had it, the base not: it is gone without a trace.
            self.equals_newest &= newest.is_none();
            return Ok(());
        };
        self.figures.removed += 1;
        self.folders.touch(&base.path);
        self.put(blank_entry(&base.path, Kind::Tombstone), Plan::IndexOnly, newest)
    }

    /// A name of which something could not be read.
    fn unread(&mut self, seen: Seen, base: Option<&Entry>, newest: Option<&Entry>) -> Result<(), ScanError> {
        self.kept_below = Some(seen.entry.path.clone());
        match base.filter(|base| !base.flags.contains(Flags::UNREAD)) {
            Some(base) => {
                let mut entry = base.clone();
                entry.flags = entry.flags.with(Flags::STALE).with(Flags::CONTENT_IN_BASE);
                self.figures.stale += 1;
                self.put(entry, Plan::IndexOnly, newest)
            }
            None => {
                let mut entry = seen.entry;
                entry.flags = entry.flags.with(Flags::UNREAD);
                self.figures.unread += 1;
                self.put(entry, Plan::IndexOnly, newest)
            }
        }
    }

    fn present(
        &mut self,
        mut seen: Seen,
        base: Option<&Entry>,
        newest: Option<&Entry>,
        base_goes_on: bool,
    ) -> Result<(), ScanError> {
        // What the base could not read was never a member there.
        let base = base.filter(|base| !base.flags.contains(Flags::UNREAD));
        let same_kind = base.filter(|base| base.kind == seen.entry.kind);
        if seen.reach == Reach::NotEntered && base_goes_on {
            // Something of ours is hidden below: it is not gone.
            return self.unread(seen, base, newest);
        }
        if let Some(base) = same_kind.filter(|_| seen.entry.flags.contains(Flags::ANCESTOR)) {
            // An ancestor's own attributes are no change.
            self.equals_newest &= newest.is_none();
            self.folders.enter(base.clone(), Standing::Unchanged(Box::new(base.attributes.clone())));
            return Ok(());
        }
        let was_unread = newest.is_some_and(|newest| newest.flags.contains(Flags::UNREAD));
        let content = match self.content(&mut seen, same_kind, newest)? {
            // Unread again is the same state; the packer would find out too late.
            Content::Different if was_unread && seen.entry.kind == Kind::File => {
                self.tree.open_file(&seen.entry.path).map_or_else(failed, |_| Content::Different)
            }
            other => other,
        };
        match (content, base, same_kind) {
            (Content::Gone, ..) => {
                self.notes.lock().vanished += 1;
                self.gone_below = Some(seen.entry.path);
                self.absent(base, newest)
            }
            (Content::Unreadable(error), ..) => {
                self.notes.lock().warn(&seen.entry.path, format!("cannot be read: {error}"));
                self.unread(seen, base, newest)
            }
            (Content::Same | Content::Different, Some(base), None) => {
                self.folders.touch(&base.path);
                self.list.push(&Step::Removed { path: base.path.clone() })?;
                self.settle(seen, None, newest)
            }
            (Content::Same, _, Some(base)) => {
                self.settle(seen, Some(BaseName { entry: base, is_content_same: true }), newest)
            }
            (Content::Different, _, Some(base)) => {
                self.settle(seen, Some(BaseName { entry: base, is_content_same: false }), newest)
            }
            (Content::Same | Content::Different, None, _) => self.settle(seen, None, newest),
        }
    }

    /// How the content stands to the base's. Also fills in what lstat does not give.
    fn content(&mut self, seen: &mut Seen, base: Option<&Entry>, newest: Option<&Entry>) -> Result<Content, ScanError> {
        if let Some(base) = base.filter(|base| is_identity_same(&seen.entry, base)) {
            take_extras(&mut seen.entry, base);
            return Ok(Content::Same);
        }
        let newest = newest.filter(|newest| is_identity_same(&seen.entry, newest));
        let remembered = base.and_then(|_| self.cache.find(&seen.entry.path));
        let remembered = remembered.filter(|known| known.identity == seen.entry.identity);
        match (newest, base, &remembered) {
            (Some(newest), _, _) => take_extras(&mut seen.entry, newest),
            (None, Some(base), Some(known)) if known.are_extras_same => take_extras(&mut seen.entry, base),
            (None, _, _) => {
                if !seen.has_extras && load(self.tree, &mut seen.entry, self.notes) == Loaded::Gone {
                    return Ok(Content::Gone);
                }
                if seen.entry.flags.contains(Flags::UNREAD) {
                    return Ok(Content::Unreadable(io::Error::other("its link target is not known")));
                }
            }
        }
        let Some(base) = base else { return Ok(Content::Different) };
        let is_base_sure = !base.flags.contains(Flags::CHANGED_WHILE_READ);
        let content = match newest {
            Some(newest) if is_base_sure && is_recorded_content_same(newest, base) => Content::Same,
            Some(_) => Content::Different,
            None => self.compare_with_base(&seen.entry, base, remembered.is_some())?,
        };
        if matches!(content, Content::Same) {
            self.remember(&seen.entry, base);
        }
        Ok(content)
    }

    fn compare_with_base(&mut self, now: &Entry, base: &Entry, is_remembered: bool) -> Result<Content, ScanError> {
        let decide = |same: bool| if same { Content::Same } else { Content::Different };
        match now.kind {
            Kind::Folder | Kind::Fifo | Kind::Tombstone => Ok(Content::Same),
            Kind::Symlink => Ok(decide(now.link_target == base.link_target)),
            Kind::CharDevice | Kind::BlockDevice => Ok(decide(now.device == base.device)),
            Kind::File if base.flags.contains(Flags::CHANGED_WHILE_READ) || now.size != base.size => {
                // Whether it can be read decides between a new state and a stale one.
                Ok(match self.tree.open_file(&now.path) {
                    Ok(_) => Content::Different,
                    Err(error) => failed(error),
                })
            }
            Kind::File if is_remembered => Ok(Content::Same),
            Kind::File => {
                let compared = self.read_and_compare(now, base)?;
                Ok(compared.map_or_else(failed, decide))
            }
        }
    }

    fn read_and_compare(&self, now: &Entry, recorded: &Entry) -> Result<io::Result<bool>, ScanError> {
        let watch = |bytes| self.progress.advance(Advance { bytes, ..Advance::default() });
        match compare_content(self.tree, now, recorded, &mut { watch }) {
            Ok(Compared::Stopped) => Err(ScanError::Cancelled),
            Ok(Compared::Same) => Ok(Ok(true)),
            Ok(Compared::Different) => Ok(Ok(false)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The base's state at another identity: worth remembering, unless a change in the same tick could hide behind it.
    fn remember(&mut self, now: &Entry, base: &Entry) {
        if now.flags.contains(Flags::RACY) {
            return;
        }
        let extras = are_extras_same(&now.attributes, &base.attributes) && now.link_target == base.link_target;
        if let Some(cache) = &mut self.new_cache
            && let Err(error) = cache.push(&now.path, now.identity, extras)
        {
            tracing::warn!(%error, "identity cache given up");
            self.new_cache = None;
        }
    }

    /// A name that was read as far as it has to be: what becomes of it.
    fn settle(&mut self, seen: Seen, base: Option<BaseName<'_>>, newest: Option<&Entry>) -> Result<(), ScanError> {
        if seen.entry.kind == Kind::Folder {
            return self.settle_folder(seen.entry, base.map(|base| base.entry), newest);
        }
        let mut entry = seen.entry;
        let (group, outcome) = self.links.decide(seen.inode, seen.links, &entry.path, base);
        entry.link_group = group;
        match (outcome, base) {
            (Outcome::Same, Some(base)) if are_attributes_same(&entry.attributes, &base.entry.attributes) => {
                self.equals_newest &= newest.is_none();
                Ok(())
            }
            (Outcome::Same | Outcome::Regrouped, Some(base)) => self.put_attributes(entry, base.entry, newest),
            // Nothing is the same, and no group goes on, where there is no base.
            (Outcome::Store | Outcome::Same | Outcome::Regrouped, _) => {
                self.folders.touch(&entry.path);
                if entry.kind == Kind::File {
                    self.figures.changed_files += 1;
                    self.figures.changed_bytes += entry.size;
                }
                self.put(entry, Plan::Store, newest)
            }
            (Outcome::Link(Home::Here(target)), _) => {
                self.folders.touch(&entry.path);
                self.put(entry, Plan::Link { target, in_base: false }, newest)
            }
            (Outcome::Link(Home::Base(home)), _) => {
                self.folders.touch(&entry.path);
                home.give(&mut entry);
                self.put(entry, Plan::Link { target: home.path, in_base: true }, newest)
            }
        }
    }

    fn settle_folder(&mut self, entry: Entry, base: Option<&Entry>, newest: Option<&Entry>) -> Result<(), ScanError> {
        let Some(base) = base else {
            self.folders.touch(&entry.path);
            self.folders.enter(entry.clone(), Standing::Member);
            return self.put(entry, Plan::Store, newest);
        };
        let recorded = Box::new(base.attributes.clone());
        if are_attributes_same(&entry.attributes, &base.attributes) {
            self.equals_newest &= newest.is_none();
            self.folders.enter(entry, Standing::Unchanged(recorded));
            return Ok(());
        }
        self.folders.enter(entry.clone(), Standing::Changed(recorded));
        self.put_attributes(entry, base, newest)
    }

    /// Only attributes differ from the base: the content stays there.
    fn put_attributes(&mut self, mut entry: Entry, base: &Entry, newest: Option<&Entry>) -> Result<(), ScanError> {
        entry.digest = base.digest;
        entry.pieces.clone_from(&base.pieces);
        entry.data_ranges.clone_from(&base.data_ranges);
        entry.content = base.content;
        entry.flags = entry.flags.with(Flags::CONTENT_IN_BASE);
        self.figures.metadata_only += 1;
        // Names of one inode share its attributes; what the base had too much is removed through the first only.
        let is_first = entry.link_group == 0 || self.mended_groups.insert(entry.link_group);
        let base = Box::new(if is_first { base.attributes.clone() } else { entry.attributes.clone() });
        self.put(entry, Plan::Attributes { base }, newest)
    }

    /// Adds an entry of the differential, and notes whether the newest backup says the same of the name.
    fn put(&mut self, entry: Entry, plan: Plan, newest: Option<&Entry>) -> Result<(), ScanError> {
        self.figures.entries += 1;
        if self.equals_newest {
            self.equals_newest = match newest {
                Some(newest) => self.is_state_of(&entry, newest)?,
                None => false,
            };
        }
        self.list.push(&Step::Item(Item { entry, plan }))
    }

    fn is_state_of(&self, now: &Entry, newest: &Entry) -> Result<bool, ScanError> {
        let flags = |entry: &Entry| {
            [Flags::STALE, Flags::UNREAD, Flags::CHANGED_WHILE_READ].map(|flag| entry.flags.contains(flag))
        };
        let same = now.kind == newest.kind
            && now.size == newest.size
            && flags(now) == flags(newest)
            && now.link_group == newest.link_group
            && now.link_target == newest.link_target
            && now.device == newest.device
            && are_attributes_same(&now.attributes, &newest.attributes);
        if !same || now.kind != Kind::File {
            return Ok(same);
        }
        if now.digest.is_some() || now.flags.contains(Flags::UNREAD) {
            return Ok(is_recorded_content_same(now, newest));
        }
        // To be stored: its content is not known yet.
        if is_identity_same(now, newest) {
            return Ok(true);
        }
        // Should it be unreadable, the packer finds that out too and the states differ.
        Ok(self.read_and_compare(now, newest)?.unwrap_or(false))
    }
}

fn failed(error: io::Error) -> Content {
    if error.kind() == io::ErrorKind::NotFound { Content::Gone } else { Content::Unreadable(error) }
}

/// What lstat does not give is as recorded, because the identity is.
fn take_extras(now: &mut Entry, recorded: &Entry) {
    now.attributes.inode_flags = recorded.attributes.inode_flags;
    now.attributes.xattrs.clone_from(&recorded.attributes.xattrs);
    now.link_target.clone_from(&recorded.link_target);
}
