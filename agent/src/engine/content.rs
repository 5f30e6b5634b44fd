//! One file out of a full and at most one differential, piece by piece, for an operator who looks at it.

use std::io::Read as _;

use coord_archive::digest::ContentHasher;
use coord_archive::entry::{Entry, Flags, Kind, parent};
use coord_archive::header::escape;
use coord_archive::reader::ArchiveReader;
use coord_shared::api::{ArchiveLocation, ReadFileOrder};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::wire::MAX_FILE_CHUNK_BYTES;

use super::Failure;
use super::archive::{of_read, open_archive};
use crate::store::LocalStore;

/// A part of a file on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The next bytes.
    Data(Vec<u8>),
    /// All of it was sent, and its digest is right.
    End {
        /// Length in bytes.
        size_bytes: u64,
        /// BLAKE3 of the content.
        digest: Vec<u8>,
        /// The backup could not read it, or a folder above it: the content is that of the last one that could.
        stale: bool,
        /// The content may be of no one moment.
        changed_while_read: bool,
    },
}

/// Reads the file of `order` and gives its parts to `emit`, which answers `false` when nobody wants more.
pub fn read_file(store: &LocalStore, order: &ReadFileOrder, emit: &mut dyn FnMut(Part) -> bool) -> Result<(), Failure> {
    let full_location = order.full.as_ref().ok_or_else(|| not_found(&order.path))?;
    let full = open_archive(store, full_location)?;
    let differential = match &order.differential {
        Some(location) => Some((open_archive(store, location)?, location)),
        None => None,
    };
    let mut stale = false;
    let found = match &differential {
        Some((reader, location)) => {
            match above(reader, location, &order.path)? {
                Above::Hides => return Err(not_found(&order.path)),
                Above::Stale => stale = true,
                Above::Clear => {}
            }
            let found = reader.find(&order.path).map_err(|error| of_read(&location.key, &error))?;
            found.map(|entry| {
                if entry.flags.contains(Flags::CONTENT_IN_BASE) {
                    (&full, full_location, entry)
                } else {
                    (reader, *location, entry)
                }
            })
        }
        None => None,
    };
    let (reader, location, entry) = match found {
        Some(found) => found,
        None => {
            let entry = full.find(&order.path).map_err(|error| of_read(&full_location.key, &error))?;
            (&full, full_location, entry.ok_or_else(|| not_found(&order.path))?)
        }
    };
    check_kind(&entry)?;
    let stale = stale || entry.flags.contains(Flags::STALE);
    send(reader, location, (&entry, stale), emit)
}

/// What a differential says of the folders above a path.
enum Above {
    /// Nothing that concerns the path.
    Clear,
    /// One of them could not be read: what is below it is as in the full.
    Stale,
    /// One of them is no folder any more: nothing of the full shows through.
    Hides,
}

fn above(reader: &ArchiveReader, location: &ArchiveLocation, path: &[u8]) -> Result<Above, Failure> {
    let mut ancestor = parent(path);
    let mut said = Above::Clear;
    while let Some(folder) = ancestor {
        let found = reader.find(folder).map_err(|error| of_read(&location.key, &error))?;
        match found {
            Some(entry) if entry.flags.contains(Flags::STALE) => said = Above::Stale,
            Some(entry) if entry.kind != Kind::Folder => return Ok(Above::Hides),
            Some(_) | None => {}
        }
        ancestor = parent(folder);
    }
    Ok(said)
}

fn check_kind(entry: &Entry) -> Result<(), Failure> {
    let path = escape(&entry.path);
    let refuse = |code, message: String| Err(Failure::lasting(Fault::new(code, message)));
    match entry.kind {
        Kind::Tombstone => Err(not_found(&entry.path)),
        Kind::File if entry.flags.contains(Flags::UNREAD) => {
            refuse(ErrorCode::NotFound, format!("/{path} could not be read when the backup was taken"))
        }
        Kind::File => Ok(()),
        Kind::Folder | Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
            refuse(ErrorCode::InvalidArgument, format!("/{path} is no regular file"))
        }
    }
}

fn send(
    reader: &ArchiveReader,
    location: &ArchiveLocation,
    (entry, stale): (&Entry, bool),
    emit: &mut dyn FnMut(Part) -> bool,
) -> Result<(), Failure> {
    let mut hasher = ContentHasher::new();
    if entry.content.is_some() || entry.size > 0 {
        let mut content = reader.content(entry).map_err(|error| of_read(&location.key, &error))?;
        loop {
            let mut data = Vec::with_capacity(MAX_FILE_CHUNK_BYTES);
            let read = content.by_ref().take(MAX_FILE_CHUNK_BYTES as u64).read_to_end(&mut data);
            read.map_err(|error| damaged(location, entry, &error.to_string()))?;
            if data.is_empty() {
                break;
            }
            hasher.update(&data);
            if !emit(Part::Data(data)) {
                return Err(Failure::cancelled());
            }
        }
    }
    let found = hasher.finish();
    if entry.digest.is_some_and(|digest| digest != found.digest) {
        return Err(damaged(location, entry, "its digest is wrong"));
    }
    let changed_while_read = entry.flags.contains(Flags::CHANGED_WHILE_READ);
    emit(Part::End { size_bytes: found.size, digest: found.digest.0.to_vec(), stale, changed_while_read });
    Ok(())
}

fn damaged(location: &ArchiveLocation, entry: &Entry, why: &str) -> Failure {
    let message = format!("/{} in archive {}: {why}", escape(&entry.path), location.key.escape_debug());
    Failure::lasting(Fault::new(ErrorCode::ArchiveDamaged, message))
}

fn not_found(path: &[u8]) -> Failure {
    Failure::lasting(Fault::new(ErrorCode::NotFound, format!("/{} is not in the backup", escape(path))))
}
