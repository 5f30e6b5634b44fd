use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use super::*;
use crate::entry::{Flags, Identity, Xattr};

fn entry(path: &[u8], kind: Kind, attributes: Attributes) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        flags: Flags::default(),
        size: 0,
        attributes,
        identity: Identity::default(),
        link_target: Vec::new(),
        device: (0, 0),
        link_group: 0,
        data_ranges: None,
        digest: None,
        pieces: Vec::new(),
        content: None,
    }
}

fn own(mode: u32, seconds: i64, nanos: u32) -> Attributes {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Attributes { mode, uid, gid, mtime: FileTime { seconds, nanos }, ..Attributes::default() }
}

fn text(mut spooled: Spooled) -> Vec<u8> {
    let mut bytes = Vec::new();
    spooled.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, spooled.length);
    bytes
}

#[test]
fn removed_names_come_back_last_one_first() {
    let scratch = tempfile::tempdir().unwrap();
    let mut recipe = Recipe::new(scratch.path()).unwrap();
    let long = vec![b'x'; MAX_PATH_BYTES];
    let mut names: Vec<Vec<u8>> = (0..200_000_u32).map(|n| format!("d/{n:06}").into_bytes()).collect();
    names.push(b"-rf\n\xff".to_vec());
    names.extend(std::iter::repeat_n(long, 9));
    for name in &names {
        recipe.removed(name).unwrap();
    }
    let files = recipe.finish(&entry(b"", Kind::Folder, own(0o755, 0, 0)), ".coord").unwrap();
    let expected: Vec<u8> = names.iter().rev().flat_map(|name| [b"./", name.as_slice(), b"\0"].concat()).collect();
    assert!(text(files.deleted) == expected);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn the_script_sets_attributes_on_names_of_any_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let mut recipe = Recipe::new(scratch.path()).unwrap();
    let names: [&[u8]; 5] = [b"-n 'it'\n$(touch x)`y`", b"\xff\xfe", b"a\\b\"c", b"tab\t*?[", b"~"];
    let times = [(-1, 500_000_000), (-2, 0), (0, 1), (1_700_000_000, 999_999_999), (4_000_000_000, 7)];
    let big = Xattr { name: b"user.big='%".to_vec(), value: vec![0xa7; 2000] };
    let empty = Xattr { name: b"user.empty".to_vec(), value: Vec::new() };
    for (name, (seconds, nanos)) in names.iter().zip(times) {
        let path = target.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(&path, b"x").unwrap();
        rustix::fs::lsetxattr(&path, "user.old", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        let base =
            Attributes { xattrs: vec![Xattr { name: b"user.old".to_vec(), value: b"1".to_vec() }], ..own(0o600, 0, 0) };
        let attributes = Attributes { xattrs: vec![big.clone(), empty.clone()], ..own(0o2755, seconds, nanos) };
        recipe.attributes(Some(&base), &entry(name, Kind::File, attributes)).unwrap();
    }
    let folder = target.path().join(".coord");
    std::fs::create_dir(&folder).unwrap();
    let files = recipe.finish(&entry(b"", Kind::Folder, own(0o751, 77, 5)), ".coord").unwrap();
    std::fs::write(folder.join("attributes.sh"), text(files.attributes_sh)).unwrap();
    let ran = Command::new("dash").arg(".coord/attributes.sh").current_dir(target.path()).output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    for (name, (seconds, nanos)) in names.iter().zip(times) {
        let path = target.path().join(std::ffi::OsStr::from_bytes(name));
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (seconds, i64::from(nanos)), "{name:?}");
        assert_eq!(found.permissions().mode() & 0o7777, 0o2755);
        let mut buffer = vec![0; 4000];
        let length = rustix::fs::lgetxattr(&path, "user.big='%", buffer.as_mut_slice()).unwrap();
        assert_eq!(buffer[..length], big.value);
        assert_eq!(rustix::fs::lgetxattr(&path, "user.empty", buffer.as_mut_slice()).unwrap(), 0);
        assert!(rustix::fs::lgetxattr(&path, "user.old", buffer.as_mut_slice()).is_err());
    }
    let root = std::fs::metadata(target.path()).unwrap();
    assert_eq!((root.mtime(), root.mtime_nsec(), root.permissions().mode() & 0o7777), (77, 5, 0o751));
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), names.len());
}

#[test]
fn the_script_takes_a_capability_away_without_a_complaint() {
    if !rustix::process::geteuid().is_root() {
        println!("not root: capabilities cannot be set, this test is left out");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let capability = [&0x0200_0001_u32.to_le_bytes()[..], &0x400_u32.to_le_bytes(), &[0; 12]].concat();
    std::fs::write(target.path().join("tool"), b"x").unwrap();
    rustix::fs::lsetxattr(
        target.path().join("tool"),
        "security.capability",
        &capability,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let had = Xattr { name: b"security.capability".to_vec(), value: capability };
    let base = Attributes { xattrs: vec![had], ..own(0o755, 0, 0) };
    let mut recipe = Recipe::new(scratch.path()).unwrap();
    recipe.attributes(Some(&base), &entry(b"tool", Kind::File, own(0o755, 1, 0))).unwrap();
    let files = recipe.finish(&entry(b"", Kind::Folder, own(0o755, 2, 0)), ".coord").unwrap();
    std::fs::write(target.path().join("attributes.sh"), text(files.attributes_sh)).unwrap();
    let ran = Command::new("dash").arg("attributes.sh").current_dir(target.path()).output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let found = rustix::fs::lgetxattr(target.path().join("tool"), "security.capability", &mut [0_u8; 64][..]);
    assert_eq!(found.unwrap_err(), rustix::io::Errno::NODATA);
}

#[test]
fn base64_pads_as_the_standard_says() {
    for (bytes, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        assert_eq!(base64(bytes.as_bytes()), expected);
    }
}
