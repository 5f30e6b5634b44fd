//! The archive folder: `<host>/<policy>/<UTC>-<full|diff>-<run>.<attempt>.<extension>`, each file write-once.
//!
//! Owns the invariant that a file under its final name is whole, and that no name from the wire leads out of the folder. An archive
//! is recognised by its digest, never by its name. Not here: what an archive holds.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use coord_archive::codec::Codec;
use coord_archive::digest::Digest;
use coord_archive::file::{FileError, SealedFile};
use coord_archive::footer::{Footer, FooterError, MAX_FOOTER_BYTES};
use coord_archive::header::Level;
use coord_shared::api::ArchiveLocation;
use coord_shared::durable;
use jiff::Timestamp;

use crate::printable::printable;

/// Part of every temporary name that [`SealedFile`] gives.
const PARTIAL_MARK: &[u8] = b".partial-";

/// An archive cannot be stored or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A name that could lead out of the archive folder.
    #[error("'{}' is not the name of an archive", key.escape_debug())]
    Key {
        /// As received.
        key: String,
    },
    /// The folder or a file cannot be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The archive cannot be begun.
    #[error("cannot begin an archive")]
    File(#[source] FileError),
    /// The archive is nowhere it should be.
    #[error("the archive {} is not here: looked for {}", key.escape_debug(), looked_at.join(" and "))]
    Missing {
        /// Its name.
        key: String,
        /// The paths tried, escaped.
        looked_at: Vec<String>,
    },
    /// There is a file, but it is not the archive that was sealed.
    #[error("{} is not the archive that was sealed under this name", path.display())]
    Replaced {
        /// Which file.
        path: PathBuf,
    },
    /// There is a file, but it is no whole archive.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        #[source]
        source: FooterError,
    },
}

impl StoreError {
    /// Whether a full disk is the cause.
    pub fn is_disk_full(&self) -> bool {
        let full =
            |source: &io::Error| matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            StoreError::Io { source, .. } | StoreError::File(FileError::Io { source, .. }) => full(source),
            StoreError::Key { .. }
            | StoreError::File(FileError::NotAName { .. } | FileError::Exists { .. })
            | StoreError::Missing { .. }
            | StoreError::Replaced { .. }
            | StoreError::Damaged { .. } => false,
        }
    }
}

/// What makes the name of an archive.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveName<'a> {
    /// The host's slug.
    pub host: &'a str,
    /// The policy's slug.
    pub policy: &'a str,
    /// Start of the scan.
    pub at: Timestamp,
    /// Full or differential.
    pub level: Level,
    /// The run.
    pub run: &'a str,
    /// Its attempt.
    pub attempt: u32,
    /// Decides the extension.
    pub codec: Codec,
}

impl ArchiveName<'_> {
    /// The name below an archive folder.
    pub fn key(&self) -> String {
        let ArchiveName { host, policy, run, attempt, .. } = self;
        let level = match self.level {
            Level::Full => "full",
            Level::Differential => "diff",
        };
        let at = self.at.strftime("%Y%m%dT%H%M%SZ");
        format!("{host}/{policy}/{at}-{level}-{run}.{attempt}.{}", self.codec.extension())
    }
}

/// The archive folder of this agent.
#[derive(Debug, Clone)]
pub struct LocalStore {
    folder: PathBuf,
}

impl LocalStore {
    /// The folder, made 0700 if it is missing.
    pub fn open(folder: &Path) -> Result<LocalStore, StoreError> {
        let failed = |source| StoreError::Io { path: folder.to_owned(), source };
        durable::private_folder(folder).map_err(failed)?;
        Ok(LocalStore { folder: folder.canonicalize().map_err(failed)? })
    }

    /// The folder, absolute.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins the archive that will have this name.
    pub fn create(&self, key: &str) -> Result<SealedFile, StoreError> {
        let path = self.path(key)?;
        if let Some(folder) = path.parent() {
            durable::private_folder(folder).map_err(|source| StoreError::Io { path: folder.to_owned(), source })?;
        }
        SealedFile::create(&path).map_err(StoreError::File)
    }

