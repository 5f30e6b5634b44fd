//! File systems: which one a folder is on, which are the kernel's own, and how one is known again after a reboot.
//!
//! A file system is identified by its kind and UUID, or by its mount source where it has no UUID; never by a device
//! number, which changes at reboot. Reads `/proc/self/mountinfo` once for a scan and asks statfs for what is not in it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use coord_archive::entry::is_at_or_below;
use coord_archive::header::Mount;

/// Longest mount table that is read, in bytes.
const MAX_MOUNTINFO_BYTES: u64 = 16 << 20;

/// Kinds of file systems that hold nothing but what the kernel makes up. They are left out, and reported.
const PSEUDO_KINDS: &[&str] = &[
    "proc",
    "sysfs",
    "devtmpfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "pstore",
    "bpf",
    "devpts",
    "mqueue",
    "hugetlbfs",
    "configfs",
    "fusectl",
    "fuse.lxcfs",
    "autofs",
    "binfmt_misc",
    "efivarfs",
    "rpc_pipefs",
    "nsfs",
    "selinuxfs",
    "smackfs",
    "resctrl",
    "nfsd",
];

/// The same by statfs magic, for a system without a mount table.
const PSEUDO_MAGIC: &[(u64, &str)] = &[
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0x6165_676c, "pstore"),
    (0xcafe_4a11, "bpf"),
    (0x1cd1, "devpts"),
    (0x1980_0202, "mqueue"),
    (0x9584_58f6, "hugetlbfs"),
    (0x6265_6570, "configfs"),
    (0x6573_5543, "fusectl"),
    (0x0187, "autofs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0xde5e_81e4, "efivarfs"),
    (0x6759_6969, "rpc_pipefs"),
    (0x6e73_6673, "nsfs"),
    (0xf97c_ff8c, "selinuxfs"),
];

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its kind, such as `ext4`.
    pub kind: String,
    /// UUID, or mount source.
    pub identity: String,
}

impl FileSystem {
    /// Whether the kernel makes up everything in it.
    #[must_use]
    pub fn is_pseudo(&self) -> bool {
        PSEUDO_KINDS.contains(&self.kind.as_str())
    }

