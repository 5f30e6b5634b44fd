//! `coordctl`: the operator's command line. Arguments and environment are read here; a command is a file in `command/`.

mod at;
mod client;
mod command;
mod complete;
mod context;
mod failure;
mod json;
mod origin;
mod output;
mod place;
mod session;
mod shown;
mod wait;
mod watch;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::styling::Styles;
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use coord_shared::clock::{Clock, SystemClock};
use coord_shared::exit::Exit;
use jiff::tz::TimeZone;

use command::backup::BackupCommand;
use command::catalog::CatalogCommand;
use command::context::{ContextCommand, Given};
use command::diff::DiffArgs;
use command::files::{CatArgs, LsArgs};
use command::fleet::{ExplainArgs, StatusArgs};
use command::generate::{CompletionArgs, ManArgs};
use command::help::Topic;
use command::history::HistoryArgs;
use command::host::HostCommand;
use command::job::JobCommand;
use command::limit::LimitCommand;
use command::login::{LoginArgs, LogoutArgs};
use command::pause::FleetCommand;
use command::policy::PolicyCommand;
use command::report::ReportCommand;
use command::restore::RestoreArgs;
use command::run::RunCommand;
use command::schedule::ScheduleArgs;
use command::server::ServerCommand;
use command::token::TokenCommand;
use command::user::UserCommand;
use command::what_if::WhatIfArgs;
use context::Choice;
use failure::Failure;
use origin::Origins;
use output::color::Colors;
use output::document::Fields;
use output::{Format, Output};
use session::{Answers, Session};

/// Protects and restores a fleet of hosts.
#[derive(Debug, Parser)]
#[command(name = "coordctl", disable_help_subcommand = true, infer_subcommands = false, after_help = TOPICS)]
struct Arguments {
    /// Configuration file.
    #[arg(help_heading = GLOBAL, long, global = true, env = "COORDCTL_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Context in it.
    #[arg(help_heading = GLOBAL, long, global = true, env = "COORDCTL_CONTEXT", value_name = "NAME", hide_env_values = true, add = completer(complete::contexts))]
    context: Option<String>,
    /// Coordinator, instead of the context's.
    #[arg(help_heading = GLOBAL, long, global = true, env = "COORDCTL_ENDPOINT", value_name = "HOST:PORT", hide_env_values = true)]
    endpoint: Option<String>,
    /// Form of the result.
    #[arg(help_heading = GLOBAL, short = 'o', long, global = true, env = "COORDCTL_OUTPUT", default_value = "table", hide_env_values = true)]
    output: Format,
    /// Only these fields of the JSON document, in any form; without a value: their names.
    #[arg(help_heading = GLOBAL, long, global = true, value_name = "NAME,...", num_args = 0..=1, default_missing_value = "")]
    fields: Option<String>,
    /// Print a list or a status again whenever it changes.
    #[arg(help_heading = GLOBAL, long, global = true)]
    watch: bool,
    /// Tables without headers.
    #[arg(help_heading = GLOBAL, long, global = true)]
    no_headers: bool,
    /// Say nothing on standard error but errors.
    #[arg(help_heading = GLOBAL, short = 'q', long, global = true)]
    quiet: bool,
    /// Fail instead of asking.
    #[arg(help_heading = GLOBAL, long, global = true, env = "COORDCTL_NO_INPUT", hide_env_values = true)]
    no_input: bool,
    /// Answer yes to what is asked before a change; names that have to be typed are given with --confirm.
    #[arg(help_heading = GLOBAL, short = 'y', long, global = true)]
    yes: bool,
    /// When to colour.
    #[arg(
        help_heading = GLOBAL,
        long,
        global = true,
        env = "COORDCTL_COLOR",
        default_value = "auto",
        value_name = "WHEN",
        hide_env_values = true
    )]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

/// Lets the shell ask a function for values.
fn completer(offer: fn(&OsStr) -> Vec<CompletionCandidate>) -> ArgValueCompleter {
    ArgValueCompleter::new(offer)
}

/// What every command takes.
const GLOBAL: &str = "Global options";

const TOPICS: &str = "Topics: coordctl help exit-codes | time | selectors | output | environment";

