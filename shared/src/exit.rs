//! The exit codes of all three binaries: one table, so that scripts learn it once. An unknown code means failure.

/// How a command ended, as its caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// The command line, a policy or a configuration file is wrong. Nothing was done.
    Usage,
    /// Done, with warnings that somebody should read: unreadable files, files left different.
    Warnings,
    /// Not logged in, or not allowed.
    NotAllowed,
    /// Not found, or nothing to restore from.
    NotFound,
    /// `--check` says no.
    CheckFailed,
    /// `--wait` timed out; the run goes on.
    TimedOut,
    /// The coordinator cannot be reached.
    Unreachable,
    /// Something changed meanwhile; look again and repeat.
    Changed,
    /// An archive is damaged.
    Damaged,
    /// Interrupted by the user.
    Interrupted,
}

impl Exit {
    /// Every way to end, in the order of the codes.
    pub const ALL: [Exit; 12] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Warnings,
        Exit::NotAllowed,
        Exit::NotFound,
        Exit::CheckFailed,
        Exit::TimedOut,
        Exit::Unreachable,
        Exit::Changed,
        Exit::Damaged,
        Exit::Interrupted,
    ];

    /// The number given to the operating system.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Warnings => 3,
            Exit::NotAllowed => 4,
            Exit::NotFound => 5,
            Exit::CheckFailed => 6,
            Exit::TimedOut => 7,
            Exit::Unreachable => 8,
            Exit::Changed => 9,
            Exit::Damaged => 10,
            Exit::Interrupted => 130,
        }
    }

    /// One line for `help exit-codes`.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "wrong usage, or an invalid policy or configuration file",
            Exit::Warnings => "done with warnings (for example unreadable files)",
            Exit::NotAllowed => "not logged in, or not allowed",
            Exit::NotFound => "not found, or nothing to restore from",
            Exit::CheckFailed => "--check says no",
            Exit::TimedOut => "--wait timed out; the run goes on",
            Exit::Unreachable => "the coordinator is unreachable",
            Exit::Changed => "something changed meanwhile",
            Exit::Damaged => "an archive is damaged",
            Exit::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code())
    }
}
