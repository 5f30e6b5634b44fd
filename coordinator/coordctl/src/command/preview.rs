//! `coordctl policy preview`: what a policy file would take of a host, before it is applied.

use std::path::PathBuf;

use clap::Args;
use coord_shared::api::{
    self, GetHostRequest, LintPolicyRequest, PreviewName, PreviewPolicyRequest, PreviewTotals, preview_part::Part,
};
use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};

use super::policy::{read, refuse_findings};
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// What to look at.
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// The file; - reads standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    file: PathBuf,
    /// The host that looks; the policy need not select it yet.
    #[arg(long, add = completer(complete::hosts))]
    host: String,
    /// List at most so many names; all are counted.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    limit: u32,
}

/// What a host found.
pub struct Found {
    /// The host's name.
    pub host: String,
    /// The policy's name.
    pub policy: String,
    /// Whether the policy selects the host.
    pub is_selected: bool,
    /// The first names, in path order.
    pub names: Vec<PreviewName>,
    /// All of them, counted.
    pub totals: PreviewTotals,
}

/// Runs it.
pub async fn run(session: &mut Session, args: &PreviewArgs) -> Result<(), Failure> {
    let toml = read(&args.file)?;
    let lint = answer(session.client.lint_policy(request(LintPolicyRequest { toml: toml.clone() })).await)?;
    refuse_findings(session, &lint)?;
    let host = answer(session.client.get_host(request(GetHostRequest { host: args.host.clone() })).await)?.name;
    session.out.talk(&format!("{host} looks at its files"));
    let message = PreviewPolicyRequest { toml, host: host.clone(), limit: args.limit };
    let mut stream = answer(session.client.preview_policy(request(message)).await)?;
    let mut names = Vec::new();
    let totals = loop {
        let part = stream.message().await.map_err(|status| Fault::from(&status))?;
        match part.and_then(|part| part.part) {
            Some(Part::Names(next)) => names.extend(next.names),
            Some(Part::End(totals)) => break totals,
            Some(Part::Fault(fault)) => return Err(Fault::from_api(&fault).into()),
            None => {
                let fault = Fault::new(ErrorCode::Unavailable, "the preview broke off before its end");
                return Err(fault.with_hint("repeat the command").into());
            }
        }
    };
    let is_selected = lint.hosts.contains(&host);
    show(session, &Found { host, policy: lint.name, is_selected, names, totals })
}

fn show(session: &Session, found: &Found) -> Result<(), Failure> {
    let totals = &found.totals;
    if session.out.is_json() {
        session.out.json(&json::preview(found))?;
    } else {
        let row = |name: &PreviewName| {
            let size = if name.kind == "file" { shown::size(name.size_bytes) } else { String::new() };
            vec![name.kind.clone(), size, format!("/{}", shown::path(&name.path))]
        };
        let rows = found.names.iter().map(row).collect();
        session.out.table(&[("type", Left), ("size", Right), ("path", Left)], rows, "no names are listed")?;
        tell(session, found)?;
    }
    if !found.is_selected {
        session
            .out
            .talk(&format!("policy {} does not select {}; coordctl host label makes it", found.policy, found.host));
    }
    for note in &totals.warnings {
        session.out.talk(&format!("warning: /{}: {}", shown::path(&note.path), note.detail));
    }
    let unlisted = totals.warnings_total.saturating_sub(totals.warnings.len() as u64);
    if unlisted > 0 {
        session.out.talk(&format!("warning: and {unlisted} more"));
    }
    if totals.warnings_total == 0 { Ok(()) } else { Err(Failure::Ended(Exit::Warnings)) }
}

fn tell(session: &Session, found: &Found) -> Result<(), Failure> {
    let api::PreviewTotals { files, folders, others, bytes, left_out, .. } = &found.totals;
    let all = files + folders + others;
    let listed = found.names.len();
    if (listed as u64) < all {
        session.out.talk(&format!("{listed} of {all} names are listed; --limit lists more"));
    }
    session
        .out
        .print(&format!("takes {files} files ({}), {folders} folders, {others} others\n", shown::size(*bytes)))?;
    for rule in left_out {
        session.out.print(&format!("  {}\n", shown::left_out(rule)))?;
    }
    Ok(())
}
