//! Damage is detected, named and contained; what was not finished is not an archive.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use coord_archive::codec::Codec;
use coord_archive::digest::Digest;
use coord_archive::entry::Entry;
use coord_archive::file::SealedFile;
use coord_archive::header::Level;
use coord_archive::pack::{PackError, PackOptions, Sink, pack};
use coord_archive::reader::ArchiveReader;
use coord_archive::verify::{CheckName, Expected, Outcome, VerifyOptions, verify, verify_reader};

use crate::support::{Below, full_steps, header, noise, pack_full, pack_steps};

const ONE_THREAD: VerifyOptions = VerifyOptions { threads: 1, samples: 1, expected: None };

/// A small archive of a few frames, and its bytes.
fn small_archive(codec: Codec, folder: &Path) -> Vec<u8> {
    let root = folder.join("tree");
    std::fs::create_dir(&root).unwrap();
    for number in 0..6 {
        std::fs::write(root.join(format!("f{number}")), noise(number, 3000)).unwrap();
    }
    let archive = folder.join("archive");
    pack_full(&root, codec, &archive);
    std::fs::read(archive).unwrap()
}

#[test]
fn an_archive_cut_anywhere_does_not_exist() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = small_archive(codec, folder.path());
        for length in (0..bytes.len()).filter(|length| length % 37 == 0 || length + 400 > bytes.len()) {
            assert!(ArchiveReader::open(Box::new(bytes[..length].to_vec())).is_err(), "{codec:?} {length}");
        }
        let longer = [bytes.as_slice(), b"\0"].concat();
        assert!(ArchiveReader::open(Box::new(longer)).is_err());
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = small_archive(codec, folder.path());
        for at in (0..bytes.len()).filter(|at| at % 23 == 0 || at + 400 > bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let noticed = match ArchiveReader::open(Box::new(damaged)) {
                Err(error) => error.is_damage(),
                Ok(reader) => !verify_reader(&reader, &ONE_THREAD, &()).unwrap().is_ok(),
            };
            assert!(noticed, "{codec:?} byte {at} of {}", bytes.len());
        }
    }
}

#[test]
fn a_damaged_frame_names_its_files_and_leaves_the_others() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        for number in 0..40 {
            std::fs::write(root.join(format!("f{number:02}")), noise(number, 30_000)).unwrap();
        }
        std::fs::write(root.join("large"), noise(77, 5 << 20)).unwrap();
        let archive = folder.path().join("x");
        let options = PackOptions { frame_bytes: 64 << 10, ..PackOptions::new(codec) };
        pack_steps(full_steps(&root), &Below(root), Level::Full, &options, &archive).unwrap();
        let reader = ArchiveReader::open_path(&archive).unwrap();
        let entry = |name: &[u8]| reader.find(name).unwrap().unwrap();
        let frame_of = |entry: &Entry| entry.content.unwrap().frame;
        let mut bytes = std::fs::read(&archive).unwrap();
        let (small, large) = (entry(b"f20"), entry(b"large"));
        for frame in [frame_of(&small), frame_of(&large) + 1] {
            let info = reader.frame_info(frame).unwrap();
            bytes[usize::try_from(info.offset).unwrap() + info.stored_length as usize / 2] ^= 0x10;
        }
        let in_frame: Vec<Vec<u8>> = reader
            .entries()
            .map(Result::unwrap)
            .filter(|entry| entry.content.is_some_and(|content| content.frame == frame_of(&small)))
            .map(|entry| entry.path)
            .chain([b"large".to_vec()])
            .collect();
        let damaged = ArchiveReader::open(Box::new(bytes)).unwrap();
        let mut found = verify_reader(&damaged, &VerifyOptions::default(), &()).unwrap();
        found.damaged.sort();
        assert_eq!((found.damaged, found.damaged_frames), (in_frame.clone(), 2));
        assert!(in_frame.len() >= 3 && in_frame.len() < 8);
        for entry in reader.entries().map(Result::unwrap).filter(|entry| entry.content.is_some()) {
            let mut content = Vec::new();
            let read = io::Read::read_to_end(
                &mut damaged.content(&entry).unwrap_or_else(|_| {
                    assert!(in_frame.contains(&entry.path));
                    reader.content(&entry).unwrap()
                }),
                &mut content,
            );
            let whole = read.is_ok() && Some(Digest::of(&content)) == entry.digest;
            assert!(whole || in_frame.contains(&entry.path), "{:?}", entry.path);
        }
    }
}

/// Data of this length, then a hole of it, twelve times, and a hole at the end: pieces lie across frames.
const STRETCH: usize = 3_000_000 / 4096 * 4096;

