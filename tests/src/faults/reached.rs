//! Which named points the programs of a fleet have passed: a fault that was never met proves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use coord_shared::failpoint;

/// The file in which all programs of a fleet note the points they pass.
#[derive(Debug, Clone)]
pub struct Reached {
    file: PathBuf,
}

impl Reached {
    /// Notes into `folder`.
    #[must_use]
    pub fn below(folder: &Path) -> Reached {
        Reached { file: folder.join("points-reached") }
    }

    /// The file, for the programs' environment.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The points passed so far.
    #[must_use]
    pub fn points(&self) -> BTreeSet<String> {
        self.lines().into_iter().filter(|line| !line.contains(' ')).collect()
    }

    /// How often a program was killed at `point`.
    #[must_use]
    pub fn kills(&self, point: &str) -> usize {
        self.actions(&format!("{point} kill"))
    }

    /// How often a planned action happened, such as `agent.verified pause`.
    #[must_use]
    pub fn actions(&self, what: &str) -> usize {
        self.lines().iter().filter(|line| *line == what).count()
    }

    /// Whether it happened.
    #[must_use]
    pub fn acted(&self, what: &str) -> bool {
        self.actions(what) > 0
    }

    fn lines(&self) -> Vec<String> {
        // There is none before the first point.
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// The points of a program, `agent` or `coordinator`.
#[must_use]
pub fn points_of(program: &str) -> Vec<&'static str> {
    let of = |name: &&'static str| name.strip_prefix(program).is_some_and(|rest| rest.starts_with('.'));
    failpoint::POINTS.iter().map(|(name, _)| *name).filter(of).collect()
}