    /// As the header of an archive records it.
    #[must_use]
    pub fn mounted_at(&self, path: &[u8]) -> Mount {
        Mount {
            path: path.to_vec(),
            file_system: self.kind.clone(),
            identity: self.identity.clone(),
            mount_point: Vec::new(),
            place: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Line {
    id: u64,
    device: (u32, u32),
    /// What of its file system is shown.
    root: Vec<u8>,
    at: Vec<u8>,
    file_system: FileSystem,
}

/// The mount table of this process.
#[derive(Debug, Default)]
pub struct Mounts {
    lines: Vec<Line>,
    by_id: HashMap<u64, usize>,
}

impl Mounts {
    /// Reads the table. A system without `/proc` has an empty one; statfs answers then.
    #[must_use]
    pub fn read() -> Self {
        let mut text = Vec::new();
        let opened = fs::File::open("/proc/self/mountinfo");
        // An unreadable table is the same as none: each file system is asked for its kind instead.
        let _read = opened.and_then(|file| file.take(MAX_MOUNTINFO_BYTES).read_to_end(&mut text));
        Self::parse(&text, &uuids())
    }

    fn parse(text: &[u8], uuids: &HashMap<(u32, u32), String>) -> Self {
        let mut this = Self::default();
        for mut line in text.split(|byte| *byte == b'\n').filter_map(parse_line) {
            if let Some(uuid) = uuids.get(&line.device) {
                line.file_system.identity.clone_from(uuid);
            }
            this.by_id.insert(line.id, this.lines.len());
            this.lines.push(line);
        }
        this
    }

    /// The file system with mount number `id` that `folder` lies on.
    #[must_use]
    pub fn of(&self, id: u64, folder: BorrowedFd<'_>) -> FileSystem {
        self.by_id.get(&id).map_or_else(|| by_statfs(folder), |line| self.lines[*line].file_system.clone())
    }

    /// The mount with number `id` that the absolute `path` lies on, and where in that file system the path is. `None` when
    /// the table does not tell.
    #[must_use]
    pub fn place_of(&self, id: u64, path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let line = &self.lines[*self.by_id.get(&id)?];
        let parts = |path: &[u8]| {
            path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let below = parts(path);
        let below = below.strip_prefix(parts(&line.at).as_slice())?;
        let place: Vec<u8> =
            parts(&line.root).iter().chain(below).flat_map(|part| [b"/", part.as_slice()].concat()).collect();
        Some((line.at.clone(), place))
    }

    /// Whether anything is mounted at this absolute path.
    #[must_use]
    pub fn is_mount_point(&self, path: &[u8]) -> bool {
        self.lines.iter().any(|line| line.at == path)
    }

    /// Everything but kernel file systems that is mounted strictly below a `source` of the tree at `root` (absolute), with
    /// paths relative to the root, in no particular order. Of several on one place the last counts.
    #[must_use]
    pub fn below(&self, root: &Path, sources: &[Vec<u8>]) -> Vec<Mount> {
        let root = root.as_os_str().as_bytes();
        let root = root.strip_suffix(b"/").unwrap_or(root);
        let mut found: HashMap<Vec<u8>, Mount> = HashMap::new();
        for line in &self.lines {
            let Some(path) = line.at.strip_prefix(root).and_then(|rest| rest.strip_prefix(b"/")) else { continue };
            if !sources.iter().any(|source| source != path && is_at_or_below(path, source)) || path.is_empty() {
                continue;
            }
            if line.file_system.is_pseudo() {
                found.remove(path);
            } else {
                found.insert(path.to_vec(), line.file_system.mounted_at(path));
            }
        }
        found.into_values().collect()
    }
}

/// The absolute path of a path below `root`.
pub(super) fn absolute(root: &Path, path: &[u8]) -> Vec<u8> {
    [root.as_os_str().as_bytes(), b"/", path].concat()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let device = fields.nth(1)?;
    let colon = device.iter().position(|byte| *byte == b':')?;
    let device = (u32::try_from(number(&device[..colon])?).ok()?, u32::try_from(number(&device[colon + 1..])?).ok()?);
    let (root, at) = (unescape(fields.next()?), unescape(fields.next()?));
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let identity = String::from_utf8_lossy(&unescape(rest.next()?)).into_owned();
    Some(Line { id, device, root, at, file_system: FileSystem { kind, identity } })
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The table writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let octal = text.get(at + 1..at + 4).filter(|_| text[at] == b'\\');
        let value = octal
            .filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

/// UUIDs of block devices by device number, which is good for as long as this scan runs.
fn uuids() -> HashMap<(u32, u32), String> {
    let Ok(folder) = fs::read_dir("/dev/disk/by-uuid") else { return HashMap::new() };
    let entries = folder.filter_map(Result::ok);
    let known = entries.filter_map(|entry| {
        let device = fs::metadata(entry.path()).ok()?.rdev();
        let uuid = String::from_utf8(entry.file_name().into_vec()).ok()?;
        Some(((rustix::fs::major(device), rustix::fs::minor(device)), uuid))
    });
    known.collect()
}

fn by_statfs(folder: BorrowedFd<'_>) -> FileSystem {
    // Works with a descriptor that was opened only as a path.
    let Ok(facts) = rustix::fs::fstatfs(folder) else {
        return FileSystem { kind: "unknown".to_owned(), identity: String::new() };
    };
    let magic = u64::from(u32::try_from(facts.f_type & 0xffff_ffff).unwrap_or(0));
    let known = PSEUDO_MAGIC.iter().find(|(number, _)| *number == magic);
    let kind = known.map_or_else(|| format!("{magic:#x}"), |(_, kind)| (*kind).to_owned());
    FileSystem { kind, identity: String::new() }
}

/// The file system that the file or folder at `path` lies on; for messages and for places outside a tree.
///
/// # Errors
/// As open(2).
pub fn file_system_of(path: &Path) -> io::Result<FileSystem> {
    use std::os::fd::AsFd as _;
    let tree = super::tree::Tree::open(path)?;
    let stat = tree.stat_at(tree.root(), b"", b"")?;
    Ok(Mounts::read().of(stat.mount, tree.root().as_fd()))
}

/// A path of the table as the system's own type.
#[must_use]
pub fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        23 22 0:5 / /proc rw shared:3 master:1 - proc proc rw\n\
        24 22 8:2 / /srv/with\\040space rw - xfs /dev/sda2 rw\n\
        25 22 0:40 / /srv/tmp rw - tmpfs tmpfs rw\n\
        nonsense\n";

    fn table() -> Mounts {
        Mounts::parse(TABLE, &HashMap::from([((8, 2), "some-uuid".to_owned())]))
    }

    #[test]
    fn a_file_system_is_known_by_uuid_else_by_its_source() {
        let mounts = table().below(Path::new("/"), &[b"srv".to_vec()]);
        let find = |path: &[u8]| mounts.iter().find(|mount| mount.path == path).unwrap().clone();
        assert_eq!(mounts.len(), 2);
        assert_eq!(find(b"srv/with space").identity, "some-uuid");
        assert_eq!(find(b"srv/with space").file_system, "xfs");
        assert_eq!(find(b"srv/tmp").identity, "tmpfs");
    }

    #[test]
    fn a_source_has_the_same_place_whatever_is_mounted_over_it_to_protect_it() {
        let plain = Mounts::parse(b"22 1 8:1 /@ / rw - btrfs /dev/sda1 rw\n", &HashMap::new());
        let hardened = b"22 1 8:1 /@ / rw - btrfs /dev/sda1 rw\n23 22 8:1 /@/etc /etc ro - btrfs /dev/sda1 rw\n";
        let hardened = Mounts::parse(hardened, &HashMap::new());
        assert_eq!(plain.place_of(22, b"/etc/ssl").unwrap(), (b"/".to_vec(), b"/@/etc/ssl".to_vec()));
        assert_eq!(hardened.place_of(23, b"/etc/ssl").unwrap(), (b"/etc".to_vec(), b"/@/etc/ssl".to_vec()));
        assert_eq!(plain.place_of(99, b"/etc"), None);
        assert!(hardened.is_mount_point(b"/etc") && !plain.is_mount_point(b"/etc"));
    }

    #[test]
    fn kernel_file_systems_and_what_lies_elsewhere_are_not_listed() {
        assert_eq!(table().below(Path::new("/"), &[vec![]]).len(), 2);
        assert!(table().below(Path::new("/srv/other"), &[vec![]]).is_empty());
        let relative = table().below(Path::new("/srv"), &[vec![]]);
        assert!(relative.iter().any(|mount| mount.path == b"tmp"));
    }

    #[test]
    fn proc_is_a_kernel_file_system_of_this_very_machine() {
        assert!(file_system_of(Path::new("/proc")).unwrap().is_pseudo());
        assert!(!file_system_of(&std::env::temp_dir()).unwrap().is_pseudo());
        let proc = fs::File::open("/proc").unwrap();
        assert!(by_statfs(std::os::fd::AsFd::as_fd(&proc)).is_pseudo());
    }
}
