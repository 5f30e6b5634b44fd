//! Where a command's result goes: tables for people, JSON for machines, on standard output; talk on standard error.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::failure::Failure;
use crate::shown;

/// The form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table, or facts line by line.
    Table,
    /// One JSON document.
    Json,
}

/// Output settings of one command.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The form.
    pub format: Format,
    /// Tables without their first line.
    pub no_headers: bool,
    /// No talk on standard error.
    pub quiet: bool,
}

/// A column: its header, and whether it holds numbers.
pub type Column = (&'static str, Align);

/// Which side a column keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Output {
    /// Whether the result is JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints one JSON document.
    pub fn json(&self, value: &Value) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
        out.write_all(b"\n").map_err(Failure::from)
    }

    /// Prints rows under their headers; with none, the sentence goes to standard error and the command has still succeeded.
    pub fn table(&self, columns: &[Column], rows: Vec<Vec<String>>, when_empty: &str) -> Result<(), Failure> {
        if rows.is_empty() {
            self.talk(when_empty);
            return Ok(());
        }
        self.print(&render(columns, rows, self.no_headers))
    }

    /// Prints facts, one a line, names aligned; empty values are left out.
    pub fn facts(&self, facts: &[(&str, String)]) -> Result<(), Failure> {
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines: String = facts
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name:<width$}  {}\n", shown::safe(value)))
            .collect();
        self.print(&lines)
    }

    /// Says what would be done, and that it was not.
    pub fn dry_run(&self, what: &str) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(&serde_json::json!({ "dry_run": true, "would": what }));
        }
        self.print(&format!("{}\n", shown::safe(what)))?;
        self.talk("dry run: nothing was changed");
        Ok(())
    }

    /// Prints text as it is.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::from)
    }

    /// Says something on standard error, unless asked to be quiet.
    pub fn talk(&self, text: &str) {
        if !self.quiet {
            // With standard error closed there is nobody left to tell.
            let _closed = writeln!(io::stderr(), "{}", shown::safe(text));
        }
    }

    /// Whether standard error is a terminal, where a line may be redrawn.
    #[must_use]
    pub fn can_redraw(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }
}

fn render(columns: &[Column], rows: Vec<Vec<String>>, no_headers: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !no_headers {
        table.set_header(columns.iter().map(|(name, _)| name.to_uppercase()));
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| shown::safe(cell).replace('\n', "\\n")));
    }
    for (index, (_, align)) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if *align == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::{Align, render};

    #[test]
    fn a_table_can_be_scanned_and_cut() {
        let columns = [("host", Align::Left), ("bytes", Align::Right)];
        let rows = || vec![vec!["web-1".to_owned(), "12".to_owned()], vec!["db".to_owned(), "3456".to_owned()]];
        assert_eq!(render(&columns, rows(), false), "HOST   BYTES\nweb-1     12\ndb      3456\n");
        assert_eq!(render(&columns, rows(), true), "web-1    12\ndb     3456\n");
    }

    #[test]
    fn a_hostile_cell_stays_in_its_line() {
        let text = render(&[("name", Align::Left)], vec![vec!["a\nb\x1b[2J".to_owned()]], true);
        assert_eq!(text, "a\\nb\\u{1b}[2J\n");
    }
}
