//! A journaled ext4 of its own in a file: restores are not to be measured on a file system of unknown history.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::stopwatch::Invocation;

/// A mounted file system. It is unmounted when it goes.
#[derive(Debug)]
pub struct Loopback {
    folder: PathBuf,
    is_mounted: bool,
}

impl Loopback {
    /// Makes a file system of that size in a file and mounts it.
    ///
    /// # Errors
    /// Nobody but root may, and not every container lets root.
    pub fn mount(image: &Path, folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        File::create(image)?.set_len(bytes)?;
        Invocation::new("mkfs.ext4").args(["-q", "-F", "-O", "has_journal", "-i", "8192"]).arg(image).time(None)?;
        std::fs::create_dir_all(folder)?;
        Invocation::new("mount").args(["-o", "loop"]).arg(image).arg(folder).time(None)?;
        Ok(Self { folder: folder.to_owned(), is_mounted: true })
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// As umount(8).
    pub fn end(mut self) -> anyhow::Result<()> {
        self.is_mounted = false;
        self.unmount()
    }

    fn unmount(&self) -> anyhow::Result<()> {
        let unmounted = Invocation::new("umount").arg(&self.folder).time(None).map(drop);
        unmounted.with_context(|| format!("{} is still mounted; `umount` it", self.folder.display()))
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        if self.is_mounted
            && let Err(error) = self.unmount()
        {
            eprintln!("warning: {error:#}");
        }
    }
}
