//! The commands that are measured: ours, and those a user would type instead.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::stopwatch::Invocation;

/// `tar` with its own list for differentials, and zstd as it would be asked for on all cores.
pub const TAR_ZSTD: &str = "tar -I 'zstd -T0 -3' -cf \"$1\" -C \"$2\" .";
/// The same with a snapshot file: the first is a full, each later one a differential to it when the file is a copy of the full's.
pub const TAR_SNAPSHOT: &str = "tar -I 'zstd -T0 -3' -g \"$3\" -cf \"$1\" -C \"$2\" .";
/// A full and its differential, restored as GNU tar's manual says.
pub const TAR_RESTORE: &str =
    "tar -I zstd -g /dev/null -xf \"$1\" -C \"$3\"; tar -I zstd -g /dev/null -xf \"$2\" -C \"$3\"";
/// The password of repositories that live for one measurement.
const PASSWORD: &str = "measure";

/// Our engine: the agent's own command line, as it is built.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The program.
    pub agent: PathBuf,
}

impl Engine {
    fn archive(&self, verb: &str) -> Invocation {
        Invocation::new(&self.agent).args(["archive", verb])
    }

    /// A full. `options` are those of the command line.
    #[must_use]
    pub fn create(&self, source: &Path, output: &Path, options: &[&str]) -> Invocation {
        let create = self.archive("create").arg("--source").arg(source).arg("--output").arg(output);
        create.arg("--quiet").args(options.iter().copied())
    }

    /// A differential.
    #[must_use]
    pub fn diff(&self, base: &Path, source: &Path, output: &Path, options: &[&str]) -> Invocation {
        let diff = self.archive("diff").arg("--base").arg(base).arg("--source").arg(source);
        diff.arg("--output").arg(output).arg("--quiet").args(options.iter().copied())
    }

    /// A restore of everything, digests checked.
    #[must_use]
    pub fn extract(&self, full: &Path, differential: Option<&Path>, target: &Path, options: &[&str]) -> Invocation {
        let extract = self.archive("extract").arg(full);
        let extract = differential.into_iter().fold(extract, Invocation::arg);
        extract.arg("--target").arg(target).arg("--quiet").args(options.iter().copied())
    }

    /// Every frame and every digest.
    #[must_use]
    pub fn verify(&self, archive: &Path, options: &[&str]) -> Invocation {
        self.archive("verify").arg(archive).arg("--quiet").args(options.iter().copied())
    }

    /// The content of one file.
    #[must_use]
    pub fn cat(&self, archive: &Path, path: &Path) -> Invocation {
        self.archive("cat").arg(archive).arg(path)
    }
}

/// A repository with chunks and deduplication: restic, or rustic, which has the same command line where it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunker {
    /// restic, repository version 2.
    Restic,
    /// rustic.
    Rustic,
}

impl Chunker {
    /// The program's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Restic => "restic",
            Self::Rustic => "rustic",
        }
    }

    /// Where its cache of a repository is: beside it, so that none of an earlier measurement or of the user's is met.
    #[must_use]
    pub fn cache(repository: &Path) -> PathBuf {
        let mut name = repository.as_os_str().to_owned();
        name.push("-cache");
        name.into()
    }

    /// With a cache, as is the default.
    fn on(self, repository: &Path) -> Invocation {
        let program = Invocation::new(self.name()).arg("-r").arg(repository);
        let program = program.arg("--cache-dir").arg(Self::cache(repository));
        match self {
            Self::Restic => program.env("RESTIC_PASSWORD", PASSWORD).arg("-q"),
            Self::Rustic => program.env("RUSTIC_PASSWORD", PASSWORD).args(["--no-progress", "--log-level", "error"]),
        }
    }

    /// A new repository.
    #[must_use]
    pub fn init(self, repository: &Path) -> Invocation {
        match self {
            Self::Restic => self.on(repository).args(["init", "--repository-version", "2"]),
            Self::Rustic => self.on(repository).arg("init"),
        }
    }

    /// A backup of all of a folder; the newest snapshot is its parent.
    #[must_use]
    pub fn backup(self, repository: &Path, source: &Path) -> Invocation {
        self.on(repository).args(["backup", "."]).in_folder(source)
    }

    /// A restore of the newest snapshot.
    #[must_use]
    pub fn restore(self, repository: &Path, target: &Path) -> Invocation {
        let restore = self.on(repository).args(["restore", "latest"]);
        match self {
            Self::Restic => restore.arg("--target").arg(target),
            Self::Rustic => restore.arg(target),
        }
    }

    /// The content of one file, named as the snapshot has it.
    #[must_use]
    pub fn dump(self, repository: &Path, path: &Path) -> Invocation {
        match self {
            Self::Restic => self.on(repository).args(["dump", "latest"]).arg(Path::new("/").join(path)),
            Self::Rustic => {
                let mut named = std::ffi::OsString::from("latest:");
                named.push(path);
                self.on(repository).arg("dump").arg(named)
            }
        }
    }
}

/// Whether a program can be started here.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
