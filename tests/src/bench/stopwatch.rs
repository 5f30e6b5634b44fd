//! Runs one program to its end and says what it took: wall clock, processor time and peak memory of it and its children.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use wait4::Wait4 as _;

/// What one run took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// From start to end, with the sync where the output is no memory file system.
    pub wall_s: f64,
    /// Processor time of it and all its children, in both modes.
    pub cpu_s: f64,
    /// The largest resident set of it or one of its children.
    pub peak_bytes: u64,
    /// What it left behind, where that is measured.
    pub stored_bytes: Option<u64>,
}

/// A program with its arguments, as data: it is run again and again.
#[derive(Clone, Debug)]
pub struct Invocation {
    program: String,
    arguments: Vec<Vec<u8>>,
    folder: Option<PathBuf>,
    environment: Vec<(&'static str, String)>,
}

impl Invocation {
    /// A program found by its path or its name.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_string_lossy().into_owned();
        Self { program, arguments: Vec::new(), folder: None, environment: Vec::new() }
    }

    /// A line for the shell, in which `$1` and so on are `arguments`; any failing part of a pipe fails it.
    pub fn shell(line: &str, arguments: &[&Path]) -> Self {
        let shell = Self::new("bash").arg("-o").arg("pipefail").arg("-e").arg("-c").arg(line).arg("measure");
        arguments.iter().fold(shell, Self::arg)
    }

    /// With one argument more.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().as_encoded_bytes().to_vec());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<'a>(self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// With another program's whole command as arguments.
    #[must_use]
    pub fn then(mut self, other: &Self) -> Self {
        self.arguments.push(other.program.clone().into_bytes());
        self.arguments.extend(other.arguments.iter().cloned());
        self.folder.clone_from(&other.folder);
        self.environment.clone_from(&other.environment);
        self
    }

    /// Run in a folder.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// As a person would type it, for messages and documents.
    #[must_use]
    pub fn line(&self) -> String {
        let arguments = self.arguments.iter().map(|argument| String::from_utf8_lossy(argument));
        std::iter::once(self.program.as_str().into()).chain(arguments).collect::<Vec<_>>().join(" ")
    }

    fn command(&self) -> Command {
        use std::os::unix::ffi::OsStrExt as _;
        let mut command = Command::new(&self.program);
        command.args(self.arguments.iter().map(|argument| OsStr::from_bytes(argument)));
        command.envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Runs it once. `durable_in` is a folder whose file system is synced before the clock stops.
    ///
    /// # Errors
    /// It cannot be started, or does not end well.
    pub fn time(&self, durable_in: Option<&Path>) -> anyhow::Result<Sample> {
        let complaints = tempfile::tempfile().context("a file for error messages")?;
        let mut command = self.command();
        command.stderr(complaints.try_clone()?);
        forget_own_peak();
        let begun = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program))?;
        let used = child.wait4().with_context(|| format!("waiting for {}", self.program))?;
        if let Some(folder) = durable_in {
            rustix::fs::syncfs(File::open(folder)?).with_context(|| format!("sync of {}", folder.display()))?;
        }
        let wall = begun.elapsed();
        if !used.status.success() {
            bail!("{} ended with {}: {}", self.line(), used.status, last_words(&complaints));
        }
        Ok(Sample {
            wall_s: wall.as_secs_f64(),
            cpu_s: (used.rusage.utime + used.rusage.stime).as_secs_f64(),
            peak_bytes: used.rusage.maxrss,
            stored_bytes: None,
        })
    }

    /// What it prints on standard output; `None` where the program is not installed.
    #[must_use]
    pub fn output(&self) -> Option<String> {
        let output = self.command().stdout(Stdio::piped()).stderr(Stdio::null()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The kernel counts the peak of whoever starts a program as that program's too: ours is set back to what is in use now.
fn forget_own_peak() {
    // Where this is not allowed, small figures are ours: a few megabytes.
    let _refused = fs::write("/proc/self/clear_refs", "5");
}

fn last_words(mut complaints: &File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut text = Vec::new();
    let read = complaints.rewind().and_then(|()| complaints.read_to_end(&mut text));
    if let Err(error) = read {
        return format!("(its messages cannot be read: {error})");
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}

/// Bytes of a file, or of all files below a folder; nothing where there is nothing.
///
/// # Errors
/// A folder cannot be listed.
pub fn stored_bytes(path: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        return Ok(metadata.size());
    }
    let mut total = 0;
    for entry in fs::read_dir(path)? {
        total += stored_bytes(&entry?.path())?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{Invocation, stored_bytes};

    #[test]
    fn processor_time_and_memory_of_every_part_of_a_pipe_are_counted() {
        let line = "head -c 64m /dev/zero | tail -c 64m | wc -c";
        let sample = Invocation::shell(line, &[]).time(None).unwrap();
        // `tail` keeps all it was asked for.
        assert!(sample.peak_bytes > 60 << 20, "{sample:?}");
        assert!(sample.cpu_s > 0.0 && sample.wall_s > 0.0, "{sample:?}");
    }

    #[test]
    fn memory_that_this_process_once_had_is_not_counted() {
        let held = vec![1_u8; 200 << 20];
        assert!(held.iter().all(|byte| *byte == 1));
        drop(held);
        let sample = Invocation::new("true").time(None).unwrap();
        assert!(sample.peak_bytes < 100 << 20, "{sample:?}");
    }

    #[test]
    fn a_program_that_fails_in_a_pipe_is_no_figure_and_its_words_are_told() {
        let error = Invocation::shell("ls \"$1\" | cat", &["/no/such/folder".as_ref()]).time(None).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }

    #[test]
    fn stored_bytes_are_those_of_all_files_below() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("below")).unwrap();
        std::fs::write(folder.path().join("one"), [0; 100]).unwrap();
        std::fs::write(folder.path().join("below/two"), [0; 20]).unwrap();
        assert_eq!(stored_bytes(folder.path()).unwrap(), 120);
        assert_eq!(stored_bytes(&folder.path().join("none")).unwrap(), 0);
    }
}
