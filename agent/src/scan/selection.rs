//! What a backup covers: sources, patterns that leave names out of them, and the [`Rules`] that leave out more.
//!
//! For users this is docs/SELECTION.md, whose examples a test runs.
//!
//! # Grammar of a pattern
//! - A pattern without `/` is matched with the *name* of everything at any depth: `*.tmp`, `cache`.
//! - A pattern with `/` (one at its end aside) is matched with the whole path from the recorded root: `/var/cache`,
//!   `home/*/.cache`. A leading `/` changes nothing but makes a plain name a path: `/swapfile`.
//! - `*` and `?` do not match `/`; `**` matches any number of folders: `**/target/debug`, `srv/**/*.iso`.
//!   `[a-z]`, `{a,b}` and `\` before a special character work as in a shell.
//! - A `/` at the end restricts the pattern to folders: `build/`.
//! - `!` at the beginning takes names in again. The last pattern that matches decides.
//! - A folder that is left out is not looked into, so nothing below it can be taken in again; write `cache/*` and
//!   `!cache/keep` to keep one name of a folder (with the path from the root).
//! - A source, and the folders on the way to one, are never left out.
//!
//! Patterns are matched with bytes; names need not be UTF-8. Nothing is left out by default.
//!
//! # Rules
//! The rules stand beside the patterns: `!` takes nothing in again that one of them leaves out. Sources and the way to one are
//! exempt from them too.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use coord_archive::digest::Digest;
use coord_archive::entry::{cmp_paths, is_at_or_below, parent};
use coord_archive::rules::{Rules, RulesError};
use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

/// Most patterns that one selection may have.
pub const MAX_PATTERNS: usize = 10_000;
/// Most sources that one selection may have.
pub const MAX_SOURCES: usize = 10_000;
/// Longest source, in bytes.
pub const MAX_SOURCE_BYTES: usize = 4096;

/// A selection that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// Nothing to protect.
    #[error("no source is given")]
    NoSource,
    /// Too many of something.
    #[error("{count} {what} are more than the {max} that are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A source that is not a plain path.
    #[error("source '{}' {reason}", source_path.escape_ascii())]
    Source {
        /// The source as it was given.
        source_path: Vec<u8>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A pattern that cannot be understood.
    #[error("exclude pattern '{}' cannot be used", pattern.escape_debug())]
    Pattern {
        /// The pattern as it was given.
        pattern: String,
        /// Why, from the pattern compiler; none where the pattern is empty.
        #[source]
        source: Option<globset::Error>,
    },
    /// Rules that make no sense.
    #[error("the rules of what to leave out cannot be used")]
    Rules(#[source] RulesError),
}

#[derive(Debug)]
struct Pattern {
    takes_in: bool,
    folders_only: bool,
}

/// Sources, patterns and rules, ready to decide.
#[derive(Debug)]
pub struct Selection {
    sources: Vec<Vec<u8>>,
    texts: Vec<String>,
    patterns: Vec<Pattern>,
    names: GlobSet,
    name_patterns: Vec<usize>,
    paths: GlobSet,
    path_patterns: Vec<usize>,
    rules: Rules,
}

/// How a path stands to the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is a source.
    Source,
    /// It lies below a source.
    Below,
    /// It is a folder on the way to a source, and not below another one.
    Ancestor,
    /// Neither.
    Outside,
}

impl Selection {
    /// Compiles `sources` (absolute, or relative to the root; the root itself is `/` or empty) and `patterns`, in order.
    ///
    /// # Errors
    /// No source, a source with `.`, `..` or NUL in it, a pattern that does not compile, too many of either.
    pub fn new(sources: &[Vec<u8>], patterns: &[String]) -> Result<Self, SelectionError> {
        if sources.is_empty() {
            return Err(SelectionError::NoSource);
        }
        for (what, count, max) in [("sources", sources.len(), MAX_SOURCES), ("patterns", patterns.len(), MAX_PATTERNS)]
        {
            if count > max {
                return Err(SelectionError::TooMany { what, count, max });
            }
        }
        let mut clean = sources.iter().map(|source| clean_source(source)).collect::<Result<Vec<_>, _>>()?;
        clean.sort_by(|a, b| cmp_paths(a, b));
        clean.dedup();
        let mut this = Self {
            sources: clean,
            texts: patterns.to_vec(),
            patterns: Vec::with_capacity(patterns.len()),
            names: GlobSet::empty(),
            name_patterns: Vec::new(),
            paths: GlobSet::empty(),
            path_patterns: Vec::new(),
            rules: Rules::default(),
        };
        this.compile()?;
        Ok(this)
    }

