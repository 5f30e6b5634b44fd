//! Folders for what is written and thrown away at once.

use std::io;
use std::path::Path;

use tempfile::TempDir;

/// The file system in memory that Linux machines have.
const MEMORY: &str = "/dev/shm";
/// Room that it must have, in bytes: containers give it little.
const ROOM: u64 = 1 << 30;

/// A folder in memory where there is room, or else on disk. Restores and archives are synced, and a disk would take most of the time
/// of a test that makes thousands of them.
///
/// # Errors
/// No folder can be made.
pub fn in_memory() -> io::Result<TempDir> {
    let is_roomy = rustix::fs::statvfs(MEMORY).is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) >= ROOM);
    match is_roomy.then(|| tempfile::tempdir_in(Path::new(MEMORY))) {
        Some(Ok(folder)) => Ok(folder),
        Some(Err(_)) | None => tempfile::tempdir(),
    }
}
