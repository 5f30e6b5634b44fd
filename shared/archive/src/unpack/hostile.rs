//! Archives that no writer of ours makes: whole, with right digests, and an index that says whatever an attacker likes.
//!
//! Each is refused or contained: what lies beside the target is as before, nothing panics, and time and disk are bounded.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::{Covers, Overwrite, UnpackError, UnpackOptions, UnpackReport, unpack};
use crate::block::{BlockBuilder, stored_digest};
use crate::codec::{Codec, Compressor, Decompressor, MAX_FRAME_BYTES};
use crate::cursor::pad_to_block;
use crate::digest::Digest;
use crate::entry::{Attributes, ContentRef, DataRange, Entry, FileTime, Flags, Identity, Kind, Xattr};
use crate::file::SealedFile;
use crate::footer::{Footer, MAX_FOOTER_BYTES};
use crate::header::{Header, Level};
use crate::pack::{Item, PackOptions, Plan, Sink, Source, Step, pack};
use crate::progress::{Advance, Progress};
use crate::reader::ArchiveReader;
use crate::table::{BlockInfo, FrameInfo, Table};
use crate::verify::{Cancelled, VerifyOptions, verify_reader};

const CONTENT: &[u8] = b"content of every forged file";

struct Below(PathBuf);

impl Source for Below {
    fn open(&self, path: &[u8]) -> io::Result<File> {
        File::open(self.0.join(OsStr::from_bytes(path)))
    }
}

