//! Logs of the processes: to standard error, as text or as one JSON object a line. Secrets are never given to it.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The log filter cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("the log filter {filter:?} is not understood; write for example info or coordinator=debug,info")]
pub struct BadFilter {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging. `filter` is in the syntax of `tracing_subscriber::EnvFilter`. Only the first call in a process has an effect, so
/// that tests in one process may all call it.
pub fn init(format: LogFormat, filter: &str) -> Result<(), BadFilter> {
    let parsed = EnvFilter::try_new(filter).map_err(|source| BadFilter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if installed.is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}

/// A fresh trace id: 32 hexadecimal digits.
pub fn new_trace_id() -> String {
    Uuid::new_v4().simple().to_string()
}
