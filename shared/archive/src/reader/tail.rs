//! The end of an archive, read once.
//!
//! Footer, table and what stands before them are small and lie together, so one read brings them all: finding one file in
//! an archive at the other end of a network costs four reads.

use std::io;

use super::{ReadAt, ReadError};

/// How much of the end is read at once and kept. The table of an archive of a million files fits.
const TAIL_BYTES: u64 = 64 << 10;

/// A store whose end is in memory.
pub(super) struct Tailed {
    store: Box<dyn ReadAt>,
    from: u64,
    tail: Vec<u8>,
}

impl Tailed {
    pub(super) fn read(store: Box<dyn ReadAt>) -> Result<Self, ReadError> {
        let size = store.size().map_err(|source| ReadError::Io { offset: 0, source })?;
        let from = size.saturating_sub(TAIL_BYTES);
        let tail = super::read_at(store.as_ref(), from, size - from)?;
        Ok(Self { store, from, tail })
    }

    /// Length of the whole, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.from + self.tail.len() as u64
    }

    /// The last bytes: `count` of them, or all of a shorter archive.
    pub(super) fn last(&self, count: usize) -> &[u8] {
        &self.tail[self.tail.len().saturating_sub(count)..]
    }
}

impl ReadAt for Tailed {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(begin) = offset.checked_sub(self.from) else { return self.store.read_exact_at(buffer, offset) };
        let range = usize::try_from(begin)
            .ok()
            .and_then(|begin| self.tail.get(begin..begin.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(range);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len())
    }
}
