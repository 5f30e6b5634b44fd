//! The matrix of what comes back exactly: each kind of thing a file system holds, through each way of backup and restore.
//!
//! Owns that a cell of docs/EXACTNESS.md says what a run has found, good or bad: the rows make and change real files, the
//! engine and stock tar run as programs, and what is there afterwards is read back by `facts`, which shares no code with
//! the product. What a row is stands in `rows`, what is done with it in `ground`, when a cell is good in `judge`.

pub mod document;
pub mod facts;
pub mod ground;
pub mod judge;
pub mod programs;
pub mod rows;

use std::io;
use std::path::Path;

/// Makes or changes the files of one row in its folder.
pub type Act = fn(&Path) -> io::Result<()>;

/// One kind of thing.
#[derive(Clone, Debug)]
pub struct Row {
    /// The table it stands in.
    pub section: &'static str,
    /// What it is.
    pub title: &'static str,
    /// What alone is changed for the differential.
    pub change: &'static str,
    /// Its folder below the source.
    pub folder: &'static str,
    /// The name in its folder that is restored alone.
    pub one: Vec<u8>,
    /// Makes it.
    pub make: Act,
    /// Changes only what the row is about.
    pub alter: Act,
    /// How it is judged.
    pub rule: Rule,
    /// What it shares a source with.
    pub ground: Ground,
}

/// When the cells of a row are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All facts of all names are those of the source.
    Facts,
    /// Sockets are left out and said; all else is as in the source.
    Sockets,
    /// The index has the owners' names; restores go by number.
    OwnerNames,
    /// The source's own folder: its facts, whatever is in it.
    Root,
}

/// Rows of one ground lie in one source and are backed up and restored together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ground {
    /// Most rows.
    Ordinary,
    /// What takes long.
    Large,
    /// What stock tar fails on, so that it cannot stop other rows.
    BeyondTar,
}

/// What a run found out about a row in one respect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// As promised.
    Good(&'static str),
    /// Not so, and in which respects.
    Bad(String),
    /// Not looked at, since who runs the test may not.
    NotRun,
}

impl Cell {
    /// The ordinary good cell.
    pub const YES: Self = Self::Good("yes");
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good(word) => f.write_str(word),
            Self::Bad(why) => write!(f, "**no**: {why}"),
            Self::NotRun => f.write_str("not run"),
        }
    }
}

/// The cells of one row, as the document has them from left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    /// The full alone, restored as a whole.
    pub full: Cell,
    /// What is in the differential, and what is not.
    pub differential: Cell,
    /// Full and differential, restored as a whole.
    pub all: Cell,
    /// Full and differential, one name restored alone.
    pub one: Cell,
    /// Stock GNU tar.
    pub tar: Cell,
}

/// What became of a row.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was run.
    Run(Cells),
    /// It cannot be made here, and why.
    LeftOut(String),
}

/// Runs all rows in folders below `scratch` with archives of one codec. The outcomes are in the order of [`rows::all`].
///
/// # Errors
/// A program cannot be run, or fails on a whole ground.
pub fn run(scratch: &Path, codec: &'static str) -> anyhow::Result<Vec<(Row, Outcome)>> {
    let programs = programs::Programs::find(codec)?;
    let rows = rows::all();
    let found = std::thread::scope(|scope| {
        let grounds = [Ground::Ordinary, Ground::Large, Ground::BeyondTar].map(|kind| {
            let (rows, programs) = (&rows, &programs);
            let of_ground: Vec<Row> = rows.iter().filter(|row| row.ground == kind).cloned().collect();
            scope.spawn(move || ground::run(&scratch.join(format!("{kind:?}")), &of_ground, programs))
        });
        grounds.map(|ground| ground.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let mut outcomes = std::collections::BTreeMap::new();
    for ground in found {
        outcomes.extend(ground?);
    }
    Ok(rows.into_iter().filter_map(|row| outcomes.remove(row.folder).map(|outcome| (row, outcome))).collect())
}
