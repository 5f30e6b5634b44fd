//! What is packed is what the reader gives back: any names, any sizes around the bounds of frames and pieces, holes, links.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use coord_archive::codec::Codec;
use coord_archive::digest::{Digest, PIECE_BYTES, merge_pieces};
use coord_archive::entry::{Entry, Flags, Kind};
use coord_archive::pack::{Item, PackOptions, Plan, Step};
use coord_archive::reader::ArchiveReader;
use proptest::prelude::*;

use crate::support::{Below, full_steps, noise, pack_full, pack_steps};

const CODECS: [Codec; 2] = [Codec::Zstd, Codec::Gzip];

fn file(root: &Path, name: &[u8], bytes: &[u8]) {
    std::fs::write(root.join(OsStr::from_bytes(name)), bytes).unwrap();
}

/// Every entry of the archive against the tree it was made of.
fn compare(archive: &Path, root: &Path) {
    let reader = ArchiveReader::open_path(archive).unwrap();
    let expected: BTreeMap<Vec<u8>, Entry> = full_steps(root)
        .into_iter()
        .filter_map(|step| match step {
            Step::Item(Item { entry, .. }) => Some((entry.path.clone(), entry)),
            Step::Removed { .. } | Step::FolderExit { .. } => None,
        })
        .collect();
    let mut seen = 0;
    let mut groups = BTreeMap::new();
    for found in reader.entries() {
        let found = found.unwrap();
        let wanted = &expected[&found.path];
        assert_eq!(found.attributes, wanted.attributes);
        assert_eq!((found.kind, found.identity, found.device), (wanted.kind, wanted.identity, wanted.device));
        assert_eq!((found.size, &found.link_target), (wanted.size, &wanted.link_target));
        if found.link_group != 0 {
            assert_eq!(*groups.entry(found.identity.inode).or_insert(found.link_group), found.link_group);
        }
        if found.kind == Kind::File {
            let bytes = std::fs::read(root.join(OsStr::from_bytes(&found.path))).unwrap();
            let mut content = Vec::new();
            reader.content(&found).unwrap().read_to_end(&mut content).unwrap();
            assert!(content == bytes, "content of {:?}", found.path);
            assert_eq!(found.digest, Some(Digest::of(&bytes)));
            if !found.pieces.is_empty() {
                assert_eq!(merge_pieces(&found.pieces), found.digest);
            }
        }
        assert_eq!(reader.find(&found.path).unwrap().as_ref(), Some(&found));
        seen += 1;
    }
    assert_eq!(seen, expected.len());
    assert_eq!(reader.footer().entries, seen as u64);
}

#[test]
fn sizes_around_every_bound_come_back() {
    for codec in CODECS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        let piece = usize::try_from(PIECE_BYTES).unwrap();
        for (number, size) in
            [0, 1, 511, 512, 513, piece - 1, piece, piece + 1, 2 * piece, 3 * piece + 511].into_iter().enumerate()
        {
            file(&root, format!("f{number:02}").as_bytes(), &noise(number as u64, size));
        }
        let archive = folder.path().join("a");
        let report = pack_full(&root, codec, &archive);
        assert_eq!((report.files, report.warning_count), (10, 0));
        compare(&archive, &root);
    }
}

#[test]
fn names_of_any_bytes_links_and_special_files_come_back() {
    for codec in CODECS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        for name in [&b"a"[..], b"a-b", b"-x", b"new\nline", b"\xff\xfe", b"esc\x1b[31m", b"%41", &[b'n'; 255]] {
            file(&root, name, name);
        }
        std::fs::create_dir_all(root.join("a.d/empty")).unwrap();
        std::fs::hard_link(root.join("a-b"), root.join("a.d/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
        std::os::unix::fs::symlink(OsStr::from_bytes(&[b't'; 4000]), root.join("long-target")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), 0o640.into()).unwrap();
        let mut deep = root.clone();
        for _ in 0..16 {
            deep.push(OsStr::from_bytes(&[b'd'; 200]));
            std::fs::create_dir(&deep).unwrap();
        }
        std::fs::write(deep.join("bottom"), b"deep").unwrap();
        let archive = folder.path().join("a");
        pack_full(&root, codec, &archive);
        compare(&archive, &root);
    }
}

#[test]
fn holes_are_not_stored_and_come_back() {
    for codec in CODECS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        for (name, ranges, size) in [
            ("all-hole", vec![], 3_u64 << 20),
            ("end-hole", vec![(0, 4096)], 1 << 20),
            ("start-hole", vec![((1 << 20) - 4096, 4096)], 1 << 20),
            ("large", vec![(8 << 20, 5 << 20), (40 << 20, 3 << 20)], (64 << 20) + 5),
        ] {
            let mut out = std::fs::File::create(root.join(name)).unwrap();
            out.set_len(size).unwrap();
            for (offset, length) in ranges {
                out.seek(SeekFrom::Start(offset)).unwrap();
                out.write_all(&noise(offset, length)).unwrap();
            }
        }
        let archive = folder.path().join("a");
        let report = pack_full(&root, codec, &archive);
        assert_eq!(report.bytes, 4096 + 4096 + (8 << 20));
        compare(&archive, &root);
        let reader = ArchiveReader::open_path(&archive).unwrap();
        assert_eq!(reader.find(b"all-hole").unwrap().unwrap().data_ranges, Some(vec![]));
        assert_eq!(reader.find(b"large").unwrap().unwrap().stored_bytes(), 8 << 20);
    }
}

