//! What happened to runs, step by step. Invariant: rows are written by the schema itself (triggers of `runs`, `decisions`,
//! `run_warnings` and `backups`), in the transaction of the step, so that no way of making a step leaves its event out. Here they are read.

use coord_shared::ids::{Attempt, RunId};
use coord_shared::run::RunState;
use jiff::Timestamp;

use super::error::Result;
use super::pool::{Catalog, Sql};
use super::row::{count, get, small, word};

/// What an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEventKind {
    /// The run came into this state, or was given out again.
    State(RunState),
    /// Somebody asked it to stop.
    Cancelling,
    /// The host is at another kind of work; the detail names it.
    Phase,
    /// The level was decided; the detail says it and why.
    Decided,
    /// The host sent warnings; the detail counts them.
    Warnings,
    /// The entries of its backup are in the catalog.
    Searchable,
    /// They will not be; the detail says why.
    NotSearchable,
}

/// An event of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEvent {
    /// Rises from event to event.
    pub number: u64,
    /// When, by the database's clock.
    pub at: Timestamp,
    /// Of this attempt; 0 before the first.
    pub attempt: Attempt,
    /// What.
    pub kind: RunEventKind,
    /// More of it; may be empty.
    pub detail: String,
}

impl RunEventKind {
    /// Those that are no states, for the CHECK list.
    pub const OTHERS: [RunEventKind; 6] = [
        RunEventKind::Cancelling,
        RunEventKind::Phase,
        RunEventKind::Decided,
        RunEventKind::Warnings,
        RunEventKind::Searchable,
        RunEventKind::NotSearchable,
    ];

    /// The word in SQL and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            RunEventKind::State(state) => state.as_str(),
            RunEventKind::Cancelling => "cancelling",
            RunEventKind::Phase => "phase",
            RunEventKind::Decided => "decided",
            RunEventKind::Warnings => "warnings",
            RunEventKind::Searchable => "searchable",
            RunEventKind::NotSearchable => "not_searchable",
        }
    }
}

impl std::str::FromStr for RunEventKind {
    type Err = super::words::UnknownWord;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let state = RunState::ALL.into_iter().find(|state| state.as_str() == text).map(RunEventKind::State);
        let other = || RunEventKind::OTHERS.into_iter().find(|kind| kind.as_str() == text);
        state.or_else(other).ok_or_else(|| super::words::UnknownWord { what: "event of a run", text: text.to_owned() })
    }
}

// No more are kept of a run.
pub(super) const OF_RUN: Sql =
    Sql("SELECT event, at, attempt, kind, detail FROM run_events WHERE run_id = $1 ORDER BY event LIMIT 500");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("OF_RUN", &OF_RUN)];

impl Catalog {
    /// What happened to a run, oldest first.
    pub async fn run_events(&self, run: RunId) -> Result<Vec<RunEvent>> {
        let rows = self.connection().await?.query(&OF_RUN, &[&run.uuid()]).await?;
        rows.iter()
            .map(|row| {
                Ok(RunEvent {
                    number: count(row, "event")?,
                    at: get(row, "at")?,
                    attempt: Attempt(small(row, "attempt")?),
                    kind: word(row, "kind")?,
                    detail: get(row, "detail")?,
                })
            })
            .collect()
    }
}
