//! When a cell is good: what was brought back has every fact of the source, and the differential has nothing else in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustix::fs::FileType;

use super::facts::{Facts, Tree};
use super::ground::Found;
use super::programs::Listed;
use super::rows::{NAMED, NAMES};
use super::{Cell, Cells, Row, Rule};

/// What is wrong, in words, each with a path that shows it.
type Complaints = BTreeMap<&'static str, Vec<u8>>;

/// The part of a tree that a row is about.
type Part<'a> = BTreeMap<&'a [u8], &'a Facts>;

/// The cells of a row. `one` is what was restored alone; `None` when the backup does not have it.
#[must_use]
pub fn cells(row: &Row, found: &Found, one: Option<&Tree>) -> Cells {
    let (before, after) = (of_row(row, &found.before), of_row(row, &found.after));
    let cells = Cells {
        full: whole(row, "full", &before, &found.full),
        differential: cell(row, "differential", &differential(row, found, &before, &after)),
        all: whole(row, "all", &after, &found.all),
        one: match row.rule {
            Rule::Facts | Rule::OwnerNames => alone(row, &after, one),
            Rule::Sockets | Rule::Root => Cell::Good("-"),
        },
        tar: stock(row, found, &before, &after),
    };
    match row.rule {
        Rule::Facts | Rule::Root => cells,
        Rule::Sockets => sockets(row, found, cells, one.is_none()),
        Rule::OwnerNames => owner_names(row, found, cells),
    }
}

/// The path that is restored alone.
#[must_use]
pub fn one(row: &Row) -> Vec<u8> {
    [row.folder.as_bytes(), b"/", &row.one].concat()
}

fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// What of a tree belongs to a row. Sockets do not: they are judged by what is said.
fn of_row<'a>(row: &Row, tree: &'a Tree) -> Part<'a> {
    let is_ours = |path: &[u8]| match row.rule {
        Rule::Root => path.is_empty(),
        Rule::Facts | Rule::Sockets | Rule::OwnerNames => is_at_or_below(path, row.folder.as_bytes()),
    };
    let ours = tree.iter().filter(|(path, facts)| is_ours(path) && facts.kind != FileType::Socket);
    ours.map(|(path, facts)| (path.as_slice(), facts)).collect()
}

/// Puts complaints into a cell. Where they come from is said on standard error.
fn cell(row: &Row, what: &str, complaints: &Complaints) -> Cell {
    for (word, path) in complaints {
        eprintln!("{} ({}), {what}: {word}: {}", row.title, row.change, path.escape_ascii());
    }
    if complaints.is_empty() { Cell::YES } else { Cell::Bad(complaints.keys().copied().collect::<Vec<_>>().join(", ")) }
}

fn whole(row: &Row, what: &str, wanted: &Part<'_>, found: &Tree) -> Cell {
    cell(row, what, &differences(wanted, &of_row(row, found)))
}

fn differences(wanted: &Part<'_>, found: &Part<'_>) -> Complaints {
    let mut complaints = Complaints::new();
    for (path, facts) in wanted {
        let words = found.get(path).map_or_else(|| vec!["missing"], |found| facts.differences(found));
        for word in words {
            complaints.entry(word).or_insert_with(|| path.to_vec());
        }
    }
    if let Some(path) = found.keys().find(|path| !wanted.contains_key(*path)) {
        complaints.insert("too much", path.to_vec());
    }
    complaints
}

/// The name, what is below it and the folders that lead to it are as in the source, and nothing else is there.
fn alone(row: &Row, after: &Part<'_>, found: Option<&Tree>) -> Cell {
    let one = one(row);
    let is_wanted = |path: &[u8]| is_at_or_below(path, &one) || is_at_or_below(&one, path);
    let mut wanted: Tree =
        after.iter().filter(|it| is_wanted(it.0)).map(|it| (it.0.to_vec(), (*it.1).clone())).collect();
    for facts in wanted.values_mut() {
        let left: Vec<_> = facts.names.iter().filter(|name| is_wanted(name)).cloned().collect();
        facts.names = if left.len() > 1 { left.into() } else { Arc::default() };
    }
    // The target itself is the operator's.
    let found = found.into_iter().flatten().filter(|(path, _)| !path.is_empty());
    let found = found.map(|(path, facts)| (path.as_slice(), facts)).collect();
    cell(row, "one", &differences(&of_row(row, &wanted), &found))
}

