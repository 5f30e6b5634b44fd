//! What is tried again, how often, and after which wait: by the class of what went wrong, in one table.
//!
//! A fault of no class here needs somebody to do something first; it ends a run at once. An agent may know better that trying again is in
//! vain, and then it is; it never makes a run be tried more often than the table says.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::fault::ErrorCode;

/// Why another attempt may do better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The attempt itself was sound: its agent was restarted, or its host was cut off.
    Interrupted,
    /// Something on the way did not work, and may have been mended by then: reading, writing, the network.
    Passing,
    /// Something was full. That takes longer to change.
    Crowded,
}

/// How a class is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Attempts in all; a run may be allowed fewer.
    pub attempts: u32,
    /// Waits between them.
    pub backoff: Backoff,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 3] = [Class::Interrupted, Class::Passing, Class::Crowded];

    /// The class of a fault; `None`: nothing changes by itself.
    #[must_use]
    pub const fn of(code: ErrorCode) -> Option<Class> {
        match code {
            // An agent that goes down stops its runs.
            ErrorCode::AgentRestarted | ErrorCode::LeaseLapsed | ErrorCode::StaleAttempt | ErrorCode::Cancelled => Some(Class::Interrupted),
            ErrorCode::Io
            | ErrorCode::Unavailable
            | ErrorCode::TimedOut
            | ErrorCode::Changed
            | ErrorCode::AlreadyExists
            | ErrorCode::HostNotConnected
            | ErrorCode::Internal
            | ErrorCode::SourceUnreadable
            | ErrorCode::TargetUnusable
            // Read back wrong: what is written anew may be right.
            | ErrorCode::ArchiveDamaged
            // A report that contradicts what is stored: an attempt from the start may not.
            | ErrorCode::InvalidArgument => Some(Class::Passing),
            ErrorCode::DiskFull | ErrorCode::LimitExceeded => Some(Class::Crowded),
            ErrorCode::InvalidPolicy
            | ErrorCode::InvalidConfiguration
            | ErrorCode::Ambiguous
            | ErrorCode::Unauthenticated
            | ErrorCode::PermissionDenied
            | ErrorCode::Revoked
            | ErrorCode::CertificateExpired
            | ErrorCode::CertificateReplaced
            | ErrorCode::WrongAuthority
            | ErrorCode::TokenInvalid
            | ErrorCode::TokenUsed
            | ErrorCode::TokenExpired
            | ErrorCode::TokenRevoked
            | ErrorCode::NotFound
            | ErrorCode::NothingToRestore
            | ErrorCode::OutsideEveryPolicy
            | ErrorCode::NameTaken
            | ErrorCode::DuplicateAgent
            | ErrorCode::NotNow
            | ErrorCode::Unsupported
            | ErrorCode::SourceMissing
            | ErrorCode::SourceMoved
            | ErrorCode::ArchiveMissing
            | ErrorCode::CheckFailed => None,
        }
    }

    /// How it is tried again.
    #[must_use]
    pub const fn rule(self) -> Rule {
        let (attempts, first, most) = match self {
            Class::Interrupted => (3, 2, 60),
            Class::Passing => (3, 30, 30 * 60),
            Class::Crowded => (2, 15 * 60, 60 * 60),
        };
        Rule { attempts, backoff: Backoff { first: Duration::from_secs(first), most: Duration::from_secs(most) } }
    }
}

/// The wait before the next attempt of what failed with `code` in its attempt `number`; `None`: there is none. `random` draws the wait as
/// in [`Backoff::wait`].
#[must_use]
pub fn wait(code: ErrorCode, number: u32, random: u64) -> Option<Duration> {
    let rule = Class::of(code)?.rule();
    (number < rule.attempts).then(|| rule.backoff.wait(number, random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_is_tried_as_often_and_after_as_long_as_the_guide_says() {
        let guide = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/POLICY.md"));
        for (class, word) in
            [(Class::Interrupted, "interrupted"), (Class::Passing, "passing"), (Class::Crowded, "full")]
        {
            let rule = class.rule();
            let shortest = rule.backoff.wait(1, 0).as_secs();
            let last = rule.backoff.first.saturating_mul(2u32.pow(rule.attempts - 2)).min(rule.backoff.most).as_secs();
            let row = format!("| {word} | {} | {shortest} s to {last} s |", rule.attempts);
            assert!(rule.backoff.wait(rule.attempts - 1, u64::MAX).as_secs() <= last, "{word}");
            assert!(guide.contains(&row), "docs/POLICY.md has no {row}");
        }
    }

    #[test]
    fn what_somebody_has_to_mend_is_not_tried_again() {
        for code in [ErrorCode::SourceMissing, ErrorCode::ArchiveMissing, ErrorCode::InvalidPolicy] {
            assert_eq!(wait(code, 1, 0), None, "{code}");
        }
    }

    #[test]
    fn a_full_disk_gets_more_time_and_fewer_attempts_than_an_error_of_reading() {
        let all = |code| (1..=4).map(|number| wait(code, number, 0).map(|wait| wait.as_secs())).collect::<Vec<_>>();
        assert_eq!(all(ErrorCode::Io), [Some(15), Some(30), None, None]);
        assert_eq!(all(ErrorCode::DiskFull), [Some(450), None, None, None]);
        assert_eq!(all(ErrorCode::AgentRestarted), [Some(1), Some(2), None, None]);
    }
}
