//! `coordctl limit list | set | remove`.

use std::cmp::Reverse;

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{self, ListLimitsRequest, RemoveLimitRequest, SetLimitRequest};
use coord_shared::fault::{ErrorCode, Fault};

use super::listing::{DEFAULT_LIMIT, bounds, cut};
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Output;
use crate::session::Session;
use crate::{json, shown};

/// How many runs go on at once.
#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// List limits with what is going on.
    List(ListArgs),
    /// Set a limit, or change the one of this name.
    ///
    /// A run begins when every limit that counts it has room. Restores wait for no limit and count in none. Runs that go on are left
    /// alone when a limit is lowered.
    Set(SetArgs),
    /// Take a limit away.
    Remove {
        /// Name.
        name: String,
        /// Say what would change, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Changed at or after this time.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Changed before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many, the first in order; 0: all.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// In this order.
    #[arg(long, default_value = "name")]
    sort: LimitOrder,
}

/// Orders of a list of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LimitOrder {
    /// By name.
    Name,
    /// What has least room left first.
    Room,
    /// The newest first.
    Changed,
}

impl LimitOrder {
    fn sort(self, list: &mut [api::Limit]) {
        match self {
            LimitOrder::Name => list.sort_by(|a, b| a.name.cmp(&b.name)),
            LimitOrder::Room => list.sort_by_key(|limit| u64::from(limit.runs).saturating_sub(limit.running)),
            LimitOrder::Changed => list.sort_by_key(|limit| Reverse(limit.changed_at_us)),
        }
    }
}

async fn list(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let bounds = bounds(session, args.since.as_deref(), args.until.as_deref())?;
    let mut list = limits(session).await?;
    list.retain(|limit| bounds.hold(limit.changed_at_us));
    args.sort.sort(&mut list);
    cut(&session.out, &mut list, args.limit);
    if session.out.is_json() { session.out.json(&json::limits(&list)) } else { table(&session.out, &list) }
}

/// Which limit.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Name: a-z, 0-9 and '-'.
    name: String,
    /// So many runs at once, at least 1.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Say what would change, change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Whose runs it counts together.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ScopeArgs {
    /// All runs of the fleet.
    #[arg(long)]
    fleet: bool,
    /// Those of each host by itself.
    #[arg(long)]
    each_host: bool,
    /// Those of all hosts that keep their archives in one folder, for each folder by itself.
    #[arg(long)]
    each_target: bool,
    /// Those of all the hosts with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
}

impl ScopeArgs {
    const fn word(&self) -> &'static str {
        match (self.fleet, self.each_host, self.each_target) {
            (true, _, _) => "fleet",
            (_, true, _) => "host",
            (_, _, true) => "target",
            (false, false, false) => "group",
        }
    }
}

/// Runs it.
pub async fn run(session: &mut Session, command: &LimitCommand) -> Result<(), Failure> {
    match command {
        LimitCommand::List(args) => list(session, args).await,
        LimitCommand::Set(args) => set(session, args).await,
        LimitCommand::Remove { name, dry_run } => remove(session, name, *dry_run).await,
    }
}

async fn limits(session: &mut Session) -> Result<Vec<api::Limit>, Failure> {
    Ok(answer(session.client.list_limits(request(ListLimitsRequest {})).await)?.limits)
}

async fn set(session: &mut Session, args: &SetArgs) -> Result<(), Failure> {
    let message = SetLimitRequest {
        name: args.name.clone(),
        scope: args.scope.word().to_owned(),
        selector: args.scope.selector.clone().unwrap_or_default(),
        runs: args.runs,
    };
    let what = format!(
        "at most {} run(s) at once {}, as limit {}",
        args.runs,
        over(&message.scope, &message.selector),
        args.name
    );
    if args.dry_run {
        let known = limits(session).await?;
        let before = known.iter().find(|limit| limit.name == args.name);
        let before = before.map_or_else(
            || "there is none of this name".to_owned(),
            |x| format!("now it is {} {}", x.runs, over(&x.scope, &x.selector)),
        );
        return session.out.dry_run(&format!("{what}; {before}"));
    }
    session.change(&what)?;
    let limit = answer(session.client.set_limit(request(message)).await)?;
    session.out.talk(&format!("limit {}: {} {}", limit.name, limit.runs, over(&limit.scope, &limit.selector)));
    if limit.hosts == 0 {
        session.out.talk("warning: no host has these labels now");
    }
    if limit.running > u64::from(limit.runs) {
        session.out.talk(&format!("{} are going on; nothing begins until some of them have ended", limit.running));
    }
    session.out.talk("next: coordctl limit list");
    if session.out.is_json() { session.out.json(&json::limit(&limit)) } else { Ok(()) }
}

async fn remove(session: &mut Session, name: &str, dry_run: bool) -> Result<(), Failure> {
    let what = format!("take the limit {name} away");
    if dry_run {
        let known = limits(session).await?;
        let found = known.iter().find(|limit| limit.name == name).ok_or_else(|| {
            let fault = Fault::new(ErrorCode::NotFound, format!("there is no limit '{}'", shown::safe(name)));
            Failure::Fault(fault.with_hint("coordctl limit list"))
        })?;
        return session.out.dry_run(&format!("{what}: {} {}", found.runs, over(&found.scope, &found.selector)));
    }
    session.change(&what)?;
    let limit = answer(session.client.remove_limit(request(RemoveLimitRequest { name: name.to_owned() })).await)?;
    session.out.talk(&format!(
        "limit {} is gone: it was {} {}",
        limit.name,
        limit.runs,
        over(&limit.scope, &limit.selector)
    ));
    if session.out.is_json() { session.out.json(&json::limit(&limit)) } else { Ok(()) }
}

fn over(scope: &str, selector: &str) -> String {
    match scope {
        "fleet" => "over the fleet".to_owned(),
        "host" => "on each host".to_owned(),
        "target" => "for each target of archives".to_owned(),
        _ => format!("on the hosts with {selector}"),
    }
}

/// The table of limits.
pub fn table(out: &Output, list: &[api::Limit]) -> Result<(), Failure> {
    let columns =
        [("limit", Left), ("runs", Right), ("going on", Right), ("over", Left), ("hosts", Right), ("by", Left)];
    let rows = list.iter().map(row).collect();
    out.wide_table(&columns, &[("since", Left)], rows, "no limits; coordctl limit set makes one")
}

fn row(x: &api::Limit) -> Vec<String> {
    let over = match x.scope.as_str() {
        "fleet" => "the fleet".to_owned(),
        "host" => "each host".to_owned(),
        "target" => "each target".to_owned(),
        _ => x.selector.clone(),
    };
    vec![
        x.name.clone(),
        x.runs.to_string(),
        x.running.to_string(),
        over,
        x.hosts.to_string(),
        x.changed_by.clone(),
        shown::instant(x.changed_at_us),
    ]
}
