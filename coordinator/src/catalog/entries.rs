//! What the catalog keeps of an entry, and how it is made from what an index says.
//!
//! Invariant: two entries have the same `state` number exactly if a restore would make the same of both and both carry the same
//! flags; where the content lies, and what only serves the next scan, is no part of it.

use coord_archive::digest::Digest;
use coord_archive::entry::{Entry, FileTime, Flags, Kind, parent};
use coord_shared::ids::Seq;
use tokio_postgres::Row;

use super::error::{CatalogError, Result};
use super::row::{count, get};
use super::short_digest::ShortDigest;

/// Longest name of an entry. File systems stop at 255; a key of the catalog would stop at some 2,700.
pub const MAX_NAME_BYTES: usize = 1024;
/// Longest path of an entry, and longest target of a symbolic link.
pub const MAX_PATH_BYTES: usize = 64 << 10;
/// Most names in a path: as many as fit into the 4,096 bytes of a path that Linux takes in one call. A folder's key is found name by
/// name, so what lies deeper is backed up and restored, and not searchable.
pub const MAX_DEPTH: usize = 2048;
/// `last_seq` of a state that is current.
pub(super) const CURRENT: i32 = i32::MAX;

/// What kind of thing a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VersionKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// One state of one path in one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileVersion {
    /// Relative to the recorded root; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: VersionKind,
    /// Size of a regular file in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time.
    pub mtime: FileTime,
    /// Digest of the content, where there is one.
    pub digest: Option<ShortDigest>,
    /// Target of a symbolic link.
    pub link_target: Vec<u8>,
    /// Equal exactly where a restore would make the same of both and both carry the same flags.
    pub state: i64,
    /// The entry's flags. Whether the content is in the base is asked with [`FileVersion::content_in_full`].
    pub flags: Flags,
    /// The first backup that has this state.
    pub first_seq: Seq,
    /// The last one; `None` while it is current.
    pub last_seq: Option<Seq>,
}

impl FileVersion {
    /// Where the content of this state is, seen from a backup that stands on the full with this seq: true for the full's archive,
    /// false for the differential's own. For a full, `full` is its own seq.
    pub fn content_in_full(&self, full: Seq) -> bool {
        self.first_seq <= full || self.flags.contains(Flags::CONTENT_IN_BASE)
    }
}

impl VersionKind {
    /// Every kind, for the CHECK list.
    pub const ALL: [VersionKind; 6] = [
        VersionKind::File,
        VersionKind::Folder,
        VersionKind::Symlink,
        VersionKind::Fifo,
        VersionKind::CharDevice,
        VersionKind::BlockDevice,
    ];

    /// The letter in SQL.
    pub const fn letter(self) -> u8 {
        match self {
            VersionKind::File => b'f',
            VersionKind::Folder => b'd',
            VersionKind::Symlink => b'l',
            VersionKind::Fifo => b'p',
            VersionKind::CharDevice => b'c',
            VersionKind::BlockDevice => b'b',
        }
    }

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            VersionKind::File => "file",
            VersionKind::Folder => "folder",
            VersionKind::Symlink => "symlink",
            VersionKind::Fifo => "fifo",
            VersionKind::CharDevice => "char_device",
            VersionKind::BlockDevice => "block_device",
        }
    }
}

/// The letter of a staged tombstone.
const TOMBSTONE: u8 = b't';

/// Flags of an index that are part of the state.
const STATE_FLAGS: Flags = Flags(Flags::CHANGED_WHILE_READ.0 | Flags::STALE.0 | Flags::UNREAD.0 | Flags::ANCESTOR.0);
/// Flags that are stored.
const STORED_FLAGS: Flags = Flags(STATE_FLAGS.0 | Flags::CONTENT_IN_BASE.0);

/// The columns of an entry that came from outside, but for its name, its link target and its folder's key.
#[derive(Debug)]
pub(super) struct EntryColumns {
    pub(super) kind: i8,
    pub(super) size: i64,
    pub(super) mtime_s: i64,
    pub(super) mtime_ns: i32,
    pub(super) uid: i32,
    pub(super) gid: i32,
    pub(super) mode: i16,
    pub(super) flags: i16,
    pub(super) state: i64,
    pub(super) digest_head: i64,
    pub(super) digest_tail: i64,
}

impl EntryColumns {
    /// Checks an entry and turns it into columns.
    pub(super) fn new(entry: &Entry) -> Result<EntryColumns> {
        check(entry)?;
        let attributes = &entry.attributes;
        let (head, tail) = entry.digest.as_ref().map_or((0, 0), |digest| ShortDigest::from(digest).columns());
        Ok(EntryColumns {
            kind: letter(entry.kind).cast_signed(),
            size: i64::try_from(entry.size).map_err(|_| CatalogError::BadEntry { why: "its size is out of range" })?,
            mtime_s: attributes.mtime.seconds,
            mtime_ns: attributes.mtime.nanos.cast_signed(),
            uid: attributes.uid.cast_signed(),
            gid: attributes.gid.cast_signed(),
            mode: i16::try_from(attributes.mode & 0o7777).unwrap_or_default(),
            flags: (entry.flags.0 & STORED_FLAGS.0).cast_signed(),
            state: state(entry),
            digest_head: head,
            digest_tail: tail,
        })
    }

    /// It says that there is nothing any more.
    pub(super) const fn is_tombstone(&self) -> bool {
        self.kind.cast_unsigned() == TOMBSTONE
    }
}

