//! Greeting an agent. A session of the same agent process replaces the old one, fenced by a number in the catalog. Another process
//! with the same identity is let in only when the old one is dead: it does not answer a ping, or its coordinator is gone; else it
//! is refused and recorded, because two machines with one identity would overwrite each other's history. What the agent
//! holds is answered before anything is dispatched to it.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use coord_shared::api::coordinator_message::Message;
use coord_shared::api::{self, Hello, HelloAnswer};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{ArchiveStoreId, Attempt, HostId, InstanceId, Ordinal, PolicyId, RunId, SessionNumber};
use coord_shared::run::Disposition;
use coord_shared::tls::{PeerIdentity, PeerKind};
use coord_shared::version;
use coord_shared::wire::to_us;
use jiff::Timestamp;

use super::join::fact;
use super::{App, drain, names, pace, report};
use crate::catalog::{HeartbeatOutcome, Host, HostFacts, HostSession, NewAudit, OpenSession, OpenedSession, RunBeat};
use crate::sessions::{Session, SessionStream};

/// An agent process that does not answer within this time is dead.
const PING_PATIENCE: Duration = Duration::from_secs(5);
/// Sessions of one host that may open at the same moment.
const TRIES: usize = 5;
/// Held attempts and ordinals that one Hello may carry.
const MAX_ITEMS: usize = 10_000;
/// Longest archive folder that is kept, in bytes.
const MAX_FOLDER_BYTES: usize = 4096;

/// Greets the agent of `host`: its session is in place, and the answer is the first message that waits in it.
pub async fn greet(
    app: &App,
    host: HostId,
    identity: Arc<PeerIdentity>,
    hello: Hello,
) -> Result<(Session, SessionStream), Fault> {
    drain::refuse_newcomers(app)?;
    check_version(&hello.version)?;
    if hello.held.len() > MAX_ITEMS || hello.ordinals.len() > MAX_ITEMS {
        return Err(Fault::new(ErrorCode::LimitExceeded, format!("a Hello carries at most {MAX_ITEMS} items")));
    }
    let instance: InstanceId =
        hello.instance_id.parse().map_err(|_| Fault::new(ErrorCode::InvalidArgument, "the instance id is no UUID"))?;
    let record = app.catalog.host(host).await?;
    let record = record.ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("there is no host {host}")))?;
    let now = app.catalog.now().await?;
    let number = open(app, &record, instance, &hello, clock_offset_us(hello.sent_at_us, now)).await?;
    coord_shared::failpoint::reach("coordinator.hello.opened");
    let (session, stream) = Session::new(host, number, instance, identity);
    let answer = answer(app, &record, &session, &hello, now).await?;
    // A fresh session has room for its first message.
    if session.send(Message::HelloAnswer(answer)).is_err() {
        return Err(Fault::new(ErrorCode::Internal, "a fresh session takes no message"));
    }
    coord_shared::failpoint::reach("coordinator.hello.answered");
    let replaced = Fault::new(ErrorCode::Changed, "a newer session of this host took the place of this one");
    if !app.sessions.put(session.clone(), replaced.clone()) {
        return Err(replaced);
    }
    app.nudges.dispatcher.notify_one();
    app.nudges.ingester.notify_one();
    Ok((session, stream))
}

/// An agent may be older or newer by one minor version.
fn check_version(theirs: &str) -> Result<(), Fault> {
    let Err(apart) = version::check(version::OURS, theirs) else { return Ok(()) };
    let theirs = names::shown(theirs);
    let message = format!(
        "this agent is of version {theirs}, and the coordinator of {}: they do not work together",
        version::OURS
    );
    let hint = match apart.theirs {
        Ordering::Less => "upgrade the agent",
        Ordering::Equal | Ordering::Greater => "upgrade the coordinators first, or install an older agent",
    };
    Err(Fault::new(ErrorCode::Unsupported, message).with_hint(hint))
}

