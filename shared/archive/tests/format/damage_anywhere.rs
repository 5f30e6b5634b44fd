//! Any damage to any archive: nothing panics, no wrong byte is restored, what is affected is named, and whatever is still
//! whole comes back, from the archive itself or, where its index is hit, from the one that is rebuilt out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Range;
use std::path::{Path, PathBuf};

use coord_archive::codec::Codec;
use coord_archive::entry::{Entry, Kind};
use coord_archive::file::SealedFile;
use coord_archive::header::{Base, Level};
use coord_archive::pack::{Item, PackOptions, Plan, Sink, Step, pack};
use coord_archive::reader::ArchiveReader;
use coord_archive::rebuild::{RebuildError, RebuildOptions, RebuildReport};
use coord_archive::unpack::{UnpackOptions, UnpackReport, unpack};
use coord_archive::verify::{VerifyOptions, verify_reader};
use proptest::prelude::*;

use crate::rebuild::rebuilt;
use crate::support::{Below, entry_of, full_steps, header, noise};

/// A piece of another archive that is a file in the backup lies in a frame as it is; frames that are found by searching are
/// taken for the archive's own only when they are more than that.
const LONGEST_BLOCK: u64 = 128 << 10;

/// What is done to a file of archive bytes. Places are fractions of its length.
#[derive(Clone, Debug)]
enum Damage {
    Truncate(f64),
    Flip(f64),
    Cut(f64, f64),
    Zero(f64, f64),
    Swap(f64, f64, f64),
    Append(u16),
    /// A frame is replaced by one of another archive: by its fellow at the same place, or by any.
    Foreign(f64, Option<f64>),
}

fn damages() -> impl Strategy<Value = Damage> {
    // The index is a small part of an archive: half of all places are drawn from its last hundredth.
    let place = || prop_oneof![0.0..1.0, 0.97..1.0_f64];
    prop_oneof![
        place().prop_map(Damage::Truncate),
        place().prop_map(Damage::Flip),
        (place(), place()).prop_map(|(a, b)| Damage::Cut(a, b)),
        (place(), place()).prop_map(|(a, b)| Damage::Zero(a, b)),
        (place(), place(), place()).prop_map(|(a, b, c)| Damage::Swap(a, b, c)),
        (1..5000_u16).prop_map(Damage::Append),
        (0.0..1.0, prop::option::of(0.0..1.0)).prop_map(|(a, b)| Damage::Foreign(a, b)),
    ]
}

/// The bytes of an archive, and where its frames lie in them.
struct Framed {
    bytes: Vec<u8>,
    frames: Vec<Range<usize>>,
}

impl Framed {
    fn of(path: &Path) -> Self {
        let reader = ArchiveReader::open_path(path).unwrap();
        let frames = (0..reader.frame_count()).map(|number| {
            let frame = reader.frame_info(number).unwrap();
            let begin = usize::try_from(frame.offset).unwrap();
            begin..begin + frame.stored_length as usize
        });
        Self { frames: frames.collect(), bytes: std::fs::read(path).unwrap() }
    }
}

/// Damaged bytes, and which parts of the whole archive they hold in which order; other bytes are in `None`s of that length.
struct Damaged {
    bytes: Vec<u8>,
    parts: Vec<Range<u64>>,
    changed: bool,
}