    /// The path of an archive of ours.
    pub fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        below(&self.folder, key)
    }

    /// Finds an archive: in our own folder, else where its writer put it. It is the sealed one, or an error says what it is.
    pub fn locate(&self, location: &ArchiveLocation) -> Result<PathBuf, StoreError> {
        let own = self.path(&location.key)?;
        let written = below(Path::new(std::ffi::OsStr::from_bytes(&location.folder)), &location.key)?;
        let mut looked_at = Vec::new();
        let candidates = if own == written { vec![own] } else { vec![own, written] };
        for path in candidates.into_iter().filter(|path| path.is_absolute()) {
            match footer(&path) {
                Ok(footer) if Some(footer.archive_digest) == Digest::from_slice(&location.archive_digest) => {
                    return Ok(path);
                }
                Ok(_) => return Err(StoreError::Replaced { path }),
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    looked_at.push(printable(&path.display().to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Missing { key: location.key.clone(), looked_at })
    }

    /// Removes what a killed agent of this host left half written. Call it when no run is active. Answers how many files there were.
    /// Other hosts that share the folder may be writing theirs.
    pub fn remove_partial_files(&self, host: &str) -> Result<u64, StoreError> {
        let own = self.folder.join(host);
        let mut removed = 0;
        self.each_file(&mut |path, name| {
            if !path.starts_with(&own) {
                return Ok(());
            }
            let partial = name.starts_with(b".") && name.windows(PARTIAL_MARK.len()).any(|part| part == PARTIAL_MARK);
            if partial {
                fs::remove_file(path)?;
                removed += 1;
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// The names of archives that this attempt sealed, whether it said so or not.
    pub fn archives_of(&self, run: &str, attempt: u32) -> Result<Vec<String>, StoreError> {
        let endings = [Codec::Zstd, Codec::Gzip].map(|codec| format!("-{run}.{attempt}.{}", codec.extension()));
        let mut keys = Vec::new();
        self.each_file(&mut |path, name| {
            let ours = !name.starts_with(b".") && endings.iter().any(|ending| name.ends_with(ending.as_bytes()));
            if let (true, Ok(below)) = (ours, path.strip_prefix(&self.folder)) {
                keys.extend(below.to_str().map(str::to_owned));
            }
            Ok(())
        })?;
        Ok(keys)
    }

    /// Every file two folders down: `<host>/<policy>/<file>`.
    fn each_file(&self, act: &mut dyn FnMut(&Path, &[u8]) -> io::Result<()>) -> Result<(), StoreError> {
        let list = |path: &Path| -> Result<Vec<fs::DirEntry>, StoreError> {
            let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            entries.map_err(|source| StoreError::Io { path: path.to_owned(), source })
        };
        // What was set aside is in a folder with a dot.
        let is_folder = |entry: &fs::DirEntry| {
            !entry.file_name().as_bytes().starts_with(b".") && entry.file_type().is_ok_and(|kind| kind.is_dir())
        };
        for host in list(&self.folder)?.into_iter().filter(&is_folder) {
            for policy in list(&host.path())?.into_iter().filter(&is_folder) {
                for file in list(&policy.path())? {
                    let path = file.path();
                    act(&path, file.file_name().as_bytes()).map_err(|source| StoreError::Io { path, source })?;
                }
            }
        }
        Ok(())
    }
}

/// `key` below `folder`, if it is a plain relative name.
fn below(folder: &Path, key: &str) -> Result<PathBuf, StoreError> {
    let plain = !key.is_empty()
        && !key.contains('\0')
        && Path::new(key).components().all(|part| matches!(part, Component::Normal(_)));
    if plain { Ok(folder.join(key)) } else { Err(StoreError::Key { key: key.to_owned() }) }
}

/// The facts of the whole archive at `path`.
fn footer(path: &Path) -> Result<Footer, StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let tail_bytes = length.min(MAX_FOOTER_BYTES as u64);
    let mut tail = Vec::with_capacity(MAX_FOOTER_BYTES);
    file.seek(SeekFrom::Start(length - tail_bytes)).map_err(failed)?;
    file.take(MAX_FOOTER_BYTES as u64).read_to_end(&mut tail).map_err(failed)?;
    let footer = Footer::decode(&tail).map_err(|source| StoreError::Damaged { path: path.to_owned(), source })?;
    if footer.stored_bytes != length {
        return Err(StoreError::Damaged { path: path.to_owned(), source: FooterError::Damaged });
    }
    Ok(footer)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::store::SET_ASIDE_KEPT;

    fn key(attempt: u32) -> String {
        let name = ArchiveName {
            host: "web-1",
            policy: "srv",
            at: Timestamp::UNIX_EPOCH,
            level: Level::Full,
            run: "r1",
            attempt,
            codec: Codec::Zstd,
        };
        name.key()
    }

    fn store_archive(store: &LocalStore, key: &str, fill: u8) -> ArchiveLocation {
        let mut footer = Footer {
            version: 1,
            codec: Codec::Zstd,
            level: Level::Full,
            dot_coord: 0,
            table_offset: 0,
            table_length: 1,
            entries: 0,
            files: 0,
            bytes: 0,
            frames: 0,
            stored_bytes: 100,
            archive_digest: Digest([fill; 32]),
        };
        footer.stored_bytes += footer.encode().len() as u64;
        let mut file = store.create(key).unwrap();
        file.write_all(&[fill; 100]).unwrap();
        file.write_all(&footer.encode()).unwrap();
        file.seal().unwrap();
        ArchiveLocation {
            folder: store.folder().as_os_str().as_bytes().to_vec(),
            key: key.to_owned(),
            archive_digest: footer.archive_digest.0.to_vec(),
            stored_bytes: footer.stored_bytes,
            ..Default::default()
        }
    }

    #[test]
    fn an_archive_is_found_by_its_digest_here_or_where_it_was_written() {
        let scratch = tempfile::tempdir().unwrap();
        let writer = LocalStore::open(&scratch.path().join("a")).unwrap();
        let reader = LocalStore::open(&scratch.path().join("b")).unwrap();
        assert_eq!(key(1), "web-1/srv/19700101T000000Z-full-r1.1.tar.zst");
        let location = store_archive(&writer, &key(1), 1);
        assert_eq!(reader.locate(&location).unwrap(), writer.path(&key(1)).unwrap());

        // An archive moved with its folder is found in the new one.
        let moved = store_archive(&reader, &key(1), 1);
        assert_eq!(reader.locate(&location).unwrap(), reader.path(&moved.key).unwrap());
    }

    #[test]
    fn another_archive_under_the_name_is_refused_and_a_cut_one_too() {
        let scratch = tempfile::tempdir().unwrap();
        let store = LocalStore::open(scratch.path()).unwrap();
        let location = store_archive(&store, &key(1), 1);
        let other = ArchiveLocation { archive_digest: vec![9; 32], ..location.clone() };
        assert!(matches!(store.locate(&other), Err(StoreError::Replaced { .. })));
        let path = store.path(&key(1)).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[1..]).unwrap();
        assert!(
            matches!(store.locate(&location), Err(StoreError::Damaged { .. })),
            "a byte is missing at the beginning"
        );
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(store.locate(&location), Err(StoreError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(store.locate(&location), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let store = LocalStore::open(scratch.path()).unwrap();
        for key in ["", "/etc/passwd", "../x", "a/../../x", "a/\0", "."] {
            assert!(matches!(store.path(key), Err(StoreError::Key { .. })), "{key:?}");
        }
    }

    #[test]
    fn half_written_files_go_and_whole_ones_stay() {
        let scratch = tempfile::tempdir().unwrap();
        let store = LocalStore::open(scratch.path()).unwrap();
        store_archive(&store, &key(1), 1);
        let mut half = store.create(&key(2)).unwrap();
        half.write_all(b"half").unwrap();
        // As if the process had been killed: no destructor runs.
        std::mem::forget(half);
        assert_eq!(store.remove_partial_files("another-host").unwrap(), 0, "it may be written just now");
        assert_eq!(store.remove_partial_files("web-1").unwrap(), 1);
        assert_eq!(store.archives_of("r1", 1).unwrap(), [key(1)]);
        assert!(store.archives_of("r1", 2).unwrap().is_empty());
    }

    #[test]
    fn an_archive_that_does_not_count_is_set_aside_for_a_week_and_then_goes() {
        let scratch = tempfile::tempdir().unwrap();
        let store = LocalStore::open(scratch.path()).unwrap();
        let bytes = store_archive(&store, &key(1), 1).stored_bytes;
        store_archive(&store, &key(2), 2);
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        assert_eq!(store.all_set_aside().unwrap(), None);

        store.set_aside(&key(1), now).unwrap();
        store.set_aside(&key(1), now).expect("one that is not there is no error");
        assert!(store.archives_of("r1", 1).unwrap().is_empty());
        let kept = store.all_set_aside().unwrap().unwrap();
        assert_eq!((kept.archives, kept.bytes), (1, bytes));

        assert_eq!(store.remove_set_aside(now + SET_ASIDE_KEPT).unwrap(), 0);
        assert_eq!(store.remove_set_aside(now + SET_ASIDE_KEPT + Duration::from_secs(1)).unwrap(), 1);
        assert_eq!(store.all_set_aside().unwrap(), None);
        assert_eq!(store.archives_of("r1", 2).unwrap(), [key(2)], "what counts is not touched");
    }

    #[test]
    fn the_archives_of_an_attempt_are_its_own_whatever_the_run_is_called() {
        let scratch = tempfile::tempdir().unwrap();
        let store = LocalStore::open(scratch.path()).unwrap();
        store_archive(&store, &key(1), 1);
        for run in ["", "1", "full-r1.1.tar.zst", "19700101T000000Z-full"] {
            assert!(store.archives_of(run, 1).unwrap().is_empty(), "{run:?}");
        }
    }
}
