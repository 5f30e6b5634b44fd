//! `coordctl server status | members | drain`.

use clap::Subcommand;
use coord_shared::api::{self, DrainCoordinatorRequest, ListCoordinatorsRequest};
use coord_shared::fault::{ErrorCode, Fault};

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::output::Output;
use crate::session::Session;
use crate::{json, shown};

/// The coordinators themselves.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Show the coordinator that answers, and when it last did each of its duties.
    Status,
    /// List the coordinators that were heard of in the last day.
    Members,
    /// Let a coordinator leave without a gap, and end.
    ///
    /// It takes on nothing new, sends its agents to the other coordinators, finishes the calls under way, and ends within a minute.
    /// Runs go on under the same attempt. SIGTERM does the same. Whatever supervises the process may start it again.
    Drain {
        /// Id, or the beginning of one; default: the coordinator that answers.
        coordinator: Option<String>,
        /// Say what would be drained, change nothing.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// Runs it.
pub async fn run(session: &mut Session, command: &ServerCommand) -> Result<(), Failure> {
    match command {
        ServerCommand::Status => {
            let list = members(session).await?;
            status(&session.out, &list)
        }
        ServerCommand::Members => {
            let list = members(session).await?;
            if session.out.is_json() {
                return session.out.list(&json::coordinators(&list), "coordinators");
            }
            table(&session.out, &list)
        }
        ServerCommand::Drain { coordinator, dry_run } => drain(session, coordinator.as_deref(), *dry_run).await,
    }
}

async fn members(session: &mut Session) -> Result<api::CoordinatorList, Failure> {
    answer(session.client.list_coordinators(request(ListCoordinatorsRequest {})).await)
}

/// The one that answers. It may have started a moment ago, and the catalog not have heard of it.
fn status(out: &Output, list: &api::CoordinatorList) -> Result<(), Failure> {
    let found = list.coordinators.iter().find(|one| one.id == list.answered_by).ok_or_else(|| {
        let fault =
            Fault::new(ErrorCode::NotNow, "the coordinator that answers has not told the catalog of itself yet");
        Failure::Fault(fault.with_hint("try again in some seconds; coordctl server members shows the others"))
    })?;
    if out.is_json() {
        return out.json(&json::coordinator(found));
    }
    let mut facts = vec![
        ("coordinator", found.id.clone()),
        ("state", state(found)),
        ("version", found.version.clone()),
        ("schema", found.schema_version.to_string()),
        ("listens", found.endpoints.join(", ")),
        ("enrolment", found.enrol_endpoints.join(", ")),
        ("started", shown::instant(found.started_at_us)),
        ("agents", found.sessions.to_string()),
    ];
    facts.extend(found.duties.iter().map(|duty| (duty.name.as_str(), done(duty, list.now_us))));
    out.facts(&facts)
}

fn state(found: &api::Coordinator) -> String {
    match (found.state.as_str(), found.drain_asked_by.as_str()) {
        ("draining", "") => format!("draining since {}", shown::instant(found.draining_since_us)),
        ("draining", user) => format!("draining: {} asked for it", shown::safe(user)),
        (word, _) => word.to_owned(),
    }
}

fn done(duty: &api::Duty, now_us: i64) -> String {
    format!("done {} ago", ago(duty.last_done_at_us, now_us))
}

fn ago(us: i64, now_us: i64) -> String {
    shown::seconds((now_us.saturating_sub(us) / 1_000_000).max(0))
}

/// The table of coordinators. The one that answers is marked.
pub fn table(out: &Output, list: &api::CoordinatorList) -> Result<(), Failure> {
    let columns = [
        ("coordinator", Left),
        ("state", Left),
        ("version", Left),
        ("agents", Right),
        ("heard of", Left),
        ("listens", Left),
    ];
    let wide = [("schema", Right), ("started", Left), ("enrolment", Left), ("asked by", Left)];
    let row = |one: &api::Coordinator| {
        let mark = if one.id == list.answered_by { " *" } else { "" };
        vec![
            format!("{}{mark}", shown::short(&one.id)),
            one.state.clone(),
            one.version.clone(),
            one.sessions.to_string(),
            format!("{} ago", ago(one.last_beat_at_us, list.now_us)),
            one.endpoints.join(", "),
            one.schema_version.to_string(),
            shown::instant(one.started_at_us),
            one.enrol_endpoints.join(", "),
            one.drain_asked_by.clone(),
        ]
    };
    let rows = list.coordinators.iter().map(row).collect();
    out.wide_table(&columns, &wide, rows, "the coordinator that answers has not told the catalog of itself yet")
}

async fn drain(session: &mut Session, coordinator: Option<&str>, dry_run: bool) -> Result<(), Failure> {
    let list = members(session).await?;
    let wanted = coordinator.unwrap_or(&list.answered_by);
    let serving = |one: &&api::Coordinator| one.state == "serving";
    let stays = list.coordinators.iter().filter(serving).any(|one| !one.id.starts_with(wanted));
    let agents: u32 = list.coordinators.iter().filter(|one| one.id.starts_with(wanted)).map(|one| one.sessions).sum();
    let what = format!("drain coordinator {}: its {agents} agents go to the others, and it ends", shown::short(wanted));
    if !stays {
        session.out.talk(
            "warning: no other coordinator serves: agents finish what they run, and nothing new begins until one is started",
        );
    }
    if dry_run {
        return session.out.dry_run(&what);
    }
    session.change(&what)?;
    let message = DrainCoordinatorRequest { coordinator: coordinator.unwrap_or_default().to_owned() };
    let found = answer(session.client.drain_coordinator(request(message)).await)?;
    session.out.talk(&format!("coordinator {} is {}", shown::short(&found.id), found.state));
    session.out.talk("next: coordctl server members");
    if session.out.is_json() { session.out.json(&json::coordinator(&found)) } else { Ok(()) }
}
