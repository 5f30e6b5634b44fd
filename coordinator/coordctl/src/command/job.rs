//! `coordctl job list | show | run | pause | resume`.

use std::collections::HashSet;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{self, GetJobRequest, JobList, ListJobsRequest, StartBackupRequest};
use coord_shared::duration;

use super::listing::{DEFAULT_LIMIT, bounds};
use super::pause::{self, PauseArgs, Paused};
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Output;
use crate::session::Session;
use crate::{complete, completer, json, shown, wait};

/// One policy on one host.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List every policy on every host: the last good backup, the next run, the chain and the state. Jobs that have ended too.
    List(ListArgs),
    /// Show one job.
    Show {
        /// HOST/POLICY.
        #[arg(add = completer(complete::jobs))]
        job: String,
    },
    /// Take a backup now.
    ///
    /// A job has at most one open backup run: if there is one, it is waited for instead.
    Run(RunArgs),
    /// Let no backup and no verification of a job begin, until a time or until it is resumed.
    ///
    /// What comes due meanwhile is missed with the pause as its reason, and made up for afterwards as the policy says (catch_up). What is
    /// going on goes on, what waits begins afterwards, and restores begin as ever. What is paused already is paused anew.
    Pause {
        /// HOST/POLICY.
        #[arg(add = completer(complete::jobs))]
        job: String,
        #[command(flatten)]
        pause: PauseArgs,
    },
    /// End a pause of a job before its time.
    Resume {
        /// HOST/POLICY.
        #[arg(add = completer(complete::jobs))]
        job: String,
        /// Say what would change, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Of this host only.
    #[arg(long, default_value = "", add = completer(complete::hosts))]
    host: String,
    /// Of this policy only.
    #[arg(long, default_value = "", add = completer(complete::policies))]
    policy: String,
    /// Of hosts with these labels only (coordctl help selectors).
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// Whose last good backup is of this time or later.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Whose last good backup is older than this time, or that have none: what is missing since then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many, the first in order; 0: all.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// In this order.
    #[arg(long, default_value = "job")]
    sort: SortWord,
}

/// The orders of the list. Ties are by job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortWord {
    /// Host, then policy.
    Job,
    /// Policy, then host.
    Policy,
    /// Active ones first.
    State,
    /// What has no good backup first, then the oldest.
    LastGood,
    /// What runs next first; what does not run last.
    NextRun,
    /// The largest first.
    Stored,
}

impl SortWord {
    const fn to_api(self) -> api::JobOrder {
        match self {
            SortWord::Job => api::JobOrder::Unspecified,
            SortWord::Policy => api::JobOrder::Policy,
            SortWord::State => api::JobOrder::State,
            SortWord::LastGood => api::JobOrder::LastGood,
            SortWord::NextRun => api::JobOrder::NextRun,
            SortWord::Stored => api::JobOrder::Stored,
        }
    }
}

async fn list(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let bounds = bounds(session, args.since.as_deref(), args.until.as_deref())?;
    let message = ListJobsRequest {
        host: args.host.clone(),
        policy: args.policy.clone(),
        selector: args.selector.clone(),
        since_us: bounds.since,
        until_us: bounds.until,
        order: args.sort.to_api().into(),
        limit: 0,
        skip: 0,
    };
    let wanted = if args.limit == 0 { usize::MAX } else { args.limit };
    let ask = async |message| answer(session.client.list_jobs(request(message)).await);
    let (jobs, left_out) = pages(ask, message, wanted).await?;
    if left_out > 0 {
        session.out.talk(&format!("{left_out} more, use --limit, or -l, --host and --policy for fewer"));
    }
    if session.out.is_json() { session.out.json(&json::jobs(&jobs)) } else { table(&session.out, &jobs) }
}

/// The first `wanted` jobs, page by page, and how many there are behind them.
async fn pages(
    mut ask: impl AsyncFnMut(ListJobsRequest) -> Result<JobList, Failure>,
    mut message: ListJobsRequest,
    wanted: usize,
) -> Result<(Vec<api::Job>, u64), Failure> {
    let mut jobs = Vec::new();
    // What changes its place between two pages is shown once.
    let mut shown = HashSet::new();
    loop {
        message.limit = u32::try_from(wanted - jobs.len()).unwrap_or(u32::MAX);
        let found = ask(message.clone()).await?;
        message.skip = message.skip.saturating_add(u32::try_from(found.jobs.len()).unwrap_or(u32::MAX));
        let before = jobs.len();
        jobs.extend(found.jobs.into_iter().filter(|job| shown.insert(job.id.clone())));
        // A coordinator that knows of no pages says the same again.
        if found.left_out == 0 || jobs.len() >= wanted || jobs.len() == before {
            return Ok((jobs, found.left_out));
        }
    }
}

