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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Attributes, Identity};

    fn entry(path: &str, kind: Kind, flags: Flags) -> Entry {
        Entry {
            path: path.as_bytes().to_vec(),
            kind,
            flags,
            size: 0,
            attributes: Attributes::default(),
            identity: Identity::default(),
            link_target: Vec::new(),
            device: (0, 0),
            link_group: 0,
            data_ranges: None,
            digest: None,
            pieces: Vec::new(),
            content: None,
        }
    }

    fn state(full: &[(&str, Kind)], differential: &[(&str, Kind, Flags)]) -> Vec<(String, Origin, Origin)> {
        let full = full.iter().map(|(path, kind)| Ok::<_, ()>(entry(path, *kind, Flags::default())));
        let differential = differential.iter().map(|(path, kind, flags)| Ok(entry(path, *kind, *flags)));
        overlay(full, differential)
            .flatten()
            .map(|placed| {
                let path = String::from_utf8_lossy(&placed.entry.path).into_owned();
                (path, placed.index, placed.content)
            })
            .collect()
    }

    const NONE: Flags = Flags(0);

    #[test]
    fn what_is_deleted_or_no_folder_any_more_hides_everything_below() {
        let full = [
            ("a", Kind::Folder),
            ("a/x", Kind::File),
            ("a-b", Kind::File),
            ("d", Kind::Folder),
            ("d/x", Kind::Folder),
            ("d/x/y", Kind::File),
            ("e", Kind::File),
        ];
        let differential = [("a", Kind::Tombstone, NONE), ("d", Kind::Symlink, NONE), ("f", Kind::File, NONE)];
        let names: Vec<String> = state(&full, &differential).into_iter().map(|(path, ..)| path).collect();
        assert_eq!(names, ["a-b", "d", "e", "f"]);
    }

    #[test]
    fn a_stale_top_keeps_what_is_below_it() {
        let full = [("a", Kind::Folder), ("a/x", Kind::File)];
        let differential = [("a", Kind::Folder, Flags::STALE)];
        let expected = [
            ("a".to_owned(), Origin::Differential, Origin::Differential),
            ("a/x".to_owned(), Origin::Full, Origin::Full),
        ];
        assert_eq!(state(&full, &differential), expected);
    }

    #[test]
    fn content_in_base_is_looked_for_in_the_full() {
        let found = state(&[("a", Kind::File)], &[("a", Kind::File, Flags::CONTENT_IN_BASE)]);
        assert_eq!(found, [("a".to_owned(), Origin::Differential, Origin::Full)]);
        assert_eq!(state(&[("a", Kind::File)], &[]), [("a".to_owned(), Origin::Full, Origin::Full)]);
    }

    #[test]
    fn an_error_of_either_index_comes_through() {
        let good = || [Ok(entry("a", Kind::File, NONE))].into_iter();
        assert!(overlay(good(), [Err("d")].into_iter()).any(|placed| placed == Err("d")));
        assert!(overlay([Err("f")].into_iter(), good()).any(|placed| placed == Err("f")));
    }
}
