//! Whether the tar inside an archive is what its index says: stock tools read the one, we read the other.
//!
//! Frames come in order, whichever thread read them. Their members' headers are read and held against the index, entry by
//! entry: name, kind, size, holes, link target, numbers of devices, owner, mode, time, extended attributes, and the place of the content.
//! Our own members stand where the format has them and nowhere else. A differential leaves most names to its full, so there an
//! entry may be without a member; a member without an entry never may be.
//!
//! Not looked at: what our own members hold, and in an archive that was rebuilt, whose tar has gaps, anything.

use std::collections::HashMap;

use super::blocks::{Blocks, Following, Found};
use crate::digest::Digest;
use crate::entry::{Attributes, ContentRef, Entry, Flags, Kind, Xattr, cmp_paths};
use crate::header::{Level, dot_coord_name, escape};
use crate::reader::ArchiveReader;
use crate::tar::read::{self, What};
use crate::tar::{BLOCK, acl};

/// Longest name of an owner that every header holds whole.
const OWNER_BYTES: usize = 31;

/// How a comparison ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Tar and index say the same.
    Alike,
    /// They do not: the first difference, and how many more there are.
    Unlike(String, u64),
    /// Something could not be read.
    Unknown,
}

/// A member that waits for the next one, which may take its place.
struct Pending {
    header: read::Header,
    /// Frame and offset of its content.
    place: (u64, usize),
}

/// How far the tar is. Our own members come in this order, content between the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Beginning,
    Content,
    Deleted,
    Script,
}

/// The first stored name of a hard-link group.
struct Leader {
    path: Vec<u8>,
    kind: Kind,
    size: u64,
    digest: Option<Digest>,
    content: Option<ContentRef>,
}

impl Leader {
    fn has_content_of(&self, entry: &Entry) -> bool {
        (self.size, self.digest, self.content) == (entry.size, entry.digest, entry.content)
    }
}

/// See the module.
pub(super) struct Members<'a> {
    /// The entry at hand is behind the members so far.
    entries: Following<'a>,
    level: Level,
    dot_coord: String,
    stage: Stage,
    /// Bytes of content and padding that are still to be passed over.
    left: u64,
    pending: Option<Pending>,
    leaders: HashMap<u64, Leader>,
    /// Files and bytes of content that are stored here, and how many the footer says.
    stored: (u64, u64),
    expected: (u64, u64),
    first: Option<String>,
    count: u64,
    /// Whether nothing more can be compared: something could not be read, or there is nothing to compare.
    is_over: bool,
    is_unknown: bool,
}

impl<'a> Members<'a> {
    pub(super) fn new(reader: &ArchiveReader, blocks: &'a Blocks<'a>) -> Self {
        let header = reader.header();
        Self {
            entries: Following::new(blocks),
            level: header.level,
            dot_coord: dot_coord_name(header.dot_coord),
            stage: Stage::Beginning,
            left: 0,
            pending: None,
            leaders: HashMap::new(),
            stored: (0, 0),
            expected: (reader.footer().files, reader.footer().bytes),
            first: None,
            count: 0,
            is_over: header.rebuilt.is_some(),
            is_unknown: false,
        }
    }

