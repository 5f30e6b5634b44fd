//! Whether a stream is coloured, and how. Pure but for [`Colors::of`]. A colour never says what the words do not.

use std::io::{self, IsTerminal};

use clap::ColorChoice;

/// Which streams are coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Colors {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// All is well.
    Good,
    /// It is not.
    Bad,
    /// Somebody should look.
    Warning,
    /// What to do.
    Hint,
    /// Names of columns.
    Header,
}

impl Paint {
    const fn code(self) -> &'static str {
        match self {
            Paint::Good => "32",
            Paint::Bad => "1;31",
            Paint::Warning => "33",
            Paint::Hint => "36",
            Paint::Header => "1",
        }
    }

    /// The text in this colour.
    #[must_use]
    pub fn on(self, text: &str) -> String {
        format!("\x1b[{}m{text}\x1b[0m", self.code())
    }
}

impl Colors {
    /// As asked for, as the environment says, and as the streams are.
    #[must_use]
    pub fn of(choice: ColorChoice) -> Self {
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let wanted = |is_terminal| is_wanted(choice, is_terminal, variable);
        Self { stdout: wanted(io::stdout().is_terminal()), stderr: wanted(io::stderr().is_terminal()) }
    }

    /// A line of talk with its first word coloured, if that is `error:`, `warning:`, `hint:` or `next:`.
    #[must_use]
    pub fn label(self, text: &str) -> String {
        let paint = |label: &str| match label {
            "error" => Some(Paint::Bad),
            "warning" => Some(Paint::Warning),
            "hint" | "next" => Some(Paint::Hint),
            _ => None,
        };
        match text.split_once(':') {
            Some((label, rest)) if self.stderr => match paint(label) {
                Some(paint) => format!("{}{rest}", paint.on(&format!("{label}:"))),
                None => text.to_owned(),
            },
            Some(_) | None => text.to_owned(),
        }
    }
}

/// What was asked for wins, then `NO_COLOR`, then `CLICOLOR_FORCE`, then a dumb terminal, then whether it is one at all.
fn is_wanted(choice: ColorChoice, is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if set("NO_COLOR").is_some() => false,
        ColorChoice::Auto if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        ColorChoice::Auto if set("TERM").is_some_and(|value| value == "dumb") => false,
        ColorChoice::Auto => is_terminal,
    }
}

#[cfg(test)]
mod tests {
    use super::{Colors, is_wanted};
    use clap::ColorChoice::{Always, Auto, Never};

    #[test]
    fn a_stream_is_coloured_where_that_is_wanted_and_can_be_seen() {
        let set = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        assert!(is_wanted(Auto, true, set(&[("TERM", "xterm")])) && !is_wanted(Auto, false, set(&[])));
        assert!(!is_wanted(Auto, true, set(&[("NO_COLOR", "1")])) && is_wanted(Auto, true, set(&[("NO_COLOR", "")])));
        assert!(!is_wanted(Auto, true, set(&[("TERM", "dumb")])));
        assert!(is_wanted(Auto, false, set(&[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")])));
        assert!(!is_wanted(Auto, false, set(&[("CLICOLOR_FORCE", "0")])));
        assert!(!is_wanted(Auto, true, set(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")])));
        assert!(is_wanted(Always, false, set(&[("NO_COLOR", "1")])));
        assert!(!is_wanted(Never, true, set(&[("CLICOLOR_FORCE", "1")])));
    }

    #[test]
    fn a_label_is_coloured_and_the_words_stay() {
        let colors = Colors { stdout: false, stderr: true };
        assert_eq!(colors.label("hint: look"), "\x1b[36mhint:\x1b[0m look");
        assert_eq!(colors.label("run 8f3c: done"), "run 8f3c: done");
        assert_eq!(Colors::default().label("error: no"), "error: no");
    }
}
