//! `coordctl run list | show | watch | logs | warnings | cancel | retry`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{
    self, CancelRunRequest, GetRunRequest, ListRunWarningsRequest, ListRunsRequest, RetryRunRequest, RunKind, RunState,
};

use super::backup::bound;
use super::job::{Waiting, follow, timeout};
use super::listing::{cut_asked, to_ask};
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::document::Fields;
use crate::output::{Format, Output};
use crate::session::Session;
use crate::{complete, completer, json, shown, wait};

/// Runs that the coordinator lists at once.
const MOST_RUNS: u32 = 1000;

/// Executions of backups, verifications and restores.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// List runs, newest first.
    List(ListArgs),
    /// Show one run: state, reason, checks, attempts.
    Show {
        /// Id, or a unique beginning of it.
        #[arg(add = completer(complete::runs))]
        run: String,
    },
    /// Follow a run until it has ended; the exit code is that of its result.
    ///
    /// On a terminal one line shows how far it is; elsewhere a line is printed for each phase and every 30 s. With -o jsonl each change is
    /// an event, and the last line is the result. Ctrl-C leaves the run alone.
    Watch {
        /// Id, or a unique beginning of it.
        #[arg(add = completer(complete::runs))]
        run: String,
        /// Follow at most so long (30m, 2h), then exit with 7; the run goes on.
        #[arg(long, value_name = "DURATION", value_parser = timeout)]
        timeout: Option<Duration>,
    },
    /// Say what happened to a run, step by step: queued, leased, decided, phases, warnings, verified, ended, searchable.
    Logs {
        /// Id, or a unique beginning of it.
        #[arg(add = completer(complete::runs))]
        run: String,
        /// Go on until the run has ended.
        #[arg(short = 'f', long)]
        follow: bool,
    },
    /// List what a run could not do as asked: unreadable files, files left different.
    Warnings {
        /// Id, or a unique beginning of it.
        #[arg(add = completer(complete::runs))]
        run: String,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: u32,
    },
    /// Try a run again, and wait for its end.
    ///
    /// One that waits for its next attempt goes at once. For one that failed, was cancelled or was missed, the same is asked for anew.
    Retry {
        /// Id, or a unique beginning of it.
        #[arg(add = completer(complete::runs))]
        run: String,
        /// Say what would be tried, try nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Ask a run to stop.
    Cancel {
        /// Id, or a unique beginning of it.
        #[arg(add = completer(complete::runs))]
        run: String,
        /// Say what would be stopped, stop nothing.
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
    /// Of this kind only.
    #[arg(long)]
    kind: Option<KindWord>,
    /// In this state only.
    #[arg(long)]
    state: Option<StateWord>,
    /// Due at or after this time.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Due before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of hosts with these labels only (coordctl help selectors).
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
    /// At most so many, the newest due first; 0: as many as are listed at once, 1000.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// In this order.
    #[arg(long, default_value = "due")]
    sort: RunOrder,
}

/// Orders of a list of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RunOrder {
    /// The newest due first.
    Due,
    /// The newest started first.
    Started,
    /// The longest first.
    Took,
    /// By host and policy.
    Host,
    /// By state.
    State,
}

impl RunOrder {
    fn sort(self, runs: &mut [api::Run]) {
        let took = |run: &api::Run| if run.ended_at_us > 0 { run.ended_at_us - run.started_at_us } else { 0 };
        match self {
            RunOrder::Due => {}
            RunOrder::Started => runs.sort_by_key(|run| std::cmp::Reverse(run.started_at_us)),
            RunOrder::Took => runs.sort_by_key(|run| std::cmp::Reverse(took(run))),
            RunOrder::Host => runs.sort_by(|a, b| (&a.host, &a.policy).cmp(&(&b.host, &b.policy))),
            RunOrder::State => runs.sort_by_key(|run| run.state),
        }
    }
}

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindWord {
    /// A backup.
    Backup,
    /// A verification.
    Verify,
    /// A restore.
    Restore,
}

/// The states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateWord {
    /// Waiting for its host.
    Queued,
    /// Given to its host.
    Leased,
    /// Going on.
    Running,
    /// Reading back.
    Verifying,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Stopped by somebody.
    Cancelled,
    /// Not started, with a reason.
    Missed,
}

fn kind(word: Option<KindWord>) -> RunKind {
    match word {
        None => RunKind::Unspecified,
        Some(KindWord::Backup) => RunKind::Backup,
        Some(KindWord::Verify) => RunKind::Verify,
        Some(KindWord::Restore) => RunKind::Restore,
    }
}

fn state(word: Option<StateWord>) -> RunState {
    match word {
        None => RunState::Unspecified,
        Some(StateWord::Queued) => RunState::Queued,
        Some(StateWord::Leased) => RunState::Leased,
        Some(StateWord::Running) => RunState::Running,
        Some(StateWord::Verifying) => RunState::Verifying,
        Some(StateWord::Succeeded) => RunState::Succeeded,
        Some(StateWord::Failed) => RunState::Failed,
        Some(StateWord::Cancelled) => RunState::Cancelled,
        Some(StateWord::Missed) => RunState::Missed,
    }
}