    /// Takes the frame of that number, the next one; `None` if it cannot be read.
    pub(super) fn frame(&mut self, number: u64, raw: Option<&[u8]>) {
        let Some(raw) = raw else { return self.give_up() };
        let mut at = usize::try_from(self.left).map_or(raw.len(), |left| left.min(raw.len()));
        self.left -= at as u64;
        while at < raw.len() && !self.is_over {
            let Some((header, length)) = read::parse(&raw[at..]) else {
                let what = format!("what stands at byte {at} of frame {number} is no member of this format");
                self.differs(what);
                self.is_over = true;
                return;
            };
            at += length;
            let place = if at == raw.len() { (number + 1, 0) } else { (number, at) };
            let content = header.content_length.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX);
            self.take(Pending { header, place });
            let here = usize::try_from(content).map_or(raw.len() - at, |content| content.min(raw.len() - at));
            at += here;
            self.left = content - here as u64;
        }
    }

    /// What came of it.
    pub(super) fn finish(mut self) -> Likeness {
        self.settle();
        while !self.is_over {
            let Some(entry) = self.entry() else { break };
            self.entries.pass();
            self.without_member(&entry);
        }
        if !self.is_over && (self.left > 0 || self.stage != Stage::Script) {
            self.differs("the tar ends early".to_owned());
        }
        if !self.is_over && self.stored != self.expected {
            let ((files, bytes), (wanted, wanted_bytes)) = (self.stored, self.expected);
            let what = format!("{files} files of {bytes} bytes, where the footer has {wanted} of {wanted_bytes}");
            self.differs(what);
        }
        match self.first {
            Some(first) => Likeness::Unlike(first, self.count - 1),
            None if self.is_unknown => Likeness::Unknown,
            None => Likeness::Alike,
        }
    }

    fn give_up(&mut self) {
        self.is_unknown |= !self.is_over;
        self.is_over = true;
    }

    fn differs(&mut self, what: String) {
        self.count += 1;
        self.first.get_or_insert(what);
    }

    fn differs_at(&mut self, path: &[u8], what: &str) {
        self.differs(format!("{}: {what}", escape(path)));
    }

    /// The entry at hand.
    fn entry(&mut self) -> Option<Found> {
        self.entries.entry().unwrap_or_else(|_| {
            self.give_up();
            None
        })
    }

    fn take(&mut self, member: Pending) {
        let path = &member.header.path;
        let own = path.strip_prefix(self.dot_coord.as_bytes());
        if own.is_some_and(|rest| rest.is_empty() || rest[0] == b'/') {
            self.own(&member.header);
            return;
        }
        if self.stage != Stage::Content {
            self.differs_at(path, "a member where none belongs");
        }
        let replaced = self.pending.take_if(|before| before.header.path == *path);
        if let Some(replaced) = replaced {
            // Only a file that changed while it was read is written twice.
            if !is_file(&replaced.header) || !is_file(&member.header) {
                self.differs_at(path, "the tar has it twice");
            }
        } else {
            self.settle();
        }
        self.pending = Some(member);
    }

    fn own(&mut self, header: &read::Header) {
        let name = header.path.get(self.dot_coord.len() + 1..).unwrap_or_default();
        let (from, to) = match name {
            b"RESTORE.txt" => (Stage::Beginning, Stage::Content),
            b"deleted" if self.level == Level::Differential => (Stage::Content, Stage::Deleted),
            b"attributes.sh" if self.level == Level::Differential => (Stage::Deleted, Stage::Script),
            b"attributes.sh" => (Stage::Content, Stage::Script),
            _ => return self.differs_at(&header.path, "no member of ours has this name"),
        };
        if self.stage != from || !is_file(header) {
            self.differs_at(&header.path, "a member of ours where none belongs");
        }
        self.stage = to;
    }

    /// Compares the member that waited, as no other takes its place.
    fn settle(&mut self) {
        let Some(member) = self.pending.take() else { return };
        while !self.is_over {
            let Some(entry) = self.entry() else { break };
            let order = cmp_paths(&entry.path, &member.header.path);
            if order.is_gt() {
                break;
            }
            self.entries.pass();
            if order.is_eq() {
                return self.compare(&entry, &member);
            }
            self.without_member(&entry);
        }
        if !self.is_over {
            self.differs_at(&member.header.path, "the index does not have it, or not there");
        }
    }

    /// An entry of which there is no member.
    fn without_member(&mut self, entry: &Entry) {
        let is_own = entry.path.strip_prefix(self.dot_coord.as_bytes());
        if entry.kind != Kind::Tombstone && is_own.is_some_and(|rest| rest.is_empty() || rest[0] == b'/') {
            return self.differs_at(&entry.path, "it is in the archive's own folder");
        }
        let is_elsewhere = match self.level {
            Level::Full => entry.flags.contains(Flags::UNREAD),
            Level::Differential => {
                entry.kind != Kind::File || entry.digest.is_none() || entry.flags.contains(Flags::CONTENT_IN_BASE)
            }
        };
        if !is_elsewhere {
            self.differs_at(&entry.path, "the tar does not have it");
        }
    }

    fn compare(&mut self, entry: &Entry, member: &Pending) {
        let difference = match &member.header.what {
            What::Link(target) => self.link_difference(entry, target),
            What::Entry(found) => {
                let difference = entry_difference(entry, found, member.place);
                let is_unread = entry.flags.contains(Flags::UNREAD);
                if entry.kind == Kind::File && !is_unread {
                    self.stored.0 += 1;
                    self.stored.1 = self.stored.1.saturating_add(entry.stored_bytes());
                }
                if entry.link_group != 0 && !is_unread {
                    let Entry { path, kind, size, digest, content, .. } = entry;
                    let leader =
                        Leader { path: path.clone(), kind: *kind, size: *size, digest: *digest, content: *content };
                    self.leaders.entry(entry.link_group).or_insert(leader);
                }
                difference
            }
        };
        if let Some(what) = difference {
            self.differs_at(&entry.path, what);
        }
    }

    /// A link leads to the first stored name of its group, or in a differential to a name of the base, which is not at hand.
    fn link_difference(&self, entry: &Entry, target: &[u8]) -> Option<&'static str> {
        match self.leaders.get(&entry.link_group).filter(|_| entry.link_group != 0) {
            Some(leader) if leader.path != target => Some("the tar links it to another name"),
            Some(leader) if leader.kind != entry.kind => Some("the tar links it to something of another kind"),
            Some(leader) if !leader.has_content_of(entry) => Some("the tar links it to another content"),
            Some(_) => None,
            None if self.level == Level::Full || entry.link_group == 0 => Some("it is a hard link in the tar alone"),
            None if entry.kind == Kind::File && !entry.flags.contains(Flags::CONTENT_IN_BASE) => {
                Some("the tar links it to a name of the base, and its content is here")
            }
            None => None,
        }
    }
}

