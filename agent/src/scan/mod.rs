//! The scan: what is on this host now, and in what it differs from a base.
//!
//! [`Scan::begin`] opens the root and compiles the selection. [`Scan::full`] gives the steps of a full while it walks;
//! [`Scan::compare`] walks, compares with the base full's index and the newest differential's, and gives a list of changes
//! with exact figures. Both feed `coord_archive::pack::pack`, with [`Scan::contents`] as the source of content.
//!
//! Owns one law: absent is not deleted. A tombstone follows only from having read the folder that held the name; whatever
//! could not be read keeps its base state and is flagged. Levels, chains and what becomes of an archive are not here.

mod batches;
pub mod change_list;
pub mod compare;
mod crew;
pub mod error;
pub mod extras;
pub mod folders;
pub mod full;
pub mod identity_cache;
pub mod links;
pub mod look;
mod meet;
pub mod mounts;
pub mod notes;
pub mod owners;
pub mod same;
pub mod selection;
pub mod tree;
pub mod walk;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coord_archive::entry::{Entry, FileTime, cmp_paths};
use coord_archive::header::{Header, Mount, dot_coord_name};
use coord_archive::pack::Source;
use coord_archive::progress::Progress;
use coord_archive::reader::ArchiveReader;
use coord_archive::rules::Rules;
use jiff::Timestamp;

pub use compare::{Against, Comparison, Figures};
pub use error::ScanError;
pub use full::FullSteps;
pub use notes::{Notes, RuleCount, SharedNotes, Warning};
pub use selection::{Selection, SelectionError};

use links::Inode;
use look::{Extras, WalkPlan};
use mounts::{Mounts, absolute};
use owners::Owners;
use tree::{Clear, Lens, Tree};
use walk::Walk;

/// How long before the scan's start a change time is old enough to be trusted, in seconds: clocks of file systems are
/// coarse, and two changes may bear one time.
pub const RACY_SECONDS: i64 = 2;

/// What to scan.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// The root that all names are relative to; `/` for a real host.
    pub root: PathBuf,
    /// Protected paths, absolute or relative to the root.
    pub sources: Vec<Vec<u8>>,
    /// Exclude patterns, see [`selection`].
    pub excludes: Vec<String>,
    /// What else is left out.
    pub rules: Rules,
    /// The agent's own state, journal and archive folders (paths of this process, not below the root): left out.
    pub own: Vec<PathBuf>,
    /// The mounts of the job's newest backup, out of its header; empty when there is none, or when an operator asked for a
    /// full in spite of what is mounted.
    pub expected_mounts: Vec<Mount>,
    /// When the scan begins, by the host's clock.
    pub started_at: Timestamp,
}

impl ScanRequest {
    /// A request for `sources` below `root` with nothing left out and nothing expected.
    #[must_use]
    pub fn new(root: &Path, sources: Vec<Vec<u8>>, started_at: Timestamp) -> Self {
        Self {
            root: root.to_path_buf(),
            sources,
            excludes: Vec::new(),
            rules: Rules::default(),
            own: Vec::new(),
            expected_mounts: Vec::new(),
            started_at,
        }
    }
}

/// One scan of one selection.
#[derive(Debug)]
pub struct Scan {
    tree: Arc<Tree>,
    selection: Arc<Selection>,
    mounts: Arc<Mounts>,
    owners: Arc<Owners>,
    own: HashSet<Inode>,
    expected_mounts: Arc<Vec<Mount>>,
    started_at: Timestamp,
    notes: SharedNotes,
}

impl Scan {
    /// Opens the root and makes ready.
    ///
    /// # Errors
    /// The root cannot be opened, or the selection makes no sense.
    pub fn begin(request: &ScanRequest) -> Result<Self, ScanError> {
        Self::begin_through(request, Box::new(Clear))
    }

