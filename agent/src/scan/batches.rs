//! The walk in batches that one thread can compare with the base alone.
//!
//! A batch ends where a block of the base's index ends, so that its names meet the entries of one block only, or before
//! that when it has become large. Together the batches cover every path there can be, each once.

use std::cmp::Ordering;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use coord_archive::entry::cmp_paths;
use coord_archive::reader::ArchiveReader;

use super::error::ScanError;
use super::look::{Seen, WalkPlan};
use super::walk::{Found, Leaf, Walk};

/// Most names in a batch.
const MAX_NAMES: usize = 4096;
/// Most folders that a batch keeps open.
const MAX_FOLDERS: usize = 128;

/// A place between two paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    path: Vec<u8>,
    /// Whether it lies behind the path itself.
    is_behind: bool,
}

impl Cut {
    fn before(path: &[u8]) -> Self {
        Self { path: path.to_vec(), is_behind: false }
    }

    fn behind(path: &[u8]) -> Self {
        Self { path: path.to_vec(), is_behind: true }
    }

    /// Whether `path` comes before the cut.
    pub(super) fn is_after(&self, path: &[u8]) -> bool {
        match cmp_paths(path, &self.path) {
            Ordering::Less => true,
            Ordering::Equal => self.is_behind,
            Ordering::Greater => false,
        }
    }

    /// A path that no path after the cut comes before.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }
}

/// A name of a batch.
#[derive(Debug)]
pub(super) enum Name {
    /// Looked at by the walker.
    Seen(Box<Seen>),
    /// To be looked at.
    Leaf(Leaf),
}

/// Names in path order, and which part of the base they belong to.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its place among the batches.
    pub(super) seq: u64,
    /// Block of the base's index that covers the batch; `None` where the base has none.
    pub(super) block: Option<usize>,
    /// Where the batch begins; `None` at the beginning of everything.
    pub(super) from: Option<Cut>,
    /// Where it ends; `None` at the end of everything.
    pub(super) until: Option<Cut>,
    paths: Vec<u8>,
    names: Vec<(usize, Name)>,
}

impl Batch {
    /// Takes the names out, in order, each with its path.
    pub(super) fn take_names(&mut self) -> (Vec<u8>, Vec<(usize, Name)>) {
        (std::mem::take(&mut self.paths), std::mem::take(&mut self.names))
    }
}

/// Cuts a walk into batches.
#[derive(Debug)]
pub(super) struct Batches<'a> {
    walk: Walk,
    base: &'a ArchiveReader,
    block: usize,
    next_seq: u64,
    from: Option<Cut>,
    /// The walk came to a name behind the batch that was given last.
    ahead: Option<Name>,
    is_walked: bool,
    is_done: bool,
}

impl<'a> Batches<'a> {
    pub(super) fn new(walk: Walk, base: &'a ArchiveReader) -> Self {
        Self { walk, base, block: 0, next_seq: 0, from: None, ahead: None, is_walked: false, is_done: false }
    }

    /// What is walked.
    pub(super) fn plan(&self) -> &Arc<WalkPlan> {
        self.walk.plan()
    }

    /// The next batch; `None` when the last one was given. A batch may have no names: then whatever the base has there is
    /// gone.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, ScanError> {
        if self.is_done {
            return Ok(None);
        }
        let block = Some(self.block).filter(|block| *block < self.base.block_count());
        let end = self.base.block_info(self.block + 1).map(|next| Cut::before(&next.first_path));
        let mut batch = Batch {
            seq: self.next_seq,
            block,
            from: self.from.take(),
            until: None,
            paths: Vec::new(),
            names: Vec::new(),
        };
        batch.until = self.fill(&mut batch, end)?;
        self.is_done = batch.until.is_none();
        self.from.clone_from(&batch.until);
        self.next_seq += 1;
        Ok(Some(batch))
    }

    /// Fills a batch with the names before `end`, or as many as it may have; gives the place where it ends.
    fn fill(&mut self, batch: &mut Batch, end: Option<Cut>) -> Result<Option<Cut>, ScanError> {
        let (mut folders, mut folder): (usize, Option<Arc<OwnedFd>>) = (0, None);
        loop {
            let Some(name) = self.find()? else {
                self.block += 1;
                return Ok(end);
            };
            let path = self.walk.path();
            if end.as_ref().is_some_and(|end| !end.is_after(path)) {
                self.ahead = Some(name);
                self.block += 1;
                return Ok(end);
            }
            if let Name::Leaf(leaf) = &name
                && folder.as_ref().is_none_or(|folder| !Arc::ptr_eq(folder, &leaf.folder))
            {
                folder = Some(Arc::clone(&leaf.folder));
                folders += 1;
            }
            batch.paths.extend_from_slice(path);
            batch.names.push((path.len(), name));
            if batch.names.len() >= MAX_NAMES || folders >= MAX_FOLDERS {
                return Ok(Some(Cut::behind(path)));
            }
        }
    }

    fn find(&mut self) -> Result<Option<Name>, ScanError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        if self.is_walked {
            return Ok(None);
        }
        let found = self.walk.find()?.map(|found| match found {
            Found::Seen(seen) => Name::Seen(seen),
            Found::Leaf(leaf) => Name::Leaf(leaf),
        });
        self.is_walked = found.is_none();
        Ok(found)
    }
}
