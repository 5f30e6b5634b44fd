//! `coordctl report dedup | rpo | rto`.

use clap::{Args, Subcommand};
use coord_shared::api::{Duplication, ObjectivesOfJob, ReportDedupRequest, ReportObjectivesRequest};
use coord_shared::duration;
use coord_shared::exit::Exit;

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// Figures of the fleet.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// How much content there is more than once, by digest, in the newest state of each host and over all hosts.
    ///
    /// Sizes are those of files, before compression; hard links count as copies. Archives are not deduplicated: this is what that
    /// would save.
    Dedup {
        /// Of this host only.
        #[arg(long, default_value = "", add = completer(complete::hosts))]
        host: String,
    },
    /// How old the newest good backup of each job is, beside the RPO that its policy states.
    Rpo(ObjectiveArgs),
    /// How long a restore of each job is expected to take, beside the RTO that its policy states.
    ///
    /// The time goes by the pace of past restores onto the host; before the first, by half the pace at which its archives were read
    /// back. A restore reads the newest good full and at most one differential.
    Rto(ObjectiveArgs),
}

/// Of which jobs, and whether the exit code tells.
#[derive(Debug, Args)]
pub struct ObjectiveArgs {
    /// Of this host only.
    #[arg(long, default_value = "", add = completer(complete::hosts))]
    host: String,
    /// Of this policy only.
    #[arg(long, default_value = "", add = completer(complete::policies))]
    policy: String,
    /// Of hosts with these labels only.
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// Exit with 6 unless every job that has an objective is known to be within it.
    #[arg(long)]
    check: bool,
}

/// Which objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Objective {
    Rpo,
    Rto,
}

/// Runs it.
pub async fn run(session: &mut Session, command: &ReportCommand) -> Result<(), Failure> {
    match command {
        ReportCommand::Dedup { host } => dedup(session, host).await,
        ReportCommand::Rpo(args) => objectives(session, args, Objective::Rpo).await,
        ReportCommand::Rto(args) => objectives(session, args, Objective::Rto).await,
    }
}

async fn objectives(session: &mut Session, args: &ObjectiveArgs, objective: Objective) -> Result<(), Failure> {
    let ObjectiveArgs { host, policy, selector, check } = args;
    let message = ReportObjectivesRequest { host: host.clone(), policy: policy.clone(), selector: selector.clone() };
    let report = answer(session.client.report_objectives(request(message)).await)?;
    if session.out.is_json() {
        session.out.list(&json::objectives(&report), "jobs")?;
    } else {
        let columns = match objective {
            Objective::Rpo => {
                [("job", Left), ("rpo", Right), ("age", Right), ("standing", Left), ("newest good backup", Left)]
            }
            Objective::Rto => [("job", Left), ("rto", Right), ("restore", Right), ("standing", Left), ("read", Right)],
        };
        // What is out comes first; within a standing, jobs keep their order.
        let mut jobs: Vec<&ObjectivesOfJob> = report.jobs.iter().collect();
        jobs.sort_by_key(|job| rank(standing(job, objective)));
        let rows = jobs.iter().map(|job| objective_row(job, objective)).collect();
        session.out.table(
            &columns,
            rows,
            "no jobs yet; a policy that selects a host makes one: coordctl policy apply -f FILE",
        )?;
        if report.jobs.iter().all(|job| standing(job, objective) == "not_stated") {
            session.out.talk("no policy states one; in its file: objectives = { rpo = \"26h\", rto = \"2h\" }");
        }
    }
    let kept = |job: &ObjectivesOfJob| matches!(standing(job, objective), "met" | "not_stated");
    if *check && !report.jobs.iter().all(kept) { Err(Failure::Ended(Exit::CheckFailed)) } else { Ok(()) }
}

fn standing(job: &ObjectivesOfJob, objective: Objective) -> &str {
    match objective {
        Objective::Rpo => &job.rpo,
        Objective::Rto => &job.rto,
    }
}

fn rank(standing: &str) -> usize {
    ["out", "unknown", "met", "not_stated"].iter().position(|word| *word == standing).unwrap_or(0)
}

fn objective_row(job: &ObjectivesOfJob, objective: Objective) -> Vec<String> {
    let stated = |seconds: u32| if seconds == 0 { "-".to_owned() } else { duration::shown(seconds) };
    let has_backup = !job.newest_backup_id.is_empty();
    let mut row = vec![format!("{}/{}", job.host, job.policy)];
    row.extend(match objective {
        Objective::Rpo => {
            let age = if has_backup { shown::seconds(job.age_s) } else { "no backup".to_owned() };
            [stated(job.rpo_s), age, job.rpo.replace('_', " "), shown::instant(job.newest_captured_at_us)]
        }
        Objective::Rto => {
            let unknown = if has_backup { "not known" } else { "no backup" };
            let mut restore = job.predicted_restore_ms.map_or_else(|| unknown.to_owned(), shown::milliseconds);
            if job.basis == "verifications" {
                restore.push_str(" (not tried)");
            }
            [stated(job.rto_s), restore, job.rto.replace('_', " "), shown::size(job.restore_bytes)]
        }
    });
    row
}

async fn dedup(session: &mut Session, host: &str) -> Result<(), Failure> {
    let report = answer(session.client.report_dedup(request(ReportDedupRequest { host: host.to_owned() })).await)?;
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

#[cfg(test)]
mod tests {
    use super::{Objective, objective_row, rank};
    use coord_shared::api::ObjectivesOfJob;

    #[test]
    fn a_row_says_what_is_promised_and_what_is() {
        let job = ObjectivesOfJob {
            host: "db-1".into(),
            policy: "db".into(),
            rpo_s: 93_600,
            rto_s: 7200,
            newest_backup_id: "b".into(),
            age_s: 100_000,
            restore_bytes: 1 << 30,
            predicted_restore_ms: Some(9_000_000),
            basis: "verifications".into(),
            rpo: "out".into(),
            rto: "out".into(),
            ..ObjectivesOfJob::default()
        };
        assert_eq!(objective_row(&job, Objective::Rpo)[..4], ["db-1/db", "26h", "1 d 3 h", "out"]);
        assert_eq!(objective_row(&job, Objective::Rto), ["db-1/db", "2h", "2 h 30 min (not tried)", "out", "1.0 GiB"]);
        let none = ObjectivesOfJob { rpo: "not_stated".into(), ..ObjectivesOfJob::default() };
        assert_eq!(objective_row(&none, Objective::Rpo)[1..4], ["-", "no backup", "not stated"]);
        assert!(rank("out") < rank("met") && rank("met") < rank("not_stated"));
    }
}
