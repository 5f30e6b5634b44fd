//! The state at a restore point, as far as a selection needs it, in path order.
//!
//! Owns that every pass sees the same entries under the same numbers, that paths strictly ascend, and that every entry is
//! preceded by its folder: an index that breaks this ends the restore.

use std::collections::VecDeque;

use super::selection::Selection;
use super::{UnpackError, UnpackOptions};
use crate::entry::{Entry, Flags, Kind, cmp_paths, is_at_or_below, parent};
use crate::header::{Level, Mount};
use crate::overlay::{Origin, Placed, overlay};
use crate::reader::{ArchiveReader, ReadError};
use crate::rules::Rules;

/// The one or two archives of a restore point.
#[derive(Clone, Copy)]
pub(super) struct Point<'a> {
    full: &'a ArchiveReader,
    differential: Option<&'a ArchiveReader>,
}

type Ascending<'a> = Box<dyn Iterator<Item = Result<Placed, UnpackError>> + 'a>;

impl<'a> Point<'a> {
    /// Checks that the archives are what they are given as and belong together.
    pub(super) fn new(full: &'a ArchiveReader, differential: Option<&'a ArchiveReader>) -> Result<Self, UnpackError> {
        if full.header().level != Level::Full {
            return Err(UnpackError::WrongLevel(Origin::Full));
        }
        if let Some(differential) = differential {
            if differential.header().level != Level::Differential {
                return Err(UnpackError::WrongLevel(Origin::Differential));
            }
            let base = differential.header().base.as_ref();
            let given = full.footer().archive_digest;
            if !base.is_some_and(|base| full.header().is_base(given, base)) {
                let needed = base.map_or("no base at all".to_owned(), |base| base.archive_digest.to_string());
                return Err(UnpackError::WrongBase { needed, given: given.to_string() });
            }
        }
        Ok(Self { full, differential })
    }

    /// The archive that holds what `origin` says; a full's own if there is no differential.
    pub(super) fn archive(&self, origin: Origin) -> &'a ArchiveReader {
        match origin {
            Origin::Full => self.full,
            Origin::Differential => self.differential.unwrap_or(self.full),
        }
    }

    /// The mounts that the newest archive recorded.
    pub(super) fn mounts(&self) -> impl Iterator<Item = &'a Mount> {
        self.differential.unwrap_or(self.full).header().mounts.iter()
    }

    /// What the backup left out of a folder, or of any, whatever the names.
    pub(super) fn rules(&self) -> &'a Rules {
        &self.differential.unwrap_or(self.full).header().rules
    }

    /// Whether the path is a source of the backup or leads to one: rules do not apply to it.
    pub(super) fn is_exempt(&self, path: &[u8]) -> bool {
        let sources = &self.differential.unwrap_or(self.full).header().sources;
        sources.iter().any(|source| is_at_or_below(source, path))
    }

    /// Bytes of content that both archives say they store.
    pub(super) fn stored_content_bytes(&self) -> u64 {
        let differential = self.differential.map_or(0, |archive| archive.footer().bytes);
        self.full.footer().bytes.saturating_add(differential)
    }

    /// Takes the paths out of `selection` that do not exist at this point. Fails when nothing is left.
    pub(super) fn drop_missing(&self, selection: &mut Selection) -> Result<Vec<Vec<u8>>, UnpackError> {
        let mut missing = Vec::new();
        for path in selection.paths() {
            if !path.is_empty() && self.find(path)?.is_none() {
                missing.push(path.clone());
            }
        }
        selection.retain(|path| !missing.contains(path));
        match missing.first() {
            Some(first) if selection.paths().is_empty() => Err(UnpackError::NothingThere { path: first.clone() }),
            Some(_) | None => Ok(missing),
        }
    }

    fn find(&self, path: &[u8]) -> Result<Option<Placed>, UnpackError> {
        if let Some(differential) = self.differential {
            let found = differential.find(path).map_err(failed(Origin::Differential))?;
            if let Some(entry) = found {
                let placed = self.relocated(from_differential(entry))?;
                return Ok(Some(placed).filter(|placed| placed.entry.kind != Kind::Tombstone));
            }
            if self.is_hidden(path)? {
                return Ok(None);
            }
        }
        let found = self.full.find(path).map_err(failed(Origin::Full))?;
        Ok(found.map(|entry| Placed { entry, index: Origin::Full, content: Origin::Full }))
    }

    /// Whether the differential removed a folder above `path`, or made something else of it.
    fn is_hidden(&self, path: &[u8]) -> Result<bool, UnpackError> {
        let Some(differential) = self.differential else { return Ok(false) };
        let mut above = parent(path);
        while let Some(folder) = above {
            if let Some(entry) = differential.find(folder).map_err(failed(Origin::Differential))?
                && entry.kind != Kind::Folder
                && !entry.flags.contains(Flags::STALE)
            {
                return Ok(true);
            }
            above = parent(folder);
        }
        Ok(false)
    }

    fn below(&self, path: &[u8]) -> Result<Ascending<'a>, UnpackError> {
        let hidden = self.is_hidden(path)?;
        let full = self.full.entries_below(path).map(|item| item.map_err(failed(Origin::Full)));
        let Some(differential) = self.differential else {
            return Ok(Box::new(overlay(full, std::iter::empty())));
        };
        let differential = differential.entries_below(path).map(|item| item.map_err(failed(Origin::Differential)));
        let point = *self;
        let relocated = move |placed: Result<Placed, _>| placed.and_then(|placed| point.relocated(placed));
        if hidden {
            return Ok(Box::new(overlay(std::iter::empty(), differential).map(relocated)));
        }
        Ok(Box::new(overlay(full, differential).map(relocated)))
    }

    /// What a differential says of a content in its full does not hold in a full that was rebuilt without some frames: there,
    /// the content is where the full's own index says it is.
    fn relocated(&self, mut placed: Placed) -> Result<Placed, UnpackError> {
        let is_renumbered = self.full.header().rebuilt.as_ref().is_some_and(|rebuilt| rebuilt.renumbered);
        let is_elsewhere = placed.index == Origin::Differential && placed.content == Origin::Full;
        if is_renumbered && is_elsewhere && placed.entry.content.is_some() {
            let found = self.full.find(&placed.entry.path).map_err(failed(Origin::Full))?;
            let same = found.filter(|found| found.digest == placed.entry.digest);
            placed.entry.content = same.and_then(|found| found.content);
        }
        Ok(placed)
    }
}

