//! Temporary files without a name: they vanish with the process, whatever ends it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens an unnamed file in `folder` for writing and reading back.
pub(crate) fn unnamed(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let unnamed = options.clone().custom_flags(OFlags::TMPFILE.bits().cast_signed()).open(folder);
    unnamed.or_else(|error| match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        // File systems and kernels without O_TMPFILE.
        Some(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT) => {
            let path = folder.join(format!(".coord-spool-{}", uuid::Uuid::new_v4().simple()));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        Some(_) | None => Err(error),
    })
}
