//! Arguments, environment and exit codes of the `coordinator` program. Everything else is in the library.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use coord_shared::clock::SystemClock;
use coord_shared::exit::Exit;
use coord_shared::lifecycle::Lifecycle;
use coord_shared::telemetry::{self, LogFormat};
use coordinator::init::{self, InitError, NewFleet};
use coordinator::probe::{self, ProbeError};
use coordinator::server::{self, ServerError};
use coordinator::settings::{DEFAULT_ENROL_LISTEN, DEFAULT_LISTEN, Settings, SettingsError};

/// Protects a fleet of hosts: decides, schedules and records backups. Archives never pass through it.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, disable_version_flag = true, disable_help_subcommand = true)]
struct Arguments {
    /// What to log, such as info or coordinator=debug,info.
    #[arg(long, global = true, env = "COORDINATOR_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// The shape of log lines.
    #[arg(long, global = true, env = "COORDINATOR_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new fleet: its certificate authority, the settings, and the first operator's context for coordctl.
    Init {
        /// Folder for the authority's key, the settings and (unless --database is used) the database.
        #[arg(long, env = "COORDINATOR_STATE", value_name = "DIR")]
        state: PathBuf,
        /// The fleet's name, part of every certificate; it cannot be changed later.
        #[arg(long, default_value = "fleet", value_name = "NAME")]
        fleet: String,
        /// Where agents and operators connect; port 0 takes any.
        #[arg(long, default_value = DEFAULT_LISTEN, value_name = "ADDRESS")]
        listen: SocketAddr,
        /// Where agents and operators join and renew.
        #[arg(long, default_value = DEFAULT_ENROL_LISTEN, value_name = "ADDRESS")]
        enrol_listen: SocketAddr,
        /// How the fleet reaches the main listener, when that differs from --listen.
        #[arg(long, value_name = "HOST:PORT")]
        advertise: Vec<String>,
        /// How the fleet reaches the enrolment listener, when that differs from --enrol-listen.
        #[arg(long, value_name = "HOST:PORT")]
        advertise_enrol: Vec<String>,
        /// coordctl's configuration file that gets the first operator's context. It must not exist.
        #[arg(long, env = "COORDCTL_CONFIG", value_name = "FILE")]
        operator_config: Option<PathBuf>,
        /// The first operator's name.
        #[arg(long, default_value = "admin", value_name = "NAME")]
        user: String,
    },
    /// Print a token with which an operator logs in (`coordctl login`). Works while the coordinator runs.
    OperatorToken {
        /// The state folder.
        #[arg(long, env = "COORDINATOR_STATE", value_name = "DIR")]
        state: PathBuf,
        /// The operator's name.
        #[arg(long, default_value = "admin", value_name = "NAME")]
        user: String,
        /// What the operator may do.
        #[arg(long, default_value = "admin", value_parser = ["viewer", "restorer", "operator", "admin"])]
        role: String,
    },
    /// Serve the fleet until SIGTERM or SIGINT.
    Serve {
        /// The state folder.
        #[arg(long, env = "COORDINATOR_STATE", value_name = "DIR")]
        state: PathBuf,
        /// Postgres, as a URL or key-value string; without it a private server in the state folder is started.
        #[arg(long, env = "COORDINATOR_DATABASE", value_name = "URL")]
        database: Option<String>,
        /// Answer /livez and /readyz there, over plain HTTP: 127.0.0.1:7445, for one.
        #[arg(long, env = "COORDINATOR_HEALTH_LISTEN", value_name = "ADDRESS")]
        health_listen: Option<SocketAddr>,
    },
    /// Ask the coordinator of this machine whether it is ready, or whether it lives; exit code 6 when it says no.
    Health {
        /// The state folder, which names the address.
        #[arg(long, env = "COORDINATOR_STATE", value_name = "DIR", required_unless_present = "health_listen")]
        state: Option<PathBuf>,
        /// The address, instead.
        #[arg(long, env = "COORDINATOR_HEALTH_LISTEN", value_name = "ADDRESS")]
        health_listen: Option<SocketAddr>,
        /// Whether its duties turn, and not whether it is of use.
        #[arg(long)]
        live: bool,
    },
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let format = match arguments.log_format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    };
    let outcome =
        telemetry::init(format, &arguments.log).map_err(anyhow::Error::from).and_then(|()| run(arguments.command));
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(error) => report(&error),
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { state, fleet, listen, enrol_listen, advertise, advertise_enrol, operator_config, user } => {
            let operator_config = match operator_config {
                Some(path) => path,
                None => {
                    default_operator_config().context("name coordctl's file with --operator-config: HOME is not set")?
                }
            };
            let new =
                NewFleet { state, fleet, listen, enrol_listen, advertise, advertise_enrol, operator_config, user };
            init::init(&new, &SystemClock)?;
            eprintln!("fleet {} is ready; coordctl's context is in {}", new.fleet, new.operator_config.display());
            eprintln!("next: coordinator serve --state {}", new.state.display());
            Ok(())
        }
        Command::OperatorToken { state, user, role } => {
            println!("{}", init::operator_token(&state, &user, &role, &SystemClock)?);
            eprintln!("valid for one hour, once. next: coordctl login --token-file - --endpoint HOST:PORT");
            Ok(())
        }
        Command::Serve { state, database, health_listen } => {
            let mut settings = Settings::load(&state)?;
            settings.health_listen = health_listen.or(settings.health_listen);
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
            runtime.block_on(server::run(server::Config { state, settings, database }, Lifecycle::new()))?;
            Ok(())
        }
        Command::Health { state, health_listen, live } => {
            print!("{}", probe::ask(health_listen, state.as_deref(), live)?);
            Ok(())
        }
        Command::Version => {
            println!("coordinator {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn default_operator_config() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(base.join("coordctl").join("config.toml"))
}

/// One line what, then why, then what to do; the code of the one table.
fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    let (exit, hint) = advice(error);
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    exit.into()
}

fn advice(error: &anyhow::Error) -> (Exit, Option<&'static str>) {
    let settings = error.downcast_ref::<SettingsError>().or_else(|| match error.downcast_ref::<InitError>()? {
        InitError::Settings(settings) => Some(settings),
        InitError::Exists { .. }
        | InitError::ContextExists { .. }
        | InitError::File { .. }
        | InitError::Authority(_)
        | InitError::Randomness => None,
    });
    if let Some(settings) = settings {
        return match settings {
            SettingsError::NotInitialised { .. } => (Exit::Usage, Some("make one first: coordinator init --state DIR")),
            SettingsError::Syntax { .. }
            | SettingsError::FleetName { .. }
            | SettingsError::Patience { .. }
            | SettingsError::IdlePatience { .. }
            | SettingsError::History { .. } => (Exit::Usage, None),
            SettingsError::File { .. } | SettingsError::Encode(_) => (Exit::Failed, None),
        };
    }
    if error.downcast_ref::<telemetry::BadFilter>().is_some() {
        return (Exit::Usage, None);
    }
    if let Some(error) = error.downcast_ref::<ProbeError>() {
        return (error.exit(), error.hint());
    }
    match error.downcast_ref::<ServerError>() {
        Some(error) => (Exit::Failed, error.hint()),
        None => (Exit::Failed, None),
    }
}
