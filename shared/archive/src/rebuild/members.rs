//! Reading the tar members out of the frames that are left.
//!
//! Owns that content is never taken for a header. After a gap nothing says what a frame begins with, and a file in the backup
//! may itself be a tar; so members are read again only from a frame that is members from its first byte to its last, in
//! path order, as this format writes them. A member whose content is torn is known by its name alone.

use std::path::Path;

use super::RebuildError;
use super::layout::Layout;
use super::names::{EntryRuns, EntrySpool, Kept, named};
use crate::digest::{ContentHasher, PIECE_BYTES};
use crate::entry::{DataRange, Entry, Flags, Kind, cmp_paths};
use crate::header::dot_coord_name;
use crate::pack::MAX_FILE_BYTES;
use crate::tar::BLOCK;
use crate::tar::read::{self, What};

/// Longest `RESTORE.txt` that is kept; ours are some 2 KiB.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// What was found.
pub(super) struct Members {
    /// Entries without what only the index says. A link is a file with a link target; a torn file is flagged unread.
    pub(super) entries: EntryRuns,
    pub(super) restore_txt: Option<Kept>,
    pub(super) deleted: Option<Kept>,
    pub(super) attributes_sh: Option<Kept>,
    /// Number of our own folder, as the first member says it.
    pub(super) dot_coord: u32,
}

/// Takes frames in order.
pub(super) struct MemberReader<'a> {
    layout: &'a Layout,
    folder: &'a Path,
    spool: EntrySpool,
    dot_coord: Option<u32>,
    restore_txt: Option<Kept>,
    deleted: Option<Kept>,
    attributes_sh: Option<Kept>,
    /// The member read last: a second one of the same name takes its place.
    pending: Option<Entry>,
    /// Where content of the pending member lies.
    pending_lies: Lies,
    open: Option<Open>,
    is_in_step: bool,
}

/// A member whose content goes on in the next frame.
enum Open {
    File(Box<OpenFile>),
    Own { which: Own, left: u64 },
}

struct OpenFile {
    entry: Entry,
    content: Hashing,
    left: u64,
}

/// Where the content of a member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lies {
    /// In the frame of its header, if there is any.
    WithHeader,
    /// In the frames behind it.
    Behind,
}

/// Our own members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    RestoreTxt,
    Deleted,
    AttributesSh,
    Index,
}

impl<'a> MemberReader<'a> {
    /// `dot_coord` is the number of our own folder, if a header says it.
    pub(super) fn new(layout: &'a Layout, folder: &'a Path, dot_coord: Option<u32>) -> Result<Self, RebuildError> {
        Ok(Self {
            layout,
            folder,
            spool: EntrySpool::new(folder)?,
            dot_coord,
            restore_txt: None,
            deleted: None,
            attributes_sh: None,
            pending: None,
            pending_lies: Lies::WithHeader,
            open: None,
            is_in_step: true,
        })
    }

    /// Takes what the frame of that number holds.
    pub(super) fn frame(&mut self, number: u64, raw: &[u8]) -> Result<(), RebuildError> {
        if self.layout.slot(number).is_none_or(|slot| !slot.follows) {
            self.tear()?;
        }
        let mut at = 0;
        match self.open.take() {
            Some(Open::File(file)) => match self.go_on(file, number, raw)? {
                Some(consumed) => at = consumed,
                None => return Ok(()),
            },
            Some(Open::Own { which, left }) => match self.own_goes_on(which, left, raw)? {
                Some(consumed) => at = consumed,
                None => return Ok(()),
            },
            None => {}
        }
        if !self.is_in_step {
            if at != 0 || !is_all_members(raw) {
                return Ok(());
            }
            self.is_in_step = true;
        }
        while at < raw.len() {
            let Some((header, length)) = read::parse(&raw[at..]) else {
                self.step_lost()?;
                return Ok(());
            };
            at = self.member(header, number, raw, at + length)?;
        }
        Ok(())
    }

    /// A frame is gone here.
    pub(super) fn tear(&mut self) -> Result<(), RebuildError> {
        if let Some(Open::File(file)) = self.open.take() {
            self.put(torn(file.entry), Lies::Behind)?;
        }
        self.is_in_step = false;
        Ok(())
    }

