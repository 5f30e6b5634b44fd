//! Blocks of the index: some thousand entries in path order, prefix-compressed.
//!
//! A block stands alone: it can be decoded without any other. Each entry carries its own length, so that later versions
//! may append fields which this one passes over. Decoding trusts nothing: paths must be clean and ascending, numbers in
//! range; whatever is wrong is an error, never a panic and never a large allocation.

use crate::codec::{Codec, CodecError, Compressor, Decompressor, MAX_FRAME_BYTES};
use crate::cursor::{Cursor, Malformed, pad_to_block, put_bytes, put_i64, put_u64};
use crate::digest::Digest;
use crate::entry::{
    Attributes, ContentRef, DataRange, Entry, FileTime, Flags, Identity, Kind, MAX_PATH_BYTES, Xattr, cmp_paths,
    is_clean_path,
};

/// Raw length at which a block is closed.
pub(crate) const BLOCK_BYTES: usize = 96 << 10;
/// Bytes of paths and owners, as they are in memory, at which a block is closed: in a folder of a very long path, each entry has all of it.
const BLOCK_TEXT_BYTES: usize = 16 << 20;
/// An entry takes at least a dozen bytes: the lengths, kind, flags, mode and times.
pub(crate) const MIN_RECORD_BYTES: usize = 12;

/// Fields that follow the fixed ones of an entry, in this order. Bits above these belong to later versions, whose fields
/// come after all of these.
pub(crate) mod field {
    pub(crate) const SIZE: u64 = 1;
    pub(crate) const OWNER: u64 = 1 << 1;
    pub(crate) const INODE_FLAGS: u64 = 1 << 2;
    pub(crate) const XATTRS: u64 = 1 << 3;
    pub(crate) const LINK_TARGET: u64 = 1 << 4;
    pub(crate) const DEVICE: u64 = 1 << 5;
    pub(crate) const LINK_GROUP: u64 = 1 << 6;
    pub(crate) const DATA_RANGES: u64 = 1 << 7;
    pub(crate) const DIGEST: u64 = 1 << 8;
    pub(crate) const PIECES: u64 = 1 << 9;
    pub(crate) const CONTENT: u64 = 1 << 10;
    pub(crate) const CONTENT_NEAR: u64 = 1 << 11;
}

/// Why stored bytes are not a block.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// They do not decompress.
    #[error("an index block does not decompress")]
    Codec(#[source] CodecError),
    /// They decompress to something that breaks the format.
    #[error("an index block is malformed: {0}")]
    Malformed(&'static str),
}

impl From<Malformed> for BlockError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

/// What one block may grow to when it is decoded. What an entry shares with the one before, a path's beginning or an owner's name,
/// takes a few bytes in the block and all of its length in memory: small blocks can be made that no memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the block.
    pub entries: usize,
    /// Bytes of all their paths and owners, and of what their attributes and data ranges take besides.
    pub text_bytes: usize,
}

/// Most extended attributes, and data ranges, of one entry. Linux lists 64 KiB of names; a packer keeps half as many ranges.
const MAX_XATTRS: usize = 16 << 10;
const MAX_RANGES: usize = 64 << 10;
/// What a reader lets a block grow to: none of ours, closed at [`BLOCK_BYTES`] or [`BLOCK_TEXT_BYTES`], comes near.
const READ_LIMITS: Limits = Limits { entries: 64 << 10, text_bytes: 64 << 20 };

/// Decodes one stored block, as [`crate::reader::ArchiveReader::stored_block`] gives it, that may come from anybody.
pub fn decode_stored(codec: Codec, stored: &[u8], limits: Limits) -> Result<Vec<Entry>, BlockError> {
    let mut raw = Vec::new();
    let mut decompressor = Decompressor::new(codec).map_err(BlockError::Codec)?;
    decompressor.decompress(stored, MAX_FRAME_BYTES, &mut raw).map_err(BlockError::Codec)?;
    decode_within(&raw, limits)
}

/// Encodes one block as it is stored, out of entries in path order, for programs that make an index without an archive. How many entries
/// a block has is the caller's choice; `level` is the codec's.
pub fn encode_stored(codec: Codec, level: i32, entries: &[Entry]) -> Result<Vec<u8>, CodecError> {
    let mut block = BlockBuilder::default();
    entries.iter().for_each(|entry| block.push(entry));
    let mut stored = Vec::new();
    if let Some(block) = block.take() {
        Compressor::new(codec, level)?.compress(&block.raw, &mut stored)?;
    }
    Ok(stored)
}

/// Appends one entry in a form that needs no other, for temporary files; [`decode_one`] reads it.
pub fn encode_one(entry: &Entry, out: &mut Vec<u8>) {
    encode_entry(entry, &mut Previous::default(), out);
}

