//! `coordctl catalog status | rebuild`.

use std::time::Duration;

use clap::{Args, Subcommand};
use coord_shared::api::{CatalogJobs, CatalogOfJob, CatalogRebuild, CatalogStatus, RebuildCatalogRequest};
use coord_shared::exit::Exit;

use super::job::Waiting;
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Output;
use crate::session::Session;
use crate::wait::{Patience, Stop};
use crate::{complete, completer, json, shown};

/// How often a rebuild is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Entries of backups: a cache of sealed indexes.
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Say which backups can be searched, which are waited for, and why others cannot.
    Status(JobsArgs),
    /// Make the entries anew from the sealed indexes that the agents hold.
    ///
    /// Backups and restores are not touched and go on meanwhile; `ls`, `cat` and reports of these jobs answer again when their indexes are
    /// in. Jobs of a host that is not connected are left out.
    Rebuild(RebuildArgs),
}

/// Which jobs.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// HOST or HOST/POLICY; default: all.
    #[arg(add = completer(complete::jobs))]
    job: Option<String>,
    /// Of hosts with these labels only.
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
}

/// What to make anew.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// HOST or HOST/POLICY.
    #[arg(required_unless_present_any = ["selector", "all"], conflicts_with = "all", add = completer(complete::jobs))]
    job: Option<String>,
    /// Of hosts with these labels only.
    #[arg(short = 'l', long, conflicts_with = "all")]
    selector: Option<String>,
    /// Of the whole fleet.
    #[arg(long)]
    all: bool,
    /// Say what would be made anew, change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Runs it.
pub async fn run(session: &mut Session, command: &CatalogCommand) -> Result<(), Failure> {
    match command {
        CatalogCommand::Status(args) => {
            let found = look(session, jobs(args.job.as_deref(), &args.selector)).await?;
            show(&session.out, &found)
        }
        CatalogCommand::Rebuild(args) => rebuild(session, args).await,
    }
}

fn jobs(job: Option<&str>, selector: &str) -> CatalogJobs {
    let (host, policy) = job.map_or(("", ""), |job| job.split_once('/').unwrap_or((job, "")));
    CatalogJobs { host: host.to_owned(), policy: policy.to_owned(), selector: selector.to_owned() }
}

async fn look(session: &mut Session, jobs: CatalogJobs) -> Result<CatalogStatus, Failure> {
    answer(session.client.get_catalog_status(request(jobs)).await)
}

/// The table of jobs, and below it what the entries take.
pub fn show(out: &Output, status: &CatalogStatus) -> Result<(), Failure> {
    if out.is_json() {
        return out.list(&json::catalog_status(status), "jobs");
    }
    table(out, &status.jobs)?;
    let (entries, database) = (shown::size(status.entry_bytes), shown::size(status.database_bytes));
    out.talk(&format!("about {} states of paths in {entries}; the whole database has {database}", status.versions));
    if status.jobs.iter().any(|job| job.not_searchable > 0) {
        out.talk("hint: coordctl catalog rebuild HOST/POLICY asks for their indexes again");
    }
    Ok(())
}

fn table(out: &Output, jobs: &[CatalogOfJob]) -> Result<(), Failure> {
    let columns = [
        ("job", Left),
        ("backups", Right),
        ("searchable", Right),
        ("waited for", Right),
        ("given up", Right),
        ("why", Left),
    ];
    let row = |job: &CatalogOfJob| {
        let figures = [job.backups, job.searchable, job.pending, job.not_searchable].map(|number| number.to_string());
        let mut row = vec![format!("{}/{}", job.host, job.policy)];
        row.extend(figures);
        row.push(job.why.clone());
        row.push(if job.connected { "yes" } else { "no" }.to_owned());
        row
    };
    let rows = jobs.iter().map(row).collect();
    out.wide_table(&columns, &[("connected", Left)], rows, "no backups yet; coordctl job run HOST/POLICY takes one")
}