/// Runs it.
pub async fn run(session: &mut Session, command: &RunCommand) -> Result<(), Failure> {
    match command {
        RunCommand::List(args) => list(session, args).await,
        RunCommand::Show { run } => {
            let found = answer(session.client.get_run(request(GetRunRequest { run: run.clone() })).await)?;
            show(session, &found)?;
            if found.warnings_total > 0 {
                session.out.talk(&format!("next: coordctl run warnings {}", shown::short(&found.id)));
            }
            Ok(())
        }
        RunCommand::Watch { run, timeout } => watch(session, run, *timeout).await,
        RunCommand::Logs { run, follow } => super::logs::run(session, run, *follow).await,
        RunCommand::Warnings { run, limit } => {
            let message = ListRunWarningsRequest { run: run.clone(), limit: *limit };
            let found = answer(session.client.list_run_warnings(request(message)).await)?;
            warnings(session, &found)
        }
        RunCommand::Retry { run, dry_run, waiting } => retry(session, run, *dry_run, waiting).await,
        RunCommand::Cancel { run, dry_run } => {
            let now = answer(session.client.get_run(request(GetRunRequest { run: run.clone() })).await)?;
            let what =
                format!("stop run {} of {}, which is {}", shown::short(&now.id), now.host, shown::state(now.state));
            if *dry_run {
                return session.out.dry_run(&what);
            }
            session.change(&what)?;
            let found = answer(session.client.cancel_run(request(CancelRunRequest { run: run.clone() })).await)?;
            session.out.talk(&format!(
                "run {} is asked to stop; it is {}",
                shown::short(&found.id),
                shown::state(found.state)
            ));
            if session.out.is_json() { session.out.json(&json::run(&found)) } else { Ok(()) }
        }
    }
}

async fn watch(session: &mut Session, run: &str, timeout: Option<Duration>) -> Result<(), Failure> {
    let found = answer(session.client.get_run(request(GetRunRequest { run: run.to_owned() })).await)?;
    if session.out.format != Format::Jsonl || session.out.fields == Some(Fields::Names) {
        return follow(session, &found, timeout).await;
    }
    let ended = wait::until_end(session, &found.id, timeout, wait::Telling::Events).await?;
    session.out.event("result", "document", &session.out.chosen(&json::run(&ended))?)?;
    wait::conclude(session, &ended)
}

async fn retry(session: &mut Session, run: &str, dry_run: bool, waiting: &Waiting) -> Result<(), Failure> {
    let now = answer(session.client.get_run(request(GetRunRequest { run: run.to_owned() })).await)?;
    let what = format!("try run {} of {} again, which is {}", shown::short(&now.id), now.host, shown::state(now.state));
    if dry_run {
        return session.out.dry_run(&what);
    }
    session.change(&what)?;
    let found = answer(session.client.retry_run(request(RetryRunRequest { run: run.to_owned() })).await)?;
    waiting.follow(session, found).await
}

async fn list(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let message = ListRunsRequest {
        host: args.host.clone(),
        policy: args.policy.clone(),
        kind: kind(args.kind).into(),
        state: state(args.state).into(),
        since_us: bound(session, args.since.as_deref())?,
        until_us: bound(session, args.until.as_deref())?,
        limit: to_ask(args.limit, MOST_RUNS),
        selector: args.selector.clone(),
    };
    let mut list = answer(session.client.list_runs(request(message)).await)?.runs;
    cut_asked(&session.out, &mut list, args.limit, MOST_RUNS);
    args.sort.sort(&mut list);
    if session.out.is_json() {
        return session.out.json(&json::runs(&list));
    }
    table(&session.out, &list)
}

/// The table of runs.
pub fn table(out: &Output, list: &[api::Run]) -> Result<(), Failure> {
    let columns = [
        ("run", Left),
        ("kind", Left),
        ("host", Left),
        ("policy", Left),
        ("due", Left),
        ("state", Left),
        ("level", Left),
        ("why", Left),
    ];
    let more =
        [("attempt", Right), ("started", Left), ("took", Left), ("warnings", Right), ("asked by", Left), ("id", Left)];
    out.wide_table(&columns, &more, list.iter().map(row).collect(), "no runs")
}

fn row(r: &api::Run) -> Vec<String> {
    let why = r.fault.as_ref().map_or_else(|| r.reason.clone(), |fault| fault.message.clone());
    vec![
        shown::short(&r.id).to_owned(),
        shown::kind(r.kind),
        r.host.clone(),
        r.policy.clone(),
        shown::instant(r.due_at_us),
        shown::state(r.state),
        shown::level(r.level),
        why,
        format!("{}/{}", r.attempt, r.max_attempts),
        shown::instant(r.started_at_us),
        took(r),
        r.warnings_total.to_string(),
        r.asked_by.clone(),
        r.id.clone(),
    ]
}

