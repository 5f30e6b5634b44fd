//! Which folder an archive folder is: a random id in a small file of its own, so that agents that share the folder, each under a path of its
//! own, say the same. Invariant: the file is made once and never replaced, so that whoever reads an id reads the one that stays.
//!
//! Not here: what the id is for (the coordinator counts runs by it). A folder without one is as good as any other.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use coord_archive::file::{FileError, SealedFile};
use coord_shared::ids::ArchiveStoreId;

use super::local::{LocalStore, StoreError};

/// The file, in the archive folder. What reads archives looks into folders of hosts only, and no host has a name that begins with a dot.
const NAME: &str = ".store-id";

impl LocalStore {
    /// The id of the folder, made if there is none yet.
    pub fn id(&self) -> Result<ArchiveStoreId, StoreError> {
        let path = self.folder().join(NAME);
        if let Some(id) = read(&path)? {
            return Ok(id);
        }
        let made = ArchiveStoreId::random();
        let sealed = SealedFile::create(&path).and_then(|mut file| {
            let written = file.write_all(format!("{made}\n").as_bytes());
            written.map_err(|source| FileError::Io { what: "write", path: path.clone(), source })?;
            file.seal()
        });
        match sealed {
            Ok(_) => Ok(made),
            // Another agent was faster.
            Err(FileError::Exists { .. }) => {
                read(&path)?.ok_or(StoreError::Io { path, source: io::ErrorKind::NotFound.into() })
            }
            Err(error) => Err(StoreError::File(error)),
        }
    }
}

fn read(path: &Path) -> Result<Option<ArchiveStoreId>, StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => text.trim_end().parse().map(Some).map_err(|_| failed(io::ErrorKind::InvalidData.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Barrier;

    use super::*;

    #[test]
    fn agents_that_share_a_folder_know_it_by_one_id_whoever_comes_first() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("shared");
        std::os::unix::fs::symlink(&folder, scratch.path().join("mounted")).unwrap();
        fs::create_dir(&folder).unwrap();
        let ready = Barrier::new(16);
        let ids: Vec<ArchiveStoreId> = std::thread::scope(|scope| {
            let open = |n: usize| {
                let path = if n.is_multiple_of(2) { folder.clone() } else { scratch.path().join("mounted") };
                let ready = &ready;
                scope.spawn(move || {
                    let store = LocalStore::open(&path).unwrap();
                    ready.wait();
                    store.id().unwrap()
                })
            };
            let racers: Vec<_> = (0..16).map(open).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(LocalStore::open(&folder).unwrap().id().unwrap(), ids[0], "and it stays");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
        let other = LocalStore::open(&scratch.path().join("other")).unwrap();
        assert_ne!(other.id().unwrap(), ids[0]);
    }

    #[test]
    fn a_damaged_id_is_none_and_is_not_replaced_and_a_folder_without_one_is_used_all_the_same() {
        let scratch = tempfile::tempdir().unwrap();
        let store = LocalStore::open(scratch.path()).unwrap();
        for damaged in ["", "half-an-id"] {
            fs::write(scratch.path().join(NAME), damaged).unwrap();
            assert!(store.id().is_err(), "{damaged:?}");
            assert_eq!(fs::read_to_string(scratch.path().join(NAME)).unwrap(), damaged, "it is not replaced");
        }
        assert_eq!(store.remove_partial_files("one").unwrap(), 0);
        assert!(store.archives_of("r1", 1).unwrap().is_empty());
        assert_eq!(store.all_set_aside().unwrap(), None);
        fs::remove_dir_all(scratch.path()).unwrap();
        assert!(matches!(store.id(), Err(StoreError::File(_))), "as where nothing can be written");
    }
}
