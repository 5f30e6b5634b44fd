//! Files that grow, shrink, change and vanish while they are packed: the tar stays readable to its end, the index says
//! what is stored, and every mixed file is flagged.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use coord_archive::codec::Codec;
use coord_archive::digest::Digest;
use coord_archive::entry::Flags;
use coord_archive::file::SealedFile;
use coord_archive::header::Level;
use coord_archive::pack::{PackOptions, PackReport, Reason, Sink, pack};
use coord_archive::progress::{Advance, Progress};
use coord_archive::reader::ArchiveReader;
use coord_archive::verify::{VerifyOptions, verify};

use crate::support::{Below, full_steps, header, members, noise};

/// Does something to the tree after the so-many-th job was written.
struct After<F: Fn(usize) + Sync>(AtomicUsize, F);

impl<F: Fn(usize) + Sync> Progress for After<F> {
    fn advance(&self, _step: Advance<'_>) -> ControlFlow<()> {
        (self.1)(self.0.fetch_add(1, Ordering::SeqCst));
        ControlFlow::Continue(())
    }
}

/// One thread, so that the job with a large file's header is written before its first piece is read.
fn pack_with(root: &Path, archive: &Path, meddle: impl Fn(usize) + Sync) -> PackReport {
    let mut out = SealedFile::create(archive).unwrap();
    let progress = After(AtomicUsize::new(0), meddle);
    let sink = Sink { out: &mut out, progress: &progress };
    let steps = full_steps(root).into_iter().map(Ok::<_, Infallible>);
    let options = PackOptions { threads: 1, ..PackOptions::new(Codec::Zstd) };
    let report = pack(steps, &Below(root.to_owned()), header(Level::Full), &options, sink).unwrap();
    out.seal().unwrap();
    report
}

/// A tree with one large file between two small ones; `meddle` gets the large one's path.
fn story(meddle: impl Fn(usize, &Path) + Sync) -> (tempfile::TempDir, PackReport) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a"), b"first").unwrap();
    std::fs::write(root.join("large"), noise(1, 10 << 20)).unwrap();
    std::fs::write(root.join("z"), b"last").unwrap();
    let report = pack_with(&root, &folder.path().join("x"), |count| meddle(count, &root.join("large")));
    (folder, report)
}

/// Another reader gets to the end, the index agrees with itself, and the neighbours are whole. Gives the tar's last
/// content of the large file and the index's flags.
fn check(folder: &Path) -> (Vec<u8>, Flags) {
    let archive = folder.join("x");
    let members = members(&archive, Codec::Zstd);
    assert_eq!(members.last().unwrap().0, b"./.coord/index");
    let content = |name: &[u8]| members.iter().rfind(|(found, _)| found == name).unwrap().1.clone();
    assert_eq!((content(b"./a"), content(b"./z")), (b"first".to_vec(), b"last".to_vec()));
    let checked = verify(&archive, &VerifyOptions { samples: 3, ..VerifyOptions::default() }, &()).unwrap();
    assert!(checked.is_ok(), "{checked:?}");
    let reader = ArchiveReader::open_path(&archive).unwrap();
    let entry = reader.find(b"large").unwrap().unwrap();
    let mut bytes = Vec::new();
    reader.content(&entry).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == content(b"./large"), "tar and index disagree");
    assert_eq!(entry.digest, Some(Digest::of(&bytes)));
    (bytes, entry.flags)
}

fn append(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(&noise(9, 3 << 20)).unwrap();
}

#[test]
fn a_file_that_grew_is_read_once_more() {
    let (folder, report) = story(|count, large| {
        if count == 2 {
            append(large);
        }
    });
    let (bytes, flags) = check(folder.path());
    assert!(bytes == [noise(1, 10 << 20), noise(9, 3 << 20)].concat());
    assert!(!flags.contains(Flags::CHANGED_WHILE_READ));
    assert_eq!((report.warning_count, report.changed_while_read), (0, 0));
}

