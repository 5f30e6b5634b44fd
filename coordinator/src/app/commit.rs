//! The commit of a backup: what the final report says becomes a restore point in one transaction with the run's success.

use coord_archive::digest::Digest;
use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{BackupId, HostId, Ordinal, SessionNumber};
use coord_shared::left_out::LeftOutBy;
use coord_shared::level::Level;
use coord_shared::wire::{MAX_LEFT_OUT_RULES, from_us};
use jiff::Timestamp;

use super::App;
use super::report::{Place, Refusal, bounded, checks};
use crate::catalog::{CatalogError, Codec, Commit, Committed, Left, LeftOutRecord, SealedBackup, UnchangedBackup};
use crate::domain::bottleneck::Effort;

/// Longest name of an archive below its folder, and longest folder, in bytes.
const MAX_LOCATION_BYTES: usize = 4096;

/// Who commits what.
#[derive(Debug, Clone, Copy)]
pub struct Committing {
    /// The host, by its certificate.
    pub host: HostId,
    /// Its session.
    pub session: SessionNumber,
    /// Which report of which attempt.
    pub place: Place,
    /// Notes in all.
    pub warnings_total: u64,
}

/// What both kinds of restore points say.
struct Point {
    backup: BackupId,
    ordinal: u64,
    started_at: Timestamp,
    captured_at: Timestamp,
    clock_offset_us: i64,
    left: Left,
    left_out: Vec<LeftOutRecord>,
    level_reason: String,
}

/// Commits. `Ok(Ok(Some(id)))`: committed, now or before, with an archive whose index is wanted. The outer error is transient or
/// a message that makes no sense.
pub async fn commit(
    app: &App,
    committing: Committing,
    result: api::BackupResult,
) -> Result<Result<Option<BackupId>, Refusal>, Fault> {
    let point = match (result.sealed, result.unchanged) {
        (Some(sealed), None) => sealed_point(sealed)?,
        (None, Some(unchanged)) => unchanged_point(&unchanged)?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(invalid("a backup is either sealed or unchanged"));
        }
    };
    let own_archive = matches!(point.left, Left::Sealed(_)).then_some(point.backup);
    if own_archive.is_some() && result.checks.is_empty() {
        let fault = Fault::new(ErrorCode::InvalidArgument, "the host sealed an archive and did not check it");
        return Ok(Err(Refusal::Conflict(fault.with_hint("upgrade the host's agent"))));
    }
    let commit = Commit {
        host: committing.host,
        session: committing.session,
        run: committing.place.run,
        attempt: committing.place.attempt,
        sequence: committing.place.sequence,
        backup: point.backup,
        ordinal: Ordinal(point.ordinal),
        started_at: point.started_at,
        captured_at: point.captured_at,
        clock_offset_us: point.clock_offset_us,
        left: point.left,
        checks: checks(&result.checks),
        verify_ms: result.verify_ms,
        warnings_total: committing.warnings_total,
        left_out: point.left_out,
        level_reason: Some(point.level_reason).filter(|reason| !reason.is_empty()),
    };
    let (run, backup) = (commit.run, commit.backup);
    match app.catalog.commit_backup(&commit).await {
        Ok(Committed::Committed(seq)) => {
            tracing::info!(%run, %backup, %seq, "protected");
            app.nudges.full_planner.notify_one();
            Ok(Ok(own_archive))
        }
        Ok(Committed::AlreadyThere(_)) => Ok(Ok(own_archive)),
        Ok(Committed::Refused(illegal)) => Ok(Err(Refusal::Illegal(illegal))),
        Ok(Committed::OtherBackup(other)) => {
            let message = format!("run {} succeeded with backup {} before", run.short(), other.short());
            Ok(Err(Refusal::Conflict(Fault::new(ErrorCode::StaleAttempt, message))))
        }
        Err(error @ (CatalogError::NotFound { .. } | CatalogError::Taken { .. } | CatalogError::OutOfRange { .. })) => {
            Ok(Err(Refusal::Conflict(error.into())))
        }
        Err(error) => Err(error.into()),
    }
}

fn invalid(what: &str) -> Fault {
    Fault::new(ErrorCode::InvalidArgument, format!("the final report cannot be used: {what}"))
}

