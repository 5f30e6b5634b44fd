//! What walk, base and newest differential say of the same path, found out batch by batch on any thread.
//!
//! Nearly all names of nearly all scans are unchanged. These are looked at and passed over here, as runs of entries of a
//! block; the comparison, which is one thread at a time, hears one word of each run. What is more than a plain unchanged
//! name goes to it whole: folders, hard links, whatever differs, and whatever the newest differential has an entry for.

use std::sync::Arc;

use coord_archive::entry::{Entry, Flags, Kind, cmp_paths, is_at_or_below};
use coord_archive::glance::{Glance, Glances};
use coord_archive::reader::{ArchiveReader, ReadError};

use super::batches::{Batch, Cut, Name};
use super::error::ScanError;
use super::look::{Seen, WalkPlan};
use super::same::is_unchanged;

/// What the three lists say of one path; at least one says something.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) seen: Option<Seen>,
    pub(super) base: Option<Entry>,
    pub(super) newest: Option<Entry>,
    /// Whether the base goes on below this path.
    pub(super) base_goes_on: bool,
}

impl Met {
    pub(super) fn path(&self) -> &[u8] {
        let recorded = || self.base.as_ref().or(self.newest.as_ref()).map_or(&[][..], |entry| &entry.path);
        self.seen.as_ref().map_or_else(recorded, |seen| &seen.entry.path)
    }
}

/// Names that stand one after the other in a block of the base, unchanged, and unknown to the newest differential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// Number of the block.
    pub(super) block: usize,
    /// The first of the entries.
    pub(super) first: usize,
    /// How many there are.
    pub(super) count: usize,
    /// Regular files among them.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Run {
    /// Leaves out the first entry, which is of this kind and size.
    pub(super) fn pass(&mut self, kind: Kind, size: u64) {
        self.first += 1;
        self.count -= 1;
        if kind == Kind::File {
            self.files -= 1;
            self.bytes -= size;
        }
    }

    fn add(&mut self, glance: &Glance) {
        self.count += 1;
        if glance.kind == Kind::File {
            self.files += 1;
            self.bytes += glance.size;
        }
    }
}

/// One thing that the comparison is told.
#[derive(Debug)]
pub(super) enum Event {
    /// A name to decide about.
    Met(Box<Met>),
    /// Names that are as they were.
    Unchanged(Run),
}

/// A batch that was compared.
#[derive(Debug)]
pub(super) struct Compared {
    /// In path order.
    pub(super) events: Vec<Event>,
    /// How many paths that were.
    pub(super) paths: u64,
}

/// One thread's tools for comparing batches.
pub(super) struct Meeting<'a> {
    plan: Arc<WalkPlan>,
    base: &'a ArchiveReader,
    newest: Option<&'a ArchiveReader>,
    raw: Vec<u8>,
    /// The block of the newest differential that was needed last.
    newest_block: Option<(usize, Vec<Entry>)>,
}

impl<'a> Meeting<'a> {
    pub(super) fn new(plan: Arc<WalkPlan>, base: &'a ArchiveReader, newest: Option<&'a ArchiveReader>) -> Self {
        Self { plan, base, newest, raw: Vec::new(), newest_block: None }
    }

    /// Looks at the names of a batch and compares them.
    pub(super) fn compare(&mut self, mut batch: Batch) -> Result<Compared, ScanError> {
        let newest = self.newest_of(&batch)?;
        let mut raw = std::mem::take(&mut self.raw);
        let base = BaseRange::new(self.base, &batch, &mut raw)?;
        let (paths, names) = batch.take_names();
        let mut merge = Merge {
            plan: &self.plan,
            base,
            newest: newest.into_iter().peekable(),
            run: Run::default(),
            done: Compared { events: Vec::new(), paths: 0 },
        };
        let mut start = 0;
        for (length, name) in names {
            merge.name(&paths[start..start + length], name)?;
            start += length;
        }
        merge.rest(None)?;
        merge.end_run();
        let done = merge.done;
        self.raw = raw;
        Ok(done)
    }

    /// The newest differential's entries in the batch's range: few, as a rule.
    fn newest_of(&mut self, batch: &Batch) -> Result<Vec<Entry>, ScanError> {
        let Some(newest) = self.newest else { return Ok(Vec::new()) };
        let index = |source| ScanError::Index { which: "the newest differential", source };
        let mut found = Vec::new();
        let mut number = batch.from.as_ref().map_or(0, |from| newest.block_of(from.path()));
        while number < newest.block_count() {
            let begins_behind =
                |until: &Cut| newest.block_info(number).is_some_and(|block| !until.is_after(&block.first_path));
            if batch.until.as_ref().is_some_and(begins_behind) {
                break;
            }
            if self.newest_block.as_ref().is_none_or(|(at, _)| *at != number) {
                self.newest_block = Some((number, newest.block(number).map_err(index)?));
            }
            let entries = self.newest_block.as_ref().map_or(&[][..], |(_, entries)| entries);
            let in_range = |entry: &&Entry| {
                batch.from.as_ref().is_none_or(|from| !from.is_after(&entry.path))
                    && batch.until.as_ref().is_none_or(|until| until.is_after(&entry.path))
            };
            found.extend(entries.iter().filter(in_range).cloned());
            number += 1;
        }
        Ok(found)
    }
}

/// The base's entries in a batch's range, one in sight.
struct BaseRange<'b> {
    block: usize,
    glances: Option<Glances<'b>>,
    glance: Option<Glance>,
    /// How many entries of the block lie before the one in sight.
    number: usize,
    until: Option<Cut>,
    /// First path of the next block.
    next_block: Option<&'b [u8]>,
}

