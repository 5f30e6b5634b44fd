//! `coordctl policy init | list | show | lint | pause | resume | preview`; the preview itself is in `preview`, what changes policies in `policy_change`
//! and `policy_edit`.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{
    self, GetPolicyDefaultsRequest, GetPolicyRequest, LintPolicyRequest, ListHostsRequest, ListPoliciesRequest,
};
use coord_shared::fault::{ErrorCode, Fault};

use super::listing::{DEFAULT_LIMIT, bounds, cut};
use super::pause::{self, PauseArgs, Paused};
use super::policy_change::{self, ApplyArgs, DeleteArgs, DiffArgs, RollbackArgs};
use super::policy_edit::{self, EditArgs};
use super::preview::{self, PreviewArgs};
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Output;
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// Largest policy file, in bytes.
const MAX_POLICY_BYTES: u64 = 1 << 20;

/// What is protected, when and how.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print a policy file to start from.
    Init,
    /// List policies.
    List(ListArgs),
    /// Show one policy: its file as it was applied, and every value with the layer that says it.
    Show {
        /// Its name.
        #[arg(add = completer(complete::policies))]
        policy: String,
        /// As it is for this host, with the overrides that it has.
        #[arg(long, default_value = "", add = completer(complete::hosts))]
        host: String,
    },
    /// Show the fleet's defaults: what every policy says that says nothing itself.
    Defaults,
    /// Say what is wrong with a file, which hosts it selects and when it runs next.
    Lint {
        /// The file; - reads standard input.
        #[arg(short = 'f', long, value_name = "FILE")]
        file: PathBuf,
    },
    /// List what a file would take of a host, and count what each of its rules leaves out. Nothing is applied.
    Preview(PreviewArgs),
    /// Make files the policies of their names, all of them or none.
    ///
    /// A policy that no file names stays as it is. A host that a policy selects no longer keeps its backups: they are listed and restored
    /// from as before, and nothing new is taken.
    Apply(ApplyArgs),
    /// Open the text of a policy in $VISUAL or $EDITOR, and apply what comes back.
    ///
    /// The text is checked, and what it changes is shown before the question whether to. A policy that somebody else has changed meanwhile
    /// stays as it is (exit code 9). Whatever goes wrong, the text is kept, and the error says where.
    Edit(EditArgs),
    /// Say what applying files would change: keys, hosts, and what becomes of their backups. Nothing is applied.
    Diff(DiffArgs),
    /// List the versions of a policy: who made each, when, and what it changed.
    History {
        /// Its name; one that was deleted too.
        #[arg(add = completer(complete::policies))]
        policy: String,
    },
    /// Make a new version of a policy that says what an older one said. A deleted policy comes back so.
    Rollback(RollbackArgs),
    /// Let no backup and no verification of a policy begin, until a time or until it is resumed.
    ///
    /// What comes due meanwhile is missed with the pause as its reason, and made up for afterwards as the policy says (catch_up). What is
    /// going on goes on, what waits begins afterwards, and restores begin as ever. What is paused already is paused anew.
    Pause {
        /// Its name.
        #[arg(add = completer(complete::policies))]
        policy: String,
        #[command(flatten)]
        pause: PauseArgs,
    },
    /// End a pause of a policy before its time.
    Resume {
        /// Its name.
        #[arg(add = completer(complete::policies))]
        policy: String,
        /// Say what would change, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// End a policy. Its backups stay, under its name.
    Delete(DeleteArgs),
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those that protect a host with these labels (coordctl help selectors).
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
    /// Whose version was applied at or after this time.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Whose version was applied before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many, the first in order; 0: all.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// In this order.
    #[arg(long, default_value = "name")]
    sort: PolicyOrder,
}

/// Orders of a list of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyOrder {
    /// By name.
    Name,
    /// The newest version first.
    Applied,
    /// What runs next first; what does not run last.
    NextRun,
    /// The one with most hosts first.
    Hosts,
}

impl PolicyOrder {
    fn sort(self, list: &mut [api::Policy]) {
        match self {
            PolicyOrder::Name => list.sort_by(|a, b| a.name.cmp(&b.name)),
            PolicyOrder::Applied => list.sort_by_key(|policy| Reverse(policy.applied_at_us)),
            PolicyOrder::NextRun => list.sort_by_key(|policy| (policy.next_due_at_us == 0, policy.next_due_at_us)),
            PolicyOrder::Hosts => list.sort_by_key(|policy| Reverse(policy.hosts.len())),
        }
    }
}

