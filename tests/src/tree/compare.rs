//! Compares two folders by every attribute a restore promises: kind, bytes, mode, owner, ns times, link target, device
//! numbers, extended attributes (ACLs and capabilities are such), holes, and which names share an inode.
//!
//! It shares no code with the product, so that it can contradict it. Paths are bytes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How many bytes of two files are compared at a time.
const COMPARE_BYTES: usize = 256 * 1024;

/// One thing in which the two trees differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path below both roots, raw bytes; empty for the root itself.
    pub path: Vec<u8>,
    /// In which respect: `only_left`, `only_right`, `kind`, `content`, `mode`, ...
    pub what: &'static str,
    /// Both sides, for a person.
    pub detail: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.path.escape_ascii(), self.what, self.detail)
    }
}

/// What to leave out of a comparison.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerance {
    /// Owners cannot be restored by somebody who is not root.
    pub ignore_owners: bool,
    /// Leave out the two roots' own attributes.
    pub ignore_root: bool,
    /// Do not compare holes (for file systems that cannot hold them).
    pub ignore_holes: bool,
}

/// Every difference between the trees at `left` and `right`, in path order.
///
/// # Errors
/// The first error of reading either tree.
pub fn compare_trees(left: &Path, right: &Path, tolerance: Tolerance) -> io::Result<Vec<Difference>> {
    let left_tree = list(left)?;
    let right_tree = list(right)?;
    let mut differences = Vec::new();
    for (path, metadata) in &left_tree {
        match right_tree.get(path) {
            None => {
                let what =
                    if may_read(&left.join(OsStr::from_bytes(path)), metadata) { "only_left" } else { UNREADABLE };
                differences.push(difference(path, what, String::new()));
            }
            Some(other) => {
                let pair =
                    Pair { path, left: left.join(OsStr::from_bytes(path)), right: right.join(OsStr::from_bytes(path)) };
                pair.compare(metadata, other, tolerance, &mut differences)?;
            }
        }
    }
    for path in right_tree.keys().filter(|path| !left_tree.contains_key(*path)) {
        differences.push(difference(path, "only_right", String::new()));
    }
    compare_links(&left_tree, &right_tree, &mut differences);
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(differences)
}

/// What [`Difference::what`] says of a name on the left that this user may not read: nothing can be said of its content.
pub const UNREADABLE: &str = "unreadable";

/// Whether this user may read a file or list a folder; everything else has no content to read.
fn may_read(path: &Path, metadata: &Metadata) -> bool {
    let error = if metadata.is_dir() {
        fs::read_dir(path).err()
    } else if metadata.is_file() {
        File::open(path).err()
    } else {
        None
    };
    error.is_none_or(|error| error.kind() != io::ErrorKind::PermissionDenied)
}

fn difference(path: &[u8], what: &'static str, detail: String) -> Difference {
    Difference { path: path.to_vec(), what, detail }
}

/// Every name below `root`, the root included, with its metadata.
///
/// # Errors
/// The first error of reading a folder.
pub fn list(root: &Path) -> io::Result<BTreeMap<Vec<u8>, Metadata>> {
    let mut found = BTreeMap::new();
    found.insert(Vec::new(), fs::symlink_metadata(root)?);
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            // A folder that this user may not list is compared as what it looks like from outside.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !folder.as_os_str().is_empty() => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let metadata = fs::symlink_metadata(entry.path())?;
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path.into_os_string().into_vec(), metadata);
        }
    }
    Ok(found)
}

struct Pair<'a> {
    path: &'a [u8],
    left: PathBuf,
    right: PathBuf,
}

impl Pair<'_> {
    fn compare(&self, a: &Metadata, b: &Metadata, tolerance: Tolerance, out: &mut Vec<Difference>) -> io::Result<()> {
        if kind(a) != kind(b) {
            out.push(difference(self.path, "kind", format!("{} / {}", kind(a), kind(b))));
            return Ok(());
        }
        if a.is_file() {
            self.compare_content(a, b, tolerance, out)?;
        }
        if a.is_symlink() {
            let (x, y) = (fs::read_link(&self.left)?, fs::read_link(&self.right)?);
            if x != y {
                out.push(difference(self.path, "link_target", format!("{} / {}", x.display(), y.display())));
            }
        }
        if self.path.is_empty() && tolerance.ignore_root {
            return Ok(());
        }
        self.compare_attributes(a, b, tolerance, out)
    }

    fn compare_attributes(
        &self,
        a: &Metadata,
        b: &Metadata,
        tolerance: Tolerance,
        out: &mut Vec<Difference>,
    ) -> io::Result<()> {
        let mut check = |what: &'static str, x: String, y: String| {
            if x != y {
                out.push(difference(self.path, what, format!("{x} / {y}")));
            }
        };
        if !a.is_symlink() {
            check("mode", format!("{:o}", a.mode()), format!("{:o}", b.mode()));
        }
        if !tolerance.ignore_owners {
            check("owner", format!("{}:{}", a.uid(), a.gid()), format!("{}:{}", b.uid(), b.gid()));
        }
        check("mtime", format!("{}.{:09}", a.mtime(), a.mtime_nsec()), format!("{}.{:09}", b.mtime(), b.mtime_nsec()));
        if a.file_type().is_char_device() || a.file_type().is_block_device() {
            check("device", a.rdev().to_string(), b.rdev().to_string());
        }
        check("xattrs", xattrs(&self.left)?, xattrs(&self.right)?);
        Ok(())
    }

    fn compare_content(
        &self,
        a: &Metadata,
        b: &Metadata,
        tolerance: Tolerance,
        out: &mut Vec<Difference>,
    ) -> io::Result<()> {
        if a.len() != b.len() {
            out.push(difference(self.path, "size", format!("{} / {}", a.len(), b.len())));
            return Ok(());
        }
        if !may_read(&self.left, a) {
            out.push(difference(self.path, UNREADABLE, String::new()));
            return Ok(());
        }
        if let Some(offset) = first_difference(&self.left, &self.right)? {
            out.push(difference(self.path, "content", format!("first at byte {offset}")));
        }
        // Whole holes only: how a file system allocates the rest is its own business.
        let sparse = |m: &Metadata| m.blocks() * 512 < m.len() / 2;
        if !tolerance.ignore_holes && a.len() >= 1024 * 1024 && sparse(a) && !sparse(b) {
            out.push(difference(self.path, "holes", format!("{} / {} blocks", a.blocks(), b.blocks())));
        }
        Ok(())
    }
}

