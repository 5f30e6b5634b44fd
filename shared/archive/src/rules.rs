//! What a selection leaves out besides the names that its patterns match: caches, marked folders, what asks not to be
//! dumped, other file systems, large files.
//!
//! The scan follows these rules, the header of an archive records them, and a restore that removes extra names spares what
//! they would leave out. Patterns and the order in which rules are asked are the scan's.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

/// Name of the file that marks a cache (<https://bford.info/cachedir/>).
pub const CACHE_TAG: &str = "CACHEDIR.TAG";
/// What that file begins with.
const CACHE_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// Most names of markers.
pub const MAX_MARKERS: usize = 100;
/// Longest name of a file, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Rules besides the patterns. By default none of them leaves out anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Of a folder that [`CACHE_TAG`] marks as a cache, everything but that file.
    pub caches: bool,
    /// Of a folder that holds one of these names, everything but that name.
    pub if_present: Vec<String>,
    /// Files and folders whose inode has the flag *no dump* (`chattr +d`).
    pub nodump: bool,
    /// What lies on another mount than the folder that holds it.
    pub one_file_system: bool,
    /// Regular files of more than so many bytes.
    pub larger_than: Option<u64>,
}

/// Rules that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// A marker that no file of a folder can be called.
    #[error("'{}' is not the name of a file", name.escape_debug())]
    Marker {
        /// The name as it was given.
        name: String,
    },
    /// Too many of them.
    #[error("{count} markers are more than the {MAX_MARKERS} that are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// No file would be small enough.
    #[error("a largest size of 0 bytes leaves out every file")]
    NoSize,
}

/// What marks a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// [`CACHE_TAG`] with the right signature.
    Cache,
    /// The name with this number in [`Rules::if_present`].
    Present(usize),
}

impl Rules {
    /// Whether nothing is left out by them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether they can be followed.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), RulesError> {
        if self.if_present.len() > MAX_MARKERS {
            return Err(RulesError::TooMany { count: self.if_present.len() });
        }
        if let Some(name) = self.if_present.iter().find(|name| !is_file_name(name)) {
            return Err(RulesError::Marker { name: name.clone() });
        }
        if self.larger_than == Some(0) { Err(RulesError::NoSize) } else { Ok(()) }
    }

    /// Whether a folder's names have to be looked at for a mark.
    #[must_use]
    pub fn look_for_marks(&self) -> bool {
        self.caches || !self.if_present.is_empty()
    }

    /// What marks the open `folder`; `has` says whether it holds a name. A tag that cannot be read marks nothing: what is in the
    /// folder is taken then.
    pub fn mark_of(&self, folder: BorrowedFd<'_>, has: impl Fn(&[u8]) -> bool) -> Option<Mark> {
        if self.caches && has(CACHE_TAG.as_bytes()) && is_cache(folder) {
            return Some(Mark::Cache);
        }
        self.if_present.iter().position(|name| has(name.as_bytes())).map(Mark::Present)
    }

    /// Name of the file that is the mark.
    #[must_use]
    pub fn name_of(&self, mark: Mark) -> &str {
        match mark {
            Mark::Cache => CACHE_TAG,
            Mark::Present(number) => self.if_present.get(number).map_or("", String::as_str),
        }
    }

    /// Whether a regular file of this size is too large.
    #[must_use]
    pub fn is_too_large(&self, size: u64) -> bool {
        self.larger_than.is_some_and(|most| size > most)
    }
}

/// Whether a folder may hold a file of this name.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME_BYTES && !name.contains(['/', '\0'])
}

fn is_cache(folder: BorrowedFd<'_>) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Only owners and root may leave no access time.
    let opened = openat(folder, CACHE_TAG, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| openat(folder, CACHE_TAG, flags, Mode::empty()));
    let Ok(tag) = opened else { return false };
    let is_file = rustix::fs::fstat(&tag).is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode).is_file());
    let mut start = [0; CACHE_SIGNATURE.len()];
    is_file && File::from(tag).read_exact(&mut start).is_ok() && start == *CACHE_SIGNATURE
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::path::Path;

    use super::*;

    fn mark(rules: &Rules, folder: &Path) -> Option<Mark> {
        let open = File::open(folder).unwrap();
        rules.mark_of(open.as_fd(), |name| folder.join(std::str::from_utf8(name).unwrap()).symlink_metadata().is_ok())
    }

    #[test]
    fn a_folder_is_a_cache_by_a_regular_file_with_the_signature_and_by_nothing_else() {
        let rules = Rules { caches: true, ..Rules::default() };
        let folder = tempfile::tempdir().unwrap();
        let tag = folder.path().join(CACHE_TAG);
        assert_eq!(mark(&rules, folder.path()), None);
        let signature = String::from_utf8(CACHE_SIGNATURE.to_vec()).unwrap();
        for (text, is_cache) in [
            (signature.clone(), true),
            (format!("{signature}\n# made by a test\n"), true),
            (signature.to_lowercase(), false),
            (signature[..42].to_owned(), false),
            (String::new(), false),
        ] {
            fs::write(&tag, &text).unwrap();
            assert_eq!(mark(&rules, folder.path()), is_cache.then_some(Mark::Cache), "{text:?}");
        }
        fs::write(folder.path().join("elsewhere"), &signature).unwrap();
        fs::remove_file(&tag).unwrap();
        std::os::unix::fs::symlink("elsewhere", &tag).unwrap();
        assert_eq!(mark(&rules, folder.path()), None, "the tag may be no symbolic link");
        assert_eq!(mark(&Rules::default(), folder.path()), None);
    }

    #[test]
    fn any_kind_of_file_marks_a_folder_by_its_name() {
        let rules = Rules { if_present: vec![".a".to_owned(), ".b".to_owned()], ..Rules::default() };
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(mark(&rules, folder.path()), None);
        fs::create_dir(folder.path().join(".b")).unwrap();
        let found = mark(&rules, folder.path()).unwrap();
        assert_eq!((found, rules.name_of(found)), (Mark::Present(1), ".b"));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for bad in ["", ".", "..", "a/b", "a\0", &"x".repeat(256)] {
            let rules = Rules { if_present: vec![bad.to_owned()], ..Rules::default() };
            assert!(rules.check().is_err(), "{bad:?}");
        }
        assert!(Rules { larger_than: Some(0), ..Rules::default() }.check().is_err());
        assert!(Rules { if_present: vec!["x".to_owned(); MAX_MARKERS + 1], ..Rules::default() }.check().is_err());
        assert!(
            Rules { if_present: vec![".nobackup".to_owned()], larger_than: Some(1), ..Rules::default() }
                .check()
                .is_ok()
        );
    }
}
