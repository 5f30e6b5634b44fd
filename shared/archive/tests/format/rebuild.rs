//! An archive whose index or footer is lost is listed and restored by reading its frames.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use coord_archive::codec::Codec;
use coord_archive::digest::Digest;
use coord_archive::entry::{Entry, Flags, Identity, Kind};
use coord_archive::file::SealedFile;
use coord_archive::header::Level;
use coord_archive::pack::PackOptions;
use coord_archive::reader::ArchiveReader;
use coord_archive::rebuild::{RebuildError, RebuildOptions, RebuildReport, rebuild};
use coord_archive::verify::{VerifyOptions, verify_reader};

use crate::support::{Below, full_steps, noise, pack_steps};

/// Rebuilds the damaged archive `bytes` into a file beside nothing else.
pub fn rebuilt(
    bytes: &[u8],
    options: &RebuildOptions<'_>,
) -> Result<(ArchiveReader, RebuildReport, Vec<u8>), RebuildError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rebuilt");
    let mut out = SealedFile::create(&path).unwrap();
    let report = rebuild(&bytes.to_vec(), options, &mut out, &())?;
    out.seal().unwrap();
    let made = std::fs::read(&path).unwrap();
    Ok((ArchiveReader::open_path(&path).unwrap(), report, made))
}

/// Some of everything, in several frames.
fn make_tree(root: &Path) {
    std::fs::create_dir_all(root.join("b/empty")).unwrap();
    for number in 0..30 {
        std::fs::write(root.join(format!("a{number:02}")), noise(number, 20_000)).unwrap();
        std::fs::write(root.join(format!("b/{number:02}")), vec![7; 300 * number as usize]).unwrap();
    }
    std::fs::write(root.join("large"), noise(77, (5 << 20) + 1)).unwrap();
    std::fs::hard_link(root.join("large"), root.join("b/other name of large")).unwrap();
    std::fs::hard_link(root.join("a07"), root.join("z")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), 0o640.into()).unwrap();
    rustix::fs::lsetxattr(root.join("a03"), "user.k", b"v=%", rustix::fs::XattrFlags::empty()).unwrap();
    let holes = std::fs::File::create(root.join("holes")).unwrap();
    holes.set_len(9 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, &noise(5, 3 << 20), 1 << 20).unwrap();
}

/// What a rebuilt index says as the first one did: everything that members carry.
fn carried(entries: impl Iterator<Item = Entry>) -> BTreeMap<Vec<u8>, Entry> {
    let mut groups: BTreeMap<u64, u64> = BTreeMap::new();
    let known = entries.map(|mut entry| {
        entry.identity = Identity::default();
        entry.flags = entry.flags.without(Flags::RACY);
        entry.content = None;
        if entry.link_group != 0 {
            let next = groups.len() as u64 + 1;
            entry.link_group = *groups.entry(entry.link_group).or_insert(next);
        }
        (entry.path.clone(), entry)
    });
    known.collect()
}

fn content(reader: &ArchiveReader, entry: &Entry) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    reader.content(entry).ok()?.read_to_end(&mut content).ok()?;
    (Some(Digest::of(&content)) == entry.digest).then_some(content)
}

fn assert_contents(reader: &ArchiveReader, root: &Path) {
    for entry in reader.entries().map(Result::unwrap).filter(|entry| entry.kind == Kind::File) {
        use std::os::unix::ffi::OsStrExt as _;
        let expected = std::fs::read(root.join(std::ffi::OsStr::from_bytes(&entry.path))).unwrap();
        assert!(content(reader, &entry) == Some(expected), "{}", entry.path.escape_ascii());
    }
}

/// A full in frames of 64 KiB and more, and its bytes.
fn full(codec: Codec, folder: &Path) -> (ArchiveReader, Vec<u8>) {
    let root = folder.join("tree");
    make_tree(&root);
    let options = PackOptions { frame_bytes: 64 << 10, ..PackOptions::new(codec) };
    let archive = folder.join("full");
    pack_steps(full_steps(&root), &Below(root), Level::Full, &options, &archive).unwrap();
    (ArchiveReader::open_path(&archive).unwrap(), std::fs::read(archive).unwrap())
}

