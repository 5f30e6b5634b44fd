//! A tree of awkward files: everything the format promises to carry, in a few megabytes.
//!
//! What only root can make (devices, foreign owners, trusted attributes, capabilities) is made when the caller is root; the
//! returned list says what was left out otherwise.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// Names that break careless tools, as raw bytes.
pub const ODD_NAMES: &[&[u8]] = &[
    b"-leading-dash",
    b"new\nline",
    b"tab\tand\x1b[31mescape",
    b"quote'\"`$(x)",
    b"back\\slash",
    b"invalid-\xff\xfe-utf8",
    b" spaces ",
    b"*?[glob]",
    b"\xc3\xa9\xe4\xb8\xad",
    b"trailing.",
    b"...",
    b".coord-not-ours",
];

/// Whether this process may make devices and foreign owners.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes the tree below `root`, which must exist and be empty. Returns what could not be made here, in words.
///
/// # Errors
/// The first error of making a file that every user can make.
pub fn make(root: &Path) -> io::Result<Vec<String>> {
    let mut left_out = Vec::new();
    names(root)?;
    files(root)?;
    links(root)?;
    folders(root)?;
    if !is_root() {
        left_out.push("a file and a folder with no permissions: only root can read them".to_owned());
    }
    specials(root, &mut left_out)?;
    attributes(root, &mut left_out)?;
    times(root)?;
    Ok(left_out)
}

fn at(root: &Path, name: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(name))
}

fn names(root: &Path) -> io::Result<()> {
    let folder = root.join("names");
    fs::create_dir(&folder)?;
    for name in ODD_NAMES {
        fs::write(at(&folder, name), name)?;
    }
    fs::write(folder.join("n".repeat(255)), b"255")?;
    // Ordering: '/' sorts below every other byte.
    fs::create_dir(folder.join("a"))?;
    fs::write(folder.join("a/b"), b"a/b")?;
    fs::write(folder.join("a-b"), b"a-b")?;
    fs::write(folder.join("a.b"), b"a.b")?;
    let mut deep = folder.join("deep");
    for _ in 0..16 {
        deep.push("d".repeat(100));
    }
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("bottom"), b"deep")
}

fn files(root: &Path) -> io::Result<()> {
    let folder = root.join("files");
    fs::create_dir(&folder)?;
    File::create(folder.join("empty"))?;
    fs::write(folder.join("small"), b"small")?;
    for (name, size) in [("block", 512), ("block-and-one", 513), ("piece", 2 << 20), ("piece-and-one", (2 << 20) + 1)] {
        fs::write(folder.join(name), pattern(size))?;
    }
    fs::write(folder.join("several-pieces"), pattern(7 * 1024 * 1024 + 13))?;
    let mut sparse = File::create(folder.join("sparse"))?;
    sparse.write_all(b"head")?;
    sparse.seek(SeekFrom::Start(64 << 20))?;
    sparse.write_all(b"middle")?;
    sparse.set_len(128 << 20)?;
    File::create(folder.join("only-a-hole"))?.set_len(16 << 20)?;
    for (name, mode) in [("suid", 0o4755), ("sgid", 0o2755), ("unreadable", 0o000), ("sticky", 0o1644)] {
        if mode == 0 && !is_root() {
            continue;
        }
        fs::write(folder.join(name), name)?;
        fs::set_permissions(folder.join(name), Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Bytes that compress a little and repeat at no frame boundary.
fn pattern(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 40).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn links(root: &Path) -> io::Result<()> {
    let folder = root.join("links");
    fs::create_dir(&folder)?;
    fs::write(folder.join("first"), b"three names")?;
    fs::hard_link(folder.join("first"), folder.join("second"))?;
    fs::create_dir(folder.join("sub"))?;
    fs::hard_link(folder.join("first"), folder.join("sub/third"))?;
    symlink("first", folder.join("to-first"))?;
    symlink("/nowhere/at/all", folder.join("dangling"))?;
    symlink("..", folder.join("up"))?;
    symlink("t".repeat(4095), folder.join("long-target"))?;
    symlink(OsStr::from_bytes(b"odd\n\xff"), folder.join("odd-target"))
}

fn folders(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join("folders/empty"))?;
    for (name, mode) in [("sticky", 0o1777), ("setgid", 0o2755), ("private", 0o700), ("closed", 0o000)] {
        if mode == 0 && !is_root() {
            continue;
        }
        let folder = root.join("folders").join(name);
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(mode))?;
    }
    // A source may have a `.coord` of its own.
    fs::create_dir(root.join(".coord"))?;
    fs::write(root.join(".coord/mine"), b"the source's own")
}

fn specials(root: &Path, left_out: &mut Vec<String>) -> io::Result<()> {
    let folder = root.join("specials");
    fs::create_dir(&folder)?;
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, folder.join("fifo"), FileType::Fifo, mode, 0)?;
    if is_root() {
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(CWD, folder.join("null"), FileType::CharacterDevice, mode, null)?;
        let disk = rustix::fs::makedev(7, 200);
        rustix::fs::mknodat(CWD, folder.join("loop"), FileType::BlockDevice, mode, disk)?;
    } else {
        left_out.push("devices: only root can make them".to_owned());
    }
    Ok(())
}

