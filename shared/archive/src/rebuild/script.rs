//! Reading `.coord/attributes.sh` back: inode flags, which no tar member carries, and what a differential says of names of which
//! only attributes had changed.
//!
//! The script's commands stand in no order that helps, so they are sorted here, a bounded number at a time. Commands that
//! this format does not write are passed over.

use std::io::{BufRead as _, Read};
use std::path::Path;

use super::RebuildError;
use super::names::{EntryRuns, EntrySpool, Kept, named};
use crate::entry::{Entry, FileTime, Kind, Xattr, is_clean_path};
use crate::recipe::flag_bits;
use crate::tar::read::time;

/// How many names are sorted at once.
const SORTED_AT_ONCE: usize = 64 << 10;
/// Longest command: three words of at most the longest argument of Linux, with room for quotes.
const MAX_COMMAND_BYTES: usize = 1 << 20;

/// What the script says, as entries of no kind but a file's: attributes only.
pub(super) fn read(kept: &mut Kept, folder: &Path) -> Result<EntryRuns, RebuildError> {
    let mut spool = EntrySpool::new(folder)?;
    let mut names: Vec<Entry> = Vec::new();
    let mut at_hand: Option<Entry> = None;
    let mut reader = kept.reader()?;
    while let Some(words) = command(&mut reader)? {
        let Some((path, change)) = meaning(&words) else { continue };
        let mut entry = match at_hand.take() {
            Some(entry) if entry.path == path => entry,
            other => {
                names.extend(other);
                named(path, Kind::File)
            }
        };
        apply(change, &mut entry);
        at_hand = Some(entry);
        if names.len() >= SORTED_AT_ONCE {
            spill(&mut names, &mut spool)?;
        }
    }
    names.extend(at_hand);
    spill(&mut names, &mut spool)?;
    spool.finish()
}

/// Writes the names in path order. Lines for one name that stand apart are brought together.
fn spill(names: &mut Vec<Entry>, spool: &mut EntrySpool) -> Result<(), RebuildError> {
    names.sort_by(|a, b| crate::entry::cmp_paths(&a.path, &b.path));
    let mut last: Option<Entry> = None;
    for entry in names.drain(..) {
        match &mut last {
            Some(before) if before.path == entry.path => join(before, &entry),
            _ => {
                if let Some(before) = last.replace(entry) {
                    spool.push(&before)?;
                }
            }
        }
    }
    last.map_or(Ok(()), |last| spool.push(&last))
}

/// Adds what `other` says of the same name. Only a name whose mode or time is set says all of its attributes.
pub(super) fn join(entry: &mut Entry, other: &Entry) {
    let flags = entry.attributes.inode_flags | other.attributes.inode_flags;
    if !says_all(entry) {
        entry.attributes = other.attributes.clone();
        entry.size = other.size;
    }
    entry.attributes.inode_flags = flags;
}

/// Whether the script sets owner, mode, time and extended attributes of the name, and not inode flags alone.
pub(super) fn says_all(entry: &Entry) -> bool {
    entry.size != 0
}

/// What one command does.
enum Change {
    Owner(u32, u32),
    Xattr(Xattr),
    Mode(u32),
    Time(FileTime),
    Flags(u32),
}

fn apply(change: Change, entry: &mut Entry) {
    let attributes = &mut entry.attributes;
    match change {
        Change::Owner(uid, gid) => {
            (attributes.uid, attributes.gid) = (uid, gid);
            attributes.xattrs.clear();
            // A symbolic link's mode is never set: this says that there is none.
            attributes.mode = u32::MAX;
        }
        Change::Xattr(xattr) => attributes.xattrs.push(xattr),
        Change::Mode(mode) => attributes.mode = mode,
        Change::Time(time) => {
            attributes.mtime = time;
            attributes.xattrs.sort();
            // The last command of those that say everything.
            entry.size = 1;
        }
        Change::Flags(flags) => attributes.inode_flags |= flags,
    }
}

/// The words of the next command; `None` at the end, or where the script is cut.
fn command(reader: &mut impl std::io::BufRead) -> Result<Option<Vec<Vec<u8>>>, RebuildError> {
    let mut line = Vec::new();
    loop {
        let limit = (MAX_COMMAND_BYTES - line.len()) as u64;
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(RebuildError::Spool)?;
        if read == 0 || !line.ends_with(b"\n") {
            return Ok(None);
        }
        // A name may hold a newline; then its quotes are still open.
        if let Some(words) = words(&line[..line.len() - 1]) {
            return Ok(Some(words));
        }
    }
}

