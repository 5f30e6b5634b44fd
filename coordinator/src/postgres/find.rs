//! Finds PostgreSQL's server programs on this machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian and its kin keep the programs of each version, out of PATH.
const VERSIONS_FOLDER: &str = "/usr/lib/postgresql";

/// The programs of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Makes a data folder.
    pub initdb: PathBuf,
    /// The server.
    pub postgres: PathBuf,
}

/// The programs in PATH, else those of the newest version under `/usr/lib/postgresql`.
#[must_use]
pub fn find_programs() -> Option<Programs> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find_map(|folder| programs_in(&folder));
    in_path.or_else(|| newest_in(Path::new(VERSIONS_FOLDER)))
}

fn programs_in(folder: &Path) -> Option<Programs> {
    // A wrapper in PATH may be a link into the folder that has both.
    let initdb = fs::canonicalize(folder.join("initdb")).ok()?;
    let postgres = initdb.with_file_name("postgres");
    postgres.is_file().then_some(Programs { initdb, postgres })
}

fn newest_in(versions: &Path) -> Option<Programs> {
    let mut found: Vec<(u32, Programs)> = fs::read_dir(versions)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, programs_in(&entry.path().join("bin"))?))
        })
        .collect();
    found.sort_by_key(|(version, _)| *version);
    found.pop().map(|(_, programs)| programs)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::newest_in;
    use std::fs;

    #[test]
    fn the_newest_complete_version_is_taken() {
        let scratch = tempfile::tempdir().unwrap();
        for (version, files) in
            [("9", vec!["initdb", "postgres"]), ("15", vec!["initdb", "postgres"]), ("17", vec!["psql"])]
        {
            let bin = scratch.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            for file in files {
                fs::write(bin.join(file), "").unwrap();
            }
        }
        let found = newest_in(scratch.path()).unwrap();
        assert!(found.postgres.ends_with("15/bin/postgres"), "{found:?}");
        assert_eq!(newest_in(&scratch.path().join("none")), None);
    }
}
