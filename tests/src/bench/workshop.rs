//! Prepares a row: corpora, archives to begin with, and the contestants' commands.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{statfs, statvfs};
use tempfile::TempDir;

use super::change::{change, settle};
use super::contest::{Before, Contestant};
use super::corpus::{Corpora, Corpus};
use super::loopback::Loopback;
use super::programs::{Chunker, Engine, TAR_RESTORE, TAR_SNAPSHOT, TAR_ZSTD, is_installed};
use super::rows::{
    FIND, FULL, OURS, PIGZ, RESTIC, RESTORE, RUSTIC, Row, SCAN, STORED_A, STORED_B, TAR, TAR_1, TAR_A, TAR_B, VERIFIED,
    ZSTD, ZSTD_TEST,
};
use super::stopwatch::Invocation;

/// A memory file system's magic number.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// What a row may need for outputs, bytes.
const ROOM: f64 = 9e9;
/// Turns of what takes milliseconds.
const REPEATS: u32 = 5;
/// Files of which each is read alone in a turn.
const ASKED_FOR: usize = 5;

/// Makes what a row needs in a scratch folder that goes with it.
#[derive(Debug)]
pub struct Workshop {
    engine: Engine,
    corpora: Corpora,
    scratch: TempDir,
    is_memory: bool,
}

/// A row, ready to be held.
#[derive(Debug)]
pub struct Prepared {
    /// Ours and the peers that are installed.
    pub contestants: Vec<Contestant>,
    /// What it is about, in words.
    pub corpora: Vec<String>,
    /// What could not be measured, and why.
    pub absent: Vec<String>,
    /// A folder whose file system is synced inside each turn.
    pub durable_in: Option<PathBuf>,
    /// What must outlive the measurement.
    kept: Option<Loopback>,
}

impl Prepared {
    fn of(corpus: &Corpus, contestants: Vec<Contestant>) -> Self {
        Self { contestants, corpora: vec![describe(corpus)], absent: Vec::new(), durable_in: None, kept: None }
    }

    /// Ends what a file system of its own needs ended.
    ///
    /// # Errors
    /// It cannot be unmounted.
    pub fn end(self) -> anyhow::Result<()> {
        self.kept.map_or(Ok(()), Loopback::end)
    }
}

fn describe(corpus: &Corpus) -> String {
    let counts = corpus.counts;
    let name = corpus.folder.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "{name}: {} files, {} folders, {} links, {:.3} GB; {}",
        counts.files,
        counts.folders,
        counts.links,
        giga(counts.bytes),
        corpus.rule
    )
}

#[expect(clippy::cast_precision_loss, reason = "display")]
fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

