//! The one error that crosses the wire. `ErrorCode` is its stable word, mapped to gRPC codes and to exit codes here and nowhere
//! else; `Fault` carries the sentence and the hint that a person acts on. Causes that are nobody else's business stay in the log of
//! the process where they happened: what is built here is public.

use std::fmt;

use prost::Message as _;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::api;
use crate::exit::Exit;

/// Binary metadata under which a `Fault` travels in a gRPC status.
pub const FAULT_METADATA: &str = "coord-fault-bin";

/// Longest text (message, hint) of a fault that is put on the wire, in bytes. HTTP/2 headers are small.
pub const MAX_FAULT_TEXT_BYTES: usize = 2048;

/// Stable words for what went wrong. Words are only ever added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A defect, or a cause that is not the caller's business; the log has it under the trace id.
    Internal,
    /// The request makes no sense.
    InvalidArgument,
    /// The policy file has errors.
    InvalidPolicy,
    /// A configuration file or a state folder has errors.
    InvalidConfiguration,
    /// An id prefix or name fits more than one.
    Ambiguous,
    /// No certificate, or one that nobody knows.
    Unauthenticated,
    /// The certificate is of the wrong kind, or the user's role is too small.
    PermissionDenied,
    /// The certificate or its owner was revoked.
    Revoked,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate was replaced by one of a later generation.
    CertificateReplaced,
    /// The other side's certificate does not come from the expected authority.
    WrongAuthority,
    /// The token is unknown, or its secret is wrong.
    TokenInvalid,
    /// The token was used as often as it may be.
    TokenUsed,
    /// The token has expired.
    TokenExpired,
    /// The token was revoked, by hand or by too many wrong secrets.
    TokenRevoked,
    /// The thing named does not exist.
    NotFound,
    /// No backup serves the asked time.
    NothingToRestore,
    /// The path belongs to no policy of the host.
    OutsideEveryPolicy,
    /// A name is taken, possibly by something that is gone: names are never reused.
    NameTaken,
    /// The thing is there already.
    AlreadyExists,
    /// Something changed between looking and acting.
    Changed,
    /// The report names an attempt that does not count any more.
    StaleAttempt,
    /// Another process with the same identity is connected.
    DuplicateAgent,
    /// The state of things does not allow it now.
    NotNow,
    /// The host's agent is not connected.
    HostNotConnected,
    /// The coordinator, or its database, cannot be reached now; try again.
    Unavailable,
    /// It took longer than it may.
    TimedOut,
    /// A bound was reached: size, number, rate.
    LimitExceeded,
    /// This version does not know the request.
    Unsupported,
    /// The file system of archives or of the target is full.
    DiskFull,
    /// A source of the policy does not exist on the host.
    SourceMissing,
    /// A source lies on another file system than in the newest backup.
    SourceMoved,
    /// A source cannot be read at all.
    SourceUnreadable,
    /// The agent was restarted in the middle of the attempt.
    AgentRestarted,
    /// The lease lapsed: the agent was not heard of.
    LeaseLapsed,
    /// An archive cannot be found where the catalog says it is.
    ArchiveMissing,
    /// An archive is not what was sealed.
    ArchiveDamaged,
    /// The target of a restore cannot be used.
    TargetUnusable,
    /// Stopped because somebody asked for it.
    Cancelled,
    /// A check was asked for and says no.
    CheckFailed,
    /// Reading or writing failed.
    Io,
}

struct Row {
    word: &'static str,
    status: Code,
    exit: Exit,
}

