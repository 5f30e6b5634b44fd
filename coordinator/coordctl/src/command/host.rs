//! `coordctl host list | show | label | pause | resume | revoke`.

use std::collections::HashMap;

use clap::{Args, Subcommand, ValueEnum};
use coord_shared::api::{self, GetHostRequest, LabelHostRequest, ListHostsRequest, RevokeHostRequest};

use super::listing::{DEFAULT_LIMIT, bounds, cut};
use super::pause::{self, PauseArgs, Paused};
use super::policy::say;
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::Left;
use crate::output::Output;
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// Protected machines.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List hosts.
    List(ListArgs),
    /// Show one host.
    Show {
        /// Name or id.
        #[arg(add = completer(complete::hosts))]
        host: String,
    },
    /// Set labels (role=web) or remove them (role-).
    Label {
        /// Name or id.
        #[arg(add = completer(complete::hosts))]
        host: String,
        /// KEY=VALUE sets, KEY- removes.
        #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
        labels: Vec<String>,
        /// Say what would change, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Let no backup and no verification of a host begin, until a time or until it is resumed.
    ///
    /// What comes due meanwhile is missed with the pause as its reason, and made up for afterwards as the policy says (catch_up). What is
    /// going on goes on, what waits begins afterwards, and restores begin as ever. What is paused already is paused anew.
    Pause {
        /// Name or id.
        #[arg(add = completer(complete::hosts))]
        host: String,
        #[command(flatten)]
        pause: PauseArgs,
    },
    /// End a pause of a host before its time.
    Resume {
        /// Name or id.
        #[arg(add = completer(complete::hosts))]
        host: String,
        /// Say what would change, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Put a host out for good; its backups stay.
    ///
    /// Its certificates count for nothing from the next call on, its connection is cut, its runs are cancelled and nothing is due for it
    /// any more. Its name is not given again.
    Revoke {
        /// Name or id.
        #[arg(add = completer(complete::hosts))]
        host: String,
        /// The host's name, instead of typing it.
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
        /// Say what would change, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only hosts with these labels (coordctl help selectors).
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// Only hosts whose name fits this glob.
    #[arg(long, default_value = "", value_name = "GLOB")]
    host: String,
    /// Last seen at or after this time; a connected host is seen now.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Last seen before this time: who is missing since then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many, the first in order; 0: all.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// In this order.
    #[arg(long, default_value = "name")]
    sort: HostOrder,
}

/// Orders of a list of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostOrder {
    /// By name.
    Name,
    /// Who has been away longest first.
    Seen,
    /// The newest first.
    Joined,
}

impl HostOrder {
    fn sort(self, hosts: &mut [api::Host]) {
        match self {
            HostOrder::Name => hosts.sort_by(|a, b| a.name.cmp(&b.name)),
            HostOrder::Seen => hosts.sort_by_key(|host| (host.connected, host.last_seen_at_us)),
            HostOrder::Joined => hosts.sort_by_key(|host| std::cmp::Reverse(host.joined_at_us)),
        }
    }
}

async fn list(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let bounds = bounds(session, args.since.as_deref(), args.until.as_deref())?;
    let message = ListHostsRequest { selector: args.selector.clone(), name: args.host.clone() };
    let mut list = answer(session.client.list_hosts(request(message)).await)?.hosts;
    list.retain(|host| bounds.hold(if host.connected { i64::MAX } else { host.last_seen_at_us }));
    args.sort.sort(&mut list);
    cut(&session.out, &mut list, args.limit);
    if session.out.is_json() {
        return session.out.json(&json::hosts(&list));
    }
    table(&session.out, &list)
}

/// Runs it.
pub async fn run(session: &mut Session, command: &HostCommand) -> Result<(), Failure> {
    match command {
        HostCommand::List(args) => list(session, args).await,
        HostCommand::Show { host } => {
            let found = answer(session.client.get_host(request(GetHostRequest { host: host.clone() })).await)?;
            show(session, &found)
        }
        HostCommand::Label { host, labels, dry_run } => {
            let (set, remove) = changes(labels)?;
            let now = answer(session.client.get_host(request(GetHostRequest { host: host.clone() })).await)?;
            let message = LabelHostRequest { host: host.clone(), set, remove, dry_run: true };
            let would = answer(session.client.label_host(request(message.clone())).await)?;
            let what = format!("labels of {}: {} -> {}", now.name, labels_of(&now), labels_of(&would));
            let plan = protection(&now, &would);
            say(session, "warning", &would.warnings);
            if *dry_run {
                return session.out.dry_run(&format!("{plan}{what}"));
            }
            session.moderate(&what, &plan)?;
            let message = LabelHostRequest { dry_run: false, ..message };
            let found = answer(session.client.label_host(request(message)).await)?;
            session.out.talk(&format!(
                "{} has labels {}; policies: {}",
                found.name,
                labels_of(&found),
                found.policies.join(", ")
            ));
            if session.out.is_json() { session.out.json(&json::host(&found)) } else { Ok(()) }
        }
        HostCommand::Pause { host, pause } => pause::pause(session, &Paused::Host(host.clone()), pause).await,
        HostCommand::Resume { host, dry_run } => pause::resume(session, &Paused::Host(host.clone()), *dry_run).await,
        HostCommand::Revoke { host, confirm, dry_run } => {
            let now = answer(session.client.get_host(request(GetHostRequest { host: host.clone() })).await)?;
            let what = revocation(&now);
            if *dry_run {
                return session.out.dry_run(&what);
            }
            session.confirm(&now.name, confirm.as_deref(), &what)?;
            let found = answer(session.client.revoke_host(request(RevokeHostRequest { host: now.id })).await)?;
            session.out.talk(&format!(
                "{0} is {1}; its backups stay: coordctl restore {0}/PATH --to HOST",
                found.name, found.state
            ));
            session.out.talk("next: coordctl token create prints how the machine joins again, under a new name");
            if session.out.is_json() { session.out.json(&json::host(&found)) } else { Ok(()) }
        }
    }
}

/// What revoking a host does.
fn revocation(host: &api::Host) -> String {
    if host.state != "active" {
        return format!("{} is {} already", host.name, host.state);
    }
    let policies = match host.policies.as_slice() {
        [] => "no policy protects it".to_owned(),
        policies => format!("{} protect it no longer", policies.join(", ")),
    };
    format!(
        "{} ({}) is put out for good: its certificates end, its runs are cancelled, {policies}",
        host.name,
        connection(host)
    )
}

fn changes(labels: &[String]) -> Result<(HashMap<String, String>, Vec<String>), Failure> {
    let (mut set, mut remove) = (HashMap::new(), Vec::new());
    for label in labels {
        if let Some((key, value)) = label.split_once('=') {
            set.insert(key.to_owned(), value.to_owned());
        } else if let Some(key) = label.strip_suffix('-') {
            remove.push(key.to_owned());
        } else {
            return Err(Failure::usage(format!("{label:?} is no label"), "KEY=VALUE sets one, KEY- removes one"));
        }
    }
    Ok((set, remove))
}

/// Which policies begin and end to protect a host, a line each.
fn protection(now: &api::Host, would: &api::Host) -> String {
    let others = |of: &api::Host, than: &api::Host| -> Vec<String> {
        of.policies.iter().filter(|policy| !than.policies.contains(policy)).cloned().collect()
    };
    let mut text = String::new();
    match others(would, now).as_slice() {
        [] => {}
        begin => text.push_str(&format!("newly protects {}: {}\n", now.name, begin.join(", "))),
    }
    match others(now, would).as_slice() {
        [] => {}
        end => text.push_str(&format!("no longer protects {}: {}; its backups stay\n", now.name, end.join(", "))),
    }
    text
}

fn labels_of(host: &api::Host) -> String {
    let mut labels: Vec<String> =
        host.labels.iter().map(|(k, v)| if v.is_empty() { k.clone() } else { format!("{k}={v}") }).collect();
    labels.sort();
    labels.join(",")
}

fn connection(host: &api::Host) -> &str {
    if host.state != "active" {
        &host.state
    } else if host.connected {
        "connected"
    } else {
        "away"
    }
}

/// The table of hosts.
pub fn table(out: &Output, list: &[api::Host]) -> Result<(), Failure> {
    let columns = [("host", Left), ("state", Left), ("last seen", Left), ("labels", Left), ("policies", Left)];
    let more = [("agent", Left), ("system", Left), ("joined", Left), ("certificate ends", Left), ("id", Left)];
    let rows = list.iter().map(row).collect();
    out.wide_table(&columns, &more, rows, "no hosts yet; coordctl token create prints how one joins")
}

fn row(h: &api::Host) -> Vec<String> {
    vec![
        h.name.clone(),
        connection(h).to_owned(),
        shown::instant(h.last_seen_at_us),
        labels_of(h),
        h.policies.join(", "),
        h.version.clone(),
        h.operating_system.clone(),
        shown::instant(h.joined_at_us),
        shown::instant(h.certificate_not_after_us),
        h.id.clone(),
    ]
}

fn show(session: &Session, h: &api::Host) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(&json::host(h));
    }
    session.out.facts(&[
        ("host", h.name.clone()),
        ("id", h.id.clone()),
        ("state", connection(h).to_owned()),
        ("paused", pause::told(&h.pauses)),
        ("labels", labels_of(h)),
        ("policies", h.policies.join(", ")),
        ("joined", shown::instant(h.joined_at_us)),
        ("last seen", shown::instant(h.last_seen_at_us)),
        ("hostname", h.hostname.clone()),
        ("system", h.operating_system.clone()),
        ("agent", h.version.clone()),
        ("clock offset", format!("{} ms", h.clock_offset_us / 1000)),
        ("certificate ends", shown::instant(h.certificate_not_after_us)),
        ("archives in", shown::path(&h.archive_folder)),
        ("target", shown::safe(&h.archive_store_id)),
    ])?;
    session.out.talk(&format!("next: coordctl job list --host {}", h.name));
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{changes, revocation};
    use coord_shared::api::Host;

    #[test]
    fn what_revoking_does_is_said_before() {
        let mut host = Host { name: "web-1".into(), state: "active".into(), connected: true, ..Host::default() };
        assert!(revocation(&host).ends_with("no policy protects it"), "{}", revocation(&host));
        host.policies = vec!["web".into(), "db".into()];
        assert_eq!(
            revocation(&host),
            "web-1 (connected) is put out for good: its certificates end, its runs are cancelled, web, db protect it no longer"
        );
        host.state = "revoked".into();
        assert_eq!(revocation(&host), "web-1 is revoked already");
    }

    #[test]
    fn labels_are_set_and_removed() {
        let (set, remove) = changes(&["role=web".into(), "canary-".into()]).unwrap();
        assert_eq!(set.get("role").map(String::as_str), Some("web"));
        assert_eq!(remove, ["canary"]);
        assert_eq!(changes(&["role".into()]).unwrap_err().exit().code(), 2);
    }
}
