//! Modes, owners and times.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::make::{as_root, mode, owner, time};
use super::{Row, Rule, row};

/// Owner and group whose names the source's own account files tell.
pub(in crate::exact) const NAMED: (u32, u32) = (54_321, 12_321);

/// The names before and after the change.
pub(in crate::exact) const NAMES: [(&str, &str); 2] = [("ann", "staff"), ("anna", "crew")];

pub(super) fn rows() -> Vec<Row> {
    [modes(), owners(), times()].concat()
}

fn modes() -> Vec<Row> {
    vec![
        row(
            ("mode", "each of none, some and all permissions"),
            ("modes", b"none"),
            (
                |at| as_root().and_then(|()| files(at, &[("none", 0o000), ("some", 0o640), ("all", 0o777)])),
                |at| change(at, &[("none", 0o777), ("some", 0o046), ("all", 0o000)]),
            ),
        ),
        row(
            ("set-user-id", "set and taken"),
            ("suid", b"set"),
            (
                |at| files(at, &[("set", 0o755), ("taken", 0o4755)]),
                |at| change(at, &[("set", 0o4755), ("taken", 0o755)]),
            ),
        ),
        row(
            ("set-group-id", "set and taken"),
            ("sgid", b"set"),
            (
                |at| files(at, &[("set", 0o755), ("taken", 0o2755)]),
                |at| change(at, &[("set", 0o2755), ("taken", 0o755)]),
            ),
        ),
        row(
            ("sticky bit of a file", "set and taken"),
            ("sticky", b"set"),
            (
                |at| files(at, &[("set", 0o644), ("taken", 0o1644)]),
                |at| change(at, &[("set", 0o1644), ("taken", 0o644)]),
            ),
        ),
    ]
}

fn owners() -> Vec<Row> {
    vec![
        row(
            ("owner by number, of files, folders and links", "the owner"),
            ("owners", b"file"),
            (|at| owned(at, 54_321, 12_321), |at| reowned(at, Some(54_322), None)),
        ),
        row(
            ("group by number, of files, folders and links", "the group"),
            ("groups", b"folder"),
            (|at| owned(at, 54_321, 12_321), |at| reowned(at, None, Some(12_322))),
        ),
        row(
            ("numbers too large for a plain tar header", "owner and group"),
            ("large-owners", b"link"),
            (|at| owned(at, 3_000_000_000, 70_000), |at| reowned(at, Some(70_000), Some(3_000_000_000))),
        ),
        row(
            ("set-id bits of a foreign owner", "the owner; the bits stay"),
            ("owned-suid", b"program"),
            (
                |at| own_program(at, 54_321, "program"),
                |at| {
                    owner(&at.join("program"), Some(54_322), None)?;
                    mode(&at.join("program"), 0o6755)
                },
            ),
        ),
        Row {
            rule: Rule::OwnerNames,
            ..row(
                ("names of owner and group", "the names, in /etc/passwd and /etc/group"),
                ("owner-names", b"file"),
                (make_names, |at| accounts(at, NAMES[1])),
            )
        },
    ]
}

fn times() -> Vec<Row> {
    vec![
        row(
            ("time of a file, in nanoseconds", "one nanosecond"),
            ("file-times", b"file"),
            (|at| timed(at, "file", 123_456_788), |at| time(&at.join("file"), 1_000_000_000, 123_456_789)),
        ),
        row(
            ("time of a folder, in nanoseconds", "one nanosecond"),
            ("folder-times", b"folder"),
            (|at| timed(at, "folder", 1), |at| time(&at.join("folder"), 1_000_000_000, 2)),
        ),
        row(
            ("time of a symbolic link, in nanoseconds", "one nanosecond"),
            ("link-times", b"link"),
            (|at| timed(at, "link", 999_999_998), |at| time(&at.join("link"), 1_000_000_000, 999_999_999)),
        ),
        row(
            ("times before 1970 and after 2038", "the time"),
            ("far-times", b"early"),
            (
                |at| far(at, (-86_400, 1), (4_102_444_800, 5)),
                |at| far(at, (-1_000_000_000, 999_999_999), (4_102_444_801, 0)),
            ),
        ),
    ]
}

fn files(at: &Path, all: &[(&str, u32)]) -> io::Result<()> {
    all.iter().try_for_each(|(name, _)| fs::write(at.join(name), name))?;
    change(at, all)
}

fn change(at: &Path, all: &[(&str, u32)]) -> io::Result<()> {
    all.iter().try_for_each(|(name, bits)| mode(&at.join(name), *bits))
}

const OWNED: [&str; 3] = ["file", "folder", "link"];

fn owned(at: &Path, user: u32, group: u32) -> io::Result<()> {
    fs::write(at.join("file"), "file")?;
    fs::create_dir(at.join("folder"))?;
    symlink("file", at.join("link"))?;
    reowned(at, Some(user), Some(group))
}

fn reowned(at: &Path, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    OWNED.iter().try_for_each(|name| owner(&at.join(name), user, group))
}

fn own_program(at: &Path, user: u32, name: &str) -> io::Result<()> {
    fs::write(at.join(name), name)?;
    owner(&at.join(name), Some(user), Some(user))?;
    mode(&at.join(name), 0o6755)
}

fn make_names(at: &Path) -> io::Result<()> {
    fs::write(at.join("file"), "file")?;
    owner(&at.join("file"), Some(NAMED.0), Some(NAMED.1))?;
    accounts(at, NAMES[0])
}

/// The account files of the source that holds `at`.
fn accounts(at: &Path, (user, group): (&str, &str)) -> io::Result<()> {
    let etc = at.parent().ok_or(io::ErrorKind::InvalidInput)?.join("etc");
    fs::create_dir_all(&etc)?;
    fs::write(etc.join("passwd"), format!("{user}:x:{}:{}::/:/bin/false\n", NAMED.0, NAMED.1))?;
    fs::write(etc.join("group"), format!("{group}:x:{}:\n", NAMED.1))
}

fn timed(at: &Path, name: &str, nanos: u32) -> io::Result<()> {
    match name {
        "file" => fs::write(at.join(name), name)?,
        "folder" => {
            fs::create_dir(at.join(name))?;
            fs::write(at.join(name).join("inside"), "inside")?;
        }
        _ => symlink("nowhere", at.join(name))?,
    }
    time(&at.join(name), 1_000_000_000, nanos)
}

fn far(at: &Path, early: (i64, u32), late: (i64, u32)) -> io::Result<()> {
    for (name, (seconds, nanos)) in [("early", early), ("late", late)] {
        if !at.join(name).exists() {
            fs::write(at.join(name), name)?;
        }
        time(&at.join(name), seconds, nanos)?;
    }
    Ok(())
}
