//! Builds the binaries that a fleet runs, so that a stale one is never used.
//!
//! Through cargo, in the profile of the caller, under a lock: many test processes ask at once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde::Deserialize;

/// What cargo tells a test of its package. To a cargo run by that test it would look like another environment to build in: the
/// build script of `ring` asks for these, and everything above it would be compiled again, there and in the next shell.
const OF_THE_TEST: [&str; 8] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
    "OUT_DIR",
];

/// The programs of the product.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `coordinator`
    pub coordinator: PathBuf,
    /// `coordctl`
    pub coordctl: PathBuf,
    /// `coord-agent`
    pub agent: PathBuf,
}

/// Why the binaries could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The lock file or cargo itself.
    #[error("failed to run cargo in {}", workspace.display())]
    Run {
        /// The workspace's folder.
        workspace: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The compiler said no.
    #[error("cargo build failed; run `cargo build --workspace --bins` to see why")]
    Failed,
    /// Cargo built everything, but one program was not among it.
    #[error("cargo did not report an executable named {0}")]
    Missing(&'static str),
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
}

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Builds (or finds fresh) the product's programs; once per process.
///
/// # Errors
/// See [`BuildError`]; every call of a process that failed once builds again.
pub fn binaries() -> Result<Binaries, BuildError> {
    static BUILT: OnceLock<Binaries> = OnceLock::new();
    if let Some(built) = BUILT.get() {
        return Ok(built.clone());
    }
    let built = build()?;
    Ok(BUILT.get_or_init(|| built).clone())
}

fn build() -> Result<Binaries, BuildError> {
    let run = |source| BuildError::Run { workspace: workspace().to_owned(), source };
    let target = workspace().join("target");
    fs::create_dir_all(&target).map_err(run)?;
    let lock = File::create(target.join("fleet-binaries.lock")).map_err(run)?;
    lock.lock().map_err(run)?;
    let mut command = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    // The whole workspace's features, as `cargo test` has them: another set would compile everything twice.
    command.args(["build", "--workspace", "--bins", "--message-format=json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    for name in OF_THE_TEST {
        command.env_remove(name);
    }
    let output =
        command.current_dir(workspace()).stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(run)?;
    if !output.status.success() {
        return Err(BuildError::Failed);
    }
    let executables: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter_map(|message| message.executable)
        .collect();
    let find = |name: &'static str| {
        executables
            .iter()
            .find(|path| path.file_name().is_some_and(|n| n == name))
            .cloned()
            .ok_or(BuildError::Missing(name))
    };
    Ok(Binaries { coordinator: find("coordinator")?, coordctl: find("coordctl")?, agent: find("coord-agent")? })
}