#[test]
fn without_its_footer_it_becomes_the_same_archive_again() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let (_, bytes) = full(codec, folder.path());
        for lost in [1, 100, 168] {
            let (_, report, made) = rebuilt(&bytes[..bytes.len() - lost], &RebuildOptions::default()).unwrap();
            assert!(report.is_same && made == bytes, "{codec:?} {lost}");
            assert_eq!((report.lost_frames, report.lost.count), (Some(0), 0));
        }
        let longer = [bytes.as_slice(), b"garbage"].concat();
        assert!(rebuilt(&longer, &RebuildOptions::default()).unwrap().2 == bytes);
    }
}

#[test]
fn without_its_index_everything_comes_back_from_the_members() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, bytes) = full(codec, folder.path());
        let head = usize::try_from(whole.frame_info(whole.frame_count() - 1).unwrap().offset).unwrap();
        let (reader, report, _) = rebuilt(&bytes[..head], &RebuildOptions::default()).unwrap();
        assert!(!report.is_same);
        assert_eq!(report.lost.count, 0, "{:?}", report.lost);
        let all = |reader: &ArchiveReader| carried(reader.entries().map(Result::unwrap));
        assert_eq!(all(&reader), all(&whole));
        assert_eq!(report.from_members, whole.footer().entries);
        assert_eq!((reader.footer().files, reader.footer().bytes), (whole.footer().files, whole.footer().bytes));
        assert_contents(&reader, &folder.path().join("tree"));
        assert!(verify_reader(&reader, &VerifyOptions::default(), &()).unwrap().is_ok());
        assert_eq!(reader.header().root, whole.header().root);
        assert_eq!(reader.header().scan_started_at, whole.header().scan_started_at);
    }
}

/// The bytes of a frame in the file.
fn place(reader: &ArchiveReader, number: u64) -> std::ops::Range<usize> {
    let info = reader.frame_info(number).unwrap();
    let offset = usize::try_from(info.offset).unwrap();
    offset..offset + info.stored_length as usize
}

fn frame_of(reader: &ArchiveReader, path: &[u8]) -> u64 {
    reader.find(path).unwrap().unwrap().content.unwrap().frame
}

#[test]
fn a_lost_block_of_the_index_is_made_again_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    for number in 0..4000 {
        std::fs::write(root.join(format!("{number:04}")), number.to_string()).unwrap();
    }
    let archive = folder.path().join("full");
    let options = PackOptions::new(Codec::Zstd);
    pack_steps(full_steps(&root), &Below(root.clone()), Level::Full, &options, &archive).unwrap();
    let whole = ArchiveReader::open_path(&archive).unwrap();
    assert!(whole.block_count() >= 3);
    let mut bytes = std::fs::read(&archive).unwrap();
    let block = whole.block_info(1).unwrap();
    bytes[usize::try_from(block.frame.offset).unwrap() + 20] ^= 1;
    let (reader, report, _) = rebuilt(&bytes, &RebuildOptions::default()).unwrap();
    assert_eq!((report.from_members, report.lost.count, report.lost_frames), (block.entries, 0, Some(0)));
    assert_eq!(reader.header().rebuilt.as_ref().unwrap().archive_digest, Some(whole.footer().archive_digest));
    let first = |reader: &ArchiveReader| reader.entries().next().unwrap().unwrap();
    assert_eq!(first(&reader), first(&whole));
    let all = |reader: &ArchiveReader| carried(reader.entries().map(Result::unwrap));
    assert_eq!(all(&reader), all(&whole));
    assert_contents(&reader, &root);
}

#[test]
fn frames_that_moved_are_put_back_where_the_index_says() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, bytes) = full(codec, folder.path());
        let (a, b) = (place(&whole, 1), place(&whole, 3));
        let swapped =
            [&bytes[..a.start], &bytes[b.clone()], &bytes[a.end..b.start], &bytes[a], &bytes[b.end..]].concat();
        let (_, report, made) = rebuilt(&swapped, &RebuildOptions::default()).unwrap();
        assert!(report.is_same && made == bytes);
        // One frame is cut out, and everything behind it moves.
        let cut = [&bytes[..place(&whole, 2).start], &bytes[place(&whole, 2).end..]].concat();
        let (reader, report, _) = rebuilt(&cut, &RebuildOptions::default()).unwrap();
        assert_eq!((report.is_same, report.lost_frames), (true, Some(1)));
        // Verification names a content once, by its first name.
        let lost = report.lost.listed.into_iter().map(|(path, _)| path).filter(|path| path != b"z");
        let mut lost: Vec<Vec<u8>> = lost.collect();
        let mut damaged = verify_reader(&reader, &VerifyOptions::default(), &()).unwrap().damaged;
        lost.sort();
        damaged.sort();
        assert_eq!(lost, damaged);
        assert!(lost.iter().all(|path| frame_of(&whole, path) == 2) && !lost.is_empty());
    }
}

