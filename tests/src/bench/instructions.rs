//! Counts the instructions of a fixed small job: on a noisy machine a regression shows here when no clock shows it.
//!
//! Counted by `perf` where the machine lets it, else by valgrind. The two count different things (valgrind runs the program on a
//! processor of its own), so each is compared only with a record of its own kind, of the same architecture.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::change::{change, settle};
use super::corpus::Corpora;
use super::machine::Machine;
use super::programs::{Engine, is_installed};
use super::stopwatch::Invocation;
use crate::harness::build::workspace;

/// What part of corpus (b) the job is: 1,200 files.
const SCALE: f64 = 0.004;
/// A count that grew by more than this is a regression, percent.
const TOLERANCE_PERCENT: u128 = 5;

/// How to count.
#[derive(Debug, clap::Args)]
pub struct InstructionOptions {
    /// Fail when a count grew by more than five percent.
    #[arg(long)]
    check: bool,
    /// Put these counts on record instead of comparing them.
    #[arg(long, conflicts_with = "check")]
    record: bool,
    /// The file of counts on record.
    #[arg(long, value_name = "FILE")]
    recorded: Option<PathBuf>,
    /// The agent to measure; it is built when none is named.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// Counts by job, by what counted them.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// By counter and architecture, such as `valgrind x86_64`.
    #[serde(flatten)]
    counters: BTreeMap<String, Counts>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    /// Where and when.
    taken: String,
    /// Instructions of each job.
    jobs: BTreeMap<String, u64>,
}

