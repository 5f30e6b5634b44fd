//! The examples of docs/SELECTION.md: each is made as a tree, scanned, and compared line by line.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use coord_agent::scan::Scan;
use coord_archive::entry::Flags;
use coord_archive::pack::Step;
use coord_archive::rules::Rules;
use serde::Deserialize;

use crate::rules::{SIGNATURE, set_nodump};
use crate::support::{Bench, long_after};

/// The keys of a policy that an example may have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    exclude_caches: bool,
    #[serde(default)]
    exclude_if_present: Vec<String>,
    #[serde(default)]
    exclude_nodump: bool,
    exclude_larger_than: Option<String>,
}

/// A line of an example: whether the path is taken, the path without slashes at its ends, whether it is a folder, and what else is said
/// of it.
struct Line<'a> {
    is_taken: bool,
    path: &'a str,
    is_folder: bool,
    remark: &'a str,
}

fn line(text: &str) -> Line<'_> {
    let (is_taken, rest) = match (text.strip_prefix("taken "), text.strip_prefix("left out ")) {
        (Some(rest), None) => (true, rest.trim()),
        (None, Some(rest)) => (false, rest.trim()),
        _ => panic!("{text:?} is neither taken nor left out"),
    };
    let (path, remark) = rest.split_once("  (").unwrap_or((rest, ")"));
    let remark = remark.strip_suffix(')').unwrap();
    Line {
        is_taken,
        path: path.strip_prefix('/').unwrap().trim_end_matches('/'),
        is_folder: path.ends_with('/'),
        remark,
    }
}

/// Makes what a line names. False when this file system cannot hold it, which was said.
fn make(at: &Path, line: &Line<'_>) -> bool {
    let folder = if line.is_folder { at } else { at.parent().unwrap() };
    fs::create_dir_all(folder).unwrap();
    if !line.is_folder {
        let file = File::create(at).unwrap();
        if let Some(bytes) = line.remark.strip_suffix(" bytes") {
            file.set_len(bytes.parse().unwrap()).unwrap();
        }
    }
    match line.remark {
        "with the signature" => fs::write(at, SIGNATURE).unwrap(),
        "chattr +d" => return set_nodump(at),
        other => assert!(other.is_empty() || other.ends_with(" bytes"), "{other:?} means nothing"),
    }
    true
}

/// What a scan takes below its source, as the example writes paths.
fn taken(bench: &Bench) -> BTreeSet<String> {
    let scan = Scan::begin(&bench.request(long_after())).unwrap();
    let items = scan.full().map(|step| match step.unwrap() {
        Step::Item(item) => item.entry,
        other => panic!("a full has items only: {other:?}"),
    });
    let below = items.filter(|entry| !entry.flags.contains(Flags::ANCESTOR));
    below.map(|entry| String::from_utf8(entry.path).unwrap()).collect()
}

fn run(example: &str) {
    let (keys, lines) = example.split_once("\n\n").unwrap();
    let keys: Keys = toml::from_str(keys).unwrap();
    let lines: Vec<Line<'_>> = lines.lines().map(line).collect();
    let mut bench = Bench::new();
    bench.sources = vec![b"/srv".to_vec()];
    bench.excludes = keys.exclude;
    bench.rules = Rules {
        caches: keys.exclude_caches,
        if_present: keys.exclude_if_present,
        nodump: keys.exclude_nodump,
        larger_than: keys.exclude_larger_than.map(|size| coord_shared::size::parse(&size).unwrap()),
        ..Rules::default()
    };
    if !lines.iter().all(|line| make(&bench.at(line.path), line)) {
        return;
    }
    let mut found = taken(&bench);
    for line in &lines {
        assert_eq!(found.contains(line.path), line.is_taken, "/{} in\n{example}", line.path);
    }
    // Whatever else was taken is a folder on the way to something that the example names.
    found.retain(|path| !lines.iter().any(|line| line.path == path || line.path.starts_with(&format!("{path}/"))));
    assert!(found.is_empty(), "{found:?} in\n{example}");
}

#[test]
fn every_example_of_the_document_on_selection_is_true() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SELECTION.md");
    let document = fs::read_to_string(document).unwrap();
    let examples: Vec<&str> =
        document.split("```selection\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(examples.len() >= 12, "{} examples were found", examples.len());
    examples.into_iter().for_each(run);
}
