//! Writes golden archives of the present format version: `cargo run -p coord-archive --example golden -- DIR`, as root.
//!
//! They are made once for each format version and never again: a file made by the code that reads it proves nothing.
#![expect(clippy::unwrap_used, reason = "a tool for developers")]

use std::path::Path;
use std::process::Command;

use coord_archive::codec::Codec;
use coord_archive::entry::{Attributes, Entry, FileTime, Flags, Identity, Kind};
use coord_archive::header::Level;
use coord_archive::pack::{Item, PackOptions, Plan, Step};
use coord_archive::reader::ArchiveReader;

#[path = "../tests/format/support.rs"]
#[expect(dead_code, reason = "shared with the tests, which use the rest")]
mod support;

use support::{Below, full_steps, listing, pack_full, pack_steps};

const TREE: &str = r"
umask 022; mkdir -p sub/empty; printf 'hello\n' >hello; ln hello sub/again; ln -s hello link; mkfifo pipe; mknod null c 1 3
printf x >attributes; setfattr -n user.k -v v attributes; setfacl -m u:4242:r attributes; setcap cap_net_raw+ep attributes
printf odd >$(printf 'odd\377\033'); truncate -s 1M hole; printf data | dd of=hole bs=4096 seek=3 conv=notrunc status=none
head -c 2500000 /dev/zero >large; printf end >>large; chown 1:2 sub; chmod 2775 sub
touch -h -d @1600000000.123456789 hello link sub/empty sub";

fn main() {
    let to = std::env::args_os().nth(1).unwrap();
    let tree = tempfile::tempdir().unwrap();
    assert!(Command::new("sh").args(["-ec", TREE]).current_dir(tree.path()).status().unwrap().success());
    for codec in [Codec::Zstd, Codec::Gzip] {
        let name = |level: &str| Path::new(&to).join(format!("{level}.{}", codec.extension()));
        pack_full(tree.path(), codec, &name("full"));
        let full = ArchiveReader::open_path(&name("full")).unwrap();
        let steps = differential_steps(&full, tree.path());
        let source = Below(tree.path().to_owned());
        pack_steps(steps, &source, Level::Differential, &PackOptions::new(codec), &name("diff")).unwrap();
        for level in ["full", "diff"] {
            let reader = ArchiveReader::open_path(&name(level)).unwrap();
            std::fs::write(name(level).with_added_extension("txt"), listing(&reader)).unwrap();
        }
    }
}

/// One of everything that a differential can say.
fn differential_steps(full: &ArchiveReader, tree: &Path) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut root = None;
    for step in full_steps(tree) {
        let Step::Item(Item { mut entry, .. }) = step else { continue };
        let old = full.find(&entry.path).unwrap().unwrap();
        let plan = match entry.path.as_slice() {
            b"" => {
                root = Some(Step::FolderExit { base: Some(Box::new(old.attributes)), entry });
                continue;
            }
            b"attributes" => {
                let base = Box::new(old.attributes.clone());
                entry = Entry { flags: Flags::CONTENT_IN_BASE, ..old };
                entry.attributes.xattrs.clear();
                Plan::Attributes { base }
            }
            b"hello" => Plan::Store,
            b"null" => {
                steps.push(Step::Removed { path: entry.path.clone() });
                Plan::Store
            }
            b"pipe" => {
                entry = tombstone(b"pipe");
                Plan::IndexOnly
            }
            b"sub" => {
                entry = Entry { flags: Flags::STALE, ..old };
                Plan::IndexOnly
            }
            b"sub/again" => Plan::Link { target: b"hello".to_vec(), in_base: false },
            _ => continue,
        };
        steps.push(Step::Item(Item { entry, plan }));
    }
    steps.extend(root);
    steps
}

fn tombstone(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        kind: Kind::Tombstone,
        flags: Flags::default(),
        size: 0,
        attributes: Attributes::default(),
        identity: Identity { inode: 0, ctime: FileTime::default() },
        link_target: Vec::new(),
        device: (0, 0),
        link_group: 0,
        data_ranges: None,
        digest: None,
        pieces: Vec::new(),
        content: None,
    }
}