fn entry(path: &[u8], kind: Kind) -> Entry {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mode = if kind == Kind::Folder { 0o755 } else { 0o644 };
    Entry {
        path: path.to_vec(),
        kind,
        flags: Flags::default(),
        size: 0,
        attributes: Attributes { mode, uid, gid, mtime: FileTime { seconds: 1, nanos: 1 }, ..Attributes::default() },
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

/// A scratch folder with a target, a canary beside it, and a whole archive of one file to forge from.
struct Scene {
    folder: tempfile::TempDir,
    honest: Vec<u8>,
    file: Entry,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["source", "target", "outside"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("outside/canary"), "alive").unwrap();
        std::fs::write(folder.path().join("source/file"), CONTENT).unwrap();
        let path = folder.path().join("honest.tar.zst");
        let mut out = SealedFile::create(&path).unwrap();
        let file = Entry { size: CONTENT.len() as u64, ..entry(b"file", Kind::File) };
        let steps = [entry(b"", Kind::Folder), file].map(|entry| Step::Item(Item { entry, plan: Plan::Store }));
        let header = Header::new(Level::Full, b"/", jiff::Timestamp::UNIX_EPOCH);
        let source = Below(folder.path().join("source"));
        let sink = Sink { out: &mut out, progress: &() };
        let options = PackOptions { threads: 1, ..PackOptions::new(Codec::Zstd) };
        pack(steps.into_iter().map(Ok::<_, std::convert::Infallible>), &source, header, &options, sink).unwrap();
        out.seal().unwrap();
        let honest = std::fs::read(&path).unwrap();
        let reader = ArchiveReader::open(Box::new(honest.clone())).unwrap();
        let file = reader.find(b"file").unwrap().unwrap();
        Self { folder, honest, file }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    /// A file with the honest content under another name.
    fn file(&self, path: &[u8]) -> Entry {
        Entry { path: path.to_vec(), ..self.file.clone() }
    }

    /// The honest archive with an index of these entries, one block for each list.
    fn forge(&self, blocks: &[Vec<Entry>]) -> Vec<u8> {
        let tail = &self.honest[self.honest.len() - MAX_FOOTER_BYTES..];
        let mut footer = Footer::decode(tail).unwrap();
        let mut raw = Vec::new();
        let at = usize::try_from(footer.table_offset).unwrap();
        let stored_table = &self.honest[at..at + footer.table_length as usize];
        let mut decompressor = Decompressor::new(Codec::Zstd).unwrap();
        decompressor.decompress(stored_table, MAX_FRAME_BYTES, &mut raw).unwrap();
        let mut table = Table::decode(&raw).unwrap();
        let stored = |info: &FrameInfo| {
            let from = usize::try_from(info.offset).unwrap();
            self.honest[from..from + info.stored_length as usize].to_vec()
        };
        let chunks: Vec<Vec<u8>> = table.chunks.iter().map(|chunk| stored(&chunk.frame)).collect();
        let mut out = self.honest[..usize::try_from(table.head.end()).unwrap()].to_vec();
        let mut compressor = Compressor::new(Codec::Zstd, 3).unwrap();
        table.blocks.clear();
        table.counts.entries = 0;
        for entries in blocks {
            let mut builder = BlockBuilder::default();
            entries.iter().for_each(|entry| builder.push(entry));
            let block = builder.take().unwrap();
            let frame = put_frame(&mut out, &mut compressor, &block.raw);
            table.counts.entries += block.entries;
            table.blocks.push(BlockInfo { first_path: block.first_path, entries: block.entries, frame });
        }
        chunks.iter().for_each(|chunk| out.extend(chunk));
        let mut raw = table.encode();
        pad_to_block(&mut raw);
        raw.resize(raw.len() + 1024, 0);
        footer.table_offset = out.len() as u64;
        let frame = put_frame(&mut out, &mut compressor, &raw);
        footer.table_length = frame.stored_length;
        footer.archive_digest = frame.digest;
        footer.entries = table.counts.entries;
        footer.stored_bytes = (out.len() + Footer::stored_length(Codec::Zstd)) as u64;
        out.extend(footer.encode());
        out
    }

    /// Unpacks a forged archive over the target; what lies outside must be as before.
    fn attack(&self, blocks: &[Vec<Entry>], overwrite: Overwrite) -> Result<UnpackReport, String> {
        let unpacked = ArchiveReader::open(Box::new(self.forge(blocks)))
            .map_err(|error| error.to_string())
            .and_then(|reader| self.unpack(&reader, overwrite));
        self.assert_contained();
        unpacked
    }

    fn unpack(&self, reader: &ArchiveReader, overwrite: Overwrite) -> Result<UnpackReport, String> {
        let target = File::open(self.target()).unwrap().into();
        let covers = |_: &[u8]| true;
        let delete_extra: Option<Covers<'_>> = if overwrite == Overwrite::Never { None } else { Some(&covers) };
        let options = UnpackOptions { overwrite, delete_extra, threads: 2, ..UnpackOptions::default() };
        unpack(reader, None, target, &options, &()).map_err(|error| format!("{error}: {error:?}"))
    }

    fn assert_contained(&self) {
        let names = |path: &Path| -> Vec<_> {
            let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(self.folder.path()), ["honest.tar.zst", "outside", "source", "target"]);
        assert_eq!(names(&self.folder.path().join("outside")), ["canary"]);
        assert_eq!(names(&self.folder.path().join("source")), ["file"]);
        assert_eq!(std::fs::read(self.folder.path().join("outside/canary")).unwrap(), b"alive");
        let canary = std::fs::metadata(self.folder.path().join("outside/canary")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&canary), 1);
    }
}

fn put_frame(out: &mut Vec<u8>, compressor: &mut Compressor, raw: &[u8]) -> FrameInfo {
    let mut stored = Vec::new();
    compressor.compress(raw, &mut stored).unwrap();
    let info = FrameInfo {
        offset: out.len() as u64,
        stored_length: u32::try_from(stored.len()).unwrap(),
        raw_length: u32::try_from(raw.len()).unwrap(),
        digest: stored_digest(&stored),
    };
    out.extend(stored);
    info
}

fn root() -> Entry {
    entry(b"", Kind::Folder)
}

fn link(path: &[u8], to: &[u8]) -> Entry {
    Entry { link_target: to.to_vec(), ..entry(path, Kind::Symlink) }
}

#[test]
fn a_forged_index_without_malice_is_restored() {
    let scene = Scene::new();
    let report = scene.attack(&[vec![root(), scene.file(b"a"), scene.file(b"b")]], Overwrite::Never).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(std::fs::read(scene.target().join("b")).unwrap(), CONTENT);
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let scene = Scene::new();
    let evil: [&[u8]; 14] = [
        b"..",
        b"../outside/canary",
        b"../outside/new",
        b"a/../../outside/canary",
        b"/",
        b"/tmp/absolute",
        b"a//b",
        b"a/./b",
        b".",
        b"./a",
        b"a/",
        b"a\0b",
        b"a/..",
        b"..\0",
    ];
    for path in evil {
        for kind in [Kind::File, Kind::Folder, Kind::Symlink] {
            let evil = Entry { kind, path: path.to_vec(), ..scene.file(path) };
            let refused = scene.attack(&[vec![root(), evil.clone()]], Overwrite::Always);
            assert!(refused.is_err(), "{path:?} {kind:?}: {refused:?}");
            let refused = scene.attack(&[vec![root(), entry(b"a", Kind::Folder), evil]], Overwrite::Always);
            assert!(refused.is_err(), "{path:?} {kind:?}: {refused:?}");
        }
    }
    assert_eq!(std::fs::read_dir(scene.target()).unwrap().count(), 0);
}

#[test]
fn a_file_behind_a_link_of_the_same_archive_is_refused() {
    let scene = Scene::new();
    for to in [&b"../outside"[..], b"/", b"."] {
        let refused = scene.attack(&[vec![root(), link(b"a", to), scene.file(b"a/canary")]], Overwrite::Always);
        assert!(refused.unwrap_err().contains("its folder is not in the index"));
    }
    let refused = scene.attack(&[vec![root(), scene.file(b"a/b")]], Overwrite::Always);
    assert!(refused.is_err());
}

#[test]
fn a_name_that_comes_twice_is_refused() {
    let scene = Scene::new();
    let folder = || entry(b"a", Kind::Folder);
    let to_outside = || link(b"a", b"../outside");
    for blocks in [
        vec![vec![root(), to_outside(), folder(), scene.file(b"a/canary")]],
        vec![vec![root(), folder(), to_outside()], vec![folder(), scene.file(b"a/canary")]],
        vec![vec![root(), folder(), scene.file(b"b")], vec![to_outside()]],
        vec![vec![root(), folder(), scene.file(b"a/z")], vec![scene.file(b"a/canary")]],
    ] {
        assert!(scene.attack(&blocks, Overwrite::Always).is_err());
    }
}

#[test]
fn a_link_that_stands_in_the_target_is_not_followed() {
    let scene = Scene::new();
    let blocks = [vec![root(), entry(b"a", Kind::Folder), scene.file(b"a/canary"), scene.file(b"b")]];
    symlink("../outside", scene.target().join("a")).unwrap();
    symlink("../outside/canary", scene.target().join("b")).unwrap();
    let report = scene.attack(&blocks, Overwrite::Never).unwrap();
    assert_eq!((report.different.total, report.counts.below_blocked), (2, 1));
    let report = scene.attack(&blocks, Overwrite::Always).unwrap();
    assert_eq!(report.different.total, 0, "{report:?}");
    assert_eq!(std::fs::read(scene.target().join("a/canary")).unwrap(), CONTENT);
    assert!(!scene.target().join("b").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_hard_link_to_a_link_or_to_another_content_is_a_file_of_its_own() {
    let scene = Scene::new();
    let group = |entry: Entry| Entry { link_group: 7, ..entry };
    let other = Entry { digest: Some(Digest([1; 32])), ..scene.file(b"c") };
    let entries = vec![
        root(),
        group(link(b"a", b"../outside/canary")),
        group(scene.file(b"b")),
        group(other),
        group(scene.file(b"d")),
    ];
    let report = scene.attack(&[entries], Overwrite::Always).unwrap();
    assert_eq!(std::fs::read(scene.target().join("b")).unwrap(), CONTENT);
    assert!(!scene.target().join("b").symlink_metadata().unwrap().is_symlink());
    assert_eq!(report.damaged.total, 1, "{report:?}");
    assert_eq!((report.counts.files, report.counts.links), (1, 1), "{report:?}");
}

#[test]
fn sizes_that_no_file_has_are_damage() {
    let scene = Scene::new();
    let file = |path: &[u8], size, data_ranges| Entry { size, data_ranges, ..scene.file(path) };
    let range = |offset, length| DataRange { offset, length };
    let placed = |path: &[u8], frame, offset| Entry {
        content: Some(ContentRef { frame, offset, ..scene.file.content.unwrap() }),
        ..scene.file(path)
    };
    let entries = vec![
        root(),
        file(b"a", u64::MAX, None),
        file(b"b", 1 << 63, Some(Vec::new())),
        file(b"c", u64::MAX, Some(vec![range(1 << 62, 1)])),
        file(b"d", 1 << 30, Some(vec![range(0, 1 << 30)])),
        placed(b"e", 1 << 40, 0),
        placed(b"f", 0, u32::MAX),
        Entry { digest: None, ..scene.file(b"g") },
        Entry { content: None, ..scene.file(b"h") },
        scene.file(b"z"),
    ];
    // Each by itself: the sum of their sizes alone ends a restore.
    for (at, damaged) in entries.iter().enumerate().skip(1).take(8) {
        let outcome = scene.attack(&[vec![root(), damaged.clone(), scene.file(b"z")]], Overwrite::Never);
        if let Ok(report) = &outcome {
            assert_eq!(report.damaged.total, 1, "{at}: {report:?}");
        }
        assert!(!scene.target().join(OsStr::from_bytes(&damaged.path)).exists());
    }
    assert!(scene.target().join("z").exists());
}

#[test]
fn a_verification_of_sizes_that_no_file_has_ends() {
    let scene = Scene::new();
    let content = scene.file.content.unwrap();
    for (size, ranges) in
        [(u64::MAX, None), (1 << 63, Some(Vec::new())), (1 << 44, None), ((1 << 44) + 1, Some(Vec::new()))]
    {
        for frame in [0, u64::MAX] {
            let content = Some(ContentRef { frame, offset: 1, ..content });
            let lie = Entry { size, data_ranges: ranges.clone(), content, ..scene.file(b"a") };
            let reader = ArchiveReader::open(Box::new(scene.forge(&[vec![root(), lie.clone()]]))).unwrap();
            let options = VerifyOptions { threads: 1, samples: 1, expected: None };
            let found = verify_reader(&reader, &options, &()).unwrap();
            assert_eq!((found.damaged_count, found.is_ok()), (1, false), "{size} {frame}");
            assert!(reader.content(&lie).is_err() || size == 1 << 44);
        }
    }
}

/// Stops when it is asked for the third time.
#[derive(Default)]
struct Impatient(AtomicU32);

impl Progress for Impatient {
    fn advance(&self, _step: Advance<'_>) -> ControlFlow<()> {
        if self.0.fetch_add(1, Ordering::Relaxed) < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[test]
fn the_longest_hole_can_be_cancelled() {
    let scene = Scene::new();
    let hole = Entry { size: 1 << 44, data_ranges: Some(Vec::new()), ..scene.file(b"a") };
    let reader = ArchiveReader::open(Box::new(scene.forge(&[vec![root(), hole]]))).unwrap();
    for samples in [0, 1] {
        let options = VerifyOptions { threads: 1, samples, expected: None };
        assert_eq!(verify_reader(&reader, &options, &Impatient::default()), Err(Cancelled));
    }
    let target = File::open(scene.target()).unwrap().into();
    let ended = unpack(&reader, None, target, &UnpackOptions::default(), &Impatient::default());
    // A file system whose files are shorter says so first.
    assert!(matches!(ended, Err(UnpackError::Cancelled)) || ended.unwrap().failed.total == 1);
}

#[test]
fn whoever_cannot_be_made_the_owner_lends_no_rights() {
    let scene = Scene::new();
    let lent = |path: &[u8], uid, gid| {
        let mut entry = scene.file(path);
        (entry.attributes.uid, entry.attributes.gid, entry.attributes.mode) = (uid, gid, 0o6755);
        entry
    };
    let gid = rustix::process::getgid().as_raw();
    let entries = vec![root(), lent(b"a", u32::MAX, gid), lent(b"b", rustix::process::getuid().as_raw(), u32::MAX)];
    let report = scene.attack(&[entries], Overwrite::Never).unwrap();
    assert_eq!(report.not_settable.total, 4, "{report:?}");
    for name in ["a", "b"] {
        let found = std::fs::metadata(scene.target().join(name)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&found) & 0o7777, 0o755);
    }
}

#[test]
fn a_device_whose_number_is_cut_is_no_device() {
    let scene = Scene::new();
    let device = Entry { device: (u32::MAX, u32::MAX), ..entry(b"a", Kind::BlockDevice) };
    let report = scene.attack(&[vec![root(), device]], Overwrite::Never).unwrap();
    assert_eq!(report.failed.total, 1, "{report:?}");
    assert!(scene.target().join("a").symlink_metadata().is_err());
}

#[test]
fn entries_that_share_content_without_end_are_stopped() {
    let scene = Scene::new();
    let greedy = |number: u32| Entry { size: 1 << 20, ..scene.file(format!("{number:03}").as_bytes()) };
    let greedy: Vec<Entry> = std::iter::once(root()).chain((0..200).map(greedy)).collect();
    let outcome = scene.attack(&[greedy], Overwrite::Never);
    assert!(outcome.unwrap_err().contains("more content than the archives store"));
}

#[test]
fn attributes_that_cannot_be_are_told_and_harm_nothing() {
    let scene = Scene::new();
    let mut odd = scene.file(b"a");
    for name in [&b"user.x\0y"[..], b"", b"no-such-namespace.x", b"system.posix_acl_access"] {
        odd.attributes.xattrs.push(Xattr { name: name.to_vec(), value: vec![0xff; 70_000] });
    }
    odd.attributes.mtime = FileTime { seconds: i64::MAX, nanos: 999_999_999 };
    odd.attributes.inode_flags = !0x30;
    odd.attributes.mode = u32::MAX;
    let entries = vec![root(), odd, link(b"b", b""), link(b"c", b"x\0y"), link(b"d", &vec![b'x'; 70_000])];
    let report = scene.attack(&[entries], Overwrite::Never).unwrap();
    assert_eq!(std::fs::read(scene.target().join("a")).unwrap(), CONTENT);
    assert_eq!(report.failed.total, 3, "{report:?}");
    assert!(report.not_settable.total >= 4, "{report:?}");
}

/// Any entry over a few names, so that kinds, links and folders collide.
fn any_entry() -> impl Strategy<Value = Entry> {
    let name = prop::sample::select(vec!["a", "b", "c", "..", "."]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/").into_bytes());
    let kind =
        prop::sample::select(vec![Kind::File, Kind::Folder, Kind::Folder, Kind::Symlink, Kind::Fifo, Kind::Tombstone]);
    let target = prop::sample::select(vec!["../outside", "../../outside", "/", "..", ".", "a", "../outside/canary"]);
    (path, kind, target, 0..3_u64, 0..64_u16, 0..100_u64).prop_map(|(path, kind, to, link_group, flags, size)| Entry {
        link_target: if kind == Kind::Symlink { to.as_bytes().to_vec() } else { Vec::new() },
        link_group,
        flags: Flags(flags),
        size: if kind == Kind::File { size } else { 0 },
        ..entry(&path, kind)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, fork: false, ..ProptestConfig::default() })]

    #[test]
    fn no_index_leads_outside(drawn in prop::collection::vec(any_entry(), 1..12), sort in any::<bool>(), clean in any::<bool>()) {
        let scene = Scene::new();
        let mut entries: Vec<Entry> = drawn;
        for entry in entries.iter_mut().filter(|entry| entry.kind == Kind::File) {
            let whole = entry.size % 2 == 0;
            entry.digest = scene.file.digest;
            entry.content = scene.file.content;
            if whole {
                entry.size = scene.file.size;
            }
        }
        if clean {
            entries.retain(|entry| crate::entry::is_clean_path(&entry.path));
        }
        if sort {
            entries.sort_by(|a, b| crate::entry::cmp_paths(&a.path, &b.path));
            entries.dedup_by(|a, b| a.path == b.path);
        }
        entries.insert(0, root());
        // Over an empty target, and over what the first attack made.
        for overwrite in [Overwrite::Never, Overwrite::Always, Overwrite::IfChanged] {
            // Refused or contained: both are right.
            drop(scene.attack(std::slice::from_ref(&entries), overwrite));
        }
    }
}
