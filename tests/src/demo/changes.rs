//! The changes between the full and the differential backups.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::tree::mutate;

/// Every n-th file of a copied tree is changed.
const EVERY: usize = 97;

/// Changes the awkward tree at `scratch` in every way, and some files of the copies at `copies`.
///
/// # Errors
/// The first change that could not be made.
pub fn apply(scratch: &Path, copies: &[PathBuf]) -> io::Result<Vec<String>> {
    let mut done: Vec<String> = mutate::change_everything(scratch)?.into_iter().map(str::to_owned).collect();
    let (mut edited, mut deleted, mut renamed) = (0, 0, 0);
    for root in copies {
        for (number, path) in files(root)?.into_iter().enumerate() {
            match number % EVERY {
                0 => {
                    OpenOptions::new().append(true).open(&path)?.write_all(b"\nedited by the demo\n")?;
                    edited += 1;
                }
                1 => {
                    fs::remove_file(&path)?;
                    deleted += 1;
                }
                2 => {
                    let mut name = path.file_name().unwrap_or_default().to_owned();
                    name.push(".renamed");
                    fs::rename(&path, path.with_file_name(name))?;
                    renamed += 1;
                }
                // The others stay as they are.
                3.. => {}
            }
        }
    }
    if edited > 0 {
        done.push(format!("{edited} files edited, {deleted} deleted, {renamed} renamed in copies of real files"));
    }
    Ok(done)
}

/// Regular files below a folder that can be written, in path order.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let file_type = entry.file_type()?;
            if file_type.is_dir() {
                folders.push(entry.path());
            } else if file_type.is_file() && !entry.metadata()?.permissions().readonly() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
