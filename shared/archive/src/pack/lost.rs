//! What becomes of a name whose file could not be stored.
//!
//! Owns the rule that the base never shows through in silence. In a differential a name without an entry is as the base
//! has it: so one that is gone gets a tombstone, and one that could not be read the base's own entry, flagged stale.

use super::{Reason, Source};
use crate::entry::{Entry, Flags, Kind};
use crate::header::Level;

/// What the index gets instead of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Instead {
    /// Nothing: it is gone, and no base has it.
    Nothing,
    /// It is gone, and the base may have it.
    Tombstone,
    /// The base's state, its content in the base's archive.
    Stale(Box<Entry>),
    /// It is there, and what is in it is not known.
    Unread,
}

/// Finds out what is known of the file at `path`, which was not stored for this reason.
pub(super) fn instead_of(path: &[u8], reason: &Reason, level: Level, source: &dyn Source) -> Instead {
    let is_gone = match reason {
        Reason::Vanished => true,
        Reason::Unreadable(_) | Reason::ChangedWhileRead | Reason::TooLarge => false,
    };
    let otherwise = if is_gone { Instead::Nothing } else { Instead::Unread };
    if level == Level::Full {
        return otherwise;
    }
    match source.base().map(|base| base.find(path)) {
        Some(Ok(None)) => otherwise,
        // An index that cannot be read any more says nothing. A tombstone of a name that the base does not have hides nothing.
        Some(_) | None if is_gone => Instead::Tombstone,
        // Had it another kind, the steps have removed it before this name came.
        Some(Ok(Some(base))) if base.kind == Kind::File && !base.flags.contains(Flags::UNREAD) => {
            let flags = base.flags.with(Flags::STALE).with(Flags::CONTENT_IN_BASE);
            Instead::Stale(Box::new(Entry { flags, ..base }))
        }
        Some(_) | None => Instead::Unread,
    }
}

/// The entry of a file of which nothing but the attributes is known.
pub(super) fn unread(entry: Entry) -> Entry {
    let flags = entry.flags.with(Flags::UNREAD);
    Entry { flags, data_ranges: None, digest: None, pieces: Vec::new(), ..entry }
}