fn id(text: &str) -> Result<BackupId, Fault> {
    text.parse().map_err(|_| invalid("an id is no UUID"))
}

fn instant(us: i64) -> Result<Timestamp, Fault> {
    from_us(us).ok_or_else(|| invalid("a time is missing"))
}

fn sealed_point(sealed: api::Sealed) -> Result<Point, Fault> {
    let level = Level::from_api(sealed.level()).ok_or_else(|| invalid("no level"))?;
    let location = sealed.location.ok_or_else(|| invalid("no location"))?;
    if location.folder.len() > MAX_LOCATION_BYTES || location.key.len() > MAX_LOCATION_BYTES || !is_plain(&location.key)
    {
        return Err(invalid("the archive's name is no plain relative path"));
    }
    let codec = match location.codec() {
        api::Codec::Zstd => Codec::Zstd,
        api::Codec::Gzip => Codec::Gzip,
        api::Codec::Unspecified => return Err(invalid("no codec")),
    };
    let digest = location.archive_digest.try_into().map_err(|_| invalid("the archive's digest has not 32 bytes"))?;
    let base = match level {
        Level::Full => None,
        Level::Differential => Some(id(&sealed.base_backup_id)?),
    };
    let left_out = left_out(&sealed.left_out);
    let level_reason = bounded(&sealed.level_reason);
    let left = SealedBackup {
        level,
        base,
        location_folder: location.folder,
        location_key: location.key,
        archive_digest: Digest(digest),
        stored_bytes: location.stored_bytes,
        codec,
        selection_digest: sealed.selection_digest,
        entries: sealed.entries,
        files: sealed.files,
        content_bytes: sealed.content_bytes,
        source_files: sealed.source_files,
        source_bytes: sealed.source_bytes,
        changed_files: sealed.changed_files,
        changed_bytes: sealed.changed_bytes,
        removed: sealed.removed,
        index_blocks: sealed.index_blocks,
        unreadable: sealed.unreadable,
        changed_while_read: sealed.changed_while_read,
        scan_ms: sealed.scan_ms,
        pack_ms: sealed.pack_ms,
        seal_ms: sealed.seal_ms,
        effort: sealed.effort.map(effort),
    };
    Ok(Point {
        backup: id(&sealed.backup_id)?,
        ordinal: sealed.ordinal,
        started_at: instant(sealed.started_at_us)?,
        captured_at: instant(sealed.captured_at_us)?,
        clock_offset_us: sealed.clock_offset_us,
        left: Left::Sealed(Box::new(left)),
        left_out,
        level_reason,
    })
}

fn effort(said: api::Effort) -> Effort {
    let api::Effort { threads, scan_us, read_us, hash_us, compress_us, write_us, wait_us } = said;
    Effort { threads, scan_us, read_us, hash_us, compress_us, write_us, wait_us }
}

fn unchanged_point(unchanged: &api::Unchanged) -> Result<Point, Fault> {
    Ok(Point {
        backup: id(&unchanged.backup_id)?,
        ordinal: unchanged.ordinal,
        started_at: instant(unchanged.started_at_us)?,
        captured_at: instant(unchanged.captured_at_us)?,
        clock_offset_us: unchanged.clock_offset_us,
        left: Left::Unchanged(UnchangedBackup {
            newest: id(&unchanged.newest_backup_id)?,
            source_files: unchanged.source_files,
            source_bytes: unchanged.source_bytes,
            scan_ms: unchanged.scan_ms,
        }),
        left_out: left_out(&unchanged.left_out),
        level_reason: bounded(&unchanged.level_reason),
    })
}

/// What an agent says that it left out. A rule of a later version is not counted.
fn left_out(said: &[api::LeftOut]) -> Vec<LeftOutRecord> {
    let record = |said: &api::LeftOut| {
        let detail = bounded(&said.text);
        let (files, folders, bytes) = (said.files, said.folders, said.bytes);
        Some(LeftOutRecord { by: LeftOutBy::from_api(said.by())?, detail, files, folders, bytes })
    };
    said.iter().take(MAX_LEFT_OUT_RULES).filter_map(record).collect()
}

/// Whether a key stays below the archive folder when a reader joins it.
fn is_plain(key: &str) -> bool {
    !key.contains('\0') && key.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}
