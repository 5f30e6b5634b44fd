//! The recipe: what turns stock `tar` into an exact restore, with no program of ours.
//!
//! Owns the text of `.coord/RESTORE.txt`, the names in `.coord/deleted` and the lines of `.coord/attributes.sh`. Lines and
//! names are spooled to unlinked files in a scratch folder, so memory does not grow with the tree. What is written where
//! in the archive is the packer's business; nothing here is ever executed by us.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::entry::{Attributes, Entry, FileTime, Kind, MAX_PATH_BYTES};

mod text;

pub use text::{PLACE, restore_txt};

/// Inode flags that a restore sets again, with the letters of `chattr`. Everything else `lsattr` shows belongs to the file
/// system or needs more than a flag.
const FLAG_LETTERS: [(u32, char); 12] = [
    (0x1, 's'),
    (0x2, 'u'),
    (0x4, 'c'),
    (0x8, 'S'),
    (0x10, 'i'),
    (0x20, 'a'),
    (0x40, 'd'),
    (0x80, 'A'),
    (0x4000, 'j'),
    (0x8000, 't'),
    (0x1_0000, 'D'),
    (0x80_0000, 'C'),
];

/// All inode flags that are recorded and restored, as `FS_IOC_GETFLAGS` gives them.
pub const RESTORABLE_INODE_FLAGS: u32 = {
    let mut all = 0;
    let mut at = 0;
    while at < FLAG_LETTERS.len() {
        all |= FLAG_LETTERS[at].0;
        at += 1;
    }
    all
};

/// How much of the spool is read back at a time when its order is reversed; holds several of the longest names.
const REVERSE_WINDOW: usize = 4 * MAX_PATH_BYTES;

/// The beginning of every `attributes.sh`. With the name of a marker file as its argument, the script only sets inode
/// flags, and only on names that nothing changed since the marker was made: so a full's flags are set behind its differential's back.
const SCRIPT_HEAD: &str = r#"#!/bin/sh
# What tar cannot restore. Run it in the restored folder as root: see RESTORE.txt beside it.
LC_ALL=C; export LC_ALL
s=0
marker=${1-}
flags() {
    if [ -n "$marker" ]; then
        [ -e "$2" ] || return 0
        [ -z "$(find "$2" -prune -newercm "$marker" -printf x)" ] || return 0
    fi
    chattr "+$1" "$2" || s=1
}
"#;

/// Spools the lines and names of one archive's recipe. Calls come in path order.
#[derive(Debug)]
pub struct Recipe {
    deleted: Spool,
    deleted_backwards: Spool,
    attributes: Spool,
    inode_flags: Spool,
    root: Vec<u8>,
    root_flags: Vec<u8>,
}

/// One finished member of the recipe, to be read from its beginning.
#[derive(Debug)]
pub struct Spooled {
    /// An unlinked file, positioned at its beginning.
    pub file: File,
    /// Its length in bytes.
    pub length: u64,
}

/// The finished members.
#[derive(Debug)]
pub struct RecipeFiles {
    /// Content of `.coord/deleted`: names that begin with `./`, each ended by a NUL, deepest first.
    pub deleted: Spooled,
    /// Content of `.coord/attributes.sh`.
    pub attributes_sh: Spooled,
}

impl Recipe {
    /// An empty recipe that spools into unlinked files in `scratch`.
    pub fn new(scratch: &Path) -> io::Result<Self> {
        let mut attributes = Spool::new(scratch)?;
        attributes.put(SCRIPT_HEAD.as_bytes())?;
        Ok(Self {
            deleted: Spool::new(scratch)?,
            deleted_backwards: Spool::new(scratch)?,
            attributes,
            inode_flags: Spool::new(scratch)?,
            root: Vec::new(),
            root_flags: Vec::new(),
        })
    }

    /// `path` of the base is gone, or must go because its type changed.
    pub fn removed(&mut self, path: &[u8]) -> io::Result<()> {
        let too_long = || io::Error::other("a path is too long");
        let length = u32::try_from(path.len()).map_err(|_| too_long())?;
        self.deleted.put(path)?;
        self.deleted.put(&length.to_le_bytes())
    }

    /// The name exists when the script runs and gets exactly these attributes, inode flags included. Extended attributes
    /// of `base` that `entry` does not have are removed. The root's lines are kept for the end.
    pub fn attributes(&mut self, base: Option<&Attributes>, entry: &Entry) -> io::Result<()> {
        let lines = attribute_lines(base, entry);
        if entry.path.is_empty() {
            self.root = lines;
        } else {
            self.attributes.put(&lines)?;
        }
        self.inode_flags(entry)
    }

    /// The name gets these inode flags when everything else is done; nothing is written for a name without flags.
    pub fn inode_flags(&mut self, entry: &Entry) -> io::Result<()> {
        let letters = flag_letters(entry.attributes.inode_flags);
        if letters.is_empty() || !matches!(entry.kind, Kind::File | Kind::Folder) {
            return Ok(());
        }
        let line = [b"flags ", letters.as_bytes(), b" ", &quoted_name(&entry.path), b"\n"].concat();
        if entry.path.is_empty() {
            self.root_flags = line;
            return Ok(());
        }
        self.inode_flags.put(&line)
    }