/// Words as a POSIX shell takes them, of which any bytes may be in single quotes; `None` while quotes are open.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' => words.extend(word.take()),
            b'\'' => {
                let rest = bytes.as_slice();
                let end = rest.iter().position(|byte| *byte == b'\'')?;
                word.get_or_insert_default().extend(&rest[..end]);
                bytes = rest[end + 1..].iter();
            }
            b'\\' => word.get_or_insert_default().push(*bytes.next()?),
            other => word.get_or_insert_default().push(*other),
        }
    }
    words.extend(word);
    Some(words)
}

/// Which name a command changes, and how.
fn meaning(words: &[Vec<u8>]) -> Option<(Vec<u8>, Change)> {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let (name, change) = match words.as_slice() {
        [b"chown", b"-h", owner, name, b"||", b"s=1"] => {
            let (uid, gid) = std::str::from_utf8(owner).ok()?.split_once(':')?;
            (name, Change::Owner(uid.parse().ok()?, gid.parse().ok()?))
        }
        [b"setfattr", b"-h", b"-n", key, b"-v", value, name, b"||", b"s=1"] => {
            let value = value.strip_prefix(b"0s").map_or(Some(Vec::new()), base64)?;
            (name, Change::Xattr(Xattr { name: key.to_vec(), value }))
        }
        [b"chmod", mode, name, b"||", b"s=1"] => {
            let mode = u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok()?;
            (name, Change::Mode(mode & 0o7777))
        }
        [b"touch", b"-chm", b"-d", when, name, b"||", b"s=1"] => (name, Change::Time(time(when.strip_prefix(b"@")?)?)),
        [b"flags", letters, name] => (name, Change::Flags(flag_bits(letters)?)),
        _ => return None,
    };
    let path = if *name == b"." { &[][..] } else { name.strip_prefix(b"./").filter(|path| !path.is_empty())? };
    is_clean_path(path).then(|| (path.to_vec(), change))
}

/// The inverse of the recipe's base64, which is the standard one with padding.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Vec::with_capacity(digits.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        out.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::entry::Attributes;
    use crate::recipe::Recipe;

    fn entry(path: &[u8], kind: Kind, mode: u32, inode_flags: u32) -> Entry {
        let value = (0..=u8::from_str_radix("ff", 16).unwrap()).collect();
        let xattrs =
            vec![Xattr { name: b"user.'=".to_vec(), value }, Xattr { name: b"user.none".to_vec(), value: Vec::new() }];
        let mtime = FileTime { seconds: -2, nanos: 5 };
        let attributes = Attributes { mode, uid: 7, gid: 8, mtime, inode_flags, xattrs, ..Attributes::default() };
        Entry { attributes, ..named(path.to_vec(), kind) }
    }

    #[test]
    fn what_the_recipe_writes_comes_back_in_path_order() {
        let scratch = tempfile::tempdir().unwrap();
        let mut recipe = Recipe::new(scratch.path()).unwrap();
        let names: [&[u8]; 4] = [b"a/b", b"a", b"new\nline ' \\", b"\xff"];
        for name in names {
            recipe.attributes(None, &entry(name, Kind::File, 0o4751, 0x10)).unwrap();
        }
        recipe.inode_flags(&entry(b"flagged", Kind::File, 0, 0x30)).unwrap();
        recipe.attributes(None, &entry(b"link", Kind::Symlink, 0, 0)).unwrap();
        let mut files = recipe.finish(&entry(b"", Kind::Folder, 0o755, 0), ".coord").unwrap();
        let mut kept = Kept::new(scratch.path()).unwrap();
        let mut bytes = Vec::new();
        files.attributes_sh.file.read_to_end(&mut bytes).unwrap();
        kept.push(&bytes).unwrap();
        let runs = read(&mut kept, scratch.path()).unwrap();
        let mut found = Vec::new();
        for mut run in runs.runs() {
            while let Some(entry) = run.next().unwrap() {
                found.push(entry);
            }
        }
        let paths: Vec<&[u8]> = found.iter().map(|entry| entry.path.as_slice()).collect();
        assert_eq!(paths, [&b""[..], b"a", b"a/b", b"flagged", b"link", b"new\nline ' \\", b"\xff"]);
        for entry_found in found {
            let expected = entry(&entry_found.path, Kind::File, 0o4751, 0x10).attributes;
            match entry_found.path.as_slice() {
                b"" => assert_eq!(entry_found.attributes.mode, 0o755),
                b"flagged" => {
                    assert!(!says_all(&entry_found));
                    assert_eq!(entry_found.attributes.inode_flags, 0x30);
                }
                b"link" => assert_eq!(entry_found.attributes.mode, u32::MAX),
                _ => assert_eq!(entry_found.attributes, expected),
            }
        }
    }
}
