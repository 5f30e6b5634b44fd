//! What an operator or an agent hears when the catalog fails: an outage is said to be one, a defect is logged here and named by
//! its trace id only.

use coord_shared::fault::{ErrorCode, Fault};

use crate::catalog::CatalogError;

impl From<CatalogError> for Fault {
    fn from(error: CatalogError) -> Fault {
        match &error {
            CatalogError::Unavailable(_) => {
                tracing::debug!(cause = %chain(&error), "the catalog does not answer");
                Fault::new(ErrorCode::Unavailable, "the coordinator's database does not answer")
                    .with_hint("try again; the coordinator's log says more")
            }
            CatalogError::Indeterminate(_) => {
                tracing::debug!(cause = %chain(&error), "the catalog went away");
                Fault::new(ErrorCode::Unavailable, "the coordinator's database went away before it had answered")
                    .with_hint("what was asked for may be done already: look before you try again; the coordinator's log says more")
            }
            CatalogError::Contended(_) => {
                Fault::new(ErrorCode::Unavailable, "another change got in the way").with_hint("try again")
            }
            CatalogError::TookTooLong(_) => {
                tracing::warn!(cause = %chain(&error), "a statement took too long");
                Fault::new(ErrorCode::TimedOut, "the coordinator's database took too long to answer this").with_hint(
                    "ask for less (a folder, a host, a shorter time), or try again when the database has less to do",
                )
            }
            CatalogError::NotFound { .. } => Fault::new(ErrorCode::NotFound, error.to_string()),
            CatalogError::Taken { .. } => Fault::new(ErrorCode::NameTaken, error.to_string()),
            CatalogError::Changed { .. } => {
                Fault::new(ErrorCode::Changed, error.to_string()).with_hint("look at it again, and begin from there")
            }
            CatalogError::OutOfRange { .. } | CatalogError::BadEntry { .. } => {
                Fault::new(ErrorCode::InvalidArgument, error.to_string())
            }
            CatalogError::Unreadable { .. } | CatalogError::Json(_) | CatalogError::Refused(_) => {
                tracing::error!(cause = %chain(&error), "the catalog failed");
                Fault::new(ErrorCode::Internal, "the coordinator failed; its log says more")
            }
        }
    }
}

/// An error with its causes on one line, for logs.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