    /// As [`Scan::begin`], with a lens between the scan and the system.
    ///
    /// # Errors
    /// As [`Scan::begin`].
    pub fn begin_through(request: &ScanRequest, lens: Box<dyn Lens>) -> Result<Self, ScanError> {
        let selection = Selection::new(&request.sources, &request.excludes)
            .and_then(|selection| selection.with_rules(request.rules.clone()))
            .map_err(ScanError::Selection)?;
        let opened = Tree::open_through(&request.root, lens);
        let tree = opened.map_err(|source| ScanError::Root { path: request.root.clone(), source })?;
        let mut expected_mounts = request.expected_mounts.clone();
        // Nothing is expected of file systems that are not entered.
        expected_mounts.retain(|mount| !request.rules.one_file_system || selection.is_source(&mount.path));
        expected_mounts.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self {
            owners: Arc::new(Owners::of(&tree)),
            tree: Arc::new(tree),
            mounts: Arc::new(Mounts::read()),
            own: request.own.iter().filter_map(|path| inode_of(path)).collect(),
            expected_mounts: Arc::new(expected_mounts),
            started_at: request.started_at,
            notes: SharedNotes::new(&selection),
            selection: Arc::new(selection),
        })
    }

    /// Leaves out one more file of our own: the archive that is being written, say.
    pub fn leave_out(&mut self, own: &fs::File) {
        if let Ok(facts) = own.metadata() {
            self.own.insert(inode(&facts));
        }
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The compiled selection.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// What the scan has to tell; complete when its steps, or its comparison, are.
    #[must_use]
    pub fn notes(&self) -> Notes {
        self.notes.snapshot()
    }

    /// The file systems of the sources and those mounted below them that are entered, for the header. In path order.
    ///
    /// # Errors
    /// [`ScanError::SourceMissing`] or [`ScanError::SourceUnreadable`].
    pub fn mounts(&self) -> Result<Vec<Mount>, ScanError> {
        let mut mounts = match self.selection.rules().one_file_system {
            true => Vec::new(),
            false => self.mounts.below(self.tree.path(), self.selection.sources()),
        };
        for source in self.selection.sources() {
            let failed = |error: std::io::Error| {
                let path = source.clone();
                if error.kind() == std::io::ErrorKind::NotFound {
                    ScanError::SourceMissing { path }
                } else {
                    ScanError::SourceUnreadable { path, source: error }
                }
            };
            let stat = self.tree.stat(source).map_err(failed)?;
            // A source that is a file lies on the file system of its folder, bind mounts aside.
            let folder = self.tree.folder(source).or_else(|_| Ok(self.tree.locate(source)?.0)).map_err(failed)?;
            let file_system = self.mounts.of(stat.mount, folder.as_fd());
            mounts.retain(|mount| mount.path != *source);
            let mut mount = file_system.mounted_at(source);
            if let Some((mount_point, place)) = self.mounts.place_of(stat.mount, &absolute(self.tree.path(), source)) {
                (mount.mount_point, mount.place) = (mount_point, place);
            }
            mounts.push(mount);
        }
        mounts.sort_by(|a, b| cmp_paths(&a.path, &b.path));
        Ok(mounts)
    }

    /// Fills what the scan knows into the header of an archive: root, sources, patterns, rules and their digest, mounts, the number
    /// of our own folder in it, the start of the scan. For a differential give its base, and call it after the comparison.
    ///
    /// # Errors
    /// As [`Scan::mounts`]; the base's index cannot be read.
    pub fn describe(&self, header: &mut Header, base: Option<&ArchiveReader>) -> Result<(), ScanError> {
        header.root = self.tree.path().as_os_str().as_bytes().to_vec();
        header.sources = self.selection.sources().to_vec();
        header.excludes = self.selection.patterns().to_vec();
        header.rules = self.selection.rules().clone();
        header.selection = self.selection.digest();
        header.mounts = self.mounts()?;
        // A mount that is lost stays expected, until a full is made without it.
        for lost in self.notes.lock().lost_mounts.iter().filter(|_| base.is_some()) {
            header.mounts.extend(self.expected_mounts.iter().filter(|mount| mount.path == *lost).cloned());
        }
        header.mounts.sort_by(|a, b| cmp_paths(&a.path, &b.path));
        header.dot_coord = self.free_dot_coord(base)?;
        header.scan_started_at = self.started_at;
        Ok(())
    }

    /// The lowest number of our own folder that neither the tree nor the base has a name of its own for.
    fn free_dot_coord(&self, base: Option<&ArchiveReader>) -> Result<u32, ScanError> {
        let mut number = 0;
        loop {
            let name = dot_coord_name(number);
            let in_tree = self.tree.stat(name.as_bytes()).is_ok();
            let in_base = match base {
                Some(base) => {
                    let found = base.find(name.as_bytes());
                    found.map_err(|source| ScanError::Index { which: "the base", source })?.is_some()
                }
                None => false,
            };
            if !in_tree && !in_base {
                return Ok(number);
            }
            number += 1;
        }
    }

    /// Where the packer reads content from. A differential also needs its base, for the names that cannot be read any more.
    #[must_use]
    pub fn contents<'a>(&'a self, base: Option<&'a ArchiveReader>) -> Contents<'a> {
        Contents { scan: self, base }
    }

    /// The steps of a full. The walk happens as they are taken; call it once.
    #[must_use]
    pub fn full(&self) -> FullSteps {
        FullSteps::new(self.walk(Extras::Now), self.notes.clone())
    }

    /// The names that a backup would take, as lstat sees them: what is in them is not read. Call it once.
    #[must_use]
    pub fn look(&self) -> Walk {
        self.walk(Extras::Later)
    }

    /// Walks and compares; call it once.
    ///
    /// # Errors
    /// A source is missing, unreadable or on another file system; an index cannot be read; the scratch folder is full;
    /// cancelled.
    pub fn compare(&self, against: &Against<'_>, progress: &dyn Progress) -> Result<Comparison, ScanError> {
        compare::compare(self.walk(Extras::Later), &self.tree, &self.notes, against, progress)
    }

    fn walk(&self, extras: Extras) -> Walk {
        let started = self.started_at;
        let racy_from = FileTime {
            seconds: started.as_second() - RACY_SECONDS,
            nanos: u32::try_from(started.subsec_nanosecond()).unwrap_or(0),
        };
        Walk::new(WalkPlan {
            tree: Arc::clone(&self.tree),
            selection: Arc::clone(&self.selection),
            mounts: Arc::clone(&self.mounts),
            owners: Arc::clone(&self.owners),
            own: self.own.clone(),
            expected_mounts: Arc::clone(&self.expected_mounts),
            racy_from,
            notes: self.notes.clone(),
            extras,
        })
    }
}

/// Where the packer reads content from.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    scan: &'a Scan,
    base: Option<&'a ArchiveReader>,
}

impl Source for Contents<'_> {
    fn open(&self, path: &[u8]) -> io::Result<fs::File> {
        self.scan.tree.open_any(path)
    }

    fn complete(&self, file: &fs::File, entry: &mut Entry) {
        extras::load_open(&self.scan.tree, file.as_fd(), entry, &self.scan.notes);
    }

    fn base(&self) -> Option<&ArchiveReader> {
        self.base
    }
}

/// Device and inode of a path of this process; `None` if there is nothing there, which then needs no leaving out.
fn inode_of(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().map(|facts| inode(&facts))
}

fn inode(facts: &fs::Metadata) -> Inode {
    ((rustix::fs::major(facts.dev()), rustix::fs::minor(facts.dev())), facts.ino())
}
