//! Inode flags, as `lsattr` shows them.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::IFlags;

use super::make;
use super::{Row, row};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            ("immutable file and folder", "set and taken"),
            ("immutable", b"set"),
            (|at| make(at, IFlags::IMMUTABLE), |at| alter(at, IFlags::IMMUTABLE)),
        ),
        row(
            ("append-only file and folder", "set and taken"),
            ("append-only", b"set-folder"),
            (|at| make(at, IFlags::APPEND), |at| alter(at, IFlags::APPEND)),
        ),
        row(
            ("nodump file and folder", "set and taken"),
            ("nodump", b"set"),
            (|at| make(at, IFlags::NODUMP), |at| alter(at, IFlags::NODUMP)),
        ),
        row(
            ("immutable file with content and attributes", "the content; it is immutable before and after"),
            ("immutable-content", b"file"),
            (
                |at| {
                    fs::write(at.join("file"), "one")?;
                    make::flags(&at.join("file"), IFlags::IMMUTABLE, IFlags::empty())
                },
                |at| {
                    make::flags(&at.join("file"), IFlags::empty(), IFlags::IMMUTABLE)?;
                    fs::write(at.join("file"), "two")?;
                    make::flags(&at.join("file"), IFlags::IMMUTABLE, IFlags::empty())
                },
            ),
        ),
    ]
}

fn make(at: &Path, flag: IFlags) -> io::Result<()> {
    for name in ["set", "taken", "kept"] {
        fs::write(at.join(name), name)?;
        let folder = at.join(format!("{name}-folder"));
        fs::create_dir(&folder)?;
        fs::write(folder.join("inside"), "inside")?;
    }
    for name in ["taken", "taken-folder", "kept", "kept-folder"] {
        make::flags(&at.join(name), flag, IFlags::empty())?;
    }
    Ok(())
}

fn alter(at: &Path, flag: IFlags) -> io::Result<()> {
    for name in ["set", "set-folder"] {
        make::flags(&at.join(name), flag, IFlags::empty())?;
    }
    for name in ["taken", "taken-folder"] {
        make::flags(&at.join(name), IFlags::empty(), flag)?;
    }
    Ok(())
}
