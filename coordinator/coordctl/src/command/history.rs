//! `coordctl history`: the states that one path has had.

use std::ffi::OsString;

use clap::Args;
use coord_shared::api::{self, ListPathVersionsRequest};
use coord_shared::hex;

use super::files::place;
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Output;
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// Hexadecimal digits of a digest that tables show.
const DIGITS: usize = 16;

/// Of which path.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// HOST/PATH.
    #[arg(value_name = "HOST/PATH", add = completer(complete::places))]
    place: OsString,
    /// Of this policy's backups only.
    #[arg(long, add = completer(complete::policies))]
    policy: Option<String>,
    /// At most so many, the newest.
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

/// Runs it.
pub async fn run(session: &mut Session, args: &HistoryArgs) -> Result<(), Failure> {
    let place = place(&args.place)?;
    let message = ListPathVersionsRequest {
        host: place.host.clone(),
        path: place.path,
        policy: args.policy.clone().unwrap_or_default(),
        limit: args.limit,
    };
    let found = answer(session.client.list_path_versions(request(message)).await)?;
    if session.out.is_json() {
        session.out.list(&json::path_versions(&found), "versions")?;
    } else {
        table(&session.out, &found.versions)?;
        if let Some(newest) = found.versions.first().and_then(|version| version.file.as_ref()) {
            let path = shown::path(&newest.path);
            session.out.talk(&format!("next: coordctl cat {}/{path} --at TIME", place.host));
        }
    }
    if found.more {
        session.out.talk(&format!("the newest {} are listed; --limit lists more", found.versions.len()));
    }
    Ok(())
}

/// The table of states.
pub fn table(out: &Output, list: &[api::PathVersion]) -> Result<(), Failure> {
    let columns = [
        ("first", Left),
        ("last", Left),
        ("backup", Left),
        ("kind", Left),
        ("size", Right),
        ("digest", Left),
        ("then", Left),
        ("notes", Left),
    ];
    let more = [("mode", Left), ("owner", Left), ("modified", Left), ("policy", Left), ("first backup", Left)];
    out.wide_table(&columns, &more, list.iter().map(row).collect(), "no versions")
}

fn row(version: &api::PathVersion) -> Vec<String> {
    let file = version.file.clone().unwrap_or_default();
    vec![
        shown::instant(version.first_captured_at_us),
        shown::instant(version.last_captured_at_us),
        shown::short(&version.last_backup_id).to_owned(),
        file.kind.clone(),
        if file.kind == "file" { shown::size(file.size_bytes) } else { String::new() },
        hex::encode(&file.digest).chars().take(DIGITS).collect(),
        version.end.clone(),
        file.flags.join(", "),
        format!("{:04o}", file.mode),
        format!("{}:{}", file.uid, file.gid),
        shown::instant(file.mtime_s.saturating_mul(1_000_000)),
        file.policy.clone(),
        shown::short(&version.first_backup_id).to_owned(),
    ]
}