/// The stream of a session is over.
pub async fn farewell(app: &App, session: &Session) {
    app.sessions.remove(session.host, session.number);
    if let Err(error) = app.catalog.close_session(session.host, session.number).await {
        // The next Hello of the host opens a newer session all the same.
        tracing::debug!(%error, host = %session.host, "cannot record the end of a session");
    }
}

/// Host clock less the database's. Latency makes it a little too small; backups are ordered by ordinals, not by this.
pub(super) fn clock_offset_us(sent_at_us: i64, now: Timestamp) -> i64 {
    if sent_at_us == 0 { 0 } else { sent_at_us.saturating_sub(to_us(now)) }
}

async fn open(
    app: &App,
    host: &Host,
    instance: InstanceId,
    hello: &Hello,
    clock_offset_us: i64,
) -> Result<SessionNumber, Fault> {
    let archive_store = archive_store(&hello.archive_store_id)?;
    let mut archive_folder = hello.archive_folder.clone();
    archive_folder.truncate(MAX_FOLDER_BYTES);
    let mut seen = app.catalog.host_session(host.id).await?;
    for _ in 0..TRIES {
        admit_instance(app, host, &seen, instance).await?;
        let opening = OpenSession {
            host: host.id,
            seen: seen.number,
            instance,
            coordinator: app.coordinator,
            facts: HostFacts {
                hostname: fact(&hello.hostname),
                operating_system: fact(&hello.operating_system),
                version: fact(&hello.version),
            },
            archive_folder: archive_folder.clone(),
            archive_store,
            clock_offset_us,
        };
        match app.catalog.open_session(&opening).await? {
            OpenedSession::Opened(number) => return Ok(number),
            OpenedSession::Changed(newer) => seen = newer,
        }
    }
    Err(Fault::new(ErrorCode::Unavailable, "other sessions of this host opened at the same moment")
        .with_hint("try again"))
}

/// What a host says of its folder only counts in limits. One that lies has its runs counted with those of others.
fn archive_store(text: &str) -> Result<Option<ArchiveStoreId>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = |_| Fault::new(ErrorCode::InvalidArgument, "the id of the archive folder is no UUID");
    text.parse().map(Some).map_err(invalid)
}

/// Refuses a second process with one identity while the first is alive.
async fn admit_instance(app: &App, host: &Host, seen: &HostSession, instance: InstanceId) -> Result<(), Fault> {
    if !seen.open || seen.instance == Some(instance) || !seen.coordinator_alive {
        return Ok(());
    }
    let alive = if seen.coordinator == Some(app.coordinator) {
        match app.sessions.get(host.id) {
            Some(old) => old.answers(PING_PATIENCE).await,
            None => false,
        }
    } else {
        // Its heartbeats reach another coordinator, which notes them.
        let beats_every = app.settings.heartbeat_s.max(app.settings.idle_heartbeat_s);
        let silence = Duration::from_secs(u64::from(beats_every)) + PING_PATIENCE;
        let now = app.catalog.now().await?;
        seen.last_seen_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < silence)
    };
    if !alive {
        return Ok(());
    }
    tracing::warn!(host = %host.name, "a second agent with the identity of a connected one was refused");
    let (actor, subject) = (host.id.to_string(), host.name.as_str());
    let details = serde_json::json!({ "instance": instance.to_string() });
    let deed =
        NewAudit { actor_kind: PeerKind::Agent, actor: &actor, action: "duplicate_agent_refused", subject, details };
    app.catalog.record_audit(&deed).await?;
    let message = format!("another agent process with the identity of {} is connected", host.name);
    Err(Fault::new(ErrorCode::DuplicateAgent, message)
        .with_hint("was the machine cloned? stop one of them; a clone joins with a token of its own"))
}