/// The entry that [`encode_one`] wrote.
pub fn decode_one(bytes: &[u8]) -> Result<Entry, BlockError> {
    Ok(decode_entry(bytes, &mut Previous::default())?)
}

/// Collects entries into the raw form of a block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    records: Vec<u8>,
    scratch: Vec<u8>,
    count: u64,
    text_bytes: usize,
    first_path: Vec<u8>,
    previous: Previous,
}

/// What an entry may refer back to within its block.
#[derive(Debug, Default)]
pub(crate) struct Previous {
    pub(crate) path: Vec<u8>,
    pub(crate) owner: Option<(u32, u32, Vec<u8>, Vec<u8>)>,
    pub(crate) content: Option<ContentRef>,
}

/// A block ready to be compressed.
#[derive(Debug)]
pub(crate) struct RawBlock {
    pub(crate) first_path: Vec<u8>,
    pub(crate) entries: u64,
    pub(crate) raw: Vec<u8>,
}

impl BlockBuilder {
    /// Adds the next entry; its path must come after the last one's.
    pub(crate) fn push(&mut self, entry: &Entry) {
        if self.count == 0 {
            self.first_path.clone_from(&entry.path);
        }
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        encode_entry(entry, &mut self.previous, &mut body);
        put_bytes(&mut self.records, &body);
        self.scratch = body;
        self.count += 1;
        self.text_bytes += entry.path.len() + entry.attributes.user.len() + entry.attributes.group.len();
    }

    /// Whether the block should be closed.
    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= BLOCK_BYTES || self.text_bytes >= BLOCK_TEXT_BYTES
    }

    /// Closes the block and begins the next; `None` if nothing was added.
    pub(crate) fn take(&mut self) -> Option<RawBlock> {
        if self.count == 0 {
            return None;
        }
        let mut raw = Vec::with_capacity(self.records.len() + 512);
        put_u64(&mut raw, self.count);
        raw.append(&mut self.records);
        pad_to_block(&mut raw);
        let block = RawBlock { first_path: std::mem::take(&mut self.first_path), entries: self.count, raw };
        (self.count, self.text_bytes) = (0, 0);
        self.previous = Previous::default();
        Some(block)
    }
}

fn encode_entry(entry: &Entry, previous: &mut Previous, out: &mut Vec<u8>) {
    let shared = entry.path.iter().zip(&previous.path).take_while(|(a, b)| a == b).count();
    put_u64(out, shared as u64);
    put_bytes(out, &entry.path[shared..]);
    out.push(entry.kind as u8);
    put_u64(out, u64::from(entry.flags.0));
    let fields = fields_of(entry, previous);
    put_u64(out, fields);
    let attributes = &entry.attributes;
    put_u64(out, u64::from(attributes.mode));
    put_time(out, attributes.mtime);
    put_u64(out, entry.identity.inode);
    put_time(out, entry.identity.ctime);
    encode_fields(entry, fields, out);
    previous.path.clone_from(&entry.path);
    if fields & field::OWNER != 0 {
        previous.owner = Some((attributes.uid, attributes.gid, attributes.user.clone(), attributes.group.clone()));
    }
    if entry.content.is_some() {
        previous.content = entry.content;
    }
}

fn fields_of(entry: &Entry, previous: &Previous) -> u64 {
    let attributes = &entry.attributes;
    let same_owner = previous.owner.as_ref().is_some_and(|(uid, gid, user, group)| {
        (*uid, *gid) == (attributes.uid, attributes.gid) && *user == attributes.user && *group == attributes.group
    });
    let near = match (previous.content, entry.content) {
        (Some(a), Some(b)) => (a.frame, a.frame_offset, a.frame_length) == (b.frame, b.frame_offset, b.frame_length),
        (None | Some(_), None) | (None, Some(_)) => false,
    };
    let present = [
        (entry.size != 0, field::SIZE),
        (!same_owner, field::OWNER),
        (attributes.inode_flags != 0, field::INODE_FLAGS),
        (!attributes.xattrs.is_empty(), field::XATTRS),
        (!entry.link_target.is_empty(), field::LINK_TARGET),
        (entry.device != (0, 0), field::DEVICE),
        (entry.link_group != 0, field::LINK_GROUP),
        (entry.data_ranges.is_some(), field::DATA_RANGES),
        (entry.digest.is_some(), field::DIGEST),
        (!entry.pieces.is_empty(), field::PIECES),
        (entry.content.is_some() && !near, field::CONTENT),
        (near, field::CONTENT_NEAR),
    ];
    present.iter().filter(|(is_there, _)| *is_there).map(|(_, bit)| bit).sum()
}