fn makes_up_for(r: &api::Run) -> String {
    let missed = r.makes_up_for.as_ref();
    missed.map_or(String::new(), |missed| format!("the run due {}: {}", shown::instant(missed.due_at_us), missed.why))
}

/// How its host began it while it was cut off, and what its clock was corrected by.
fn from_plan(r: &api::Run) -> String {
    let Some(how) = &r.from_plan else { return String::new() };
    let clock = match how.clock_offset_us {
        0 => "as the coordinator's".to_owned(),
        behind @ 1.. => format!("{} behind", shown::milliseconds(behind.unsigned_abs() / 1000)),
        ahead => format!("{} ahead", shown::milliseconds(ahead.unsigned_abs() / 1000)),
    };
    format!(
        "by its host at {}, from the plan of {}, cut off since {}; its clock was {clock}",
        shown::instant(how.started_at_us),
        shown::instant(how.plan_made_at_us),
        shown::instant(how.cut_off_since_us)
    )
}

fn took(r: &api::Run) -> String {
    if r.ended_at_us > 0 && r.started_at_us > 0 {
        shown::seconds((r.ended_at_us - r.started_at_us) / 1_000_000)
    } else {
        String::new()
    }
}

/// Shows a run.
pub fn show(session: &Session, r: &api::Run) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(&json::run(r));
    }
    let fault = r.fault.as_ref().map_or(String::new(), |fault| format!("{} ({})", fault.message, fault.code));
    let hint = r.fault.as_ref().map_or(String::new(), |fault| fault.hint.clone());
    let restore = r.restore.as_ref().map_or(String::new(), |x| {
        format!(
            "{} restored ({}), {} digests checked, {} equal, {} left different, {} removed, {} damaged",
            x.restored,
            shown::size(x.bytes),
            x.verified,
            x.equal,
            x.left_different,
            x.removed,
            x.damaged
        )
    });
    session.out.facts(&[
        ("run", r.id.clone()),
        ("kind", shown::kind(r.kind)),
        ("state", format!("{}{}", shown::state(r.state), if r.cancelling { " (asked to stop)" } else { "" })),
        ("of", if r.policy.is_empty() { r.host.clone() } else { format!("{}/{}", r.host, r.policy) }),
        ("level", shown::level(r.level)),
        ("why", r.reason.clone()),
        ("asked by", r.asked_by.clone()),
        ("makes up for", makes_up_for(r)),
        ("due", shown::instant(r.due_at_us)),
        ("begun", from_plan(r)),
        ("started", shown::instant(r.started_at_us)),
        ("took", took(r)),
        ("waits for", r.waits_for.clone()),
        ("not before", if r.not_before_us == 0 { String::new() } else { shown::instant(r.not_before_us) }),
        ("time", spent(&r.spent)),
        ("limited by", limited_by(r)),
        ("attempt", format!("{} of {}", r.attempt, r.max_attempts)),
        ("backup", r.backup_id.clone()),
        ("result", restore),
        ("warnings", if r.warnings_total == 0 { String::new() } else { r.warnings_total.to_string() }),
        ("fault", fault),
        ("hint", hint),
    ])?;
    for check in &r.checks {
        let verdict = session.out.verdict(check.passed);
        session.out.print(&format!("  {verdict}  {:<10}  {}\n", check.name, shown::safe(&check.detail)))?;
    }
    for rule in &r.left_out {
        session.out.print(&format!("  {}\n", shown::left_out(rule)))?;
    }
    for attempt in r.attempts.iter().filter(|attempt| attempt.fault.is_some()) {
        let why = attempt.fault.as_ref().map_or("", |fault| fault.message.as_str());
        session.out.print(&format!("  attempt {}: {}: {}\n", attempt.number, attempt.outcome, shown::safe(why)))?;
    }
    Ok(())
}

fn spent(list: &[api::Spent]) -> String {
    let part = |x: &api::Spent| format!("{} {}", x.stage, shown::milliseconds(x.ms));
    list.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// The verdict, with its share of all the time.
fn limited_by(r: &api::Run) -> String {
    let total: u64 = r.spent.iter().map(|x| x.ms).sum();
    let found = r.spent.iter().find(|x| x.stage == r.limited_by);
    found.map_or(String::new(), |x| format!("{} ({} % of the time)", x.stage, x.ms * 100 / total.max(1)))
}

fn warnings(session: &Session, found: &api::RunWarnings) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.list(&json::warnings(found), "warnings");
    }
    let rows =
        found.notes.iter().map(|note| vec![note.kind.clone(), shown::path(&note.path), note.detail.clone()]).collect();
    session.out.table(&[("what", Left), ("path", Left), ("detail", Left)], rows, "no warnings")?;
    if found.total > found.notes.len() as u64 {
        session.out.talk(&format!("{} of {} are listed", found.notes.len(), found.total));
    }
    Ok(())
}
