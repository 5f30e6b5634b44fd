//! `coordctl status`, `explain` and `version`: the fleet as a whole.

use clap::Args;
use coord_shared::api::{self, ExplainRequest, GetStatusRequest, GetVersionRequest};
use coord_shared::exit::Exit;

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::color::Paint;
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// Pauses on the screen; JSON has them all.
const MAX_PAUSES: usize = 10;

/// One screen: am I safe, and what first?
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Of this host only.
    #[arg(add = completer(complete::hosts))]
    host: Option<String>,
    /// Exit with 6 unless everything is protected.
    #[arg(long)]
    check: bool,
}

/// Says why each level was chosen.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// HOST, HOST/POLICY, a run or a backup.
    #[arg(add = completer(complete::jobs))]
    subject: String,
}

/// Runs `status`.
pub async fn status(session: &mut Session, args: &StatusArgs) -> Result<(), Failure> {
    let host = args.host.clone().unwrap_or_default();
    let status = answer(session.client.get_status(request(GetStatusRequest { host })).await)?;
    if session.out.is_json() {
        session.out.json(&json::status(&status))?;
    } else {
        let (verdict, paint) = verdict(&status);
        session.out.print(&screen(&status).replacen(verdict, &session.out.paint(paint, verdict), 1))?;
    }
    if args.check && !is_safe(&status) { Err(Failure::Ended(Exit::CheckFailed)) } else { Ok(()) }
}

fn is_safe(s: &api::FleetStatus) -> bool {
    s.jobs == s.jobs_protected && s.jobs > 0 && s.troubles.is_empty()
}

fn verdict(s: &api::FleetStatus) -> (&'static str, Paint) {
    if is_safe(s) { ("SAFE", Paint::Good) } else { ("NOT SAFE", Paint::Bad) }
}

fn screen(s: &api::FleetStatus) -> String {
    let (verdict, _) = verdict(s);
    let mut text = format!(
        "{verdict}  {} of {} jobs protected · {} of {} hosts connected · {} backups, {} stored\n",
        s.jobs_protected,
        s.jobs,
        s.hosts_connected,
        s.hosts,
        s.backups,
        shown::size(s.stored_bytes)
    );
    text.push_str(&format!(
        "{} runs open · {} failed in 24 h · next run {}\n",
        s.runs_open,
        s.runs_failed_24h,
        shown::instant(s.next_due_at_us)
    ));
    if s.local_only_hosts > 0 {
        text.push_str(&format!(
            "{} hosts keep their archives themselves: those are only as safe as the host\n",
            s.local_only_hosts
        ));
    }
    if s.not_searchable > 0 {
        let number = s.not_searchable;
        text.push_str(&format!(
            "{number} backups are protected but not searchable: coordctl catalog status says why\n"
        ));
    }
    if !s.pauses.is_empty() {
        text.push('\n');
    }
    for pause in s.pauses.iter().take(MAX_PAUSES) {
        text.push_str(&format!("paused: {}\n", shown::safe(&super::pause::sentence(pause))));
    }
    if let Some(more) = s.pauses.len().checked_sub(MAX_PAUSES).filter(|more| *more > 0) {
        text.push_str(&format!("and {more} more; coordctl status -o json lists them\n"));
    }
    for trouble in &s.troubles {
        let place = match (trouble.host.as_str(), trouble.policy.as_str()) {
            (host, "") => host.to_owned(),
            ("", policy) => format!("policy {policy}"),
            (host, policy) => format!("{host}/{policy}"),
        };
        text.push_str(&format!("\n{place}: {}\n", shown::safe(&trouble.what)));
        if !trouble.hint.is_empty() {
            text.push_str(&format!("  hint: {}\n", shown::safe(&trouble.hint)));
        }
    }
    if s.jobs == 0 {
        text.push_str("\nnothing is protected yet\n  hint: coordctl token create, coord-agent join, coordctl policy apply -f FILE\n");
    }
    text
}

