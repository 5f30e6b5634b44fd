//! Index blocks on their way through a verification: the planner reads each first, the comparison with the tar comes a little behind it.
//!
//! So that no block is decoded twice, those that the planner has read wait here for the comparison, as far as there is room. Either of
//! them reads a block by itself that it does not find.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::entry::{Entry, cmp_paths};
use crate::reader::{ArchiveReader, ReadError};

/// Most bytes that waiting blocks take in memory. Some ten of ours do; a forged one may take more than all of this, and does not wait.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// The entries of a block.
pub(super) type Block = Arc<Vec<Entry>>;

/// See the module.
pub(super) struct Blocks<'a> {
    reader: &'a ArchiveReader,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Numbers, blocks, and what they take.
    blocks: VecDeque<(usize, Block, usize)>,
    bytes: usize,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(reader: &'a ArchiveReader) -> Self {
        Self { reader, waiting: Mutex::default() }
    }

    /// Block `number`, which waits for the comparison from now on.
    pub(super) fn read(&self, number: usize) -> Result<Block, ReadError> {
        let block = Arc::new(self.reader.block(number)?);
        let bytes = block.iter().map(memory_of).sum();
        let mut waiting = self.lock();
        if waiting.bytes + bytes <= MAX_WAITING_BYTES {
            waiting.bytes += bytes;
            waiting.blocks.push_back((number, Arc::clone(&block), bytes));
        }
        Ok(block)
    }

    /// Block `number`, for the comparison, which needs none before it any more.
    fn take(&self, number: usize) -> Result<Block, ReadError> {
        let mut waiting = self.lock();
        while let Some((at, block, bytes)) = waiting.blocks.pop_front_if(|(at, ..)| *at <= number) {
            waiting.bytes -= bytes;
            if at == number {
                return Ok(block);
            }
        }
        drop(waiting);
        self.reader.block(number).map(Arc::new)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About what an entry takes in memory, in bytes.
fn memory_of(entry: &Entry) -> usize {
    let attributes = &entry.attributes;
    let xattrs = attributes.xattrs.iter().map(|xattr| size_of_val(xattr) + xattr.name.len() + xattr.value.len());
    let ranges = entry.data_ranges.as_deref().map_or(0, size_of_val);
    let text = entry.path.len() + entry.link_target.len() + attributes.user.len() + attributes.group.len();
    size_of::<Entry>() + text + ranges + size_of_val(entry.pieces.as_slice()) + xattrs.sum::<usize>()
}

/// Goes through all entries in path order, behind the planner.
pub(super) struct Following<'a> {
    blocks: &'a Blocks<'a>,
    next_block: usize,
    block: Block,
    at: usize,
}

/// An entry of a block.
pub(super) struct Found {
    block: Block,
    at: usize,
}

impl std::ops::Deref for Found {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.block[self.at]
    }
}

impl<'a> Following<'a> {
    pub(super) fn new(blocks: &'a Blocks<'a>) -> Self {
        Self { blocks, next_block: 0, block: Block::default(), at: 0 }
    }

    /// The entry at hand; `None` behind the last one.
    pub(super) fn entry(&mut self) -> Result<Option<Found>, ReadError> {
        while self.at == self.block.len() {
            if self.next_block == self.blocks.reader.block_count() {
                return Ok(None);
            }
            let block = self.blocks.take(self.next_block)?;
            if self
                .block
                .last()
                .zip(block.first())
                .is_some_and(|(end, first)| cmp_paths(&end.path, &first.path).is_ge())
            {
                return Err(ReadError::Inconsistent("its index blocks overlap"));
            }
            (self.block, self.at) = (block, 0);
            self.next_block += 1;
        }
        Ok(Some(Found { block: Arc::clone(&self.block), at: self.at }))
    }

    /// Goes on to the next one.
    pub(super) fn pass(&mut self) {
        self.at += 1;
    }
}
