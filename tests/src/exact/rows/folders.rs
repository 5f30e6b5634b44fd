//! Folders, the source's own among them, and names that become another kind.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::make::{as_root, attribute, mode, owner, time};
use super::{Row, Rule, row};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            ("empty folder", "one added, one removed"),
            ("empty-folders", b"stays"),
            (
                |at| fs::create_dir(at.join("stays")).and_then(|()| fs::create_dir(at.join("goes"))),
                |at| fs::remove_dir(at.join("goes")).and_then(|()| fs::create_dir(at.join("comes"))),
            ),
        ),
        row(
            ("sticky folder", "the sticky bit, set and taken"),
            ("sticky-folders", b"set"),
            (|at| with_bits(at, 0o777, 0o1777), |at| change_bits(at, 0o1777, 0o777)),
        ),
        row(
            ("setgid folder, with a file of another group in it", "the setgid bit, set and taken"),
            ("setgid-folders", b"set"),
            (make_setgid, |at| change_bits(at, 0o2755, 0o755)),
        ),
        row(
            ("folder that nobody may enter", "its mode"),
            ("closed-folders", b"closed"),
            (
                |at| {
                    as_root()?;
                    fs::create_dir(at.join("closed"))?;
                    mode(&at.join("closed"), 0)
                },
                |at| mode(&at.join("closed"), 0o111),
            ),
        ),
        row(
            ("another kind under the same name", "file, folder, symbolic link: each to each"),
            ("kinds", b"file-to-folder"),
            (make_kinds, alter_kinds),
        ),
        Row {
            rule: Rule::Root,
            ..row(("the source's own folder", "mode, time, an attribute"), ("", b""), (make_root, alter_root))
        },
    ]
}

fn with_bits(at: &Path, plain: u32, special: u32) -> io::Result<()> {
    for (name, bits) in [("set", plain), ("taken", special)] {
        fs::create_dir(at.join(name))?;
        fs::write(at.join(name).join("inside"), "inside")?;
        mode(&at.join(name), bits)?;
    }
    Ok(())
}

fn change_bits(at: &Path, set: u32, taken: u32) -> io::Result<()> {
    mode(&at.join("set"), set)?;
    mode(&at.join("taken"), taken)
}

fn make_setgid(at: &Path) -> io::Result<()> {
    with_bits(at, 0o755, 0o755)?;
    for name in ["set", "taken"] {
        owner(&at.join(name), None, Some(12321))?;
        owner(&at.join(name).join("inside"), None, Some(12322))?;
    }
    mode(&at.join("taken"), 0o2755)
}

fn make_kinds(at: &Path) -> io::Result<()> {
    for name in ["file-to-folder", "file-to-link"] {
        fs::write(at.join(name), name)?;
    }
    for name in ["folder-to-file", "folder-to-link"] {
        fs::create_dir_all(at.join(name).join("sub"))?;
        fs::write(at.join(name).join("sub/inside"), "inside")?;
    }
    symlink("sub", at.join("link-to-file"))?;
    symlink("folder-to-file", at.join("link-to-folder"))
}

fn alter_kinds(at: &Path) -> io::Result<()> {
    for name in ["file-to-folder", "file-to-link", "link-to-file", "link-to-folder"] {
        fs::remove_file(at.join(name))?;
    }
    for name in ["folder-to-file", "folder-to-link"] {
        fs::remove_dir_all(at.join(name))?;
    }
    for name in ["file-to-folder", "link-to-folder"] {
        fs::create_dir(at.join(name))?;
        fs::write(at.join(name).join("inside"), name)?;
    }
    for name in ["folder-to-file", "link-to-file"] {
        fs::write(at.join(name), "a file now")?;
    }
    for name in ["file-to-link", "folder-to-link"] {
        symlink("kinds", at.join(name))?;
    }
    Ok(())
}

fn make_root(at: &Path) -> io::Result<()> {
    mode(at, 0o751)?;
    attribute(at, "user.root", b"one")
}

fn alter_root(at: &Path) -> io::Result<()> {
    mode(at, 0o1775)?;
    attribute(at, "user.root", b"two")?;
    time(at, 1_600_000_000, 987_654_321)
}