#[test]
fn a_subtree_is_read_without_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    for name in ["a", "a-b", "a.c", "b"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
        for number in 0..2000 {
            std::fs::write(root.join(name).join(format!("{number:05}")), name).unwrap();
        }
    }
    let archive = folder.path().join("x");
    pack_full(&root, Codec::Zstd, &archive);
    let reader = ArchiveReader::open_path(&archive).unwrap();
    assert!(reader.block_count() > 3);
    for (name, count) in [("a", 2001), ("a-b", 2001), ("a.c", 2001), ("b", 2001), ("a/00007", 1), ("c", 0), ("", 8005)]
    {
        let found: Vec<Entry> = reader.entries_below(name.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(found.len(), count, "{name}");
    }
    assert_eq!(reader.find(b"a/02000").unwrap(), None);
    assert_eq!(reader.find(b"zzz").unwrap(), None);
}

#[test]
fn a_second_name_is_stored_when_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    file(&root, b"first", b"shared");
    for name in ["second", "third"] {
        std::fs::hard_link(root.join("first"), root.join(name)).unwrap();
    }
    let steps = full_steps(&root);
    std::fs::remove_file(root.join("first")).unwrap();
    let archive = folder.path().join("x");
    let options = PackOptions::new(Codec::Zstd);
    let level = coord_archive::header::Level::Full;
    let report = pack_steps(steps, &Below(root), level, &options, &archive).unwrap();
    assert_eq!((report.warning_count, report.files), (1, 1));
    let reader = ArchiveReader::open_path(&archive).unwrap();
    assert_eq!(reader.find(b"first").unwrap(), None);
    let (second, third) = (reader.find(b"second").unwrap().unwrap(), reader.find(b"third").unwrap().unwrap());
    assert_eq!((second.digest, second.content), (Some(Digest::of(b"shared")), third.content));
    assert_eq!(third.digest, second.digest);
}

#[test]
fn an_unreadable_file_is_indexed_as_unread_and_named() {
    struct Refusing(Below);
    impl coord_archive::pack::Source for Refusing {
        fn open(&self, path: &[u8]) -> std::io::Result<std::fs::File> {
            if path == b"secret" { Err(std::io::ErrorKind::PermissionDenied.into()) } else { self.0.open(path) }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    file(&root, b"open", b"1");
    file(&root, b"secret", b"22");
    file(&root, b"zz", b"333");
    let archive = folder.path().join("x");
    let options = PackOptions::new(Codec::Gzip);
    let level = coord_archive::header::Level::Full;
    let report = pack_steps(full_steps(&root), &Refusing(Below(root)), level, &options, &archive).unwrap();
    assert_eq!(report.warnings[0].path, b"secret");
    let reader = ArchiveReader::open_path(&archive).unwrap();
    let entry = reader.find(b"secret").unwrap().unwrap();
    assert!(entry.flags.contains(Flags::UNREAD) && entry.digest.is_none() && entry.size == 2);
    assert!(reader.content(&entry).is_err());
    assert!(reader.find(b"zz").unwrap().is_some());
}

#[test]
fn steps_out_of_order_end_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    file(&root, b"a", b"1");
    let mut steps = full_steps(&root);
    steps.reverse();
    let archive = folder.path().join("x");
    let options = PackOptions::new(Codec::Zstd);
    let level = coord_archive::header::Level::Full;
    assert!(pack_steps(steps, &Below(root.clone()), level, &options, &archive).is_err());
    assert!(!archive.exists());
    let rootless = full_steps(&root).split_off(1);
    assert!(pack_steps(rootless, &Below(root), level, &options, &archive).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn attributes_only_steps_make_no_member_but_an_entry() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    file(&root, b"a", b"1");
    let mut steps = Vec::new();
    for step in full_steps(&root) {
        if let Step::Item(Item { mut entry, .. }) = step {
            if entry.path.is_empty() {
                steps.push(Step::FolderExit { entry, base: None });
            } else {
                entry.flags = Flags::CONTENT_IN_BASE;
                let base = Box::new(entry.attributes.clone());
                steps.insert(0, Step::Item(Item { entry, plan: Plan::Attributes { base } }));
            }
        }
    }
    let archive = folder.path().join("x");
    let level = coord_archive::header::Level::Differential;
    let report = pack_steps(steps, &Below(root), level, &PackOptions::new(Codec::Zstd), &archive).unwrap();
    assert_eq!((report.files, report.footer.entries), (0, 1));
    let reader = ArchiveReader::open_path(&archive).unwrap();
    assert!(reader.find(b"a").unwrap().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_small_tree_comes_back(
        names in prop::collection::btree_map(
            prop::collection::vec(prop::num::u8::ANY.prop_filter("no NUL or slash", |b| *b != 0 && *b != b'/'), 1..20)
                .prop_filter("a name", |name| name != b"." && name != b".."),
            (0_usize..70_000, 0_u8..4),
            0..40,
        ),
        frame_bytes in 64_usize << 10..512 << 10,
        threads in 1_usize..4,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        let mut last = None;
        for (name, (size, kind)) in &names {
            let path = root.join(OsStr::from_bytes(name));
            match (kind, &last) {
                (0, _) => std::fs::create_dir(path).unwrap(),
                (1, Some(first)) => std::fs::hard_link(first, path).unwrap(),
                (_, _) => {
                    std::fs::write(&path, noise(*size as u64, *size)).unwrap();
                    last = Some(path);
                }
            }
        }
        let archive = folder.path().join("x");
        let options = PackOptions { frame_bytes, threads, ..PackOptions::new(Codec::Zstd) };
        let level = coord_archive::header::Level::Full;
        pack_steps(full_steps(&root), &Below(root.clone()), level, &options, &archive).unwrap();
        compare(&archive, &root);
    }
}
