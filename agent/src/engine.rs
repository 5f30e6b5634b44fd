//! The owner of all runs on this host: one loop that takes every event in turn and holds all state; the work itself is done by
//! blocking threads that only tell it what happened.
//!
//! Invariants: nothing is reported as done before the journal has it; an archive of an attempt that does not count is removed, one
//! that may count never is; the coordinator's absence stops nothing that runs. Not here: the wire (`session`), and how files are read,
//! packed and restored (`scan` and the archive package).

mod archive;
mod attempt;
mod backup;
mod beats;
mod content;
mod failure;
mod host_clock;
mod notes;
mod owner;
mod pace;
mod pack;
mod preview;
mod restore;
mod verify;
mod work;

use coord_shared::api;
use tokio::sync::{mpsc, oneshot};

use crate::journal::AttemptKey;

pub use archive::open_archive;
pub use attempt::{Control, NotTaken, RunContext};
pub use content::{Part, read_file};
pub use failure::Failure;
pub use host_clock::HostClock;
pub use owner::{Deps, Engine};
pub use preview::preview;
pub use work::{Done, HostWork, Work};

/// Events that wait for the engine. A sender waits when there are more.
pub const MAX_EVENTS: usize = 256;

/// What the engine asks of the session.
#[derive(Debug)]
pub enum Outgoing {
    /// Send this message in the stream.
    Message(Box<api::agent_message::Message>),
    /// Send the index of this archive, apart from the stream.
    SendIndex(api::ArchiveLocation),
}

/// Everything that can happen to the engine.
#[derive(Debug)]
pub enum Event {
    /// A session is about to say Hello and wants to know what to say.
    Greeting(oneshot::Sender<Greeting>),
    /// Hello was answered: orders and reports may flow.
    Connected {
        /// The coordinator's answer.
        answer: Box<api::HelloAnswer>,
        /// Where to put what is to be sent.
        link: mpsc::Sender<Outgoing>,
    },
    /// The session is over.
    Disconnected,
    /// A message of the coordinator.
    Received(Box<api::coordinator_message::Message>),
    /// The session has sent an index to its end, or the coordinator does not want it.
    IndexSent {
        /// Of which backup.
        backup_id: String,
    },
    /// The session could not send an index.
    IndexFailed {
        /// Of which backup.
        backup_id: String,
        /// Whether it may be sent another time.
        why: Unsent,
    },
    /// A run has something to report.
    Report {
        /// Which attempt.
        key: AttemptKey,
        /// What.
        event: Box<api::run_report::Event>,
        /// Answered when it is as durable as it has to be.
        taken: oneshot::Sender<Result<(), NotTaken>>,
    },
    /// A run needs the number of a new backup.
    NextOrdinal {
        /// Of which policy.
        policy_id: String,
        /// At least this.
        floor: u64,
        /// The number, durable.
        number: oneshot::Sender<Result<u64, NotTaken>>,
    },
    /// A run's thread has ended.
    Ended {
        /// Which attempt.
        key: AttemptKey,
        /// It ended by a defect, without a report.
        panicked: bool,
    },
}

/// Why an index was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// Nothing that lasts: it is tried again soon.
    Again,
    /// Its archive is not there, perhaps because a disk is not mounted. The coordinator asks again.
    NotThere,
    /// Its archive is damaged, or another one has its name: it will not be better.
    Damaged,
}

/// What a session says in Hello.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Greeting {
    /// Attempts held, or with unsent reports.
    pub held: Vec<api::HeldRun>,
    /// Backups whose index may not be in the catalog.
    pub unsent_indexes: Vec<String>,
    /// Highest ordinals.
    pub ordinals: Vec<api::JobOrdinal>,
}

#[cfg(test)]
mod tests;