impl Damage {
    fn apply(&self, Framed { bytes: whole, frames }: &Framed, other: &Framed) -> Damaged {
        let length = whole.len();
        let at = |fraction: &f64| ((*fraction * length as f64) as usize).min(length - 1);
        let range = |a: &f64, b: &f64| at(a).min(at(b))..at(a).max(at(b)) + 1;
        let mut bytes = whole.clone();
        let parts: Vec<Range<usize>> = match self {
            Self::Truncate(a) => {
                bytes.truncate(at(a));
                std::iter::once(0..at(a)).collect()
            }
            Self::Flip(a) => {
                bytes[at(a)] ^= 1 << (at(a) % 8);
                vec![0..at(a), at(a) + 1..length]
            }
            Self::Cut(a, b) => {
                bytes.drain(range(a, b));
                vec![0..range(a, b).start, range(a, b).end..length]
            }
            Self::Zero(a, b) => {
                bytes[range(a, b)].fill(0);
                vec![0..range(a, b).start, range(a, b).end..length]
            }
            Self::Swap(a, b, c) => {
                // Two neighbouring ranges change places.
                let mut cuts = [at(a), at(b), at(c)];
                cuts.sort_unstable();
                let [from, middle, to] = cuts;
                bytes[from..to].rotate_left(middle - from);
                vec![0..from, middle..to, from..middle, to..length]
            }
            Self::Append(count) => {
                bytes.extend(noise(u64::from(*count), usize::from(*count)));
                std::iter::once(0..length).collect()
            }
            Self::Foreign(ours, theirs) => {
                let pick = |fraction: f64, count: usize| ((fraction * count as f64) as usize).min(count - 1);
                let number = pick(*ours, frames.len());
                let theirs = theirs.map_or(number, |theirs| pick(theirs, other.frames.len()));
                let (out, inside) = (&frames[number], &other.frames[theirs.min(other.frames.len() - 1)]);
                bytes.splice(out.clone(), other.bytes[inside.clone()].iter().copied());
                vec![0..out.start, out.end..length]
            }
        };
        let parts = parts.into_iter().map(|part| part.start as u64..part.end as u64).collect();
        Damaged { changed: bytes != *whole, bytes, parts }
    }
}

impl Damaged {
    /// The part that holds all of these bytes of the whole archive.
    fn part_of(&self, bytes: &Range<u64>) -> Option<&Range<u64>> {
        self.parts.iter().find(|part| part.start <= bytes.start && bytes.end <= part.end)
    }
}

/// A full and a differential of it, with the bytes that each file is to have.
struct Chain {
    folder: tempfile::TempDir,
    /// A full of the same names and sizes with other bytes: what of it is taken for the archive's own is wrong.
    other: Framed,
    old: BTreeMap<Vec<u8>, Vec<u8>>,
    new: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Chain {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, name: &str) -> ArchiveReader {
        ArchiveReader::open_path(&self.path(name)).unwrap()
    }

    /// Files of these sizes; every third changes for the differential, every third is deleted.
    fn make(codec: Codec, sizes: &[usize]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        let name = |number: usize| format!("f{number:02}");
        let write = |number: usize, seed: usize, size: usize, all: &mut BTreeMap<Vec<u8>, Vec<u8>>| {
            let bytes = if number % 5 == 4 { vec![seed as u8; size] } else { noise(seed as u64, size) };
            std::fs::write(root.join(name(number)), &bytes).unwrap();
            all.insert(name(number).into_bytes(), bytes);
        };
        let options = PackOptions { frame_bytes: 64 << 10, threads: 1, ..PackOptions::new(codec) };
        let sealed = |file: &str, steps: Vec<Step>, base: Option<Base>| {
            let level = if base.is_some() { Level::Differential } else { Level::Full };
            let mut header = header(level);
            header.base = base;
            let mut out = SealedFile::create(&root.with_file_name(file)).unwrap();
            let sink = Sink { out: &mut out, progress: &() };
            let steps = steps.into_iter().map(Ok::<_, Infallible>);
            let report = pack(steps, &Below(root.clone()), header, &options, sink).unwrap();
            out.seal().unwrap();
            report.footer
        };
        let fill = |seed: usize| {
            let mut all = BTreeMap::new();
            for (number, size) in sizes.iter().enumerate() {
                write(number, number + seed, *size, &mut all);
            }
            all
        };
        fill(201);
        sealed("other", full_steps(&root), None);
        let old = fill(1);
        let footer = sealed("full", full_steps(&root), None);
        let mut new = old.clone();
        let mut steps = Vec::new();
        for (number, size) in sizes.iter().enumerate().filter(|(number, _)| number % 3 != 0) {
            if number % 3 == 1 {
                write(number, number + 100, size + 10, &mut new);
                let entry = entry_of(&root.join(name(number)), name(number).as_bytes()).unwrap();
                steps.push(Step::Item(Item { entry, plan: Plan::Store }));
            } else {
                std::fs::remove_file(root.join(name(number))).unwrap();
                new.remove(name(number).as_bytes());
                steps.push(Step::Item(Item {
                    entry: Entry::tombstone(name(number).into_bytes()),
                    plan: Plan::IndexOnly,
                }));
            }
        }
        steps.push(Step::FolderExit { entry: entry_of(&root, b"").unwrap(), base: None });
        let base = Base { archive_digest: footer.archive_digest, name: "full".into(), run: None, ordinal: 0 };
        sealed("differential", steps, Some(base));
        Self { other: Framed::of(&root.with_file_name("other")), folder, old, new }
    }

