//! How a command fails: a fault for the person, printed once, and the exit code of the one table.

use std::io::{self, Write};

use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};

use crate::output::Output;
use crate::output::color::Colors;

/// Ends a command. `Ended` was reported already and only carries the exit code.
#[derive(Debug)]
pub enum Failure {
    /// Something to tell.
    Fault(Fault),
    /// The output went to somebody who stopped reading.
    Output(io::Error),
    /// Everything was said; the code follows from the result.
    Ended(Exit),
}

impl Failure {
    /// A wrong argument.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Fault(Fault::new(ErrorCode::InvalidArgument, message).with_hint(hint))
    }

    /// A wrong configuration file, or one that is not there.
    pub fn configuration(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Fault(Fault::new(ErrorCode::InvalidConfiguration, message).with_hint(hint))
    }

    /// A command line that the parser refused, in its own words less the usage.
    #[must_use]
    pub fn of_arguments(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut parts = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        let message = parts.next().unwrap_or_default();
        let tip = parts.find_map(|part| part.strip_prefix("tip: ").map(str::to_owned));
        let hint = tip.unwrap_or_else(|| "coordctl --help, or --help after any command".to_owned());
        Self::usage(message.strip_prefix("error: ").unwrap_or(&message), hint)
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Fault(fault) => fault.exit(),
            // `coordctl ... | head` is no failure of ours.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Failed,
            Self::Ended(exit) => *exit,
        }
    }

    /// Says it on standard error, as text or as one JSON object.
    pub fn report(&self, out: &Output) {
        let fault = match self {
            Self::Fault(fault) => fault.clone(),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
            Self::Output(error) => Fault::new(ErrorCode::Io, format!("cannot write the output: {error}")),
            Self::Ended(_) => return,
        };
        let text = if out.has_json_errors() { as_json(&fault) } else { as_text(&fault, out.colors) };
        // With standard error closed there is nobody left to tell.
        let _closed = io::stderr().write_all(text.as_bytes());
    }
}

fn as_text(fault: &Fault, colors: Colors) -> String {
    let mut text = colors.label(&format!("error: {}\n", super::shown::safe(&fault.message)));
    if !fault.hint.is_empty() {
        text.push_str(&colors.label(&format!("hint: {}\n", super::shown::safe(&fault.hint))));
    }
    if !fault.trace.is_empty() {
        text.push_str(&format!("trace: {}\n", fault.trace));
    }
    text
}

fn as_json(fault: &Fault) -> String {
    let object = serde_json::json!({
        "code": fault.code.as_str(),
        "exit": fault.exit().code(),
        "message": fault.message,
        "hint": fault.hint,
        "trace": fault.trace,
    });
    format!("{object}\n")
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use super::{as_json, as_text};
    use crate::output::color::Colors;
    use coord_shared::fault::{ErrorCode, Fault};

    #[test]
    fn an_error_says_what_and_what_to_do() {
        let fault = Fault::new(ErrorCode::NotFound, "no host web-9").with_hint("coordctl host list");
        assert_eq!(as_text(&fault, Colors::default()), "error: no host web-9\nhint: coordctl host list\n");
        let json: serde_json::Value = serde_json::from_str(&as_json(&fault)).unwrap_or_default();
        assert_eq!(json["exit"], 5);
        assert_eq!(json["code"], "not_found");
    }
}
