//! Figures kept as one file for each row, and shown as a table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use super::contest::{Taken, mebibytes};
use super::figures::Spread;
use super::goal::{Measure, Outcome};
use super::machine::Machine;
use super::rows::Row;

/// All that is known of one row's measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowReport {
    /// Which row.
    pub row: Row,
    /// Where, with what, when.
    pub machine: Machine,
    /// What the corpora's sizes were multiplied by; figures of anything but 1 mean nothing.
    pub scale: f64,
    /// Where outputs went, in words.
    pub place: String,
    /// What was backed up, in words.
    pub corpora: Vec<String>,
    /// What could not be measured, and why.
    pub absent: Vec<String>,
    /// Every sample.
    pub taken: Vec<Taken>,
    /// What is required, and what was reached.
    pub outcomes: Vec<Outcome>,
}

/// What was reached of what a row requires.
#[must_use]
pub fn judge(row: Row, taken: &[Taken]) -> Vec<Outcome> {
    row.goals().iter().filter_map(|goal| goal.judge(taken)).collect()
}

impl RowReport {
    /// Puts the rounds of an earlier report of this row before its own. None there is no error.
    ///
    /// # Errors
    /// The earlier one is of something else.
    pub fn join(&mut self, kept: Vec<Self>) -> anyhow::Result<()> {
        let Some(earlier) = kept.into_iter().find(|report| report.row == self.row) else { return Ok(()) };
        let of = |report: &Self| {
            let machine = Machine { taken_at: String::new(), ..report.machine.clone() };
            let names: Vec<_> = report.taken.iter().map(|taken| taken.name.clone()).collect();
            (machine, report.corpora.clone(), report.place.clone(), names)
        };
        ensure!(
            of(&earlier) == of(self),
            "{}: the rounds kept are of another machine, commit or corpus",
            self.row.name()
        );
        for (mine, earlier) in self.taken.iter_mut().zip(earlier.taken) {
            mine.samples.splice(0..0, earlier.samples);
        }
        self.outcomes = judge(self.row, &self.taken);
        Ok(())
    }
}

/// Writes a row's report into a folder, over an older one.
///
/// # Errors
/// It cannot be written.
pub fn keep(folder: &Path, report: &RowReport) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(format!("{}.json", report.row.name()));
    fs::write(&path, serde_json::to_vec_pretty(report)?).with_context(|| format!("writing {}", path.display()))
}

/// Every row that was kept in a folder, in the table's order.
///
/// # Errors
/// A file is none of ours.
pub fn kept(folder: &Path) -> anyhow::Result<Vec<RowReport>> {
    let mut reports = Vec::new();
    for row in Row::value_variants() {
        let path = folder.join(format!("{}.json", row.name()));
        let Ok(text) = fs::read(&path) else { continue };
        reports.push(serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(reports)
}

/// The table of outcomes and the table of what everybody took, in Markdown.
#[must_use]
pub fn markdown(reports: &[RowReport]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ok = outcomes(&mut text, reports).and_then(|()| details(&mut text, reports));
    text
}

fn outcomes(text: &mut String, reports: &[RowReport]) -> std::fmt::Result {
    writeln!(text, "| work | ours | against | measured | required | stretch | |")?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for report in reports {
        for outcome in &report.outcomes {
            let stretch = outcome.stretch.map_or_else(|| "-".to_owned(), |bound| figure(outcome.measure, bound));
            let word = match (outcome.is_reached, outcome.is_stretched) {
                (_, true) => "stretch",
                (true, false) => "reached",
                (false, false) => "**missed**",
            };
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {stretch} | {word} |",
                report.row.work(),
                escape(&outcome.ours),
                outcome.peer.as_deref().map_or_else(|| "-".to_owned(), escape),
                spread(outcome.measure, outcome.figure),
                figure(outcome.measure, outcome.required),
            )?;
        }
        for absent in &report.absent {
            writeln!(text, "| {} | | | not measured: {} | | | |", report.row.work(), escape(absent))?;
        }
    }
    Ok(())
}

fn details(text: &mut String, reports: &[RowReport]) -> std::fmt::Result {
    writeln!(text, "\n| work | who | wall, s | processor, s | peak, MiB | stored, MB | rounds | commit |")?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for report in reports {
        for taken in &report.taken {
            let of = |value: fn(&super::stopwatch::Sample) -> f64| Spread::of(taken.samples.iter().map(value));
            let wall = of(|sample| sample.wall_s).map_or_else(String::new, seconds);
            let processor = of(|sample| sample.cpu_s).map_or_else(String::new, |found| short(found.median));
            let peak = taken.samples.iter().map(|sample| sample.peak_bytes).max().unwrap_or(0);
            let stored = taken.samples.last().and_then(|sample| sample.stored_bytes);
            #[expect(clippy::cast_precision_loss, reason = "display")]
            let stored = stored.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6));
            writeln!(
                text,
                "| {} | {} | {wall} | {processor} | {:.0} | {stored} | {} | {} |",
                report.row.work(),
                escape(&taken.name),
                mebibytes(peak),
                taken.samples.len(),
                report.machine.commit,
            )?;
        }
    }
    Ok(())
}

