//! `archive list` and `archive cat`.

use std::io::{self, BufWriter, Read as _, Write as _};

use coord_archive::digest::ContentHasher;
use coord_archive::entry::{Entry, FileTime, Flags, Kind};
use coord_archive::reader::ArchiveReader;
use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};
use jiff::Timestamp;

use super::{CatArgs, Format, ListArgs, archive_path, open, read_fault, shown};

/// Most of a file that is held in memory before it is written out.
const HELD_BYTES: usize = 8 << 20;

pub(super) fn list(args: &ListArgs) -> Result<Exit, Fault> {
    let archive = open(&args.archive)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for entry in archive.entries() {
        let entry = entry.map_err(|error| read_fault(&args.archive, &error))?;
        let line = match args.output {
            Format::Table => row(&entry),
            Format::Json => object(&entry).to_string(),
        };
        if let Err(error) = writeln!(out, "{line}") {
            return closed(&error);
        }
    }
    out.flush().map_or_else(|error| closed(&error), |()| Ok(Exit::Done))
}

/// Somebody who has read enough, such as `head`, is no failure.
fn closed(error: &io::Error) -> Result<Exit, Fault> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(Exit::Done);
    }
    Err(Fault::new(ErrorCode::Io, format!("cannot write to standard output: {error}")))
}

fn row(entry: &Entry) -> String {
    let target =
        if entry.link_target.is_empty() { String::new() } else { format!(" -> {}", shown(&entry.link_target)) };
    let size = match entry.kind {
        Kind::CharDevice | Kind::BlockDevice => format!("{},{}", entry.device.0, entry.device.1),
        Kind::File | Kind::Folder | Kind::Symlink | Kind::Fifo | Kind::Tombstone => entry.size.to_string(),
    };
    let attributes = &entry.attributes;
    let owner = format!("{}/{}", name_or(&attributes.user, attributes.uid), name_or(&attributes.group, attributes.gid));
    let flags = flag_words(entry.flags).join(",");
    let flags = if flags.is_empty() { flags } else { format!(" [{flags}]") };
    format!(
        "{}{} {owner:<12} {size:>12} {} {}{target}{flags}",
        letter(entry.kind),
        permissions(attributes.mode),
        time(attributes.mtime),
        shown(&entry.path)
    )
}

fn object(entry: &Entry) -> serde_json::Value {
    let attributes = &entry.attributes;
    serde_json::json!({
        "path": shown(&entry.path),
        "kind": kind_word(entry.kind),
        "size_bytes": entry.size,
        "mode": format!("{:04o}", attributes.mode),
        "uid": attributes.uid,
        "gid": attributes.gid,
        "user": shown_name(&attributes.user),
        "group": shown_name(&attributes.group),
        "mtime": time(attributes.mtime),
        "link_target": (!entry.link_target.is_empty()).then(|| shown(&entry.link_target)),
        "link_group": entry.link_group,
        "device": (entry.device != (0, 0)).then_some([entry.device.0, entry.device.1]),
        "xattrs": attributes.xattrs.iter().map(|xattr| shown(&xattr.name)).collect::<Vec<_>>(),
        "inode_flags": attributes.inode_flags,
        "digest": entry.digest.map(|digest| digest.to_string()),
        "flags": flag_words(entry.flags),
    })
}

fn shown_name(name: &[u8]) -> String {
    if name.is_empty() { String::new() } else { shown(name) }
}

fn name_or(name: &[u8], number: u32) -> String {
    if name.is_empty() { number.to_string() } else { shown(name) }
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::File => '-',
        Kind::Folder => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Tombstone => 'D',
    }
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Folder => "folder",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::CharDevice => "char_device",
        Kind::BlockDevice => "block_device",
        Kind::Tombstone => "deleted",
    }
}

