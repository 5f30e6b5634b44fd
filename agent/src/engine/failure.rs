//! How a run ends that does not succeed: one place that turns causes into faults, and says whether trying again may help.

use std::io;

use coord_shared::api::finished;
use coord_shared::fault::{ErrorCode, Fault};

use crate::chain::chain;
use crate::store::StoreError;

/// Why an attempt did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// For a person, and for scripts.
    pub fault: Fault,
    /// Whether another attempt may do better without anybody doing anything.
    pub retryable: bool,
    /// What was found or done all the same.
    pub result: Option<Box<finished::Result>>,
}

impl Failure {
    /// Another attempt may do better.
    pub fn retryable(fault: Fault) -> Failure {
        Failure { fault, retryable: true, result: None }
    }

    /// Somebody has to do something first.
    pub fn lasting(fault: Fault) -> Failure {
        Failure { fault, retryable: false, result: None }
    }

    /// The same with what was found or done before.
    #[must_use]
    pub fn with_result(mut self, result: finished::Result) -> Failure {
        self.result = Some(Box::new(result));
        self
    }

    /// It was stopped.
    pub fn cancelled() -> Failure {
        Failure::lasting(Fault::new(ErrorCode::Cancelled, "the run was stopped"))
    }

    /// Whether it was stopped because somebody asked for it.
    pub fn is_cancelled(&self) -> bool {
        self.fault.code == ErrorCode::Cancelled
    }

    /// The disk of the archives is full.
    pub fn disk_full(what: impl Into<String>) -> Failure {
        let fault = Fault::new(ErrorCode::DiskFull, what);
        Failure::retryable(fault.with_hint("make room where the agent keeps its archives, or move that folder"))
    }

    /// Any error of reading or writing, with a full disk named as such.
    pub fn of_error(error: &(dyn std::error::Error + 'static)) -> Failure {
        if is_disk_full(error) {
            return Failure::disk_full(chain(error));
        }
        Failure::retryable(Fault::new(ErrorCode::Io, chain(error)))
    }

    /// An archive cannot be stored or found.
    pub fn of_store(error: &StoreError) -> Failure {
        let message = chain(error);
        match error {
            _ if error.is_disk_full() => Failure::disk_full(message),
            StoreError::Missing { .. } => Failure::lasting(Fault::new(ErrorCode::ArchiveMissing, message).with_hint(
                "bring the archive back under one of these names, or make its folder reachable from this host",
            )),
            StoreError::Replaced { .. } | StoreError::Damaged { .. } => {
                Failure::lasting(Fault::new(ErrorCode::ArchiveDamaged, message))
            }
            StoreError::Key { .. } => Failure::lasting(Fault::new(ErrorCode::InvalidArgument, message)),
            StoreError::Io { .. } | StoreError::File(_) => Failure::retryable(Fault::new(ErrorCode::Io, message)),
        }
    }
}

/// Whether a full disk is among the causes.
pub fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let mut cause = Some(error);
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<io::Error>();
        if io.is_some_and(full) || io.and_then(io::Error::get_ref).is_some_and(|inner| is_disk_full(inner)) {
            return true;
        }
        cause = inner.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_however_deep_it_lies() {
        let deep = io::Error::other(io::Error::from(io::ErrorKind::StorageFull));
        let failure = Failure::of_error(&deep);
        assert_eq!((failure.fault.code, failure.retryable), (ErrorCode::DiskFull, true));
        assert_eq!(Failure::of_error(&io::Error::other("x")).fault.code, ErrorCode::Io);
    }
}
