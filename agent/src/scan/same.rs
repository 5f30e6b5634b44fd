//! When a name is taken for unchanged, and when its content is read to find out.
//!
//! Owns the rule of the scan: type, size, mtime, ctime (both in nanoseconds), inode and the restorable attributes equal,
//! and the entry was not racy for the scan that recorded it. Everything else is decided by content, of which holes are a
//! part: a restore makes them again. Device numbers are not asked: they change at reboot.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::ops::ControlFlow;

use coord_archive::digest::{ContentHasher, Digest, PIECE_BYTES, piece_value};
use coord_archive::entry::{Attributes, Entry, FileTime, Flags, Kind};
use coord_archive::glance::Glance;
use coord_archive::holes::data_ranges_of;

use rustix::io::Errno;

use super::tree::{Stat, Tree};

/// Flags under which a recorded state says nothing about what is there now.
const UNSURE: [Flags; 4] = [Flags::RACY, Flags::CHANGED_WHILE_READ, Flags::UNREAD, Flags::STALE];

/// Whether `now` is known to be what `recorded` says without reading it. Of `now` only what lstat gives is asked.
#[must_use]
pub fn is_identity_same(now: &Entry, recorded: &Entry) -> bool {
    let (a, b) = (&now.attributes, &recorded.attributes);
    now.kind == recorded.kind
        && now.size == recorded.size
        && now.identity == recorded.identity
        && a.mtime == b.mtime
        && (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid)
        && UNSURE.iter().all(|flag| !recorded.flags.contains(*flag))
}

/// Whether a name that is no folder is known to be what the base says, in every respect, by lstat alone: as
/// [`is_identity_same`], and neither it nor the entry is one of several names.
#[must_use]
pub fn is_unchanged(now: &Stat, recorded: &Glance) -> bool {
    let size = if now.kind == Some(Kind::File) { now.size } else { 0 };
    now.kind == Some(recorded.kind)
        && recorded.kind != Kind::Folder
        && size == recorded.size
        && (now.inode, now.ctime) == (recorded.identity.inode, recorded.identity.ctime)
        && now.mtime == recorded.mtime
        && (now.mode, now.uid, now.gid) == (recorded.mode, recorded.uid, recorded.gid)
        && now.links < 2
        && recorded.link_group == 0
        && UNSURE.iter().all(|flag| !recorded.flags.contains(*flag))
}

/// Whether all attributes that a restore brings back are equal. Names of owners are not restored.
#[must_use]
pub fn are_attributes_same(a: &Attributes, b: &Attributes) -> bool {
    (a.mode, a.uid, a.gid, a.mtime) == (b.mode, b.uid, b.gid, b.mtime) && are_extras_same(a, b)
}

/// Whether the attributes are equal that lstat does not give.
#[must_use]
pub fn are_extras_same(a: &Attributes, b: &Attributes) -> bool {
    a.inode_flags == b.inode_flags && a.xattrs == b.xattrs
}

/// Whether two recorded entries of one kind have the same content.
#[must_use]
pub fn is_recorded_content_same(a: &Entry, b: &Entry) -> bool {
    a.kind == b.kind
        && a.size == b.size
        && a.digest == b.digest
        && a.data_ranges == b.data_ranges
        && a.link_target == b.link_target
        && a.device == b.device
}

/// What became of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The content is as recorded.
    Same,
    /// It is not, or it changed while it was read.
    Different,
    /// Whoever watches asked to stop.
    Stopped,
}

impl From<bool> for Compared {
    fn from(is_same: bool) -> Self {
        if is_same { Self::Same } else { Self::Different }
    }
}

/// Is told how many bytes were read, and may ask to stop.
pub type OnRead<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// Reads the file that `now` describes and compares it with the recorded digests, up to the first piece that differs.
/// What was a hole and is one still is not read. Holes that came or went are a difference.
///
/// # Errors
/// As open(2) and read(2); `NotFound` when the file is gone.
pub fn compare_content(tree: &Tree, now: &Entry, recorded: &Entry, on_read: OnRead<'_>) -> io::Result<Compared> {
    if now.kind != Kind::File || recorded.kind != Kind::File || now.size != recorded.size {
        return Ok(Compared::Different);
    }
    let mut file = tree.open_file(&now.path)?;
    if !is_still(&rustix::fs::fstat(&file)?, now)? {
        return Ok(Compared::Different);
    }
    let compared = match recorded.digest {
        None => Compared::from(now.size == 0),
        Some(digest) if recorded.pieces.is_empty() => compare_whole(&mut file, digest, now.size, on_read)?,
        Some(_) => compare_pieces(&mut file, recorded, on_read)?,
    };
    if compared != Compared::Same {
        return Ok(compared);
    }
    let stat = rustix::fs::fstat(&file)?;
    Ok((data_ranges_of(&file, &stat) == recorded.data_ranges && is_still(&stat, now)?).into())
}

/// Whether an open file of this status is what the scan saw.
fn is_still(stat: &rustix::fs::Stat, now: &Entry) -> io::Result<bool> {
    let time = |seconds: i64, nanos: u64| u32::try_from(nanos).map(|nanos| FileTime { seconds, nanos });
    let ctime = time(stat.st_ctime, stat.st_ctime_nsec).map_err(io::Error::other)?;
    Ok(u64::try_from(stat.st_size) == Ok(now.size) && stat.st_ino == now.identity.inode && ctime == now.identity.ctime)
}

fn compare_whole(file: &mut File, digest: Digest, size: u64, on_read: OnRead<'_>) -> io::Result<Compared> {
    let mut buffer = vec![0; usize::try_from(size.clamp(1, PIECE_BYTES)).map_err(io::Error::other)?];
    let mut hasher = ContentHasher::new();
    loop {
        let count = read_full(file, &mut buffer)?;
        if count == 0 {
            return Ok((hasher.finish().digest == digest).into());
        }
        hasher.update(&buffer[..count]);
        if on_read(count as u64).is_break() {
            return Ok(Compared::Stopped);
        }
    }
}

fn compare_pieces(file: &mut File, recorded: &Entry, on_read: OnRead<'_>) -> io::Result<Compared> {
    let mut buffer = vec![0; usize::try_from(PIECE_BYTES).map_err(io::Error::other)?];
    for (index, value) in (0..).zip(&recorded.pieces) {
        let begin = index * PIECE_BYTES;
        let end = (begin + PIECE_BYTES).min(recorded.size);
        if on_read(end - begin).is_break() {
            return Ok(Compared::Stopped);
        }
        if was_hole(recorded, begin, end) && is_hole(file, begin, end) {
            continue;
        }
        file.seek(SeekFrom::Start(begin))?;
        let count = read_full(file, &mut buffer)?;
        if piece_value(index, &buffer[..count]) != *value {
            return Ok(Compared::Different);
        }
    }
    file.seek(SeekFrom::Start(recorded.size))?;
    Ok((read_full(file, &mut buffer[..1])? == 0).into())
}

fn was_hole(recorded: &Entry, begin: u64, end: u64) -> bool {
    let Some(ranges) = &recorded.data_ranges else { return false };
    let next = ranges.partition_point(|range| range.offset.saturating_add(range.length) <= begin);
    ranges.get(next).is_none_or(|range| range.offset >= end)
}

/// Whether the file system says so; one that cannot tell says no.
fn is_hole(file: &File, begin: u64, end: u64) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(begin)) {
        Ok(data) => data >= end,
        Err(error) => error == Errno::NXIO,
    }
}

/// Fills the buffer as far as the file goes.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
