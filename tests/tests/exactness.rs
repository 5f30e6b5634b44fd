//! docs/EXACTNESS.md says what comes back, and this run has found the same, whatever the codec.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use fleet_tests::exact::{self, Cell, Outcome, Row, document};
use fleet_tests::harness::build::workspace;
use fleet_tests::tree::awkward::is_root;

/// On the disk that the build is on, since memory file systems lack attributes and flags.
const DISK: &str = env!("CARGO_TARGET_TMPDIR");

#[test]
fn everything_comes_back_as_the_document_says() {
    comes_back("zstd");
}

#[test]
fn everything_comes_back_from_gzip_archives_as_the_document_says() {
    comes_back("gzip");
}

fn comes_back(codec: &'static str) {
    let scratch = tempfile::tempdir_in(DISK).unwrap();
    let outcomes = exact::run(scratch.path(), codec).unwrap();
    let left_out = left_out(&outcomes);
    for line in &left_out {
        eprintln!("left out: {line}");
    }
    let committed = std::fs::read_to_string(workspace().join("docs/EXACTNESS.md")).unwrap_or_default();
    let found = document::render(&outcomes, &committed);
    if found != committed {
        std::fs::write(Path::new(DISK).join("EXACTNESS.md"), &found).unwrap();
        panic!(
            "docs/EXACTNESS.md is not what this run has found with {codec}:\n{}\nwhere these lines are right: \
             cp target/tmp/EXACTNESS.md docs/EXACTNESS.md",
            document::changes(&committed, &found)
        );
    }
    let must_prove_all = is_root() && std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!must_prove_all || left_out.is_empty(), "CI proves every row, and these were left out: {left_out:#?}");
}

/// What this run could not look at, and why.
fn left_out(outcomes: &[(Row, Outcome)]) -> Vec<String> {
    let why = |(row, outcome): &(Row, Outcome)| match outcome {
        Outcome::LeftOut(why) => Some(format!("{}: {why}", row.title)),
        Outcome::Run(cells) if cells.tar == Cell::NotRun => {
            Some(format!("{}: GNU tar, whose commands need root", row.title))
        }
        Outcome::Run(_) => None,
    };
    outcomes.iter().filter_map(why).collect()
}