const fn row(word: &'static str, status: Code, exit: Exit) -> Row {
    Row { word, status, exit }
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [ErrorCode; 41] = [
        ErrorCode::Internal,
        ErrorCode::InvalidArgument,
        ErrorCode::InvalidPolicy,
        ErrorCode::InvalidConfiguration,
        ErrorCode::Ambiguous,
        ErrorCode::Unauthenticated,
        ErrorCode::PermissionDenied,
        ErrorCode::Revoked,
        ErrorCode::CertificateExpired,
        ErrorCode::CertificateReplaced,
        ErrorCode::WrongAuthority,
        ErrorCode::TokenInvalid,
        ErrorCode::TokenUsed,
        ErrorCode::TokenExpired,
        ErrorCode::TokenRevoked,
        ErrorCode::NotFound,
        ErrorCode::NothingToRestore,
        ErrorCode::OutsideEveryPolicy,
        ErrorCode::NameTaken,
        ErrorCode::AlreadyExists,
        ErrorCode::Changed,
        ErrorCode::StaleAttempt,
        ErrorCode::DuplicateAgent,
        ErrorCode::NotNow,
        ErrorCode::HostNotConnected,
        ErrorCode::Unavailable,
        ErrorCode::TimedOut,
        ErrorCode::LimitExceeded,
        ErrorCode::Unsupported,
        ErrorCode::DiskFull,
        ErrorCode::SourceMissing,
        ErrorCode::SourceMoved,
        ErrorCode::SourceUnreadable,
        ErrorCode::AgentRestarted,
        ErrorCode::LeaseLapsed,
        ErrorCode::ArchiveMissing,
        ErrorCode::ArchiveDamaged,
        ErrorCode::TargetUnusable,
        ErrorCode::Cancelled,
        ErrorCode::CheckFailed,
        ErrorCode::Io,
    ];

    const fn row(self) -> Row {
        match self {
            ErrorCode::Internal => row("internal", Code::Internal, Exit::Failed),
            ErrorCode::InvalidArgument => row("invalid_argument", Code::InvalidArgument, Exit::Usage),
            ErrorCode::InvalidPolicy => row("invalid_policy", Code::InvalidArgument, Exit::Usage),
            ErrorCode::InvalidConfiguration => row("invalid_configuration", Code::FailedPrecondition, Exit::Usage),
            ErrorCode::Ambiguous => row("ambiguous", Code::InvalidArgument, Exit::Usage),
            ErrorCode::Unauthenticated => row("unauthenticated", Code::Unauthenticated, Exit::NotAllowed),
            ErrorCode::PermissionDenied => row("permission_denied", Code::PermissionDenied, Exit::NotAllowed),
            ErrorCode::Revoked => row("revoked", Code::Unauthenticated, Exit::NotAllowed),
            ErrorCode::CertificateExpired => row("certificate_expired", Code::Unauthenticated, Exit::NotAllowed),
            ErrorCode::CertificateReplaced => row("certificate_replaced", Code::Unauthenticated, Exit::NotAllowed),
            ErrorCode::WrongAuthority => row("wrong_authority", Code::Unauthenticated, Exit::NotAllowed),
            ErrorCode::TokenInvalid => row("token_invalid", Code::Unauthenticated, Exit::NotAllowed),
            ErrorCode::TokenUsed => row("token_used", Code::PermissionDenied, Exit::NotAllowed),
            ErrorCode::TokenExpired => row("token_expired", Code::PermissionDenied, Exit::NotAllowed),
            ErrorCode::TokenRevoked => row("token_revoked", Code::PermissionDenied, Exit::NotAllowed),
            ErrorCode::NotFound => row("not_found", Code::NotFound, Exit::NotFound),
            ErrorCode::NothingToRestore => row("nothing_to_restore", Code::NotFound, Exit::NotFound),
            ErrorCode::OutsideEveryPolicy => row("outside_every_policy", Code::NotFound, Exit::NotFound),
            ErrorCode::NameTaken => row("name_taken", Code::AlreadyExists, Exit::Failed),
            ErrorCode::AlreadyExists => row("already_exists", Code::AlreadyExists, Exit::Failed),
            ErrorCode::Changed => row("changed", Code::Aborted, Exit::Changed),
            ErrorCode::StaleAttempt => row("stale_attempt", Code::Aborted, Exit::Changed),
            ErrorCode::DuplicateAgent => row("duplicate_agent", Code::FailedPrecondition, Exit::NotAllowed),
            ErrorCode::NotNow => row("not_now", Code::FailedPrecondition, Exit::Failed),
            ErrorCode::HostNotConnected => row("host_not_connected", Code::FailedPrecondition, Exit::Failed),
            ErrorCode::Unavailable => row("unavailable", Code::Unavailable, Exit::Unreachable),
            ErrorCode::TimedOut => row("timed_out", Code::DeadlineExceeded, Exit::Failed),
            ErrorCode::LimitExceeded => row("limit_exceeded", Code::ResourceExhausted, Exit::Failed),
            ErrorCode::Unsupported => row("unsupported", Code::Unimplemented, Exit::Failed),
            ErrorCode::DiskFull => row("disk_full", Code::ResourceExhausted, Exit::Failed),
            ErrorCode::SourceMissing => row("source_missing", Code::FailedPrecondition, Exit::Failed),
            ErrorCode::SourceMoved => row("source_moved", Code::FailedPrecondition, Exit::Failed),
            ErrorCode::SourceUnreadable => row("source_unreadable", Code::FailedPrecondition, Exit::Failed),
            ErrorCode::AgentRestarted => row("agent_restarted", Code::Aborted, Exit::Failed),
            ErrorCode::LeaseLapsed => row("lease_lapsed", Code::Aborted, Exit::Failed),
            ErrorCode::ArchiveMissing => row("archive_missing", Code::NotFound, Exit::NotFound),
            ErrorCode::ArchiveDamaged => row("archive_damaged", Code::DataLoss, Exit::Damaged),
            ErrorCode::TargetUnusable => row("target_unusable", Code::FailedPrecondition, Exit::Failed),
            ErrorCode::Cancelled => row("cancelled", Code::Cancelled, Exit::Failed),
            ErrorCode::CheckFailed => row("check_failed", Code::FailedPrecondition, Exit::CheckFailed),
            ErrorCode::Io => row("io", Code::Internal, Exit::Failed),
        }
    }

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        self.row().word
    }

    /// The code behind a word; `None` for a word of a later version.
    pub fn parse(word: &str) -> Option<ErrorCode> {
        ErrorCode::ALL.into_iter().find(|code| code.as_str() == word)
    }

    /// How a command ends that failed with this code.
    pub const fn exit(self) -> Exit {
        self.row().exit
    }

    const fn status(self) -> Code {
        self.row().status
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong, for a person: a sentence without the full stop, what to do about it, and the id under which logs have more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Stable word.
    pub code: ErrorCode,
    /// One sentence.
    pub message: String,
    /// The command to run, or what to change; may be empty.
    pub hint: String,
    /// Trace id; empty when none was given.
    pub trace: String,
}

