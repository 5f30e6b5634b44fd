//! One source with the files of many rows: made, backed up, changed, backed up against the full, restored in every way.
//!
//! Rows share a source so that a hundred of them take seconds. Each has a folder of its own and is judged by that alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::facts::{self, Tree};
use super::judge;
use super::programs::{Listed, Programs, recipe, shell};
use super::{Ground, Outcome, Row, Rule};
use crate::tree::awkward::is_root;

/// What is in the source, and what each way has brought back.
#[derive(Debug)]
pub struct Found {
    /// The source at the full.
    pub before: Tree,
    /// The source at the differential.
    pub after: Tree,
    /// What was said while packing, of the full and of the differential.
    pub said: [String; 2],
    /// The index of the differential.
    pub changes: Vec<Listed>,
    /// The index of the full, where a row asks for it.
    pub owned: Vec<Listed>,
    /// The full alone, restored.
    pub full: Tree,
    /// Both, restored.
    pub all: Tree,
    /// By stock programs, or why they could not; nothing when they were not asked.
    pub stock: Option<Result<Stock, String>>,
}

/// What stock programs bring back.
#[derive(Debug)]
pub struct Stock {
    /// The full, by tar alone.
    pub alone: Tree,
    /// The full, by all commands of its RESTORE.txt.
    pub full: Tree,
    /// The differential on its full, by all commands of its RESTORE.txt.
    pub all: Tree,
}

/// Where everything lies.
struct Yard<'a> {
    folder: &'a Path,
    programs: &'a Programs,
}

/// Runs these rows in the new folder `folder`.
///
/// # Errors
/// Something fails for all of them.
pub fn run(folder: &Path, rows: &[Row], programs: &Programs) -> anyhow::Result<BTreeMap<&'static str, Outcome>> {
    fs::create_dir(folder)?;
    let yard = Yard { folder, programs };
    let _removable = Removable(folder, rows.iter().all(|row| row.ground == Ground::Ordinary));
    let mut outcomes = BTreeMap::new();
    let mut made = yard.act(rows, |row| row.make, &mut outcomes)?;
    let before = facts::read(&yard.at("source"))?;
    let [full, differential] = ["full", "differential"].map(|name| yard.at(name));
    let first = programs.pack(&yard.at("source"), None, &full)?;
    made = yard.act(&made, |row| row.alter, &mut outcomes)?;
    let after = facts::read(&yard.at("source"))?;
    let second = programs.pack(&yard.at("source"), Some(&full), &differential)?;
    let found = Found {
        before,
        after,
        said: [first, second],
        changes: programs.list(&differential)?,
        owned: if made.iter().any(|row| row.rule == Rule::OwnerNames) { programs.list(&full)? } else { Vec::new() },
        full: yard.restore(&[&full], "restored-full")?,
        all: yard.restore(&[&full, &differential], "restored-all")?,
        // The commands set owners.
        stock: if is_root() { Some(yard.stock(&full, &differential)?) } else { None },
    };
    fs::create_dir(yard.at("alone"))?;
    for row in &made {
        let one = yard.one(row, &[&full, &differential])?;
        outcomes.insert(row.folder, Outcome::Run(judge::cells(row, &found, one.as_ref())));
    }
    Ok(outcomes)
}

impl Yard<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Lets each row make or change its files. What this machine refuses is left out; the others are given back.
    fn act(
        &self,
        rows: &[Row],
        which: impl Fn(&Row) -> super::Act,
        outcomes: &mut BTreeMap<&'static str, Outcome>,
    ) -> anyhow::Result<Vec<Row>> {
        let mut done = Vec::new();
        for row in rows {
            let folder = self.at("source").join(row.folder);
            fs::create_dir_all(&folder)?;
            match which(row)(&folder) {
                Ok(()) => done.push(row.clone()),
                Err(error) if is_refusal(&error) => {
                    outcomes.insert(row.folder, Outcome::LeftOut(error.to_string()));
                    if row.rule != Rule::Root {
                        fs::remove_dir_all(&folder)?;
                    }
                }
                Err(error) => return Err(error).with_context(|| format!("the files of '{}'", row.title)),
            }
        }
        Ok(done)
    }

    fn restore(&self, archives: &[&Path], target: &str) -> anyhow::Result<Tree> {
        self.programs.extract(archives, &self.at(target), None)?;
        Ok(facts::read(&self.at(target))?)
    }

    /// One name of a row restored alone; `None` when the backup says that it does not have it.
    fn one(&self, row: &Row, archives: &[&Path]) -> anyhow::Result<Option<Tree>> {
        if row.rule == Rule::Root {
            return Ok(None);
        }
        let target = self.at("alone").join(row.folder);
        let is_there = self.programs.extract(archives, &target, Some(&judge::one(row)))?;
        Ok(if is_there { Some(facts::read(&target)?) } else { None })
    }

    fn stock(&self, full: &Path, differential: &Path) -> anyhow::Result<Result<Stock, String>> {
        let [one, two] = ["stock-full", "stock-all"].map(|name| self.at(name));
        fs::create_dir(&one)?;
        fs::create_dir(&two)?;
        let mut lines = recipe(full, &one)?;
        let script = lines.pop().context("the recipe has no lines")?;
        if let Err(said) = shell(&lines, self.folder)? {
            return Ok(Err(said));
        }
        let alone = facts::read(&one)?;
        if let Err(said) = shell(&[script], &one)? {
            return Ok(Err(said));
        }
        if let Err(said) = shell(&recipe(differential, &two)?, self.folder)? {
            return Ok(Err(said));
        }
        Ok(Ok(Stock { alone, full: facts::read(&one)?, all: facts::read(&two)? }))
    }
}

/// Whether a file system or kernel says that this user cannot have such a thing here.
fn is_refusal(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    // INVAL: a number that the user's own name space does not have.
    matches!(errno, Some(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL))
}

/// A folder that can be removed when this ends, whatever is in it.
struct Removable<'a>(&'a Path, bool);

impl Drop for Removable<'_> {
    fn drop(&mut self) {
        if self.1
            && let Err(error) = facts::release(self.0)
        {
            eprintln!("{} keeps its inode flags: {error}", self.0.display());
        }
    }
}