fn encode_fields(entry: &Entry, fields: u64, out: &mut Vec<u8>) {
    let attributes = &entry.attributes;
    let has = |bit: u64| fields & bit != 0;
    if has(field::SIZE) {
        put_u64(out, entry.size);
    }
    if has(field::OWNER) {
        put_u64(out, u64::from(attributes.uid));
        put_u64(out, u64::from(attributes.gid));
        put_bytes(out, &attributes.user);
        put_bytes(out, &attributes.group);
    }
    if has(field::INODE_FLAGS) {
        put_u64(out, u64::from(attributes.inode_flags));
    }
    if has(field::XATTRS) {
        put_u64(out, attributes.xattrs.len() as u64);
        for xattr in &attributes.xattrs {
            put_bytes(out, &xattr.name);
            put_bytes(out, &xattr.value);
        }
    }
    if has(field::LINK_TARGET) {
        put_bytes(out, &entry.link_target);
    }
    if has(field::DEVICE) {
        put_u64(out, u64::from(entry.device.0));
        put_u64(out, u64::from(entry.device.1));
    }
    if has(field::LINK_GROUP) {
        put_u64(out, entry.link_group);
    }
    if let Some(ranges) = &entry.data_ranges {
        put_u64(out, ranges.len() as u64);
        let mut end = 0;
        for range in ranges {
            put_u64(out, range.offset - end);
            put_u64(out, range.length);
            end = range.offset + range.length;
        }
    }
    if let Some(digest) = &entry.digest {
        out.extend(digest.0);
    }
    if has(field::PIECES) {
        put_u64(out, entry.pieces.len() as u64);
        entry.pieces.iter().for_each(|piece| out.extend(piece.0));
    }
    if let Some(content) = &entry.content {
        if has(field::CONTENT) {
            put_u64(out, content.frame);
            put_u64(out, content.frame_offset);
            put_u64(out, u64::from(content.frame_length));
        }
        put_u64(out, u64::from(content.offset));
    }
}

fn put_time(out: &mut Vec<u8>, time: FileTime) {
    put_i64(out, time.seconds);
    put_u64(out, u64::from(time.nanos));
}

/// Decodes a raw block.
pub(crate) fn decode(raw: &[u8]) -> Result<Vec<Entry>, BlockError> {
    decode_within(raw, READ_LIMITS)
}