fn is_file(header: &read::Header) -> bool {
    matches!(&header.what, What::Entry(entry) if entry.kind == Kind::File)
}

fn entry_difference(entry: &Entry, found: &Entry, place: (u64, usize)) -> Option<&'static str> {
    if entry.kind != found.kind {
        return Some("the tar has something of another kind");
    }
    // Of a file that could not be read to its end, the tar has what there was.
    let is_unread = entry.flags.contains(Flags::UNREAD);
    if entry.kind == Kind::File && !is_unread {
        if (entry.size, &entry.data_ranges) != (found.size, &found.data_ranges) {
            return Some("the tar has another size or other holes");
        }
        let here = entry.content.map(|content| (content.frame, content.offset as usize));
        let is_in_base = entry.flags.contains(Flags::CONTENT_IN_BASE);
        if is_in_base || (entry.stored_bytes() > 0 && here != Some(place)) {
            return Some("the tar has its content elsewhere");
        }
    }
    if entry.link_target != found.link_target {
        return Some("the tar has another link target");
    }
    if entry.device != found.device {
        return Some("the tar has other device numbers");
    }
    attribute_difference(&entry.attributes, &found.attributes).filter(|_| !is_unread)
}

fn attribute_difference(ours: &Attributes, found: &Attributes) -> Option<&'static str> {
    if ours.mode & 0o7777 != found.mode {
        return Some("the tar has another mode");
    }
    let is_named = |ours: &[u8], found: &[u8]| ours == found || (ours.len() > OWNER_BYTES && ours.starts_with(found));
    if (ours.uid, ours.gid) != (found.uid, found.gid)
        || !is_named(&ours.user, &found.user)
        || !is_named(&ours.group, &found.group)
    {
        return Some("the tar has another owner");
    }
    if ours.mtime != found.mtime {
        return Some("the tar has another time");
    }
    if as_in_tar(&ours.xattrs) != as_in_tar(&found.xattrs) {
        return Some("the tar has other extended attributes");
    }
    None
}

/// Extended attributes with ACLs as they come back from their text.
fn as_in_tar(xattrs: &[Xattr]) -> Vec<Xattr> {
    let mut all: Vec<Xattr> = xattrs
        .iter()
        .map(|xattr| {
            let is_acl = matches!(xattr.name.as_slice(), b"system.posix_acl_access" | b"system.posix_acl_default");
            let text = is_acl.then(|| acl::to_text(&xattr.value)).flatten();
            let value = text.and_then(|text| acl::from_text(text.as_bytes()));
            Xattr { name: xattr.name.clone(), value: value.unwrap_or_else(|| xattr.value.clone()) }
        })
        .collect();
    all.sort();
    all
}
