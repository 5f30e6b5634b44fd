//! `cargo measure`: our engine beside the tools a user would take instead, on the same data, in turns.
//!
//! Only ratios of one round mean anything on a shared machine: everybody takes a turn in each round, and a ratio is the median of
//! the rounds' ratios. The first round does not count. What docs/BENCHMARKS.md says was printed by this.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

mod change;
mod contest;
mod corpus;
mod figures;
mod goal;
mod instructions;
mod loopback;
pub mod machine;
mod programs;
mod prose;
mod report;
mod rows;
mod size;
mod stopwatch;
mod workshop;

use crate::harness::build::{binaries, workspace};
use instructions::InstructionOptions;
use machine::Machine;
use programs::Engine;
use report::RowReport;
use rows::Row;
use size::SizeOptions;
use workshop::Workshop;

/// Measures our engine against tar, zstd, pigz, find, restic and rustic, where they are installed.
#[derive(Debug, Parser)]
#[command(name = "measure", args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    measure: MeasureOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the rows that were measured before.
    Table(TableOptions),
    /// Measure the memory that ten million names, a folder of a million and a file of any size take, and fail beyond a bound.
    Size(SizeOptions),
    /// Count the instructions of a fixed small job and compare them with those on record.
    Instructions(InstructionOptions),
}

#[derive(Debug, clap::Args)]
struct MeasureOptions {
    /// Rows of the table; all when none is named.
    rows: Vec<Row>,
    /// Rounds that count; one more is run before them.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Add the rounds to those kept of the same row, where machine, commit and corpora are the same.
    #[arg(long)]
    more: bool,
    /// Where corpora are made and kept; several gigabytes.
    #[arg(long, value_name = "DIR")]
    corpus_dir: Option<PathBuf>,
    /// Where outputs go; /dev/shm where there is room, else beside the corpora.
    #[arg(long, value_name = "DIR")]
    scratch_dir: Option<PathBuf>,
    /// Multiplies the sizes of the corpora; figures of anything but 1 mean nothing.
    #[arg(long, default_value = "1", value_name = "FACTOR")]
    scale: f64,
    /// The agent to measure; it is built when none is named.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    #[command(flatten)]
    table: TableOptions,
}

#[derive(Debug, clap::Args)]
struct TableOptions {
    /// Where figures are kept, one file for each row.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Shape of what is printed.
    #[arg(short, long, value_enum, default_value = "markdown")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Markdown,
    Json,
}

/// Runs it and says how it ended.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let ended = match &options.command {
        None => measure(&options.measure).map(|()| ExitCode::SUCCESS),
        Some(Command::Table(table)) => print_kept(table).map(|()| ExitCode::SUCCESS),
        Some(Command::Size(options)) => size::run(options),
        Some(Command::Instructions(options)) => instructions::run(options),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("measure: {error:#}");
        ExitCode::FAILURE
    })
}

/// The agent that was named, or the one of this checkout in the profile of this program.
fn engine(agent: Option<&PathBuf>) -> anyhow::Result<Engine> {
    let agent = match agent {
        Some(agent) => std::path::absolute(agent)?,
        None => binaries()?.agent,
    };
    Ok(Engine { agent })
}

fn measure(options: &MeasureOptions) -> anyhow::Result<()> {
    let corpora = options.corpus_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("coord-corpora"));
    let engine = engine(options.agent.as_ref())?;
    let rows = if options.rows.is_empty() { Row::value_variants() } else { &options.rows };
    let mut reports = Vec::new();
    for &row in rows {
        eprintln!("{}: {}", row.name(), row.work());
        // A workshop for each row: what one left behind does not take memory from the next.
        let workshop = Workshop::open(engine.clone(), &corpora, options.scratch_dir.as_deref(), options.scale)?;
        let mut report = measure_row(&workshop, row, options)?;
        if options.more {
            report.join(report::kept(&out(&options.table))?)?;
        }
        report::keep(&out(&options.table), &report)?;
        reports.push(report);
    }
    print(&reports, options.table.output)
}

fn measure_row(workshop: &Workshop, row: Row, options: &MeasureOptions) -> anyhow::Result<RowReport> {
    let prepared = workshop.prepare(row)?;
    for absent in &prepared.absent {
        eprintln!("  not measured: {absent}");
    }
    let taken = contest::hold(&prepared.contestants, options.rounds, prepared.durable_in.as_deref())?;
    let report = RowReport {
        row,
        machine: Machine::here(workspace()),
        scale: options.scale,
        place: workshop.place().to_owned(),
        corpora: prepared.corpora.clone(),
        absent: prepared.absent.clone(),
        outcomes: report::judge(row, &taken),
        taken,
    };
    prepared.end()?;
    Ok(report)
}

fn out(options: &TableOptions) -> PathBuf {
    options.out.clone().unwrap_or_else(|| workspace().join("target/measure"))
}

fn print_kept(options: &TableOptions) -> anyhow::Result<()> {
    let reports = report::kept(&out(options))?;
    anyhow::ensure!(!reports.is_empty(), "nothing was measured yet: cargo measure");
    print(&reports, options.output)
}

fn print(reports: &[RowReport], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Markdown => println!("{}\n{}", report::heading(reports), report::markdown(reports)),
        Format::Json => println!("{}", serde_json::to_string_pretty(reports)?),
    }
    Ok(())
}
