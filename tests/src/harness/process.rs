//! A process of the fleet: started, watched, killed, and never left behind.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait::wait_for;

/// How long a process may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// One running process with its output in a file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both output streams appended to `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of what it printed, for an error message.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// As kill(2); an ended process is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match kill_process(Pid::from_child(&self.child), signal) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Kills it at once, as a power cut would, and waits for it.
    ///
    /// # Errors
    /// As kill(2) and wait(2).
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Asks it to end and waits for it.
    ///
    /// # Errors
    /// It was still there after the deadline.
    pub fn stop(&mut self) -> Result<ExitStatus, String> {
        self.signal(Signal::TERM).map_err(|error| error.to_string())?;
        let name = self.name.clone();
        wait_for(&format!("{name} to end after SIGTERM"), STOP_DEADLINE, || {
            self.child.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| "still running".to_owned())
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ask first: an embedded database server goes with its coordinator.
        if self.ended().is_none() && self.stop().is_err() {
            // It ended meanwhile, or cannot be killed: nothing is left to do about it in a drop.
            let _ended = self.kill();
        }
    }
}
