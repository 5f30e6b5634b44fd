//! Where the fleet's coordinators are, and how it stands with the conversation. The first comes from the administrator and from the
//! coordinators themselves, the second is for `coord-agent status`; both are kept in one file, which is a convenience: an agent that cannot
//! read or write it goes on with what the administrator said.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use coord_shared::durable;
use coord_shared::fault::Fault;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Listeners that are kept of those the coordinators told, of each kind.
const MAX_TOLD: usize = 32;
/// Longest address that is kept, in bytes: the longest DNS name, and a port.
const MAX_ADDRESS_BYTES: usize = 260;

/// How it stands with the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Hello was answered, and the stream has not ended since.
    pub connected: bool,
    /// With which listener, or which was tried last.
    pub endpoint: String,
    /// Since when it is so, by the host's clock.
    pub since: Timestamp,
    /// Why there is no conversation.
    pub why: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Main listeners that coordinators told of.
    #[serde(default)]
    pub told: Vec<String>,
    /// Enrolment listeners that they told of.
    #[serde(default)]
    pub told_enrolment: Vec<String>,
    /// How it stands; `None` before the first try.
    pub standing: Option<Standing>,
}

impl Kept {
    /// What is in the file; nothing when there is none, or none that reads.
    pub fn read(path: &Path) -> Kept {
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

/// What a running agent knows. Shared by the conversation and the renewal.
#[derive(Debug)]
pub struct Contact {
    path: PathBuf,
    configured: Vec<String>,
    configured_enrolment: Vec<String>,
    kept: Mutex<Kept>,
}

impl Contact {
    /// What the administrator said, and what is in the file at `path`.
    pub fn open(path: PathBuf, configured: Vec<String>, configured_enrolment: Vec<String>) -> Contact {
        let kept = Mutex::new(Kept { standing: None, ..Kept::read(&path) });
        Contact { path, configured, configured_enrolment, kept }
    }

    fn locked<R>(&self, act: impl FnOnce(&mut Kept) -> R) -> R {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Main listeners, to be tried in turn: what the administrator said comes first.
    pub fn main(&self) -> Vec<String> {
        self.locked(|kept| together(&self.configured, &kept.told))
    }

    /// Enrolment listeners, likewise.
    pub fn enrolment(&self) -> Vec<String> {
        self.locked(|kept| together(&self.configured_enrolment, &kept.told_enrolment))
    }

    /// Coordinators told where they listen. An empty list says nothing: the others may just not be known yet.
    pub fn told(&self, main: &[String], enrolment: &[String]) {
        let (main, enrolment) = (usable(main), usable(enrolment));
        let changed = self.locked(|kept| {
            let before = kept.clone();
            if !main.is_empty() {
                kept.told = main;
            }
            if !enrolment.is_empty() {
                kept.told_enrolment = enrolment;
            }
            *kept != before
        });
        if changed {
            self.write();
        }
    }

    /// The conversation has begun.
    pub fn connected(&self, endpoint: &str, now: Timestamp) {
        let standing = Standing { connected: true, endpoint: endpoint.to_owned(), since: now, why: None, hint: None };
        self.locked(|kept| kept.standing = Some(standing));
        self.write();
    }

    /// There is no conversation. Written when it ended, and when the reason is another.
    pub fn not_connected(&self, endpoint: &str, fault: &Fault, now: Timestamp) {
        let changed = self.locked(|kept| {
            let since = kept.standing.as_ref().filter(|standing| !standing.connected).map(|standing| standing.since);
            let standing = Standing {
                connected: false,
                endpoint: endpoint.to_owned(),
                since: since.unwrap_or(now),
                why: Some(fault.message.clone()),
                hint: Some(fault.hint.clone()).filter(|hint| !hint.is_empty()),
            };
            kept.standing.replace(standing) != kept.standing
        });
        if changed {
            self.write();
        }
    }

    fn write(&self) {
        let bytes = self.locked(|kept| serde_json::to_vec_pretty(kept));
        let written =
            bytes.map_err(io::Error::other).and_then(|bytes| durable::write(&self.path, &bytes, durable::SECRET_MODE));
        if let Err(error) = written {
            tracing::debug!(%error, "cannot keep how it stands with the coordinator");
        }
    }
}

/// Both, without repetition.
fn together(configured: &[String], told: &[String]) -> Vec<String> {
    let new = told.iter().filter(|endpoint| !configured.contains(endpoint));
    configured.iter().chain(new).cloned().collect()
}

/// Those that can be dialed and kept.
fn usable(endpoints: &[String]) -> Vec<String> {
    let fits = |endpoint: &&String| {
        let port = endpoint.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        endpoint.len() <= MAX_ADDRESS_BYTES && port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    endpoints.iter().filter(fits).take(MAX_TOLD).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use coord_shared::fault::ErrorCode;

    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn coordinators_that_were_told_of_are_known_after_a_restart_and_come_after_the_configured_ones() {
        let scratch = tempfile::tempdir().unwrap();
        let open = || Contact::open(scratch.path().join("contact"), strings(&["a:1", "b:1"]), strings(&["a:2"]));
        let contact = open();
        contact.told(&strings(&["c:1", "a:1", "nonsense", "d:0"]), &strings(&["c:2"]));
        assert_eq!(contact.main(), strings(&["a:1", "b:1", "c:1"]));
        contact.told(&[], &[]);
        assert_eq!(open().main(), strings(&["a:1", "b:1", "c:1"]), "nothing told is no news");
        assert_eq!(open().enrolment(), strings(&["a:2", "c:2"]));
        open().told(&strings(&["e:1"]), &[]);
        assert_eq!(open().main(), strings(&["a:1", "b:1", "e:1"]));
        let many: Vec<String> = (0..1000).map(|number| format!("host-{number}:1")).collect();
        open().told(&many, &[]);
        assert_eq!(open().main().len(), 2 + MAX_TOLD);
    }

    #[test]
    fn how_it_stands_is_kept_with_the_time_since_when() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("contact");
        let contact = Contact::open(path.clone(), strings(&["a:1"]), vec![]);
        let at = |second| Timestamp::from_second(second).unwrap();
        contact.connected("a:1", at(10));
        assert!(Kept::read(&path).standing.unwrap().connected);
        let gone = Fault::new(ErrorCode::Unavailable, "cannot reach it").with_hint("is it running?");
        contact.not_connected("a:1", &gone, at(20));
        contact.not_connected("b:1", &gone, at(30));
        let standing = Kept::read(&path).standing.unwrap();
        assert_eq!((standing.connected, standing.since, standing.endpoint.as_str()), (false, at(20), "b:1"));
        assert_eq!(standing.hint.as_deref(), Some("is it running?"));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Kept::read(&path), Kept::default());
    }
}