/// The file that `policy init` prints.
pub const EXAMPLE: &str = r#"name = "web"                                   # never reused for another policy
hosts = "role in (web, api), env = prod"       # labels; coordctl help selectors
sources = ["/etc", "/srv"]                     # absolute paths
exclude = ["*.tmp", "*.log"]                   # globs; a leading ! takes back in
# More to leave out (docs/SELECTION.md):
# exclude_caches = true                        # what is in folders with a CACHEDIR.TAG
# exclude_if_present = [".nobackup"]           # what is in folders that hold such a name
# exclude_nodump = true                        # what has the flag of chattr +d
# exclude_larger_than = "4GiB"
# one_file_system = true                       # what is mounted below a source
schedule = { cron = "0 2 * * *", zone = "UTC" }
# When runs begin (docs/POLICY.md):
# schedule = { cron = "0 22 * * *", jitter = "30m", max_start_delay = "2h", max_duration = "6h", catch_up = "latest" }
# windows = { allowed = ["mon-fri 20:00-06:00"] }
full = { day = "sunday", max_age_days = 7 }
diff_threshold_percent = 50                    # a larger differential becomes a full
compression = { full = { codec = "zstd", level = 3 }, differential = { codec = "zstd", level = 1 } }
verify = { after_backup = true, cron = "0 6 * * *" }
objectives = { rpo = "26h", rto = "2h" }       # coordctl report rpo, coordctl report rto
"#;

/// Runs it. `init` needs no coordinator and is done before.
pub async fn run(session: &mut Session, command: &PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Init => session.out.print(EXAMPLE),
        PolicyCommand::List(args) => list(session, args).await,
        PolicyCommand::Show { policy, host } => {
            let message = GetPolicyRequest { policy: policy.clone(), host: host.clone() };
            let found = answer(session.client.get_policy(request(message)).await)?;
            show(session, &found)
        }
        PolicyCommand::Defaults => {
            let found = answer(session.client.get_policy_defaults(request(GetPolicyDefaultsRequest {})).await)?;
            defaults(session, &found)
        }
        PolicyCommand::Lint { file } => {
            let lint = answer(session.client.lint_policy(request(LintPolicyRequest { toml: read(file)? })).await)?;
            told(session, &lint)
        }
        PolicyCommand::Pause { policy, pause } => pause::pause(session, &Paused::Policy(policy.clone()), pause).await,
        PolicyCommand::Resume { policy, dry_run } => {
            pause::resume(session, &Paused::Policy(policy.clone()), *dry_run).await
        }
        PolicyCommand::Preview(args) => preview::run(session, args).await,
        PolicyCommand::Apply(args) => policy_change::apply(session, args).await,
        PolicyCommand::Edit(args) => policy_edit::run(session, args).await,
        PolicyCommand::Diff(args) => policy_change::diff(session, args).await,
        PolicyCommand::History { policy } => policy_change::history(session, policy).await,
        PolicyCommand::Rollback(args) => policy_change::rollback(session, args).await,
        PolicyCommand::Delete(args) => policy_change::delete(session, args).await,
    }
}

/// The text of a policy file.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let done = if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_POLICY_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_POLICY_BYTES).read_to_string(&mut text))
    };
    done.map_err(|error| {
        Failure::usage(
            format!("cannot read {}: {error}", path.display()),
            "coordctl policy init prints one to start from",
        )
    })?;
    Ok(text)
}

async fn list(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let bounds = bounds(session, args.since.as_deref(), args.until.as_deref())?;
    let mut list = answer(session.client.list_policies(request(ListPoliciesRequest {})).await)?.policies;
    list.retain(|policy| bounds.hold(policy.applied_at_us));
    if !args.selector.is_empty() {
        let message = ListHostsRequest { selector: args.selector.clone(), ..ListHostsRequest::default() };
        let hosts = answer(session.client.list_hosts(request(message)).await)?.hosts;
        let names: HashSet<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        list.retain(|policy| policy.hosts.iter().any(|host| names.contains(host.as_str())));
    }
    args.sort.sort(&mut list);
    cut(&session.out, &mut list, args.limit);
    if session.out.is_json() { session.out.json(&json::policies(&list)) } else { table(&session.out, &list) }
}

