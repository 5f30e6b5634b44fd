//! Reading member headers back, for archives whose index is lost, and to compare a tar with its index: the inverse of what the
//! parent module writes.
//!
//! Reads what this format writes and refuses everything else, so that content is not taken for a header. Nothing is said twice: of
//! two names or sizes for one member, other programs may believe the other. Trusts nothing: lengths are checked before anything is
//! taken, and paths have to be clean.

use super::{BLOCK, acl};
use crate::entry::{Attributes, DataRange, Entry, FileTime, Flags, Identity, Kind, Xattr, is_clean_path};

/// A member's headers.
#[derive(Debug)]
pub(crate) struct Header {
    /// The member's name without `./` and the slash behind a folder's.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) what: What,
    /// Bytes of content that follow, padding aside.
    pub(crate) content_length: u64,
}

/// What a member is.
#[derive(Debug)]
pub(crate) enum What {
    /// Something of its own; content's facts are missing.
    Entry(Box<Entry>),
    /// Another name of an earlier member.
    Link(Vec<u8>),
}

/// Reads the headers at the beginning of `raw`, a sparse file's map included, and gives their length. `None` for anything
/// that this format does not write.
pub(crate) fn parse(raw: &[u8]) -> Option<(Header, usize)> {
    let mut before = Before::default();
    let mut at = 0;
    loop {
        let block = Ustar::new(raw.get(at..at + BLOCK)?)?;
        at += BLOCK;
        let type_flag = block.0[156];
        if !matches!(type_flag, b'L' | b'K' | b'x') {
            let (header, map) = member(&block, before, &raw[at..])?;
            return Some((header, at + map));
        }
        let length = usize::try_from(block.octal(124, 12)?).ok()?;
        let value = raw.get(at..at.checked_add(length)?)?;
        at += length.next_multiple_of(BLOCK);
        match type_flag {
            b'x' => before.records(value)?,
            b'L' => once(&mut before.name, long_name(value)?)?,
            _ => once(&mut before.link, long_name(value)?)?,
        }
    }
}

/// The name in one of GNU's members.
fn long_name(value: &[u8]) -> Option<Vec<u8>> {
    value.strip_suffix(b"\0").filter(|name| !name.contains(&0)).map(<[u8]>::to_vec)
}

/// Says something of a member; `None` if it was said before.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// What comes before a member's own header.
#[derive(Debug, Default)]
struct Before {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    mtime: Option<FileTime>,
    device: (Option<u64>, Option<u64>),
    xattrs: Vec<Xattr>,
    /// Whether the two numbers of the sparse format were given.
    sparse_form: (Option<()>, Option<()>),
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
}

