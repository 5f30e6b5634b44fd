//! `coordctl what-if`.

use std::path::PathBuf;

use clap::Args;
use coord_shared::api::{ReplayTotals, WhatIfOfJob, WhatIfReport, WhatIfRequest};
use coord_shared::{duration, wire};
use jiff::SignedDuration;

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Column;
use crate::session::Session;
use crate::{complete, completer, json, shown};

const COLUMNS: [Column; 8] = [
    ("job", Left),
    ("", Left),
    ("runs", Right),
    ("fulls", Right),
    ("stored", Right),
    ("busiest night", Right),
    ("longest restore", Right),
    ("estimated", Right),
];

/// Which past, and under which policy.
#[derive(Debug, Args)]
pub struct WhatIfArgs {
    /// The file; - reads standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    file: PathBuf,
    /// Of the time since so long ago (90d, 12w).
    #[arg(long, default_value = "90d", value_name = "DURATION", value_parser = last)]
    last: SignedDuration,
    /// Of the jobs of this policy, instead of the one that the file names.
    #[arg(long, default_value = "", add = completer(complete::policies))]
    policy: String,
    /// Of hosts with these labels only.
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
}

fn last(text: &str) -> Result<SignedDuration, String> {
    duration::parse(text).ok_or_else(|| format!("{text:?} is no duration; write 90d, 12w or 48h"))
}

/// Runs it.
pub async fn run(session: &mut Session, args: &WhatIfArgs) -> Result<(), Failure> {
    let since = session
        .now
        .timestamp()
        .checked_sub(args.last)
        .map_err(|_| Failure::usage("--last goes back further than time does", "such as --last 90d"))?;
    let message = WhatIfRequest {
        toml: super::policy::read(&args.file)?,
        since_us: wire::to_us(since),
        policy: args.policy.clone(),
        selector: args.selector.clone(),
    };
    let report = answer(session.client.what_if(request(message)).await)?;
    if session.out.is_json() {
        return session.out.list(&json::what_if(&report), "jobs");
    }
    session.out.table(&COLUMNS, rows(&report), "no job has any history in that time")?;
    let changes = changes(&report.jobs);
    if !changes.is_empty() {
        session.out.print(&format!("\n{changes}"))?;
    }
    for note in &report.notes {
        session.out.talk(&format!("note: {note}"));
    }
    Ok(())
}

/// Two lines for each job: what was, and what would have been.
fn rows(report: &WhatIfReport) -> Vec<Vec<String>> {
    let line = |name: &str, what: &str, totals: Option<&ReplayTotals>| {
        let t = totals.cloned().unwrap_or_default();
        vec![
            name.to_owned(),
            what.to_owned(),
            t.runs.to_string(),
            t.fulls.to_string(),
            shown::size(t.stored_bytes),
            shown::milliseconds(t.busiest_ms),
            t.longest_restore_ms.map_or_else(|| "-".to_owned(), shown::milliseconds),
            t.estimated.to_string(),
        ]
    };
    let mut rows = Vec::new();
    for job in &report.jobs {
        rows.push(line(&format!("{}/{}", job.host, job.policy), "was", job.was.as_ref()));
        rows.push(line("", "would be", job.would_be.as_ref()));
    }
    if report.jobs.len() > 1 {
        rows.push(line("all jobs together", "was", report.was.as_ref()));
        rows.push(line("", "would be", report.would_be.as_ref()));
    }
    rows
}

/// The first runs whose level would have been another.
fn changes(jobs: &[WhatIfOfJob]) -> String {
    let mut text = String::new();
    for job in jobs {
        for change in &job.changes {
            text.push_str(&format!(
                "{}/{} {}: {} instead of {}: {}\n",
                job.host,
                job.policy,
                shown::instant(change.at_us),
                shown::level(change.would_be),
                shown::level(change.was),
                shown::safe(&change.reason)
            ));
        }
        let more = job.levels_changed.saturating_sub(u64::try_from(job.changes.len()).unwrap_or(0));
        if more > 0 {
            text.push_str(&format!("{}/{}: and {more} more with another level\n", job.host, job.policy));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{changes, last, rows};
    use coord_shared::api::{Level, LevelChange, ReplayTotals, WhatIfOfJob, WhatIfReport};

    #[test]
    fn each_job_is_told_as_it_was_and_as_it_would_be() {
        let job = |host: &str| WhatIfOfJob {
            host: host.into(),
            policy: "web".into(),
            was: Some(ReplayTotals { runs: 14, fulls: 3, stored_bytes: 2048, ..ReplayTotals::default() }),
            would_be: Some(ReplayTotals { runs: 14, fulls: 2, estimated: 5, ..ReplayTotals::default() }),
            levels_changed: 3,
            changes: vec![LevelChange {
                was: Level::Full.into(),
                would_be: Level::Differential.into(),
                reason: "no reason for a full holds".into(),
                ..LevelChange::default()
            }],
        };
        let one = rows(&WhatIfReport { jobs: vec![job("one")], ..WhatIfReport::default() });
        assert_eq!(one[0][..5], ["one/web", "was", "14", "3", "2.0 KiB"]);
        assert_eq!((one[1][1].as_str(), one[1][7].as_str(), one.len()), ("would be", "5", 2));
        let two = rows(&WhatIfReport { jobs: vec![job("one"), job("two")], ..WhatIfReport::default() });
        assert_eq!(two[4][0], "all jobs together");
        let text = changes(&[job("one")]);
        assert!(text.contains("differential instead of full: no reason") && text.contains("and 2 more"), "{text}");
        assert!(last("90d").is_ok() && last("soon").is_err());
    }
}
