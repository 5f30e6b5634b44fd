//! Everything that says something of a name, brought together in path order: blocks of the old index, members, names that
//! were deleted.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::RebuildError;
use super::frames::Finder;
use super::index::Index;
use super::names::{Deleted, EntryRun, EntryRuns};
use super::script::join;
use crate::block;
use crate::entry::{Entry, cmp_paths};

/// What is known of one name.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) path: Vec<u8>,
    /// What the old index says.
    pub(super) indexed: Option<Entry>,
    /// What its member says.
    pub(super) member: Option<Entry>,
    /// What says that it was deleted.
    pub(super) deleted: Option<Entry>,
    /// What the script for attributes says.
    pub(super) script: Option<Entry>,
    /// Whether the old index would name it if it had been in the archive.
    pub(super) is_covered: bool,
}

/// See the module.
pub(super) struct Merge<'a> {
    blocks: Blocks<'a>,
    runs: Vec<EntryRun<'a>>,
    deleted: Option<Deleted<'a>>,
    scripts: Vec<EntryRun<'a>>,
    heap: BinaryHeap<Next>,
    is_covered: bool,
}

/// The next entry of a source.
struct Next {
    entry: Entry,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Blocks,
    Run(usize),
    Deleted,
    Script(usize),
}

/// The heap gives the largest first: that is the smallest path, and of equal paths the first source.
impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        cmp_paths(&other.entry.path, &self.entry.path).then(other.source.cmp(&self.source))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Next {}

impl<'a> Merge<'a> {
    pub(super) fn new(
        index: &'a Index,
        members: &'a EntryRuns,
        deleted: Option<Deleted<'a>>,
        script: Option<&'a EntryRuns>,
        finder: &mut Finder<'_>,
    ) -> Result<Self, RebuildError> {
        let is_covered = index.blocks.first().is_some_and(|block| block.follows);
        let mut merge = Self {
            blocks: Blocks { index, next: 0, entries: Vec::new().into_iter(), covered_behind: is_covered },
            runs: members.runs().collect(),
            deleted,
            scripts: script.into_iter().flat_map(EntryRuns::runs).collect(),
            heap: BinaryHeap::new(),
            is_covered,
        };
        merge.pull(Source::Blocks, finder)?;
        for run in 0..merge.runs.len() {
            merge.pull(Source::Run(run), finder)?;
        }
        merge.pull(Source::Deleted, finder)?;
        for run in 0..merge.scripts.len() {
            merge.pull(Source::Script(run), finder)?;
        }
        Ok(merge)
    }

    /// Everything that is known of the next name.
    pub(super) fn next(&mut self, finder: &mut Finder<'_>) -> Result<Option<Known>, RebuildError> {
        let Some(first) = self.heap.peek() else { return Ok(None) };
        let path = first.entry.path.clone();
        let is_covered = self.is_covered;
        let mut known = Known { path, indexed: None, member: None, deleted: None, script: None, is_covered };
        while self.heap.peek().is_some_and(|next| next.entry.path == known.path) {
            let Some(Next { entry, source }) = self.heap.pop() else { break };
            match source {
                Source::Blocks => {
                    known.indexed = Some(entry);
                    self.is_covered = self.blocks.covered_behind;
                }
                // Of two members of one name in different places of a file that is out of order, one is as good as the other.
                Source::Run(_) => known.member = known.member.take().or(Some(entry)),
                Source::Deleted => known.deleted = Some(entry),
                Source::Script(_) => match &mut known.script {
                    Some(script) => join(script, &entry),
                    None => known.script = Some(entry),
                },
            }
            self.pull(source, finder)?;
        }
        Ok(Some(known))
    }

    fn pull(&mut self, source: Source, finder: &mut Finder<'_>) -> Result<(), RebuildError> {
        let entry = match source {
            Source::Blocks => self.blocks.next(finder)?,
            Source::Run(run) => self.runs[run].next()?,
            Source::Deleted => self.deleted.as_mut().map_or(Ok(None), Deleted::next)?,
            Source::Script(run) => self.scripts[run].next()?,
        };
        self.heap.extend(entry.map(|entry| Next { entry, source }));
        Ok(())
    }
}

/// The entries of the blocks that are left.
struct Blocks<'a> {
    index: &'a Index,
    next: usize,
    entries: std::vec::IntoIter<Entry>,
    /// Whether nothing of the index is missing between the entry given last and the next one.
    covered_behind: bool,
}

impl Blocks<'_> {
    fn next(&mut self, finder: &mut Finder<'_>) -> Result<Option<Entry>, RebuildError> {
        loop {
            if let Some(entry) = self.entries.next() {
                let next = self.index.blocks.get(self.next);
                let at_end = next.map_or(self.index.ends_with_last, |block| block.follows);
                self.covered_behind = !self.entries.as_slice().is_empty() || at_end;
                return Ok(Some(entry));
            }
            let Some(block) = self.index.blocks.get(self.next) else { return Ok(None) };
            self.next += 1;
            finder.read_frame(&block.frame)?;
            // It has its digest, or read as a block before.
            self.entries = block::decode(finder.raw()).unwrap_or_default().into_iter();
        }
    }
}