    /// What follows a member is no member: if its content came from other frames, these were not its own.
    fn step_lost(&mut self) -> Result<(), RebuildError> {
        self.is_in_step = false;
        if self.pending_lies == Lies::Behind
            && let Some(entry) = self.pending.take()
        {
            self.put(torn(entry), Lies::Behind)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Members, RebuildError> {
        self.tear()?;
        if let Some(entry) = self.pending.take() {
            self.spool.push(&entry)?;
        }
        Ok(Members {
            entries: self.spool.finish()?,
            restore_txt: self.restore_txt,
            deleted: self.deleted,
            attributes_sh: self.attributes_sh,
            dot_coord: self.dot_coord.unwrap_or(0),
        })
    }

    fn put(&mut self, entry: Entry, lies: Lies) -> Result<(), RebuildError> {
        if let Some(before) = self.pending.take().filter(|before| before.path != entry.path) {
            self.spool.push(&before)?;
        }
        self.pending = Some(entry);
        self.pending_lies = lies;
        Ok(())
    }

    /// Deals with a member whose content would begin at `at`; gives where the next one begins.
    fn member(&mut self, header: read::Header, number: u64, raw: &[u8], at: usize) -> Result<usize, RebuildError> {
        if let Some(which) = self.own(&header.path) {
            return self.begin_own(which, header.content_length, raw, at);
        }
        match header.what {
            What::Link(target) => {
                self.put(link(header.path, target), Lies::WithHeader)?;
                Ok(at)
            }
            What::Entry(entry) if entry.kind == Kind::File => {
                self.begin_file(*entry, header.content_length, (number, at), raw)
            }
            What::Entry(entry) => {
                self.put(*entry, Lies::WithHeader)?;
                Ok(at)
            }
        }
    }

    fn begin_file(
        &mut self,
        mut entry: Entry,
        length: u64,
        (number, at): (u64, usize),
        raw: &[u8],
    ) -> Result<usize, RebuildError> {
        if entry.size > MAX_FILE_BYTES {
            self.put(torn(entry), Lies::WithHeader)?;
            self.is_in_step = false;
            return Ok(raw.len());
        }
        let mut content = Hashing::new(&entry);
        if length > PIECE_BYTES && at == raw.len() {
            self.open = Some(Open::File(Box::new(OpenFile { entry, content, left: length })));
            return Ok(at);
        }
        // A small file lies in the frame of its header.
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length)).unwrap_or(usize::MAX);
        let Some(bytes) = raw.get(at..end).filter(|_| length <= PIECE_BYTES) else {
            self.put(torn(entry), Lies::WithHeader)?;
            self.is_in_step = false;
            return Ok(raw.len());
        };
        content.update(bytes);
        content.finish(&mut entry);
        if length > 0 {
            // Bounded by the frame's length.
            entry.content = self.layout.refer(number, at as u32);
        }
        self.put(entry, Lies::WithHeader)?;
        Ok(end.next_multiple_of(BLOCK))
    }

    /// A large file in another frame than its header's: its pieces are 2 MiB each, one at the beginning of each frame. Gives
    /// where in this frame it ends, or `None` when all of the frame is used up.
    fn go_on(&mut self, mut file: Box<OpenFile>, number: u64, raw: &[u8]) -> Result<Option<usize>, RebuildError> {
        let padded = file.left.next_multiple_of(BLOCK as u64);
        let is_its_own =
            if file.left < PIECE_BYTES { raw.len() as u64 >= padded } else { raw.len() as u64 == PIECE_BYTES };
        if !is_its_own {
            self.put(torn(file.entry), Lies::Behind)?;
            self.is_in_step = false;
            return Ok(Some(0));
        }
        if file.entry.content.is_none() {
            file.entry.content = self.layout.refer(number, 0);
        }
        // Bounded by a piece.
        let take = file.left.min(PIECE_BYTES) as usize;
        file.content.update(&raw[..take]);
        file.left -= take as u64;
        if file.left > 0 {
            self.open = Some(Open::File(file));
            return Ok(None);
        }
        let OpenFile { mut entry, content, .. } = *file;
        content.finish(&mut entry);
        self.put(entry, Lies::Behind)?;
        Ok(Some(take.next_multiple_of(BLOCK)))
    }

    /// Which of our own members this is.
    fn own(&mut self, path: &[u8]) -> Option<Own> {
        let slash = path.iter().position(|byte| *byte == b'/')?;
        let which = match &path[slash + 1..] {
            b"RESTORE.txt" => Own::RestoreTxt,
            b"deleted" => Own::Deleted,
            b"attributes.sh" => Own::AttributesSh,
            b"index" => Own::Index,
            _ => return None,
        };
        if self.dot_coord.is_none() && which == Own::RestoreTxt && self.pending.is_none() {
            self.dot_coord = dot_coord(&path[..slash]);
        }
        (path[..slash] == *dot_coord_name(self.dot_coord.unwrap_or(0)).as_bytes()).then_some(which)
    }

