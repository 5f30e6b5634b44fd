//! `coordctl job list | show | run`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{self, GetJobRequest, ListJobsRequest, StartBackupRequest};
use coord_shared::duration;

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Output;
use crate::session::Session;
use crate::{json, shown, wait};

/// One policy on one host.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List jobs with their newest backup and next run.
    List {
        /// Of this host only.
        #[arg(long, default_value = "")]
        host: String,
        /// Of this policy only.
        #[arg(long, default_value = "")]
        policy: String,
        /// Of hosts with these labels only.
        #[arg(short = 'l', long, default_value = "")]
        selector: String,
    },
    /// Show one job.
    Show {
        /// HOST/POLICY.
        job: String,
    },
    /// Take a backup now.
    ///
    /// A job has at most one open backup run: if there is one, it is waited for instead.
    Run(RunArgs),
}

/// How to take it.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// HOST/POLICY.
    job: String,
    /// The level; default: the engine decides.
    #[arg(long)]
    level: Option<LevelWord>,
    /// Names this wish: asked for again, the answer is the same run, ended or not.
    #[arg(long, default_value = "", hide_default_value = true)]
    key: String,
    /// Say what would be asked for, ask for nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// The levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelWord {
    /// Everything.
    Full,
    /// What changed since the last full.
    Differential,
}

/// Whether to wait for the run's end.
#[derive(Debug, Clone, Args)]
pub struct Waiting {
    /// Return at once with the run's id.
    #[arg(long, conflicts_with_all = ["wait", "timeout"])]
    pub detach: bool,
    /// Wait for the end (the default).
    #[arg(long)]
    pub wait: bool,
    /// Wait at most so long (30m, 2h), then exit with 7; the run goes on.
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    pub timeout: Option<Duration>,
}

/// A limit for waiting.
pub fn timeout(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("{text:?} is no duration; write 90s, 30m or 2h"))
}

impl Waiting {
    /// Waits for `run` unless detached, shows it, and ends with the exit code that follows from it.
    pub async fn follow(&self, session: &mut Session, run: api::Run) -> Result<(), Failure> {
        if self.detach {
            if session.out.is_json() {
                return session.out.json(&json::run(&run));
            }
            session.out.print(&format!("{}\n", run.id))?;
            session.out.talk(&format!("next: coordctl run watch {}", shown::short(&run.id)));
            return Ok(());
        }
        follow(session, &run, self.timeout).await
    }
}

/// Waits for a run's end, shows it, and ends with the exit code that follows from it.
pub async fn follow(session: &mut Session, run: &api::Run, timeout: Option<Duration>) -> Result<(), Failure> {
    session.out.talk(&format!("run {} of {}", shown::short(&run.id), run.host));
    let ended = wait::until_end(session, &run.id, timeout).await?;
    super::run::show(session, &ended)?;
    wait::conclude(session, &ended)
}

/// Runs it.
pub async fn run(session: &mut Session, command: &JobCommand) -> Result<(), Failure> {
    match command {
        JobCommand::List { host, policy, selector } => {
            let message = ListJobsRequest { host: host.clone(), policy: policy.clone(), selector: selector.clone() };
            let list = answer(session.client.list_jobs(request(message)).await)?.jobs;
            if session.out.is_json() {
                return session.out.json(&json::jobs(&list));
            }
            table(&session.out, &list)
        }
        JobCommand::Show { job } => {
            let (host, policy) = split(job)?;
            let found = answer(session.client.get_job(request(GetJobRequest { host, policy })).await)?;
            show(session, &found)
        }
        JobCommand::Run(args) => {
            let (host, policy) = split(&args.job)?;
            let level = match args.level {
                None => api::Level::Unspecified,
                Some(LevelWord::Full) => api::Level::Full,
                Some(LevelWord::Differential) => api::Level::Differential,
            };
            let asked = match args.level {
                None => "a backup whose level is decided when it runs",
                Some(LevelWord::Full) => "a full backup",
                Some(LevelWord::Differential) => "a differential backup",
            };
            let what = format!("{host}/{policy}: {asked}, now");
            if args.dry_run {
                let job = GetJobRequest { host, policy };
                let job = answer(session.client.get_job(request(job)).await)?;
                let open = job.open_run.as_ref().map_or(String::new(), |run| {
                    format!(
                        "; run {} is {} already, and would be the answer",
                        shown::short(&run.id),
                        shown::state(run.state)
                    )
                });
                return session.out.dry_run(&format!("{what}{open}"));
            }
            session.change(&what)?;
            let message = StartBackupRequest { host, policy, level: level.into(), key: args.key.clone() };
            let run = answer(session.client.start_backup(request(message)).await)?;
            if run.was_there {
                session.out.talk(&there_already(&run));
            }
            args.waiting.follow(session, run).await
        }
    }
}

