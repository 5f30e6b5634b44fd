//! Files that a differential could not read: what our own restore brings back is what the stock recipe brings back.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use coord_archive::codec::Codec;
use coord_archive::entry::{Entry, Flags, Kind};
use coord_archive::pack::{Item, Plan, Source, Step};
use coord_archive::reader::ArchiveReader;
use coord_archive::unpack::UnpackOptions;
use coord_archive::verify::{VerifyOptions, verify};
use rustix::fs::XattrFlags;

use crate::differential;
use crate::story::{Story, unpack_to};
use crate::support::{Below, entry_of, noise};
use crate::tree::awkward;

/// Opens some files so that reading them fails, and knows the base.
struct Failing<'a> {
    below: Below,
    failing: &'a [&'a str],
    base: Option<&'a ArchiveReader>,
}

impl Source for Failing<'_> {
    fn open(&self, path: &[u8]) -> io::Result<File> {
        match self.failing.iter().find(|name| name.as_bytes() == path) {
            Some(name) => OpenOptions::new().write(true).open(self.below.0.join(name)),
            None => self.below.open(path),
        }
    }

    fn base(&self) -> Option<&ArchiveReader> {
        self.base
    }
}

const MIB: usize = 1 << 20;

/// A small file, one that several workers read, one with holes.
fn write_files(folder: &Path, seed: u64) {
    fs::write(folder.join("small"), noise(seed, 700)).unwrap();
    fs::write(folder.join("large"), noise(seed, 5 * MIB + 1)).unwrap();
    let sparse = File::create(folder.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(&noise(seed, 4 * MIB), 8 << 20).unwrap();
}

const NAMES: [&str; 3] = ["large", "small", "sparse"];

fn entry(archive: &ArchiveReader, name: &str) -> Entry {
    archive.find(name.as_bytes()).unwrap().unwrap()
}

#[test]
fn files_that_go_while_a_differential_is_packed_stay_gone() {
    for knows_base in [true, false] {
        let story = Story::new(Codec::Zstd);
        write_files(&story.source(), 1);
        let full = story.full();
        write_files(&story.source(), 2);
        let steps = differential::steps(&full, &story.source());
        for name in NAMES {
            fs::remove_file(story.source().join(name)).unwrap();
        }
        let base = knows_base.then_some(&full);
        let source = Failing { below: Below(story.source()), failing: &[], base };
        let made = story.pack_from(&source, "differential", story.differential_header(&full), steps);
        let target = story.target("target");
        let report = unpack_to(&full, Some(&made), &target, &UnpackOptions::default()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        let mut targets = vec![target];
        if awkward::is_root() {
            targets.push(story.restore_by_the_recipe("differential", "stock"));
        }
        for name in NAMES {
            assert_eq!(entry(&made, name).kind, Kind::Tombstone);
            for target in &targets {
                assert!(!target.join(name).exists(), "{}", target.join(name).display());
            }
        }
    }
}

#[test]
fn files_that_cannot_be_read_to_their_end_come_back_as_the_base_has_them() {
    let story = Story::new(Codec::Zstd);
    write_files(&story.source(), 1);
    fs::write(story.source().join("other"), "read").unwrap();
    let before = story.target("before");
    write_files(&before, 1);
    let full = story.full();
    write_files(&story.source(), 2);
    fs::write(story.source().join("other"), "read again").unwrap();
    let steps = differential::steps(&full, &story.source());
    let source = Failing { below: Below(story.source()), failing: &NAMES, base: Some(&full) };
    let made = story.pack_from(&source, "differential", story.differential_header(&full), steps);
    let checked = verify(&story.archive("differential"), &VerifyOptions::default(), &()).unwrap();
    assert!(checked.is_ok(), "{checked:?}");
    for name in NAMES {
        let (kept, base) = (entry(&made, name), entry(&full, name));
        assert!(kept.flags.contains(Flags::STALE) && !kept.flags.contains(Flags::UNREAD), "{name}");
        assert_eq!((kept.digest, &kept.attributes), (base.digest, &base.attributes), "{name}");
        // Its member had begun: tar takes the one behind it.
        assert_eq!(kept.flags.contains(Flags::CONTENT_IN_BASE), name == "small", "{name}");
    }
    let target = story.target("target");
    let report = unpack_to(&full, Some(&made), &target, &UnpackOptions::default()).unwrap();
    assert_eq!((report.stale.total, report.unread.total), (3, 0), "{report:?}");
    let mut targets = vec![target];
    if awkward::is_root() {
        targets.push(story.restore_by_the_recipe("differential", "stock"));
    }
    for target in &targets {
        for name in NAMES {
            let (found, expected) = (target.join(name), before.join(name));
            assert!(fs::read(&found).unwrap() == fs::read(expected).unwrap(), "{}", found.display());
        }
        assert_eq!(fs::read(target.join("other")).unwrap(), b"read again");
    }
}

#[test]
fn a_file_that_nobody_can_read_any_more_is_unread_and_not_the_base_in_silence() {
    let story = Story::new(Codec::Zstd);
    write_files(&story.source(), 1);
    let full = story.full();
    write_files(&story.source(), 2);
    let steps = differential::steps(&full, &story.source());
    let source = Failing { below: Below(story.source()), failing: &NAMES, base: None };
    let made = story.pack_from(&source, "differential", story.differential_header(&full), steps);
    let target = story.target("target");
    let report = unpack_to(&full, Some(&made), &target, &UnpackOptions::default()).unwrap();
    assert_eq!(report.unread.total, 3, "{report:?}");
    assert!(NAMES.iter().all(|name| entry(&made, name).flags.contains(Flags::UNREAD)));
}

#[test]
fn names_that_could_not_be_read_lend_no_attributes_to_one_that_could() {
    let story = Story::new(Codec::Zstd);
    let at = |name: &str| story.source().join(name);
    fs::write(at("a"), "one file of three names").unwrap();
    fs::create_dir(at("b")).unwrap();
    for name in ["b/below", "c"] {
        fs::hard_link(at("a"), at(name)).unwrap();
    }
    let full = story.full();
    fs::set_permissions(at("c"), fs::Permissions::from_mode(0o4701)).unwrap();
    rustix::fs::setxattr(at("c"), "user.new", b"v", XattrFlags::CREATE).unwrap();
    // As the agent's scan says it: nothing is known of `a`, nor of what is in `b`; of `c`, nothing but attributes differ.
    let stale = |name: &str| {
        let mut entry = entry(&full, name);
        entry.flags = entry.flags.with(Flags::STALE).with(Flags::CONTENT_IN_BASE);
        Step::Item(Item { entry, plan: Plan::IndexOnly })
    };
    let (base, now) = (entry(&full, "c"), entry_of(&at("c"), b"c").unwrap());
    let flags = Flags::CONTENT_IN_BASE;
    let renewed = Entry { attributes: now.attributes, identity: now.identity, flags, ..base.clone() };
    let plan = Plan::Attributes { base: Box::new(base.attributes) };
    let root = entry(&full, "");
    let exit = Step::FolderExit { base: Some(Box::new(root.attributes.clone())), entry: root };
    let steps = vec![stale("a"), stale("b"), Step::Item(Item { entry: renewed, plan }), exit];
    let differential = story.pack("differential", story.differential_header(&full), steps);
    let target = story.target("target");
    for links in [2, 0] {
        let report = unpack_to(&full, Some(&differential), &target, &UnpackOptions::default()).unwrap();
        assert_eq!((report.counts.links, report.stale.total), (links, 2), "{report:?}");
        assert_eq!(story.differences(&target), Vec::<String>::new());
    }
    assert_eq!(story.recipe_differences("differential", "stock"), Vec::<String>::new());
}

#[test]
fn names_of_one_file_that_are_all_stale_stay_one_file() {
    let story = Story::new(Codec::Zstd);
    fs::create_dir(story.source().join("folder")).unwrap();
    fs::write(story.source().join("folder/a"), "one file of two names").unwrap();
    fs::hard_link(story.source().join("folder/a"), story.source().join("folder/b")).unwrap();
    let full = story.full();
    let mut folder = entry(&full, "folder");
    folder.flags = folder.flags.with(Flags::STALE).with(Flags::CONTENT_IN_BASE);
    let root = entry(&full, "");
    let exit = Step::FolderExit { base: Some(Box::new(root.attributes.clone())), entry: root };
    let steps = vec![Step::Item(Item { entry: folder, plan: Plan::IndexOnly }), exit];
    let differential = story.pack("differential", story.differential_header(&full), steps);
    let target = story.target("target");
    let report = unpack_to(&full, Some(&differential), &target, &UnpackOptions::default()).unwrap();
    assert_eq!((report.counts.files, report.counts.links), (1, 1), "{report:?}");
    assert_eq!(story.differences(&target), Vec::<String>::new());
}
