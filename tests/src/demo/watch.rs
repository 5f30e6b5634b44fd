//! Runs that the demo starts, and their live progress.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::harness::fleet::{Fleet, RUN_DEADLINE};

/// Pause between two looks at a run.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A run being watched.
struct Watched {
    title: String,
    id: String,
    bar: ProgressBar,
    /// Without a terminal, a line is printed when this changes.
    phase: String,
    end: Option<Value>,
}

/// Starts a run with `coordctl`'s arguments for each title, and waits for all of them.
///
/// # Errors
/// One was refused, did not succeed, or took too long.
pub fn run_all(fleet: &Fleet, starts: &[(String, Vec<String>)]) -> Result<Vec<Value>, String> {
    let bars = MultiProgress::new();
    let mut watched = Vec::new();
    for (title, arguments) in starts {
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.extend(["--detach", "-o", "json"]);
        let answer = fleet.coordctl(&arguments)?.success().map_err(|text| format!("{title}: {text}"))?.json()?;
        let id = run_of(&answer)["id"].as_str().ok_or_else(|| format!("{title}: no run id in {answer}"))?.to_owned();
        let style =
            ProgressStyle::with_template("  {prefix:<28} {msg:<12} {bar:24} {bytes:>10} {binary_bytes_per_sec:>12}")
                .map_err(|error| error.to_string())?;
        let bar = bars.add(ProgressBar::new(0).with_style(style).with_prefix(title.clone()));
        watched.push(Watched { title: title.clone(), id, bar, phase: String::new(), end: None });
    }
    let begun = Instant::now();
    while watched.iter().any(|run| run.end.is_none()) {
        for run in watched.iter_mut().filter(|run| run.end.is_none()) {
            run.look(fleet)?;
        }
        if begun.elapsed() > 4 * RUN_DEADLINE {
            return Err("the runs did not end in time".to_owned());
        }
        // The pace of a progress display, not a wait for something to have happened.
        std::thread::sleep(LOOK_EVERY);
    }
    watched.into_iter().map(Watched::result).collect()
}

/// The run itself: some commands answer with a run, some with a run and a plan.
fn run_of(answer: &Value) -> &Value {
    if answer["run"].is_object() { &answer["run"] } else { answer }
}

impl Watched {
    fn look(&mut self, fleet: &Fleet) -> Result<(), String> {
        let answer = fleet.coordctl(&["run", "show", &self.id, "-o", "json"])?.success()?.json()?;
        let run = run_of(&answer);
        let progress = &run["progress"];
        let phase = progress["phase"].as_str().unwrap_or("waiting").to_owned();
        if phase != self.phase && !std::io::stderr().is_terminal() {
            eprintln!("  {}: {phase}", self.title);
        }
        self.bar.set_message(phase.clone());
        self.phase = phase;
        let total = progress["bytes_total"].as_u64().unwrap_or(0);
        let done = progress["bytes_done"].as_u64().unwrap_or(0);
        self.bar.set_length(total.max(done));
        self.bar.set_position(done);
        if matches!(run["state"].as_str(), Some("succeeded" | "failed" | "cancelled" | "missed")) {
            self.bar.finish_and_clear();
            self.end = Some(run.clone());
        }
        Ok(())
    }

    fn result(self) -> Result<Value, String> {
        let run = self.end.unwrap_or_default();
        if run["state"] == "succeeded" {
            return Ok(run);
        }
        Err(format!(
            "{}: run {} ended as {}: {}\n  {}",
            self.title,
            self.id,
            run["state"].as_str().unwrap_or("unknown"),
            run["fault"]["message"].as_str().unwrap_or("no reason given"),
            run["fault"]["hint"].as_str().unwrap_or_default(),
        ))
    }
}