/// How to take it.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// HOST/POLICY.
    #[arg(add = completer(complete::jobs))]
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
    let ended = wait::until_end(session, &run.id, timeout, wait::Telling::Talk).await?;
    super::run::show(session, &ended)?;
    wait::conclude(session, &ended)
}

/// Runs it.
pub async fn run(session: &mut Session, command: &JobCommand) -> Result<(), Failure> {
    match command {
        JobCommand::List(args) => list(session, args).await,
        JobCommand::Show { job } => {
            let (host, policy) = split(job)?;
            let found = answer(session.client.get_job(request(GetJobRequest { host, policy })).await)?;
            show(session, &found)
        }
        JobCommand::Pause { job, pause } => {
            let (host, policy) = split(job)?;
            pause::pause(session, &Paused::Job(host, policy), pause).await
        }
        JobCommand::Resume { job, dry_run } => {
            let (host, policy) = split(job)?;
            pause::resume(session, &Paused::Job(host, policy), *dry_run).await
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
        ("last good backup", Left),
        ("next run", Left),
        ("chain", Left),
        ("backups", Right),
        ("stored", Right),
    ];
    let more = [("newest backup", Left), ("newest full", Left), ("open run", Left), ("id", Left)];
    let empty = "no jobs yet; a policy that selects a host makes one: coordctl policy apply -f FILE";
    out.wide_table(&columns, &more, list.iter().map(row).collect(), empty)
}

/// The chain that the next differential stands on.
fn chain(job: &api::Job) -> String {
    match (&job.newest_full, job.chain_differentials) {
        (None, _) => "none".to_owned(),
        (Some(_), 0) => "full".to_owned(),
        (Some(_), n) => format!("full + {n}"),
    }
}

/// Active and perhaps paused, or why not any more.
fn state(job: &api::Job) -> String {
    match job.ended_because.as_str() {
        "" if job.pauses.is_empty() => job.state.clone(),
        "" => format!("{}, paused", job.state),
        why => format!("{} ({})", job.state, why.replace('_', " ")),
    }
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
    let state = j.open_run.as_ref().map_or_else(|| state(j), |run| shown::state(run.state));
    let last_good = if j.last_good_at_us == 0 { "none".to_owned() } else { shown::instant(j.last_good_at_us) };
    vec![
        format!("{}/{}", j.host, j.policy),
        state,
        last_good,
        shown::instant(j.next_due_at_us),
        chain(j),
        j.backups.to_string(),
        shown::size(j.stored_bytes),
        newest(j),
        newest_full(j),
        j.open_run.as_ref().map_or(String::new(), |run| shown::short(&run.id).to_owned()),
        j.id.clone(),
    ]
}

/// A missed run and why it was.
fn missed(run: &api::Run) -> String {
    format!("{} due {}: {}", shown::short(&run.id), shown::instant(run.due_at_us), run.reason)
}

/// The runs that make up for missed ones and have not begun.
fn owed(job: &api::Job) -> String {
    match job.owed_runs {
        0 => String::new(),
        runs if job.owed_from_us == 0 => format!("{runs} missed, when it is resumed"),
        runs => format!("{runs} missed, not before {}", shown::instant(job.owed_from_us)),
    }
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
        ("state", state(j)),
        ("paused", pause::told(&j.pauses)),
        ("newest backup", newest(j)),
        ("chain", chain(j)),
        ("newest full", newest_full(j)),
        ("its differentials", j.growth.as_ref().map_or_else(String::new, growth)),
        ("open run", open),
        ("next run", shown::instant(j.next_due_at_us)),
        ("last missed", j.last_missed.as_ref().map_or_else(String::new, missed)),
        ("to make up for", owed(j)),
        ("backups", j.backups.to_string()),
        ("stored", shown::size(j.stored_bytes)),
    ])?;
    super::policy::values(session, &j.values)?;
    session.out.talk(&format!("next: coordctl explain {}/{}", j.host, j.policy));
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{chain, growth, missed, owed, pages, split, state, timeout};
    use coord_shared::api::{Backup, ChainGrowth, Job, JobList, ListJobsRequest, Run};
    use std::time::Duration;

    #[test]
    fn a_job_is_a_host_and_a_policy() {
        assert_eq!(split("web-1/srv").unwrap(), ("web-1".to_owned(), "srv".to_owned()));
        assert!(split("web-1").is_err() && split("/srv").is_err() && split("web-1/").is_err());
    }

    /// The answer of a coordinator with these jobs that lists three at once.
    fn list_of(ids: &[u32], asked: &ListJobsRequest) -> JobList {
        let job = |id: &u32| Job { id: id.to_string(), ..Job::default() };
        let (skip, limit) = (asked.skip as usize, (asked.limit as usize).min(3));
        let jobs: Vec<Job> = ids.iter().skip(skip).take(limit).map(job).collect();
        JobList { left_out: ids.len().saturating_sub(skip + jobs.len()) as u64, jobs }
    }

    fn ids(jobs: &[Job]) -> Vec<u32> {
        jobs.iter().map(|job| job.id.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn jobs_are_listed_page_by_page_until_there_are_enough_or_no_more() {
        for (wanted, listed, behind) in [(usize::MAX, 8, 0), (8, 8, 0), (7, 7, 1), (3, 3, 5), (2, 2, 6)] {
            let ask = async |asked| Ok(list_of(&[0, 1, 2, 3, 4, 5, 6, 7], &asked));
            let (jobs, left_out) = pages(ask, ListJobsRequest::default(), wanted).await.unwrap();
            assert_eq!((ids(&jobs), left_out), ((0..listed).collect(), behind), "{wanted}");
        }
        let nothing = pages(async |asked| Ok(list_of(&[], &asked)), ListJobsRequest::default(), 100).await.unwrap();
        assert_eq!(nothing, (vec![], 0));
    }

    #[tokio::test]
    async fn a_job_that_changes_its_place_between_pages_is_listed_once_and_an_old_coordinator_ends_the_list() {
        let mut orders = [[0, 1, 2, 3, 4], [3, 0, 1, 2, 4]].into_iter();
        let moving = async |asked| Ok(list_of(&orders.next().unwrap(), &asked));
        let (jobs, _) = pages(moving, ListJobsRequest::default(), usize::MAX).await.unwrap();
        assert_eq!(ids(&jobs), [0, 1, 2, 4], "2 came twice, 3 went where nobody looked again");

        let knows_no_pages = async |asked| Ok(list_of(&[0, 1, 2, 3], &ListJobsRequest { skip: 0, ..asked }));
        let (jobs, left_out) = pages(knows_no_pages, ListJobsRequest::default(), usize::MAX).await.unwrap();
        assert_eq!((ids(&jobs), left_out), (vec![0, 1, 2], 1));
    }

    #[test]
    fn a_job_that_has_ended_says_why_and_a_chain_how_long_it_is() {
        let mut job = Job { state: "ended".into(), ended_because: "policy_deleted".into(), ..Job::default() };
        assert_eq!((state(&job), chain(&job)), ("ended (policy deleted)".to_owned(), "none".to_owned()));
        job.newest_full = Some(Backup::default());
        job.chain_differentials = 6;
        assert_eq!(chain(&job), "full + 6");
    }

    #[test]
    fn the_growth_of_a_chain_is_that_of_its_newest_differential() {
        let chain = ChainGrowth { differentials: 3, newest_bytes: 1024, largest_bytes: 2048, percent: 25 };
        assert_eq!(growth(&chain), "3: the newest 1.0 KiB, 25 % of the full; the largest 2.0 KiB");
        assert_eq!(growth(&ChainGrowth::default()), "none yet");
    }

    #[test]
    fn a_missed_run_is_told_with_its_reason_and_what_makes_up_for_it() {
        let run = Run { id: "0123456789".into(), reason: "outside the windows".into(), ..Run::default() };
        assert_eq!(missed(&run), "01234567 due -: outside the windows");
        assert_eq!(owed(&Job::default()), "");
        let job = Job { owed_runs: 2, owed_from_us: 1, ..Job::default() };
        assert!(owed(&job).starts_with("2 missed, not before"));
        assert_eq!(owed(&Job { owed_from_us: 0, ..job }), "2 missed, when it is resumed");
    }

    #[test]
    fn a_timeout_is_a_duration() {
        assert_eq!(timeout("30m"), Ok(Duration::from_secs(1800)));
        assert!(timeout("soon").is_err());
    }
}
