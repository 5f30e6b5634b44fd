//! What happens between a full and a differential in a measurement: 1 % of the files have a line appended, 0.2 % are deleted,
//! 0.2 % are added.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::prose::Prose;
use crate::random::Random;

/// One file in so many has a line appended.
const APPENDED: usize = 100;
/// One file in so many is deleted; as many are added.
const DELETED: usize = 500;
/// The largest added file, bytes.
const MAX_ADDED: usize = 16 * 1024;

/// A scan takes what changed in the two seconds before it for possibly changing still.
const SETTLED: Duration = Duration::from_millis(2500);

/// Waits until a tree that was just made is old enough to be told from one that changes.
pub fn settle() {
    std::thread::sleep(SETTLED);
}

/// What was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Files with a line appended.
    pub appended: u64,
    /// Files deleted.
    pub deleted: u64,
    /// Files added.
    pub added: u64,
}

/// Changes a tree; the same tree is always changed in the same way.
///
/// # Errors
/// The tree cannot be read or changed.
pub fn change(root: &Path) -> io::Result<Changes> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let (prose, mut random, mut text) = (Prose::default(), Random::new(0xD1FF), String::new());
    let mut changes = Changes::default();
    // Drawn without putting back: no file is changed twice.
    let draw = |files: &mut Vec<PathBuf>, random: &mut Random| files.swap_remove(random.below(files.len()));
    let total = files.len();
    for _ in 0..total / DELETED {
        fs::remove_file(draw(&mut files, &mut random))?;
        changes.deleted += 1;
    }
    for _ in 0..total / APPENDED {
        text.clear();
        prose.line(&mut random, &mut text);
        OpenOptions::new().append(true).open(draw(&mut files, &mut random))?.write_all(text.as_bytes())?;
        changes.appended += 1;
    }
    for number in 0..total / DELETED {
        let size = random.below(MAX_ADDED);
        prose.write(&mut random, size, &mut text);
        let beside = draw(&mut files, &mut random);
        fs::write(beside.with_file_name(format!("added-{number}.txt")), &text)?;
        changes.added += 1;
    }
    Ok(changes)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{Changes, change};
    use crate::tree::compare::{Tolerance, compare_trees};

    #[test]
    fn equal_trees_are_changed_equally_and_by_the_stated_shares() {
        let folder = tempfile::tempdir().unwrap();
        let trees = ["one", "two", "before"].map(|name| folder.path().join(name));
        for tree in &trees {
            std::fs::create_dir(tree).unwrap();
            for number in 0..1000 {
                std::fs::write(tree.join(format!("{number}")), b"line\n").unwrap();
            }
        }
        let expected = Changes { appended: 10, deleted: 2, added: 2 };
        assert_eq!(change(&trees[0]).unwrap(), expected);
        assert_eq!(change(&trees[1]).unwrap(), expected);
        let differing = |left, right| {
            let found = compare_trees(left, right, Tolerance::default()).unwrap();
            found.into_iter().filter(|difference| difference.what != "mtime").count()
        };
        assert_eq!(differing(&trees[0], &trees[1]), 0);
        assert!(differing(&trees[0], &trees[2]) >= 14);
    }
}
