//! The state at a differential: the full's index overlaid by the differential's.
//!
//! Below a tombstone, and below a name that is no folder any more, nothing of the full shows through. Everything else that
//! the differential does not mention is as it was in the full.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::entry::{Entry, Flags, Kind, cmp_paths, is_at_or_below};

/// One of the two archives of a restore point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The full.
    Full,
    /// The differential.
    Differential,
}

/// An entry of the overlaid state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The entry; never a tombstone.
    pub entry: Entry,
    /// Whose index it comes from.
    pub index: Origin,
    /// Whose frames hold its content, if it has any.
    pub content: Origin,
}

/// Overlays `full` by `differential`, both in path order; an empty differential gives the full's own state.
pub fn overlay<E>(
    full: impl Iterator<Item = Result<Entry, E>>,
    differential: impl Iterator<Item = Result<Entry, E>>,
) -> impl Iterator<Item = Result<Placed, E>> {
    Overlay { full: full.peekable(), differential: differential.peekable(), hidden_below: None }
}

struct Overlay<F: Iterator, D: Iterator> {
    full: Peekable<F>,
    differential: Peekable<D>,
    hidden_below: Option<Vec<u8>>,
}

enum Next {
    Full,
    Differential,
    Both,
    End,
}

impl<E, F, D> Overlay<F, D>
where
    F: Iterator<Item = Result<Entry, E>>,
    D: Iterator<Item = Result<Entry, E>>,
{
    fn which(&mut self) -> Next {
        match (self.full.peek(), self.differential.peek()) {
            (None, None) => Next::End,
            (Some(Err(_)), _) | (Some(Ok(_)), None) => Next::Full,
            (None | Some(Ok(_)), Some(Err(_))) | (None, Some(Ok(_))) => Next::Differential,
            (Some(Ok(old)), Some(Ok(new))) => match cmp_paths(&old.path, &new.path) {
                Ordering::Less => Next::Full,
                Ordering::Greater => Next::Differential,
                Ordering::Equal => Next::Both,
            },
        }
    }

    fn is_hidden(&self, path: &[u8]) -> bool {
        self.hidden_below.as_ref().is_some_and(|top| is_at_or_below(path, top))
    }

    fn place_new(&mut self, entry: Entry) -> Option<Placed> {
        if entry.kind != Kind::Folder && !entry.flags.contains(Flags::STALE) && !self.is_hidden(&entry.path) {
            self.hidden_below = Some(entry.path.clone());
        }
        if entry.kind == Kind::Tombstone {
            return None;
        }
        let in_base = entry.flags.contains(Flags::CONTENT_IN_BASE);
        let content = if in_base { Origin::Full } else { Origin::Differential };
        Some(Placed { entry, index: Origin::Differential, content })
    }
}

impl<E, F, D> Iterator for Overlay<F, D>
where
    F: Iterator<Item = Result<Entry, E>>,
    D: Iterator<Item = Result<Entry, E>>,
{
    type Item = Result<Placed, E>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.which() {
                Next::End => return None,
                Next::Full => match self.full.next()? {
                    Ok(entry) if self.is_hidden(&entry.path) => continue,
                    Ok(entry) => {
                        return Some(Ok(Placed { entry, index: Origin::Full, content: Origin::Full }));
                    }
                    Err(error) => return Some(Err(error)),
                },
                Next::Differential => self.differential.next()?,
                Next::Both => {
                    self.full.next();
                    self.differential.next()?
                }
            };
            match entry {
                Ok(entry) => {
                    if let Some(placed) = self.place_new(entry) {
                        return Some(Ok(placed));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
