//! `coordctl backup list | show`.

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{self, GetBackupRequest, ListBackupsRequest};
use coord_shared::{hex, wire};

use super::listing::{cut_asked, to_ask};
use crate::at::At;
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Output;
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// Restore points that are listed at once: more would not fit a message.
const MOST_BACKUPS: u32 = 5000;

/// Restore points.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// List restore points, newest first.
    List(ListArgs),
    /// Show one: facts, checks, where its archive is.
    Show {
        /// Id, or a unique beginning of it.
        #[arg(add = completer(complete::backups))]
        backup: String,
    },
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Of this host only.
    #[arg(long, add = completer(complete::hosts))]
    host: Option<String>,
    /// Of this policy only.
    #[arg(long, add = completer(complete::policies))]
    policy: Option<String>,
    /// Captured at or after this time.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Captured before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of hosts with these labels only (coordctl help selectors).
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
    /// At most so many, the newest first; 0: as many as are listed at once, 5000.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// In this order.
    #[arg(long, default_value = "captured")]
    sort: BackupOrder,
}

/// Orders of a list of restore points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackupOrder {
    /// The newest first.
    Captured,
    /// The largest archive first.
    Stored,
    /// By host and policy.
    Host,
}

impl BackupOrder {
    fn sort(self, backups: &mut [api::Backup]) {
        match self {
            BackupOrder::Captured => {}
            BackupOrder::Stored => backups.sort_by_key(|backup| std::cmp::Reverse(backup.stored_bytes)),
            BackupOrder::Host => backups.sort_by(|a, b| (&a.host, &a.policy).cmp(&(&b.host, &b.policy))),
        }
    }
}

/// Runs it.
pub async fn run(session: &mut Session, command: &BackupCommand) -> Result<(), Failure> {
    match command {
        BackupCommand::List(args) => list(session, args).await,
        BackupCommand::Show { backup } => {
            let found = answer(session.client.get_backup(request(GetBackupRequest { backup: backup.clone() })).await)?;
            if session.out.is_json() { session.out.json(&json::backup(&found)) } else { show(session, &found) }
        }
    }
}

/// Microseconds of a bound, 0 for none.
pub fn bound(session: &Session, text: Option<&str>) -> Result<i64, Failure> {
    match session.at(text)? {
        At::Instant(instant) => Ok(wire::to_us(instant)),
        At::Latest => Ok(0),
        At::Before(_) => Err(Failure::usage("`before RUN` is no bound of a list", "coordctl help time")),
    }
}

async fn list(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let message = ListBackupsRequest {
        host: args.host.clone().unwrap_or_default(),
        policy: args.policy.clone().unwrap_or_default(),
        since_us: bound(session, args.since.as_deref())?,
        until_us: bound(session, args.until.as_deref())?,
        limit: to_ask(args.limit, MOST_BACKUPS),
        selector: args.selector.clone(),
    };
    let mut list = answer(session.client.list_backups(request(message)).await)?.backups;
    cut_asked(&session.out, &mut list, args.limit, MOST_BACKUPS);
    args.sort.sort(&mut list);
    if session.out.is_json() {
        return session.out.json(&json::backups(&list));
    }
    table(&session.out, &list)
}

/// The table of restore points.
pub fn table(out: &Output, list: &[api::Backup]) -> Result<(), Failure> {
    let columns = [
        ("id", Left),
        ("host", Left),
        ("policy", Left),
        ("level", Left),
        ("captured", Left),
        ("files", Right),
        ("archived", Right),
        ("stored", Right),
        ("status", Left),
    ];
    let rows = list.iter().map(row).collect();
    let more = [("codec", Left), ("ratio", Right), ("searchable", Left), ("run", Left), ("full id", Left)];
    out.wide_table(&columns, &more, rows, "no backups yet; coordctl job run HOST/POLICY takes one")
}

fn row(b: &api::Backup) -> Vec<String> {
    let status = if b.same_as.is_empty() {
        b.status.clone()
    } else {
        format!("{} (unchanged since {})", b.status, shown::short(&b.same_as))
    };
    vec![
        shown::short(&b.id).to_owned(),
        b.host.clone(),
        b.policy.clone(),
        shown::level(b.level),
        shown::instant(b.captured_at_us),
        b.files.to_string(),
        shown::size(b.content_bytes),
        shown::size(b.stored_bytes),
        status,
        shown::codec(b.codec),
        ratio(b),
        searchable(b),
        shown::short(&b.run_id).to_owned(),
        b.id.clone(),
    ]
}

fn ratio(b: &api::Backup) -> String {
    if b.stored_bytes == 0 { String::new() } else { format!("{:.2}", b.content_bytes as f64 / b.stored_bytes as f64) }
}

fn searchable(b: &api::Backup) -> String {
    match (b.searchable, b.searchable_reason.as_str()) {
        (true, _) => "yes".to_owned(),
        (false, "") => "not yet".to_owned(),
        (false, why) => format!("no: {}", shown::safe(why)),
    }
}

fn show(session: &Session, b: &api::Backup) -> Result<(), Failure> {
    let archive = b.location.as_ref().map_or(String::new(), |l| format!("{}/{}", shown::path(&l.folder), l.key));
    session.out.facts(&[
        ("backup", b.id.clone()),
        ("of", format!("{}/{}", b.host, b.policy)),
        ("level", shown::level(b.level)),
        ("stands on", b.base_id.clone()),
        ("unchanged since", b.same_as.clone()),
        ("started", shown::instant(b.started_at_us)),
        ("captured", shown::instant(b.captured_at_us)),
        ("files", b.files.to_string()),
        ("source", shown::size(b.source_bytes)),
        ("archived", shown::size(b.content_bytes)),
        ("stored", shown::size(b.stored_bytes)),
        ("ratio", ratio(b)),
        ("codec", shown::codec(b.codec)),
        ("status", b.status.clone()),
        ("searchable", searchable(b)),
        ("unreadable", some(b.unreadable)),
        ("changed while read", some(b.changed_while_read)),
        ("archive", archive),
        ("digest", hex::encode(&b.archive_digest)),
        ("run", b.run_id.clone()),
    ])?;
    for check in &b.checks {
        let verdict = session.out.verdict(check.passed);
        session.out.print(&format!("  {verdict}  {:<10}  {}\n", check.name, shown::safe(&check.detail)))?;
    }
    session.out.talk(&format!("next: coordctl ls {}/ --at \"{}\"", b.host, shown::instant(b.captured_at_us)));
    Ok(())
}

fn some(count: u64) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}
