//! Arguments, environment and exit codes of the `coord-agent` program. Everything else is in the library.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use coord_agent::archive_cli::{self, ArchiveArgs};
use coord_agent::chain::chain;
use coord_agent::config::{ConfigError, Overrides};
use coord_agent::daemon::{self, DaemonError};
use coord_agent::join::{self, JoinOptions};
use coord_agent::printable::printable;
use coord_agent::state::{DEFAULT_STATE, StateError, StateFolder};
use coord_agent::status::{self, Shown};
use coord_shared::clock::{Clock as _, SystemClock};
use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::lifecycle::Lifecycle;
use coord_shared::telemetry::{self, LogFormat};

/// How long threads may take after everything else has ended.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Protects this host: takes backups, verifies and restores them, when its coordinator says so.
#[derive(Debug, Parser)]
#[command(name = "coord-agent", version, disable_version_flag = true, disable_help_subcommand = true)]
struct Arguments {
    /// What to log, such as info or coord_agent=debug,info.
    #[arg(long, global = true, env = "COORD_AGENT_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// The shape of log lines.
    #[arg(long, global = true, env = "COORD_AGENT_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Args)]
struct StateArgs {
    /// Folder for key, certificate, journal and archives.
    #[arg(long, env = "COORD_AGENT_STATE", default_value = DEFAULT_STATE, value_name = "DIR")]
    state: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a fleet with a token from `coordctl token create`.
    Join(JoinArgs),
    /// Run until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Show what this host knows of itself; works with the coordinator gone.
    Status {
        #[command(flatten)]
        state: StateArgs,
        /// Exit with 6 unless an agent runs, is connected to a coordinator, and has a certificate that is valid.
        #[arg(long)]
        check: bool,
    },
    /// Make, read and verify archives by hand, with no coordinator.
    Archive(ArchiveArgs),
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// File with the token's line; - is standard input. On the command line everybody on the machine would see it.
    #[arg(long, env = "COORD_AGENT_TOKEN_FILE", value_name = "FILE")]
    token_file: PathBuf,
    /// The coordinator's enrolment listener.
    #[arg(long, env = "COORD_AGENT_ENROL_ENDPOINT", value_name = "HOST:PORT")]
    endpoint: String,
    /// Name of this host in the fleet.
    #[arg(long, value_name = "SLUG")]
    name: Option<String>,
    /// What to take for / on this host; for tests and demonstrations.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    state: StateArgs,
    /// What to take for / on this host; for tests and demonstrations.
    #[arg(long, env = "COORD_AGENT_ROOT", value_name = "DIR")]
    root: Option<PathBuf>,
    /// Folder of local archives.
    #[arg(long, env = "COORD_AGENT_ARCHIVES", value_name = "DIR")]
    archives: Option<PathBuf>,
    /// The coordinator's main listener; may be repeated.
    #[arg(long, env = "COORD_AGENT_ENDPOINT", value_delimiter = ',', value_name = "HOST:PORT")]
    endpoint: Vec<String>,
    /// Threads that pack, verify and restore; 0 is one for each core.
    #[arg(long, env = "COORD_AGENT_THREADS", value_name = "N")]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let format = match arguments.log_format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    };
    if let Err(error) = telemetry::init(format, &arguments.log) {
        return report(&Fault::new(ErrorCode::InvalidArgument, chain(&error)));
    }
    let ended = match arguments.command {
        Command::Join(args) => join(args),
        Command::Run(args) => run(args),
        Command::Status { state, check } => show_status(&state, check),
        Command::Archive(args) => return ExitCode::from(archive_cli::run(args)),
        Command::Version => {
            println!("coord-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match ended {
        Ok(()) => Exit::Done.into(),
        Err(fault) => report(&fault),
    }
}

fn join(args: JoinArgs) -> Result<(), Fault> {
    let token = read_token(&args.token_file)?;
    let state = open(&args.state)?;
    let options = JoinOptions { token, endpoint: args.endpoint, name: args.name, root: args.root };
    let joined = runtime()?.block_on(join::join(&state, options)).map_err(|error| error.fault())?;
    println!("joined {} as {}", joined.fleet, joined.host_name);
    eprintln!("next: coord-agent run --state {}", state.path().display());
    Ok(())
}

fn read_token(path: &std::path::Path) -> Result<String, Fault> {
    /// A token has some 150 bytes.
    const MAX_TOKEN_BYTES: u64 = 4096;
    let failed = |error: std::io::Error| {
        Fault::new(ErrorCode::InvalidArgument, format!("cannot read the token from {}: {error}", path.display()))
    };
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

fn run(args: RunArgs) -> Result<(), Fault> {
    let state = open(&args.state)?;
    let RunArgs { root, archives, endpoint, threads, .. } = args;
    let overrides = Overrides { root, archives, endpoints: endpoint, threads };
    let runtime = runtime()?;
    let ran = runtime.block_on(daemon::run(state, overrides, Arc::new(SystemClock), Lifecycle::new()));
    // A thread that waits for a dead disk does not keep the process: its attempt is reported at the next start.
    runtime.shutdown_timeout(LAST_WAIT);
    ran.map_err(|error| {
        let code = match &error {
            DaemonError::NotJoined { .. } | DaemonError::Config(_) => ErrorCode::InvalidConfiguration,
            DaemonError::State(StateError::InUse { .. }) => ErrorCode::NotNow,
            DaemonError::State(StateError::Folder { .. })
            | DaemonError::Identity(_)
            | DaemonError::Journal(_)
            | DaemonError::Store(_)
            | DaemonError::Signals(_) => ErrorCode::Io,
        };
        let hint = match &error {
            DaemonError::NotJoined { .. } | DaemonError::Config(ConfigError::Missing { .. }) => {
                "join first: coord-agent join --token-file FILE --endpoint HOST:PORT"
            }
            _ => "",
        };
        Fault::new(code, chain(&error)).with_hint(hint)
    })
}

fn show_status(args: &StateArgs, check: bool) -> Result<(), Fault> {
    let state = open(args)?;
    let shown = status::print(&state, SystemClock.now(), &mut std::io::stdout().lock());
    match shown.map_err(|error| Fault::new(ErrorCode::Io, chain(&error)))? {
        Shown::Joined { wrong } if check && !wrong.is_empty() => {
            Err(Fault::new(ErrorCode::CheckFailed, wrong.join("; ")).with_hint("the agent's log says more"))
        }
        Shown::Joined { .. } => Ok(()),
        Shown::NotJoined => Err(Fault::new(ErrorCode::NotFound, "this host has not joined a fleet")
            .with_hint("join first: coord-agent join --token-file FILE --endpoint HOST:PORT")),
    }
}

fn open(args: &StateArgs) -> Result<StateFolder, Fault> {
    StateFolder::open(&args.state).map_err(|error| {
        Fault::new(ErrorCode::Io, chain(&error)).with_hint("choose a folder that you may write with --state")
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Fault::new(ErrorCode::Internal, format!("cannot start: {error}")))
}

/// One line what, then what to do; the code of the one table.
fn report(fault: &Fault) -> ExitCode {
    eprintln!("error: {}", printable(&fault.message));
    if !fault.hint.is_empty() {
        eprintln!("hint: {}", printable(&fault.hint));
    }
    if !fault.trace.is_empty() {
        eprintln!("trace: {}", printable(&fault.trace));
    }
    fault.exit().into()
}