async fn rebuild(session: &mut Session, args: &RebuildArgs) -> Result<(), Failure> {
    let asked = jobs(args.job.as_deref(), args.selector.as_deref().unwrap_or_default());
    let dry = RebuildCatalogRequest { jobs: Some(asked.clone()), dry_run: true };
    let plan = answer(session.client.rebuild_catalog(request(dry)).await)?;
    for job in &plan.left_out {
        session.out.talk(&format!("warning: {}/{} is left out: the host is not connected", job.host, job.policy));
    }
    let backups: u64 = plan.jobs.iter().map(|job| job.backups).sum();
    let what =
        format!("{} jobs: drop the entries of {backups} backups and take their indexes in again", plan.jobs.len());
    if args.dry_run {
        return session.out.dry_run(&what);
    }
    session.moderate(&what, "")?;
    let message = RebuildCatalogRequest { jobs: Some(asked.clone()), dry_run: false };
    let begun = answer(session.client.rebuild_catalog(request(message)).await)?;
    let mut jobs = begun.jobs.clone();
    if args.waiting.detach {
        session.out.talk("next: coordctl catalog status");
    } else if !jobs.is_empty() {
        jobs = until_taken_in(session, &asked, &begun, args.waiting.timeout).await?;
    }
    if session.out.is_json() {
        session.out.list(&json::catalog_rebuild(&jobs, &begun.left_out), "jobs")?;
    } else {
        table(&session.out, &jobs)?;
    }
    let incomplete = !args.waiting.detach && jobs.iter().any(|job| job.not_searchable > 0);
    if incomplete || !begun.left_out.is_empty() { Err(Failure::Ended(Exit::Warnings)) } else { Ok(()) }
}

/// Waits until no backup of these jobs is waited for; what has become of them. Ctrl-C and the time limit end the waiting, not the work.
async fn until_taken_in(
    session: &mut Session,
    asked: &CatalogJobs,
    begun: &CatalogRebuild,
    timeout: Option<Duration>,
) -> Result<Vec<CatalogOfJob>, Failure> {
    let (mut stop, mut patience, mut said) = (Stop::after(timeout), Patience::default(), None);
    let rebuilt = |job: &CatalogOfJob| begun.jobs.iter().any(|own| own.host == job.host && own.policy == job.policy);
    loop {
        match stop.unless(look(session, asked.clone())).await {
            Ok(Ok(status)) => {
                patience.renew();
                let jobs: Vec<CatalogOfJob> = status.jobs.into_iter().filter(rebuilt).collect();
                let (all, left): (u64, u64) =
                    jobs.iter().fold((0, 0), |(a, b), job| (a + job.backups, b + job.pending));
                if left == 0 {
                    return Ok(jobs);
                }
                if said.replace(left) != Some(left) {
                    session.out.talk(&format!("{} of {all} backups are taken in", all - left));
                }
            }
            Ok(Err(Failure::Fault(fault))) if fault.is_transient() && patience.lasts() => {}
            Ok(Err(failure)) => return Err(failure),
            Err(exit) => return Err(goes_on(session, exit)),
        }
        if let Err(exit) = stop.unless(tokio::time::sleep(LOOK)).await {
            return Err(goes_on(session, exit));
        }
    }
}

fn goes_on(session: &Session, exit: Exit) -> Failure {
    session.out.talk("rebuild continues: coordctl catalog status");
    Failure::Ended(exit)
}

#[cfg(test)]
mod tests {
    use super::jobs;
    use coord_shared::api::CatalogJobs;

    #[test]
    fn a_host_or_one_job_of_it_is_meant() {
        let of =
            |host: &str, policy: &str| CatalogJobs { host: host.into(), policy: policy.into(), selector: "".into() };
        assert_eq!(jobs(None, ""), of("", ""));
        assert_eq!(jobs(Some("web-17"), ""), of("web-17", ""));
        assert_eq!(jobs(Some("web-17/web"), ""), of("web-17", "web"));
    }
}