impl Before {
    /// `LENGTH KEY=VALUE\n`, one after the other.
    fn records(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let length = usize::try_from(number(&bytes[..space])?).ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            self.record(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Some(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => once(&mut self.name, value.to_vec())?,
            b"linkpath" => once(&mut self.link, value.to_vec())?,
            b"uname" => once(&mut self.user, value.to_vec())?,
            b"gname" => once(&mut self.group, value.to_vec())?,
            b"uid" => once(&mut self.uid, number(value)?)?,
            b"gid" => once(&mut self.gid, number(value)?)?,
            b"size" => once(&mut self.size, number(value)?)?,
            b"mtime" => once(&mut self.mtime, time(value)?)?,
            b"SCHILY.devmajor" => once(&mut self.device.0, number(value)?)?,
            b"SCHILY.devminor" => once(&mut self.device.1, number(value)?)?,
            b"SCHILY.acl.access" => self.xattr(b"system.posix_acl_access", acl::from_text(value)?),
            b"SCHILY.acl.default" => self.xattr(b"system.posix_acl_default", acl::from_text(value)?),
            b"GNU.sparse.major" => (value == b"1").then_some(()).and_then(|()| once(&mut self.sparse_form.0, ()))?,
            b"GNU.sparse.minor" => (value == b"0").then_some(()).and_then(|()| once(&mut self.sparse_form.1, ()))?,
            b"GNU.sparse.name" => once(&mut self.sparse_name, value.to_vec())?,
            b"GNU.sparse.realsize" => once(&mut self.sparse_size, number(value)?)?,
            other => self.xattr(&unescaped(other.strip_prefix(b"SCHILY.xattr.")?)?, value.to_vec()),
        }
        Some(())
    }

    /// Whether what is said of holes is all that is to be said, or nothing.
    fn is_sparse(&self) -> Option<bool> {
        match (self.sparse_form, self.sparse_size) {
            ((Some(()), Some(())), Some(_)) => Some(true),
            ((None, None), None) if self.sparse_name.is_none() => Some(false),
            _ => None,
        }
    }

    fn xattr(&mut self, name: &[u8], value: Vec<u8>) {
        self.xattrs.push(Xattr { name: name.to_vec(), value });
    }
}

/// The name of an extended attribute out of a pax keyword.
fn unescaped(key: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((&byte, others)) = rest.split_first() {
        rest = others;
        name.push(match (byte, others) {
            (b'%', [b'2', b'5', ..]) => b'%',
            (b'%', [b'3', b'D', ..]) => b'=',
            (b'%', _) => return None,
            (other, _) => other,
        });
        if byte == b'%' {
            rest = &others[2..];
        }
    }
    Some(name)
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// The inverse of the parent's `time_text`.
pub(crate) fn time(text: &[u8]) -> Option<FileTime> {
    let (sign, text) = text.strip_prefix(b"-").map_or((1, text), |rest| (-1, rest));
    let dot = text.iter().position(|byte| *byte == b'.')?;
    let (seconds, fraction) = (&text[..dot], &text[dot + 1..]);
    let nanos = u32::try_from(number(fraction).filter(|_| fraction.len() == 9)?).ok()?;
    let seconds = sign * i64::try_from(number(seconds)?).ok()?;
    Some(match (sign, nanos) {
        (-1, 1..) => FileTime { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000 - nanos },
        _ => FileTime { seconds, nanos },
    })
}

/// A header block with the right checksum.
struct Ustar<'a>(&'a [u8]);

impl<'a> Ustar<'a> {
    fn new(block: &'a [u8]) -> Option<Self> {
        let found = Self(block);
        if block.len() != BLOCK || &block[257..265] != b"ustar\x0000" {
            return None;
        }
        let fields = block[..148].iter().chain(&block[156..]).map(|byte| u64::from(*byte));
        (fields.sum::<u64>() + 8 * u64::from(b' ') == found.octal(148, 7)?).then_some(found)
    }

    /// Octal digits up to a NUL.
    fn octal(&self, at: usize, width: usize) -> Option<u64> {
        let digits = self.0[at..at + width].strip_suffix(b"\0")?;
        digits.iter().try_fold(0_u64, |value, digit| match digit {
            b'0'..=b'7' => Some(value << 3 | u64::from(digit - b'0')),
            _ => None,
        })
    }

    fn number(&self, at: usize, width: usize, instead: Option<u64>) -> Option<u32> {
        let value = instead.map_or_else(|| self.octal(at, width), Some)?;
        u32::try_from(value).ok()
    }

    /// Bytes up to the first NUL, or all of the field.
    fn bytes(&self, at: usize, width: usize) -> Vec<u8> {
        let field = &self.0[at..at + width];
        field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
    }

