//! GNU tar, bsdtar and Python's tarfile list and extract what is packed, in both codecs.
//!
//! A missing program fails the test with a line that says what to install. Owners, devices and trusted attributes need
//! root; without it those checks are left out, and the test says so.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use coord_archive::codec::Codec;
use coord_archive::entry::{Entry, Kind};
use coord_archive::pack::{Item, Step};

use crate::support::{full_steps, noise, pack_full};

/// Runs a shell command; a program that is not there is named with its package.
fn shell(folder: &Path, program: &str, package: &str, command: &str) -> Vec<u8> {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    assert!(found.status.success(), "{program} is missing: install the package {package}");
    let output = Command::new("sh").args(["-c", command]).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{command}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A tree of everything a tar can carry.
fn awkward_tree(root: &Path) {
    let names: [&[u8]; 9] =
        [b"a", b"a-b", b"-x", b"new\nline", b"\xff\xfe", "\u{e9}".as_bytes(), b"esc\x1b[31m", b"%41=", &[b'n'; 255]];
    std::fs::create_dir(root).unwrap();
    for name in names {
        std::fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    std::fs::create_dir_all(root.join("a.d/empty")).unwrap();
    std::fs::hard_link(root.join("a-b"), root.join("a.d/link")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
    std::os::unix::fs::symlink(
        OsStr::from_bytes(&[[b't'; 250].as_slice(), b"/\xff"].concat().repeat(8)),
        root.join("far"),
    )
    .unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), 0o640.into()).unwrap();
    let mut deep = root.to_owned();
    for name in [[b'd'; 200], [0xfe; 200], [b' '; 200]].iter().cycle().take(15) {
        deep.push(OsStr::from_bytes(name));
        std::fs::create_dir(&deep).unwrap();
    }
    std::fs::write(deep.join("bottom"), b"deep").unwrap();
    std::fs::write(root.join("large"), noise(1, 5_000_001)).unwrap();
    for (name, data, size) in [
        ("hole", vec![], 1_u64 << 20),
        ("\u{e9}hole", vec![0], 1 << 20),
        ("holes", vec![0_u64, 1 << 20, 5 << 20], (6 << 20) + 3),
    ] {
        let mut out = std::fs::File::create(root.join(name)).unwrap();
        out.set_len(size).unwrap();
        for offset in data {
            out.seek(SeekFrom::Start(offset)).unwrap();
            out.write_all(&noise(offset, 4096)).unwrap();
        }
    }
    shell(
        root,
        "setfattr",
        "attr",
        "printf x >x; setfattr -n user.plain -v text x; setfattr -n user.bin -v 0x000aff3d x; setfattr -n 'user.a=b%' -v 1 a.d",
    );
    shell(root, "setfacl", "acl", "setfacl -m u:4242:r,g:4243:rw x; setfacl -d -m u:4242:rx a.d; chmod 1777 a.d/empty");
    if is_root() {
        let command = "mknod null c 1 3; mknod disk b 259 70000; chown 3000000:70000 a; chmod 6755 a; setcap cap_net_raw+ep x; setfattr -n trusted.t -v 1 x";
        shell(root, "setcap", "libcap2-bin", command);
    } else {
        println!("not root: devices, owners, capabilities and trusted attributes are left out");
    }
    shell(root, "touch", "coreutils", "touch -d @-1.5 a-b; touch -h -d @1700000000.123456789 dangling a.d");
}

fn entries(root: &Path) -> BTreeMap<Vec<u8>, Entry> {
    let items = full_steps(root).into_iter().filter_map(|step| match step {
        Step::Item(Item { entry, .. }) => Some((entry.path.clone(), entry)),
        Step::Removed { .. } | Step::FolderExit { .. } => None,
    });
    items.collect()
}

/// How much of the attributes a program brings back.
#[derive(Clone, Copy, PartialEq)]
enum Carries {
    Everything,
    ContentAndNames,
}

fn compare(source: &Path, restored: &Path, carries: Carries) {
    std::fs::remove_dir_all(restored.join(".coord")).unwrap();
    let (wanted, found) = (entries(source), entries(restored));
    let names = |tree: &BTreeMap<Vec<u8>, Entry>| -> Vec<Vec<u8>> { tree.keys().cloned().collect() };
    assert_eq!(names(&wanted), names(&found));
    for (path, old) in &wanted {
        let new = &found[path];
        assert_eq!((old.kind, old.size, &old.link_target), (new.kind, new.size, &new.link_target), "{path:?}");
        let full = |root: &Path| -> PathBuf { root.join(OsStr::from_bytes(path)) };
        if old.kind == Kind::File {
            assert!(std::fs::read(full(source)).unwrap() == std::fs::read(full(restored)).unwrap(), "{path:?}");
        }
        if carries == Carries::ContentAndNames || path.is_empty() {
            continue;
        }
        assert_eq!((&old.attributes, old.device), (&new.attributes, new.device), "{path:?}");
        assert_eq!(old.link_group, new.link_group, "{path:?}");
        let blocks = |root: &Path| std::fs::symlink_metadata(full(root)).unwrap().blocks();
        assert!(blocks(restored) <= blocks(source) + 8, "holes of {path:?}");
    }
}

fn for_both(extract: impl Fn(Codec, &Path), carries: Carries) {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        awkward_tree(&source);
        pack_full(&source, codec, &folder.path().join("archive"));
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        extract(codec, &out);
        compare(&source, &out, carries);
    }
}

