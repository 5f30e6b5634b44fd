//! What every command works with: the connection, the output, and how to ask.

use std::io::{self, BufRead, IsTerminal, Write};

use jiff::Zoned;

use crate::at::At;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::document::Fields;
use crate::shown;

/// Asks at the terminal whether to go on.
pub fn ask(what: &str, where_it_is: &str) -> Result<(), Failure> {
    let mut prompt = io::stderr();
    write!(prompt, "{}\n{where_it_is}go on? [y/N] ", shown::safe(what))?;
    prompt.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if matches!(line.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::usage("not confirmed: nothing was done", "answer y, or repeat with --yes"))
    }
}

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
    /// The context asks before every change.
    pub protected: bool,
    /// Every such question is answered with yes.
    pub yes: bool,
}

impl Session {
    /// Reads `--at`.
    pub fn at(&self, text: Option<&str>) -> Result<At, Failure> {
        let Some(text) = text else { return Ok(At::Latest) };
        At::parse(text, &self.now).map_err(|error| Failure::usage(error.to_string(), "coordctl help time"))
    }

    /// In a protected context, asks before a change.
    pub fn change(&self, what: &str) -> Result<(), Failure> {
        self.refuse_names_of_fields()?;
        if !self.protected || self.yes {
            return Ok(());
        }
        if self.no_input || !io::stdin().is_terminal() {
            let text = format!("context {} is protected: {what} must be confirmed", self.context);
            return Err(Failure::usage(text, "repeat with --yes"));
        }
        ask(what, &format!("[context {}, protected] ", self.context))
    }

    /// Who asks for the names of fields wants no change.
    fn refuse_names_of_fields(&self) -> Result<(), Failure> {
        if self.out.fields != Some(Fields::Names) {
            return Ok(());
        }
        let text = "--fields without a value lists the fields of a result, and this command would change something";
        Err(Failure::usage(text, "ask a list or a show of the same things"))
    }

    /// Makes sure that a severe change is meant: the name typed at the prompt, or given with `--confirm`.
    pub fn confirm(&self, name: &str, given: Option<&str>, what: &str) -> Result<(), Failure> {
        self.refuse_names_of_fields()?;
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
