//! Why something on a host is not in its backup, in the words of reports, of the catalog and on screen.

use std::fmt;

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

impl fmt::Display for LeftOutBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