/// The differential has exactly the names of which something changed, and content only where that changed.
fn differential(row: &Row, found: &Found, before: &Part<'_>, after: &Part<'_>) -> Complaints {
    let mut complaints = Complaints::new();
    let listed: BTreeMap<Vec<u8>, &Listed> = found.changes.iter().map(|it| (it.path(), it)).collect();
    let paths: BTreeSet<&[u8]> = before.keys().chain(after.keys()).copied().collect();
    for path in paths {
        let (old, new, listed) = (before.get(path), after.get(path), listed.get(path));
        let is_same = |same: fn(&Facts, &Facts) -> bool| old.zip(new).is_some_and(|(old, new)| same(old, new));
        let has_same_facts = is_same(|old, new| old.own_differences(new).is_empty());
        let has_same_links = is_same(|old, new| old.names == new.names);
        let has_same_content = is_same(Facts::has_content_of) && is_same(|old, new| old.data == new.data);
        let word = match listed {
            None if !has_same_facts => "not seen",
            Some(_) if has_same_facts && has_same_links => "too much in it",
            Some(it) if (it.kind == "deleted") != new.is_none() => "not seen",
            Some(it) if it.has_own_content() && has_same_content && has_same_links => "content stored again",
            _ => continue,
        };
        complaints.entry(word).or_insert_with(|| path.to_vec());
    }
    if before == after && row.rule == Rule::Facts {
        complaints.insert("nothing was changed", Vec::new());
    }
    complaints
}

fn stock(row: &Row, found: &Found, before: &Part<'_>, after: &Part<'_>) -> Cell {
    let stock = match &found.stock {
        None => return Cell::NotRun,
        Some(Ok(stock)) => stock,
        Some(Err(said)) => {
            eprintln!("{}, GNU tar: {said}", row.title);
            // Warnings come first; the last line is tar's good-bye.
            let line = said.lines().rev().find(|line| !line.contains("Exiting with failure")).unwrap_or_default();
            return Cell::Bad(line.rsplit(": ").next().unwrap_or_default().to_lowercase());
        }
    };
    let scripted = [
        whole(row, "tar and attributes.sh, full", before, &stock.full),
        whole(row, "tar and attributes.sh, differential", after, &stock.all),
    ];
    match scripted.into_iter().find(|cell| *cell != Cell::YES) {
        Some(bad) => bad,
        None if differences(before, &of_row(row, &stock.alone)).is_empty() => Cell::YES,
        None => Cell::Good("with `attributes.sh`"),
    }
}

/// Both packings have said of each socket that it is left out, and asking for one finds nothing.
fn sockets(row: &Row, found: &Found, cells: Cells, is_none_found: bool) -> Cells {
    const LEFT_OUT: Cell = Cell::Good("left out, with a note");
    let is_said = [&found.before, &found.after].into_iter().zip(&found.said).all(|(tree, said)| {
        let mut sockets = tree.iter().filter(|(_, facts)| facts.kind == FileType::Socket).map(|(path, _)| path);
        let is_said = |path: &Vec<u8>| said.contains(&format!("note: {} left out: socket\n", path.escape_ascii()));
        sockets.all(is_said)
    });
    let turn = |cell: Cell| match cell {
        Cell::Good(_) if is_said => LEFT_OUT,
        Cell::Good(_) => Cell::Bad("left out in silence".to_owned()),
        other @ (Cell::Bad(_) | Cell::NotRun) => other,
    };
    // Folders that lead to nothing are not made.
    let one = if is_none_found { Cell::YES } else { Cell::Bad(format!("something is restored of {}", row.title)) };
    Cells {
        full: turn(cells.full),
        differential: turn(cells.differential),
        all: turn(cells.all),
        one: turn(one),
        tar: turn(cells.tar),
    }
}

/// The index names owner and group; a differential does not look at names, and every restore goes by number.
fn owner_names(row: &Row, found: &Found, cells: Cells) -> Cells {
    const BY_NUMBER: Cell = Cell::Good("by number");
    let path = one(row);
    let recorded = found.owned.iter().find(|it| it.path() == path);
    let is_recorded = recorded.is_some_and(|it| (it.user.as_str(), it.group.as_str()) == NAMES[0]);
    let has_number = found.all.get(&path).is_some_and(|facts| (facts.owner, facts.group) == NAMED);
    let turn = |cell: Cell| if cell == Cell::YES && has_number { BY_NUMBER } else { cell };
    Cells {
        full: match cells.full {
            Cell::Good(_) if is_recorded => Cell::Good("recorded"),
            Cell::Good(_) => Cell::Bad("not recorded".to_owned()),
            other @ (Cell::Bad(_) | Cell::NotRun) => other,
        },
        differential: match cells.differential {
            Cell::Good(_) => Cell::Good("another name alone is no change"),
            other @ (Cell::Bad(_) | Cell::NotRun) => other,
        },
        all: turn(cells.all),
        one: turn(cells.one),
        tar: turn(cells.tar),
    }
}
