//! Which names a restore takes: paths with everything below them, and glob patterns.

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::entry::{cmp_paths, is_at_or_below, is_clean_path};
use crate::header::escape;

/// A pattern or path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// Not a pattern.
    #[error("{pattern:?} is no pattern")]
    Pattern {
        /// The text given.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
    /// Not a path relative to the root.
    #[error("{} is no path below the root", escape(path))]
    Path {
        /// The path given.
        path: Vec<u8>,
    },
}

/// What to restore.
#[derive(Clone, Debug)]
pub struct Selection {
    /// In path order, none below another, never empty.
    paths: Vec<Vec<u8>>,
    include: Option<GlobSet>,
    exclude: Option<GlobSet>,
}

impl Selection {
    /// The root and everything below it.
    #[must_use]
    pub fn everything() -> Self {
        Self { paths: vec![Vec::new()], include: None, exclude: None }
    }

    /// Each of `paths`, relative to the recorded root, with everything below it. No paths at all mean everything.
    pub fn of_paths(paths: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, PatternError> {
        let mut given: Vec<Vec<u8>> = paths.into_iter().collect();
        if let Some(path) = given.iter().find(|path| !is_clean_path(path)) {
            return Err(PatternError::Path { path: path.clone() });
        }
        given.sort_by(|a, b| cmp_paths(a, b));
        let mut paths: Vec<Vec<u8>> = Vec::new();
        for path in given {
            if !paths.last().is_some_and(|last| is_at_or_below(&path, last)) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            paths.push(Vec::new());
        }
        Ok(Self { paths, include: None, exclude: None })
    }

    /// Of these paths only what a pattern of `include` matches (if there is any), and nothing that one of `exclude` does.
    /// A pattern that matches a folder matches everything below it. `*` does not cross a slash, `**` does; a pattern
    /// without a slash matches in every folder, a leading slash means the root.
    pub fn with_patterns(mut self, include: &[String], exclude: &[String]) -> Result<Self, PatternError> {
        self.include = if include.is_empty() { None } else { Some(compile(include)?) };
        self.exclude = if exclude.is_empty() { None } else { Some(compile(exclude)?) };
        Ok(self)
    }

    /// The paths, in path order, none below another.
    #[must_use]
    pub fn paths(&self) -> &[Vec<u8>] {
        &self.paths
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&Vec<u8>) -> bool) {
        self.paths.retain(keep);
    }

    /// Whether the patterns take `path`; that it is at or below one of the paths is known.
    pub(super) fn takes(&self, path: &[u8]) -> bool {
        let matches = |set: &GlobSet| {
            let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            slashes.chain([path.len()]).any(|end| set.is_match_candidate(&Candidate::from_bytes(&path[..end])))
        };
        self.include.as_ref().is_none_or(matches) && !self.exclude.as_ref().is_some_and(matches)
    }
}

fn compile(patterns: &[String]) -> Result<GlobSet, PatternError> {
    let mut set = GlobSetBuilder::new();
    let failed = |pattern: &str, source| PatternError::Pattern { pattern: pattern.to_owned(), source };
    for pattern in patterns {
        let glob = match pattern.strip_prefix('/') {
            Some(anchored) => anchored.to_owned(),
            None if pattern.contains('/') => pattern.clone(),
            None => format!("**/{pattern}"),
        };
        let glob = GlobBuilder::new(glob.trim_end_matches('/')).literal_separator(true).backslash_escape(true).build();
        set.add(glob.map_err(|source| failed(pattern, source))?);
    }
    set.build().map_err(|source| failed("", source))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn nested_paths_are_taken_once() {
        let paths = [&b"b"[..], b"a-b", b"a/b/c", b"a/b", b"a"].map(<[u8]>::to_vec);
        let selection = Selection::of_paths(paths).unwrap();
        assert_eq!(selection.paths(), [b"a".to_vec(), b"a-b".to_vec(), b"b".to_vec()]);
        assert!(Selection::of_paths([b"a/../b".to_vec()]).is_err());
        assert_eq!(Selection::of_paths([]).unwrap().paths(), [b"".to_vec()]);
    }

    #[test]
    fn a_pattern_takes_everything_below_what_it_matches() {
        let globs = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let selection = Selection::everything()
            .with_patterns(&globs(&["etc", "*.conf"]), &globs(&["/etc/ssl", "*\u{fffd}"]))
            .unwrap();
        for (path, taken) in [
            (&b"etc/passwd"[..], true),
            (b"usr/etc/x/y", true),
            (b"srv/a.conf", true),
            (b"srv/a.con", false),
            (b"etc/ssl/private/key", false),
            (b"srv/etc/ssl", true),
            (b"etc/\xff", true),
        ] {
            assert_eq!(selection.takes(path), taken, "{path:?}");
        }
    }
}
