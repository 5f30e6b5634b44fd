//! Where a command's result goes: tables for people, documents for machines, on standard output; talk on standard error.
//!
//! A command makes one document (`json`) or prints text. All forms for machines are written from the document, so they say the same.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::rc::Rc;

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::shown;

pub mod color;
pub mod document;
pub mod pager;
mod yaml;

use color::{Colors, Paint};
use document::Fields;
use pager::Pager;

/// The form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table, or facts line by line.
    Table,
    /// A table with all its columns.
    Wide,
    /// One JSON document.
    Json,
    /// A list as one JSON object a line.
    Jsonl,
    /// The JSON document as YAML.
    Yaml,
    /// The name of each thing, one a line.
    Name,
}

/// Output settings of one command.
#[derive(Debug, Clone)]
pub struct Output {
    /// The form.
    pub format: Format,
    /// Only these fields, or their names.
    pub fields: Option<Fields>,
    /// Tables without their first line.
    pub no_headers: bool,
    /// No talk on standard error.
    pub quiet: bool,
    /// Which streams are coloured.
    pub colors: Colors,
    captured: Option<Rc<RefCell<Captured>>>,
    pager: Option<Rc<RefCell<Pager>>>,
}

/// What a command would have written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Captured {
    /// Text for standard output.
    pub text: String,
    /// Lines for standard error.
    pub talk: Vec<String>,
    /// The document.
    pub document: Option<Value>,
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
    /// Output in this form, uncoloured, with everything said.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let colors = Colors::default();
        Self { format, fields: None, no_headers: false, quiet: false, colors, captured: None, pager: None }
    }

    /// Whether the result is made from the document, in whatever form that is written.
    #[must_use]
    pub fn is_json(&self) -> bool {
        match self.format {
            Format::Json | Format::Jsonl | Format::Yaml | Format::Name => true,
            Format::Table | Format::Wide => self.fields.is_some(),
        }
    }

    /// Whether errors are JSON objects.
    #[must_use]
    pub fn has_json_errors(&self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl)
    }

    /// Writes the document in the form that was asked for. A list is an object whose only field is an array: its rows.
    pub fn json(&self, value: &Value) -> Result<(), Failure> {
        self.write(value, document::only_list(value))
    }

    /// Writes a document with more than its list: `rows` names the field that holds the rows.
    pub fn list(&self, value: &Value, rows: &str) -> Result<(), Failure> {
        self.write(value, value.get(rows).and_then(Value::as_array).map(Vec::as_slice))
    }

    fn write(&self, value: &Value, rows: Option<&[Value]>) -> Result<(), Failure> {
        if let Some(captured) = &self.captured {
            captured.borrow_mut().document = Some(value.clone());
            return Ok(());
        }
        if self.format == Format::Json && self.fields.is_none() {
            let mut out = io::stdout().lock();
            serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
            return out.write_all(b"\n").map_err(Failure::from);
        }
        let written = document::write(self, value, rows)?;
        self.print(&written.text)?;
        if !written.talk.is_empty() {
            self.talk(&written.talk);
        }
        Ok(())
    }

    /// One row of a list that is written as it comes, for `-o jsonl`.
    pub fn row(&self, row: &Value) -> Result<(), Failure> {
        self.print(&format!("{}\n", self.chosen(row)?))
    }

    /// A thing with the fields that were asked for.
    pub fn chosen(&self, thing: &Value) -> Result<Value, Failure> {
        match &self.fields {
            Some(Fields::Only(names)) => document::only(thing, names),
            Some(Fields::Names) | None => Ok(thing.clone()),
        }
    }

    /// One event of a stream, for `-o jsonl`; the last is `result` and has the whole document.
    pub fn event(&self, event: &str, what: &str, value: &Value) -> Result<(), Failure> {
        self.print(&format!("{}\n", json!({ "event": event, what: value })))
    }

    /// Prints rows under their headers; with none, the sentence goes to standard error and the command has still succeeded.
    pub fn table(&self, columns: &[Column], rows: Vec<Vec<String>>, when_empty: &str) -> Result<(), Failure> {
        self.wide_table(columns, &[], rows, when_empty)
    }

    /// The same, with columns that only `-o wide` shows. The rows have the cells of both.
    pub fn wide_table(
        &self,
        columns: &[Column],
        more: &[Column],
        mut rows: Vec<Vec<String>>,
        when_empty: &str,
    ) -> Result<(), Failure> {
        if rows.is_empty() {
            self.talk(when_empty);
            return Ok(());
        }
        let mut columns = columns.to_vec();
        if self.format == Format::Wide {
            columns.extend(more);
        } else {
            rows.iter_mut().for_each(|row| row.truncate(columns.len()));
        }
        let text = render(&columns, rows, self.no_headers);
        let text = match text.split_once('\n') {
            Some((header, rest)) if !self.no_headers => format!("{}\n{rest}", self.paint(Paint::Header, header)),
            Some(_) | None => text,
        };
        self.print(&text)
    }

    /// Prints facts, one a line, names aligned; empty values are left out.
    pub fn facts(&self, facts: &[(&str, String)]) -> Result<(), Failure> {
        self.print(&aligned(facts))
    }

    /// Says what would be done, and that it was not.
    pub fn dry_run(&self, what: &str) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(&json!({ "dry_run": true, "would": what }));
        }
        self.print(&format!("{}\n", shown::safe(what)))?;
        self.talk("dry run: nothing was changed");
        Ok(())
    }

    /// Prints text as it is.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        if let Some(captured) = &self.captured {
            captured.borrow_mut().text.push_str(text);
            return Ok(());
        }
        if let Some(pager) = &self.pager {
            return pager.borrow_mut().write(text).map_err(Failure::from);
        }
        io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::from)
    }

    /// Long text for people follows: on a terminal it goes through `$PAGER`.
    pub fn page(&mut self) {
        if !self.is_json() && io::stdout().is_terminal() {
            self.pager = Pager::of_environment().map(|pager| Rc::new(RefCell::new(pager)));
        }
    }

    /// The long text has ended: waits for the pager, and says what there is to say.
    pub fn end_page(&mut self) -> Result<(), Failure> {
        let Some(pager) = self.pager.take().and_then(Rc::into_inner) else { return Ok(()) };
        let (text, talk) = pager.into_inner().end()?;
        self.print(&text)?;
        talk.iter().for_each(|line| self.talk(line));
        Ok(())
    }

    /// Says something on standard error, unless asked to be quiet.
    pub fn talk(&self, text: &str) {
        if let Some(captured) = &self.captured {
            captured.borrow_mut().talk.push(text.to_owned());
        } else if let Some(pager) = &self.pager {
            pager.borrow_mut().say(text);
        } else if !self.quiet {
            // With standard error closed there is nobody left to tell.
            let _closed = writeln!(io::stderr(), "{}", self.colors.label(&shown::safe(text)));
        }
    }

    /// Text for standard output in a colour, where that has colours. What the colour means is also in the words.
    #[must_use]
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        if self.colors.stdout { paint.on(text) } else { text.to_owned() }
    }

    /// `PASS` or `FAIL`.
    #[must_use]
    pub fn verdict(&self, passed: bool) -> String {
        if passed { self.paint(Paint::Good, "PASS") } else { self.paint(Paint::Bad, "FAIL") }
    }

    /// Whether standard error is a terminal, where a line may be redrawn.
    #[must_use]
    pub fn can_redraw(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// From now on everything is kept instead of written.
    pub fn capture(&mut self) {
        self.captured = Some(Rc::default());
    }

    /// What was kept; from now on everything is written again.
    pub fn captured(&mut self) -> Captured {
        self.captured.take().map(|kept| kept.borrow().clone()).unwrap_or_default()
    }
}

/// Facts, one a line, names aligned; empty values are left out.
fn aligned<N: AsRef<str>>(facts: &[(N, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.as_ref().len()).max().unwrap_or(0);
    let told = facts.iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| format!("{:<width$}  {}\n", name.as_ref(), shown::safe(value))).collect()
}

fn render<N: AsRef<str>>(columns: &[(N, Align)], rows: Vec<Vec<String>>, no_headers: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !no_headers {
        table.set_header(columns.iter().map(|(name, _)| name.as_ref().to_uppercase()));
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
    use super::{Align, Format, Output, render};

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

    #[test]
    fn only_the_wide_form_has_all_columns() {
        let told = |format| {
            let mut out = Output::new(format);
            out.capture();
            let rows = vec![vec!["web-1".to_owned(), "0.1.0".to_owned()]];
            let written = out.wide_table(&[("host", Align::Left)], &[("agent", Align::Left)], rows, "none");
            assert!(written.is_ok());
            out.captured().text
        };
        assert_eq!(told(Format::Table), "HOST\nweb-1\n");
        assert_eq!(told(Format::Wide), "HOST   AGENT\nweb-1  0.1.0\n");
    }
}