fn permissions(mode: u32) -> String {
    let bit = |mask: u32, letter: char| if mode & mask == 0 { '-' } else { letter };
    let execute = |mask: u32, special: u32, letter: char| match (mode & mask != 0, mode & special != 0) {
        (true, true) => letter,
        (false, true) => letter.to_ascii_uppercase(),
        (true, false) => 'x',
        (false, false) => '-',
    };
    [
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        execute(0o100, 0o4000, 's'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        execute(0o010, 0o2000, 's'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        execute(0o001, 0o1000, 't'),
    ]
    .iter()
    .collect()
}

/// RFC 3339 in UTC; seconds since the epoch for what no calendar has.
fn time(time: FileTime) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    Timestamp::new(time.seconds, nanos).map_or_else(|_| format!("@{}", time.seconds), |time| time.to_string())
}

fn flag_words(flags: Flags) -> Vec<&'static str> {
    let words = [
        (Flags::CHANGED_WHILE_READ, "changed_while_read"),
        (Flags::STALE, "stale"),
        (Flags::UNREAD, "unread"),
        (Flags::CONTENT_IN_BASE, "content_in_base"),
        (Flags::ANCESTOR, "ancestor"),
    ];
    words.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, word)| *word).collect()
}

pub(super) fn cat(args: &CatArgs) -> Result<Exit, Fault> {
    let archive = open(&args.archive)?;
    let path = archive_path(&args.path);
    let found = archive.find(&path).map_err(|error| read_fault(&args.archive, &error))?;
    let entry = found.ok_or_else(|| missing(&archive, &path))?;
    if entry.kind == Kind::Tombstone {
        return Err(Fault::new(
            ErrorCode::NotFound,
            format!("{} was deleted at the time of this archive", shown(&path)),
        ));
    }
    if entry.kind != Kind::File {
        let what = kind_word(entry.kind);
        return Err(Fault::new(ErrorCode::NotFound, format!("{} is a {what}, not a file", shown(&path))));
    }
    if entry.flags.contains(Flags::UNREAD) {
        let message = format!("{} could not be read at the time of this archive", shown(&path));
        return Err(Fault::new(ErrorCode::NotFound, message));
    }
    if entry.flags.contains(Flags::CONTENT_IN_BASE) {
        let base = archive.header().base.as_ref().map_or_else(|| "its base".to_owned(), |base| base.name.clone());
        let message = format!("only attributes of {} differ here; its content is in {base}", shown(&path));
        return Err(Fault::new(ErrorCode::NotFound, message).with_hint(format!("coord-agent archive cat {base} PATH")));
    }
    print_content(args, &archive, &entry)
}

/// Writes the content out. What fits into memory is checked before the first byte leaves, the rest at its end: each frame
/// of it was checked before.
fn print_content(args: &CatArgs, archive: &ArchiveReader, entry: &Entry) -> Result<Exit, Fault> {
    let mut content = archive.content(entry).map_err(|error| read_fault(&args.archive, &error))?;
    let mut out = io::stdout().lock();
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; usize::try_from(entry.size).map_or(HELD_BYTES, |size| size.clamp(1, HELD_BYTES))];
    let damaged = |why: &str| {
        let message = format!("{}: {}: {why}", args.archive.display(), shown(&entry.path));
        Fault::new(ErrorCode::ArchiveDamaged, message)
    };
    let mut left = entry.size;
    loop {
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        content.read_exact(&mut buffer[..count]).map_err(|error| damaged(&error.to_string()))?;
        hasher.update(&buffer[..count]);
        left -= count as u64;
        if left == 0 && Some(std::mem::take(&mut hasher).finish().digest) != entry.digest {
            return Err(damaged(
                "its content has another digest than the index says; what was written of it is not it",
            ));
        }
        if let Err(error) = out.write_all(&buffer[..count]) {
            return closed(&error);
        }
        if left == 0 {
            return out.flush().map_or_else(|error| closed(&error), |()| Ok(Exit::Done));
        }
    }
}

fn missing(archive: &ArchiveReader, path: &[u8]) -> Fault {
    let fault = Fault::new(ErrorCode::NotFound, format!("the index of this archive has no {}", shown(path)));
    match &archive.header().base {
        Some(base) => fault.with_hint(format!("what did not change is in {}", base.name)),
        None => {
            fault.with_hint("coord-agent archive list shows what is there; names are relative to the archive's root")
        }
    }
}