#[test]
fn a_long_file_with_holes_is_checked_to_its_last_byte() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        let sparse = std::fs::File::create(root.join("sparse")).unwrap();
        for number in 0..12_u64 {
            sparse.write_all_at(&noise(number, STRETCH), 2 * number * STRETCH as u64).unwrap();
        }
        sparse.set_len(25 * STRETCH as u64).unwrap();
        std::fs::write(root.join("whole"), noise(99, 5000)).unwrap();
        let archive = folder.path().join("x");
        pack_full(&root, codec, &archive);
        let reader = ArchiveReader::open_path(&archive).unwrap();
        let entry = reader.find(b"sparse").unwrap().unwrap();
        assert_eq!(entry.stored_bytes(), 12 * STRETCH as u64);
        let options = VerifyOptions { threads: 2, samples: 2, expected: None };
        let found = verify_reader(&reader, &options, &()).unwrap();
        assert!(found.is_ok(), "{codec:?} {:?}", found.checks);
        assert_eq!((found.files, found.bytes), (2, 12 * STRETCH as u64 + 5000));
        let bytes = std::fs::read(&archive).unwrap();
        let first = entry.content.unwrap().frame;
        for frame in first..first + entry.stored_bytes().div_ceil(2 << 20) {
            let info = reader.frame_info(frame).unwrap();
            let mut damaged = bytes.clone();
            damaged[usize::try_from(info.offset).unwrap() + info.stored_length as usize / 2] ^= 1;
            let damaged = ArchiveReader::open(Box::new(damaged)).unwrap();
            let found = verify_reader(&damaged, &VerifyOptions { samples: 0, ..options }, &()).unwrap();
            assert!(found.damaged.contains(&b"sparse".to_vec()), "{codec:?} frame {frame}");
            assert_eq!(found.damaged_frames, 1);
        }
    }
}

#[test]
fn another_archive_in_its_place_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a"), b"one").unwrap();
    let first = pack_full(&root, Codec::Zstd, &folder.path().join("1"));
    std::fs::write(root.join("a"), b"two").unwrap();
    pack_full(&root, Codec::Zstd, &folder.path().join("2"));
    let footer = first.footer;
    let expected = Expected { stored_bytes: footer.stored_bytes, archive_digest: footer.archive_digest };
    let options = VerifyOptions { expected: Some(expected), samples: 5, ..VerifyOptions::default() };
    assert!(verify(&folder.path().join("1"), &options, &()).unwrap().is_ok());
    let swapped = verify(&folder.path().join("2"), &options, &()).unwrap();
    let failed: Vec<CheckName> = swapped
        .checks
        .iter()
        .filter(|check| matches!(check.outcome, Outcome::Failed(_)))
        .map(|check| check.name)
        .collect();
    assert!(failed == [CheckName::Digest] || failed == [CheckName::Size], "{swapped:?}");
    let missing = verify(&folder.path().join("3"), &options, &()).unwrap();
    assert!(matches!(missing.checks[0].outcome, Outcome::Failed(_)));
    assert_eq!(missing.checks[4].outcome, Outcome::NotDone);
}

#[test]
fn a_scan_that_fails_leaves_no_archive() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("large"), noise(1, 9 << 20)).unwrap();
    std::fs::create_dir(folder.path().join("out")).unwrap();
    let archive = folder.path().join("out/x");
    let mut out = SealedFile::create(&archive).unwrap();
    let steps = full_steps(&root).into_iter().map(Ok).chain([Err(io::Error::other("the disk is gone"))]);
    let sink = Sink { out: &mut out, progress: &() };
    let options = PackOptions::new(Codec::Zstd);
    let result = pack(steps, &Below(root), header(Level::Full), &options, sink);
    assert!(matches!(result, Err(PackError::Steps(_))));
    let partial = out.reader().unwrap();
    assert!(ArchiveReader::open(Box::new(partial)).is_err());
    drop(out);
    assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_an_error_of_the_archive_not_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("large"), noise(1, 9 << 20)).unwrap();
    if !rustix::process::geteuid().is_root() {
        println!("not root: the small file system cannot be mounted and this test is left out");
        return;
    }
    let small = folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let run = |command: &str| std::process::Command::new("sh").args(["-c", command]).status().unwrap().success();
    if !run(&format!("mount -t tmpfs -o size=4m tmpfs '{}' 2>/dev/null", small.display())) {
        println!("no right to mount: this test is left out");
        return;
    }
    let options = PackOptions::new(Codec::Zstd);
    let result = pack_steps(full_steps(&root), &Below(root), Level::Full, &options, &small.join("x"));
    let left = std::fs::read_dir(&small).unwrap().count();
    assert!(run(&format!("umount '{}'", small.display())));
    match result {
        Err(PackError::Sink(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
    assert_eq!(left, 0);
}
