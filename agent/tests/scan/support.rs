//! A folder under protection and its archives, driven through the library as the engine drives it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use coord_agent::scan::tree::{Clear, Lens};
use coord_agent::scan::{Against, Comparison, Notes, Scan, ScanError, ScanRequest};
use coord_archive::codec::Codec;
use coord_archive::digest::Digest;
use coord_archive::entry::{Attributes, DataRange, Entry, Flags, Kind};
use coord_archive::file::SealedFile;
use coord_archive::header::{Base, Header, Level, Mount};
use coord_archive::overlay::{Origin, overlay};
use coord_archive::pack::{PackOptions, PackReport, Sink, pack};
use coord_archive::reader::ArchiveReader;
use coord_archive::rules::Rules;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

/// An instant by which everything done so far is old enough to be trusted.
pub fn long_after() -> Timestamp {
    Timestamp::now() + SignedDuration::from_mins(1)
}

/// Lengths of a file that several workers read, and of one that goes with others.
pub const LENGTHS: [usize; 2] = [5 << 20, 700];

/// Does something just before a file is opened, from the so-many-th time on.
pub struct AtOpen<F> {
    path: &'static str,
    from: usize,
    opened: AtomicUsize,
    act: F,
}

impl<F: Fn() -> io::Result<()> + Send + Sync> AtOpen<F> {
    pub fn of(path: &'static str, from: usize, act: F) -> Box<Self> {
        Box::new(Self { path, from, opened: AtomicUsize::new(0), act })
    }
}

impl<F: Fn() -> io::Result<()> + Send + Sync> Lens for AtOpen<F> {
    fn open(&self, path: &[u8]) -> io::Result<()> {
        let is_it = path == self.path.as_bytes();
        if is_it && self.opened.fetch_add(1, Ordering::SeqCst) + 1 >= self.from { (self.act)() } else { Ok(()) }
    }
}

pub struct Bench {
    folder: TempDir,
    pub excludes: Vec<String>,
    pub rules: Rules,
    pub expected_mounts: Vec<Mount>,
    pub sources: Vec<Vec<u8>>,
}

/// An archive and how it came to be.
pub struct Made {
    pub archive: ArchiveReader,
    pub path: PathBuf,
    pub report: PackReport,
    pub notes: Notes,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("source")).unwrap();
        fs::create_dir(folder.path().join("archives")).unwrap();
        let (excludes, expected_mounts, sources) = (Vec::new(), Vec::new(), vec![Vec::new()]);
        Self { folder, excludes, rules: Rules::default(), expected_mounts, sources }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("source").join(path)
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join("archives")
    }

    pub fn request(&self, started_at: Timestamp) -> ScanRequest {
        let mut request = ScanRequest::new(&self.at(""), self.sources.clone(), started_at);
        request.excludes.clone_from(&self.excludes);
        request.rules.clone_from(&self.rules);
        request.expected_mounts.clone_from(&self.expected_mounts);
        request
    }

    pub fn full(&self) -> Made {
        self.full_through(long_after(), Box::new(Clear)).unwrap()
    }

    pub fn full_through(&self, started_at: Timestamp, lens: Box<dyn Lens>) -> Result<Made, ScanError> {
        let request = self.request(started_at);
        let scan = Scan::begin_through(&request, lens)?;
        let mut header = Header::new(Level::Full, b"", started_at);
        scan.describe(&mut header, None)?;
        let mut out = SealedFile::create(&self.new_archive("full")).unwrap();
        let report =
            match pack(scan.full(), &scan.contents(None), header, &options(), Sink { out: &mut out, progress: &() }) {
                Ok(report) => report,
                Err(coord_archive::pack::PackError::Steps(error)) => return Err(error),
                Err(other) => panic!("{other:?}"),
            };
        Ok(made(out, report, scan.notes()))
    }

    fn new_archive(&self, what: &str) -> PathBuf {
        let number = fs::read_dir(self.scratch()).unwrap().count();
        self.scratch().join(format!("{number}-{what}.tar.zst"))
    }

    /// Compares only.
    pub fn compare(&self, base: &Made, newest: Option<&Made>) -> (Comparison, Notes) {
        self.compare_through(base, newest, long_after(), Box::new(Clear)).unwrap()
    }

    pub fn compare_through(
        &self,
        base: &Made,
        newest: Option<&Made>,
        started_at: Timestamp,
        lens: Box<dyn Lens>,
    ) -> Result<(Comparison, Notes), ScanError> {
        let scan = Scan::begin_through(&self.request(started_at), lens)?;
        let (found, _) = self.compare_with(&scan, base, newest)?;
        Ok((found, scan.notes()))
    }

    fn compare_with(
        &self,
        scan: &Scan,
        base: &Made,
        newest: Option<&Made>,
    ) -> Result<(Comparison, PathBuf), ScanError> {
        let cache = self.folder.path().join("cache");
        let scratch = self.scratch();
        let newest = newest.map(|made| &made.archive);
        let against = Against { base: &base.archive, newest, cache: Some(&cache), scratch: &scratch };
        let found = scan.compare(&against, &())?;
        Ok((found, cache))
    }

    /// Compares and packs, whatever the comparison says.
    pub fn differential(&self, base: &Made, newest: Option<&Made>) -> (Comparison, Made) {
        self.differential_through(base, newest, long_after(), Box::new(Clear))
    }

    pub fn differential_through(
        &self,
        base: &Made,
        newest: Option<&Made>,
        started_at: Timestamp,
        lens: Box<dyn Lens>,
    ) -> (Comparison, Made) {
        let scan = Scan::begin_through(&self.request(started_at), lens).unwrap();
        let (found, _) = self.compare_with(&scan, base, newest).unwrap();
        let mut header = Header::new(Level::Differential, b"", started_at);
        scan.describe(&mut header, Some(&base.archive)).unwrap();
        header.base = Some(Base {
            archive_digest: base.archive.footer().archive_digest,
            name: base.path.file_name().unwrap().to_str().unwrap().to_owned(),
            run: None,
            ordinal: 0,
        });
        let mut out = SealedFile::create(&self.new_archive("diff")).unwrap();
        let sink = Sink { out: &mut out, progress: &() };
        let contents = scan.contents(Some(&base.archive));
        let report = pack(found.changes.steps(), &contents, header, &options(), sink).unwrap();
        (found, made(out, report, scan.notes()))
    }
}