impl Workshop {
    /// With its outputs in `folder`; else in memory where there is room, else beside the corpora.
    ///
    /// # Errors
    /// No scratch folder can be made.
    pub fn open(engine: Engine, corpora: &Path, folder: Option<&Path>, scale: f64) -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let folder = match folder {
            Some(folder) => folder,
            None if is_memory(memory) && free_bytes(memory) > ROOM * scale => memory,
            None => corpora,
        };
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let scratch = tempfile::Builder::new().prefix("coord-measure-").tempdir_in(folder);
        let scratch = scratch.with_context(|| format!("a scratch folder in {}", folder.display()))?;
        let is_memory = is_memory(scratch.path());
        Ok(Self { engine, corpora: Corpora::new(corpora, scale), scratch, is_memory })
    }

    /// Where outputs go, in words.
    #[must_use]
    pub fn place(&self) -> &'static str {
        if self.is_memory { "outputs on tmpfs" } else { "outputs on disk, a sync inside every time" }
    }

    /// Makes all that the row needs.
    ///
    /// # Errors
    /// A corpus or an archive to begin with cannot be made.
    pub fn prepare(&self, row: Row) -> anyhow::Result<Prepared> {
        let mut prepared = match row {
            Row::FullZstd3 => self.full_against_tar(&self.corpora.system()?, TAR),
            Row::FullZstd1 => self.full_against_tar_1(&self.corpora.system()?),
            Row::FullDefault => self.full_against_chunkers(&self.corpora.system()?)?,
            Row::FullGzip6 => self.full_against_pigz(&self.corpora.system()?),
            Row::SmallZstd3 => self.full_against_tar(&self.corpora.small()?, TAR),
            Row::LargeZstd3 => self.full_against_zstd(&self.corpora.large()?),
            Row::NoChangeA => self.no_change(&self.corpora.system()?)?,
            Row::NoChangeB => self.no_change(&self.corpora.small()?)?,
            Row::Differential => self.differential(&self.corpora.system()?)?,
            Row::Restore => self.restore(&self.corpora.system()?, &self.at("restored"))?,
            Row::RestoreExt4 => self.restore_to_ext4(&self.corpora.system()?)?,
            Row::OneFile => self.one_file(&self.corpora.system()?)?,
            Row::Verify => self.verify(&self.corpora.system()?)?,
            Row::Stored => self.stored(&self.corpora.system()?, &self.corpora.small()?),
            Row::Memory => self.memory(&self.corpora.system()?)?,
        };
        if prepared.durable_in.is_none() && !self.is_memory {
            prepared.durable_in = Some(self.scratch.path().to_owned());
        }
        Ok(prepared)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn ours(&self, name: &'static str, source: &Path, options: &[&str]) -> Contestant {
        let output = self.at(&format!("{name}.archive"));
        Contestant::new(name, self.engine.create(source, &output, options)).writes(&output)
    }

    fn piped(&self, name: &'static str, line: &str, source: &Path) -> Contestant {
        let output = self.at("peer.archive");
        Contestant::new(name, Invocation::shell(line, &[&output, source])).writes(&output)
    }

    fn full_against_tar(&self, corpus: &Corpus, peer: &'static str) -> Prepared {
        let source = &corpus.folder;
        let contestants = vec![
            self.ours(OURS, source, &["--level", "3"]),
            self.piped(peer, TAR_ZSTD, source),
            self.ours(VERIFIED, source, &["--level", "3", "--verify"]),
        ];
        Prepared::of(corpus, contestants)
    }

    fn full_against_tar_1(&self, corpus: &Corpus) -> Prepared {
        let source = &corpus.folder;
        let contestants = vec![
            self.ours(OURS, source, &["--level", "1"]),
            self.piped(TAR_1, "tar -cf - -C \"$2\" . | zstd -q -T2 -1 > \"$1\"", source),
            self.ours(VERIFIED, source, &["--level", "1", "--verify"]),
        ];
        Prepared::of(corpus, contestants)
    }

    fn full_against_pigz(&self, corpus: &Corpus) -> Prepared {
        let source = &corpus.folder;
        let options = ["--codec", "gzip", "--level", "6"];
        let mut prepared = Prepared::of(
            corpus,
            vec![
                self.ours(OURS, source, &options),
                self.ours(VERIFIED, source, &[&options[..], &["--verify"]].concat()),
            ],
        );
        if is_installed("pigz") {
            let pigz = self.piped(PIGZ, "tar -cf - -C \"$2\" . | pigz -6 > \"$1\"", source);
            prepared.contestants.insert(1, pigz);
        } else {
            prepared.absent.push("pigz is not installed".to_owned());
        }
        prepared
    }

    fn full_against_zstd(&self, corpus: &Corpus) -> Prepared {
        let source = &corpus.folder;
        let contestants = vec![
            self.ours(OURS, source, &["--level", "3"]),
            self.piped(ZSTD, "zstd -q -T2 -3 -o \"$1\" \"$2\"/system.tar", source),
            self.ours(VERIFIED, source, &["--level", "3", "--verify"]),
        ];
        Prepared::of(corpus, contestants)
    }

    fn full_against_chunkers(&self, corpus: &Corpus) -> anyhow::Result<Prepared> {
        let mut prepared = Prepared::of(corpus, vec![self.ours(VERIFIED, &corpus.folder, &["--verify"])]);
        for (name, chunker) in chunkers(&mut prepared.absent) {
            let (empty, repository) = (self.at(&format!("{name}-empty")), self.at(&format!("{name}-repository")));
            chunker.init(&empty).time(None)?;
            let mut backup = Contestant::new(name, chunker.backup(&repository, &corpus.folder));
            // Nothing of an earlier turn is in its cache either.
            backup = backup.before(Before::Absent(Chunker::cache(&repository)));
            backup = backup.before(Before::Copy(empty, repository.clone()));
            backup.output = Some(repository);
            prepared.contestants.push(backup);
        }
        Ok(prepared)
    }

    fn no_change(&self, corpus: &Corpus) -> anyhow::Result<Prepared> {
        let source = &corpus.folder;
        let full = self.at("full.archive");
        self.engine.create(source, &full, &[]).time(None)?;
        let output = self.at("none.archive");
        let ours = Contestant::new(OURS, self.engine.diff(&full, source, &output, &[])).writes(&output);
        let find = Invocation::new("find").arg(source).args(["-printf", "%p %i %s %m %U %G %T@ %C@\\n"]);
        let find = Contestant::new(FIND, find);
        let mut prepared = Prepared::of(corpus, vec![ours.repeated(3), find.repeated(3)]);
        for (name, chunker) in chunkers(&mut prepared.absent) {
            let repository = self.at(&format!("{name}-repository"));
            chunker.init(&repository).time(None)?;
            let backup = chunker.backup(&repository, source);
            backup.time(None)?;
            prepared.contestants.push(Contestant::new(name, backup));
        }
        Ok(prepared)
    }

    /// A copy of the corpus with a full of everybody, changed afterwards. The copy is where the outputs are.
    fn changed(&self, corpus: &Corpus, absent: &mut Vec<String>) -> anyhow::Result<Changed> {
        let tree = self.at("tree");
        Invocation::new("cp").args(["-a", "--"]).arg(&corpus.folder).arg(&tree).time(None)?;
        settle();
        let (ours, tar, snapshot) = (self.at("full.archive"), self.at("full.tar.zst"), self.at("full.snapshot"));
        self.engine.create(&tree, &ours, &[]).time(None)?;
        Invocation::shell(TAR_SNAPSHOT, &[&tar, &tree, &snapshot]).time(None)?;
        let chunkers = chunkers(absent);
        for (name, chunker) in &chunkers {
            let repository = self.at(&format!("{name}-repository"));
            chunker.init(&repository).time(None)?;
            chunker.backup(&repository, &tree).time(None)?;
        }
        let changes = change(&tree).context("changing the copy of the corpus")?;
        let said = format!(
            "then a line appended to {} files, {} deleted, {} added",
            changes.appended, changes.deleted, changes.added
        );
        Ok(Changed { tree, ours, tar, snapshot, chunkers, said })
    }

    fn differential(&self, corpus: &Corpus) -> anyhow::Result<Prepared> {
        let mut prepared = Prepared::of(corpus, Vec::new());
        let changed = self.changed(corpus, &mut prepared.absent)?;
        prepared.corpora.push(changed.said.clone());
        for (name, options) in [(OURS, &[][..]), (VERIFIED, &["--verify"][..])] {
            let output = self.at(&format!("{name}.differential"));
            let diff = self.engine.diff(&changed.ours, &changed.tree, &output, options);
            prepared.contestants.push(Contestant::new(name, diff).writes(&output));
        }
        let (output, snapshot) = (self.at("differential.tar.zst"), self.at("differential.snapshot"));
        let tar = Invocation::shell(TAR_SNAPSHOT, &[&output, &changed.tree, &snapshot]);
        let tar = Contestant::new(TAR, tar).before(Before::Copy(changed.snapshot.clone(), snapshot)).writes(&output);
        prepared.contestants.insert(1, tar);
        for (name, chunker) in changed.chunkers {
            // A second backup of the same change would find its chunks stored.
            let (full, repository) = (self.at(&format!("{name}-repository")), self.at(&format!("{name}-turn")));
            let backup = Contestant::new(name, chunker.backup(&repository, &changed.tree));
            let caches = Before::Copy(Chunker::cache(&full), Chunker::cache(&repository));
            prepared.contestants.push(backup.before(Before::Copy(full, repository)).before(caches));
        }
        Ok(prepared)
    }

    fn restore(&self, corpus: &Corpus, target: &Path) -> anyhow::Result<Prepared> {
        let mut prepared = Prepared::of(corpus, Vec::new());
        let changed = self.changed(corpus, &mut prepared.absent)?;
        prepared.corpora.push(changed.said.clone());
        let (ours, tar) = (self.at("differential.archive"), self.at("differential.tar.zst"));
        self.engine.diff(&changed.ours, &changed.tree, &ours, &[]).time(None)?;
        Invocation::shell(TAR_SNAPSHOT, &[&tar, &changed.tree, &changed.snapshot]).time(None)?;
        for (name, chunker) in &changed.chunkers {
            chunker.backup(&self.at(&format!("{name}-repository")), &changed.tree).time(None)?;
        }
        // Room for what is restored.
        std::fs::remove_dir_all(&changed.tree)?;
        let into = |name, invocation| Contestant::new(name, invocation).before(Before::Empty(target.to_owned()));
        prepared.contestants.push(into(OURS, self.engine.extract(&changed.ours, Some(&ours), target, &[])));
        prepared.contestants.push(into(TAR, Invocation::shell(TAR_RESTORE, &[&changed.tar, &tar, target])));
        for (name, chunker) in changed.chunkers {
            let repository = self.at(&format!("{name}-repository"));
            prepared.contestants.push(into(name, chunker.restore(&repository, target)));
        }
        Ok(prepared)
    }

    fn restore_to_ext4(&self, corpus: &Corpus) -> anyhow::Result<Prepared> {
        let bytes = corpus.counts.bytes * 2 + corpus.counts.files * 8192 + (256 << 20);
        let mount = match Loopback::mount(&self.at("ext4.image"), &self.at("ext4"), bytes) {
            Ok(mount) => mount,
            Err(error) => {
                let mut prepared = Prepared::of(corpus, Vec::new());
                prepared.absent.push(format!("no journaled ext4 can be mounted here: {error:#}"));
                return Ok(prepared);
            }
        };
        let mut prepared = self.restore(corpus, &mount.folder().join("restored"))?;
        prepared.durable_in = Some(mount.folder().to_owned());
        prepared.kept = Some(mount);
        Ok(prepared)
    }

    fn one_file(&self, corpus: &Corpus) -> anyhow::Result<Prepared> {
        let files = small_files(&corpus.folder)?;
        let full = self.at("full.archive");
        self.engine.create(&corpus.folder, &full, &[]).time(None)?;
        let ours = files.iter().map(|file| self.engine.cat(&full, file)).collect();
        let mut prepared = Prepared::of(corpus, vec![Contestant::of_all(OURS, ours).repeated(REPEATS)]);
        prepared.corpora.extend(files.iter().map(|file| format!("one of the files is {}", file.display())));
        for (name, chunker) in chunkers(&mut prepared.absent) {
            let repository = self.at(&format!("{name}-repository"));
            chunker.init(&repository).time(None)?;
            chunker.backup(&repository, &corpus.folder).time(None)?;
            let dumps = files.iter().map(|file| chunker.dump(&repository, file)).collect();
            prepared.contestants.push(Contestant::of_all(name, dumps));
        }
        Ok(prepared)
    }

    fn verify(&self, corpus: &Corpus) -> anyhow::Result<Prepared> {
        let (ours, tar) = (self.at("full.archive"), self.at("full.tar.zst"));
        self.engine.create(&corpus.folder, &ours, &["--level", "3"]).time(None)?;
        Invocation::shell(TAR_ZSTD, &[&tar, &corpus.folder]).time(None)?;
        let test = Invocation::new("zstd").args(["-q", "-t"]).arg(&tar);
        let contestants = vec![Contestant::new(OURS, self.engine.verify(&ours, &[])), Contestant::new(ZSTD_TEST, test)];
        Ok(Prepared::of(corpus, contestants))
    }

    fn stored(&self, system: &Corpus, small: &Corpus) -> Prepared {
        let mut prepared = Prepared::of(system, Vec::new());
        prepared.corpora.push(describe(small));
        for (ours, peer, corpus) in [(STORED_A, TAR_A, system), (STORED_B, TAR_B, small)] {
            prepared.contestants.push(self.ours(ours, &corpus.folder, &["--level", "3"]));
            prepared.contestants.push(self.piped(peer, TAR_ZSTD, &corpus.folder));
        }
        prepared
    }

    fn memory(&self, corpus: &Corpus) -> anyhow::Result<Prepared> {
        let (source, kept) = (&corpus.folder, self.at("full.archive"));
        self.engine.create(source, &kept, &[]).time(None)?;
        let (none, target) = (self.at("none.archive"), self.at("restored"));
        let scan = Contestant::new(SCAN, self.engine.diff(&kept, source, &none, &[])).writes(&none);
        let restore = Contestant::new(RESTORE, self.engine.extract(&kept, None, &target, &[]));
        let contestants = vec![self.ours(FULL, source, &["--verify"]), scan, restore.before(Before::Empty(target))];
        Ok(Prepared::of(corpus, contestants))
    }
}

