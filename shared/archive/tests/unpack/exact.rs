//! An awkward tree and its changes come back exactly, from our own unpacking and from the stock recipe.

use std::process::Command;

use coord_archive::codec::Codec;
use coord_archive::entry::{Entry, Flags};
use coord_archive::file::SealedFile;
use coord_archive::pack::{Item, Plan, Step};
use coord_archive::reader::ArchiveReader;
use coord_archive::rebuild::{RebuildOptions, rebuild};
use coord_archive::unpack::{Selection, UnpackOptions};

use crate::story::{Story, unpack_to};
use crate::support::entry_of;
use crate::tree::mutate;

/// The awkward tree, and inode flags where the file system has them.
pub fn make_source(story: &Story) {
    story.make_awkward(&story.source());
    let source = story.source();
    std::fs::create_dir(source.join("flagged")).unwrap();
    for name in ["unchanged", "edited", "unflagged"] {
        std::fs::write(source.join("flagged").join(name), name).unwrap();
    }
    // More small files than one frame holds.
    std::fs::create_dir(source.join("many")).unwrap();
    for number in 0..600_u32 {
        let bytes = vec![number.to_le_bytes()[0]; 8000 + number as usize];
        std::fs::write(source.join("many").join(format!("{number:04}")), bytes).unwrap();
    }
    set_flags(story, "+i", &["flagged/unchanged", "flagged/edited", "flagged/unflagged", "flagged"]);
    set_flags(story, "+d", &["files/small"]);
}