    /// Restores into a new folder and gives back what came.
    fn restore(
        &self,
        full: &ArchiveReader,
        differential: Option<&ArchiveReader>,
    ) -> (BTreeMap<Vec<u8>, Vec<u8>>, UnpackReport) {
        let target = tempfile::tempdir_in(self.folder.path()).unwrap();
        let opened = std::fs::File::open(target.path()).unwrap().into();
        let options = UnpackOptions { threads: 1, ..UnpackOptions::default() };
        let report = unpack(full, differential, opened, &options, &()).unwrap();
        let files = std::fs::read_dir(target.path()).unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_encoded_bytes(), std::fs::read(entry.path()).unwrap())
        });
        (files.collect(), report)
    }
}

/// The files whose frames are all whole in the damaged bytes, as far as that is enough for them to come back.
fn whole_files(whole: &ArchiveReader, damaged: &Damaged) -> BTreeSet<Vec<u8>> {
    let place = |number: u64| {
        let frame = whole.frame_info(number).unwrap();
        frame.offset..frame.offset + u64::from(frame.stored_length)
    };
    let index_begins =
        whole.frame_info(whole.frame_count() - 1).map(|last| last.offset + u64::from(last.stored_length));
    let footer = if whole.footer().codec == Codec::Zstd { 168 } else { 186 };
    let index = index_begins.unwrap()..whole.footer().stored_bytes - footer;
    // Frames of its own in other places show that an index is the archive's, if its place does not.
    let is_proven = |part: &Range<u64>| {
        let mut frames = (0..whole.frame_count()).filter_map(|number| damaged.part_of(&place(number)));
        is_own(whole, damaged, part) || frames.any(|part| is_own(whole, damaged, part))
    };
    let has_index = damaged.part_of(&index).is_some_and(is_proven);
    let files = whole.entries().map(Result::unwrap).filter(|entry| entry.kind == Kind::File);
    let comes_back = |entry: &Entry| {
        let Some(content) = entry.content else { return false };
        let mut frames = content.frame..content.frame;
        let mut left = u64::from(content.offset) + entry.size;
        while left > 0 {
            left = left.saturating_sub(u64::from(whole.frame_info(frames.end).unwrap().raw_length));
            frames.end += 1;
        }
        if has_index {
            return frames.clone().all(|number| damaged.part_of(&place(number)).is_some());
        }
        // Without the index a file is known by its header, which for a large one is in the frame before.
        let is_large = entry.size > 2 << 20;
        let from = if is_large { frames.start - 1 } else { frames.start };
        let span = place(from).start..place(frames.end - 1).end;
        damaged.part_of(&span).is_some_and(|part| is_own(whole, damaged, part))
    };
    files.filter(comes_back).map(|entry| entry.path).collect()
}

/// Whether the frames in a part of the archive can be told from those of an archive within it.
fn is_own(whole: &ArchiveReader, damaged: &Damaged, part: &Range<u64>) -> bool {
    let frames = (0..whole.frame_count()).map(|number| whole.frame_info(number).unwrap());
    let inside =
        frames.filter(|frame| part.start <= frame.offset && frame.offset + u64::from(frame.stored_length) <= part.end);
    let stretch: u64 = inside.map(|frame| u64::from(frame.stored_length)).sum();
    let is_first = damaged.parts.first().is_some_and(|first| first == part && part.start == 0);
    let is_last = damaged.parts.last() == Some(part) && part.end == whole.footer().stored_bytes;
    is_first || is_last || stretch > LONGEST_BLOCK
}

