//! Why a scan ends without a result. What goes wrong with a single name is a warning, not an error (see `notes`).

use std::io;
use std::path::PathBuf;

use coord_archive::block::BlockError;
use coord_archive::header::escape;
use coord_archive::reader::ReadError;
use coord_shared::fault::ErrorCode;

use super::selection::SelectionError;

/// Why there is no scan.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The selection makes no sense.
    #[error("the selection cannot be used")]
    Selection(#[source] SelectionError),
    /// The root cannot be opened.
    #[error("cannot open the root {}", path.display())]
    Root {
        /// The root.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A source does not exist. Nothing is taken for deleted.
    #[error("source /{} is missing", escape(path))]
    SourceMissing {
        /// The source, relative to the root.
        path: Vec<u8>,
    },
    /// A source lies on another file system than in the newest backup: perhaps it is not mounted.
    #[error(
        "source /{} lies on another file system ({now}) than in the newest backup ({before}); \
         mount it, or ask for a full backup if this is meant",
        escape(path)
    )]
    SourceMoved {
        /// The source, relative to the root.
        path: Vec<u8>,
        /// Kind and identity in the newest backup.
        before: String,
        /// Kind and identity now.
        now: String,
    },
    /// A source itself cannot be looked at or listed.
    #[error("source /{} cannot be read", escape(path))]
    SourceUnreadable {
        /// The source, or the folder on the way to it, relative to the root.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An index that the scan compares with cannot be read.
    #[error("cannot read the index of {which}")]
    Index {
        /// Which archive.
        which: &'static str,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// The temporary list of changes, or the identity cache, cannot be written or read back.
    #[error("cannot use a temporary file in {}", folder.display())]
    Spool {
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The temporary list of changes reads back as something else.
    #[error("the temporary list of changes is damaged")]
    SpoolDamaged(#[source] Option<BlockError>),
    /// Somebody asked to stop.
    #[error("the scan was cancelled")]
    Cancelled,
}

impl ScanError {
    /// What to do about it; empty where only the message helps.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Root { .. } => "name a folder that is there and can be opened",
            Self::SourceMissing { .. } => {
                "bring it back, or mount it; if it is meant to be gone, take it out of the policy"
            }
            Self::SourceMoved { .. } => "if this is meant, ask for a full: coordctl job run HOST/POLICY --level full",
            Self::SourceUnreadable { .. } => "run the agent as a user who may read it, as a rule as root",
            Self::Index { source, .. } if source.is_damage() => {
                "ask for a full: coordctl job run HOST/POLICY --level full"
            }
            Self::Selection(_) | Self::Index { .. } | Self::Spool { .. } | Self::SpoolDamaged(_) | Self::Cancelled => {
                ""
            }
        }
    }

    /// The stable word for it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Selection(_) => ErrorCode::InvalidArgument,
            Self::Root { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorCode::SourceMissing,
            Self::Root { .. } | Self::SourceUnreadable { .. } => ErrorCode::SourceUnreadable,
            Self::SourceMissing { .. } => ErrorCode::SourceMissing,
            Self::SourceMoved { .. } => ErrorCode::SourceMoved,
            Self::Index { source, .. } if source.is_damage() => ErrorCode::ArchiveDamaged,
            Self::Spool { source, .. } if source.kind() == io::ErrorKind::StorageFull => ErrorCode::DiskFull,
            Self::Index { .. } | Self::Spool { .. } => ErrorCode::Io,
            Self::SpoolDamaged(_) => ErrorCode::Internal,
            Self::Cancelled => ErrorCode::Cancelled,
        }
    }
}
