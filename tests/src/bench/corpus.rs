//! What is backed up in a measurement: (a) a tree of this system chosen by a rule, (b) many small generated files, (c) one large file.
//!
//! A corpus is made once and kept beside a description of how it was made; it is made anew when the rule changed. Nothing
//! here changes a corpus: what a differential needs is a copy, changed by [`super::change`].

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::change::settle;
use super::prose::Prose;
use super::stopwatch::Invocation;
use crate::random::Random;

/// Raised whenever the rules below change, so that an older corpus is not taken for a new one.
const RULES: u32 = 1;
/// Corpus (a) ends where both are reached.
const SYSTEM_FILES: f64 = 100_000.0;
const SYSTEM_BYTES: f64 = 2.2e9;
/// No file of it is more than this share of the bytes, so that it is a tree at any scale.
const SYSTEM_LARGEST_SHARE: u64 = 10;
/// Files of corpus (b).
const SMALL_FILES: f64 = 300_000.0;
/// The largest of them; sizes are even from nothing to this.
const SMALL_MAX_BYTES: usize = 4096;
/// Files in one of its folders.
const SMALL_FOLDER: usize = 100;
const SMALL_SEED: u64 = 0x5EED;

/// What a corpus holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Folders, the corpus's own not counted.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// A corpus on disk.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// Its folder, or its one file's folder.
    pub folder: PathBuf,
    /// The rule by which it was made, in words.
    pub rule: String,
    /// What it holds.
    pub counts: Counts,
}

#[derive(Serialize, Deserialize)]
struct Description {
    rule: String,
    counts: Counts,
}

/// Where corpora are kept, and how large they are.
#[derive(Clone, Debug)]
pub struct Corpora {
    folder: PathBuf,
    scale: f64,
}

impl Corpora {
    /// In `folder`, with sizes and counts multiplied by `scale`.
    #[must_use]
    pub fn new(folder: &Path, scale: f64) -> Self {
        Self { folder: folder.to_owned(), scale }
    }

    /// (a): a copy of the Rust toolchain, then of `/usr/share`, then of `/usr/lib`, by name, up to the first file at which there are
    /// files and bytes enough. A very large file is left out.
    ///
    /// # Errors
    /// It cannot be read or written, or the system has too little of it.
    pub fn system(&self) -> anyhow::Result<Corpus> {
        let enough = Counts {
            files: count(SYSTEM_FILES * self.scale),
            bytes: count(SYSTEM_BYTES * self.scale),
            ..Counts::default()
        };
        let toolchain = |argument: &[&str]| {
            Invocation::new("rustc").args(argument.iter().copied()).output().unwrap_or_default().trim().to_owned()
        };
        let sources = [toolchain(&["--print", "sysroot"]), "/usr/share".to_owned(), "/usr/lib".to_owned()];
        let rule = format!(
            "rules {RULES}: copies of the toolchain of {}, /usr/share and /usr/lib, by name, up to the first file at which there are {} files and {} bytes; files over {} bytes left out",
            toolchain(&["--version"]),
            enough.files,
            enough.bytes,
            enough.bytes / SYSTEM_LARGEST_SHARE,
        );
        self.once("system", rule, |folder| {
            let mut copy = Copy { counts: Counts::default(), enough };
            for (number, source) in sources.iter().map(Path::new).enumerate().filter(|(_, source)| source.is_absolute())
            {
                let top = folder.join(format!("{number}-{}", source.file_name().unwrap_or_default().to_string_lossy()));
                copy.folder(source, &top).with_context(|| format!("copying {}", source.display()))?;
            }
            if copy.is_enough() {
                return Ok(copy.counts);
            }
            bail!("this system has only {:?} of what the corpus needs; use a smaller --scale", copy.counts)
        })
    }