fn set_flags(story: &Story, flags: &str, names: &[&str]) {
    let paths = names.iter().map(|name| story.source().join(name));
    let ran = Command::new("chattr").arg(flags).args(paths).output().expect("install e2fsprogs");
    if !ran.status.success() {
        eprintln!("left out: inode flags {flags}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

pub fn change_source(story: &Story) {
    mutate::change_everything(&story.source()).unwrap();
    set_flags(story, "-i", &["flagged", "flagged/edited", "flagged/unflagged"]);
    std::fs::write(story.source().join("flagged/edited"), "edited again").unwrap();
    std::fs::write(story.source().join("flagged/added"), "added").unwrap();
    std::fs::remove_dir_all(story.source().join("many")).unwrap();
    std::fs::write(story.source().join("many"), "a file now").unwrap();
    set_flags(story, "+i", &["flagged/edited", "flagged"]);
}

fn awkward_files_come_back(codec: Codec) {
    let story = Story::new(codec);
    make_source(&story);
    let full = story.full();
    let before = story.target("before");
    let report = unpack_to(&full, None, &before, &UnpackOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(story.differences(&before), Vec::<String>::new(), "unpacked full");
    assert_eq!(story.recipe_differences("full", "stock-full"), Vec::<String>::new(), "stock full");

    change_source(&story);
    let differential = story.differential(&full);
    let after = story.target("after");
    let report = unpack_to(&full, Some(&differential), &after, &UnpackOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(story.differences(&after), Vec::<String>::new(), "unpacked differential");
    assert_eq!(
        story.recipe_differences("differential", "stock-differential"),
        Vec::<String>::new(),
        "stock differential"
    );

    let again = unpack_to(&full, Some(&differential), &after, &UnpackOptions::default()).unwrap();
    assert!(again.is_clean(), "{again:?}");
    let counts = again.counts;
    assert_eq!((counts.files, counts.folders, counts.links, counts.symlinks, counts.specials), (0, 0, 0, 0, 0));
    assert_eq!(story.differences(&after), Vec::<String>::new(), "unpacked twice");
}

/// Cuts off everything behind the members, and makes an archive of what is left.
fn cut_and_rebuilt(story: &Story, name: &str, base: Option<&ArchiveReader>) -> ArchiveReader {
    let whole = ArchiveReader::open_path(&story.archive(name)).unwrap();
    let last = whole.frame_info(whole.frame_count() - 1).unwrap();
    let mut left = std::fs::read(story.archive(name)).unwrap();
    left.truncate(usize::try_from(last.offset).unwrap() + last.stored_length as usize);
    let path = story.archive(&format!("rebuilt-{name}"));
    let mut out = SealedFile::create(&path).unwrap();
    let report = rebuild(&left, &RebuildOptions { base, level: None }, &mut out, &()).unwrap();
    out.seal().unwrap();
    assert_eq!((report.is_same, report.lost.count), (false, 0), "{report:?}");
    ArchiveReader::open_path(&path).unwrap()
}

fn awkward_files_come_back_without_their_index(codec: Codec) {
    let story = Story::new(codec);
    make_source(&story);
    let full = story.full();
    let rebuilt_full = cut_and_rebuilt(&story, "full", None);
    let before = story.target("before");
    let report = unpack_to(&rebuilt_full, None, &before, &UnpackOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(story.differences(&before), Vec::<String>::new(), "rebuilt full");
    assert_eq!(story.recipe_differences("rebuilt-full", "stock-rebuilt-full"), Vec::<String>::new(), "stock tools");

    change_source(&story);
    let differential = story.differential(&full);
    let after = story.target("after");
    let report = unpack_to(&rebuilt_full, Some(&differential), &after, &UnpackOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(story.differences(&after), Vec::<String>::new(), "differential on a rebuilt full");

    let rebuilt = cut_and_rebuilt(&story, "differential", Some(&rebuilt_full));
    let last = story.target("last");
    let report = unpack_to(&rebuilt_full, Some(&rebuilt), &last, &UnpackOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(story.differences(&last), Vec::<String>::new(), "both rebuilt");
}

#[test]
fn awkward_files_come_back_exactly_from_zstd_archives_without_their_indexes() {
    awkward_files_come_back_without_their_index(Codec::Zstd);
}

#[test]
fn awkward_files_come_back_exactly_from_gzip_archives_without_their_indexes() {
    awkward_files_come_back_without_their_index(Codec::Gzip);
}

#[test]
fn awkward_files_come_back_exactly_from_zstd() {
    awkward_files_come_back(Codec::Zstd);
}

#[test]
fn awkward_files_come_back_exactly_from_gzip() {
    awkward_files_come_back(Codec::Gzip);
}

#[test]
fn a_name_added_to_a_group_of_the_full_is_linked_to_it() {
    let story = Story::new(Codec::Zstd);
    std::fs::write(story.source().join("a"), "two names").unwrap();
    std::fs::hard_link(story.source().join("a"), story.source().join("b")).unwrap();
    let full = story.full();
    std::fs::hard_link(story.source().join("a"), story.source().join("c")).unwrap();
    // As the agent's scan says it: the full's group goes on, and only the new name is in the differential.
    let in_full = full.find(b"a").unwrap().unwrap();
    let entry = Entry { path: b"c".to_vec(), flags: Flags::CONTENT_IN_BASE, ..in_full };
    let plan = Plan::Link { target: b"a".to_vec(), in_base: true };
    let root = entry_of(&story.source(), b"").unwrap();
    let base = Box::new(full.find(b"").unwrap().unwrap().attributes);
    let exit = Step::FolderExit { entry: root.clone(), base: Some(base.clone()) };
    let root = Step::Item(Item { entry: root, plan: Plan::Attributes { base } });
    let steps = vec![root, Step::Item(Item { entry, plan }), exit];
    let differential = story.pack("differential", story.differential_header(&full), steps);
    let target = story.target("target");
    let report = unpack_to(&full, Some(&differential), &target, &UnpackOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.counts.files, report.counts.links), (1, 2));
    assert_eq!(story.differences(&target), Vec::<String>::new());
    assert_eq!(story.recipe_differences("differential", "stock"), Vec::<String>::new());
}

#[test]
fn more_attributes_than_usual_come_back() {
    let story = Story::new(Codec::Zstd);
    let path = story.source().join("file");
    std::fs::write(&path, "file").unwrap();
    for number in 0..30 {
        let name = format!("user.{}-{number}", "n".repeat(60));
        rustix::fs::lsetxattr(&path, name, b"v", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let full = story.full();
    let target = story.target("target");
    for _first_then_again in 0..2 {
        let report = unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(story.differences(&target), Vec::<String>::new());
    }
}

#[test]
fn one_folder_comes_back_alone_with_the_folders_that_lead_to_it() {
    let story = Story::new(Codec::Zstd);
    make_source(&story);
    let full = story.full();
    change_source(&story);
    let differential = story.differential(&full);
    let target = story.target("target");
    let selection = Selection::of_paths([b"links/sub".to_vec(), b"fresh/folder/file".to_vec()]).unwrap();
    let options = UnpackOptions { selection, ..UnpackOptions::default() };
    let report = unpack_to(&full, Some(&differential), &target, &options).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let names: Vec<Vec<u8>> = crate::tree::compare::list(&target).unwrap().into_keys().collect();
    let expected = ["", "fresh", "fresh/folder", "fresh/folder/file", "links", "links/sub", "links/sub/third"];
    assert_eq!(names, expected.map(|name| name.as_bytes().to_vec()));
    assert_eq!(std::fs::read(target.join("links/sub/third")).unwrap(), b"three names");
    let differences = story.differences(&target);
    // Names that were not selected are missing, also as other names of a hard link.
    let expected = ["only_left", "hard_links", "inode flags"];
    let told = differences.iter().filter(|text| expected.iter().all(|word| !text.contains(word)));
    // The target itself was the operator's; it is not selected.
    assert_eq!(told.filter(|text| !text.starts_with(": ")).collect::<Vec<_>>(), Vec::<&String>::new());
}