#[derive(Debug, Subcommand)]
enum Command {
    /// One screen: am I safe, and what first.
    Status(StatusArgs),
    /// Restore a host, folders or files as they were at a time.
    Restore(RestoreArgs),
    /// List a folder as it was at a time.
    Ls(LsArgs),
    /// Print a file as it was at a time.
    Cat(CatArgs),
    /// List the versions of a path, with the restore points that have them.
    History(HistoryArgs),
    /// List what was added, removed and changed between two times.
    ///
    /// A folder that differs in times alone is not different. What changed is said for each path: kind, content, mode, owner, mtime,
    /// link_target, flags, or attributes (extended attributes, access lists and what else a listing does not show).
    Diff(DiffArgs),
    /// Say why each level was chosen.
    Explain(ExplainArgs),
    /// Say what a policy file would have made of the past. Nothing is applied.
    ///
    /// The engine decides again for every recorded run, at the time it had and by what its scan found. Where the replay has another full
    /// to stand on than history had, sizes and times are estimated from this job's own past, and the runs are counted as such. Other due
    /// times, sources and codecs leave no trace in history: the answer says where the file has them.
    WhatIf(WhatIfArgs),
    /// List the runs that are due ahead, with a bar for each night.
    ///
    /// Each night shows what its fulls (#) and differentials (-) are expected to store, before compression. The levels are those that the
    /// engine would choose by what is known now; each run decides again by what it finds.
    Schedule(ScheduleArgs),
    /// The fleet as a whole: let nothing begin on it, and again.
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// Protected machines.
    #[command(subcommand)]
    Host(HostCommand),
    /// What is protected, when and how.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// A policy on a host: list them, run one now.
    #[command(subcommand)]
    Job(JobCommand),
    /// How many runs go on at once: over the fleet, on each host, into each target, on groups of hosts.
    #[command(subcommand)]
    Limit(LimitCommand),
    /// Executions of backups, verifications and restores.
    #[command(subcommand)]
    Run(RunCommand),
    /// Restore points.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Entries of backups: a cache of sealed indexes.
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// The coordinators themselves: how they are, and letting one leave.
    #[command(subcommand)]
    Server(ServerCommand),
    /// Figures of the fleet.
    #[command(subcommand)]
    Report(ReportCommand),
    /// Secrets with which hosts and operators join.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Who may operate the fleet.
    #[command(subcommand)]
    User(UserCommand),
    /// Log in with an operator's token.
    Login(LoginArgs),
    /// Log out: remove a context's certificate and key.
    ///
    /// Where the coordinators are stays for the next login. The coordinator is not told: a copy of the key counts until the certificate
    /// ends. coordctl user disable ends all certificates of a user.
    Logout(LogoutArgs),
    /// Say who the coordinator takes you for, and what you may do.
    Whoami,
    /// Coordinators to talk to, and as whom.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Versions of this program and of the coordinator.
    Version,
    /// Print what makes bash, zsh or fish complete commands, hosts and paths.
    ///
    /// bash: coordctl completion bash > ~/.local/share/bash-completion/completions/coordctl;
    /// zsh: coordctl completion zsh > _coordctl, in a folder of $fpath;
    /// fish: coordctl completion fish > ~/.config/fish/completions/coordctl.fish.
    Completion(CompletionArgs),
    /// Write man pages into a folder.
    Man(ManArgs),
    /// Explain a topic.
    Help {
        /// The topic; without one, this help.
        topic: Option<Topic>,
    },
}

fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(command).var(command::generate::VARIABLE).complete();
    let parsed = parser().try_get_matches().and_then(|matches| {
        let arguments = Arguments::from_arg_matches(&matches)?;
        Ok((matches, arguments))
    });
    let (matches, arguments) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    let mut out = Output::new(arguments.output);
    out.no_headers = arguments.no_headers;
    out.quiet = arguments.quiet;
    out.colors = Colors::of(arguments.color);
    let told = match read_fields(&arguments) {
        Ok(fields) => {
            out.fields = fields;
            if arguments.watch { watch::refuse_others(&matches) } else { Ok(()) }
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = told {
        failure.report(&out);
        return failure.exit().into();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Failure::Output(error).report(&out);
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(run(&arguments, Origins::of(&matches), out.clone())) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            failure.report(&out);
            failure.exit().into()
        }
    }
}

/// Help and versions go where clap puts them; what cannot be read is told in the form that was asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    let format = wanted_format(words());
    let out = Output::new(format.unwrap_or(Format::Table));
    if !error.use_stderr() || !out.has_json_errors() {
        error.exit();
    }
    let failure = Failure::of_arguments(error);
    failure.report(&out);
    failure.exit().into()
}

/// The form that a command line asks for which does not parse, or else the environment.
fn wanted_format(words: impl Iterator<Item = String>) -> Option<Format> {
    let (mut asked, mut words) = (None, words.take_while(|word| word != "--"));
    while let Some(word) = words.next() {
        let given = word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o"));
        match given {
            _ if word == "-o" || word == "--output" => asked = words.next(),
            Some(value) => asked = Some(value.strip_prefix('=').unwrap_or(value).to_owned()),
            None => {}
        }
    }
    let asked = asked.or_else(|| std::env::var_os("COORDCTL_OUTPUT")?.into_string().ok());
    Format::from_str(&asked?, true).ok()
}

