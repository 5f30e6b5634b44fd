//! What can go wrong with the catalog. The first question is whether the effect surely did not happen, or may have: only the former
//! is retried blindly.

use tokio_postgres::error::SqlState;

/// Result of a catalog function.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// Why a catalog function did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The database cannot be reached or is too busy. Nothing was written: trying again is safe.
    #[error("the catalog's database does not answer: is Postgres running?")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke while a write was on its way: it may have happened. Read before writing again.
    #[error("the connection to the catalog's database broke: the last write may or may not have happened")]
    Indeterminate(#[source] tokio_postgres::Error),
    /// Two transactions got in each other's way; this one was undone. Trying again is safe.
    #[error("another transaction got in the way")]
    Contended(#[source] tokio_postgres::Error),
    /// A statement was stopped because it took longer than it may. Nothing was written.
    #[error("the catalog's database took longer for a statement than it may")]
    TookTooLong(#[source] tokio_postgres::Error),
    /// There is no such thing.
    #[error("there is no {what} {name}")]
    NotFound {
        /// Word for the thing: host, run, backup.
        what: &'static str,
        /// The id or name that was looked for.
        name: String,
    },
    /// A name, key or number is taken.
    #[error("{what} is taken")]
    Taken {
        /// What is taken, in words.
        what: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
    /// It was changed since its caller looked. Nothing was written.
    #[error("{what} {name} was changed meanwhile: it is version {version}, no longer {expected}")]
    Changed {
        /// Word for the thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// What it is.
        version: u64,
        /// What the caller saw.
        expected: u64,
    },
    /// A number does not fit into its column.
    #[error("{what} is out of range")]
    OutOfRange {
        /// Which number.
        what: &'static str,
    },
    /// What an index says cannot be an entry.
    #[error("an entry of the index cannot be stored: {why}")]
    BadEntry {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A row does not read as what it should be: a defect, or another version's row.
    #[error("column {column} of the catalog does not read")]
    Unreadable {
        /// The column.
        column: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A value cannot be turned into JSON.
    #[error("a value cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// The database refused a statement: a defect.
    #[error("the catalog's database refused a statement")]
    Refused(#[source] tokio_postgres::Error),
}

impl CatalogError {
    /// Whether the effect surely did not happen and may happen when tried again.
    pub const fn is_retryable(&self) -> bool {
        match self {
            CatalogError::Unavailable(_) | CatalogError::Contended(_) | CatalogError::TookTooLong(_) => true,
            CatalogError::Indeterminate(_)
            | CatalogError::NotFound { .. }
            | CatalogError::Taken { .. }
            | CatalogError::Changed { .. }
            | CatalogError::OutOfRange { .. }
            | CatalogError::BadEntry { .. }
            | CatalogError::Unreadable { .. }
            | CatalogError::Json(_)
            | CatalogError::Refused(_) => false,
        }
    }

    /// Whether the server answers and does not let us in: it does not know the user or the database, or the password is wrong. Waiting helps
    /// only where somebody is setting the server up.
    pub fn is_refused_login(&self) -> bool {
        let CatalogError::Unavailable(cause) = self else { return false };
        let code = cause.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
        code.is_some_and(|code| matches!(code.code().get(..2), Some("28" | "3D")))
    }

    pub(super) fn not_found(what: &'static str, name: impl std::fmt::Display) -> CatalogError {
        CatalogError::NotFound { what, name: name.to_string() }
    }

    /// An error of a statement whose effect is undone unless it is followed by a commit, or that only reads.
    pub(super) fn undone(error: tokio_postgres::Error) -> CatalogError {
        let Some(code) = error.code() else {
            return CatalogError::Unavailable(Box::new(error));
        };
        match code {
            code if *code == SqlState::T_R_SERIALIZATION_FAILURE
                || *code == SqlState::T_R_DEADLOCK_DETECTED
                || *code == SqlState::LOCK_NOT_AVAILABLE =>
            {
                CatalogError::Contended(error)
            }
            code if *code == SqlState::QUERY_CANCELED => CatalogError::TookTooLong(error),
            code if *code == SqlState::UNIQUE_VIOLATION => CatalogError::Taken { what: taken(&error), source: error },
            code if is_outage(code) => CatalogError::Unavailable(Box::new(error)),
            _ => CatalogError::Refused(error),
        }
    }

    /// An error of a statement that commits by itself, or of a commit.
    pub(super) fn maybe_done(error: tokio_postgres::Error) -> CatalogError {
        // An answer of the server says that the statement failed; no answer says nothing.
        match error.code() {
            None => CatalogError::Indeterminate(error),
            Some(code) if *code == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN => CatalogError::Indeterminate(error),
            Some(_) => CatalogError::undone(error),
        }
    }
}

/// The server is going down, full, not up yet, or a standby by now.
fn is_outage(code: &SqlState) -> bool {
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return true;
    }
    let class = code.code().get(..2).unwrap_or_default();
    matches!(class, "08" | "53" | "57" | "58")
}

/// The thing behind a unique constraint, in words.
fn taken(error: &tokio_postgres::Error) -> &'static str {
    match error.as_db_error().and_then(tokio_postgres::error::DbError::constraint) {
        Some("hosts_name_key") => "the host's name",
        Some("policies_name_key") => "the policy's name",
        Some("runs_one_open_backup") => "the job's place for an open backup run",
        Some("runs_job_kind_due_at_key") => "the job's run at that instant",
        Some("backups_job_ordinal_key" | "backups_job_seq_key") => "the backup's ordinal",
        Some("backups_backup_id_key") => "the backup's id",
        Some("certificates_subject_kind_subject_id_generation_key") => "the certificate's generation",
        Some("certificates_subject_kind_subject_id_public_key_sha256_key") => "the certificate's key",
        _ => "a key",
    }
}
