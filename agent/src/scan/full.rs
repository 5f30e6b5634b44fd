//! A full: everything the walker sees becomes a step, the second name of an inode a link to the first.

use coord_archive::entry::{Flags, Kind};
use coord_archive::pack::{Item, Plan, Step};

use super::error::ScanError;
use super::links::{Home, LinkGroups, Outcome};
use super::look::{Reach, Seen};
use super::notes::SharedNotes;
use super::walk::Walk;

/// The steps of a full, in path order. After an error it ends.
#[derive(Debug)]
pub struct FullSteps {
    walk: Walk,
    links: LinkGroups,
    notes: SharedNotes,
}

impl FullSteps {
    /// Steps out of a walk that reads what lstat does not give.
    #[must_use]
    pub fn new(walk: Walk, notes: SharedNotes) -> Self {
        Self { walk, links: LinkGroups::of_full(), notes }
    }

    fn item(&mut self, seen: Seen) -> Item {
        count(&self.notes, &seen);
        let Seen { mut entry, reach, inode, links, .. } = seen;
        let is_unread = match reach {
            Reach::Whole | Reach::NotEntered => entry.flags.contains(Flags::UNREAD),
            Reach::Unlisted | Reach::Unseen | Reach::LostMount => true,
        };
        if is_unread {
            entry.flags = entry.flags.with(Flags::UNREAD);
            return Item { entry, plan: Plan::IndexOnly };
        }
        let mut plan = Plan::Store;
        if links > 1 && entry.kind != Kind::Folder {
            let (group, outcome) = self.links.decide(inode, links, &entry.path, None);
            entry.link_group = group;
            if let Outcome::Link(Home::Here(target)) = outcome {
                plan = Plan::Link { target, in_base: false };
            }
        }
        Item { entry, plan }
    }
}

impl Iterator for FullSteps {
    type Item = Result<Step, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.walk.next()?.map(|seen| Step::Item(self.item(seen))))
    }
}

/// Counts a name among those of the source.
pub(super) fn count(notes: &SharedNotes, seen: &Seen) {
    let mut notes = notes.lock();
    notes.source_entries += 1;
    if seen.entry.kind == Kind::File {
        notes.source_files += 1;
        notes.source_bytes += seen.entry.size;
    }
}