#[test]
fn an_archive_within_a_damaged_frame_is_not_taken_for_the_archive_itself() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let inner_root = folder.path().join("inner");
        std::fs::create_dir(&inner_root).unwrap();
        std::fs::write(inner_root.join("intruder"), noise(9, 30_000)).unwrap();
        let inner = folder.path().join("inner.archive");
        let options = PackOptions { frame_bytes: 64 << 10, ..PackOptions::new(codec) };
        pack_steps(full_steps(&inner_root), &Below(inner_root), Level::Full, &options, &inner).unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        for number in 0..20 {
            std::fs::write(root.join(format!("f{number:02}")), noise(number, 40_000)).unwrap();
        }
        // Noise around it keeps the codec from compressing the frame it is in, so that it lies there as it is.
        let inner = std::fs::read(inner).unwrap();
        std::fs::write(root.join("f10"), [noise(1, 400_000), inner.clone(), noise(2, 400_000)].concat()).unwrap();
        let archive = folder.path().join("full");
        pack_steps(full_steps(&root), &Below(root.clone()), Level::Full, &options, &archive).unwrap();
        let whole = ArchiveReader::open_path(&archive).unwrap();
        let mut bytes = std::fs::read(&archive).unwrap();
        let within = place(&whole, frame_of(&whole, b"f10"));
        let lies_there = bytes[within.clone()].windows(2000).any(|window| window == &inner[3000..5000]);
        assert!(lies_there, "{codec:?}: the test is about nothing");
        // The frame's beginning is gone, and so is the index.
        bytes[within.start..within.start + 300].fill(0);
        bytes.truncate(place(&whole, whole.frame_count() - 1).end);
        let (reader, report, _) = rebuilt(&bytes, &RebuildOptions::default()).unwrap();
        assert!(reader.find(b"intruder").unwrap().is_none(), "{codec:?}");
        assert!(report.names_unknown);
        let left: Vec<Vec<u8>> = reader.entries().map(|entry| entry.unwrap().path).collect();
        assert!(left.contains(&b"f00".to_vec()) && left.contains(&b"f19".to_vec()), "{codec:?}: {left:?}");
        assert_contents(&reader, &root);
    }
}

/// A header as GNU tar writes it too.
fn like_ours(name: &str, size: u64) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let sum = header.cksum().unwrap();
    let mut bytes = *header.as_bytes();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

#[test]
fn members_of_a_tar_that_is_a_file_are_not_taken_for_members() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir_all(root.join("b")).unwrap();
        for number in 0..20 {
            std::fs::write(root.join(format!("b/{number:02}")), noise(number, 40_000)).unwrap();
        }
        let members = (0..9000_u64).flat_map(|number| {
            let name = format!("./intruder/{number:04}");
            [like_ours(&name, 600).to_vec(), noise(number, 600), vec![0; 1024 - 600]].concat()
        });
        std::fs::write(root.join("a.tar"), members.chain([0; 1024]).collect::<Vec<u8>>()).unwrap();
        let options = PackOptions { frame_bytes: 64 << 10, ..PackOptions::new(codec) };
        let archive = folder.path().join("full");
        pack_steps(full_steps(&root), &Below(root.clone()), Level::Full, &options, &archive).unwrap();
        let whole = ArchiveReader::open_path(&archive).unwrap();
        let bytes = std::fs::read(&archive).unwrap();
        let first = frame_of(&whole, b"a.tar");
        assert!(whole.find(b"a.tar").unwrap().unwrap().pieces.len() > 3);
        // Without the header of the file, only its content is left; without one of its pieces, only the rest of it.
        for lost in [first - 1, first, first + 1] {
            let mut damaged = bytes[..place(&whole, whole.frame_count() - 1).end].to_vec();
            let within = place(&whole, lost);
            damaged[within.start + 10..within.start + 40].fill(0x55);
            let (reader, report, _) =
                rebuilt(&damaged, &RebuildOptions { level: Some(Level::Full), ..Default::default() }).unwrap();
            assert!(reader.entries().all(|entry| !entry.unwrap().path.starts_with(b"intruder")), "{codec:?}");
            let found = reader.find(b"b/19").unwrap().unwrap();
            assert!(content(&reader, &found) == Some(noise(19, 40_000)), "{codec:?} {lost}");
            let is_named = report.lost.listed.iter().any(|(path, _)| path == b"a.tar");
            assert_eq!(is_named, lost >= first, "{codec:?} {lost}");
        }
    }
}