/// Offset of the first byte in which two files differ.
fn first_difference(left: &Path, right: &Path) -> io::Result<Option<u64>> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let (mut a, mut b) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    let mut offset = 0;
    loop {
        let n = fill(&mut left, &mut a)?;
        let m = fill(&mut right, &mut b)?;
        // Equal slices are compared at once: byte by byte, an unoptimised test spends minutes on sparse files.
        if n > 0 && a[..n] == b[..m] {
            offset += n as u64;
            continue;
        }
        if let Some(at) = a[..n].iter().zip(&b[..m]).position(|(x, y)| x != y) {
            return Ok(Some(offset + at as u64));
        }
        if n != m {
            return Ok(Some(offset + n.min(m) as u64));
        }
        if n == 0 {
            return Ok(None);
        }
        offset += n as u64;
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// A name for the kind of a file.
#[must_use]
pub fn kind(metadata: &Metadata) -> &'static str {
    let file_type = metadata.file_type();
    if file_type.is_file() {
        "file"
    } else if file_type.is_dir() {
        "folder"
    } else if file_type.is_symlink() {
        "symlink"
    } else if file_type.is_fifo() {
        "fifo"
    } else if file_type.is_char_device() {
        "char_device"
    } else if file_type.is_block_device() {
        "block_device"
    } else {
        "socket"
    }
}

/// All extended attributes of a name as one sorted text, the symbolic link's own for a symbolic link.
fn xattrs(path: &Path) -> io::Result<String> {
    let unsupported = |error: rustix::io::Errno| {
        error == rustix::io::Errno::NOTSUP || error == rustix::io::Errno::NODATA || error == rustix::io::Errno::PERM
    };
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(error) if unsupported(error) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut texts = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 64 * 1024];
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), value.as_mut_slice()) {
            Ok(n) => texts.push(format!("{}={}", name.escape_ascii(), value[..n].escape_ascii())),
            Err(error) if unsupported(error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    texts.sort();
    Ok(texts.join(" "))
}

/// Names that share an inode on the left must share one on the right, and no others.
fn compare_links(left: &BTreeMap<Vec<u8>, Metadata>, right: &BTreeMap<Vec<u8>, Metadata>, out: &mut Vec<Difference>) {
    let groups = |tree: &BTreeMap<Vec<u8>, Metadata>| {
        let mut by_inode: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
        for (path, metadata) in tree.iter().filter(|(_, m)| !m.is_dir()) {
            by_inode.entry((metadata.dev(), metadata.ino())).or_default().push(path.clone());
        }
        let mut group_of: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for names in by_inode.into_values() {
            for name in &names {
                group_of.insert(name.clone(), names.clone());
            }
        }
        group_of
    };
    let (a, b) = (groups(left), groups(right));
    for (path, names) in &a {
        if let Some(others) = b.get(path)
            && names != others
        {
            let text =
                |names: &[Vec<u8>]| names.iter().map(|n| n.escape_ascii().to_string()).collect::<Vec<_>>().join(", ");
            out.push(difference(path, "hard_links", format!("{{{}}} / {{{}}}", text(names), text(others))));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{Tolerance, compare_trees};
    use std::fs;

    #[test]
    fn equal_trees_have_no_difference_and_each_kind_of_change_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let (left, right) = (scratch.path().join("left"), scratch.path().join("right"));
        for root in [&left, &right] {
            fs::create_dir(root).unwrap();
            fs::write(root.join("a"), b"one").unwrap();
            fs::write(root.join("b"), b"two").unwrap();
        }
        let status = std::process::Command::new("touch").arg("-r").arg(&left).arg(&right).status().unwrap();
        assert!(status.success());
        for name in ["a", "b"] {
            let status = std::process::Command::new("touch")
                .arg("-r")
                .arg(left.join(name))
                .arg(right.join(name))
                .status()
                .unwrap();
            assert!(status.success());
        }
        let tolerance = Tolerance { ignore_root: true, ..Tolerance::default() };
        assert_eq!(compare_trees(&left, &right, tolerance).unwrap(), vec![]);

        fs::write(right.join("a"), b"six").unwrap();
        fs::remove_file(right.join("b")).unwrap();
        fs::hard_link(right.join("a"), right.join("c")).unwrap();
        let found: Vec<_> = compare_trees(&left, &right, tolerance).unwrap().into_iter().map(|d| d.what).collect();
        assert!(found.contains(&"content") && found.contains(&"mtime"), "{found:?}");
        assert!(found.contains(&"only_left") && found.contains(&"only_right"), "{found:?}");
        assert!(found.contains(&"hard_links"), "{found:?}");
    }
}