struct Changed {
    tree: PathBuf,
    ours: PathBuf,
    tar: PathBuf,
    snapshot: PathBuf,
    chunkers: Vec<(&'static str, Chunker)>,
    said: String,
}

/// Those that are installed; the others are said.
fn chunkers(absent: &mut Vec<String>) -> Vec<(&'static str, Chunker)> {
    let all = [(RESTIC, Chunker::Restic), (RUSTIC, Chunker::Rustic)];
    let (here, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, chunker)| is_installed(chunker.name()));
    absent.extend(missing.into_iter().map(|(name, _)| format!("{name} is not installed")));
    here
}

/// Files of some kilobytes, relative to `root`, spread evenly over the tree by name: what is near the beginning or the end of an
/// archive is no likelier to be asked for than what is in its middle.
fn small_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && (2048..16_384).contains(&metadata.len()) {
                all.push(entry.path().strip_prefix(root)?.to_owned());
            }
        }
    }
    anyhow::ensure!(!all.is_empty(), "{} has no small file", root.display());
    all.sort();
    // The middle of each of as many equal parts.
    let places = (0..ASKED_FOR).map(|part| all.len() * (2 * part + 1) / (2 * ASKED_FOR));
    Ok(places.filter_map(|place| all.get(place).cloned()).collect())
}

fn is_memory(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}

fn free_bytes(folder: &Path) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "compared with a round number")]
    statvfs(folder).map_or(0.0, |found| found.f_bavail as f64 * found.f_frsize as f64)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::small_files;

    #[test]
    fn files_read_alone_are_spread_over_the_tree_and_always_the_same() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..50 {
            let below = folder.path().join(format!("{}", number / 10));
            std::fs::create_dir_all(&below).unwrap();
            std::fs::write(below.join(format!("{}", number % 10)), [0; 3000]).unwrap();
            std::fs::write(below.join(format!("{}-tiny", number % 10)), [0; 30]).unwrap();
        }
        let found = small_files(folder.path()).unwrap();
        assert_eq!(found, ["0/5", "1/5", "2/5", "3/5", "4/5"].map(std::path::PathBuf::from));
    }
}
