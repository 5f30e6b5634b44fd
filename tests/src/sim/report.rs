//! The table of figures: what was measured, what is required, whether it is met.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use super::Options;
use crate::bench::machine::Machine;
use crate::harness::build::workspace;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    what: String,
    measured: String,
    required: String,
    met: Option<bool>,
}

impl Figure {
    /// A figure that has to be at most `most`, both in `unit`.
    #[must_use]
    pub fn at_most(what: impl Into<String>, measured: f64, most: f64, unit: &str) -> Self {
        let met = Some(measured <= most);
        Self {
            what: what.into(),
            measured: shown(measured, unit),
            required: format!("at most {}", shown(most, unit)),
            met,
        }
    }

    /// A figure that has to be at least `least`, both in `unit`.
    #[must_use]
    pub fn at_least(what: impl Into<String>, measured: f64, least: f64, unit: &str) -> Self {
        let met = Some(measured >= least);
        Self {
            what: what.into(),
            measured: shown(measured, unit),
            required: format!("at least {}", shown(least, unit)),
            met,
        }
    }

    /// Something that has to be so many.
    #[must_use]
    pub fn exactly(what: impl Into<String>, measured: u64, wanted: u64) -> Self {
        let met = Some(measured == wanted);
        Self { what: what.into(), measured: grouped(measured), required: grouped(wanted), met }
    }

    /// Something that is only told.
    #[must_use]
    pub fn told(what: impl Into<String>, measured: f64, unit: &str) -> Self {
        Self { what: what.into(), measured: shown(measured, unit), required: String::new(), met: None }
    }

    /// Whether it is met; what is only told always is.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.met.unwrap_or(true)
    }
}

/// Three significant digits, or all of them where there are more before the point.
fn shown(value: f64, unit: &str) -> String {
    let digits = if value >= 1000.0 {
        grouped(value.round() as u64)
    } else if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    if unit.is_empty() { digits } else { format!("{digits} {unit}") }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// All that was measured.
#[derive(Clone, Debug)]
pub struct Report {
    heading: String,
    figures: Vec<Figure>,
}

impl Report {
    /// Nothing was measured yet.
    #[must_use]
    pub fn new(options: &Options, seed: u64) -> Self {
        let machine = Machine::here(workspace());
        let build = if cfg!(debug_assertions) { "a debug build: its times mean nothing" } else { "a release build" };
        let heading = format!(
            "{} agents, seed {seed}, {build}\n{}, {} cores, {} MiB, Linux {}, commit {}, {}",
            options.agents,
            machine.processor,
            machine.cores,
            machine.memory_mib,
            machine.kernel,
            machine.commit,
            machine.taken_at
        );
        Self { heading, figures: Vec::new() }
    }

    /// Adds what a scene came to, and tells it at once.
    pub fn add(&mut self, figures: Vec<Figure>) {
        for figure in &figures {
            eprintln!("   {}: {} {}", figure.what, figure.measured, verdict(figure));
        }
        self.figures.extend(figures);
    }

    /// Whether nothing is missed.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.figures.iter().all(Figure::is_met)
    }
}

fn verdict(figure: &Figure) -> &'static str {
    match figure.met {
        Some(true) => "PASS",
        Some(false) => "MISS",
        None => "",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["figure", "measured", "required", ""]);
        for figure in &self.figures {
            table.add_row([&figure.what, &figure.measured, &figure.required, verdict(figure)]);
        }
        for number in 1..=2 {
            if let Some(column) = table.column_mut(number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{}\n\n{table}", self.heading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_met_only_if_every_figure_is() {
        let met = Figure::at_most("memory", 99.0, 100.0, "KiB");
        let missed = Figure::at_least("entries", 99_999.4, 150_000.0, "/s");
        let mut report = Report { heading: String::new(), figures: vec![met, Figure::told("pace", 3.21, "ms")] };
        assert!(report.is_met());
        assert_eq!((missed.measured.as_str(), missed.required.as_str()), ("99,999 /s", "at least 150,000 /s"));
        report.figures.push(missed);
        assert!(!report.is_met());
        assert!(report.to_string().contains("MISS"));
    }
}
