//! A quick look at the entries of an index block: what a scan compares, without an [`Entry`] for each.
//!
//! A scan that finds nothing changed asks every entry the same few questions. Here they are answered from the block's
//! bytes, with no memory of their own; [`Glances::entry`] decodes the one entry that needs more. Trusts the bytes no more
//! than `block` does: paths ascend, numbers are in range, or it is an error.

use crate::block::{self, BlockError, Previous, field};
use crate::cursor::{Cursor, Malformed};
use crate::entry::{ContentRef, Entry, FileTime, Flags, Identity, Kind, MAX_PATH_BYTES, cmp_paths};

/// What lstat would have said of an entry, and its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// File, folder and so on.
    pub kind: Kind,
    /// What is special about the record.
    pub flags: Flags,
    /// Size in bytes; 0 for what is no regular file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: FileTime,
    /// Inode and change time.
    pub identity: Identity,
    /// Group of hard links; 0 for none.
    pub link_group: u64,
}

/// Goes through the entries of one raw block in path order.
#[derive(Debug)]
pub struct Glances<'b> {
    records: Cursor<'b>,
    left: usize,
    path: Vec<u8>,
    body: &'b [u8],
    /// Numbers and names of the owner that the next entry may refer to.
    owner: Option<Owner<'b>>,
    content: Option<ContentRef>,
}

#[derive(Clone, Copy, Debug)]
struct Owner<'b> {
    uid: u32,
    gid: u32,
    user: &'b [u8],
    group: &'b [u8],
}

impl<'b> Glances<'b> {
    /// The entries of a raw block.
    ///
    /// # Errors
    /// Its count is impossible.
    pub fn new(raw: &'b [u8]) -> Result<Self, BlockError> {
        let mut records = Cursor::new(raw);
        let left = records.count(block::MIN_RECORD_BYTES)?;
        Ok(Self { records, left, path: Vec::new(), body: &[], owner: None, content: None })
    }

    /// How many entries follow.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Path of the entry that was looked at last.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Looks at the next entry; `None` at the end. After an error nothing here means anything.
    ///
    /// # Errors
    /// The block breaks the format.
    pub fn advance(&mut self) -> Result<Option<Glance>, BlockError> {
        let is_first = self.body.is_empty();
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.body = self.records.bytes()?;
        let mut cursor = Cursor::new(self.body);
        self.step_path(&mut cursor, is_first)?;
        Ok(Some(self.look(&mut cursor)?))
    }

    /// All of the entry that was looked at last.
    ///
    /// # Errors
    /// The block breaks the format.
    pub fn entry(&self) -> Result<Entry, BlockError> {
        // What the entry shares with the one before it, it shares with itself.
        let owner = self.owner.map(|owner| (owner.uid, owner.gid, owner.user.to_vec(), owner.group.to_vec()));
        let mut previous = Previous { path: self.path.clone(), owner, content: self.content };
        Ok(block::decode_entry(self.body, &mut previous)?)
    }

    fn step_path(&mut self, cursor: &mut Cursor<'b>, is_first: bool) -> Result<(), Malformed> {
        let shared = usize::try_from(cursor.u64()?).map_err(|_| Malformed("a path is too long"))?;
        let suffix = cursor.bytes()?;
        let before = self.path.get(shared..).ok_or(Malformed("a path shares more than there is"))?;
        if shared + suffix.len() > MAX_PATH_BYTES {
            return Err(Malformed("a path is too long"));
        }
        // Both go on from the same bytes, so what follows decides.
        if !is_first && cmp_paths(before, suffix).is_ge() {
            return Err(Malformed("paths are not in order"));
        }
        self.path.truncate(shared);
        self.path.extend_from_slice(suffix);
        Ok(())
    }

    fn look(&mut self, cursor: &mut Cursor<'b>) -> Result<Glance, Malformed> {
        let kind = block::kind_from(cursor.byte()?)?;
        let flags = Flags(u16::try_from(cursor.u64()?).map_err(|_| Malformed("flags out of range"))?);
        let fields = cursor.u64()?;
        let has = |bit: u64| fields & bit != 0;
        let (mode, mtime) = (cursor.u32()?, block::decode_time(cursor)?);
        let identity = Identity { inode: cursor.u64()?, ctime: block::decode_time(cursor)? };
        let size = if has(field::SIZE) { cursor.u64()? } else { 0 };
        if has(field::OWNER) {
            let (uid, gid) = (cursor.u32()?, cursor.u32()?);
            self.owner = Some(Owner { uid, gid, user: cursor.bytes()?, group: cursor.bytes()? });
        }
        let owner = self.owner.ok_or(Malformed("the first entry has no owner"))?;
        if has(field::INODE_FLAGS) {
            cursor.u32()?;
        }
        if has(field::XATTRS) {
            for _ in 0..cursor.count(2)? {
                cursor.bytes()?;
                cursor.bytes()?;
            }
        }
        if has(field::LINK_TARGET) {
            cursor.bytes()?;
        }
        if has(field::DEVICE) {
            cursor.u32()?;
            cursor.u32()?;
        }
        let link_group = if has(field::LINK_GROUP) { cursor.u64()? } else { 0 };
        self.pass_content(cursor, fields)?;
        Ok(Glance { kind, flags, size, mode, uid: owner.uid, gid: owner.gid, mtime, identity, link_group })
    }

    /// Only where the content is matters, as the next entry may refer to it.
    fn pass_content(&mut self, cursor: &mut Cursor<'b>, fields: u64) -> Result<(), Malformed> {
        let has = |bit: u64| fields & bit != 0;
        if !has(field::CONTENT) {
            return Ok(());
        }
        if has(field::DATA_RANGES) {
            for _ in 0..cursor.count(2)? {
                cursor.u64()?;
                cursor.u64()?;
            }
        }
        if has(field::DIGEST) {
            cursor.take(32)?;
        }
        if has(field::PIECES) {
            let count = cursor.count(32)?;
            cursor.take(32 * count)?;
        }
        self.content = block::decode_content(cursor, fields, None)?;
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::block::tests::{block, raw};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_glance_sees_what_decoding_sees(entries in block()) {
            let raw = raw(&entries);
            let mut glances = Glances::new(&raw).unwrap();
            for entry in &entries {
                let glance = glances.advance().unwrap().unwrap();
                prop_assert_eq!(glances.path(), &entry.path[..]);
                let attributes = &entry.attributes;
                let seen = (glance.kind, glance.flags, glance.size, glance.identity, glance.link_group);
                prop_assert_eq!(seen, (entry.kind, entry.flags, entry.size, entry.identity, entry.link_group));
                let seen = (glance.mode, glance.uid, glance.gid, glance.mtime);
                prop_assert_eq!(seen, (attributes.mode, attributes.uid, attributes.gid, attributes.mtime));
                prop_assert_eq!(&glances.entry().unwrap(), entry);
            }
            prop_assert_eq!(glances.advance().unwrap(), None);
        }

        #[test]
        fn changed_bytes_never_panic_and_never_break_the_order(
            entries in block(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut raw = raw(&entries);
            for (at, byte) in changes {
                let at = at.index(raw.len());
                raw[at] = byte;
            }
            let Ok(mut glances) = Glances::new(&raw) else { return Ok(()) };
            let mut last: Option<Vec<u8>> = None;
            while let Ok(Some(_)) = glances.advance() {
                prop_assert!(last.is_none_or(|last| cmp_paths(&last, glances.path()).is_lt()));
                last = Some(glances.path().to_vec());
                let _may_fail = glances.entry();
            }
        }
    }
}