#[test]
fn gnu_tar_restores_everything() {
    let flags = "--same-owner --numeric-owner -p --acls --xattrs --xattrs-include='*' --delay-directory-restore --warning=no-timestamp";
    for_both(
        |codec, out| {
            let option = match codec {
                Codec::Zstd => "--zstd",
                Codec::Gzip => "-z",
            };
            let listed = shell(out, "tar", "tar", &format!("tar {option} -tf ../archive"));
            assert!(listed.starts_with(b"./.coord/RESTORE.txt\n./\n"));
            assert!(listed.ends_with(b"./.coord/attributes.sh\n./.coord/index\n"));
            shell(out, "zstd", "zstd", &format!("tar {option} {flags} -xf ../archive"));
        },
        if is_root() { Carries::Everything } else { Carries::ContentAndNames },
    );
}

#[test]
fn bsdtar_restores_contents_and_names() {
    for_both(
        |_, out| {
            shell(out, "bsdtar", "libarchive-tools", "bsdtar -tf ../archive >/dev/null");
            shell(out, "bsdtar", "libarchive-tools", "bsdtar -xpf ../archive");
        },
        Carries::ContentAndNames,
    );
}

#[test]
fn python_restores_contents_and_names() {
    let script = "import sys, tarfile
with tarfile.open(fileobj=sys.stdin.buffer, mode=sys.argv[1]) as tar:
    tar.extractall('.', filter='fully_trusted')
";
    for_both(
        |codec, out| {
            std::fs::write(out.with_file_name("extract.py"), script).unwrap();
            let command = match codec {
                Codec::Zstd => "zstd -qdc ../archive | python3 ../extract.py 'r|'",
                Codec::Gzip => "python3 ../extract.py 'r:gz' <../archive",
            };
            shell(out, "python3", "python3", command);
        },
        Carries::ContentAndNames,
    );
}

#[test]
fn stock_decompressors_find_nothing_wrong() {
    for (codec, program, package) in [(Codec::Zstd, "zstd", "zstd"), (Codec::Gzip, "gzip", "gzip")] {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("large"), noise(1, 5_000_001)).unwrap();
        pack_full(&source, codec, &folder.path().join("archive"));
        shell(folder.path(), program, package, &format!("{program} -qt <archive"));
    }
}