fn is_affected_named(name: &[u8], report: &UnpackReport, rebuilt: Option<&RebuildReport>) -> bool {
    let listed = [&report.damaged, &report.unread].into_iter().flat_map(|listing| &listing.listed);
    let in_lost = |report: &RebuildReport| report.lost.listed.iter().any(|(path, _)| path == name);
    listed.map(|note| note.path.as_slice()).any(|path| path == name) || rebuilt.is_some_and(in_lost)
}

/// Everything that has to hold for one damage of one archive of the chain.
fn check(chain: &Chain, level: Level, damage: &Damage) {
    let name = if level == Level::Full { "full" } else { "differential" };
    let whole = chain.open(name);
    let base = chain.open("full");
    let damaged = damage.apply(&Framed::of(&chain.path(name)), &chain.other);
    let restore = |reader: &ArchiveReader| match level {
        Level::Full => chain.restore(reader, None),
        Level::Differential => chain.restore(&base, Some(reader)),
    };
    if let Ok(reader) = ArchiveReader::open(Box::new(damaged.bytes.clone())) {
        let found = verify_reader(&reader, &VerifyOptions { threads: 1, samples: 3, expected: None }, &()).unwrap();
        assert!(found.is_ok() != damaged.changed, "{found:?}");
        if reader.check_index().is_ok() {
            let (restored, said) = restore(&reader);
            check_restored(chain, level, (&restored, &said), None);
        }
    }
    let options = RebuildOptions { base: (level == Level::Differential).then_some(&base), level: Some(level) };
    let whole_files = whole_files(&whole, &damaged);
    let (reader, report) = match rebuilt(&damaged.bytes, &options) {
        Ok((reader, report, _)) => (reader, report),
        Err(RebuildError::Nothing) => return assert_eq!(whole_files, BTreeSet::new()),
        Err(error) => panic!("{error}"),
    };
    let (restored, said) = restore(&reader);
    check_restored(chain, level, (&restored, &said), Some(&report));
    let wanted = if level == Level::Full { &chain.old } else { &chain.new };
    for path in whole_files {
        let came = restored.get(&path) == wanted.get(&path);
        assert!(came, "{} is whole and did not come back: {report:?}", path.escape_ascii());
    }
}

/// Nothing wrong came, and what did not come is named.
fn check_restored(
    chain: &Chain,
    level: Level,
    (restored, said): (&BTreeMap<Vec<u8>, Vec<u8>>, &UnpackReport),
    report: Option<&RebuildReport>,
) {
    let wanted = if level == Level::Full { &chain.old } else { &chain.new };
    // Of names in frames that are gone together with the index nothing is left; that there are such frames is said.
    let unknown = report.is_some_and(|report| report.names_unknown);
    // A differential that cannot say any more what changed leaves the full's.
    let has_old = |path: &Vec<u8>| level == Level::Differential && unknown && chain.old.get(path) == restored.get(path);
    for (path, bytes) in wanted {
        let shown = path.escape_ascii();
        match restored.get(path) {
            Some(found) => assert!(found == bytes || has_old(path), "{shown} has wrong bytes"),
            None => assert!(unknown || is_affected_named(path, said, report), "{shown} is not named"),
        }
    }
    for path in restored.keys().filter(|path| !wanted.contains_key(*path)) {
        assert!(has_old(path), "{} was never there", path.escape_ascii());
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![8 => 0..60_000_usize, 1 => Just(0_usize), 1 => (2 << 20) - 5..(5 << 20) + 5_usize];
    prop::collection::vec(size, 4..16)
}

proptest! {
    // Each case packs a full and a differential and restores some twenty times.
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_is_found_named_and_contained(
        sizes in sizes(),
        is_zstd in any::<bool>(),
        damages in prop::collection::vec((damages(), any::<bool>()), 10),
    ) {
        let codec = if is_zstd { Codec::Zstd } else { Codec::Gzip };
        let chain = Chain::make(codec, &sizes);
        for (damage, is_full) in damages {
            let level = if is_full { Level::Full } else { Level::Differential };
            let checked = std::panic::catch_unwind(|| check(&chain, level, &damage));
            prop_assert!(checked.is_ok(), "{damage:?} of the {level:?}");
        }
    }
}
