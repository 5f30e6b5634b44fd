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
use coord_archive::entry::{Entry, Flags};
use coord_archive::file::SealedFile;
use coord_archive::header::Level;
use coord_archive::pack::{PackOptions, PackReport, Reason, Sink, Source, pack};
use coord_archive::progress::{Advance, Progress};
use coord_archive::reader::ArchiveReader;
use coord_archive::verify::{VerifyOptions, verify};

use crate::support::{Below, entry_of, full_steps, header, members, noise, pack_steps};

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
fn a_name_that_becomes_another_file_while_it_is_read_takes_no_other_name_along() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("large"), noise(1, 10 << 20)).unwrap();
    std::fs::hard_link(root.join("large"), root.join("second")).unwrap();
    std::fs::write(folder.path().join("another"), noise(2, 6 << 20)).unwrap();
    let archive = folder.path().join("x");
    let report = pack_with(&root, &archive, |count| {
        if count == 2 {
            std::fs::rename(folder.path().join("another"), root.join("large")).unwrap();
        }
    });
    assert_eq!((report.files, report.warning_count), (2, 0));
    let reader = ArchiveReader::open_path(&archive).unwrap();
    let found = [b"large".as_slice(), b"second"].map(|name| reader.find(name).unwrap().unwrap());
    assert_eq!(found[0].digest, Some(Digest::of(&noise(2, 6 << 20))));
    assert_eq!(found[1].digest, Some(Digest::of(&noise(1, 10 << 20))));
    assert_eq!(found[0].link_group, 0);
    assert!(verify(&archive, &VerifyOptions::default(), &()).unwrap().is_ok());
}

/// Removes a file when it was opened and nothing of it was read.
struct Removing<'a>(Below, &'a [u8]);

impl Source for Removing<'_> {
    fn open(&self, path: &[u8]) -> std::io::Result<std::fs::File> {
        self.0.open(path)
    }

    fn complete(&self, _file: &std::fs::File, entry: &mut Entry) {
        if entry.path == self.1 {
            std::fs::remove_file(self.0.0.join(std::str::from_utf8(self.1).unwrap())).unwrap();
        }
    }
}

#[test]
fn a_small_file_that_vanishes_while_it_is_read_is_kept_and_flagged_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("small"), noise(1, 700)).unwrap();
    let archive = folder.path().join("x");
    let source = Removing(Below(root.clone()), b"small");
    let options = PackOptions::new(Codec::Zstd);
    let report = pack_steps(full_steps(&root), &source, Level::Full, &options, &archive).unwrap();
    assert_eq!((report.files, report.changed_while_read), (1, 1));
    let entry = ArchiveReader::open_path(&archive).unwrap().find(b"small").unwrap().unwrap();
    assert_eq!(entry.digest, Some(Digest::of(&noise(1, 700))));
    assert!(entry.flags.contains(Flags::CHANGED_WHILE_READ));
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

#[test]
fn what_changed_between_scan_and_reading_is_stored_as_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a"), b"old").unwrap();
    std::fs::write(root.join("grown"), b"small").unwrap();
    let steps = full_steps(&root);
    std::fs::write(root.join("a"), b"newer").unwrap();
    std::fs::set_permissions(root.join("a"), std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    rustix::fs::setxattr(root.join("a"), "user.k", b"v", rustix::fs::XattrFlags::CREATE).unwrap();
    std::fs::write(root.join("grown"), noise(3, 7_000_000)).unwrap();
    let archive = folder.path().join("x");
    let options = PackOptions::new(Codec::Zstd);
    pack_steps(steps, &Below(root.clone()), Level::Full, &options, &archive).unwrap();
    let reader = ArchiveReader::open_path(&archive).unwrap();
    let a = reader.find(b"a").unwrap().unwrap();
    let now = entry_of(&root.join("a"), b"a").unwrap();
    assert_eq!((&a.attributes, a.identity, a.size), (&now.attributes, now.identity, 5));
    assert_eq!(a.digest, Some(Digest::of(b"newer")));
    assert!(a.flags.contains(Flags::RACY));
    let grown = reader.find(b"grown").unwrap().unwrap();
    assert_eq!(grown.digest, Some(Digest::of(&noise(3, 7_000_000))));
    assert_eq!(grown.pieces.len(), 4);
    assert!(verify(&archive, &VerifyOptions::default(), &()).unwrap().is_ok());
    assert_eq!(members(&archive, Codec::Zstd).last().unwrap().0, b"./.coord/index");
}