/// The last name of a path; the root's is empty.
pub(super) fn name(path: &[u8]) -> &[u8] {
    match parent(path) {
        None | Some([]) => path,
        Some(parent) => &path[parent.len() + 1..],
    }
}

const fn letter(kind: Kind) -> u8 {
    match kind {
        Kind::File => VersionKind::File.letter(),
        Kind::Folder => VersionKind::Folder.letter(),
        Kind::Symlink => VersionKind::Symlink.letter(),
        Kind::Fifo => VersionKind::Fifo.letter(),
        Kind::CharDevice => VersionKind::CharDevice.letter(),
        Kind::BlockDevice => VersionKind::BlockDevice.letter(),
        Kind::Tombstone => TOMBSTONE,
    }
}

fn check(entry: &Entry) -> Result<()> {
    let bad = |why| Err(CatalogError::BadEntry { why });
    if entry.path.len() > MAX_PATH_BYTES || entry.link_target.len() > MAX_PATH_BYTES {
        return bad("its path or link target is too long");
    }
    if entry.path.contains(&0) {
        return bad("its path contains a NUL");
    }
    if entry.path.iter().filter(|byte| **byte == b'/').count() >= MAX_DEPTH {
        return bad("it lies more than 2048 folders deep");
    }
    let mut components = entry.path.split(|byte| *byte == b'/');
    if !entry.path.is_empty() && components.any(|name| name.is_empty() || name.len() > MAX_NAME_BYTES) {
        return bad("a name in its path is empty or too long");
    }
    if entry.path.is_empty() && entry.kind == Kind::Tombstone {
        return bad("the root cannot be gone");
    }
    Ok(())
}

/// Sixty-four bits of a digest over everything that makes the state.
fn state(entry: &Entry) -> i64 {
    let attributes = &entry.attributes;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    bytes(&[letter(entry.kind)]);
    bytes(&(entry.flags.0 & STATE_FLAGS.0).to_le_bytes());
    bytes(&entry.size.to_le_bytes());
    bytes(&(attributes.mode & 0o7777).to_le_bytes());
    bytes(&attributes.uid.to_le_bytes());
    bytes(&attributes.gid.to_le_bytes());
    bytes(&attributes.mtime.seconds.to_le_bytes());
    bytes(&attributes.mtime.nanos.to_le_bytes());
    bytes(&attributes.inode_flags.to_le_bytes());
    for xattr in &attributes.xattrs {
        bytes(&xattr.name);
        bytes(&xattr.value);
    }
    bytes(&entry.link_target);
    bytes(&entry.device.0.to_le_bytes());
    bytes(&entry.device.1.to_le_bytes());
    // The group's number is only good within one archive; that there is a group is the state.
    bytes(&[u8::from(entry.link_group != 0)]);
    bytes(entry.digest.as_ref().map_or(&[][..], |digest| &digest.0));
    ShortDigest::from(&Digest(*hasher.finalize().as_bytes())).columns().0
}

/// A row of `file_versions` below `folder`, which is the path of its folder (`None`: it is the root itself).
pub(super) fn read(row: &Row, folder: Option<&[u8]>) -> Result<FileVersion> {
    let name: &[u8] = get(row, "name")?;
    let path = match folder {
        None => Vec::new(),
        Some(folder) => child(folder, name),
    };
    let letter: i8 = get(row, "kind")?;
    let kind = VersionKind::ALL.into_iter().find(|kind| kind.letter() == letter.cast_unsigned());
    let kind = kind.ok_or_else(|| CatalogError::Unreadable {
        column: "kind",
        source: Box::new(super::words::UnknownWord { what: "kind of entry", text: letter.to_string() }),
    })?;
    let last: i32 = get(row, "last_seq")?;
    Ok(FileVersion {
        path,
        kind,
        size: count(row, "size")?,
        mode: u32::from(get::<i16>(row, "mode")?.cast_unsigned()),
        uid: get::<i32>(row, "uid")?.cast_unsigned(),
        gid: get::<i32>(row, "gid")?.cast_unsigned(),
        mtime: FileTime { seconds: get(row, "mtime_s")?, nanos: get::<i32>(row, "mtime_ns")?.cast_unsigned() },
        digest: ShortDigest::from_columns((get(row, "digest_head")?, get(row, "digest_tail")?)),
        link_target: get(row, "link_target")?,
        state: get(row, "state")?,
        flags: Flags(get::<i16>(row, "flags")?.cast_unsigned()),
        first_seq: Seq(i64::from(get::<i32>(row, "first_seq")?)),
        last_seq: (last != CURRENT).then_some(Seq(i64::from(last))),
    })
}

/// The path of a name in a folder.
pub(super) fn child(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(folder.len() + 1 + name.len());
    path.extend_from_slice(folder);
    if !folder.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The columns that [`read`] needs, of a table or alias.
macro_rules! version_columns {
    ($alias:literal) => {
        concat!(
            $alias,
            ".name, ",
            $alias,
            ".kind, ",
            $alias,
            ".size, ",
            $alias,
            ".mode, ",
            $alias,
            ".uid, ",
            $alias,
            ".gid, ",
            $alias,
            ".mtime_s, ",
            $alias,
            ".mtime_ns, ",
            $alias,
            ".digest_head, ",
            $alias,
            ".digest_tail, ",
            $alias,
            ".link_target, ",
            $alias,
            ".state, ",
            $alias,
            ".flags, ",
            $alias,
            ".first_seq, ",
            $alias,
            ".last_seq"
        )
    };
}

pub(super) use version_columns;
