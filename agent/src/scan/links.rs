//! Hard links: which names are one inode, and what that means for a full and for a differential.
//!
//! Owns the rule that a link member points only to a name that is in the same group now and is either in this archive or
//! unchanged in the base; otherwise the content is stored again. Device and inode group names within one scan only. Memory
//! grows with the number of hard-linked inodes, not with the tree.

use std::collections::HashMap;

use coord_archive::digest::Digest;
use coord_archive::entry::{ContentRef, DataRange, Entry, Flags};

/// Groups that a differential opens are numbered from here; a full's are numbered from 1, one for each inode.
const FIRST_DIFFERENTIAL_GROUP: u64 = 1 << 32;

/// Device and inode.
pub type Inode = ((u32, u32), u64);

/// Where the content of a group is.
#[derive(Clone, Debug)]
pub enum Home {
    /// Under this name of the archive being written.
    Here(Vec<u8>),
    /// Under this name of the base, unchanged.
    Base(Box<BaseHome>),
}

/// A name of the base and its content.
#[derive(Clone, Debug)]
pub struct BaseHome {
    /// The name.
    pub path: Vec<u8>,
    digest: Option<Digest>,
    pieces: Vec<Digest>,
    data_ranges: Option<Vec<DataRange>>,
    content: Option<ContentRef>,
}

impl BaseHome {
    fn of(base: &Entry) -> Self {
        Self {
            path: base.path.clone(),
            digest: base.digest,
            pieces: base.pieces.clone(),
            data_ranges: base.data_ranges.clone(),
            content: base.content,
        }
    }

    /// Puts this content into an entry.
    pub fn give(&self, entry: &mut Entry) {
        entry.digest = self.digest;
        entry.pieces.clone_from(&self.pieces);
        entry.data_ranges.clone_from(&self.data_ranges);
        entry.content = self.content;
        entry.flags = entry.flags.with(Flags::CONTENT_IN_BASE);
    }
}

/// What the base says of the name, where it has one.
#[derive(Clone, Copy, Debug)]
pub struct BaseName<'a> {
    /// The base's entry.
    pub entry: &'a Entry,
    /// Whether the content is as it was there.
    pub is_content_same: bool,
}

/// What a name becomes, its attributes aside.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// As in the base.
    Same,
    /// As in the base, but of a group of its own now.
    Regrouped,
    /// Stored.
    Store,
    /// A link to another name.
    Link(Home),
}

/// Groups of one scan.
#[derive(Debug)]
pub struct LinkGroups {
    next: u64,
    inodes: HashMap<Inode, (u64, Home)>,
    claimed: HashMap<u64, Inode>,
}

impl LinkGroups {
    /// For a full.
    #[must_use]
    pub fn of_full() -> Self {
        Self { next: 1, inodes: HashMap::new(), claimed: HashMap::new() }
    }

    /// For a differential.
    #[must_use]
    pub fn of_differential() -> Self {
        Self { next: FIRST_DIFFERENTIAL_GROUP, inodes: HashMap::new(), claimed: HashMap::new() }
    }

    fn fresh(&mut self, inode: Inode, home: Home) -> u64 {
        let group = self.next;
        self.next += 1;
        self.inodes.insert(inode, (group, home));
        group
    }

    /// Decides for a name (no folder) of `inode`, which has `links` names. Returns its group and what it becomes.
    pub fn decide(&mut self, inode: Inode, links: u32, path: &[u8], base: Option<BaseName<'_>>) -> (u64, Outcome) {
        let same = base.filter(|base| base.is_content_same).map(|base| base.entry);
        if let Some((group, home)) = self.inodes.get(&inode) {
            return match same {
                Some(entry) if entry.link_group == *group => (*group, Outcome::Same),
                Some(_) | None => (*group, Outcome::Link(home.clone())),
            };
        }
        match same {
            Some(entry) if entry.link_group == 0 && links < 2 => (0, Outcome::Same),
            Some(entry) if entry.link_group == 0 => {
                let group = self.fresh(inode, Home::Base(Box::new(BaseHome::of(entry))));
                (group, Outcome::Regrouped)
            }
            Some(entry) if self.claim(entry.link_group, inode) => {
                let home = Home::Base(Box::new(BaseHome::of(entry)));
                self.inodes.insert(inode, (entry.link_group, home));
                (entry.link_group, Outcome::Same)
            }
            Some(_) | None if links < 2 => (0, Outcome::Store),
            Some(_) | None => (self.fresh(inode, Home::Here(path.to_vec())), Outcome::Store),
        }
    }

