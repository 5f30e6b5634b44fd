//! House rules that a machine checks: floors, lengths, names, layout. Each rule's reason is in CONTRIBUTING.md or ARCHITECTURE.md.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 70;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["utils.rs", "helpers.rs", "common.rs", "manager.rs", "service.rs", "imp.rs", "types.rs", "misc.rs"];

/// What the top level may hold, besides dotfiles.
const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "agent",
    "clippy.toml",
    "coordinator",
    "deny.toml",
    "deploy",
    "docs",
    "proto",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "shared",
    "tests",
];

/// (folder or file, what it must not name): a lower floor never names a higher one, neighbours do not name each other.
const FLOORS: &[(&str, &[&str])] = &[
    ("shared/src", &["tokio_postgres", "coord_archive", "coordinator::", "coord_agent"]),
    ("shared/archive/src", &["tonic::", "tokio", "coord_shared", "reqwest"]),
    (
        "coordinator/src/domain",
        &[
            "crate::catalog",
            "crate::app",
            "crate::grpc",
            "crate::tasks",
            "crate::sessions",
            "crate::pki",
            "tonic::",
            "tokio",
            "async fn",
        ],
    ),
    (
        "coordinator/src/catalog",
        &["crate::app", "crate::grpc", "crate::tasks", "crate::sessions", "crate::pki", "tonic::"],
    ),
    (
        "coordinator/src/sessions.rs",
        &["crate::app", "crate::grpc", "crate::tasks", "crate::catalog", "tokio_postgres::"],
    ),
    (
        "coordinator/src/relays.rs",
        &["crate::app", "crate::grpc", "crate::tasks", "crate::catalog", "tokio_postgres::", "tonic::"],
    ),
    ("coordinator/src/pki", &["crate::app", "crate::grpc", "crate::tasks", "crate::catalog", "tokio_postgres::"]),
    ("coordinator/src/app", &["crate::grpc", "crate::tasks", "crate::server", "tonic::", "tokio_postgres::"]),
    ("coordinator/src/grpc", &["crate::tasks", "crate::server", "crate::catalog", "tokio_postgres::"]),
    (
        "coordinator/src/web",
        &["crate::grpc", "crate::tasks", "crate::server", "crate::catalog", "tokio_postgres::", "tonic::"],
    ),
    ("coordinator/src/tasks", &["crate::grpc", "crate::server", "crate::catalog", "tokio_postgres::", "tonic::"]),
    ("coordinator/coordctl/src", &["tokio_postgres", "coordinator::"]),
    (
        "agent/src/scan",
        &["crate::engine", "crate::session", "crate::daemon", "crate::journal", "crate::store", "tonic::"],
    ),
    (
        "agent/src/store",
        &["crate::engine", "crate::session", "crate::daemon", "crate::journal", "crate::scan", "tonic::"],
    ),
    (
        "agent/src/journal",
        &["crate::engine", "crate::session", "crate::daemon", "crate::store", "crate::scan", "tonic::"],
    ),
    ("agent/src/session", &["crate::daemon", "crate::scan", "crate::journal"]),
    ("agent/src/engine", &["crate::session", "crate::daemon", "tonic::"]),
];

/// The only places that may name the wire library.
const TONIC_PLACES: &[&str] = &[
    "shared/src/api",
    "shared/src/fault",
    "shared/src/tls",
    "shared/src/telemetry",
    "coordinator/src/grpc",
    "coordinator/src/server",
    "coordinator/coordctl/src/client",
    "coordinator/coordctl/src/connection",
    "agent/src/session",
    "agent/src/join",
    "agent/src/renewal",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every Rust file of the project, relative to its root.
fn rust_files() -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["agent", "coordinator", "shared", "tests"].into_iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(&root).unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "the walk lost its way: {found:?}");
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// A line without its comment; good enough to look for names of modules.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether a path is this place: the file itself, or below the folder, or a file that begins so.
fn is_in(path: &Path, place: &str) -> bool {
    let text = path.to_string_lossy();
    text.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with(".rs"))
}

