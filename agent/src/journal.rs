//! What the agent knows after a crash: the attempts it holds, the reports that nobody acknowledged, the indexes that the catalog does
//! not have yet, and the ordinal of each job.
//!
//! Owns the invariant that what was appended durably is there again after a crash at any instant: records are appended with length
//! and checksum and flushed before they count; a torn tail is cut at the last whole record. Not here: what the records mean for runs
//! (that is the engine's), and archives, which are durable by themselves.

mod memory;
mod record;
mod segment;

use std::path::{Path, PathBuf};

pub use memory::{AttemptKey, HeldAttempt, Memory};
pub use record::{Acknowledged, BegunFromPlan, Body, Closed, Forgotten, Record, RememberedBackup, Taken};
use segment::Segment;
pub use segment::SegmentError;

use crate::chain::chain;

/// A journal is rewritten when it is larger than this and than twice what it has to hold, in bytes.
const COMPACT_BYTES: u64 = 1 << 20;
/// Records that wait for a full disk. More than this are forgotten; what they said is sent again after a restart.
const MAX_WAITING_RECORDS: usize = 1024;

/// The journal of one agent, with what it says in memory.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    segment: Segment,
    memory: Memory,
    waiting: Vec<Record>,
}

/// What opening found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Whole records.
    pub records: u64,
    /// Bytes of a torn tail that were cut off.
    pub cut_bytes: u64,
}

impl Journal {
    /// Opens or makes the journal in `folder`, and cuts a torn tail off.
    pub fn open(folder: &Path) -> Result<(Journal, Recovery), SegmentError> {
        let (segment, records, cut_bytes) = Segment::open(folder)?;
        let mut memory = Memory::default();
        for record in &records {
            memory.apply(record);
        }
        let recovery = Recovery { records: records.len() as u64, cut_bytes };
        Ok((Journal { folder: folder.to_owned(), segment, memory, waiting: Vec::new() }, recovery))
    }

    /// What the journal says.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Appends durably, or not at all: an error says that the record does not count.
    pub fn append(&mut self, body: Body) -> Result<(), SegmentError> {
        self.append_all(vec![body])
    }

    /// Appends all of them durably, or none.
    pub fn append_all(&mut self, bodies: Vec<Body>) -> Result<(), SegmentError> {
        let new: Vec<Record> = bodies.into_iter().map(|body| Record { body: Some(body) }).collect();
        let mut all = std::mem::take(&mut self.waiting);
        let waiting = all.len();
        all.extend(new.iter().cloned());
        if let Err(error) = self.segment.append(&all) {
            all.truncate(waiting);
            self.waiting = all;
            return Err(error);
        }
        new.iter().for_each(|record| self.memory.apply(record));
        self.compact_if_large();
        Ok(())
    }

    /// Takes the record at once and makes it durable when the disk lets it. For what a crash may forget without harm.
    pub fn note(&mut self, body: Body) {
        if let Err(error) = self.append(body.clone()) {
            tracing::warn!(error = %chain(&error), "the journal waits for its disk");
            let record = Record { body: Some(body) };
            self.memory.apply(&record);
            if self.waiting.len() < MAX_WAITING_RECORDS {
                self.waiting.push(record);
            }
        }
    }

    /// Tries again to write what waits. Answers whether nothing waits any more.
    pub fn retry(&mut self) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        match self.segment.append(&self.waiting) {
            Ok(()) => {
                self.waiting.clear();
                true
            }
            Err(_) => false,
        }
    }

    fn compact_if_large(&mut self) {
        if self.segment.length() < COMPACT_BYTES || self.segment.length() < self.segment.length_at_start() * 2 {
            return;
        }
        match self.segment.rewrite(&self.folder, &self.memory.records()) {
            Ok(segment) => self.segment = segment,
            // The old segment goes on: nothing is lost, it is only longer than it has to be.
            Err(error) => tracing::warn!(error = %chain(&error), "the journal could not be compacted"),
        }
    }
}

#[cfg(test)]
mod tests;