    /// The same with `rules` beside the patterns.
    ///
    /// # Errors
    /// The rules make no sense.
    pub fn with_rules(mut self, rules: Rules) -> Result<Self, SelectionError> {
        rules.check().map_err(SelectionError::Rules)?;
        self.rules = rules;
        Ok(self)
    }

    fn compile(&mut self) -> Result<(), SelectionError> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for (number, text) in self.texts.iter().enumerate() {
            let failed = |source| SelectionError::Pattern { pattern: text.clone(), source };
            let (takes_in, rest) = text.strip_prefix('!').map_or((false, text.as_str()), |rest| (true, rest));
            let (folders_only, rest) = rest.strip_suffix('/').map_or((false, rest), |rest| (true, rest));
            let (anchored, rest) = rest.strip_prefix('/').map_or((rest.contains('/'), rest), |rest| (true, rest));
            if rest.is_empty() {
                return Err(failed(None));
            }
            let glob = GlobBuilder::new(rest)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|source| failed(Some(source)))?;
            if anchored {
                paths.add(glob);
                self.path_patterns.push(number);
            } else {
                names.add(glob);
                self.name_patterns.push(number);
            }
            self.patterns.push(Pattern { takes_in, folders_only });
        }
        let whole =
            |source| SelectionError::Pattern { pattern: "(all of them together)".to_owned(), source: Some(source) };
        self.names = names.build().map_err(whole)?;
        self.paths = paths.build().map_err(whole)?;
        Ok(())
    }

    /// Sources relative to the root, in path order, each once.
    #[must_use]
    pub fn sources(&self) -> &[Vec<u8>] {
        &self.sources
    }

    /// The patterns as they were given.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.texts
    }

    /// What else is left out.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Digest of sources, patterns and rules in their canonical form: a differential needs a base with the same one. Without
    /// rules it is what it was before there were any.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let is_plain = self.rules.is_empty();
        let mut text = if is_plain { b"coord selection 1\n" } else { b"coord selection 2\n" }.to_vec();
        let mut add = |bytes: &[u8]| {
            text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            text.extend_from_slice(bytes);
        };
        add(&(self.sources.len() as u64).to_le_bytes());
        self.sources.iter().for_each(|source| add(source));
        if !is_plain {
            let Rules { caches, if_present, nodump, one_file_system, larger_than } = &self.rules;
            add(&[*caches, *nodump, *one_file_system].map(u8::from));
            add(&larger_than.unwrap_or(0).to_le_bytes());
            add(&(if_present.len() as u64).to_le_bytes());
            if_present.iter().for_each(|name| add(name.as_bytes()));
        }
        self.texts.iter().for_each(|pattern| add(pattern.as_bytes()));
        Digest::of(&text)
    }

    /// Whether `path` is a source.
    #[must_use]
    pub fn is_source(&self, path: &[u8]) -> bool {
        self.sources.binary_search_by(|source| cmp_paths(source, path)).is_ok()
    }

    /// How `path` stands to the sources. Patterns are not asked.
    #[must_use]
    pub fn standing(&self, path: &[u8]) -> Standing {
        if self.is_source(path) {
            Standing::Source
        } else if self.sources.iter().any(|source| is_at_or_below(path, source)) {
            Standing::Below
        } else if self.leads_to_source(path) {
            Standing::Ancestor
        } else {
            Standing::Outside
        }
    }

    /// Whether a source lies strictly below `path`.
    #[must_use]
    pub fn leads_to_source(&self, path: &[u8]) -> bool {
        self.sources.iter().any(|source| source != path && is_at_or_below(source, path))
    }

    /// Names directly in `folder` that are sources or lead to one, sorted, each once.
    #[must_use]
    pub fn steps_to_sources(&self, folder: &[u8]) -> Vec<Vec<u8>> {
        let skip = if folder.is_empty() { 0 } else { folder.len() + 1 };
        let below = self.sources.iter().filter(|source| *source != folder && is_at_or_below(source, folder));
        let names: BTreeSet<&[u8]> =
            below.filter_map(|source| source[skip..].split(|byte| *byte == b'/').next()).collect();
        names.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// The number of the pattern that leaves `path` out, or `None`. Only `path` itself is asked, not its parents. A source
    /// and the way to it are exempt.
    #[must_use]
    pub fn left_out_by(&self, path: &[u8], is_folder: bool) -> Option<usize> {
        self.matched_by(path, is_folder).filter(|_| !self.is_exempt(path))
    }

    /// Whether `path` is a source or on the way to one, and so never left out.
    #[must_use]
    pub fn is_exempt(&self, path: &[u8]) -> bool {
        self.sources.iter().any(|source| is_at_or_below(source, path))
    }

    /// As [`Selection::left_out_by`], without the exemption of sources and the way to them.
    #[must_use]
    pub fn matched_by(&self, path: &[u8], is_folder: bool) -> Option<usize> {
        if self.patterns.is_empty() {
            return None;
        }
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let by_name = last_match(&self.names, &self.name_patterns, name, |number| self.applies(number, is_folder));
        let by_path = last_match(&self.paths, &self.path_patterns, path, |number| self.applies(number, is_folder));
        let number = by_name.max(by_path)?;
        if self.patterns[number].takes_in { None } else { Some(number) }
    }

    fn applies(&self, number: usize, is_folder: bool) -> bool {
        is_folder || !self.patterns[number].folders_only
    }

    /// Whether a backup of this selection looks at `path`: it is at or below a source, and no pattern leaves out it or a folder
    /// above it. Rules are not asked: they depend on more than the path.
    #[must_use]
    pub fn covers(&self, path: &[u8], is_folder: bool) -> bool {
        if !matches!(self.standing(path), Standing::Source | Standing::Below) {
            return false;
        }
        let mut at = Some(path);
        while let Some(above) = at {
            if self.is_source(above) {
                return true;
            }
            if self.matched_by(above, is_folder || above != path).is_some() {
                return false;
            }
            at = parent(above);
        }
        false
    }
}