impl<'b> BaseRange<'b> {
    fn new(base: &'b ArchiveReader, batch: &Batch, raw: &'b mut Vec<u8>) -> Result<Self, ScanError> {
        let block = batch.block.unwrap_or(0);
        let glances = match batch.block {
            Some(block) => Some(base.glances(block, raw).map_err(of_base)?),
            None => None,
        };
        let next_block = base.block_info(block + 1).map(|info| info.first_path.as_slice());
        let mut this = Self { block, glances, glance: None, number: 0, until: batch.until.clone(), next_block };
        this.step()?;
        let first = base.block_info(block).map(|info| info.first_path.as_slice());
        if this.glance.is_some() && this.path() != first {
            return Err(of_base(ReadError::Inconsistent("an index block and the table differ")));
        }
        while let (Some(from), Some(path)) = (&batch.from, this.path())
            && from.is_after(path)
        {
            this.advance()?;
        }
        Ok(this)
    }

    /// Path of the entry in sight; `None` at the end of the range.
    fn path(&self) -> Option<&[u8]> {
        let path = self.glances.as_ref().filter(|_| self.glance.is_some()).map(Glances::path)?;
        self.until.as_ref().is_none_or(|until| until.is_after(path)).then_some(path)
    }

    fn advance(&mut self) -> Result<(), ScanError> {
        self.number += 1;
        self.step()
    }

    fn step(&mut self) -> Result<(), ScanError> {
        let Some(glances) = &mut self.glances else { return Ok(()) };
        let failed = |source| of_base(ReadError::Block { number: self.block, source });
        self.glance = glances.advance().map_err(failed)?;
        let overlaps = |next: &[u8]| cmp_paths(glances.path(), next).is_ge();
        if self.glance.is_some() && self.next_block.is_some_and(overlaps) {
            return Err(of_base(ReadError::Inconsistent("its index blocks overlap")));
        }
        Ok(())
    }

    /// Takes the entry in sight; also says whether the base goes on below it.
    fn take(&mut self) -> Result<(Option<Entry>, bool), ScanError> {
        let Some(glances) = &self.glances else { return Ok((None, false)) };
        let failed = |source| of_base(ReadError::Block { number: self.block, source });
        let entry = glances.entry().map_err(failed)?;
        self.advance()?;
        let next = match &self.glance {
            Some(_) => self.glances.as_ref().map(Glances::path),
            None => self.next_block,
        };
        let goes_on = next.is_some_and(|next| is_at_or_below(next, &entry.path));
        Ok((Some(entry), goes_on))
    }
}

fn of_base(source: ReadError) -> ScanError {
    ScanError::Index { which: "the base", source }
}

/// The merge of one batch.
struct Merge<'m, I: Iterator<Item = Entry>> {
    plan: &'m WalkPlan,
    base: BaseRange<'m>,
    newest: std::iter::Peekable<I>,
    run: Run,
    done: Compared,
}

impl<I: Iterator<Item = Entry>> Merge<'_, I> {
    fn name(&mut self, path: &[u8], name: Name) -> Result<(), ScanError> {
        self.rest(Some(path))?;
        let is_newest = self.newest.peek().is_some_and(|newest| newest.path == path);
        let is_base = self.base.path() == Some(path);
        let seen = match name {
            Name::Seen(seen) => Some(*seen),
            Name::Leaf(leaf) => {
                let at = leaf.at(path);
                match self.plan.tree.stat_at(at.folder, at.name, path) {
                    Err(error) => self.plan.unseen(path, &at, error)?,
                    Ok(stat) if self.plan.passes_over(path, &at, &stat) => None,
                    Ok(stat) => {
                        let glance = self.base.glance.filter(|_| is_base && !is_newest);
                        if let Some(glance) = glance.filter(|glance| is_unchanged(&stat, glance)) {
                            return self.unchanged(&glance);
                        }
                        self.plan.leaf(path, &stat)
                    }
                }
            }
        };
        if seen.is_none() && !is_base && !is_newest {
            return Ok(());
        }
        self.meet(seen, is_base, is_newest)
    }

    /// What base and newest differential have before `path`, or have at all: nothing is there any more.
    fn rest(&mut self, path: Option<&[u8]>) -> Result<(), ScanError> {
        loop {
            let newest = self.newest.peek().map(|entry| entry.path.as_slice());
            let least = match (self.base.path(), newest) {
                (Some(base), Some(newest)) if cmp_paths(newest, base).is_lt() => newest,
                (Some(base), _) => base,
                (None, Some(newest)) => newest,
                (None, None) => return Ok(()),
            };
            if path.is_some_and(|path| path == least || cmp_paths(path, least).is_lt()) {
                return Ok(());
            }
            let (is_base, is_newest) = (self.base.path() == Some(least), newest == Some(least));
            self.meet(None, is_base, is_newest)?;
        }
    }

    fn meet(&mut self, seen: Option<Seen>, is_base: bool, is_newest: bool) -> Result<(), ScanError> {
        self.end_run();
        let newest = if is_newest { self.newest.next() } else { None };
        let (base, base_goes_on) = if is_base { self.base.take()? } else { (None, false) };
        self.done.paths += 1;
        self.done.events.push(Event::Met(Box::new(Met { seen, base, newest, base_goes_on })));
        Ok(())
    }

    fn unchanged(&mut self, glance: &Glance) -> Result<(), ScanError> {
        debug_assert!(!glance.flags.contains(Flags::ANCESTOR), "ancestors are folders");
        if self.run.count == 0 {
            self.run = Run { block: self.base.block, first: self.base.number, ..Run::default() };
        }
        self.run.add(glance);
        self.done.paths += 1;
        self.base.advance()
    }

    fn end_run(&mut self) {
        if self.run.count > 0 {
            self.done.events.push(Event::Unchanged(std::mem::take(&mut self.run)));
        }
    }
}
