//! One row's measurement: the contestants take turns, round after round, so that what happens to the machine happens to all.
//! Who begins changes with each round, so that nobody always comes after the same one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::stopwatch::{Invocation, Sample, stored_bytes};

/// What is done before a turn, outside of its time.
#[derive(Clone, Debug)]
pub enum Before {
    /// A file, or a folder with all below, must not be there.
    Absent(PathBuf),
    /// An empty folder must be there.
    Empty(PathBuf),
    /// The second is a copy of the first; folders as trees of hard links, for writers that never write into a file again.
    Copy(PathBuf, PathBuf),
}

/// One of those who are measured.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// Its name in tables.
    pub name: &'static str,
    /// What is done before each turn.
    pub before: Vec<Before>,
    /// What is timed, one after the other; the sample is the mean.
    pub invocations: Vec<Invocation>,
    /// What it leaves, when its bytes are of interest.
    pub output: Option<PathBuf>,
    /// How often all of it is run in a turn; the sample is the mean. For what takes milliseconds.
    pub repeats: u32,
}

impl Contestant {
    /// One whose turns need nothing done before.
    pub fn new(name: &'static str, invocation: Invocation) -> Self {
        Self::of_all(name, vec![invocation])
    }

    /// One that does the same work on several things. The sample is the mean of all.
    pub fn of_all(name: &'static str, invocations: Vec<Invocation>) -> Self {
        Self { name, before: Vec::new(), invocations, output: None, repeats: 1 }
    }

    /// With something done before each turn.
    #[must_use]
    pub fn before(mut self, before: Before) -> Self {
        self.before.push(before);
        self
    }

    /// Writes a file or folder anew each turn, and its bytes are of interest.
    #[must_use]
    pub fn writes(mut self, output: &Path) -> Self {
        self.output = Some(output.to_owned());
        self.before(Before::Absent(output.to_owned()))
    }

    /// Run several times in a turn.
    #[must_use]
    pub fn repeated(mut self, repeats: u32) -> Self {
        self.repeats = repeats;
        self
    }

    /// As a person would type it; of several, the first.
    fn line(&self) -> String {
        let first = self.invocations.first().map(Invocation::line).unwrap_or_default();
        match self.invocations.len() {
            0 | 1 => first,
            more => format!("{first} (and {} like it)", more - 1),
        }
    }

    fn turn(&self, durable_in: Option<&Path>) -> anyhow::Result<Sample> {
        let (mut sum, mut runs) = (Sample::default(), 0.0);
        for invocation in (0..self.repeats).flat_map(|_| &self.invocations) {
            for before in &self.before {
                before.establish().with_context(|| format!("before {}", self.name))?;
            }
            let sample = invocation.time(durable_in)?;
            sum.wall_s += sample.wall_s;
            sum.cpu_s += sample.cpu_s;
            sum.peak_bytes = sum.peak_bytes.max(sample.peak_bytes);
            runs += 1.0;
        }
        sum.wall_s /= runs;
        sum.cpu_s /= runs;
        sum.stored_bytes = self.output.as_deref().map(stored_bytes).transpose()?;
        Ok(sum)
    }
}

impl Before {
    fn establish(&self) -> anyhow::Result<()> {
        match self {
            Self::Absent(path) => remove(path),
            Self::Empty(path) => {
                remove(path)?;
                Ok(fs::create_dir_all(path)?)
            }
            Self::Copy(from, to) => {
                remove(to)?;
                if from.is_dir() {
                    let status = Command::new("cp").arg("-al").arg("--").arg(from).arg(to).status()?;
                    ensure!(status.success(), "cp -al {} ended with {status}", from.display());
                    return Ok(());
                }
                fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
                Ok(())
            }
        }
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What one contestant took in all rounds that count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// The contestant.
    pub name: String,
    /// Its command, as a person would type it.
    pub command: String,
    /// One for each round, in order.
    pub samples: Vec<Sample>,
}

/// Lets all contestants take `rounds` turns, after one turn each that does not count. Each round begins with the next of them.
///
/// # Errors
/// A command fails; no figure is made of a failure.
pub fn hold(contestants: &[Contestant], rounds: u32, durable_in: Option<&Path>) -> anyhow::Result<Vec<Taken>> {
    let none = |contestant: &Contestant| Taken {
        name: contestant.name.to_owned(),
        command: contestant.line(),
        samples: Vec::new(),
    };
    let mut taken: Vec<Taken> = contestants.iter().map(none).collect();
    let mut order: Vec<usize> = (0..contestants.len()).collect();
    for round in 0..=rounds {
        for &number in &order {
            let (contestant, taken) = (&contestants[number], &mut taken[number]);
            let sample = contestant.turn(durable_in)?;
            eprintln!(
                "  round {round}{}: {} {:.3} s, {:.3} s of processor, {:.1} MiB",
                if round == 0 { " (does not count)" } else { "" },
                contestant.name,
                sample.wall_s,
                sample.cpu_s,
                mebibytes(sample.peak_bytes),
            );
            // The first round finds cold caches and fresh pages.
            if round > 0 {
                taken.samples.push(sample);
            }
        }
        let next = order.len().min(1);
        order.rotate_left(next);
    }
    Ok(taken)
}

/// For people.
#[must_use]
pub fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "display")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{Before, Contestant, Invocation, hold};

    #[test]
    fn contestants_take_turns_another_one_first_each_round_and_the_first_round_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let writer =
            |name: &'static str| Contestant::new(name, Invocation::shell(&format!("echo {name} >> \"$1\""), &[&log]));
        let taken = hold(&["a", "b", "c"].map(writer), 3, None).unwrap();
        assert_eq!(taken.iter().map(|taken| taken.samples.len()).collect::<Vec<_>>(), [3, 3, 3]);
        assert_eq!(std::fs::read_to_string(log).unwrap().replace('\n', ""), "abcbcacababc");
        assert_eq!(taken.iter().map(|taken| taken.name.as_str()).collect::<String>(), "abc");
    }

    #[test]
    fn work_on_several_things_is_done_on_all_of_them_in_each_turn() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let add = |what: &str| Invocation::shell(&format!("echo {what} >> \"$1\""), &[&log]);
        let contestant = Contestant::of_all("adder", vec![add("x"), add("y")]).repeated(2);
        let taken = hold(&[contestant], 1, None).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap().replace('\n', ""), "xyxy".repeat(2));
        assert!(taken[0].command.ends_with("(and 1 like it)"), "{}", taken[0].command);
    }

    #[test]
    fn each_turn_finds_what_it_needs_and_what_it_left_is_weighed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("kept")).unwrap();
        std::fs::write(at("kept/file"), [0; 10]).unwrap();
        let invocation =
            Invocation::shell("echo more >> \"$1\"; head -c 7 /dev/zero > \"$2\"/new", &[&at("out"), &at("tree")]);
        let contestant = Contestant::new("writer", invocation)
            .before(Before::Copy(at("kept"), at("tree")))
            .writes(&at("out"))
            .repeated(2);
        let taken = hold(&[contestant], 1, None).unwrap();
        assert_eq!(taken[0].samples[0].stored_bytes, Some(5));
        assert!(at("tree/new").exists() && !at("kept/new").exists());
    }
}
