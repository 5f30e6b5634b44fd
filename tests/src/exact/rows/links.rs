//! Symbolic and hard links.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType};

use super::make::{keeping_time, mode, special};
use super::{Row, row};

/// Longest target that Linux takes.
const LONGEST_TARGET: usize = 4095;

pub(super) fn rows() -> Vec<Row> {
    [symbolic(), hard()].concat()
}

fn symbolic() -> Vec<Row> {
    vec![
        row(
            ("symbolic link: to a name, upwards, absolute, of any bytes", "the target"),
            ("symlinks", b"to-name"),
            (make_symlinks, alter_symlinks),
        ),
        row(
            ("dangling symbolic link", "another target that is not there"),
            ("dangling", b"dangling"),
            (|at| symlink("nowhere/at/all", at.join("dangling")), |at| relink(&at.join("dangling"), "/nowhere/either")),
        ),
        row(
            ("symbolic link with a target of 4 KiB", "the target's last byte"),
            ("long-target", b"long"),
            (
                |at| symlink("t".repeat(LONGEST_TARGET), at.join("long")),
                |at| relink(&at.join("long"), &format!("{}u", "t".repeat(LONGEST_TARGET - 1))),
            ),
        ),
    ]
}

fn hard() -> Vec<Row> {
    vec![
        row(
            ("hard links: three names in two folders", "the content of all"),
            ("linked-content", b"sub/third"),
            (make_three, |at| fs::write(at.join("second"), "new content")),
        ),
        row(
            ("hard link whose other name is outside the source", "the content"),
            ("linked-outside", b"inside"),
            (make_outside, |at| fs::write(at.join("inside"), "new content")),
        ),
        row(
            ("hard links, attributes of all", "the mode"),
            ("linked-mode", b"second"),
            (make_three, |at| mode(&at.join("second"), 0o604)),
        ),
        row(
            ("hard links, a name added", "one more name, before all others"),
            ("linked-added", b"a-fourth"),
            (make_three, |at| fs::hard_link(at.join("second"), at.join("a-fourth"))),
        ),
        row(
            ("hard links, a name removed", "the last name"),
            ("linked-removed", b"second"),
            (make_three, |at| fs::remove_file(at.join("sub/third"))),
        ),
        row(
            ("hard links, the first name gone", "the name that the full stored"),
            ("linked-first-gone", b"second"),
            (make_three, |at| fs::remove_file(at.join("first"))),
        ),
        row(
            ("hard links, a name split off", "a file of its own with equal content"),
            ("linked-split", b"second"),
            (make_three, |at| {
                fs::remove_file(at.join("second"))?;
                fs::write(at.join("second"), "three names")
            }),
        ),
        row(
            ("hard links, two files joined", "equal files become one"),
            ("linked-joined", b"right"),
            (make_pair, |at| {
                fs::remove_file(at.join("right"))?;
                fs::hard_link(at.join("left"), at.join("right"))
            }),
        ),
        row(
            ("hard links to symbolic links and FIFOs", "one more name of each"),
            ("linked-specials", b"link-2"),
            (make_linked_specials, |at| {
                link_itself(&at.join("link-1"), &at.join("link-3"))?;
                fs::hard_link(at.join("pipe-1"), at.join("pipe-3"))
            }),
        ),
    ]
}

fn make_symlinks(at: &Path) -> io::Result<()> {
    fs::write(at.join("name"), "name")?;
    symlink("name", at.join("to-name"))?;
    symlink("..", at.join("upwards"))?;
    symlink("/etc/hostname", at.join("absolute"))?;
    symlink(OsStr::from_bytes(b"odd\n\xff\t"), at.join("odd"))
}

fn alter_symlinks(at: &Path) -> io::Result<()> {
    for name in ["to-name", "upwards", "absolute"] {
        relink(&at.join(name), "to/another")?;
    }
    Ok(())
}

/// Another target for a link that keeps its time, in a folder that keeps its own.
fn relink(path: &Path, target: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    keeping_time(folder, || {
        keeping_time(path, || {
            fs::remove_file(path)?;
            symlink(target, path)
        })
    })
}

fn make_three(at: &Path) -> io::Result<()> {
    fs::create_dir(at.join("sub"))?;
    fs::write(at.join("first"), "three names")?;
    fs::hard_link(at.join("first"), at.join("second"))?;
    fs::hard_link(at.join("first"), at.join("sub/third"))
}

/// Beside the source, which is the folder above.
fn make_outside(at: &Path) -> io::Result<()> {
    fs::write(at.join("inside"), "content")?;
    fs::hard_link(at.join("inside"), at.join("../../outside"))
}

fn make_pair(at: &Path) -> io::Result<()> {
    fs::write(at.join("left"), "equal")?;
    fs::write(at.join("right"), "equal")
}

fn make_linked_specials(at: &Path) -> io::Result<()> {
    symlink("target", at.join("link-1"))?;
    link_itself(&at.join("link-1"), &at.join("link-2"))?;
    special(&at.join("pipe-1"), FileType::Fifo, 0o640, (0, 0))?;
    fs::hard_link(at.join("pipe-1"), at.join("pipe-2"))
}

/// A further name of a symbolic link, not of what it points to.
fn link_itself(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())?)
}
