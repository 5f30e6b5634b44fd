//! Names: odd, long, deep, many.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::make::mode;
use super::{Ground, Row, row};

/// How many folders lie in each other.
const DEPTH: usize = 200;

/// How many entries are in one folder.
const MANY: usize = 100_000;

/// How many of them are names of one file: some file systems take minutes to make half a million files.
const NAMES_OF_ONE: usize = 20;

/// Bytes of each folder's name in a long path.
const PART: usize = 250;

/// With the name at its end, its row's folder and `./` before it, this many folders make the longest path a call takes.
const LONG: usize = 16;

/// The name at the end of that path.
const LONG_NAME: [u8; 67] = [b'e'; 67];

/// This many folders make a path that no single call takes.
const BEYOND: usize = 24;

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            ("names of every byte but / and NUL", "half of them removed, others added"),
            ("bytes", b"\n"),
            (make_bytes, alter_bytes),
        ),
        row(
            ("names of 255 bytes", "renamed"),
            ("long-names", &[b'm'; 255]),
            (
                |at| fs::write(at.join("n".repeat(255)), "255").and_then(|()| fs::write(at.join("o".repeat(255)), "o")),
                |at| fs::rename(at.join("n".repeat(255)), at.join("m".repeat(255))),
            ),
        ),
        row(
            ("path of 4 KiB", "the mode of the file at its end"),
            ("long-path", &chain(LONG, &LONG_NAME)),
            (|at| make_chain(at, LONG, &LONG_NAME), |at| alter_chain(at, LONG, &LONG_NAME)),
        ),
        Row {
            ground: Ground::BeyondTar,
            ..row(
                ("path of 6,000 bytes, longer than a system call takes", "the mode of the file at its end"),
                ("longer-path", &chain(BEYOND, b"file")),
                (|at| make_chain(at, BEYOND, b"file"), |at| alter_chain(at, BEYOND, b"file")),
            )
        },
        row(
            ("folders 200 deep", "a file at the bottom and the mode half way"),
            ("deep", deep(DEPTH).join("bottom").as_os_str().as_bytes()),
            (make_deep, alter_deep),
        ),
        Row {
            ground: Ground::Large,
            ..row(
                ("100,000 entries in one folder, 20 for each file", "one added, one removed, the mode of one file"),
                ("many", b"050001"),
                (make_many, alter_many),
            )
        },
    ]
}

/// One name of each byte that a name may have, but for the dot, which is a name already.
fn byte_names() -> impl Iterator<Item = u8> {
    (1..=u8::MAX).filter(|byte| !matches!(byte, b'/' | b'.'))
}

fn make_bytes(at: &Path) -> io::Result<()> {
    byte_names().try_for_each(|byte| fs::write(at.join(OsStr::from_bytes(&[byte])), [byte]))
}

/// Every second name goes; each byte comes as a folder's name as well, at the end of it.
fn alter_bytes(at: &Path) -> io::Result<()> {
    for byte in byte_names() {
        if byte % 2 == 1 {
            fs::remove_file(at.join(OsStr::from_bytes(&[byte])))?;
        }
        let folder = at.join(OsStr::from_bytes(&[b'-', byte]));
        fs::create_dir(&folder)?;
        fs::write(folder.join("inside"), [byte])?;
    }
    Ok(())
}

fn chain(parts: usize, name: &[u8]) -> Vec<u8> {
    let folder = [[b'p'; PART].as_slice(), b"/"].concat();
    [&folder.repeat(parts), name].concat()
}

/// Goes down a chain of folders, making those that are not there.
fn bottom(at: &Path, parts: usize) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = rustix::fs::open(at, flags, Mode::empty())?;
    for _ in 0..parts {
        match rustix::fs::mkdirat(&folder, &[b'p'; PART][..], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        folder = rustix::fs::openat(&folder, &[b'p'; PART][..], flags, Mode::empty())?;
    }
    Ok(folder)
}

fn make_chain(at: &Path, parts: usize, name: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(bottom(at, parts)?, name, flags, Mode::from_raw_mode(0o644))?;
    File::from(file).write_all(b"far away")
}

fn alter_chain(at: &Path, parts: usize, name: &[u8]) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o600);
    Ok(rustix::fs::chmodat(bottom(at, parts)?, name, mode, AtFlags::empty())?)
}

fn deep(depth: usize) -> PathBuf {
    (0..depth).map(|level| format!("d{level}")).collect()
}

fn make_deep(at: &Path) -> io::Result<()> {
    fs::create_dir_all(at.join(deep(DEPTH)))?;
    fs::write(at.join(deep(DEPTH)).join("bottom"), "bottom")
}

fn alter_deep(at: &Path) -> io::Result<()> {
    fs::write(at.join(deep(DEPTH)).join("bottom"), "new bottom")?;
    mode(&at.join(deep(DEPTH / 2)), 0o711)
}

fn make_many(at: &Path) -> io::Result<()> {
    let name = |number: usize| at.join(format!("{number:06}"));
    for first in (0..MANY).step_by(NAMES_OF_ONE) {
        File::create(name(first))?;
        (first + 1..first + NAMES_OF_ONE).try_for_each(|number| fs::hard_link(name(first), name(number)))?;
    }
    Ok(())
}

fn alter_many(at: &Path) -> io::Result<()> {
    fs::remove_file(at.join("000000"))?;
    File::create(at.join("added"))?;
    mode(&at.join("050001"), 0o604)
}
