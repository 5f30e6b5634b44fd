//! Extended attributes: of users, of root, of security modules; ACLs and capabilities, which are such.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::make::{attribute, no_attribute};
use super::{Row, row};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const CAPABILITY: &str = "security.capability";

/// What each row has: an attribute that gets another value, one that is removed, one that is added.
const NAMES: [&str; 3] = ["changed", "removed", "added"];

pub(super) fn rows() -> Vec<Row> {
    [plain(), acls_and_capabilities()].concat()
}

fn plain() -> Vec<Row> {
    vec![
        row(
            ("user attribute", "changed, removed, added"),
            ("user-attributes", b"changed"),
            (|at| make(at, "user.test", b"one"), |at| alter(at, "user.test", b"two")),
        ),
        row(
            ("user attribute: empty, of any bytes, of 3 KB, with odd names", "the values"),
            ("odd-attributes", b"file"),
            (make_odd, alter_odd),
        ),
        row(
            ("user attribute of a folder", "changed, removed, added"),
            ("folder-attributes", b"changed"),
            (
                |at| {
                    NAMES.iter().try_for_each(|name| fs::create_dir(at.join(name)))?;
                    set(at, "user.test", b"one")
                },
                |at| alter(at, "user.test", b"two"),
            ),
        ),
        row(
            ("trusted attribute", "changed, removed, added"),
            ("trusted-attributes", b"added"),
            (|at| make(at, "trusted.test", b"one"), |at| alter(at, "trusted.test", b"two")),
        ),
        row(
            ("trusted attribute of a symbolic link", "changed, removed, added"),
            ("link-attributes", b"changed"),
            (
                |at| {
                    NAMES.iter().try_for_each(|name| symlink("nowhere", at.join(name)))?;
                    set(at, "trusted.test", b"one")
                },
                |at| alter(at, "trusted.test", b"two"),
            ),
        ),
        row(
            ("security attribute", "changed, removed, added"),
            ("security-attributes", b"removed"),
            (|at| make(at, "security.test", b"one"), |at| alter(at, "security.test", b"two")),
        ),
    ]
}

fn acls_and_capabilities() -> Vec<Row> {
    vec![
        row(
            ("system attribute: access ACL", "changed, removed, added"),
            ("access-acls", b"changed"),
            (|at| make(at, ACCESS, &acl(12_345, 4)), |at| alter(at, ACCESS, &acl(12_346, 6))),
        ),
        row(
            ("system attribute: default ACL, with a file beneath that has none", "changed, removed, added"),
            ("default-acls", b"changed"),
            (
                |at| {
                    for name in NAMES {
                        fs::create_dir(at.join(name))?;
                        fs::write(at.join(name).join("inside"), "without an ACL")?;
                    }
                    set(at, DEFAULT, &acl(12_345, 4))
                },
                |at| alter(at, DEFAULT, &acl(12_346, 6)),
            ),
        ),
        row(
            ("capabilities", "changed, removed, added"),
            ("capabilities", b"changed"),
            (|at| make(at, CAPABILITY, &capability(0x400)), |at| alter(at, CAPABILITY, &capability(0x2000))),
        ),
    ]
}

fn make(at: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    NAMES.iter().try_for_each(|file| fs::write(at.join(file), file))?;
    set(at, name, value)
}

fn set(at: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    attribute(&at.join("changed"), name, value)?;
    attribute(&at.join("removed"), name, value)
}

fn alter(at: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    attribute(&at.join("changed"), name, value)?;
    attribute(&at.join("added"), name, value)?;
    no_attribute(&at.join("removed"), name)
}

fn make_odd(at: &Path) -> io::Result<()> {
    let file = at.join("file");
    fs::write(&file, "file")?;
    attribute(&file, "user.empty", b"")?;
    attribute(&file, "user.filled", b"not empty")?;
    attribute(&file, "user.bytes", b"\0\xff\n=quote\"'")?;
    attribute(&file, "user.a=b%3D c\n\u{e9}", b"odd name")?;
    attribute(&file, "user.large", &[b'l'; 3000])
}

fn alter_odd(at: &Path) -> io::Result<()> {
    let file = at.join("file");
    attribute(&file, "user.empty", b"filled")?;
    attribute(&file, "user.filled", b"")?;
    attribute(&file, "user.bytes", b"\xff\0\n=quote\"'")?;
    attribute(&file, "user.a=b%3D c\n\u{e9}", b"same name")?;
    attribute(&file, "user.large", &[b'm'; 3001])
}

/// The kernel's form of an ACL with one named user: version 2, then tag, permissions and number of each entry.
fn acl(user: u32, permissions: u16) -> Vec<u8> {
    let nobody = u32::MAX;
    let entries = [(1, 6, nobody), (2, permissions, user), (4, 4, nobody), (16, 6, nobody), (32, 0, nobody)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&u16::to_le_bytes(tag));
        bytes.extend_from_slice(&u16::to_le_bytes(permissions));
        bytes.extend_from_slice(&u32::to_le_bytes(id));
    }
    bytes
}

/// Permitted and effective capabilities, in the form of version 2.
fn capability(bits: u32) -> Vec<u8> {
    [&0x0200_0001_u32.to_le_bytes()[..], &bits.to_le_bytes(), &[0; 12]].concat()
}
