//! `coord-agent status`: what the state folder says of this host, also while no agent runs and no coordinator answers.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use coord_shared::tls::PeerIdentity;
use coord_shared::wire::from_us;
use jiff::Timestamp;

use crate::config::{Config, ConfigError};
use crate::contact::{Kept, Standing};
use crate::identity::{Identity, IdentityError};
use crate::journal::{Journal, SegmentError};
use crate::plan::{Kept as KeptPlan, PlanError, PlanFile};
use crate::printable::printable;
use crate::state::{StateError, StateFolder};
use crate::store::{LocalStore, SET_ASIDE_KEPT, SetAside, StoreError};

/// Facts of this machine for the operator's eyes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The kernel's name of this machine.
    pub hostname: String,
    /// The distribution and its version.
    pub operating_system: String,
}

impl HostFacts {
    /// Reads them; what is not known is empty.
    pub fn read() -> HostFacts {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let release = text("/etc/os-release");
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        HostFacts {
            hostname: text("/proc/sys/kernel/hostname").trim().to_owned(),
            operating_system: name.unwrap_or("Linux").trim_matches('"').to_owned(),
        }
    }
}

/// The state cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The configuration cannot be read.
    #[error("cannot read the configuration")]
    Config(#[from] ConfigError),
    /// The identity cannot be read.
    #[error("cannot read the identity")]
    Identity(#[from] IdentityError),
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Journal(#[from] SegmentError),
    /// The lock cannot be looked at.
    #[error("cannot look whether an agent runs")]
    State(#[from] StateError),
    /// The archive folder cannot be looked at.
    #[error("cannot look at the archives")]
    Store(#[from] StoreError),
    /// Standard output is closed.
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// Whether an agent process holds the state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Running,
    Stopped,
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Daemon::Running => "running",
            Daemon::Stopped => "not running (start it: coord-agent run)",
        })
    }
}

/// What is known, once it was printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// This host has not joined.
    NotJoined,
    /// It has; and these things keep it from being protected now, in words.
    Joined {
        /// Empty: all is well.
        wrong: Vec<String>,
    },
}

/// Prints what is known.
pub fn print(state: &StateFolder, now: Timestamp, out: &mut dyn Write) -> Result<Shown, StatusError> {
    let Some(identity) = Identity::load(state)? else { return Ok(Shown::NotJoined) };
    let config = Config::load(state)?;
    writeln!(out, "host         {} of fleet {}", identity.host_name, identity.fleet)?;
    writeln!(out, "host id      {}", identity.host_id)?;
    writeln!(out, "certificate  generation {}, {}", identity.generation, validity(&identity, now))?;
    writeln!(out, "coordinator  {}", config.endpoints.join(", "))?;
    writeln!(out, "root         {}", config.root.display())?;
    writeln!(out, "archives     {} (as safe as this host)", config.archive_folder(state).display())?;
    print_set_aside(&config.archive_folder(state), out)?;
    print_plan(&PlanFile::read(&state.plan_file()), now, out)?;
    let lock = match state.lock() {
        Ok(lock) => Some(lock),
        Err(StateError::InUse { .. }) => None,
        Err(error @ StateError::Folder { .. }) => return Err(error.into()),
    };
    let daemon = if lock.is_some() { Daemon::Stopped } else { Daemon::Running };
    writeln!(out, "agent        {daemon}")?;
    let kept = Kept::read(&state.contact_file());
    let told: Vec<&str> = kept.told.iter().filter(|one| !config.endpoints.contains(one)).map(String::as_str).collect();
    if !told.is_empty() {
        writeln!(out, "also known   {}", told.join(", "))?;
    }
    let standing = kept.standing.filter(|_| daemon == Daemon::Running);
    if let Some(standing) = &standing {
        print_standing(standing, out)?;
    }
    if lock.is_some() {
        print_journal(state, out)?;
    }
    Ok(Shown::Joined { wrong: wrong(&identity, daemon, standing.as_ref(), now) })
}

fn print_standing(standing: &Standing, out: &mut dyn Write) -> Result<(), StatusError> {
    let word = if standing.connected { "connected to" } else { "not connected, last tried" };
    writeln!(out, "session      {word} {}, since {}", printable(&standing.endpoint), standing.since)?;
    for text in standing.why.iter().chain(&standing.hint) {
        writeln!(out, "  {}", printable(text))?;
    }
    Ok(())
}