    /// (b): generated text files of 0 to 4 KiB, the same on every machine.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn small(&self) -> anyhow::Result<Corpus> {
        let files = usize::try_from(count(SMALL_FILES * self.scale)).unwrap_or(usize::MAX);
        let rule = format!(
            "rules {RULES}: {files} generated files of 0 to {SMALL_MAX_BYTES} bytes, {SMALL_FOLDER} in a folder, seed {SMALL_SEED}"
        );
        self.once("small", rule, |folder| Ok(small_files(folder, files)?))
    }

    /// (c): a tar of (a) as one file.
    ///
    /// # Errors
    /// `tar` fails, or as [`Self::system`].
    pub fn large(&self) -> anyhow::Result<Corpus> {
        let system = self.system()?;
        let rule = format!("rules {RULES}: one file, a tar of ({})", system.rule);
        self.once("large", rule, |folder| {
            let file = folder.join("system.tar");
            Invocation::shell("tar -cf \"$1\" -C \"$2\" .", &[&file, &system.folder]).time(None)?;
            Ok(Counts { files: 1, bytes: fs::metadata(&file)?.size(), ..Counts::default() })
        })
    }

    /// The corpus of that name, made unless one of the same rule is there.
    fn once(
        &self,
        name: &str,
        rule: String,
        make: impl FnOnce(&Path) -> anyhow::Result<Counts>,
    ) -> anyhow::Result<Corpus> {
        let folder = self.folder.join(name);
        let description = self.folder.join(format!("{name}.json"));
        let kept = fs::read(&description).ok().and_then(|text| serde_json::from_slice::<Description>(&text).ok());
        if let Some(kept) = kept.filter(|kept| kept.rule == rule) {
            return Ok(Corpus { folder, rule, counts: kept.counts });
        }
        eprintln!("making corpus {} ({rule})", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("removing the older {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let counts = make(&folder)?;
        let kept = Description { rule, counts };
        fs::write(&description, serde_json::to_vec_pretty(&kept)?)?;
        // Written pages would be flushed in the middle of a measurement.
        rustix::fs::syncfs(File::open(&folder)?)?;
        settle();
        Ok(Corpus { folder, rule: kept.rule, counts })
    }
}

/// A scaled number of things; never none.
fn count(scaled: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far below 2^52, and positive")]
    let whole = scaled.round().max(1.0) as u64;
    whole
}

/// Copies trees by name until there is enough.
struct Copy {
    counts: Counts,
    enough: Counts,
}

impl Copy {
    fn is_enough(&self) -> bool {
        self.counts.files >= self.enough.files && self.counts.bytes >= self.enough.bytes
    }

    /// Regular files, folders and symbolic links with their times; other kinds and what cannot be read are left out.
    fn folder(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::create_dir(to)?;
        self.counts.folders += 1;
        let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
        let mut names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            if self.is_enough() {
                break;
            }
            let (from, to) = (from.join(&name), to.join(&name));
            let kind = fs::symlink_metadata(&from)?.file_type();
            if kind.is_symlink() {
                symlink(fs::read_link(&from)?, &to)?;
                self.counts.links += 1;
            } else if kind.is_dir() {
                self.folder(&from, &to)?;
            } else if kind.is_file() {
                self.file(&from, &to)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let Ok(mut source) = File::open(from) else { return Ok(()) };
        let metadata = source.metadata()?;
        if metadata.len() > self.enough.bytes / SYSTEM_LARGEST_SHARE {
            return Ok(());
        }
        let mut copy = File::create_new(to)?;
        self.counts.bytes += io::copy(&mut source, &mut copy)?;
        self.counts.files += 1;
        copy.set_permissions(metadata.permissions())?;
        copy.set_modified(metadata.modified()?)
    }
}

/// Generated files below `root`, which is empty.
fn small_files(root: &Path, files: usize) -> io::Result<Counts> {
    let (prose, mut random, mut text) = (Prose::default(), Random::new(SMALL_SEED), String::new());
    let mut counts = Counts::default();
    for number in 0..files {
        let folder = root.join(format!("folder-{:05}", number / SMALL_FOLDER));
        if number % SMALL_FOLDER == 0 {
            fs::create_dir(&folder)?;
            counts.folders += 1;
        }
        let size = random.below(SMALL_MAX_BYTES + 1);
        prose.write(&mut random, size, &mut text);
        File::create_new(folder.join(format!("{number:07}.txt")))?.write_all(text.as_bytes())?;
        counts.files += 1;
        counts.bytes += size as u64;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{Corpora, Counts};
    use crate::tree::compare::{Tolerance, compare_trees};

    #[test]
    fn small_files_are_the_same_every_time() {
        let folder = tempfile::tempdir().unwrap();
        let corpora = [folder.path().join("one"), folder.path().join("two")].map(|folder| Corpora::new(&folder, 0.001));
        let [one, two] = corpora.map(|corpora| corpora.small().unwrap());
        assert_eq!(one.counts, two.counts);
        // Fixed for ever: figures of two machines are of the same bytes.
        assert_eq!(one.counts, Counts { files: 300, folders: 3, links: 0, bytes: 569_647 });
        // Only the times differ, which are those of the writing.
        let differences = compare_trees(&one.folder, &two.folder, Tolerance::default()).unwrap();
        let other: Vec<_> = differences.iter().filter(|difference| difference.what != "mtime").collect();
        assert!(other.is_empty(), "{other:?}");
    }

    #[test]
    fn a_corpus_is_kept_and_made_anew_only_when_its_rule_changed() {
        let folder = tempfile::tempdir().unwrap();
        let first = Corpora::new(folder.path(), 0.0005).small().unwrap();
        std::fs::write(first.folder.join("mark"), b"kept").unwrap();
        let again = Corpora::new(folder.path(), 0.0005).small().unwrap();
        assert!(again.folder.join("mark").exists());
        assert_eq!(again.counts, first.counts);
        let larger = Corpora::new(folder.path(), 0.001).small().unwrap();
        assert!(!larger.folder.join("mark").exists());
        assert!(larger.counts.files > first.counts.files);
    }
}