/// What stands above the tables: machine, programs, corpora.
#[must_use]
pub fn heading(reports: &[RowReport]) -> String {
    let mut text = String::new();
    if let Some(report) = reports.last() {
        let machine = &report.machine;
        let _ok = writeln!(
            text,
            "{}, {} cores, {:.1} GiB, {}, kernel {}; page cache warm, {}.\n\n{}.\n",
            machine.processor,
            machine.cores,
            mebibytes(machine.memory_mib << 20) / 1024.0,
            machine.system,
            machine.kernel,
            report.place,
            machine.programs.join("; "),
        );
    }
    if reports.iter().any(|report| report.scale.total_cmp(&1.0).is_ne()) {
        text.push_str("**The corpora were scaled: these figures mean nothing.**\n\n");
    }
    let mut corpora: Vec<&String> = reports.iter().flat_map(|report| &report.corpora).collect();
    corpora.sort();
    corpora.dedup();
    for corpus in corpora {
        let _ok = writeln!(text, "- {corpus}");
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

fn figure(measure: Measure, value: f64) -> String {
    match measure {
        Measure::Faster => format!("{} x", short(value)),
        Measure::Larger => format!("{value:.3} of its bytes"),
        Measure::Milliseconds => format!("{} ms", short(value)),
        Measure::PeakMebibytes => format!("{value:.0} MiB"),
    }
}

fn spread(measure: Measure, found: Spread) -> String {
    format!("{} [{}..{}]", figure(measure, found.median), bare(measure, found.min), bare(measure, found.max))
}

fn bare(measure: Measure, value: f64) -> String {
    if measure == Measure::Larger { format!("{value:.3}") } else { short(value) }
}

fn seconds(found: Spread) -> String {
    format!("{} [{}..{}]", short(found.median), short(found.min), short(found.max))
}

/// About three significant digits.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{Machine, Measure, Row, RowReport, Spread, Taken, judge, short, spread};
    use crate::bench::rows::{OURS, ZSTD_TEST};
    use crate::bench::stopwatch::Sample;

    /// A report of the row `verify` with one round.
    fn report(commit: &str, ours_s: f64, peer_s: f64) -> RowReport {
        let taken = |name: &str, wall_s| Taken {
            name: name.to_owned(),
            command: String::new(),
            samples: vec![Sample { wall_s, ..Sample::default() }],
        };
        let taken = vec![taken(OURS, ours_s), taken(ZSTD_TEST, peer_s)];
        let mut machine = Machine::here(std::path::Path::new("."));
        machine.commit = commit.to_owned();
        RowReport {
            row: Row::Verify,
            machine,
            scale: 1.0,
            place: String::new(),
            corpora: Vec::new(),
            absent: Vec::new(),
            outcomes: judge(Row::Verify, &taken),
            taken,
        }
    }

    #[test]
    fn rounds_of_two_sittings_are_judged_together_and_never_those_of_two_commits() {
        let mut second = report("one", 1.0, 3.0);
        second.join(vec![report("one", 2.0, 2.0)]).unwrap();
        assert_eq!(second.outcomes[0].figure, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(second.taken[0].samples.len(), 2);
        let refused = report("two", 1.0, 3.0).join(vec![second]).unwrap_err();
        assert!(refused.to_string().contains("another machine, commit"), "{refused}");
    }

    #[test]
    fn figures_are_as_long_as_they_are_sure() {
        let shown: Vec<_> = [123.4, 12.34, 1.234, 0.001_74].map(short).to_vec();
        assert_eq!(shown, ["123", "12.3", "1.23", "0.0017"]);
        let found = Spread { median: 1.034, min: 1.03, max: 1.04 };
        assert_eq!(spread(Measure::Larger, found), "1.034 of its bytes [1.030..1.040]");
        assert_eq!(spread(Measure::Faster, found), "1.03 x [1.03..1.04]");
    }
}
