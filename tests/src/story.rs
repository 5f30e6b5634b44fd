//! What the stories share: a fleet with one host over a tree of its own, in words of the domain.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::fleet::{Answer, Fleet};
use crate::harness::postgres::Database;
use crate::tree::compare::{Difference, Tolerance, compare_trees};

/// A fleet with one host, `web-1`, whose `/srv` is protected by the policy `srv`.
#[derive(Debug)]
pub struct OneHost {
    /// The fleet; more hosts may be added.
    pub fleet: Fleet,
    /// The protected folder as this machine sees it.
    pub source: PathBuf,
    root: PathBuf,
    scratch: TempDir,
}

/// The policy of [`OneHost`]; without the default excludes, so that everything has to come back.
pub const SRV_POLICY: &str = r#"
name = "srv"
hosts = "role=web"
sources = ["/srv"]
exclude = []
schedule = { cron = "0 2 1 1 *", zone = "UTC" }
"#;

impl OneHost {
    /// Starts coordinator and agent, and applies the policy.
    ///
    /// # Errors
    /// The words of whatever did not work.
    pub fn start() -> Result<Self, String> {
        Self::start_on(Database::obtain()?)
    }

    /// The same on the coordinator's private PostgreSQL, which a test may kill.
    ///
    /// # Errors
    /// The words of whatever did not work.
    pub fn start_on_private_database() -> Result<Self, String> {
        Self::start_on(Database::Private)
    }

    fn start_on(database: Database) -> Result<Self, String> {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let root = scratch.path().join("root");
        let source = root.join("srv");
        std::fs::create_dir_all(&source).map_err(|error| error.to_string())?;
        let mut fleet = Fleet::start(&scratch.path().join("fleet"), database)?;
        fleet.add_host("web-1", &root, "role=web")?;
        fleet.apply_policy(SRV_POLICY)?.success()?;
        Ok(Self { fleet, source, root, scratch })
    }

    /// Takes a backup at the level the engine chooses; the run.
    ///
    /// # Errors
    /// It did not succeed.
    pub fn back_up(&self) -> Result<Value, String> {
        self.fleet.backup("web-1", "srv", None)
    }

    /// Restores the host into an empty folder and gives what differs from `expected`, a copy or state of the source.
    ///
    /// # Errors
    /// The restore did not succeed.
    pub fn restored_differs_from(&self, expected: &Path, at: Option<&str>) -> Result<Vec<Difference>, String> {
        let name = format!("restored-{}", uuid::Uuid::new_v4().simple());
        let seen_by_host = format!("/{name}");
        let target = self.root.join(&name);
        std::fs::create_dir(&target).map_err(|error| error.to_string())?;
        let mut arguments = vec!["restore", "web-1", "--to-dir", &seen_by_host, "--wait"];
        arguments.extend(at.iter().flat_map(|at| ["--at", *at]));
        self.fleet.coordctl(&arguments)?.success()?;
        compare_trees(expected, &target.join("srv"), Tolerance::default()).map_err(|error| error.to_string())
    }

    /// A folder beside the fleet's for whatever a story keeps.
    #[must_use]
    pub fn beside(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The host's root as this machine sees it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Runs coordctl.
    ///
    /// # Errors
    /// It could not be started.
    pub fn coordctl(&self, arguments: &[&str]) -> Result<Answer, String> {
        self.fleet.coordctl(arguments)
    }
}

/// An exact copy of a tree.
///
/// # Errors
/// `cp -a` failed.
pub fn keep(from: &Path, to: &Path) -> Result<(), String> {
    crate::demo::keep(from, to)
}
