//! Why something on a host is not in its backup, in the words of reports, of the catalog and on screen.

use std::fmt;
use std::str::FromStr;

use crate::api;

/// The rule that left something out. The order is that in which a report lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeftOutBy {
    /// An exclude pattern.
    Pattern,
    /// The folder holds a name that the selection asks to look for.
    IfPresent,
    /// The folder is marked as a cache.
    Cache,
    /// The inode has the flag *no dump*.
    Nodump,
    /// It lies on another file system than the folder that holds it.
    OtherFileSystem,
    /// It is larger than the selection takes.
    LargerThan,
    /// The kernel makes it up.
    KernelFileSystem,
    /// It is the agent's own state, journal or archive.
    Own,
    /// It is a socket.
    Socket,
}

impl LeftOutBy {
    /// Every rule, for CHECK lists and tables.
    pub const ALL: [LeftOutBy; 9] = [
        LeftOutBy::Pattern,
        LeftOutBy::IfPresent,
        LeftOutBy::Cache,
        LeftOutBy::Nodump,
        LeftOutBy::OtherFileSystem,
        LeftOutBy::LargerThan,
        LeftOutBy::KernelFileSystem,
        LeftOutBy::Own,
        LeftOutBy::Socket,
    ];

    /// The word used in SQL, in JSON and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            LeftOutBy::Pattern => "pattern",
            LeftOutBy::IfPresent => "if_present",
            LeftOutBy::Cache => "cache",
            LeftOutBy::Nodump => "nodump",
            LeftOutBy::OtherFileSystem => "other_file_system",
            LeftOutBy::LargerThan => "larger_than",
            LeftOutBy::KernelFileSystem => "kernel_file_system",
            LeftOutBy::Own => "own",
            LeftOutBy::Socket => "socket",
        }
    }

    /// The rule on the wire.
    pub const fn to_api(self) -> api::LeftOutBy {
        match self {
            LeftOutBy::Pattern => api::LeftOutBy::Pattern,
            LeftOutBy::IfPresent => api::LeftOutBy::IfPresent,
            LeftOutBy::Cache => api::LeftOutBy::Cache,
            LeftOutBy::Nodump => api::LeftOutBy::Nodump,
            LeftOutBy::OtherFileSystem => api::LeftOutBy::OtherFileSystem,
            LeftOutBy::LargerThan => api::LeftOutBy::LargerThan,
            LeftOutBy::KernelFileSystem => api::LeftOutBy::KernelFileSystem,
            LeftOutBy::Own => api::LeftOutBy::Own,
            LeftOutBy::Socket => api::LeftOutBy::Socket,
        }
    }

    /// The rule that a message names; `None` when it names none that is known here.
    pub fn from_api(by: api::LeftOutBy) -> Option<Self> {
        LeftOutBy::ALL.into_iter().find(|known| known.to_api() == by)
    }

    /// The rule in a few words for people.
    pub const fn as_phrase(self) -> &'static str {
        match self {
            LeftOutBy::Pattern => "exclude pattern",
            LeftOutBy::IfPresent => "a folder with a marker in it",
            LeftOutBy::Cache => "caches (CACHEDIR.TAG)",
            LeftOutBy::Nodump => "no-dump flag",
            LeftOutBy::OtherFileSystem => "another file system",
            LeftOutBy::LargerThan => "files that are too large",
            LeftOutBy::KernelFileSystem => "kernel file system",
            LeftOutBy::Own => "the agent's own files",
            LeftOutBy::Socket => "socket",
        }
    }
}

/// A text is no rule's word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no rule of what is left out")]
pub struct UnknownLeftOutBy {
    /// What was given, escaped.
    pub text: String,
}

impl FromStr for LeftOutBy {
    type Err = UnknownLeftOutBy;

    fn from_str(text: &str) -> Result<Self, UnknownLeftOutBy> {
        let known = LeftOutBy::ALL.into_iter().find(|by| by.as_str() == text);
        known.ok_or_else(|| UnknownLeftOutBy {
            text: text.chars().take(40).collect::<String>().escape_debug().to_string(),
        })
    }
}

impl fmt::Display for LeftOutBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_survives_the_wire_and_has_words_of_its_own() {
        for by in LeftOutBy::ALL {
            assert_eq!(LeftOutBy::from_api(by.to_api()), Some(by));
            assert_eq!(by.as_str().parse(), Ok(by));
        }
        assert_eq!(LeftOutBy::from_api(api::LeftOutBy::Unspecified), None);
        assert!("size".parse::<LeftOutBy>().is_err());
    }
}
