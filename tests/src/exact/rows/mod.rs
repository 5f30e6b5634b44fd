//! The rows: how each kind is made, and how only what the row is about is changed.

mod attributes;
mod content;
mod flags;
mod folders;
mod links;
mod make;
mod names;
mod owners;
mod specials;

pub(super) use owners::{NAMED, NAMES};

use super::{Act, Ground, Row, Rule};

/// All rows in the order of the document.
#[must_use]
pub fn all() -> Vec<Row> {
    let sections = [
        ("Files", content::rows()),
        ("Links", links::rows()),
        ("Folders and kinds", folders::rows()),
        ("Special files", specials::rows()),
        ("Modes, owners, times", owners::rows()),
        ("Extended attributes", attributes::rows()),
        ("Inode flags", flags::rows()),
        ("Names", names::rows()),
    ];
    let of_section =
        |(section, rows): (&'static str, Vec<Row>)| rows.into_iter().map(move |row| Row { section, ..row });
    sections.into_iter().flat_map(of_section).collect()
}

/// An ordinary row.
fn row(
    (title, change): (&'static str, &'static str),
    (folder, one): (&'static str, &[u8]),
    (make, alter): (Act, Act),
) -> Row {
    Row {
        section: "",
        title,
        change,
        folder,
        one: one.to_vec(),
        make,
        alter,
        rule: Rule::Facts,
        ground: Ground::Ordinary,
    }
}