#[test]
fn no_floor_names_a_higher_one() {
    let mut broken = Vec::new();
    for path in rust_files() {
        for (place, forbidden) in FLOORS.iter().filter(|(place, _)| is_in(&path, place)) {
            for (number, line) in read(&path).lines().enumerate() {
                for name in forbidden.iter().filter(|name| code(line).contains(**name)) {
                    broken.push(format!("{}:{}: {place} must not name {name}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_wire_library_and_the_database_driver_stay_at_their_edges() {
    let mut broken = Vec::new();
    for path in rust_files().into_iter().filter(|path| !path.starts_with("tests")) {
        let text = read(&path);
        let names = |what: &str| text.lines().any(|line| code(line).contains(what));
        let in_tests = path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs");
        // `postgres.rs` is the private server's launcher: it makes the connection settings.
        let sql_place = is_in(&path, "coordinator/src/catalog") || is_in(&path, "coordinator/src/postgres") || in_tests;
        if names("tokio_postgres::") && !sql_place {
            broken.push(format!("{}: names tokio_postgres", path.display()));
        }
        let tonic_place = TONIC_PLACES.iter().any(|place| is_in(&path, place)) || in_tests;
        if names("tonic::") && !tonic_place {
            broken.push(format!("{}: names tonic", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_and_functions_stay_short_enough_to_read() {
    let mut long = Vec::new();
    for path in rust_files() {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > MAX_FILE_LINES {
            long.push(format!("{}: {} lines", path.display(), lines.len()));
        }
        for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            let indent = line.len() - line.trim_start().len();
            let closing = format!("{}}}", " ".repeat(indent));
            let length = lines[start..].iter().position(|line| *line == closing).map_or(0, |end| end + 1);
            if length > MAX_FUNCTION_LINES {
                long.push(format!("{}:{}: {length} lines: {}", path.display(), start + 1, line.trim()));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Whether a formatted line begins a function with a body.
fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        matches!(*word, "pub" | "async" | "const" | "unsafe" | "pub(crate)" | "pub(super)")
            || word.starts_with("pub(in")
    });
    words.next() == Some("fn") && !line.trim_end().ends_with(';')
}

#[test]
fn every_module_says_what_it_is_and_none_is_called_nothing() {
    let mut broken = Vec::new();
    for path in rust_files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if EMPTY_NAMES.contains(&name.as_str()) {
            broken.push(format!("{}: the name says nothing", path.display()));
        }
        if name != "tests.rs" && !read(&path).starts_with("//!") {
            broken.push(format!("{}: does not open with //!", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn nothing_is_left_for_later_or_skipped_in_silence() {
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["#[ig", "nore"].concat(), ["#[al", "low("].concat()];
    // A test that takes minutes, and has a short form that runs with the others, says so.
    let long = [&words[2], " = \"long: "].concat();
    let mut found = Vec::new();
    for path in rust_files() {
        for (number, line) in read(&path).lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str()) && !line.contains(&long)) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
            // In a module of tests, which is indented or a file of its own, `super` is what is tested.
            if !is_file_of_tests(&path) && (line.starts_with("use super::*") || line.starts_with("use crate::*")) {
                found.push(format!("{}:{}: a glob import hides the floors", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Whether all of a file is tests: some, and none set apart in a module.
fn is_file_of_tests(path: &Path) -> bool {
    let text = read(path);
    let has_tests = text.contains("#[test]") || text.contains("#[tokio::test");
    has_tests && !text.contains("#[cfg(test)]") || path.file_name().is_some_and(|name| name == "tests.rs")
}

#[test]
fn sql_is_text_beside_its_function_and_names_its_columns() {
    let mut broken = Vec::new();
    for path in rust_files() {
        let in_catalog = is_in(&path, "coordinator/src/catalog");
        for (number, line) in read(&path).lines().enumerate() {
            if code(line).contains(&["SELECT", "*"].join(" ")) {
                broken.push(format!("{}:{}: a star hides what is read", path.display(), number + 1));
            }
            let statement =
                ["INSERT INTO ", "DELETE FROM ", "UPDATE SET "].iter().any(|word| code(line).contains(word));
            // A test may play a later release, which writes what no code of ours does.
            let in_tests = path.starts_with("tests") || path.starts_with("coordinator/tests");
            if statement && !in_catalog && !in_tests {
                broken.push(format!("{}:{}: SQL outside the catalog", path.display(), number + 1));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_top_level_holds_what_the_layout_names() {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    let listed = if output.status.success() {
        String::from_utf8(output.stdout).unwrap()
    } else {
        // A release tarball has no git: the folder itself is looked at, less what building leaves there.
        let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name != "target").collect::<Vec<_>>().join("\n")
    };
    let names: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.split('/').next()).filter(|name| !name.starts_with('.')).collect();
    assert!(names.contains("Cargo.toml"), "{names:?}");
    let unknown: Vec<_> = names.iter().filter(|name| !TOP_LEVEL.contains(name)).collect();
    assert!(unknown.is_empty(), "not in the layout: {unknown:?}");
}

#[test]
fn packages_take_their_dependencies_from_the_workspace() {
    for package in ["agent", "coordinator", "coordinator/coordctl", "shared", "shared/archive", "tests"] {
        let text = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(|value| value.as_table()) else { continue };
            for (name, value) in table {
                let from_workspace = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(from_workspace, "{package}: {name} must be declared in the workspace");
            }
        }
    }
}

/// The cells of a table's row.
fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_start_matches('|').trim_end_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn every_cell_of_the_safety_table_names_its_guard_and_a_test_that_exists() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let table = text.split("\n## ").find(|section| section.starts_with("Safety table")).unwrap();
    // A cell without a test is an open bug.
    let rows: Vec<Vec<&str>> = table.lines().filter(|line| line.starts_with("| ")).map(cells).collect();
    let (titles, rows) = rows.split_first().unwrap();
    assert!(titles.len() > 8 && rows.len() > 8, "{titles:?}");
    for row in rows.iter().filter(|row| row[0] != "---") {
        assert_eq!(row.len(), titles.len(), "{row:?}");
        for (title, cell) in titles.iter().zip(row).skip(1) {
            let (guard, tests) = cell.split_once(" *").unwrap_or((cell, ""));
            assert!(!guard.is_empty() && tests.contains('_'), "{} × {title}: a guard and its test: {cell}", row[0]);
        }
    }
    // Names stand between single asterisks; bold row titles between two.
    let named: BTreeSet<&str> = table
        .split('*')
        .filter(|part| part.contains('_') && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    let sources: Vec<String> = rust_files().iter().map(|path| read(path)).collect();
    let missing = |name: &&&str| !sources.iter().any(|source| source.contains(&format!("fn {name}(")));
    let missing: Vec<_> = named.iter().filter(missing).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