fn there_already(run: &api::Run) -> String {
    let short = shown::short(&run.id);
    format!("nothing new is asked for: run {short} of {}/{} is {}", run.host, run.policy, shown::state(run.state))
}

fn split(job: &str) -> Result<(String, String), Failure> {
    match job.split_once('/') {
        Some((host, policy)) if !host.is_empty() && !policy.is_empty() => Ok((host.to_owned(), policy.to_owned())),
        Some(_) | None => Err(Failure::usage(format!("{job:?} is no job: write HOST/POLICY"), "coordctl job list")),
    }
}

fn newest(job: &api::Job) -> String {
    job.newest.as_ref().map_or_else(
        || "none".to_owned(),
        |b| format!("{} {}", shown::instant(b.captured_at_us), shown::level(b.level)),
    )
}

/// The table of jobs.
pub fn table(out: &Output, list: &[api::Job]) -> Result<(), Failure> {
    let columns = [
        ("job", Left),
        ("state", Left),
        ("newest backup", Left),
        ("next run", Left),
        ("backups", Right),
        ("stored", Right),
    ];
    let more = [("newest full", Left), ("open run", Left), ("id", Left)];
    let empty = "no jobs yet; a policy that selects a host makes one: coordctl policy apply -f FILE";
    out.wide_table(&columns, &more, list.iter().map(row).collect(), empty)
}

fn newest_full(job: &api::Job) -> String {
    job.newest_full.as_ref().map_or_else(|| "none".to_owned(), |b| shown::instant(b.captured_at_us))
}

/// How a chain has grown.
fn growth(chain: &api::ChainGrowth) -> String {
    if chain.differentials == 0 {
        return "none yet".to_owned();
    }
    format!(
        "{}: the newest {}, {} % of the full; the largest {}",
        chain.differentials,
        shown::size(chain.newest_bytes),
        chain.percent,
        shown::size(chain.largest_bytes)
    )
}

fn row(j: &api::Job) -> Vec<String> {
    let state = j.open_run.as_ref().map_or_else(|| j.state.clone(), |run| shown::state(run.state));
    vec![
        format!("{}/{}", j.host, j.policy),
        state,
        newest(j),
        shown::instant(j.next_due_at_us),
        j.backups.to_string(),
        shown::size(j.stored_bytes),
        newest_full(j),
        j.open_run.as_ref().map_or(String::new(), |run| shown::short(&run.id).to_owned()),
        j.id.clone(),
    ]
}

fn show(session: &Session, j: &api::Job) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(&json::job(j));
    }
    let open = j
        .open_run
        .as_ref()
        .map_or(String::new(), |run| format!("{} {}", shown::short(&run.id), shown::state(run.state)));
    session.out.facts(&[
        ("job", format!("{}/{}", j.host, j.policy)),
        ("state", j.state.clone()),
        ("newest backup", newest(j)),
        ("newest full", newest_full(j)),
        ("its differentials", j.growth.as_ref().map_or_else(String::new, growth)),
        ("open run", open),
        ("next run", shown::instant(j.next_due_at_us)),
        ("backups", j.backups.to_string()),
        ("stored", shown::size(j.stored_bytes)),
    ])?;
    session.out.talk(&format!("next: coordctl explain {}/{}", j.host, j.policy));
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{growth, split, timeout};
    use coord_shared::api::ChainGrowth;
    use std::time::Duration;

    #[test]
    fn a_job_is_a_host_and_a_policy() {
        assert_eq!(split("web-1/srv").unwrap(), ("web-1".to_owned(), "srv".to_owned()));
        assert!(split("web-1").is_err() && split("/srv").is_err() && split("web-1/").is_err());
    }

    #[test]
    fn the_growth_of_a_chain_is_that_of_its_newest_differential() {
        let chain = ChainGrowth { differentials: 3, newest_bytes: 1024, largest_bytes: 2048, percent: 25 };
        assert_eq!(growth(&chain), "3: the newest 1.0 KiB, 25 % of the full; the largest 2.0 KiB");
        assert_eq!(growth(&ChainGrowth::default()), "none yet");
    }

    #[test]
    fn a_timeout_is_a_duration() {
        assert_eq!(timeout("30m"), Ok(Duration::from_secs(1800)));
        assert!(timeout("soon").is_err());
    }
}
