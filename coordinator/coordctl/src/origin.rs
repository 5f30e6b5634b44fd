//! Where a setting comes from: a flag wins over the environment, that over the context, that over the default.

use clap::ArgMatches;
use clap::parser::ValueSource;

/// Who set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// An environment variable.
    Environment,
    /// Nobody: the context, the file or the default says it.
    Unsaid,
}

/// The origins of the global options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origins {
    /// `--config`.
    pub config: Origin,
    /// `--context`.
    pub context: Origin,
    /// `--endpoint`.
    pub endpoint: Origin,
    /// `--output`.
    pub output: Origin,
    /// `--no-input`.
    pub no_input: Origin,
    /// `--color`.
    pub color: Origin,
}

impl Origins {
    /// Those of a command line that was read.
    #[must_use]
    pub fn of(matches: &ArgMatches) -> Origins {
        let of = |id: &str| match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Environment,
            Some(_) | None => Origin::Unsaid,
        };
        Origins {
            config: of("config"),
            context: of("context"),
            endpoint: of("endpoint"),
            output: of("output"),
            no_input: of("no_input"),
            color: of("color"),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::CommandFactory;

    use super::{Origin, Origins};

    #[test]
    fn a_global_flag_is_seen_before_and_behind_the_command() {
        for words in
            [["coordctl", "--context", "lab", "host", "list"], ["coordctl", "host", "list", "--context", "lab"]]
        {
            let matches = crate::Arguments::command().try_get_matches_from(words).unwrap();
            assert_eq!(Origins::of(&matches).context, Origin::Flag, "{words:?}");
            assert_eq!(Origins::of(&matches).endpoint, Origin::Unsaid);
        }
    }
}