fn decode_within(raw: &[u8], limits: Limits) -> Result<Vec<Entry>, BlockError> {
    let mut cursor = Cursor::new(raw);
    let count = cursor.count(MIN_RECORD_BYTES)?;
    if count > limits.entries {
        return Err(BlockError::Malformed("it has too many entries"));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    let mut previous = Previous::default();
    let mut text_bytes = 0usize;
    for _ in 0..count {
        let entry = decode_entry(cursor.bytes()?, &mut previous)?;
        text_bytes = text_bytes.saturating_add(unfolded_bytes(&entry));
        if text_bytes > limits.text_bytes {
            return Err(BlockError::Malformed("its entries are too large together"));
        }
        if entries.last().is_some_and(|last| cmp_paths(&last.path, &entry.path).is_ge()) {
            return Err(BlockError::Malformed("paths are not in order"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// What an entry takes in memory besides its fixed part, as far as that is more than it takes in the block.
fn unfolded_bytes(entry: &Entry) -> usize {
    let Attributes { user, group, xattrs, .. } = &entry.attributes;
    let ranges = entry.data_ranges.as_ref().map_or(0, Vec::len);
    entry.path.len() + user.len() + group.len() + size_of_val(xattrs.as_slice()) + ranges * size_of::<DataRange>()
}

pub(crate) fn decode_entry(body: &[u8], previous: &mut Previous) -> Result<Entry, Malformed> {
    let mut cursor = Cursor::new(body);
    let path = decode_path(&mut cursor, &previous.path)?;
    let kind = kind_from(cursor.byte()?)?;
    let flags = u16::try_from(cursor.u64()?).map_err(|_| Malformed("flags out of range"))?;
    let fields = cursor.u64()?;
    let mut entry = Entry {
        path,
        kind,
        flags: Flags(flags),
        size: 0,
        attributes: Attributes { mode: cursor.u32()?, mtime: decode_time(&mut cursor)?, ..Attributes::default() },
        identity: Identity { inode: cursor.u64()?, ctime: decode_time(&mut cursor)? },
        link_target: Vec::new(),
        device: (0, 0),
        link_group: 0,
        data_ranges: None,
        digest: None,
        pieces: Vec::new(),
        content: None,
    };
    decode_fields(&mut cursor, fields, &mut entry, previous)?;
    previous.path.clone_from(&entry.path);
    Ok(entry)
}

fn decode_path(cursor: &mut Cursor<'_>, previous: &[u8]) -> Result<Vec<u8>, Malformed> {
    let shared = usize::try_from(cursor.u64()?).map_err(|_| Malformed("a path is too long"))?;
    let prefix = previous.get(..shared).ok_or(Malformed("a path shares more than there is"))?;
    let suffix = cursor.bytes()?;
    if prefix.len() + suffix.len() > MAX_PATH_BYTES {
        return Err(Malformed("a path is too long"));
    }
    let path = [prefix, suffix].concat();
    if is_clean_path(&path) { Ok(path) } else { Err(Malformed("a path is not clean")) }
}

pub(crate) fn kind_from(number: u8) -> Result<Kind, Malformed> {
    Ok(match number {
        1 => Kind::File,
        2 => Kind::Folder,
        3 => Kind::Symlink,
        4 => Kind::Fifo,
        5 => Kind::CharDevice,
        6 => Kind::BlockDevice,
        7 => Kind::Tombstone,
        _ => return Err(Malformed("an unknown kind")),
    })
}

pub(crate) fn decode_time(cursor: &mut Cursor<'_>) -> Result<FileTime, Malformed> {
    let seconds = cursor.i64()?;
    let nanos = cursor.u32()?;
    if nanos > 999_999_999 {
        return Err(Malformed("a time out of range"));
    }
    Ok(FileTime { seconds, nanos })
}

fn decode_fields(
    cursor: &mut Cursor<'_>,
    fields: u64,
    entry: &mut Entry,
    previous: &mut Previous,
) -> Result<(), Malformed> {
    let has = |bit: u64| fields & bit != 0;
    if has(field::SIZE) {
        entry.size = cursor.u64()?;
    }
    if has(field::OWNER) {
        let owner = (cursor.u32()?, cursor.u32()?, cursor.bytes()?.to_vec(), cursor.bytes()?.to_vec());
        previous.owner = Some(owner);
    }
    let attributes = &mut entry.attributes;
    (attributes.uid, attributes.gid, attributes.user, attributes.group) =
        previous.owner.clone().ok_or(Malformed("the first entry has no owner"))?;
    if has(field::INODE_FLAGS) {
        attributes.inode_flags = cursor.u32()?;
    }
    if has(field::XATTRS) {
        for _ in 0..at_most(MAX_XATTRS, cursor.count(2)?)? {
            let xattr = Xattr { name: cursor.bytes()?.to_vec(), value: cursor.bytes()?.to_vec() };
            attributes.xattrs.push(xattr);
        }
    }
    if has(field::LINK_TARGET) {
        entry.link_target = cursor.bytes()?.to_vec();
    }
    if has(field::DEVICE) {
        entry.device = (cursor.u32()?, cursor.u32()?);
    }
    if has(field::LINK_GROUP) {
        entry.link_group = cursor.u64()?;
    }
    if has(field::DATA_RANGES) {
        entry.data_ranges = Some(decode_ranges(cursor, entry.size)?);
    }
    if has(field::DIGEST) {
        entry.digest = Some(cursor.digest()?);
    }
    if has(field::PIECES) {
        for _ in 0..cursor.count(32)? {
            entry.pieces.push(cursor.digest()?);
        }
    }
    entry.content = decode_content(cursor, fields, previous.content)?;
    if entry.content.is_some() {
        previous.content = entry.content;
    }
    Ok(())
}

fn at_most(limit: usize, count: usize) -> Result<usize, Malformed> {
    if count <= limit { Ok(count) } else { Err(Malformed("an entry has more parts than any file")) }
}

fn decode_ranges(cursor: &mut Cursor<'_>, size: u64) -> Result<Vec<DataRange>, Malformed> {
    let count = at_most(MAX_RANGES, cursor.count(2)?)?;
    let mut ranges = Vec::with_capacity(count);
    let mut end = 0_u64;
    for _ in 0..count {
        let offset = end.checked_add(cursor.u64()?).ok_or(Malformed("a hole is too large"))?;
        let length = cursor.u64()?;
        end = offset.checked_add(length).ok_or(Malformed("a data range is too large"))?;
        if length == 0 || end > size {
            return Err(Malformed("a data range is empty or beyond the end"));
        }
        ranges.push(DataRange { offset, length });
    }
    Ok(ranges)
}

pub(crate) fn decode_content(
    cursor: &mut Cursor<'_>,
    fields: u64,
    previous: Option<ContentRef>,
) -> Result<Option<ContentRef>, Malformed> {
    let mut content = if fields & field::CONTENT != 0 {
        ContentRef { frame: cursor.u64()?, frame_offset: cursor.u64()?, frame_length: cursor.u32()?, offset: 0 }
    } else if fields & field::CONTENT_NEAR != 0 {
        previous.ok_or(Malformed("content near nothing"))?
    } else {
        return Ok(None);
    };
    content.offset = cursor.u32()?;
    Ok(Some(content))
}

/// The digest under which a block, chunk or frame is listed: BLAKE3 of its stored bytes.
pub(crate) fn stored_digest(stored: &[u8]) -> Digest {
    Digest::of(stored)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests;