    fn name(&self) -> Vec<u8> {
        let (prefix, name) = (self.bytes(345, 155), self.bytes(0, 100));
        if prefix.is_empty() { name } else { [prefix.as_slice(), &name].join(&b'/') }
    }
}

/// The member itself, and the length of the map behind its header.
fn member(block: &Ustar<'_>, before: Before, behind: &[u8]) -> Option<(Header, usize)> {
    let name = before.sparse_name.clone().or_else(|| before.name.clone()).unwrap_or_else(|| block.name());
    let stored = before.size.map_or_else(|| block.octal(124, 12), Some)?;
    let link = before.link.clone().unwrap_or_else(|| block.bytes(157, 100));
    let kind = match block.0[156] {
        b'0' => Kind::File,
        b'1' => {
            // Programs do not agree on whether a size of what has no content counts.
            (stored == 0 && !before.is_sparse()?).then_some(())?;
            let what = What::Link(clean(&link)?);
            return Some((Header { path: clean(&name)?, what, content_length: 0 }, 0));
        }
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Folder,
        b'6' => Kind::Fifo,
        _ => return None,
    };
    let is_sparse = before.is_sparse()?;
    (kind == Kind::Symlink || link.is_empty()).then_some(())?;
    (kind == Kind::File || (stored == 0 && !is_sparse)).then_some(())?;
    let is_folder = kind == Kind::Folder;
    let name = if is_folder && name != b"./" { name.strip_suffix(b"/")?.to_vec() } else { name };
    let mut entry = Entry {
        path: if is_folder && name == b"./" { Vec::new() } else { clean(&name)? },
        kind,
        flags: Flags::default(),
        size: if kind == Kind::File { stored } else { 0 },
        attributes: attributes(block, &before)?,
        identity: Identity::default(),
        link_target: if kind == Kind::Symlink { link } else { Vec::new() },
        device: device(block, kind, &before)?,
        link_group: 0,
        data_ranges: None,
        digest: None,
        pieces: Vec::new(),
        content: None,
    };
    let mut map_length = 0;
    if let Some(size) = before.sparse_size.filter(|_| is_sparse) {
        let (ranges, length) = map(behind, size)?;
        let held = ranges.iter().map(|range| range.length).sum::<u64>();
        (held.checked_add(length as u64) == Some(stored)).then_some(())?;
        map_length = length;
        entry.size = size;
        entry.data_ranges = Some(ranges);
    }
    let content_length = if kind == Kind::File { entry.stored_bytes() } else { 0 };
    Some((Header { path: entry.path.clone(), what: What::Entry(Box::new(entry)), content_length }, map_length))
}

fn clean(name: &[u8]) -> Option<Vec<u8>> {
    let path = name.strip_prefix(b"./").filter(|path| !path.is_empty() && is_clean_path(path))?;
    Some(path.to_vec())
}

fn attributes(block: &Ustar<'_>, before: &Before) -> Option<Attributes> {
    let seconds = i64::try_from(block.octal(136, 12)?).ok()?;
    let mut xattrs = before.xattrs.clone();
    xattrs.sort();
    xattrs.windows(2).all(|pair| pair[0].name != pair[1].name).then_some(())?;
    Some(Attributes {
        mode: u32::try_from(block.octal(100, 8)?).ok()? & 0o7777,
        uid: block.number(108, 8, before.uid)?,
        gid: block.number(116, 8, before.gid)?,
        user: before.user.clone().unwrap_or_else(|| block.bytes(265, 32)),
        group: before.group.clone().unwrap_or_else(|| block.bytes(297, 32)),
        mtime: before.mtime.unwrap_or(FileTime { seconds, nanos: 0 }),
        inode_flags: 0,
        xattrs,
    })
}

fn device(block: &Ustar<'_>, kind: Kind, before: &Before) -> Option<(u32, u32)> {
    if !matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        return Some((0, 0));
    }
    Some((block.number(329, 8, before.device.0)?, block.number(337, 8, before.device.1)?))
}