#[test]
fn a_file_that_grows_all_the_time_is_cut_and_flagged() {
    let (folder, report) = story(|count, large| {
        if count < 20 {
            append(large);
        }
    });
    let (_, flags) = check(folder.path());
    assert!(flags.contains(Flags::CHANGED_WHILE_READ));
    assert_eq!(report.changed_while_read, 1);
    assert_eq!(report.warnings[0].reason, Reason::ChangedWhileRead);
}

#[test]
fn a_file_that_shrinks_is_filled_up_and_read_once_more() {
    let cut = |path: &Path, size: u64| OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
    let (folder, report) = story(|count, large| {
        if count == 1 {
            cut(large, 6 << 20);
        }
    });
    let (bytes, flags) = check(folder.path());
    assert!(bytes == noise(1, 6 << 20) && !flags.contains(Flags::CHANGED_WHILE_READ));
    assert_eq!(report.warning_count, 0);
    let (folder, report) = story(|count, large| {
        if count == 1 {
            cut(large, 100);
        }
    });
    let (bytes, flags) = check(folder.path());
    assert!(bytes.len() == 10 << 20 && bytes.starts_with(&noise(1, 100)));
    assert!(flags.contains(Flags::CHANGED_WHILE_READ));
    assert_eq!(report.changed_while_read, 1);
}

#[test]
fn a_file_that_vanishes_while_it_is_read_is_kept_and_flagged() {
    let (folder, report) = story(|count, large| {
        if count == 2 {
            std::fs::remove_file(large).unwrap();
        }
    });
    let (bytes, flags) = check(folder.path());
    assert!(bytes == noise(1, 10 << 20) && flags.contains(Flags::CHANGED_WHILE_READ));
    assert_eq!(report.warning_count, 1);
}

#[test]
fn a_storm_of_deletions_leaves_every_other_file_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    for number in 0..300 {
        std::fs::write(root.join(format!("{number:03}")), noise(number, 20_000)).unwrap();
    }
    let archive = folder.path().join("x");
    // The first job is written before the second is cut from the steps.
    let report = pack_with(&root, &archive, |count| {
        if count == 0 {
            for number in (0..300).filter(|number| number % 3 == 0) {
                let _gone = std::fs::remove_file(root.join(format!("{number:03}")));
            }
        }
    });
    let reader = ArchiveReader::open_path(&archive).unwrap();
    for number in 0..300 {
        let found = reader.find(format!("{number:03}").as_bytes()).unwrap();
        match found {
            Some(entry) => assert_eq!(entry.digest, Some(Digest::of(&noise(number, 20_000)))),
            None => assert_eq!(number % 3, 0),
        }
    }
    assert!(report.warning_count > 0);
    assert!(report.warnings.iter().all(|warning| warning.reason == Reason::Vanished));
    assert_eq!(report.files + report.warning_count, 300);
    assert!(verify(&archive, &VerifyOptions::default(), &()).unwrap().is_ok());
}

#[test]
fn small_files_under_constant_change_stay_consistent() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    for number in 0..50 {
        std::fs::write(root.join(format!("{number:03}")), noise(number, 50_000)).unwrap();
    }
    let archive = folder.path().join("x");
    let done = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0_u64;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                let path = root.join(format!("{:03}", round % 50));
                let length = usize::try_from(round * 7919 % 100_000).unwrap();
                std::fs::write(path, noise(round, length)).unwrap();
            }
        });
        let report = pack_with(&root, &archive, |_| {});
        done.store(true, Ordering::Relaxed);
        report
    });
    assert_eq!(report.files, 50);
    let checked = verify(&archive, &VerifyOptions::default(), &()).unwrap();
    assert!(checked.is_ok(), "{checked:?}");
    let reader = ArchiveReader::open_path(&archive).unwrap();
    let by_tar: std::collections::BTreeMap<_, _> = members(&archive, Codec::Zstd).into_iter().collect();
    let mut flagged = 0;
    for entry in reader.entries_below(b"").map(Result::unwrap).skip(1) {
        let name = [b"./", entry.path.as_slice()].concat();
        assert_eq!(entry.digest, Some(Digest::of(&by_tar[&name])));
        flagged += u64::from(entry.flags.contains(Flags::CHANGED_WHILE_READ));
    }
    assert_eq!(flagged, report.changed_while_read);
}