    fn begin_own(&mut self, which: Own, length: u64, raw: &[u8], at: usize) -> Result<usize, RebuildError> {
        let kept = match which {
            Own::RestoreTxt if length <= MAX_TEXT_BYTES => &mut self.restore_txt,
            Own::Deleted => &mut self.deleted,
            Own::AttributesSh => &mut self.attributes_sh,
            Own::RestoreTxt | Own::Index => {
                self.is_in_step = false;
                return Ok(raw.len());
            }
        };
        *kept = Some(Kept::new(self.folder)?);
        let consumed = self.own_goes_on(which, length, &raw[at..])?;
        Ok(consumed.map_or(raw.len(), |consumed| at + consumed))
    }

    fn own_goes_on(&mut self, which: Own, left: u64, raw: &[u8]) -> Result<Option<usize>, RebuildError> {
        let kept = match which {
            Own::RestoreTxt => &mut self.restore_txt,
            Own::Deleted => &mut self.deleted,
            Own::AttributesSh => &mut self.attributes_sh,
            Own::Index => return Ok(None),
        };
        let Some(kept) = kept else { return Ok(None) };
        let take = usize::try_from(left).map_or(raw.len(), |left| left.min(raw.len()));
        kept.push(&raw[..take])?;
        let left = left - take as u64;
        kept.is_whole = left == 0;
        if left > 0 {
            self.open = Some(Open::Own { which, left });
            return Ok(None);
        }
        Ok(Some(take.next_multiple_of(BLOCK)))
    }
}

/// The number in the name of our own folder.
fn dot_coord(name: &[u8]) -> Option<u32> {
    match name.strip_prefix(b".coord")? {
        b"" => Some(0),
        rest => std::str::from_utf8(rest.strip_prefix(b".")?).ok()?.parse().ok(),
    }
}

/// A link member waits as a file with a link target; no entry is such a thing.
fn link(path: Vec<u8>, target: Vec<u8>) -> Entry {
    Entry { link_target: target, ..named(path, Kind::File) }
}

/// What is left of a file without its content: what lstat would say.
pub(super) fn torn(mut entry: Entry) -> Entry {
    entry.flags = entry.flags.with(Flags::UNREAD);
    entry.data_ranges = None;
    entry.digest = None;
    entry.pieces = Vec::new();
    entry.content = None;
    entry
}

/// Whether a frame is nothing but members, in path order; a large file's header, or a member of our own that goes on behind
/// it, may be the last thing in it.
fn is_all_members(raw: &[u8]) -> bool {
    let mut at = 0;
    let mut last: Option<Vec<u8>> = None;
    while at < raw.len() {
        let Some((header, length)) = read::parse(&raw[at..]) else { return false };
        let is_own = header.path.starts_with(b".coord");
        if !is_own && last.as_ref().is_some_and(|last| cmp_paths(last, &header.path).is_gt()) {
            return false;
        }
        at += length;
        let is_large = header.content_length > PIECE_BYTES && at == raw.len();
        if is_large || (is_own && header.content_length > (raw.len() - at) as u64) {
            return true;
        }
        let content = usize::try_from(header.content_length).unwrap_or(usize::MAX);
        at = at.saturating_add(content).checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
        if !is_own {
            last = Some(header.path);
        }
    }
    at == raw.len()
}

/// The digest of a content that comes range after range.
struct Hashing {
    hasher: ContentHasher,
    ranges: std::vec::IntoIter<DataRange>,
    /// What is left of the range at hand.
    left: u64,
    at: u64,
    size: u64,
}

impl Hashing {
    fn new(entry: &Entry) -> Self {
        let whole = vec![DataRange { offset: 0, length: entry.size }];
        let ranges = entry.data_ranges.clone().unwrap_or(whole).into_iter();
        Self { hasher: ContentHasher::new(), ranges, left: 0, at: 0, size: entry.size }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let Some(range) = self.ranges.next() else { return };
                self.hasher.update_zeros(range.offset - self.at);
                (self.at, self.left) = (range.offset, range.length);
                continue;
            }
            let take = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.hasher.update(&bytes[..take]);
            self.at += take as u64;
            self.left -= take as u64;
            bytes = &bytes[take..];
        }
    }

    fn finish(mut self, entry: &mut Entry) {
        self.hasher.update_zeros(self.size - self.at);
        let found = self.hasher.finish();
        (entry.digest, entry.pieces) = (Some(found.digest), found.pieces);
    }
}
