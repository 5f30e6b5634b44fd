//! A machine of a fleet under test, whatever it is made of.

use std::path::{Path, PathBuf};

use crate::harness::fleet::Answer;

/// One machine with one program of the fleet on it: a coordinator, its database, or an agent.
pub trait Host: Send {
    /// Its name in the fleet.
    fn name(&self) -> &str;

    /// Starts its program and waits until it serves what it serves by itself; an agent may still be looking for its coordinator.
    ///
    /// # Errors
    /// It ended, or did not serve in time; with the last it said.
    fn start(&mut self) -> Result<(), String>;

    /// Asks its program to end, and waits for it.
    ///
    /// # Errors
    /// It did not end in time.
    fn stop(&mut self) -> Result<(), String>;

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// It could not be killed.
    fn kill(&mut self) -> Result<(), String>;

    /// Holds every process of it still; nobody is told.
    ///
    /// # Errors
    /// As the system.
    fn pause(&mut self) -> Result<(), String>;

    /// Lets a paused one go on.
    ///
    /// # Errors
    /// As the system.
    fn resume(&mut self) -> Result<(), String>;

    /// Takes it off the network.
    ///
    /// # Errors
    /// As the system.
    fn cut(&mut self) -> Result<(), String>;

    /// Puts it back.
    ///
    /// # Errors
    /// As the system.
    fn mend(&mut self) -> Result<(), String>;

    /// Whether its program runs (a paused one does).
    fn is_running(&mut self) -> bool;

    /// Runs a program of the product on it.
    ///
    /// # Errors
    /// It could not be started.
    fn run(&self, program: Program, arguments: &[&str]) -> Result<Answer, String>;

    /// Sets a variable in the environment of its next start; `None` takes it away.
    fn set_variable(&mut self, name: &str, value: Option<&str>);

    /// A path below what the host's policies call `/`, as this program reaches it.
    fn source(&self, path: &str) -> PathBuf;

    /// The same path as the host's own programs name it.
    fn named(&self, path: &str) -> String;

    /// A file as the host's own programs name it, as this program reaches it.
    fn file(&self, path: &Path) -> PathBuf;

    /// The last lines of what its program said.
    fn last_lines(&self) -> String;
}

/// A program of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `coordinator`
    Coordinator,
    /// `coordctl`, as the fleet's first operator.
    Coordctl,
    /// `coord-agent`
    Agent,
}
