//! What a scan has to tell besides entries: warnings, what was left out and why, and counts. Bounded lists, exact counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coord_archive::rules::Mark;
use coord_shared::left_out::LeftOutBy;

use super::selection::Selection;

/// Most warnings, and most left-out names, that are listed; the counts go on.
pub const MAX_LISTED: usize = 1000;

/// The rules of which a scan has one each.
const SINGLE: [LeftOutBy; 7] = [
    LeftOutBy::Cache,
    LeftOutBy::Nodump,
    LeftOutBy::OtherFileSystem,
    LeftOutBy::LargerThan,
    LeftOutBy::KernelFileSystem,
    LeftOutBy::Own,
    LeftOutBy::Socket,
];

/// A name that could not be read as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The name, relative to the root.
    pub path: Vec<u8>,
    /// What happened, as a lowercase fragment.
    pub reason: String,
}

/// A rule of one scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The pattern with this number.
    Pattern(usize),
    /// What marks a folder.
    Mark(Mark),
    /// Any other.
    Other(LeftOutBy),
}

/// Something that is left out. A folder counts once: it is not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Bytes of a regular file; 0 for anything else.
    pub bytes: u64,
}

/// What one rule left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    /// The kind of rule.
    pub by: LeftOutBy,
    /// The pattern, the marker's name, the largest size in bytes; empty for rules of which there is only one.
    pub text: String,
    /// Names left out that are no folders.
    pub files: u64,
    /// Folders left out; what is in them was not looked at and is not counted.
    pub folders: u64,
    /// Bytes of the regular files among them.
    pub bytes: u64,
}

/// Everything a scan has to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The first [`MAX_LISTED`] warnings.
    pub warnings: Vec<Warning>,
    /// How many there were.
    pub warning_count: u64,
    /// The first [`MAX_LISTED`] names left out because of what or where they are, whatever the selection says of their names.
    pub left_out: Vec<(Vec<u8>, LeftOutBy)>,
    /// How many there were.
    pub left_out_count: u64,
    /// What every rule left out: patterns in their order, markers in theirs, then the rules of which there is one.
    pub rules: Vec<RuleCount>,
    /// How many patterns there are.
    patterns: usize,
    /// How many markers there are.
    markers: usize,
    /// Names that were gone between listing and looking.
    pub vanished: u64,
    /// Regular files seen.
    pub source_files: u64,
    /// Their bytes, each inode once for each of its names.
    pub source_bytes: u64,
    /// Names seen, of any kind.
    pub source_entries: u64,
    /// Mount points of the newest backup that are plain folders now: what was below keeps its state.
    pub lost_mounts: Vec<Vec<u8>>,
}

impl Notes {
    /// Adds a warning.
    pub fn warn(&mut self, path: &[u8], reason: impl Into<String>) {
        self.warning_count += 1;
        if self.warnings.len() < MAX_LISTED {
            self.warnings.push(Warning { path: path.to_vec(), reason: reason.into() });
        }
    }

    /// Counts what a rule leaves out, and lists it where nobody asked for that by name.
    pub fn leave_out(&mut self, path: &[u8], rule: Rule, what: Weight) {
        let slot = match rule {
            Rule::Pattern(number) => number,
            Rule::Mark(Mark::Present(number)) => self.patterns + number,
            Rule::Mark(Mark::Cache) => self.slot_of(LeftOutBy::Cache),
            Rule::Other(by) => self.slot_of(by),
        };
        if let Some(count) = self.rules.get_mut(slot) {
            count.files += u64::from(!what.is_folder);
            count.folders += u64::from(what.is_folder);
            count.bytes += what.bytes;
        }
        let Rule::Other(by) = rule else { return };
        if !is_listed(by) {
            return;
        }
        self.left_out_count += 1;
        if self.left_out.len() < MAX_LISTED {
            self.left_out.push((path.to_vec(), by));
        }
    }

    /// The rules that left out something.
    pub fn counts(&self) -> impl Iterator<Item = &RuleCount> {
        self.rules.iter().filter(|count| count.files + count.folders > 0)
    }

    fn slot_of(&self, by: LeftOutBy) -> usize {
        let place = SINGLE.iter().position(|single| *single == by).unwrap_or(SINGLE.len());
        self.patterns + self.markers + place
    }
}

/// Whether names left out by a rule are listed: few names are, and nobody named them.
const fn is_listed(by: LeftOutBy) -> bool {
    match by {
        LeftOutBy::KernelFileSystem | LeftOutBy::OtherFileSystem | LeftOutBy::Own | LeftOutBy::Socket => true,
        LeftOutBy::Pattern | LeftOutBy::IfPresent | LeftOutBy::Cache | LeftOutBy::Nodump | LeftOutBy::LargerThan => {
            false
        }
    }
}

fn slots(selection: &Selection) -> Vec<RuleCount> {
    let rules = selection.rules();
    let slot = |by, text: &str| RuleCount { by, text: text.to_owned(), files: 0, folders: 0, bytes: 0 };
    let patterns = selection.patterns().iter().map(|pattern| slot(LeftOutBy::Pattern, pattern));
    let markers = rules.if_present.iter().map(|name| slot(LeftOutBy::IfPresent, name));
    let largest = rules.larger_than.map(|bytes| bytes.to_string()).unwrap_or_default();
    let single = SINGLE.iter().map(|by| slot(*by, if *by == LeftOutBy::LargerThan { &largest } else { "" }));
    patterns.chain(markers).chain(single).collect()
}

/// Notes that the scan goes on writing while somebody else holds its steps.
#[derive(Clone, Debug, Default)]
pub struct SharedNotes(Arc<Mutex<Notes>>);

impl SharedNotes {
    /// Notes for a scan of this selection. There is a counter for each rule from the beginning, so that counting is adding.
    #[must_use]
    pub fn new(selection: &Selection) -> Self {
        let (patterns, markers) = (selection.patterns().len(), selection.rules().if_present.len());
        Self(Arc::new(Mutex::new(Notes { rules: slots(selection), patterns, markers, ..Notes::default() })))
    }

    /// The notes, to write to.
    pub fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The notes so far.
    #[must_use]
    pub fn snapshot(&self) -> Notes {
        self.lock().clone()
    }
}
