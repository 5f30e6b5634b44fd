//! `coordctl report dedup`.

use clap::Subcommand;
use coord_shared::api::{Duplication, ReportDedupRequest};

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::session::Session;
use crate::{json, shown};

/// Figures of the fleet.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// How much content there is more than once, by digest, in the newest state of each host and over all hosts.
    ///
    /// Sizes are those of files, before compression; hard links count as copies. Archives are not deduplicated: this is what that
    /// would save.
    Dedup {
        /// Of this host only.
        #[arg(long, default_value = "")]
        host: String,
    },
}

/// Runs it.
pub async fn run(session: &mut Session, command: &ReportCommand) -> Result<(), Failure> {
    let ReportCommand::Dedup { host } = command;
    let report = answer(session.client.report_dedup(request(ReportDedupRequest { host: host.clone() })).await)?;
    if session.out.is_json() {
        return session.out.json(&json::dedup(&report));
    }
    let columns =
        [("host", Left), ("files", Right), ("bytes", Right), ("unique", Right), ("duplicate", Right), ("share", Right)];
    let mut rows: Vec<_> = report.hosts.iter().map(|host| row(&host.host, host.figures.unwrap_or_default())).collect();
    if rows.len() > 1 {
        rows.push(row("all hosts together", report.overall.unwrap_or_default()));
    }
    session.out.table(&columns, rows, "no searchable backup yet")
}

fn row(name: &str, figures: Duplication) -> Vec<String> {
    let duplicate = figures.bytes.saturating_sub(figures.unique_bytes);
    vec![
        name.to_owned(),
        figures.files.to_string(),
        shown::size(figures.bytes),
        shown::size(figures.unique_bytes),
        shown::size(duplicate),
        format!("{} %", u128::from(duplicate) * 100 / u128::from(figures.bytes.max(1))),
    ]
}