fn read_fields(arguments: &Arguments) -> Result<Option<Fields>, Failure> {
    if arguments.fields.is_some() && arguments.output == Format::Name {
        return Err(Failure::usage("-o name has no fields", "leave one of -o name and --fields out"));
    }
    arguments.fields.as_deref().map(Fields::read).transpose()
}

/// The command with its examples.
fn command() -> clap::Command {
    command::help::with_examples(Arguments::command())
}

/// The words of the command line. Names of files may be any bytes; here they only have to be told from options.
fn words() -> impl Iterator<Item = String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned())
}

/// The parser, coloured only where clap's own rules (terminal, NO_COLOR) allow it.
fn parser() -> clap::Command {
    let given = |word: String| word.strip_prefix("--color=").map(str::to_owned);
    let asked = words().skip_while(|word| word != "--color").nth(1).or_else(|| words().find_map(given));
    let color = match asked
        .or_else(|| std::env::var_os("COORDCTL_COLOR").and_then(|value| value.into_string().ok()))
        .as_deref()
    {
        Some("never") => ColorChoice::Never,
        Some("always") => ColorChoice::Always,
        Some(_) | None => ColorChoice::Auto,
    };
    command().styles(Styles::styled()).color(color)
}

async fn run(arguments: &Arguments, origins: Origins, out: Output) -> Result<(), Failure> {
    let choice = Choice {
        config: arguments.config.clone(),
        context: arguments.context.clone(),
        endpoint: arguments.endpoint.clone(),
    };
    if let Some(done) = run_alone(arguments, &choice, origins, &out).await {
        return done;
    }
    let context = choice.open()?;
    if let Some(warning) = client::renew_if_due(&context, &choice.path()?, &SystemClock).await? {
        out.talk(&format!("warning: {warning}"));
    }
    let mut session = Session {
        client: client::connect(&context).await?,
        out,
        no_input: arguments.no_input,
        now: SystemClock.now().to_zoned(TimeZone::system()),
        protected: context.entry.protected,
        context: context.name.clone(),
        yes: arguments.yes,
    };
    if matches!(arguments.command, Command::Whoami) {
        return command::login::whoami(&mut session, &context).await;
    }
    if arguments.watch {
        return watch::follow(&mut session, &arguments.command).await;
    }
    if is_long_text(&arguments.command) {
        session.out.page();
    }
    let done = dispatch(&mut session, &arguments.command).await;
    session.out.end_page()?;
    done
}

/// Whether the answer is text to read, which may be longer than a screen; tables are not.
const fn is_long_text(command: &Command) -> bool {
    matches!(
        command,
        Command::Explain(_)
            | Command::Diff(_)
            | Command::Policy(PolicyCommand::Diff(_))
            | Command::Run(RunCommand::Logs { follow: false, .. })
    )
}