/// What keeps this host from being protected now.
fn wrong(identity: &Identity, daemon: Daemon, standing: Option<&Standing>, now: Timestamp) -> Vec<String> {
    let mut wrong = Vec::new();
    match (daemon, standing) {
        (Daemon::Stopped, _) => wrong.push("no agent runs".to_owned()),
        (Daemon::Running, Some(standing)) if standing.connected => {}
        (Daemon::Running, Some(standing)) => {
            wrong.push(format!("not connected to a coordinator since {}", standing.since));
        }
        (Daemon::Running, None) => wrong.push("not connected to a coordinator yet".to_owned()),
    }
    match PeerIdentity::from_pem(&identity.certificate_pem) {
        Ok(peer) if peer.not_after > now => {}
        Ok(peer) => wrong.push(format!("the certificate ended {}", peer.not_after)),
        Err(_) => wrong.push("the certificate is unreadable".to_owned()),
    }
    wrong
}

/// What this host begins by itself while it is cut off. The daemon replaces the file whole, so it is read without the lock.
fn print_plan(
    kept: &Result<Option<KeptPlan>, PlanError>,
    now: Timestamp,
    out: &mut dyn Write,
) -> Result<(), StatusError> {
    const NOTHING: &str = "while cut off, nothing begins by itself";
    let (plan, offset_us) = match kept {
        Ok(Some(KeptPlan { plan: Some(plan), clock_offset_us })) => (plan, *clock_offset_us),
        Ok(Some(KeptPlan { plan: None, .. }) | None) => {
            writeln!(out, "plan         none yet: {NOTHING}")?;
            return Ok(());
        }
        Err(error) => {
            writeln!(out, "plan         {}: {NOTHING}", crate::chain::chain(error))?;
            return Ok(());
        }
    };
    let shown = |us: i64| from_us(us).map_or_else(|| "?".to_owned(), |at| at.to_string());
    let now_us = now.as_microsecond().saturating_add(offset_us);
    if plan.valid_until_us <= now_us {
        writeln!(out, "plan         ended {}: {NOTHING}", shown(plan.valid_until_us))?;
        return Ok(());
    }
    let ahead = plan.runs.iter().filter(|run| run.due_at_us > now_us);
    let next = ahead.clone().next().map(|run| format!(", next {}", shown(run.due_at_us))).unwrap_or_default();
    writeln!(out, "plan         {} backups ahead{next}, until {}", ahead.count(), shown(plan.valid_until_us))?;
    for job in plan.jobs.iter().filter(|job| !job.held.is_empty()) {
        let name = job.task.as_ref().map_or("?", |task| task.policy_name.as_str());
        writeln!(out, "  {}  {}", name.escape_debug(), job.held.escape_debug())?;
    }
    Ok(())
}

/// Says nothing of a folder that is not there yet: only the agent makes it.
fn print_set_aside(archives: &Path, out: &mut dyn Write) -> Result<(), StatusError> {
    let kept = if archives.is_dir() { LocalStore::open(archives)?.all_set_aside()? } else { None };
    if let Some(SetAside { folder, archives, bytes }) = kept {
        let days = SET_ASIDE_KEPT.as_secs() / (24 * 3600);
        writeln!(
            out,
            "set aside    {archives} archives of attempts that do not count, {bytes} bytes, in {}: each is removed after {days} days",
            folder.display()
        )?;
    }
    Ok(())
}

fn validity(identity: &Identity, now: Timestamp) -> String {
    match PeerIdentity::from_pem(&identity.certificate_pem) {
        Ok(peer) if peer.not_after > now => format!("valid until {}", peer.not_after),
        Ok(peer) => format!("expired {} (renewed when the coordinator is reached, for 30 days)", peer.not_after),
        Err(_) => "unreadable".to_owned(),
    }
}

/// Opening a journal may cut a torn tail, so it is only looked at under the lock.
fn print_journal(state: &StateFolder, out: &mut dyn Write) -> Result<(), StatusError> {
    let (journal, _) = Journal::open(&state.journal_folder())?;
    let memory = journal.memory();
    let unsent: usize = memory.attempts().values().map(|held| held.unacknowledged.len()).sum();
    writeln!(out, "runs         {} open, {unsent} reports to send", memory.attempts().len())?;
    let indexes = memory.backups().values().filter(|backup| backup.index_unsent).count();
    writeln!(out, "backups      {} remembered, {indexes} indexes to send", memory.backups().len())?;
    let mut newest: Vec<_> = memory.backups().values().collect();
    newest.sort_by_key(|backup| (backup.policy_id.clone(), std::cmp::Reverse(backup.ordinal)));
    newest.dedup_by_key(|backup| backup.policy_id.clone());
    for backup in newest {
        let at = from_us(backup.captured_at_us).map_or_else(|| "?".to_owned(), |at| at.to_string());
        writeln!(out, "  {}  newest archive {at}", backup.policy_name.escape_debug())?;
    }
    Ok(())
}