/// Opens some files so that reading them fails.
struct Failing<'a>(Below, &'a [&'a [u8]]);

impl Source for Failing<'_> {
    fn open(&self, path: &[u8]) -> std::io::Result<std::fs::File> {
        if self.1.contains(&path) {
            OpenOptions::new().write(true).open(self.0.0.join(std::str::from_utf8(path).unwrap()))
        } else {
            self.0.open(path)
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_spoils_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    for (name, size) in [("a", 5), ("large", 5 << 20), ("small", 700), ("z", 900)] {
        std::fs::write(root.join(name), noise(size as u64, size)).unwrap();
    }
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(1, 5 << 20), 1 << 20).unwrap();
    let archive = folder.path().join("x");
    let source = Failing(Below(root.clone()), &[b"large", b"small", b"sparse"]);
    let options = PackOptions::new(Codec::Zstd);
    let report = pack_steps(full_steps(&root), &source, Level::Full, &options, &archive).unwrap();
    let mut warned: Vec<_> = report.warnings.iter().map(|warning| warning.path.as_slice()).collect();
    warned.sort_unstable();
    assert_eq!(warned, [&b"large"[..], b"small", b"sparse"]);
    let reader = ArchiveReader::open_path(&archive).unwrap();
    for (name, is_read) in [("a", true), ("large", false), ("small", false), ("sparse", false), ("z", true)] {
        let entry = reader.find(name.as_bytes()).unwrap().unwrap();
        assert_eq!(entry.flags.contains(Flags::UNREAD), !is_read, "{name}");
        assert_eq!(entry.digest.is_some(), is_read, "{name}");
    }
    assert!(verify(&archive, &VerifyOptions { samples: 4, ..VerifyOptions::default() }, &()).unwrap().is_ok());
    assert_eq!(members(&archive, Codec::Zstd).last().unwrap().0, b"./.coord/index");
}

#[test]
fn a_name_that_can_be_read_keeps_the_content_of_those_that_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let groups = [("large", 5 << 20), ("lost", 5 << 20), ("small", 700)];
    for (name, size) in groups {
        std::fs::write(root.join(name), noise(size as u64, size)).unwrap();
        for other in ["2", "3", "4"] {
            std::fs::hard_link(root.join(name), root.join([name, other].concat())).unwrap();
        }
    }
    let closed: [&[u8]; 8] = [b"large", b"large2", b"lost", b"lost2", b"lost3", b"lost4", b"small", b"small2"];
    let archive = folder.path().join("x");
    let source = Failing(Below(root.clone()), &closed);
    let report = pack_steps(full_steps(&root), &source, Level::Full, &PackOptions::new(Codec::Zstd), &archive).unwrap();
    assert_eq!(report.files, 2, "a group's content is stored once");
    let mut warned: Vec<_> = report.warnings.iter().map(|warning| warning.path.as_slice()).collect();
    warned.sort_unstable();
    assert_eq!(warned, closed, "no name is unread in silence");
    let reader = ArchiveReader::open_path(&archive).unwrap();
    for (name, size) in groups {
        let entries = ["", "2", "3", "4"].map(|other| reader.find([name, other].concat().as_bytes()).unwrap().unwrap());
        for entry in &entries {
            let is_read = !closed.contains(&entry.path.as_slice());
            assert_eq!(entry.digest, is_read.then(|| Digest::of(&noise(size as u64, size))), "{name}");
            assert_eq!(entry.flags.contains(Flags::UNREAD), !is_read, "{name}");
        }
        assert_eq!(entries[2].content, entries[3].content, "{name}: they stay one file");
    }
    assert!(verify(&archive, &VerifyOptions { samples: 4, ..VerifyOptions::default() }, &()).unwrap().is_ok());
    assert_eq!(members(&archive, Codec::Zstd).last().unwrap().0, b"./.coord/index");
}
