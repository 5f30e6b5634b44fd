//! docs/EXACTNESS.md: the text around the matrix, and the matrix as a run has found it.

use std::fmt::Write as _;

use super::{Cell, Cells, Outcome, Row};

/// What comes before the tables.
const BEFORE: &str = "\
# What comes back, exactly

Written by the test that shows it: `cargo test --test exactness` makes every kind of thing below, backs it up, changes that
alone, backs it up again, restores in every way, and compares. No cell of the tables is typed by hand. When the engine
brings back more or less than is said here, the test fails and shows the lines; this takes over what it has found:

```
cp target/tmp/EXACTNESS.md docs/EXACTNESS.md
```

*yes* means that of every name in the row's folder, and of that folder, all of this is as in the source: kind, content, holes, mode,
owner, group, time in nanoseconds, device numbers, link target, extended attributes (ACLs and capabilities are such), inode flags
(immutable, append-only, nodump), and which names are one inode.

| column | what is run |
| --- | --- |
| full | `archive create`, then `archive extract` of the full into an empty folder |
| differential | `archive diff` after only what the second column says was changed: the names of which something changed are in it and no other one is; content is stored only where content, holes or hard links changed |
| all | `archive extract` of full and differential into an empty folder |
| one | the same with `--path`: one name alone, with the folders that lead to it and nothing else |
| GNU tar | what the archives' own RESTORE.txt says, with stock programs only: the full, and the full with its differential. *yes*: tar alone brings all of the full back. *with `attributes.sh`*: the script in the archive has to be run after it |

Every archive is read back and verified, too. All of it is run twice, with zstd and with gzip archives, and every cell holds for both.
Rows that need root, or a file system that has such a thing, are left out elsewhere; the test says which. A run by root with `CI=true`
in its environment fails when it has to leave any out, so that no cell stays here unproven.
";

/// What comes after them.
const AFTER: &str = "
## What does not come back

- Times of access, of change and of birth.
- Sockets: whoever listens makes them anew.
- Inode flags that are the file system's own business (extents, inline data, encryption, verity, case folding, DAX), project numbers, quotas.
- How a file is allocated, its holes apart: shared extents, compression by the file system, reserved space. Of more than 32,768 separate
  ranges of data in one file, the last ones come back as one.
- Security labels that the target itself puts on what is restored stay when the backup has none of that name.
";

/// The heading of each table.
const HEADING: &str = "\
| what | changed alone | full | differential | all | one | GNU tar |
| --- | --- | --- | --- | --- | --- | --- |
";

/// The document. What was left out is taken from the `committed` one.
#[must_use]
pub fn render(outcomes: &[(Row, Outcome)], committed: &str) -> String {
    let mut text = BEFORE.to_owned();
    let mut section = "";
    for (row, outcome) in outcomes {
        if row.section != section {
            section = row.section;
            let _ = write!(text, "\n## {section}\n\n{HEADING}");
        }
        let beginning = format!("| {} | {} | ", row.title, row.change);
        let old = committed.lines().find_map(|line| line.strip_prefix(&beginning));
        match (outcome, old) {
            (Outcome::Run(cells), _) => {
                let _ = writeln!(text, "{beginning}{}", line(cells, old.unwrap_or_default()));
            }
            (Outcome::LeftOut(_), Some(old)) => {
                let _ = writeln!(text, "{beginning}{old}");
            }
            (Outcome::LeftOut(_), None) => {}
        }
    }
    text.push_str(AFTER);
    text
}

/// The rest of a row's line, `old` as it is committed.
fn line(cells: &Cells, old: &str) -> String {
    let Cells { full, differential, all, one, tar } = cells;
    let old: Vec<&str> = old.trim_end_matches(" |").split(" | ").collect();
    let texts =
        [full, differential, all, one, tar].into_iter().enumerate().map(|(at, cell)| match (cell, old.get(at)) {
            (Cell::NotRun, Some(old)) => (*old).to_owned(),
            (cell, _) => cell.to_string(),
        });
    texts.collect::<Vec<_>>().join(" | ") + " |"
}

/// Lines that only one of two texts has, with `-` for the first and `+` for the second.
#[must_use]
pub fn changes(committed: &str, found: &str) -> String {
    let only = |a: &str, b: &str, sign: char| {
        let lines = a.lines().filter(|line| b.lines().all(|other| other != *line));
        lines.map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    only(committed, found, '-') + &only(found, committed, '+')
}
