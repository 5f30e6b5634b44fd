//! A file that appears under its name only when it is whole and durable, and never in the place of another.
//!
//! Written under a temporary name in the same folder; [`SealedFile::seal`] syncs it, gives it its name without replacing
//! anything, and syncs the folder. Dropping it before that removes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A sealed file could not be made. Nothing is left under its name.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path has no file name, or no folder.
    #[error("{} does not name a file", path.display())]
    NotAName {
        /// The path given.
        path: PathBuf,
    },
    /// The name is taken; archives are never overwritten.
    #[error("{} exists and is never overwritten", path.display())]
    Exists {
        /// The path given.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A file being written; see the module.
#[derive(Debug)]
pub struct SealedFile {
    file: File,
    partial: Option<PathBuf>,
    path: PathBuf,
    written: u64,
}

impl SealedFile {
    /// Begins a file that will be `path`. Its folder must exist; `path` must not.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let name = path.file_name().ok_or_else(|| FileError::NotAName { path: path.to_owned() })?;
        if path.symlink_metadata().is_ok() {
            return Err(FileError::Exists { path: path.to_owned() });
        }
        let mut partial_name = std::ffi::OsString::from(".");
        partial_name.push(name);
        partial_name.push(format!(".partial-{}", uuid::Uuid::new_v4().simple()));
        let partial = path.with_file_name(partial_name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .map_err(|source| FileError::Io { what: "create", path: partial.clone(), source })?;
        Ok(Self { file, partial: Some(partial), path: path.to_owned(), written: 0 })
    }

    /// The name the file will have.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that holds the file, where other temporary files may be put.
    #[must_use]
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        }
    }

    /// How many bytes were written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Another handle on the unsealed file, to read back what was written.
    pub fn reader(&self) -> Result<File, FileError> {
        self.file.try_clone().map_err(|source| self.failed("open", source))
    }

    /// Syncs the file, gives it its name and syncs the folder.
    pub fn seal(mut self) -> Result<PathBuf, FileError> {
        self.file.sync_all().map_err(|source| self.failed("sync", source))?;
        let Some(partial) = self.partial.clone() else { return Ok(self.path.clone()) };
        renameat_with(CWD, &partial, CWD, &self.path, RenameFlags::NOREPLACE)
            .or_else(|errno| match errno {
                // File systems without RENAME_NOREPLACE: a second name does not replace either.
                rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS => {
                    rustix::fs::link(&partial, &self.path)?;
                    rustix::fs::unlink(&partial)
                }
                other => Err(other),
            })
            .map_err(|errno| match errno {
                rustix::io::Errno::EXIST => FileError::Exists { path: self.path.clone() },
                other => self.failed("rename", other.into()),
            })?;
        self.partial = None;
        File::open(self.folder())
            .and_then(|folder| folder.sync_all())
            .map_err(|source| self.failed("sync the folder of", source))?;
        Ok(self.path.clone())
    }

    fn failed(&self, what: &'static str, source: io::Error) -> FileError {
        FileError::Io { what, path: self.path.clone(), source }
    }
}

impl Write for SealedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.take()
            && let Err(error) = std::fs::remove_file(&partial)
        {
            tracing::warn!(path = %partial.display(), %error, "partial file could not be removed");
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = SealedFile::create(&folder.path().join("a")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sealed_file_has_its_name_and_all_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = SealedFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(file.seal().unwrap(), path);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_is_taken_in_the_meantime_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = SealedFile::create(&path).unwrap();
        std::fs::write(&path, b"other").unwrap();
        assert!(matches!(file.seal(), Err(FileError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(SealedFile::create(&path), Err(FileError::Exists { .. })));
    }
}
