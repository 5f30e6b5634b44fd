//! Member headers: ustar, with pax records for what ustar cannot say.
//!
//! Every member's name begins with `./`, so that no name is taken for an option. Names are raw bytes in ustar fields when
//! they fit; longer ones are pax records when they are ASCII, and otherwise GNU's `L` and `K` members, because pax records
//! are UTF-8 and GNU tar does not know `hdrcharset`. GNU tar, bsdtar and Python's tarfile read all three alike. Headers
//! are read back ([`read`]) only where an index is lost.

use std::io::Write as _;

use crate::entry::{Attributes, DataRange, Entry, FileTime, Kind};

pub(crate) mod acl;
pub(crate) mod read;

/// Length of a tar block.
pub(crate) const BLOCK: usize = 512;

/// A member about to be written.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    /// Name relative to the root, without `./`.
    pub(crate) path: &'a [u8],
    /// What follows the header.
    pub(crate) body: Body<'a>,
    /// Attributes; a link member carries none beyond ustar's fields.
    pub(crate) attributes: &'a Attributes,
}

/// What a member is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    /// A regular file of so many bytes.
    File(u64),
    /// A regular file with holes: its size and data ranges; the map is written along with the header.
    Sparse(u64, &'a [DataRange]),
    /// Another name of an earlier member.
    Link(&'a [u8]),
    /// A folder.
    Folder,
    /// A symbolic link with its target.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
}

impl<'a> Body<'a> {
    /// The body of an entry that has no content; `None` for regular files and tombstones.
    pub(crate) fn without_content(entry: &'a Entry) -> Option<Self> {
        match entry.kind {
            Kind::Folder => Some(Self::Folder),
            Kind::Symlink => Some(Self::Symlink(&entry.link_target)),
            Kind::Fifo => Some(Self::Fifo),
            Kind::CharDevice => Some(Self::CharDevice(entry.device.0, entry.device.1)),
            Kind::BlockDevice => Some(Self::BlockDevice(entry.device.0, entry.device.1)),
            Kind::File | Kind::Tombstone => None,
        }
    }

    fn type_flag(&self) -> u8 {
        match self {
            Self::File(_) | Self::Sparse(..) => b'0',
            Self::Link(_) => b'1',
            Self::Symlink(_) => b'2',
            Self::CharDevice(..) => b'3',
            Self::BlockDevice(..) => b'4',
            Self::Folder => b'5',
            Self::Fifo => b'6',
        }
    }

    /// The map before the content of a sparse file; empty for everything else.
    fn map(&self) -> Vec<u8> {
        if let Self::Sparse(_, ranges) = self { sparse_map(ranges) } else { Vec::new() }
    }

    /// Bytes of content that follow header and map.
    fn content_length(&self) -> u64 {
        match self {
            Self::File(size) => *size,
            Self::Sparse(_, ranges) => ranges.iter().map(|range| range.length).sum(),
            Self::Link(_)
            | Self::Folder
            | Self::Symlink(_)
            | Self::Fifo
            | Self::CharDevice(..)
            | Self::BlockDevice(..) => 0,
        }
    }

    /// The name that a link leads to: of a member, or anything for a symbolic link.
    fn link_name(&self) -> Vec<u8> {
        match self {
            Self::Link(target) => [b"./", *target].concat(),
            Self::Symlink(target) => target.to_vec(),
            Self::File(_)
            | Self::Sparse(..)
            | Self::Folder
            | Self::Fifo
            | Self::CharDevice(..)
            | Self::BlockDevice(..) => Vec::new(),
        }
    }

    fn device(&self) -> (u32, u32) {
        match self {
            Self::CharDevice(major, minor) | Self::BlockDevice(major, minor) => (*major, *minor),
            Self::File(_) | Self::Sparse(..) | Self::Link(_) | Self::Folder | Self::Symlink(_) | Self::Fifo => (0, 0),
        }
    }
}

/// Attributes of our own members: root's, readable by all, at a time that depends on nothing.
pub(crate) fn own_attributes(mtime: FileTime) -> Attributes {
    Attributes { mode: 0o644, user: b"root".to_vec(), group: b"root".to_vec(), mtime, ..Attributes::default() }
}

/// Appends the header blocks of `member` to `out`, the map of a sparse file included. Content and padding follow.
pub(crate) fn put_header(out: &mut Vec<u8>, member: &Member<'_>) {
    let mut pax = Pax::default();
    let name = member_name(member);
    let map = member.body.map();
    if let Body::Sparse(size, _) = member.body {
        pax.number("GNU.sparse.major", 1);
        pax.number("GNU.sparse.minor", 0);
        if name.is_ascii() {
            pax.record(b"GNU.sparse.name", &name);
        }
        pax.number("GNU.sparse.realsize", size);
    }
    let mut header = Ustar::new();
    match stand_in_name(member, &name) {
        Some(stand_in) => header.put_name(&stand_in, &mut pax),
        None => header.put_name(&name, &mut pax),
    }
    let link = member.body.link_name();
    if !header.put_bytes(157, 100, &link) {
        pax.long("linkpath", Some(b'K'), &link);
    }
    let stored = member.body.content_length() + map.len() as u64;
    put_numbers(&mut header, member, stored, &mut pax);
    if !matches!(member.body, Body::Link(_)) {
        put_attributes(member.attributes, &mut pax);
    }
    pax.write(out, member.attributes);
    out.extend_from_slice(&header.finish(member.body.type_flag()));
    out.extend_from_slice(&map);
}

fn put_numbers(header: &mut Ustar, member: &Member<'_>, stored: u64, pax: &mut Pax) {
    let attributes = member.attributes;
    header.put_octal(100, 8, u64::from(attributes.mode & 0o7777));
    for (at, key, id) in [(108, "uid", attributes.uid), (116, "gid", attributes.gid)] {
        if !header.put_octal(at, 8, u64::from(id)) {
            pax.number(key, u64::from(id));
        }
    }
    if !header.put_octal(124, 12, stored) {
        pax.number("size", stored);
    }
    let seconds = u64::try_from(attributes.mtime.seconds).ok();
    let in_header = header.put_octal(136, 12, seconds.unwrap_or(0)) && seconds.is_some();
    if !in_header || attributes.mtime.nanos != 0 {
        pax.record(b"mtime", time_text(attributes.mtime).as_bytes());
    }
    let (major, minor) = member.body.device();
    for (at, key, number) in [(329, "SCHILY.devmajor", major), (337, "SCHILY.devminor", minor)] {
        if !header.put_octal(at, 8, u64::from(number)) {
            pax.number(key, u64::from(number));
        }
    }
    for (at, key, name) in [(265, "uname", &attributes.user), (297, "gname", &attributes.group)] {
        if !header.put_bytes(at, 31, name) {
            pax.long(key, None, name);
        }
    }
}

fn put_attributes(attributes: &Attributes, pax: &mut Pax) {
    for xattr in &attributes.xattrs {
        let acl_key = match xattr.name.as_slice() {
            b"system.posix_acl_access" => Some("SCHILY.acl.access"),
            b"system.posix_acl_default" => Some("SCHILY.acl.default"),
            _ => None,
        };
        if let Some((key, text)) = acl_key.zip(acl::to_text(&xattr.value)) {
            pax.record(key.as_bytes(), text.as_bytes());
            continue;
        }
        // GNU tar's own escaping of the two bytes that a pax keyword cannot hold.
        let mut key = b"SCHILY.xattr.".to_vec();
        for &byte in &xattr.name {
            match byte {
                b'=' => key.extend(b"%3D"),
                b'%' => key.extend(b"%25"),
                other => key.push(other),
            }
        }
        pax.record(&key, &xattr.value);
    }
}

/// `./` and the path; folders end with a slash.
fn member_name(member: &Member<'_>) -> Vec<u8> {
    let mut name = [b"./", member.path].concat();
    if matches!(member.body, Body::Folder) && !member.path.is_empty() {
        name.push(b'/');
    }
    name
}

/// A reader that knows no sparse files must not put the condensed form in the file's place.
fn stand_in_name(member: &Member<'_>, name: &[u8]) -> Option<Vec<u8>> {
    if !matches!(member.body, Body::Sparse(..)) || !name.is_ascii() {
        return None;
    }
    let last = member.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    Some([b"./GNUSparseFile.0/", &last[..last.len().min(60)]].concat())
}

/// GNU sparse format 1.0: the number of ranges, then offset and length of each, a decimal number a line.
fn sparse_map(ranges: &[DataRange]) -> Vec<u8> {
    let mut map = format!("{}\n", ranges.len()).into_bytes();
    for range in ranges {
        map.extend(format!("{}\n{}\n", range.offset, range.length).into_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Seconds with nine digits of fraction, as a decimal number: a time before the epoch is minus its distance from it.
fn time_text(time: FileTime) -> String {
    if time.seconds >= 0 || time.nanos == 0 {
        format!("{}.{:09}", time.seconds, time.nanos)
    } else {
        format!("-{}.{:09}", -(time.seconds + 1), 1_000_000_000 - time.nanos)
    }
}

/// What comes before a member's own header: pax records, and GNU's members for long names that are not ASCII.
#[derive(Debug, Default)]
struct Pax {
    records: Vec<u8>,
    gnu: Vec<u8>,
}

impl Pax {
    fn number(&mut self, key: &str, value: u64) {
        self.record(key.as_bytes(), value.to_string().as_bytes());
    }

    /// A name too long for its field; `None` for names that are only informative.
    fn long(&mut self, key: &str, gnu_type: Option<u8>, value: &[u8]) {
        if value.is_ascii() {
            self.record(key.as_bytes(), value);
            return;
        }
        let Some(type_flag) = gnu_type else { return };
        let mut header = Ustar::new();
        header.put_raw(0, b"././@LongLink");
        header.put_octal(100, 8, 0o644);
        header.put_octal(124, 12, value.len() as u64 + 1);
        self.gnu.extend(header.finish(type_flag));
        self.gnu.extend(value);
        self.gnu.push(0);
        self.gnu.resize(self.gnu.len().next_multiple_of(BLOCK), 0);
    }

    /// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + decimal_digits(length) != length {
            length = rest + decimal_digits(length);
        }
        self.records.reserve(length);
        // Writing to memory does not fail.
        let _written = write!(self.records, "{length} ");
        self.records.extend_from_slice(key);
        self.records.push(b'=');
        self.records.extend_from_slice(value);
        self.records.push(b'\n');
    }

    fn write(&self, out: &mut Vec<u8>, attributes: &Attributes) {
        out.extend_from_slice(&self.gnu);
        if self.records.is_empty() {
            return;
        }
        let mut header = Ustar::new();
        header.put_raw(0, b"./PaxHeaders/coord");
        header.put_octal(100, 8, 0o644);
        header.put_octal(124, 12, self.records.len() as u64);
        header.put_octal(136, 12, u64::try_from(attributes.mtime.seconds).unwrap_or(0));
        out.extend_from_slice(&header.finish(b'x'));
        out.extend_from_slice(&self.records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
}

/// A ustar header block.
struct Ustar([u8; BLOCK]);

impl Ustar {
    fn new() -> Self {
        Self([0; BLOCK])
    }

    fn put_raw(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Octal digits and a NUL. A number that does not fit leaves zero there and gives `false`.
    fn put_octal(&mut self, at: usize, width: usize, number: u64) -> bool {
        let (digits, end) = self.0[at..at + width].split_at_mut(width - 1);
        end.fill(0);
        let rest = put_octal_digits(digits, number);
        if rest != 0 {
            digits.fill(b'0');
        }
        rest == 0
    }

    /// Bytes in a field, cut to its width; `false` if they were.
    fn put_bytes(&mut self, at: usize, width: usize, bytes: &[u8]) -> bool {
        self.put_raw(at, &bytes[..bytes.len().min(width)]);
        bytes.len() <= width
    }

    /// The name in one field, or in ustar's two at a slash, or before the header.
    fn put_name(&mut self, name: &[u8], pax: &mut Pax) {
        let split =
            (1..name.len().min(156)).rev().find(|at| name[*at] == b'/' && (1..=100).contains(&(name.len() - at - 1)));
        match split {
            _ if name.len() <= 100 => self.put_raw(0, name),
            Some(at) => {
                self.put_raw(345, &name[..at]);
                self.put_raw(0, &name[at + 1..]);
            }
            None => {
                self.put_bytes(0, 100, name);
                pax.long("path", Some(b'L'), name);
            }
        }
    }

    fn finish(mut self, type_flag: u8) -> [u8; BLOCK] {
        self.0[156] = type_flag;
        self.put_raw(257, b"ustar\x0000");
        self.put_raw(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        // 512 bytes of 255 have six octal digits.
        put_octal_digits(&mut self.0[148..154], u64::from(sum));
        self.0[154] = 0;
        self.0
    }
}

/// How many decimal digits a number has.
fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Fills `digits` with `number` in octal, with leading zeros; gives what is left of a number that has more digits.
fn put_octal_digits(digits: &mut [u8], mut number: u64) -> u64 {
    for digit in digits.iter_mut().rev() {
        // Three bits fit a byte.
        *digit = b'0' + (number & 7) as u8;
        number >>= 3;
    }
    number
}