/// The map of a sparse file of `size` bytes, and its length in whole blocks. The range of length 0 at the end stands for a
/// hole there.
fn map(bytes: &[u8], size: u64) -> Option<(Vec<DataRange>, usize)> {
    let mut at = 0;
    let mut line = || {
        let rest = bytes.get(at..)?;
        let end = rest.iter().take(21).position(|byte| *byte == b'\n')?;
        at += end + 1;
        number(&rest[..end])
    };
    let count = line()?;
    let mut ranges = Vec::new();
    let mut end = 0_u64;
    for _ in 0..count {
        let (offset, length) = (line()?, line()?);
        if offset < end || offset.checked_add(length)? > size {
            return None;
        }
        end = offset + length;
        if length > 0 {
            ranges.push(DataRange { offset, length });
        }
    }
    Some((ranges, at.next_multiple_of(BLOCK))).filter(|(_, length)| *length <= bytes.len())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::super::{Body, Member, put_header};
    use super::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec("[a-z%=]{1,90}", 1..5).prop_map(|parts| parts.join("/").into_bytes()),
            prop::collection::vec(any::<u8>().prop_filter("clean", |byte| !b"\0/.".contains(byte)), 1..300),
        ]
    }

    fn attributes() -> impl Strategy<Value = Attributes> {
        let xattr = (name(), prop::collection::vec(any::<u8>(), 0..50));
        let xattrs = prop::collection::btree_map(name(), xattr.prop_map(|(_, value)| value), 0..4);
        let time = (any::<i32>(), 0..1_000_000_000_u32);
        (0..0o10000_u32, any::<u32>(), any::<u32>(), time, xattrs).prop_map(
            |(mode, uid, gid, (seconds, nanos), all)| {
                let mtime = FileTime { seconds: i64::from(seconds), nanos };
                let acl =
                    [&2_u32.to_le_bytes()[..], &[1, 0, 7, 0, 255, 255, 255, 255], &[2, 0, 5, 0, 9, 0, 0, 0]].concat();
                let mut xattrs: Vec<Xattr> = all.into_iter().map(|(name, value)| Xattr { name, value }).collect();
                xattrs.push(Xattr { name: b"system.posix_acl_access".to_vec(), value: acl });
                xattrs.sort();
                let (user, group) = (b"somebody".to_vec(), Vec::new());
                Attributes { mode, uid, gid, user, group, mtime, inode_flags: 0, xattrs }
            },
        )
    }

    fn back(member: &Member<'_>) -> Header {
        let mut raw = Vec::new();
        put_header(&mut raw, member);
        let length = raw.len();
        raw.extend([0xaa; 700]);
        let (header, found) = parse(&raw).unwrap();
        assert_eq!(found, length);
        assert_eq!(header.path, member.path);
        header
    }

    proptest! {
        #[test]
        fn headers_come_back(path in name(), target in name(), attributes in attributes(), size in any::<u64>()) {
            let ranges = [DataRange { offset: 512, length: 1024 }, DataRange { offset: 4096, length: 0 }];
            let bodies = [
                (Body::File(size), Kind::File),
                (Body::Sparse(4096, &ranges), Kind::File),
                (Body::Folder, Kind::Folder),
                (Body::Symlink(&target), Kind::Symlink),
                (Body::Fifo, Kind::Fifo),
                (Body::CharDevice(7, u32::MAX), Kind::CharDevice),
                (Body::BlockDevice(u32::MAX, 1), Kind::BlockDevice),
            ];
            for (body, kind) in bodies {
                let header = back(&Member { path: &path, body, attributes: &attributes });
                let What::Entry(entry) = header.what else { panic!("{body:?}") };
                prop_assert_eq!(entry.kind, kind);
                prop_assert_eq!(&entry.attributes, &attributes);
                match body {
                    Body::File(size) => prop_assert_eq!((entry.size, header.content_length), (size, size)),
                    Body::Sparse(..) => {
                        prop_assert_eq!((entry.size, header.content_length), (4096, 1024));
                        prop_assert_eq!(entry.data_ranges.unwrap(), &ranges[..1]);
                    }
                    Body::Symlink(_) => prop_assert_eq!(entry.link_target, target.clone()),
                    Body::CharDevice(..) => prop_assert_eq!(entry.device, (7, u32::MAX)),
                    Body::BlockDevice(..) => prop_assert_eq!(entry.device, (u32::MAX, 1)),
                    Body::Link(_) | Body::Folder | Body::Fifo => {}
                }
            }
            let header = back(&Member { path: &path, body: Body::Link(&target), attributes: &attributes });
            prop_assert!(matches!(header.what, What::Link(to) if to == target));
        }

        #[test]
        fn changed_bytes_never_panic(
            path in name(),
            attributes in attributes(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let ranges = [DataRange { offset: 512, length: 1024 }];
            let mut raw = Vec::new();
            put_header(&mut raw, &Member { path: &path, body: Body::Sparse(4096, &ranges), attributes: &attributes });
            for (at, byte) in changes {
                let at = at.index(raw.len());
                raw[at] = byte;
            }
            raw.truncate(cut.index(raw.len() + 1));
            let _may_fail = parse(&raw);
        }
    }

    #[test]
    fn the_root_is_a_folder_without_a_name() {
        let header = back(&Member { path: b"", body: Body::Folder, attributes: &Attributes::default() });
        assert!(matches!(header.what, What::Entry(entry) if entry.kind == Kind::Folder && entry.path.is_empty()));
        assert!(parse(&[0; 1024]).is_none());
    }
}
