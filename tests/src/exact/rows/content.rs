//! Files: what is in them and where they have holes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::make::{CHUNK, keeping_time, noise, overwrite, sparse};
use super::{Ground, Row, row};

/// One chunk beyond 8 GiB, from where on a size does not fit into a plain tar header.
const HUGE: u64 = (8 << 30) + 4 * CHUNK;

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            ("regular file", "the content, with the same size and the same time"),
            ("regular", b"one"),
            (make_regular, alter_regular),
        ),
        row(("empty file", "one emptied, one filled, one added"), ("empty", b"emptied"), (make_empty, alter_empty)),
        row(
            ("file of several pieces", "bytes in the middle; bytes added at the end"),
            ("pieces", b"edited"),
            (make_pieces, alter_pieces),
        ),
        Row {
            ground: Ground::Large,
            ..row(
                ("file of more than 8 GiB (sparse)", "bytes beyond 8 GiB"),
                ("huge", b"huge"),
                (make_huge, alter_huge),
            )
        },
        row(
            (
                "sparse file: holes at its beginning, middle and end; nothing but a hole",
                "data into a hole; longer by a hole",
            ),
            ("sparse", b"filled"),
            (make_sparse, alter_sparse),
        ),
        row(
            ("holes alone", "zeros become a hole, a hole becomes zeros; content and time equal"),
            ("holes", b"punched"),
            (make_holes, alter_holes),
        ),
    ]
}

fn make_regular(at: &Path) -> io::Result<()> {
    fs::write(at.join("one"), "some content")?;
    fs::write(at.join("other"), "other content")
}

fn alter_regular(at: &Path) -> io::Result<()> {
    keeping_time(&at.join("one"), || overwrite(&at.join("one"), 5, b"CONTENT"))
}

fn make_empty(at: &Path) -> io::Result<()> {
    File::create(at.join("empty"))?;
    File::create(at.join("filled"))?;
    fs::write(at.join("emptied"), "content")
}

fn alter_empty(at: &Path) -> io::Result<()> {
    File::create(at.join("emptied"))?;
    fs::write(at.join("filled"), "content")?;
    File::create(at.join("added")).map(drop)
}

fn make_pieces(at: &Path) -> io::Result<()> {
    fs::write(at.join("edited"), noise(1, 5 << 20))?;
    fs::write(at.join("longer"), noise(2, 4 << 20))
}

fn alter_pieces(at: &Path) -> io::Result<()> {
    keeping_time(&at.join("edited"), || overwrite(&at.join("edited"), 3 << 20, b"edited"))?;
    OpenOptions::new().append(true).open(at.join("longer"))?.write_all(b"longer")
}

fn make_huge(at: &Path) -> io::Result<()> {
    sparse(&at.join("huge"), HUGE + 1, &[0, 1 << 16, HUGE / CHUNK - 2])
}

fn alter_huge(at: &Path) -> io::Result<()> {
    keeping_time(&at.join("huge"), || overwrite(&at.join("huge"), HUGE - CHUNK - 6, b"edited"))
}

fn make_sparse(at: &Path) -> io::Result<()> {
    sparse(&at.join("ends"), 20 * CHUNK + 1, &[5, 6, 12])?;
    sparse(&at.join("middle"), 9 * CHUNK, &[0, 8])?;
    sparse(&at.join("hole"), 32 * CHUNK, &[])?;
    sparse(&at.join("filled"), 20 * CHUNK, &[2, 19])?;
    sparse(&at.join("longer"), 6 * CHUNK, &[1])
}

fn alter_sparse(at: &Path) -> io::Result<()> {
    keeping_time(&at.join("filled"), || overwrite(&at.join("filled"), 10 * CHUNK, &noise(3, CHUNK)))?;
    OpenOptions::new().write(true).open(at.join("longer"))?.set_len(40 * CHUNK)
}

fn make_holes(at: &Path) -> io::Result<()> {
    for name in ["punched", "plugged"] {
        sparse(&at.join(name), 40 * CHUNK, &[0, 39])?;
    }
    overwrite(&at.join("punched"), 10 * CHUNK, &zeros())
}

fn alter_holes(at: &Path) -> io::Result<()> {
    keeping_time(&at.join("punched"), || {
        let file = OpenOptions::new().write(true).open(at.join("punched"))?;
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(file, how, 10 * CHUNK, CHUNK)?)
    })?;
    keeping_time(&at.join("plugged"), || overwrite(&at.join("plugged"), 20 * CHUNK, &zeros()))
}

fn zeros() -> Vec<u8> {
    std::iter::repeat_n(0, usize::try_from(CHUNK).unwrap_or(0)).collect()
}