fn last_match(set: &GlobSet, numbers: &[usize], text: &[u8], applies: impl Fn(usize) -> bool) -> Option<usize> {
    if set.is_empty() {
        return None;
    }
    let candidate = Candidate::new(Path::new(OsStr::from_bytes(text)));
    let found = set.matches_candidate(&candidate);
    found.into_iter().map(|index| numbers[index]).filter(|number| applies(*number)).max()
}

/// A source as a path relative to the root: no slash at either end, none doubled.
fn clean_source(source: &[u8]) -> Result<Vec<u8>, SelectionError> {
    let failed = |reason| SelectionError::Source { source_path: source.to_vec(), reason };
    if source.len() > MAX_SOURCE_BYTES {
        return Err(failed("is too long"));
    }
    if source.contains(&0) {
        return Err(failed("contains a NUL byte"));
    }
    let mut clean = Vec::with_capacity(source.len());
    for part in source.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        if part == b"." || part == b".." {
            return Err(failed("contains '.' or '..'; name the plain path"));
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
    }
    Ok(clean)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn selection(sources: &[&str], patterns: &[&str]) -> Selection {
        let sources: Vec<Vec<u8>> = sources.iter().map(|s| s.as_bytes().to_vec()).collect();
        let patterns: Vec<String> = patterns.iter().map(|s| (*s).to_owned()).collect();
        Selection::new(&sources, &patterns).unwrap()
    }

    #[test]
    fn a_pattern_without_slash_matches_names_at_any_depth() {
        let s = selection(&["/"], &["*.tmp", "cache"]);
        assert_eq!(s.left_out_by(b"a/b/c.tmp", false), Some(0));
        assert_eq!(s.left_out_by(b"c.tmp", false), Some(0));
        assert_eq!(s.left_out_by(b"srv/cache", true), Some(1));
        assert_eq!(s.left_out_by(b"srv/caches", true), None);
        assert_eq!(s.left_out_by(b"x.tmp/y", false), None, "only the name itself is asked");
    }

    #[test]
    fn a_pattern_with_slash_is_a_path_from_the_root() {
        let s = selection(&["/"], &["/var/cache", "home/*/.cache", "/swap", "**/target/debug"]);
        assert_eq!(s.left_out_by(b"var/cache", true), Some(0));
        assert_eq!(s.left_out_by(b"srv/var/cache", true), None);
        assert_eq!(s.left_out_by(b"home/ann/.cache", true), Some(1));
        assert_eq!(s.left_out_by(b"home/ann/x/.cache", true), None);
        assert_eq!(s.left_out_by(b"swap", false), Some(2));
        assert_eq!(s.left_out_by(b"srv/swap", false), None);
        assert_eq!(s.left_out_by(b"srv/a/target/debug", true), Some(3));
        assert_eq!(s.left_out_by(b"target/debug", true), Some(3));
    }

    #[test]
    fn the_last_match_decides_and_an_exclamation_mark_takes_in_again() {
        let s = selection(&["/"], &["*.log", "!keep.log", "old/*.log", "build/"]);
        assert_eq!(s.left_out_by(b"a.log", false), Some(0));
        assert_eq!(s.left_out_by(b"x/keep.log", false), None);
        assert_eq!(s.left_out_by(b"old/keep.log", false), Some(2));
        assert_eq!(s.left_out_by(b"x/build", true), Some(3));
        assert_eq!(s.left_out_by(b"x/build", false), None);
    }

    #[test]
    fn a_source_and_the_way_to_it_are_never_left_out() {
        let s = selection(&["/srv", "/srv/cache/keep"], &["cache", "srv"]);
        assert_eq!(s.left_out_by(b"srv", true), None);
        assert_eq!(s.left_out_by(b"srv/cache", true), None);
        assert_eq!(s.left_out_by(b"srv/x/cache", true), Some(0));
        assert_eq!(s.steps_to_sources(b""), vec![b"srv".to_vec()]);
        assert_eq!(s.steps_to_sources(b"srv/cache"), vec![b"keep".to_vec()]);
        assert!(s.covers(b"srv/cache/keep/x", false) && !s.covers(b"srv/cache/other", false));
    }

    #[test]
    fn names_that_are_not_utf8_are_matched_too() {
        let s = selection(&["/"], &["*.tmp"]);
        assert_eq!(s.left_out_by(b"a/\xff\n.tmp", false), Some(0));
    }

    #[test]
    fn cover_means_below_a_source_and_under_nothing_left_out() {
        let s = selection(&["/srv"], &["cache", "/srv/x/*.tmp"]);
        assert!(s.covers(b"srv/a/b", false));
        assert!(!s.covers(b"srv/cache/b", false));
        assert!(!s.covers(b"srv/x/1.tmp", false));
        assert!(!s.covers(b"etc/passwd", false));
        assert_eq!(s.standing(b""), Standing::Ancestor);
    }

    #[test]
    fn the_digest_tells_selections_apart_and_not_their_spelling() {
        assert_eq!(selection(&["/a/", "b"], &["x"]).digest(), selection(&["b", "//a"], &["x"]).digest());
        assert_ne!(selection(&["a"], &["x"]).digest(), selection(&["a", "x"], &[]).digest());
        assert_ne!(selection(&["a"], &["x", "y"]).digest(), selection(&["a"], &["y", "x"]).digest());
        let with = |rules: Rules| selection(&["a"], &["x"]).with_rules(rules).unwrap().digest();
        let all = [
            Rules::default(),
            Rules { caches: true, ..Rules::default() },
            Rules { nodump: true, ..Rules::default() },
            Rules { one_file_system: true, ..Rules::default() },
            Rules { larger_than: Some(1), ..Rules::default() },
            Rules { if_present: vec!["x".to_owned()], ..Rules::default() },
        ];
        let digests: BTreeSet<[u8; 32]> = all.iter().map(|rules| with(rules.clone()).0).collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn a_selection_without_rules_has_the_digest_of_before_there_were_any() {
        let digest = coord_shared::hex::encode(&selection(&["/etc", "/srv"], &["*.tmp", "!keep.tmp"]).digest().0);
        assert_eq!(digest, "ef6c777cd24cb71bd1215eb9dd98706a0c94b2c289da1435c6511cb6e8ace02c");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Selection::new(&[], &[]).is_err());
        for bad in ["/a/../b", "./a", "a\0"] {
            assert!(Selection::new(&[bad.as_bytes().to_vec()], &[]).is_err(), "{bad}");
        }
        for bad in ["", "!", "/", "a[", "{a"] {
            assert!(Selection::new(&[vec![]], &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