fn options() -> PackOptions {
    PackOptions { level: 1, ..PackOptions::new(Codec::Zstd) }
}

fn made(out: SealedFile, report: PackReport, notes: Notes) -> Made {
    let path = out.seal().unwrap();
    Made { archive: ArchiveReader::open_path(&path).unwrap(), path, report, notes }
}

/// What a restore would bring back of one name, content by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restorable {
    pub kind: Kind,
    pub attributes: Attributes,
    pub size: u64,
    pub content: Option<Digest>,
    /// Where there is data, in a file with holes.
    pub data_ranges: Option<Vec<DataRange>>,
    pub link_target: Vec<u8>,
    pub device: (u32, u32),
    /// All names of the same inode, if there are several.
    pub names: Vec<Vec<u8>>,
    pub flags: Vec<&'static str>,
}

pub type State = BTreeMap<Vec<u8>, Restorable>;

/// The state at a restore point. Reads every content from where the indexes say it is.
pub fn state(full: &Made, differential: Option<&Made>) -> State {
    let changed = differential.map(|made| made.archive.entries()).into_iter().flatten();
    let mut groups: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    let mut found: BTreeMap<Vec<u8>, (Entry, Option<Digest>)> = BTreeMap::new();
    for placed in overlay(full.archive.entries(), changed) {
        let placed = placed.unwrap();
        let from = match placed.content {
            Origin::Full => full,
            Origin::Differential => differential.unwrap(),
        };
        let entry = placed.entry;
        let content = (entry.kind == Kind::File && !entry.flags.contains(Flags::UNREAD)).then(|| {
            let mut bytes = Vec::new();
            from.archive.content(&entry).unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, entry.size, "{}", entry.path.escape_ascii());
            let digest = Digest::of(&bytes);
            assert_eq!(entry.digest, Some(digest), "{}", entry.path.escape_ascii());
            digest
        });
        if entry.link_group != 0 {
            groups.entry(entry.link_group).or_default().push(entry.path.clone());
        }
        found.insert(entry.path.clone(), (entry, content));
    }
    let state = found.into_iter().map(|(path, (entry, content))| {
        let names = groups.get(&entry.link_group).filter(|names| names.len() > 1).cloned().unwrap_or_default();
        let flags = [(Flags::STALE, "stale"), (Flags::UNREAD, "unread"), (Flags::CHANGED_WHILE_READ, "changed")];
        let restorable = Restorable {
            kind: entry.kind,
            attributes: entry.attributes,
            size: entry.size,
            content,
            data_ranges: entry.data_ranges,
            link_target: entry.link_target,
            device: entry.device,
            names,
            flags: flags.iter().filter(|(flag, _)| entry.flags.contains(*flag)).map(|(_, word)| *word).collect(),
        };
        (path, restorable)
    });
    state.collect()
}

/// The names in which two states differ, with both sides.
pub fn differences(left: &State, right: &State) -> Vec<String> {
    let mut paths: Vec<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    paths.sort();
    paths.dedup();
    let differ = paths.into_iter().filter(|path| left.get(*path) != right.get(*path));
    differ.map(|path| format!("{}: {:?} / {:?}", path.escape_ascii(), left.get(path), right.get(path))).collect()
}

/// Paths of the entries in an archive's own index.
pub fn paths(made: &Made) -> Vec<String> {
    made.archive.entries().map(|entry| entry.unwrap().path.escape_ascii().to_string()).collect()
}

/// The entry of `path` in an archive's own index.
pub fn entry(made: &Made, path: &str) -> Option<Entry> {
    made.archive.find(path.as_bytes()).unwrap()
}
