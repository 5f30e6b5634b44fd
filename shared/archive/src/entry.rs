//! An entry: everything the index says of one name.
//!
//! Paths are bytes, relative to the recorded root, without a leading or trailing slash; the root itself is the empty
//! path. Entries are ordered by path components as bytes ([`cmp_paths`]), the order in which a walker meets them.

use std::cmp::Ordering;

use crate::digest::Digest;

/// A point in time as the file system keeps it: seconds since the epoch and nanoseconds within that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime {
    /// Seconds since 1970-01-01T00:00:00Z; negative before it.
    pub seconds: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanos: u32,
}

/// What kind of thing a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File = 1,
    /// A folder.
    Folder = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A character device.
    CharDevice = 5,
    /// A block device.
    BlockDevice = 6,
    /// Only in a differential: the name existed in the base full and does not any more.
    Tombstone = 7,
}

/// Facts about an entry that are not attributes of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// The file changed while it was read; what is stored mixes states.
    pub const CHANGED_WHILE_READ: Self = Self(1);
    /// The top of a subtree that could not be read; it and everything below keep the base's state.
    pub const STALE: Self = Self(2);
    /// Indexed with what lstat gave, without content, because it could not be read and no base state exists.
    pub const UNREAD: Self = Self(4);
    /// The content is in the base full's archive, not in this one.
    pub const CONTENT_IN_BASE: Self = Self(8);
    /// An ancestor of a source: applied only to a folder that a restore creates.
    pub const ANCESTOR: Self = Self(16);
    /// The scan that recorded the entry was racy for it: its ctime is within two seconds of that scan's start or later.
    pub const RACY: Self = Self(32);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of flags.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags without those of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What decides "unchanged" at the next scan, besides the restorable attributes. Never restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Inode number. Device numbers change at reboot and are not kept.
    pub inode: u64,
    /// Change time as recorded by the scan.
    pub ctime: FileTime,
}

/// One extended attribute; ACLs and capabilities are extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// The whole name, such as `user.comment` or `system.posix_acl_access`.
    pub name: Vec<u8>,
    /// The raw value.
    pub value: Vec<u8>,
}

/// A range of a sparse file that holds data; everything outside is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DataRange {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Where the bytes of a file begin in an archive. The bytes go on through the following frames of that archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentRef {
    /// Number of the frame that holds the first byte.
    pub frame: u64,
    /// Offset of that frame in the stored archive, in bytes.
    pub frame_offset: u64,
    /// Stored (compressed) length of that frame, in bytes.
    pub frame_length: u32,
    /// Offset of the first byte of content in the decompressed frame.
    pub offset: u32,
}

/// The attributes a restore brings back, content aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with suid, sgid and sticky (0o7777).
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Owner's name at backup time, empty if unknown. Informative: restores go by number.
    pub user: Vec<u8>,
    /// Group's name at backup time, empty if unknown.
    pub group: Vec<u8>,
    /// Modification time.
    pub mtime: FileTime,
    /// Inode flags of `lsattr` that are restorable (FS_IOC_GETFLAGS: immutable, append-only, nodump, ...); 0 where unsupported.
    pub inode_flags: u32,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// Everything the index says of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path relative to the recorded root; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// See [`Flags`].
    pub flags: Flags,
    /// Size of a regular file in bytes, holes included; 0 for everything else.
    pub size: u64,
    /// The restorable attributes.
    pub attributes: Attributes,
    /// For the comparison at the next scan.
    pub identity: Identity,
    /// Target of a symbolic link, raw bytes; empty otherwise.
    pub link_target: Vec<u8>,
    /// Device numbers (major, minor) of a device node; (0, 0) otherwise.
    pub device: (u32, u32),
    /// Hard-link group: equal non-zero numbers are names of one inode. 0: not hard-linked.
    pub link_group: u64,
    /// Ranges that hold data; `None` for a file without holes.
    pub data_ranges: Option<Vec<DataRange>>,
    /// BLAKE3 of the whole content, holes as zeros; `None` where there is no content (not a file, unread, tombstone).
    pub digest: Option<Digest>,
    /// Value of each 2 MiB piece of the content ([`crate::digest::piece_value`]), when there is more than one piece and not
    /// more than [`crate::digest::MAX_PIECES`]; empty otherwise.
    pub pieces: Vec<Digest>,
    /// Where the content is: in this archive, or in the base full's when [`Flags::CONTENT_IN_BASE`] is set.
    /// `None` for empty files and for everything without content.
    pub content: Option<ContentRef>,
}

impl Entry {
    /// Says that the name of the base is gone.
    #[must_use]
    pub fn tombstone(path: Vec<u8>) -> Self {
        Self {
            path,
            kind: Kind::Tombstone,
            flags: Flags::default(),
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

    /// Whether the attributes are those of something: a name that could not even be looked at has none.
    #[must_use]
    pub fn has_attributes(&self) -> bool {
        !self.flags.contains(Flags::UNREAD) || self.identity != Identity::default()
    }

    /// Bytes of content that an archive stores for this entry: its size without its holes.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.data_ranges
            .as_ref()
            .map_or(self.size, |ranges| ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.length)))
    }
}

/// Whether `path` may stand in an index: no empty, `.` or `..` component, no NUL, not absolute. The root (empty) may.
#[must_use]
pub fn is_clean_path(path: &[u8]) -> bool {
    path.is_empty()
        || (path.len() <= MAX_PATH_BYTES
            && !path.contains(&0)
            && path.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b"..")))
}

/// Longest path of an entry in bytes. A path handed to one system call ends at 4 KiB; a tree may be deeper.
pub const MAX_PATH_BYTES: usize = 256 << 10;

/// Orders two paths by their components as bytes: '/' sorts lowest, so `a` < `a/b` < `a-b`.
#[must_use]
pub fn cmp_paths(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    // Neighbours share long beginnings: these are passed over a word at a time.
    let words = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(x, y)| x == y).count();
    for (x, y) in a.iter().zip(b).skip(8 * words) {
        if x != y {
            return rank(*x).cmp(&rank(*y));
        }
    }
    a.len().cmp(&b.len())
}

/// Whether `path` is `ancestor` itself or lies below it. Everything lies below the root (the empty path).
#[must_use]
pub fn is_at_or_below(path: &[u8], ancestor: &[u8]) -> bool {
    ancestor.is_empty()
        || path == ancestor
        || (path.len() > ancestor.len() && path.starts_with(ancestor) && path[ancestor.len()] == b'/')
}

/// The folder that holds `path`, or `None` for the root.
#[must_use]
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|b| *b == b'/').map_or(&[][..], |at| &path[..at]))
}