/// Counts, prints and compares.
///
/// # Errors
/// Neither counter works here, or a job fails.
pub fn run(options: &InstructionOptions) -> anyhow::Result<ExitCode> {
    let engine = super::engine(options.agent.as_ref())?;
    let recorded = options.recorded.clone().unwrap_or_else(|| workspace().join("tests/instructions.json"));
    let counter = Counter::here()?;
    let jobs = count(&engine, counter)?;
    let key = format!("{} {}", counter.name(), std::env::consts::ARCH);
    let mut record = match fs::read(&recorded) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {}", recorded.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Record::default(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", recorded.display())),
    };
    let machine = Machine::here(workspace());
    if options.record {
        let rustc = machine.programs.first().cloned().unwrap_or_default();
        let taken = format!("{}, {}, {}, {}", machine.taken_at, machine.commit, machine.processor, rustc);
        record.counters.insert(key.clone(), Counts { taken, jobs: jobs.clone() });
        let mut text = serde_json::to_string_pretty(&record)?;
        text.push('\n');
        fs::write(&recorded, text).with_context(|| format!("writing {}", recorded.display()))?;
    }
    let before = record.counters.get(&key).map(|counts| &counts.jobs);
    if before.is_none() {
        println!("nothing is on record for {key}: `cargo measure instructions --record` keeps these");
    }
    let regressions = compare(&jobs, before);
    for line in &regressions.lines {
        println!("{line}");
    }
    Ok(if options.check && regressions.count > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Comparison {
    lines: Vec<String>,
    count: usize,
}

fn compare(jobs: &BTreeMap<String, u64>, before: Option<&BTreeMap<String, u64>>) -> Comparison {
    let mut found = Comparison { lines: Vec::new(), count: 0 };
    for (job, &now) in jobs {
        let Some(&then) = before.and_then(|before| before.get(job)).filter(|then| **then > 0) else {
            found.lines.push(format!("{job:<10} {now:>14} instructions"));
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let percent = (now as f64 / then as f64 - 1.0) * 100.0;
        let word = if u128::from(now) * 100 > u128::from(then) * (100 + TOLERANCE_PERCENT) {
            found.count += 1;
            "  REGRESSION"
        } else {
            ""
        };
        found.lines.push(format!("{job:<10} {now:>14} instructions, {percent:+.2} % of {then}{word}"));
    }
    found
}

/// The fixed job: a full, a differential, a restore of both, of a generated tree; one thread, so that no waiting is counted.
fn count(engine: &Engine, counter: Counter) -> anyhow::Result<BTreeMap<String, u64>> {
    let scratch = tempfile::Builder::new().prefix("coord-measure-").tempdir()?;
    let at = |name: &str| scratch.path().join(name);
    let corpus = Corpora::new(&at("corpora"), SCALE).small()?;
    // One larger file, so that pieces and frames of their own are in it.
    let mut text = String::new();
    super::prose::Prose::default().write(&mut crate::random::Random::new(1), 6 << 20, &mut text);
    fs::write(corpus.folder.join("large.txt"), text)?;
    settle();
    let (full, none, differential, target) = (at("full"), at("none"), at("differential"), at("restored"));
    let one = ["--threads", "1"];
    let mut jobs = BTreeMap::new();
    let mut job = |name: &str, invocation: &Invocation| -> anyhow::Result<()> {
        jobs.insert(name.to_owned(), counter.count(invocation, &at("counted"))?);
        Ok(())
    };
    job("create", &engine.create(&corpus.folder, &full, &one))?;
    job("no-change", &engine.diff(&full, &corpus.folder, &none, &one))?;
    change(&corpus.folder)?;
    job("diff", &engine.diff(&full, &corpus.folder, &differential, &one))?;
    job("extract", &engine.extract(&full, Some(&differential), &target, &one))?;
    job("verify", &engine.verify(&full, &one))?;
    Ok(jobs)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counter {
    Perf,
    Valgrind,
}

impl Counter {
    /// What works on this machine.
    fn here() -> anyhow::Result<Self> {
        // In many virtual machines perf is there and has nothing to count with.
        let perf = is_installed("perf")
            && tempfile::tempdir().is_ok_and(|folder| {
                Self::Perf.count(&Invocation::new("true"), &folder.path().join("counted")).is_ok_and(|count| count > 0)
            });
        if perf {
            return Ok(Self::Perf);
        }
        if is_installed("valgrind") {
            return Ok(Self::Valgrind);
        }
        bail!("neither perf counts instructions here nor is valgrind installed: apt-get install valgrind")
    }

    fn name(self) -> &'static str {
        match self {
            Self::Perf => "perf",
            Self::Valgrind => "valgrind",
        }
    }

    fn count(self, invocation: &Invocation, scratch: &Path) -> anyhow::Result<u64> {
        let mut counting = match self {
            Self::Perf => Invocation::new("perf").args(["stat", "-x", ",", "-e", "instructions:u", "-o"]).arg(scratch),
            Self::Valgrind => {
                let mut file = std::ffi::OsString::from("--callgrind-out-file=");
                file.push(scratch);
                Invocation::new("valgrind").args(["--tool=callgrind", "-q"]).arg(file)
            }
        };
        counting = counting.arg("--").then(invocation);
        counting.time(None)?;
        let text = fs::read_to_string(scratch).with_context(|| format!("the counts of {}", self.name()))?;
        fs::remove_file(scratch)?;
        parse(self, &text).with_context(|| format!("{} gave no count for {}", self.name(), invocation.line()))
    }
}

/// perf: `123,,instructions:u,...`; callgrind: `summary: 123` or `totals: 123`.
fn parse(counter: Counter, text: &str) -> Option<u64> {
    text.lines().find_map(|line| match counter {
        Counter::Perf => {
            let mut fields = line.split(',');
            let count = fields.next()?.parse().ok()?;
            fields.any(|field| field.starts_with("instructions")).then_some(count)
        }
        Counter::Valgrind => {
            let (name, count) = line.split_once(':')?;
            if matches!(name, "summary" | "totals") { count.trim().parse().ok() } else { None }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Counter, compare, parse};

    #[test]
    fn counts_are_read_as_either_counter_writes_them() {
        let perf = "# started on Mon\n\n1234,,instructions:u,5678,100.00,,\n";
        assert_eq!(parse(Counter::Perf, perf), Some(1234));
        let none = "<not supported>,,instructions:u,0,100.00,,\n";
        assert_eq!(parse(Counter::Perf, none), None);
        let valgrind = "version: 1\nevents: Ir\nfn=(1) main\n1 12\nsummary: 987\n\n";
        assert_eq!(parse(Counter::Valgrind, valgrind), Some(987));
    }

    #[test]
    fn only_a_count_that_grew_beyond_the_tolerance_is_a_regression() {
        let counts = |create, extract| BTreeMap::from([("create".to_owned(), create), ("extract".to_owned(), extract)]);
        let before = counts(1000, 1000);
        assert_eq!(compare(&counts(1050, 100), Some(&before)).count, 0);
        let found = compare(&counts(1051, 1000), Some(&before));
        assert_eq!(found.count, 1);
        assert!(found.lines[0].contains("create") && found.lines[0].ends_with("REGRESSION"), "{:?}", found.lines);
        assert_eq!(compare(&counts(1, 1), None).count, 0);
    }
}
