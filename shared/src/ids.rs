//! Newtypes of the ids and counters that cross a function, so that swapped arguments do not compile.
//!
//! Ids on wire and screen are random (UUIDv4) and mean nothing; the bigint keys of large tables never leave the catalog.
//! Names that people choose are in [`crate::slug`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not the id of a {what}: ids are UUIDs, such as 8f3c0c1e-0b5d-4a51-9d57-1f2e3d4c5b6a")]
pub struct ParseIdError {
    /// The word for what was expected, such as `run`.
    pub what: &'static str,
    /// The text given, cut to 80 characters and escaped.
    pub text: String,
}

impl ParseIdError {
    fn new(what: &'static str, text: &str) -> Self {
        let cut: String = text.chars().take(80).collect();
        Self { what, text: cut.escape_debug().to_string() }
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, unlike any other.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id that a stored or received UUID is.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID, for the catalog.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The first eight digits: what people read and type. Unique nearly always, never guaranteed.
            pub fn short(self) -> String {
                let mut text = self.0.simple().to_string();
                text.truncate(8);
                text
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError::new($what, text))
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id!(
    /// A protected machine with an agent.
    HostId, "host");
id!(
    /// A policy, through all its versions.
    PolicyId, "policy");
id!(
    /// One policy on one host.
    JobId, "job");
id!(
    /// One execution of a kind.
    RunId, "run");
id!(
    /// A restore point.
    BackupId, "backup");
id!(
    /// A join token (its public half).
    TokenId, "token");
id!(
    /// A process of a coordinator, for as long as it lives.
    CoordinatorId, "coordinator");
id!(
    /// A process of an agent, for as long as it lives.
    InstanceId, "agent process");
id!(
    /// A folder that agents keep archives in.
    ArchiveStoreId, "archive folder");
id!(
    /// A file asked for through a session, for as long as the transfer lasts.
    RequestId, "request");

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The number after this one. Stays at the largest, which no counter of ours reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The number of an attempt of a run: 0 before the first claim, then 1, 2, ... It fences: only the newest may commit.
    Attempt, u32);
number!(
    /// The agent's own number of a job's backups; in the index header and on the wire.
    Ordinal, u64);
number!(
    /// The catalog's number of a job's backups, given in ordinal order; never leaves the coordinator.
    Seq, i64);
number!(
    /// Number of a policy's version, from 1.
    PolicyVersion, u64);
number!(
    /// Fences the sessions of one host against each other.
    SessionNumber, u64);
number!(
    /// Generation of an agent's certificate, from 1.
    Generation, u32);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_printed() {
        let id = RunId::random();
        assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
        assert_eq!(id.short().len(), 8);
        assert!(id.to_string().starts_with(&id.short()));
    }

    #[test]
    fn what_is_no_id_is_refused_with_the_word_for_it() {
        let error = "web\u{1b}[2J".parse::<HostId>().unwrap_err();
        assert!(error.to_string().contains("the id of a host"));
        assert!(!error.to_string().contains('\u{1b}'), "control characters are escaped");
        assert!("x".repeat(100_000).parse::<HostId>().unwrap_err().to_string().len() < 300);
    }
}