impl Fault {
    /// A fault without hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into(), hint: String::new(), trace: String::new() }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = hint.into();
        self
    }

    /// Names the trace, unless it is named already.
    #[must_use]
    pub fn with_trace(mut self, trace: impl Into<String>) -> Fault {
        if self.trace.is_empty() {
            self.trace = trace.into();
        }
        self
    }

    /// How a command ends that failed with this fault.
    pub const fn exit(&self) -> Exit {
        self.code.exit()
    }

    /// As a message of the wire contract.
    pub fn to_api(&self) -> api::Fault {
        api::Fault {
            code: self.code.as_str().to_owned(),
            message: bounded(&self.message),
            hint: bounded(&self.hint),
            trace_id: self.trace.clone(),
        }
    }

    /// Out of a message of the wire contract. A code of a later version becomes `internal`; its word is kept in the message.
    pub fn from_api(fault: &api::Fault) -> Fault {
        let (code, message) = match ErrorCode::parse(&fault.code) {
            Some(code) => (code, fault.message.clone()),
            None => (ErrorCode::Internal, format!("{} ({})", fault.message, fault.code)),
        };
        Fault { code, message, hint: fault.hint.clone(), trace: fault.trace_id.clone() }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(self.code, ErrorCode::Unavailable | ErrorCode::TimedOut)
    }
}

/// Cuts at a character boundary: a fault travels in headers.
fn bounded(text: &str) -> String {
    let mut end = text.len().min(MAX_FAULT_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Status {
        let api = fault.to_api();
        let mut status = Status::new(fault.code.status(), api.message.clone());
        let value = MetadataValue::from_bytes(&api.encode_to_vec());
        status.metadata_mut().insert_bin(FAULT_METADATA, value);
        status
    }
}

impl From<&Status> for Fault {
    /// The fault that our side put in, or one made of what gRPC itself says (connection lost, limits of the transport).
    fn from(status: &Status) -> Fault {
        let carried = status
            .metadata()
            .get_bin(FAULT_METADATA)
            .and_then(|value| value.to_bytes().ok())
            .and_then(|bytes| api::Fault::decode(bytes).ok());
        if let Some(fault) = carried {
            return Fault::from_api(&fault);
        }
        let code = match status.code() {
            Code::Unavailable => ErrorCode::Unavailable,
            Code::DeadlineExceeded => ErrorCode::TimedOut,
            Code::Unauthenticated => ErrorCode::Unauthenticated,
            Code::PermissionDenied => ErrorCode::PermissionDenied,
            Code::NotFound => ErrorCode::NotFound,
            Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
            Code::ResourceExhausted => ErrorCode::LimitExceeded,
            Code::Unimplemented => ErrorCode::Unsupported,
            Code::Cancelled => ErrorCode::Cancelled,
            Code::Aborted => ErrorCode::Changed,
            Code::AlreadyExists => ErrorCode::AlreadyExists,
            Code::FailedPrecondition => ErrorCode::NotNow,
            Code::DataLoss => ErrorCode::ArchiveDamaged,
            // A connection that breaks inside a call is reported as unknown; the caller sees a coordinator that went away.
            Code::Unknown if std::error::Error::source(status).is_some() => ErrorCode::Unavailable,
            Code::Ok | Code::Unknown | Code::Internal => ErrorCode::Internal,
        };
        let message = if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
        Fault::new(code, message)
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Fault {
        Fault::from(&status)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_its_own_word_and_comes_back_from_it() {
        let words: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn a_fault_survives_the_wire() {
        let fault = Fault::new(ErrorCode::NothingToRestore, "no backup of web-17 at or before 2026-11-20")
            .with_hint("the first is 2026-11-21: --at 2026-11-21")
            .with_trace("abc");
        let status = Status::from(fault.clone());
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(Fault::from(&status), fault);
    }

    #[test]
    fn a_status_of_the_transport_becomes_a_fault_with_an_exit_code() {
        assert_eq!(Fault::from(&Status::unavailable("gone")).exit(), Exit::Unreachable);
        assert_eq!(Fault::from(&Status::permission_denied("no")).exit(), Exit::NotAllowed);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let fault = Fault::new(ErrorCode::Io, "é".repeat(5000));
        let status = Status::from(fault);
        assert!(Fault::from(&status).message.len() <= MAX_FAULT_TEXT_BYTES);
    }

    #[test]
    fn a_word_of_a_later_version_is_kept_for_the_reader() {
        let api = api::Fault { code: "sun_spots".into(), message: "too many".into(), ..Default::default() };
        let fault = Fault::from_api(&api);
        assert_eq!(fault.code, ErrorCode::Internal);
        assert!(fault.message.contains("sun_spots"));
        assert_eq!(fault.to_api().encode_to_vec().first().copied().unwrap(), 0x0a);
    }
}
