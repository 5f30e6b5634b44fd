//! docs/EXACTNESS.md says what comes back, and this run has found the same.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use fleet_tests::exact::{self, Cell, Outcome, document};
use fleet_tests::harness::build::workspace;

/// On the disk that the build is on, since memory file systems lack attributes and flags.
const DISK: &str = env!("CARGO_TARGET_TMPDIR");

#[test]
fn everything_comes_back_as_the_document_says() {
    let scratch = tempfile::tempdir_in(DISK).unwrap();
    let outcomes = exact::run(scratch.path()).unwrap();
    for (row, outcome) in &outcomes {
        match outcome {
            Outcome::LeftOut(why) => eprintln!("left out: {}: {why}", row.title),
            Outcome::Run(cells) if cells.tar == Cell::NotRun => {
                eprintln!("left out: {}: GNU tar, whose commands need root", row.title);
            }
            Outcome::Run(_) => {}
        }
    }
    let committed = std::fs::read_to_string(workspace().join("docs/EXACTNESS.md")).unwrap_or_default();
    let found = document::render(&outcomes, &committed);
    if found != committed {
        std::fs::write(Path::new(DISK).join("EXACTNESS.md"), &found).unwrap();
        panic!(
            "docs/EXACTNESS.md is not what this run has found:\n{}\nwhere these lines are right: \
             cp target/tmp/EXACTNESS.md docs/EXACTNESS.md",
            document::changes(&committed, &found)
        );
    }
}