    /// Whether the base's `group` goes on as this inode; each group does so for one inode only.
    fn claim(&mut self, group: u64, inode: Inode) -> bool {
        *self.claimed.entry(group).or_insert(inode) == inode
    }
}

#[cfg(test)]
#[expect(clippy::panic, reason = "tests")]
mod tests {
    use coord_archive::entry::Kind;

    use super::super::look::blank_entry;
    use super::*;

    const X: Inode = ((8, 1), 10);
    const Y: Inode = ((8, 1), 11);

    fn in_base(path: &[u8], group: u64) -> Entry {
        let mut entry = blank_entry(path, Kind::File);
        entry.link_group = group;
        entry.digest = Some(Digest::of(b"content"));
        entry
    }

    fn same(entry: &Entry) -> Option<BaseName<'_>> {
        Some(BaseName { entry, is_content_same: true })
    }

    fn target(outcome: Outcome) -> Vec<u8> {
        match outcome {
            Outcome::Link(Home::Base(home)) => home.path,
            Outcome::Link(Home::Here(path)) => path,
            Outcome::Same | Outcome::Regrouped | Outcome::Store => panic!("no link: {outcome:?}"),
        }
    }

    #[test]
    fn a_name_added_to_a_group_of_the_base_links_to_the_base() {
        let (a, mut groups) = (in_base(b"a", 1), LinkGroups::of_differential());
        assert!(matches!(groups.decide(X, 2, b"a", same(&a)), (1, Outcome::Same)));
        let (group, outcome) = groups.decide(X, 2, b"b", None);
        assert_eq!((group, target(outcome)), (1, b"a".to_vec()));
    }

    #[test]
    fn a_name_split_off_is_stored_again_though_its_content_is_the_same() {
        let (a, b, mut groups) = (in_base(b"a", 1), in_base(b"b", 1), LinkGroups::of_differential());
        assert!(matches!(groups.decide(X, 1, b"a", same(&a)), (1, Outcome::Same)));
        assert!(matches!(groups.decide(Y, 1, b"b", same(&b)), (0, Outcome::Store)));
    }

    #[test]
    fn two_files_that_were_joined_share_a_new_group_in_the_base() {
        let (a, b, mut groups) = (in_base(b"a", 0), in_base(b"b", 0), LinkGroups::of_differential());
        let (group, outcome) = groups.decide(X, 2, b"a", same(&a));
        assert!(matches!(outcome, Outcome::Regrouped) && group >= FIRST_DIFFERENTIAL_GROUP);
        let (other, outcome) = groups.decide(X, 2, b"b", same(&b));
        assert_eq!((other, target(outcome)), (group, b"a".to_vec()));
    }

    #[test]
    fn a_changed_group_is_stored_once_under_a_new_number() {
        let (a, b, mut groups) = (in_base(b"a", 1), in_base(b"b", 1), LinkGroups::of_differential());
        let changed = |entry| Some(BaseName { entry, is_content_same: false });
        let (group, outcome) = groups.decide(X, 2, b"a", changed(&a));
        assert!(matches!(outcome, Outcome::Store) && group >= FIRST_DIFFERENTIAL_GROUP);
        let (other, outcome) = groups.decide(X, 2, b"b", changed(&b));
        assert_eq!((other, target(outcome)), (group, b"a".to_vec()));
    }

    #[test]
    fn half_of_a_group_that_moved_to_another_inode_is_stored_as_a_group_of_its_own() {
        let (a, b, c) = (in_base(b"a", 1), in_base(b"b", 1), in_base(b"c", 1));
        let mut groups = LinkGroups::of_differential();
        assert!(matches!(groups.decide(X, 1, b"a", same(&a)), (1, Outcome::Same)));
        let (group, outcome) = groups.decide(Y, 2, b"b", same(&b));
        assert!(matches!(outcome, Outcome::Store) && group >= FIRST_DIFFERENTIAL_GROUP);
        let (other, outcome) = groups.decide(Y, 2, b"c", same(&c));
        assert_eq!((other, target(outcome)), (group, b"b".to_vec()));
    }
}
