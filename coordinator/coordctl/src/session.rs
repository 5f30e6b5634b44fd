//! What every command works with: the connection, the output, and how to ask.

use std::io::{self, BufRead, IsTerminal, Write};

use jiff::Zoned;

use crate::at::At;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;

/// One command's surroundings.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub client: Client,
    /// Where results go.
    pub out: Output,
    /// Fail instead of asking.
    pub no_input: bool,
    /// Now, in the operator's zone.
    pub now: Zoned,
    /// The context in use, named in questions.
    pub context: String,
}

impl Session {
    /// Reads `--at`.
    pub fn at(&self, text: Option<&str>) -> Result<At, Failure> {
        let Some(text) = text else { return Ok(At::Latest) };
        At::parse(text, &self.now).map_err(|error| Failure::usage(error.to_string(), "coordctl help time"))
    }

    /// Makes sure that a severe change is meant: the name typed at the prompt, or given with `--confirm`.
    pub fn confirm(&self, name: &str, given: Option<&str>, what: &str) -> Result<(), Failure> {
        let repeat = format!("repeat with --confirm={name}");
        if let Some(given) = given {
            return if given == name {
                Ok(())
            } else {
                Err(Failure::usage(format!("--confirm names {given}, not {name}"), repeat))
            };
        }
        if self.no_input || !io::stdin().is_terminal() {
            return Err(Failure::usage(format!("{what} must be confirmed"), repeat));
        }
        let mut prompt = io::stderr();
        write!(prompt, "{what}\n[context {}] type {name} to go on: ", self.context)?;
        prompt.flush()?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        if line.trim() == name { Ok(()) } else { Err(Failure::usage("not confirmed: nothing was done", repeat)) }
    }
}