    /// Ends the recipe. `root` is the root's own entry; `dot_coord` is the name of our folder in the archive.
    pub fn finish(mut self, root: &Entry, dot_coord: &str) -> io::Result<RecipeFiles> {
        if self.root.is_empty() {
            self.root = attribute_lines(None, root);
            self.inode_flags(root)?;
        }
        let mut script = self.attributes;
        let mut flags = self.inode_flags.finish()?;
        script.append(&mut flags)?;
        script.put(b"[ -z \"$marker\" ] || exit \"$s\"\n")?;
        script.put(&[b"rm -rf ", quoted_name(dot_coord.as_bytes()).as_slice(), b" || s=1\n"].concat())?;
        script.put(&self.root)?;
        script.put(&self.root_flags)?;
        script.put(b"exit \"$s\"\n")?;
        Ok(RecipeFiles { deleted: reverse(self.deleted, self.deleted_backwards)?, attributes_sh: script.finish()? })
    }
}

/// Commands for one name, each on its own line: owner, extended attributes, mode, time. Changing the owner clears
/// capabilities and set-id bits, so what is to be there is set behind it, and what is to go goes before it: removing a
/// capability that is gone already would be an error. Setting the times comes last.
fn attribute_lines(base: Option<&Attributes>, entry: &Entry) -> Vec<u8> {
    let attributes = &entry.attributes;
    let name = quoted_name(&entry.path);
    let mut out = Vec::new();
    let mut line = |command: &[u8]| {
        out.extend_from_slice(command);
        out.push(b' ');
        out.extend_from_slice(&name);
        out.extend_from_slice(b" || s=1\n");
    };
    let gone = base.map_or(&[][..], |base| &base.xattrs).iter();
    for old in gone.filter(|old| attributes.xattrs.iter().all(|new| new.name != old.name)) {
        line(&[b"setfattr -h -x ", quoted(&old.name).as_slice()].concat());
    }
    line(format!("chown -h {}:{}", attributes.uid, attributes.gid).as_bytes());
    for xattr in &attributes.xattrs {
        // Base64 keeps the largest value (64 KiB) below the longest argument (128 KiB), hexadecimal would not.
        let value = if xattr.value.is_empty() { "''".to_owned() } else { format!("0s{}", base64(&xattr.value)) };
        line(&[b"setfattr -h -n ", quoted(&xattr.name).as_slice(), b" -v ", value.as_bytes()].concat());
    }
    if entry.kind != Kind::Symlink {
        // Five digits: with fewer, GNU chmod keeps a folder's set-id bits.
        line(format!("chmod {:05o}", attributes.mode & 0o7777).as_bytes());
    }
    line(format!("touch -chm -d @{}", decimal_time(attributes.mtime)).as_bytes());
    out
}

/// Letters of `chattr` for the flags that can be set.
fn flag_letters(flags: u32) -> String {
    FLAG_LETTERS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| *letter).collect()
}

/// The flags that letters of `chattr` stand for; `None` for a letter that is never written.
pub(crate) fn flag_bits(letters: &[u8]) -> Option<u32> {
    letters.iter().try_fold(0, |flags, letter| {
        let known = FLAG_LETTERS.iter().find(|(_, known)| *known == char::from(*letter));
        known.map(|(bit, _)| flags | bit)
    })
}

/// A name as a word of the shell, beginning with `./`; the root is `.`.
fn quoted_name(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { b"'.'".to_vec() } else { quoted(&[b"./", path].concat()) }
}

/// Any bytes but NUL as one word of a POSIX shell.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    out.push(b'\'');
    for &byte in bytes {
        match byte {
            b'\'' => out.extend(b"'\\''"),
            other => out.push(other),
        }
    }
    out.push(b'\'');
    out
}

/// Seconds since the epoch as GNU touch reads them: the fraction of a negative time goes on from zero.
fn decimal_time(time: FileTime) -> String {
    const BILLION: i128 = 1_000_000_000;
    let total = i128::from(time.seconds) * BILLION + i128::from(time.nanos);
    let sign = if total < 0 { "-" } else { "" };
    format!("{sign}{}.{:09}", total.abs() / BILLION, total.abs() % BILLION)
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| usize::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let padding = digit > group.len();
            let value = bits >> (18 - 6 * digit) & 63;
            out.push(if padding { '=' } else { char::from(DIGITS[value]) });
        }
    }
    out
}

/// An unlinked temporary file that is appended to.
#[derive(Debug)]
struct Spool {
    file: BufWriter<File>,
    length: u64,
}

impl Spool {
    fn new(scratch: &Path) -> io::Result<Self> {
        let file = crate::spool::unnamed(scratch)?;
        Ok(Self { file: BufWriter::new(file), length: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn append(&mut self, other: &mut Spooled) -> io::Result<()> {
        self.length += io::copy(&mut BufReader::new(&mut other.file), &mut self.file)?;
        Ok(())
    }

    fn finish(self) -> io::Result<Spooled> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Spooled { file, length: self.length })
    }
}

/// Copies the names of `spool` to `out`, last one first. Each record of the spool is a name followed by its length.
fn reverse(spool: Spool, mut out: Spool) -> io::Result<Spooled> {
    const LENGTH: usize = size_of::<u32>();
    let Spooled { file, length } = spool.finish()?;
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(REVERSE_WINDOW as u64);
        // At most REVERSE_WINDOW.
        let mut window = vec![0; (end - start) as usize];
        file.read_exact_at(&mut window, start)?;
        while let Some((record, tail)) = window.split_last_chunk::<LENGTH>() {
            let Some(from) = record.len().checked_sub(u32::from_le_bytes(*tail) as usize) else { break };
            out.put(b"./")?;
            out.put(&record[from..])?;
            out.put(&[0])?;
            window.truncate(from);
        }
        if start + window.len() as u64 == end {
            return Err(io::Error::other("a spooled name is longer than any path"));
        }
        end = start + window.len() as u64;
    }
    out.finish()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
