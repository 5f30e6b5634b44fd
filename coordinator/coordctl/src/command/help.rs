//! Help topics that belong to no single command.

use clap::ValueEnum;
use coord_shared::exit::Exit;

use crate::at;
use crate::failure::Failure;
use crate::output::Output;

/// The topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// What each exit code means.
    ExitCodes,
    /// How to say a time.
    Time,
    /// How to select hosts by label.
    Selectors,
    /// Tables, JSON, paths.
    Output,
    /// Configuration file and environment.
    Environment,
}

/// Prints a topic.
pub fn run(topic: Topic, out: Output) -> Result<(), Failure> {
    let text = match topic {
        Topic::ExitCodes => Exit::ALL.iter().map(|exit| format!("{:>3}  {}\n", exit.code(), exit.meaning())).collect(),
        Topic::Time => format!(
            "{}\n\nLocal zone unless one is given. A time that the clocks skip or repeat is refused, with both readings.\n",
            at::FORMS
        ),
        Topic::Selectors => SELECTORS.to_owned(),
        Topic::Output => OUTPUT.to_owned(),
        Topic::Environment => ENVIRONMENT.to_owned(),
    };
    out.print(&text)
}

const SELECTORS: &str = "\
Labels select hosts, as in Kubernetes; parts are joined with commas and all must hold:
  role=web          env!=dev          role in (web, db)          zone notin (a, b)
  canary            has the label     !canary                    has it not
";

const OUTPUT: &str = r#"Results go to standard output, talk and progress to standard error.
  -o table          for people; columns may be added
  -o wide           the same with all columns
  -o json           one document; fields are only ever added, words of enums may grow
  -o jsonl          a list as one object a line
  -o yaml           the same document as YAML
  -o name           the name of each thing, one a line, as other commands take it: HOST, HOST/POLICY, a run's id
  --fields          the names of the fields that the document has
  --fields a,b.c    only these, in every form
  --watch           a list, a show or status again whenever it has changed, until Ctrl-C. With -o jsonl each line is an event:
                    {"event": "added" | "changed" | "removed", "row": ...}, and at the end {"event": "result", "document": ...}
Colours only where the stream is a terminal, and never alone: NO_COLOR, TERM=dumb and --color never turn them off,
CLICOLOR_FORCE and --color always turn them on.
Instants are RFC 3339 in UTC. A path is text; where it is not UTF-8 its bytes are escaped, and path_hex has them exactly.
"#;

const ENVIRONMENT: &str = "\
$XDG_CONFIG_HOME/coordctl/config.toml holds contexts: endpoints, the fleet's authority, your certificate and key.
A flag wins over the environment, that over the context, that over the default.
  COORDCTL_CONFIG     the file              COORDCTL_CONTEXT    the context's name
  COORDCTL_ENDPOINT   host:port             COORDCTL_OUTPUT     form, such as json
  COORDCTL_NO_INPUT   true: never ask       COORDCTL_COLOR      auto, always or never
  COORDCTL_TOKEN_FILE the token of login    NO_COLOR, CLICOLOR_FORCE, TERM=dumb
A context with protected = true asks before every change; --yes answers.
";

#[cfg(test)]
mod tests {
    use coord_shared::exit::Exit;

    #[test]
    fn every_exit_code_has_one_meaning() {
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        codes.dedup();
        assert_eq!(codes.len(), Exit::ALL.len());
    }
}
