//! What is neither file nor folder nor link.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::FileType;

use super::make::{keeping_time, mode, special};
use super::{Row, Rule, row};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            ("FIFO", "the mode"),
            ("fifo", b"fifo"),
            (|at| special(&at.join("fifo"), FileType::Fifo, 0o640, (0, 0)), |at| mode(&at.join("fifo"), 0o604)),
        ),
        row(
            ("character device", "the device number"),
            ("char-device", b"device"),
            (
                |at| special(&at.join("device"), FileType::CharacterDevice, 0o640, (1, 3)),
                |at| renumber(&at.join("device"), FileType::CharacterDevice, (1, 5)),
            ),
        ),
        row(
            ("block device, with a large number", "the device number"),
            ("block-device", b"device"),
            (
                |at| special(&at.join("device"), FileType::BlockDevice, 0o660, (259, 70_000)),
                |at| renumber(&at.join("device"), FileType::BlockDevice, (259, 70_001)),
            ),
        ),
        Row {
            rule: Rule::Sockets,
            ..row(("socket", "a file becomes one"), ("sockets", b"socket"), (make_sockets, alter_sockets))
        },
    ]
}

fn renumber(path: &Path, kind: FileType, device: (u32, u32)) -> io::Result<()> {
    let permissions = rustix::fs::lstat(path)?.st_mode & 0o7777;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    keeping_time(folder, || {
        keeping_time(path, || {
            fs::remove_file(path)?;
            special(path, kind, permissions, device)
        })
    })
}

fn make_sockets(at: &Path) -> io::Result<()> {
    fs::write(at.join("file"), "not a socket yet")?;
    special(&at.join("socket"), FileType::Socket, 0o755, (0, 0))
}

fn alter_sockets(at: &Path) -> io::Result<()> {
    fs::remove_file(at.join("file"))?;
    special(&at.join("file"), FileType::Socket, 0o755, (0, 0))
}