#[test]
fn a_large_file_without_one_of_its_pieces_is_torn_wherever_the_cut_is() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, bytes) = full(Codec::Zstd, folder.path());
    let first = frame_of(&whole, b"large");
    // Exactly a frame each, so that all that is left looks whole; "large" has two pieces of 2 MiB and a short one.
    for (lost, torn) in [(first, b"large"), (first + 1, b"large"), (first + 2, b"large"), (first - 1, b"\0\0\0\0\0")] {
        let mut damaged = bytes[..place(&whole, whole.frame_count() - 1).end].to_vec();
        damaged.drain(place(&whole, lost));
        let (reader, report, _) = rebuilt(&damaged, &RebuildOptions::default()).unwrap();
        let large = reader.find(b"large").unwrap().filter(|entry| entry.digest.is_some());
        assert!(large.is_none(), "{lost}");
        assert!(report.lost.listed.iter().any(|(path, _)| path == torn) || lost < first, "{lost}");
        assert!(reader.find(b"a00").unwrap().is_some_and(|entry| entry.digest.is_some()));
    }
}

#[test]
fn what_nothing_says_any_more_is_asked_for() {
    assert!(matches!(rebuilt(&noise(1, 3000), &RebuildOptions::default()), Err(RebuildError::Nothing)));
    let folder = tempfile::tempdir().unwrap();
    let (whole, mut bytes) = full(Codec::Zstd, folder.path());
    bytes.truncate(place(&whole, whole.frame_count() - 1).end);
    bytes[place(&whole, 0)].fill(0);
    assert!(matches!(rebuilt(&bytes, &RebuildOptions::default()), Err(RebuildError::NoLevel)));
    let (reader, report, _) = rebuilt(&bytes, &RebuildOptions { level: Some(Level::Full), base: None }).unwrap();
    assert!(report.names_unknown && !report.notes.is_empty());
    // The root's own member was in the first frame; what the script for stock tools says of it is not.
    let root = reader.find(b"").unwrap().unwrap();
    assert_eq!(root.attributes.mode, whole.find(b"").unwrap().unwrap().attributes.mode);
}

#[test]
fn a_differential_without_its_index_needs_its_full() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, _) = full(Codec::Zstd, folder.path());
    let root = folder.path().join("tree");
    let archive = folder.path().join("differential");
    let changed = crate::support::entry_of(&root.join("a01"), b"a01").unwrap();
    let steps = vec![
        coord_archive::pack::Step::Item(coord_archive::pack::Item {
            entry: changed,
            plan: coord_archive::pack::Plan::Store,
        }),
        coord_archive::pack::Step::FolderExit { entry: whole.find(b"").unwrap().unwrap(), base: None },
    ];
    let options = PackOptions::new(Codec::Zstd);
    pack_steps(steps, &Below(root), Level::Differential, &options, &archive).unwrap();
    let differential = ArchiveReader::open_path(&archive).unwrap();
    let mut bytes = std::fs::read(&archive).unwrap();
    bytes.truncate(place(&differential, differential.frame_count() - 1).end);
    assert!(matches!(rebuilt(&bytes, &RebuildOptions::default()), Err(RebuildError::NeedsBase)));
    let base = RebuildOptions { base: Some(&differential), level: None };
    assert!(matches!(rebuilt(&bytes, &base), Err(RebuildError::WrongBase)));
    let base = RebuildOptions { base: Some(&whole), level: None };
    let (reader, ..) = rebuilt(&bytes, &base).unwrap();
    assert_eq!(reader.header().base.as_ref().unwrap().archive_digest, whole.footer().archive_digest);
    assert!(reader.find(b"a01").unwrap().is_some());
}