fn from_differential(entry: Entry) -> Placed {
    let in_base = entry.flags.contains(Flags::CONTENT_IN_BASE);
    let content = if in_base { Origin::Full } else { Origin::Differential };
    Placed { entry, index: Origin::Differential, content }
}

fn failed(origin: Origin) -> impl Fn(ReadError) -> UnpackError + Copy {
    move |source| UnpackError::Archive { origin, source }
}

/// An entry of a pass.
#[derive(Clone, Debug)]
pub(super) struct Picked {
    /// What the point says.
    pub(super) placed: Placed,
    /// Its number, the same in every pass.
    pub(super) number: usize,
    /// Whether the selection takes it. Other entries are there for the folders that lead to selected ones, and for what
    /// exists besides.
    pub(super) selected: bool,
}

impl Picked {
    pub(super) fn entry(&self) -> &Entry {
        &self.placed.entry
    }
}

/// One pass over the selected part of a point.
pub(super) struct Stream<'a> {
    point: Point<'a>,
    selection: &'a Selection,
    next_path: usize,
    leading: VecDeque<Placed>,
    current: Option<Ascending<'a>>,
    last: Option<Vec<u8>>,
    folders: Vec<Vec<u8>>,
    next_number: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(point: Point<'a>, options: &'a UnpackOptions<'_>) -> Self {
        Self {
            point,
            selection: &options.selection,
            next_path: 0,
            leading: VecDeque::new(),
            current: None,
            last: None,
            folders: Vec::new(),
            next_number: 0,
        }
    }

    /// The next entry, or `None` behind the last.
    pub(super) fn next_picked(&mut self) -> Result<Option<Picked>, UnpackError> {
        loop {
            if let Some(placed) = self.leading.pop_front() {
                return self.pick(placed, false).map(Some);
            }
            if let Some(current) = &mut self.current {
                match current.next() {
                    Some(placed) => return self.pick(placed?, true).map(Some),
                    None => self.current = None,
                }
            }
            let Some(path) = self.selection.paths().get(self.next_path) else { return Ok(None) };
            self.next_path += 1;
            self.lead_to(path)?;
            self.current = Some(self.point.below(path)?);
        }
    }

    /// Queues the folders above `path` that were not seen yet.
    fn lead_to(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let mut above = parent(path);
        while let Some(folder) = above {
            if self.last.as_ref().is_some_and(|last| is_at_or_below(last, folder)) {
                break;
            }
            let missing = || UnpackError::Index { path: folder.to_vec(), what: "it is not in the index" };
            self.leading.push_front(self.point.find(folder)?.ok_or_else(missing)?);
            above = parent(folder);
        }
        Ok(())
    }

    fn pick(&mut self, placed: Placed, in_reach: bool) -> Result<Picked, UnpackError> {
        let entry = &placed.entry;
        let wrong = |what| UnpackError::Index { path: entry.path.clone(), what };
        if self.last.as_ref().is_some_and(|last| cmp_paths(last, &entry.path).is_ge()) {
            return Err(wrong("entries are not in order"));
        }
        if entry.path.is_empty() && entry.kind != Kind::Folder {
            return Err(wrong("the root is no folder"));
        }
        while self.folders.last().is_some_and(|folder| !is_at_or_below(&entry.path, folder)) {
            self.folders.pop();
        }
        if self.folders.last().map(Vec::as_slice) != parent(&entry.path) {
            return Err(wrong("its folder is not in the index"));
        }
        if entry.kind == Kind::Folder {
            self.folders.push(entry.path.clone());
        }
        self.last = Some(entry.path.clone());
        let selected = in_reach && self.selection.takes(&entry.path);
        let number = self.next_number;
        self.next_number += 1;
        Ok(Picked { placed, number, selected })
    }
}
