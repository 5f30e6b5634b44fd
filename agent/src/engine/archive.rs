//! Opening an archive that the coordinator names: found, whole, and the one that was sealed.

use coord_archive::reader::{ArchiveReader, ReadError};
use coord_shared::api::ArchiveLocation;
use coord_shared::fault::{ErrorCode, Fault};

use super::Failure;
use crate::chain::chain;
use crate::store::LocalStore;

/// Opens the archive at `location`.
pub fn open_archive(store: &LocalStore, location: &ArchiveLocation) -> Result<ArchiveReader, Failure> {
    let path = store.locate(location).map_err(|error| Failure::of_store(&error))?;
    ArchiveReader::open_path(&path).map_err(|error| of_read(&location.key, &error))
}

/// An archive, or a part of it, that cannot be read.
pub(super) fn of_read(key: &str, error: &ReadError) -> Failure {
    let message = format!("archive {}: {}", key.escape_debug(), chain(error));
    if error.is_damage() {
        let fault = Fault::new(ErrorCode::ArchiveDamaged, message);
        return Failure::lasting(fault.with_hint("take a new full backup; other restore points may still be whole"));
    }
    Failure::retryable(Fault::new(ErrorCode::Io, message))
}
