//! The catalog: the only place with SQL. The truth about intent and runs, and a rebuildable cache of sealed indexes.
//!
//! Invariants: time is the database's `now()`; every write of a run is guarded by run, state and attempt; no transaction outlives
//! one function; what may grow is paged or bounded. Not here: rules (they are in `domain` and in `coord_shared::run`), and what to
//! do about an outcome (that is for `app`).

mod audit;
mod backups;
mod beats;
mod certificates;
mod changes;
mod claims;
mod commit;
mod contents;
mod coordinators;
mod decisions;
mod due;
mod duplicates;
mod entries;
mod error;
mod fleet;
mod folder_keys;
mod full_plan;
mod health;
mod history;
mod hosts;
mod index_asks;
mod ingest;
mod jobs;
mod labels;
mod lapses;
mod leases;
mod left_out;
mod limits;
mod listing;
mod measures;
mod merge;
mod migrate;
mod newest_chains;
mod operators;
mod owing;
mod pauses;
mod placing;
mod plans;
mod policies;
mod policy_defaults;
mod pool;
mod recorded;
mod records;
mod reports;
mod revocation;
mod row;
mod run_events;
mod run_history;
mod run_keys;
mod run_policies;
mod runs;
mod schedule;
mod sessions;
mod short_digest;
mod staged;
mod tokens;
mod walk;
mod words;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(crate) mod testing;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests;

pub use audit::{AuditRecord, NewAudit};
pub use backups::{Backup, BackupFilter, BackupStatus, Codec, Searchable};
pub use beats::{Beaten, HostBeat};
pub use certificates::{CertificateRecord, CertificateState, NewCertificate, OlderGenerations};
pub use changes::ChangedFolders;
pub use claims::{Claimed, HeldRuns};
pub use commit::{Commit, Committed, Left, SealedBackup, UnchangedBackup};
pub use contents::{ContentsFilter, ContentsSize, JobContents};
pub use coordinators::{Beat, CoordinatorRecord, Standing};
pub use decisions::{DecisionRecord, DecisionStage, NewDecision};
pub use duplicates::{Duplication, HostDuplication};
pub use entries::{FileVersion, VersionKind};
pub use error::{CatalogError, Result};
pub use fleet::Fleet;
pub use full_plan::{LevelledRecord, NewPlannedFull};
pub use health::{EndedRun, FleetFigures, JobHealth};
pub use history::{DigestHit, MAX_HISTORY, PathVersion};
pub use hosts::{Host, HostFacts, HostState, NewHost};
pub use index_asks::IndexAsked;
pub use ingest::{Block, BlockOutcome, IndexIntake, IndexProgress, MAX_BLOCK_ENTRIES, ReadyBlock};
pub use jobs::{Job, JobFilter, JobStanding, JobState};
pub use labels::{Relabelled, Relabelling};
pub use lapses::Lapsed;
pub use leases::{HeartbeatOutcome, Reaped, RunBeat};
pub use left_out::LeftOutRecord;
pub use limits::{LimitRecord, LimitScope};
pub use listing::{FolderPage, SubtreeTotals};
pub use measures::{GoodPoint, JobMeasures, MeasureFilter};
pub use merge::MergeOutcome;
pub use migrate::{MigrateError, SCHEMA_VERSION, Schema};
pub use newest_chains::NewestChain;
pub use operators::{OperatorEntry, OperatorRecord, OperatorRole};
pub use owing::{MadeUp, Owed};
pub use pauses::{PauseRecord, PauseScope, PauseSet};
pub use plans::Planned;
pub use policies::{
    AppliedPolicy, NewPolicyVersion, PoliciesApplied, PolicyChange, PolicyRecord, SeenPolicies, VersionOrigin,
};
pub use policy_defaults::{DefaultsRecord, NewDefaults};
#[cfg(test)]
pub(crate) use pool::STATEMENTS_PUT;
pub use pool::{Catalog, CatalogConfig, ConfigError};
pub use recorded::RecordedRun;
pub use records::{CheckRecord, FaultRecord, FromPlanRecord, NoteRecord, PhaseWord, ProgressRecord};
pub use reports::{CheckedArchive, ReportOutcome, ReportedEvent, RunReport};
pub use revocation::Revoked;
pub use run_events::{RunEvent, RunEventKind};
pub use run_history::Forgotten;
pub use run_keys::Asked;
pub use run_policies::RunPolicy;
pub use runs::{AskedRun, AttemptOutcome, AttemptRecord, RunFilter, RunRecord, Transition};
pub use schedule::{DueRun, PassedOver, ScheduleOutcome, ScheduleStep};
pub use sessions::{HostSession, OpenSession, OpenedSession};
pub use short_digest::ShortDigest;
pub use tokens::{JoinOutcome, MADE_LOCALLY, NewToken, Redemption, TokenKind, TokenRecord, TokenState};
pub use walk::SubtreeWalk;
pub use words::UnknownWord;