/// Runs `explain`.
pub async fn explain(session: &mut Session, args: &ExplainArgs) -> Result<(), Failure> {
    let explanation = answer(session.client.explain(request(ExplainRequest { subject: args.subject.clone() })).await)?;
    if session.out.is_json() {
        return session.out.json(&json::explanation(&explanation));
    }
    if explanation.decisions.is_empty() {
        session.out.talk("no decision yet; coordctl job run HOST/POLICY makes one");
    }
    for decision in &explanation.decisions {
        session.out.print(&told(decision))?;
    }
    Ok(())
}

fn told(d: &api::Decision) -> String {
    let mut text = format!(
        "{}/{} run {}  {}: {}\n  {} ({}, {})\n",
        d.host,
        d.policy,
        shown::short(&d.run_id),
        shown::instant(d.decided_at_us),
        shown::level(d.level),
        shown::safe(&d.reason),
        d.rule,
        d.stage.replace('_', " "),
    );
    for (what, bytes) in [("estimated", d.estimate_bytes), ("found by the scan", d.exact_bytes)] {
        if let Some(bytes) = bytes {
            text.push_str(&format!("  differential {what}: {}\n", shown::size(bytes)));
        }
    }
    text.push_str(&format!("    {:<12} {:>10} {:>12} {:>12}  why\n", "level", "bytes", "time", "restore"));
    let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), shown::milliseconds);
    for option in &d.options {
        text.push_str(&format!(
            "  {} {:<12} {:>10} {:>12} {:>12}  {}\n",
            if option.taken { "*" } else { " " },
            shown::level(option.level),
            option.predicted_bytes.map_or_else(|| "-".to_owned(), shown::size),
            time(option.predicted_ms),
            time(option.predicted_restore_ms),
            shown::safe(&option.why)
        ));
    }
    text
}

/// Runs `version`.
pub async fn version(session: &mut Session) -> Result<(), Failure> {
    let version = answer(session.client.get_version(request(GetVersionRequest {})).await)?;
    if session.out.is_json() {
        return session.out.json(&json::version(&version));
    }
    session.out.facts(&[
        ("coordctl", env!("CARGO_PKG_VERSION").to_owned()),
        ("coordinator", version.version),
        ("fleet", version.fleet),
        ("database", version.database),
        ("schema", version.schema_version.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::{screen, told};
    use coord_shared::api::{Decision, DecisionOption, FleetStatus, Trouble};

    #[test]
    fn the_screen_says_first_whether_all_is_well() {
        let safe = FleetStatus { hosts: 2, hosts_connected: 2, jobs: 2, jobs_protected: 2, ..FleetStatus::default() };
        assert!(screen(&safe).starts_with("SAFE  2 of 2 jobs protected"), "{}", screen(&safe));
        let trouble = Trouble {
            host: "db-1".into(),
            policy: "db".into(),
            what: "no backup for 3 d".into(),
            ..Trouble::default()
        };
        let unsafe_one = FleetStatus { troubles: vec![trouble], ..safe };
        assert!(screen(&unsafe_one).starts_with("NOT SAFE"), "{}", screen(&unsafe_one));
        assert!(screen(&unsafe_one).contains("db-1/db: no backup for 3 d"));
        assert!(screen(&FleetStatus::default()).contains("nothing is protected yet"));
    }

    #[test]
    fn a_decision_is_told_with_the_option_not_taken() {
        let option = |level, taken, why: &str| DecisionOption {
            level,
            taken,
            predicted_bytes: Some(1024),
            why: why.into(),
            predicted_ms: taken.then_some(1500),
            predicted_restore_ms: None,
        };
        let decision = Decision {
            host: "web-1".into(),
            policy: "web".into(),
            run_id: "0123456789".into(),
            level: 2,
            stage: "before_scan".into(),
            rule: "differential".into(),
            reason: "the full is 2 days old".into(),
            estimate_bytes: Some(2048),
            options: vec![option(1, false, "not due"), option(2, true, "small")],
            ..Decision::default()
        };
        let text = told(&decision);
        assert!(text.contains("run 01234567") && text.contains("(differential, before scan)"), "{text}");
        assert!(text.contains("* differential") && text.contains("  full "), "{text}");
        assert!(text.contains("differential estimated: 2.0 KiB") && !text.contains("found by the scan"), "{text}");
        assert!(text.contains("    1.0 KiB        1.5 s            -  small\n"), "{text}");
    }
}
