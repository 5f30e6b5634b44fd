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
pub fn run(topic: Topic, mut out: Output) -> Result<(), Failure> {
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
    out.page();
    let printed = out.print(&text);
    out.end_page()?;
    printed
}

/// Examples of the commands that are used most. Their help begins with them.
const EXAMPLES: &[(&[&str], &[&str])] = &[
    (
        &[],
        &[
            "coordctl status",
            "coordctl restore web-17/etc --at \"yesterday 14:00\"",
            "coordctl ls web-17/etc --at 2026-11-20",
            "coordctl job run web-17/web",
            "coordctl explain web-17/web",
        ],
    ),
    (&["status"], &["coordctl status", "coordctl status web-17 --check"]),
    (
        &["restore"],
        &[
            "coordctl restore web-17/etc --at \"yesterday 14:00\"",
            "coordctl restore web-17/etc/nginx --at \"before 8f3c1d2e\" --dry-run",
            "coordctl restore web-17 --to web-18 --to-dir /srv/rescue",
        ],
    ),
    (&["ls"], &["coordctl ls web-17/etc", "coordctl ls web-17/etc --at 2026-11-20 -o json"]),
    (&["cat"], &["coordctl cat web-17/etc/hosts --at \"2h ago\""]),
    (&["explain"], &["coordctl explain web-17/web"]),
    (&["policy", "preview"], &["coordctl policy preview -f web.toml --host web-17"]),
    (&["policy", "apply"], &["coordctl policy apply -f web.toml", "coordctl policy apply -f policies/ --yes"]),
    (&["policy", "edit"], &["coordctl policy edit web", "coordctl policy edit web --dry-run"]),
    (&["job", "run"], &["coordctl job run web-17/web", "coordctl job run web-17/web --level full --detach"]),
    (&["host", "pause"], &["coordctl host pause web-17 --until \"2026-11-29 06:00\" --reason \"new disks\""]),
    (&["run", "watch"], &["coordctl run watch 8f3c1d2e --timeout 30m"]),
    (&["catalog", "rebuild"], &["coordctl catalog rebuild web-17/web", "coordctl catalog rebuild --all --detach"]),
    (&["server", "drain"], &["coordctl server drain", "coordctl server drain 6a718293 --dry-run"]),
    (&["token", "create"], &["coordctl token create --label role=web --label env=prod"]),
];

/// Help with the examples before the usage, which comes before the options.
const EXAMPLES_FIRST: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Adds the examples.
pub fn with_examples(command: clap::Command) -> clap::Command {
    EXAMPLES.iter().fold(command, |command, (path, lines)| add_examples(command, path, lines))
}

fn add_examples(mut command: clap::Command, path: &[&str], lines: &[&str]) -> clap::Command {
    match path.split_first() {
        Some((name, rest)) => {
            if let Some(inner) = command.find_subcommand_mut(name) {
                *inner = add_examples(std::mem::take(inner), rest, lines);
            }
            command
        }
        None => command.before_help(format!("Examples:\n  {}", lines.join("\n  "))).help_template(EXAMPLES_FIRST),
    }
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
  run watch         with -o jsonl: {"event": "progress", "document": RUN} for each change, at the end {"event": "result", ...}
Colours only where the stream is a terminal, and never alone: NO_COLOR, TERM=dumb and --color never turn them off,
CLICOLOR_FORCE and --color always turn them on.
Explanations, differences, logs and these topics go through $PAGER where the terminal is too small for them; tables never do.
A list that is cut says on standard error how many more there are; --limit 0 lists all.
Instants are RFC 3339 in UTC. A path is text; where it is not UTF-8 its bytes are escaped, and path_hex has them exactly.
"#;

const ENVIRONMENT: &str = "\
$XDG_CONFIG_HOME/coordctl/config.toml holds contexts: endpoints, the fleet's authority, your certificate and key.
A flag wins over the environment, that over the context, that over the default.
  COORDCTL_CONFIG     the file              COORDCTL_CONTEXT    the context's name
  COORDCTL_ENDPOINT   host:port             COORDCTL_OUTPUT     form, such as json
  COORDCTL_NO_INPUT   true: never ask       COORDCTL_COLOR      auto, always or never
  COORDCTL_TOKEN_FILE the token of login    NO_COLOR, CLICOLOR_FORCE, TERM=dumb
  VISUAL, EDITOR      for policy edit       PAGER               for long text on a terminal
What is not undone by another command (a policy applied, labels, a pause of a policy or the fleet, entries made anew, a context removed)
is asked about after it was shown; --yes answers. A context with protected = true asks before every change. What ends something for
good wants its name: typed, or with --confirm. coordctl context show says where each setting comes from.
";

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use coord_shared::exit::Exit;

    #[test]
    fn every_example_is_a_command_that_there_is() {
        for line in super::EXAMPLES.iter().flat_map(|(_, lines)| *lines) {
            // Every other part stood between quotes.
            let parts = line.split('"').enumerate();
            let words: Vec<&str> = parts
                .flat_map(|(turn, part)| if turn % 2 == 1 { vec![part] } else { part.split_whitespace().collect() })
                .collect();
            let parsed = crate::Arguments::try_parse_from(&words);
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err().map(|error| error.to_string()));
        }
    }

    #[test]
    fn every_exit_code_has_one_meaning() {
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        codes.dedup();
        assert_eq!(codes.len(), Exit::ALL.len());
    }
}
