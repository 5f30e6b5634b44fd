//! What the demo protects: real paths as they are, and scratch copies that it may change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tree::awkward;

/// At most this much of all real paths together is copied for the second host, in bytes. A copy of the copy is kept to compare with.
const COPY_BYTES: u64 = 80 * 1024 * 1024;
/// Names of a checkout that are no source.
const BUILD_OUTPUT: &str = "target";

/// Folders of this machine that make a good default, in this order.
const DEFAULT_PATHS: &[&str] = &["/usr/share/doc", "/usr/share/perl", "/usr/share/zoneinfo"];

/// The data of a demo.
#[derive(Debug)]
pub struct Sources {
    /// Real paths, absolute and canonical; only read.
    pub paths: Vec<PathBuf>,
    /// A scratch tree of awkward files on the first host; changed between backups.
    pub scratch: PathBuf,
    /// The second host's root: copies of a part of the real paths and an awkward tree of its own; changed too.
    pub second_root: PathBuf,
    /// What could not be made here, in words.
    pub left_out: Vec<String>,
}

impl Sources {
    /// Chooses the paths and makes the scratch data in `folder`.
    ///
    /// # Errors
    /// A given path cannot be read, or the scratch data cannot be made.
    pub fn prepare(given: &[PathBuf], checkout: &Path, folder: &Path) -> Result<Self, String> {
        let paths = choose(given, checkout)?;
        let scratch = folder.join("data");
        let words = |what: &str, error: io::Error| format!("{what}: {error}");
        fs::create_dir_all(&scratch).map_err(|error| words("scratch data", error))?;
        let left_out = awkward::make(&scratch).map_err(|error| words("scratch data", error))?;
        let second_root = folder.join("second-root");
        let budget = COPY_BYTES / paths.len().max(1) as u64;
        for path in &paths {
            copy_part(budget, path, &below(&second_root, path))
                .map_err(|error| words(&path.to_string_lossy(), error))?;
        }
        let second_scratch = below(&second_root, &scratch);
        fs::create_dir_all(&second_scratch).map_err(|error| words("scratch data", error))?;
        awkward::make(&second_scratch).map_err(|error| words("scratch data", error))?;
        Ok(Self { paths, scratch, second_root, left_out })
    }

    /// The policy's sources: the same absolute paths on both hosts.
    #[must_use]
    pub fn policy_sources(&self) -> Vec<String> {
        self.paths.iter().chain([&self.scratch]).map(|path| path.to_string_lossy().into_owned()).collect()
    }
}

/// Where a checkout's build output lies, if it has some: no source, and it changes while the demo runs.
#[must_use]
pub fn build_output(checkout: &Path) -> Option<PathBuf> {
    Some(fs::canonicalize(checkout).ok()?.join(BUILD_OUTPUT)).filter(|path| path.is_dir())
}

/// `path`, absolute, below another root.
#[must_use]
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn choose(given: &[PathBuf], checkout: &Path) -> Result<Vec<PathBuf>, String> {
    let canonical = |path: &Path| {
        fs::canonicalize(path).map_err(|error| format!("{}: {error}; name a folder that exists", path.display()))
    };
    if !given.is_empty() {
        let mut paths = Vec::new();
        for path in given {
            let path = canonical(path)?;
            fs::read_dir(&path).map_err(|error| format!("{}: {error}; name a folder you can read", path.display()))?;
            paths.push(path);
        }
        return Ok(outermost(paths));
    }
    let system = DEFAULT_PATHS.iter().map(Path::new).find(|path| path.is_dir());
    let mut paths = vec![canonical(checkout)?];
    paths.extend(system.map(canonical).transpose()?);
    Ok(outermost(paths))
}

/// Leaves out paths that lie below others.
fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| other != path && path.starts_with(other)));
    paths
}

/// Copies files of `from` until enough bytes are there, folder by folder, build output left out.
fn copy_part(budget: u64, from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut copied = 0;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(from.join(&folder)) else { continue };
        for entry in entries.flatten() {
            let path = folder.join(entry.file_name());
            let Ok(metadata) = fs::symlink_metadata(from.join(&path)) else { continue };
            if metadata.is_dir() {
                if entry.file_name() != BUILD_OUTPUT {
                    fs::create_dir_all(to.join(&path))?;
                    folders.push(path);
                }
            } else if metadata.is_file() && copied + metadata.size() <= budget {
                // A file that cannot be read is not needed in a copy that is only there to be changed.
                copied += fs::copy(from.join(&path), to.join(&path)).unwrap_or(0);
            }
        }
    }
    Ok(())
}

/// An exact copy of a tree, to compare with later.
///
/// # Errors
/// `cp -a` failed.
pub fn keep(from: &Path, to: &Path) -> Result<(), String> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| error.to_string())?;
    }
    let output = Command::new("cp")
        .args(["-a", "--sparse=always", "--"])
        .arg(from)
        .arg(to)
        .output()
        .map_err(|error| format!("cp: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::outermost;
    use std::path::PathBuf;

    #[test]
    fn a_path_below_another_is_protected_once() {
        let paths = ["/usr/share/doc", "/usr", "/etc", "/usr", "/usr2"].map(PathBuf::from).to_vec();
        assert_eq!(outermost(paths), ["/etc", "/usr", "/usr2"].map(PathBuf::from).to_vec());
    }
}