/// The table of policies.
pub fn table(out: &Output, list: &[api::Policy]) -> Result<(), Failure> {
    let columns =
        [("policy", Left), ("version", Right), ("hosts", Right), ("next run", Left), ("applied", Left), ("by", Left)];
    let rows = list
        .iter()
        .map(|p| {
            vec![
                p.name.clone(),
                p.version.to_string(),
                p.hosts.len().to_string(),
                shown::instant(p.next_due_at_us),
                shown::instant(p.applied_at_us),
                p.applied_by.clone(),
                p.hosts.join(", "),
                p.id.clone(),
            ]
        })
        .collect();
    out.wide_table(
        &columns,
        &[("names", Left), ("id", Left)],
        rows,
        "no policies yet; coordctl policy init prints one to start from",
    )
}

fn show(session: &Session, p: &api::Policy) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(&json::policy(p));
    }
    session.out.facts(&[
        ("policy", p.name.clone()),
        ("version", p.version.to_string()),
        ("state", if p.state == "active" { String::new() } else { p.state.clone() }),
        ("paused", pause::told(&p.pauses)),
        ("applied", format!("{} by {}", shown::instant(p.applied_at_us), p.applied_by)),
        ("hosts", p.hosts.join(", ")),
        ("next run", shown::instant(p.next_due_at_us)),
    ])?;
    session.out.print(&format!("\n{}\n", shown::safe(p.toml.trim_end())))?;
    values(session, &p.values)
}

/// Every value with the layer that says it.
pub(super) fn values(session: &Session, values: &[api::PolicyValue]) -> Result<(), Failure> {
    if values.is_empty() {
        return Ok(());
    }
    session.out.print("\n")?;
    let rows = values.iter().map(|v| vec![v.key.clone(), v.value.clone(), v.from.clone()]).collect();
    session.out.table(&[("key", Left), ("value", Left), ("from", Left)], rows, "")
}

fn defaults(session: &Session, d: &api::PolicyDefaults) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(&json::defaults(d));
    }
    if d.version == 0 {
        session.out.talk("the fleet has no defaults: what a policy does not say is built in");
        return Ok(());
    }
    session.out.facts(&[
        ("version", d.version.to_string()),
        ("applied", format!("{} by {}", shown::instant(d.applied_at_us), d.applied_by)),
    ])?;
    session.out.print(&format!("\n{}\n", shown::safe(d.toml.trim_end())))
}

pub(super) fn say(session: &Session, kind: &str, findings: &[api::PolicyFinding]) {
    for finding in findings {
        session.out.talk(&format!("{kind}: {}: {}", finding.key, finding.message));
        if !finding.hint.is_empty() {
            session.out.talk(&format!("hint: {}", finding.hint));
        }
    }
}

fn told(session: &Session, lint: &api::PolicyLint) -> Result<(), Failure> {
    if session.out.is_json() {
        session.out.json(&json::lint(lint))?;
    } else {
        say(session, "error", &lint.errors);
        say(session, "warning", &lint.warnings);
        if lint.errors.is_empty() {
            let next: Vec<String> = lint.next_due_at_us.iter().map(|us| shown::instant(*us)).collect();
            session.out.facts(&[
                ("policy", lint.name.clone()),
                ("selects", if lint.hosts.is_empty() { "no host".to_owned() } else { lint.hosts.join(", ") }),
                ("next runs", next.join(", ")),
            ])?;
        }
    }
    if lint.errors.is_empty() { Ok(()) } else { Err(Failure::Ended(coord_shared::exit::Exit::Usage)) }
}

/// Refuses a file with errors. Every finding is told, not only the first that the coordinator would refuse with.
pub(super) fn refuse_findings(session: &Session, lint: &api::PolicyLint) -> Result<(), Failure> {
    let Some(first) = lint.errors.first() else { return Ok(()) };
    if !session.out.is_json() {
        say(session, "error", &lint.errors[1..]);
    }
    let fault = Fault::new(ErrorCode::InvalidPolicy, format!("{}: {}", first.key, first.message));
    Err(fault.with_hint(first.hint.clone()).into())
}
