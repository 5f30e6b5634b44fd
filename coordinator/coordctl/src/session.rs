//! What every command works with: the connection, the output, and how to ask.

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};

use jiff::Zoned;

use crate::at::At;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::document::Fields;
use crate::shown;

/// How questions are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// Fail instead of asking.
    pub no_input: bool,
    /// Yes to all but the severe.
    pub yes: bool,
}

impl Answers {
    /// Asks before a change that is not undone by the opposite command: shows what it does, names the context, takes y for yes.
    pub fn moderate(self, place: Place<'_>, what: &str, plan: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if self.no_input || !io::stdin().is_terminal() {
            let why = if place.protected { format!("context {} is protected: ", place.context) } else { String::new() };
            let hint = "repeat with --yes; with -n to see what would change";
            return Err(Failure::usage(format!("{why}{what} must be confirmed"), hint));
        }
        ask(&format!("{plan}{what}"), place)
    }
}

/// Where something changes, as questions name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The context's name.
    pub context: &'a str,
    /// It asks before every change.
    pub protected: bool,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[context {}{}]", self.context, if self.protected { ", protected" } else { "" })
    }
}

/// Asks at the terminal whether to go on.
fn ask(what: &str, place: Place<'_>) -> Result<(), Failure> {
    let mut prompt = io::stderr();
    write!(prompt, "{}\n{place} go on? [y/N] ", shown::safe(what))?;
    prompt.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if is_yes(&line) {
        Ok(())
    } else {
        Err(Failure::usage("not confirmed: nothing was done", "answer y, or repeat with --yes"))
    }
}

/// Whether an answer means yes. An empty line does not.
pub fn is_yes(line: &str) -> bool {
    matches!(line.trim(), "y" | "Y" | "yes")
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

    /// Before a mild change, one that is undone by another command or that only begins something: asks in a protected context.
    pub fn change(&self, what: &str) -> Result<(), Failure> {
        self.refuse_names_of_fields()?;
        if self.protected { self.answers().moderate(self.place(), what, "") } else { Ok(()) }
    }

    /// Before a moderate change: asks after showing the plan, in any context. The plan is whole lines, or empty.
    pub fn moderate(&self, what: &str, plan: &str) -> Result<(), Failure> {
        self.refuse_names_of_fields()?;
        self.answers().moderate(self.place(), what, plan)
    }

    /// How its questions are answered.
    #[must_use]
    pub const fn answers(&self) -> Answers {
        Answers { no_input: self.no_input, yes: self.yes }
    }

    fn place(&self) -> Place<'_> {
        Place { context: &self.context, protected: self.protected }
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
        write!(prompt, "{}\n{} type {name} to go on: ", shown::safe(what), self.place())?;
        prompt.flush()?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        if line.trim() == name { Ok(()) } else { Err(Failure::usage("not confirmed: nothing was done", repeat)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answers, Place, is_yes};

    #[test]
    fn nobody_says_yes_by_accident() {
        assert!(is_yes("y\n") && is_yes(" yes ") && is_yes("Y"));
        assert!(!is_yes("\n") && !is_yes("n\n") && !is_yes("yep") && !is_yes(""));
    }

    #[test]
    fn without_a_terminal_a_moderate_change_says_what_to_pass() {
        let answers = Answers { no_input: true, yes: false };
        let refusal = |protected| {
            let place = Place { context: "lab", protected };
            answers.moderate(place, "the limit goes", "").map_err(|failure| format!("{failure:?}"))
        };
        let plain = refusal(false).err().unwrap_or_default();
        assert!(plain.contains("\"the limit goes must be confirmed\"") && plain.contains("--yes"), "{plain}");
        let protected = refusal(true).err().unwrap_or_default();
        assert!(protected.contains("context lab is protected: the limit goes must be confirmed"), "{protected}");
        let place = Place { context: "lab", protected: true };
        assert!(Answers { yes: true, ..answers }.moderate(place, "it", "").is_ok());
        assert_eq!(place.to_string(), "[context lab, protected]");
    }
}