async fn answer(
    app: &App,
    host: &Host,
    session: &Session,
    hello: &Hello,
    now: Timestamp,
) -> Result<HelloAnswer, Fault> {
    let number = session.number;
    let beats = hello.held.iter().filter_map(|held| {
        let run = held.run_id.parse().ok()?;
        Some(RunBeat { run, attempt: Attempt(held.attempt), finished: held.finished, progress: None })
    });
    let mut beats: Vec<RunBeat> = beats.collect();
    // What runs first: of a job that a host has run by itself there may be several, and one of them is the open run.
    beats.sort_by_key(|beat| beat.finished);
    let held = app.catalog.beat_runs(host.id, number, app.settings.lease(), &beats).await?;
    give_back_lost(app, session, &beats).await?;
    let held = held_answers(app, &held, now).await?;
    let known = app.whereabouts.load();
    Ok(HelloAnswer {
        host_id: host.id.to_string(),
        host_name: host.name.clone(),
        session_number: number.get(),
        held,
        ordinal_floors: ordinal_floors(app, host.id, hello).await?,
        heartbeat_interval_s: app.settings.heartbeat_s,
        idle_heartbeat_interval_s: app.settings.idle_heartbeat_s,
        lease_s: app.settings.lease_s,
        now_us: to_us(now),
        fleet: app.authority.fleet().to_owned(),
        version: version::OURS.to_owned(),
        endpoints: known.main.clone(),
        enrol_endpoints: known.enrolment.clone(),
    })
}

/// What the catalog thinks the host holds and the host does not: the order was lost on the way, or the journal was. It need not wait
/// for its lease to lapse. What a later session holds is none of this Hello's business: whoever sent it may have given it up.
async fn give_back_lost(app: &App, session: &Session, beats: &[RunBeat]) -> Result<(), Fault> {
    for held in app.catalog.held_before(session.host, session.number).await? {
        if !beats.iter().any(|beat| beat.run == held.run && beat.attempt == held.attempt) {
            tracing::warn!(run = %held.run, attempt = %held.attempt, host = %held.host, "the host does not hold it: given back");
            report::fail_lost(app, session, held).await?;
        }
    }
    Ok(())
}

/// What the agent is told of the attempts it holds.
pub(super) async fn held_answers(
    app: &App,
    outcomes: &[HeartbeatOutcome],
    now: Timestamp,
) -> Result<Vec<api::HeldAnswer>, Fault> {
    let goes_on = |outcome: &&HeartbeatOutcome| outcome.disposition == Disposition::Continue;
    let runs: Vec<RunId> = outcomes.iter().filter(goes_on).map(|outcome| outcome.run).collect();
    let paces = pace::of_runs(app, &app.catalog, &runs, now).await?;
    Ok(outcomes.iter().map(|outcome| held_answer(outcome, paces.get(&outcome.run).copied())).collect())
}

pub(super) fn held_answer(outcome: &HeartbeatOutcome, pace: Option<api::Pace>) -> api::HeldAnswer {
    api::HeldAnswer {
        pace,
        run_id: outcome.run.to_string(),
        attempt: outcome.attempt.get(),
        disposition: disposition(outcome.disposition).into(),
    }
}

/// The disposition on the wire.
pub(super) const fn disposition(disposition: Disposition) -> api::Disposition {
    match disposition {
        Disposition::Continue => api::Disposition::Continue,
        Disposition::Forget => api::Disposition::Forget,
        Disposition::Abort => api::Disposition::Abort,
        Disposition::Report => api::Disposition::Report,
    }
}

/// Takes over what the agent's journal knows, and answers for each job the least number that its next backup may have.
async fn ordinal_floors(app: &App, host: HostId, hello: &Hello) -> Result<Vec<api::JobOrdinal>, Fault> {
    for known in &hello.ordinals {
        let Ok(policy) = known.policy_id.parse::<PolicyId>() else { continue };
        if let Some(job) = app.catalog.job_of(host, policy).await?
            && job.last_ordinal < Ordinal(known.ordinal)
        {
            app.catalog.raise_ordinal(job.id, Ordinal(known.ordinal)).await?;
        }
    }
    let ordinals = app.catalog.last_ordinals(host).await?;
    let floor = |(policy, last): (PolicyId, Ordinal)| api::JobOrdinal {
        policy_id: policy.to_string(),
        ordinal: last.next().get(),
    };
    Ok(ordinals.into_iter().map(floor).collect())
}
