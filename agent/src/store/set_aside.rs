//! Archives that do not count, kept a while before they go: `.set-aside/<UTC>/<host>/<policy>/<file>` in the archive folder.
//!
//! An agent is told which attempts do not count by a coordinator that may have lost its catalog, or may not be ours any more; and
//! a journal may have lost its last records. Neither may cost a sealed archive at once, so nothing that was sealed is removed
//! in less than [`KEPT`]. Not here: half-written files, which nobody can use.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coord_shared::durable;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::local::{LocalStore, StoreError};

/// How long an archive that does not count is kept.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Where they are, in the archive folder. No host has a name that begins with a dot.
const FOLDER: &str = ".set-aside";
/// The form of the instants that name the folders.
const INSTANT: &str = "%Y%m%dT%H%M%SZ";

/// What is kept there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The folder.
    pub folder: PathBuf,
    /// How many archives.
    pub archives: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl LocalStore {
    /// Moves a sealed archive of ours to where it no longer counts. One that is not there is no error.
    pub fn set_aside(&self, key: &str, now: Timestamp) -> Result<(), StoreError> {
        let from = self.path(key)?;
        let to = self.folder().join(FOLDER).join(now.strftime(INSTANT).to_string()).join(key);
        let moved = to.parent().map_or(Ok(()), private_folders_of(self.folder())).and_then(|()| fs::rename(&from, &to));
        match moved {
            Err(source) if source.kind() == io::ErrorKind::NotFound && !from.exists() => Ok(()),
            Err(source) => Err(StoreError::Io { path: from, source }),
            Ok(()) => {
                let flushed = from.parent().into_iter().chain(to.parent()).try_for_each(durable::flush_folder);
                flushed.map_err(|source| StoreError::Io { path: to, source })
            }
        }
    }

    /// Removes what was set aside longer than [`KEPT`] ago. Answers how many archives went.
    pub fn remove_set_aside(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut removed = 0;
        for folder in self.set_aside_folders()? {
            let old = folder.file_name().and_then(instant).is_some_and(|at| {
                let age = now.duration_since(at);
                age.is_positive() && age.unsigned_abs() > KEPT
            });
            if old {
                removed += held(&folder)?.0;
                fs::remove_dir_all(&folder).map_err(|source| StoreError::Io { path: folder, source })?;
            }
        }
        Ok(removed)
    }

    /// What is kept there, if anything is.
    pub fn all_set_aside(&self) -> Result<Option<SetAside>, StoreError> {
        let mut all = SetAside { folder: self.folder().join(FOLDER), archives: 0, bytes: 0 };
        for folder in self.set_aside_folders()? {
            let (archives, bytes) = held(&folder)?;
            all.archives += archives;
            all.bytes += bytes;
        }
        Ok((all.archives > 0).then_some(all))
    }

    fn set_aside_folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.folder().join(FOLDER);
        match list(&folder) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => Ok(listed?.into_iter().filter(|(_, is_folder)| *is_folder).map(|(path, _)| path).collect()),
        }
    }
}

/// Makes a folder and its parents below `top`, each 0700.
fn private_folders_of(top: &Path) -> impl Fn(&Path) -> io::Result<()> {
    move |folder: &Path| {
        let below: Vec<&Path> = folder.ancestors().take_while(|path| *path != top).collect();
        below.into_iter().rev().try_for_each(durable::private_folder)
    }
}

fn instant(name: &OsStr) -> Option<Timestamp> {
    let at = DateTime::strptime(INSTANT, name.to_str()?).ok()?;
    at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

/// The number and bytes of the files of `<host>/<policy>/` below a folder.
fn held(folder: &Path) -> Result<(u64, u64), StoreError> {
    let (mut archives, mut bytes) = (0, 0);
    for (host, _) in list(folder)?.into_iter().filter(|(_, is_folder)| *is_folder) {
        for (policy, _) in list(&host)?.into_iter().filter(|(_, is_folder)| *is_folder) {
            for (file, _) in list(&policy)? {
                archives += 1;
                bytes += file.symlink_metadata().map_or(0, |metadata| metadata.len());
            }
        }
    }
    Ok((archives, bytes))
}

/// What is in a folder, and whether each is a folder.
fn list(folder: &Path) -> Result<Vec<(PathBuf, bool)>, StoreError> {
    let entries = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir())))).collect()
    });
    entries.map_err(|source| StoreError::Io { path: folder.to_owned(), source })
}