fn attributes(root: &Path, left_out: &mut Vec<String>) -> io::Result<()> {
    let folder = root.join("attributes");
    fs::create_dir(&folder)?;
    let set = |path: &Path, name: &str, value: &[u8]| rustix::fs::lsetxattr(path, name, value, XattrFlags::empty());
    for name in ["user", "binary", "acl", "caps", "owned", "removed-later"] {
        fs::write(folder.join(name), name)?;
    }
    if set(&folder.join("user"), "user.comment", b"plain").is_err() {
        left_out.push("user attributes: the file system of the scratch folder does not keep them".to_owned());
        return Ok(());
    }
    set(&folder.join("user"), "user.empty", b"")?;
    set(&folder.join("binary"), "user.binary", b"\x00\xff\n=quote\"")?;
    set(&folder.join("removed-later"), "user.gone", b"soon")?;
    set(&folder, "user.on-a-folder", b"yes")?;
    // user::rw-, user:12345:r--, group::r--, mask::r--, other::---
    let acl = acl_bytes(&[(1, 6, u32::MAX), (2, 4, 12345), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]);
    if set(&folder.join("acl"), "system.posix_acl_access", &acl).is_err() {
        left_out.push("ACLs: the file system of the scratch folder does not keep them".to_owned());
    } else {
        fs::create_dir(folder.join("default-acl"))?;
        set(&folder.join("default-acl"), "system.posix_acl_default", &acl)?;
    }
    if is_root() {
        rustix::fs::chownat(CWD, folder.join("owned"), owner(54321), group(12321), AtFlags::SYMLINK_NOFOLLOW)?;
        set(&folder.join("user"), "trusted.secret", b"root only")?;
        // cap_net_bind_service=ep, version 2
        let capability = [&0x0200_0001_u32.to_le_bytes()[..], &0x400_u32.to_le_bytes(), &[0; 12]].concat();
        set(&folder.join("caps"), "security.capability", &capability)?;
    } else {
        left_out.push("foreign owners, trusted attributes, capabilities: only root can make them".to_owned());
    }
    Ok(())
}

fn owner(id: u32) -> Option<rustix::fs::Uid> {
    Some(rustix::fs::Uid::from_raw(id))
}

fn group(id: u32) -> Option<rustix::fs::Gid> {
    Some(rustix::fs::Gid::from_raw(id))
}

/// The kernel's form of a POSIX ACL: version 2, then (tag, permissions, id) each.
fn acl_bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// Odd times, last: files before folders, so that folders keep theirs.
fn times(root: &Path) -> io::Result<()> {
    for (path, seconds, nanos) in [
        ("files/small", 1_000_000_000, 123_456_789),
        ("files/empty", -86_400, 1),
        ("links/dangling", 1_234_567_890, 999_999_999),
        ("files/piece", 4_102_444_800, 5),
        ("folders/empty", 946_684_800, 42),
        ("links/sub", 978_307_200, 7),
        ("files", 1_700_000_000, 100),
        ("", 1_600_000_000, 987_654_321),
    ] {
        set_mtime(&root.join(path), seconds, nanos)?;
    }
    Ok(())
}

/// Sets a name's modification time, the symbolic link's own for a symbolic link.
///
/// # Errors
/// As utimensat(2).
pub fn set_mtime(path: &Path, seconds: i64, nanos: u32) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
