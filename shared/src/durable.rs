//! Small files that must be whole after a crash: written under a temporary name, flushed, renamed, and the folder flushed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// For keys: the owner only.
pub const SECRET_MODE: u32 = 0o600;
/// For what anybody may read.
pub const PUBLIC_MODE: u32 = 0o644;

/// Writes `bytes` to `path`, replacing what is there: after a crash the old or the new content is there, never a part.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = parent(path);
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let written = write_and_flush(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // Best effort: the error that matters is the first one.
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    flush_folder(folder)
}

/// Flushes a folder, so that names made or removed in it are durable.
pub fn flush_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder that only its owner enters, with what is missing above it, and flushes the folders that got a new name: what is
/// stored in it later is not lost with it. One that is there must not be open to others.
pub fn private_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    missing.iter().try_for_each(|made| flush_folder(parent(made)))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn write_and_flush(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_private_folder_is_made_with_what_is_missing_above_it_and_closed_when_it_was_open() {
        let top = std::env::temp_dir().join(format!("coord-durable-{}", uuid::Uuid::new_v4()));
        private_folder(&top.join("a/b")).unwrap();
        fs::set_permissions(top.join("a/b"), fs::Permissions::from_mode(0o755)).unwrap();
        private_folder(&top.join("a/b")).unwrap();
        for folder in ["a", "a/b"] {
            assert_eq!(fs::metadata(top.join(folder)).unwrap().permissions().mode() & 0o777, 0o700, "{folder}");
        }
        fs::write(top.join("file"), "").unwrap();
        assert!(private_folder(&top.join("file")).is_err());
        fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("coord-durable-{}", uuid::Uuid::new_v4()));
        private_folder(&folder).unwrap();
        let path = folder.join("key");
        write(&path, b"one", PUBLIC_MODE).unwrap();
        write(&path, b"two", SECRET_MODE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SECRET_MODE);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