/// Runs a command that asks no coordinator; `None` for all others.
async fn run_alone(
    arguments: &Arguments,
    choice: &Choice,
    origins: Origins,
    out: &Output,
) -> Option<Result<(), Failure>> {
    let answers = Answers { no_input: arguments.no_input, yes: arguments.yes };
    let done = match &arguments.command {
        Command::Help { topic: Some(topic) } => command::help::run(*topic, out.clone()),
        Command::Help { topic: None } => out.print(&format!("{}\n", parser().render_long_help())),
        Command::Policy(PolicyCommand::Init) => out.print(command::policy::EXAMPLE),
        Command::Login(args) => command::login::run(args, choice, out.clone()).await,
        Command::Completion(args) => command::generate::completion(args, out),
        Command::Man(args) => command::generate::man(args, command(), out),
        Command::Logout(args) => command::login::logout(args, choice, answers, out),
        Command::Context(command) => command::context::run(command, choice, Given { origins, answers }, out),
        Command::Version if choice.open().is_err() => out.print(&format!("coordctl {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Status(_)
        | Command::Restore(_)
        | Command::Ls(_)
        | Command::Cat(_)
        | Command::History(_)
        | Command::Diff(_)
        | Command::Explain(_)
        | Command::WhatIf(_)
        | Command::Schedule(_)
        | Command::Fleet(_)
        | Command::Host(_)
        | Command::Policy(_)
        | Command::Job(_)
        | Command::Limit(_)
        | Command::Run(_)
        | Command::Backup(_)
        | Command::Catalog(_)
        | Command::Server(_)
        | Command::Report(_)
        | Command::Token(_)
        | Command::User(_)
        | Command::Whoami
        | Command::Version => return None,
    };
    Some(done)
}

async fn dispatch(session: &mut Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Status(args) => command::fleet::status(session, args).await,
        Command::Restore(args) => command::restore::run(session, args).await,
        Command::Ls(args) => command::files::ls(session, args).await,
        Command::Cat(args) => command::files::cat(session, args).await,
        Command::History(args) => command::history::run(session, args).await,
        Command::Diff(args) => command::diff::run(session, args).await,
        Command::Explain(args) => command::fleet::explain(session, args).await,
        Command::WhatIf(args) => command::what_if::run(session, args).await,
        Command::Schedule(args) => command::schedule::run(session, args).await,
        Command::Fleet(command) => command::pause::run(session, command).await,
        Command::Host(command) => command::host::run(session, command).await,
        Command::Policy(command) => command::policy::run(session, command).await,
        Command::Job(command) => command::job::run(session, command).await,
        Command::Limit(command) => command::limit::run(session, command).await,
        Command::Run(command) => command::run::run(session, command).await,
        Command::Backup(command) => command::backup::run(session, command).await,
        Command::Catalog(command) => command::catalog::run(session, command).await,
        Command::Server(command) => command::server::run(session, command).await,
        Command::Report(command) => command::report::run(session, command).await,
        Command::Token(command) => command::token::run(session, command).await,
        Command::User(command) => command::user::run(session, command).await,
        Command::Version => command::fleet::version(session).await,
        // Done before a connection was made.
        Command::Login(_)
        | Command::Logout(_)
        | Command::Whoami
        | Command::Context(_)
        | Command::Completion(_)
        | Command::Man(_)
        | Command::Help { .. } => Ok(()),
    }
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use crate::golden;

    #[test]
    fn the_form_of_a_result_is_found_in_words_that_do_not_parse() {
        let wanted = |line: &str| super::wanted_format(line.split(' ').map(str::to_owned));
        for line in ["-o json x", "x -ojson", "x -o=json --y", "--output json", "--output=json", "-o table -o json"] {
            assert_eq!(wanted(line), Some(super::Format::Json), "{line}");
        }
        for line in ["x -- -o json", "-o nonsense", "x"] {
            assert_eq!(wanted(line), None, "{line}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }

    #[test]
    fn every_command_that_changes_something_has_a_dry_run() {
        const READ_ONLY: &[&str] = &[
            "cat",
            "completion",
            "defaults",
            "dedup",
            "diff",
            "explain",
            "help",
            "history",
            "init",
            "lint",
            "list",
            "logs",
            "ls",
            "man",
            "members",
            "preview",
            "rpo",
            "rto",
            "schedule",
            "show",
            "status",
            "version",
            "warnings",
            "watch",
            "what-if",
            "whoami",
        ];
        fn without(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            let has = command.get_arguments().any(|arg| arg.get_id() == "dry_run" && arg.get_short() == Some('n'));
            if !command.has_subcommands() && !has && !READ_ONLY.contains(&command.get_name()) {
                found.push(path.clone());
            }
            command.get_subcommands().for_each(|inner| without(inner, &path, found));
        }
        let mut found = Vec::new();
        without(&super::command(), "", &mut found);
        assert!(found.is_empty(), "these change something, or belong to those that do not: {found:#?}");
    }

    #[test]
    fn every_name_that_the_coordinator_knows_is_completed() {
        fn without(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            // The name of a new host, and a pattern.
            let free = [" coordctl token create", " coordctl host list"];
            for arg in command.get_arguments().filter(|_| !free.contains(&path.as_str())) {
                let named = ["host", "policy", "job", "run", "backup", "places", "place", "subject"]
                    .contains(&arg.get_id().as_str());
                if named && arg.get::<clap_complete::engine::ArgValueCompleter>().is_none() {
                    found.push(format!("{path} {}", arg.get_id()));
                }
            }
            command.get_subcommands().for_each(|inner| without(inner, &path, found));
        }
        let mut found = Vec::new();
        without(&super::command(), "", &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn the_help_of_every_command_is_what_it_was() {
        fn add(command: &mut clap::Command, path: &str, all: &mut String) {
            let path = format!("{path} {}", command.get_name()).trim().to_owned();
            all.push_str(&format!("### {path}\n{}\n", command.render_long_help()));
            for inner in command.get_subcommands_mut() {
                add(inner, &path, all);
            }
        }
        // The global options stand once, at the top: each command repeats them.
        let mut all = String::new();
        let mut command = super::command().term_width(100);
        command.build();
        add(&mut command, "", &mut all);
        golden::compare("help.txt", &golden::without_repeats(&all, "Global options:"));
    }
}
