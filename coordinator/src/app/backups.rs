//! Restore points as operators see them.

use coord_shared::api;
use coord_shared::fault::Fault;
use coord_shared::wire::{from_us, to_us};

use super::{App, hosts, names};
use crate::catalog::{Backup, BackupFilter, BackupStatus, CheckRecord, Codec, Searchable};

/// Restore points answered when no number is asked for.
const DEFAULT_LIMIT: u32 = 100;

/// Restore points, newest first.
///
/// # Errors
/// `not_found` for a host or policy that does not exist.
pub async fn list(app: &App, request: &api::ListBackupsRequest) -> Result<api::BackupList, Fault> {
    let mut filter = BackupFilter {
        since: from_us(request.since_us),
        until: from_us(request.until_us),
        limit: if request.limit == 0 { DEFAULT_LIMIT } else { request.limit },
        ..BackupFilter::default()
    };
    if !request.host.is_empty() {
        filter.host = Some(names::host(app, &request.host).await?.id);
    }
    filter.hosts = hosts::selected(app, &request.selector).await?;
    if !request.policy.is_empty() {
        filter.policy = Some(names::policy(app, &request.policy).await?.id);
    }
    let backups = app.catalog.backups(filter).await?;
    Ok(api::BackupList { backups: backups.iter().map(encode).collect() })
}

/// One restore point.
///
/// # Errors
/// `not_found`, or `ambiguous` with the candidates.
pub async fn show(app: &App, text: &str) -> Result<api::Backup, Fault> {
    Ok(encode(&names::backup(app, text).await?))
}

/// Where a backup's archive is. A restore point without an archive of its own names that of another.
pub fn location(backup: &Backup) -> api::ArchiveLocation {
    api::ArchiveLocation {
        folder: backup.location_folder.clone(),
        key: backup.location_key.clone(),
        archive_digest: backup.archive_digest.0.to_vec(),
        stored_bytes: backup.stored_bytes,
        backup_id: backup.same_as.unwrap_or(backup.id).to_string(),
        level: backup.level.to_api().into(),
        codec: codec(backup.codec).into(),
    }
}

const fn codec(codec: Codec) -> api::Codec {
    match codec {
        Codec::Zstd => api::Codec::Zstd,
        Codec::Gzip => api::Codec::Gzip,
    }
}

/// Whether an archive was found damaged.
pub const fn is_damaged(backup: &Backup) -> bool {
    match backup.status {
        BackupStatus::Damaged => true,
        BackupStatus::Protected => false,
    }
}

/// Checks on the wire.
pub fn checks(records: &[CheckRecord]) -> Vec<api::Check> {
    let check = |record: &CheckRecord| api::Check {
        name: record.name.clone(),
        passed: record.passed,
        detail: record.detail.clone(),
    };
    records.iter().map(check).collect()
}

/// A restore point on the wire. One without an archive of its own has stored nothing.
pub fn encode(backup: &Backup) -> api::Backup {
    let own = backup.same_as.is_none();
    api::Backup {
        id: backup.id.to_string(),
        host: backup.host_name.clone(),
        policy: backup.policy_name.clone(),
        level: backup.level.to_api().into(),
        base_id: backup.base.map(|id| id.to_string()).unwrap_or_default(),
        started_at_us: to_us(backup.started_at),
        captured_at_us: to_us(backup.captured_at),
        files: if own { backup.files } else { 0 },
        source_bytes: backup.source_bytes,
        content_bytes: if own { backup.content_bytes } else { 0 },
        stored_bytes: if own { backup.stored_bytes } else { 0 },
        archive_digest: backup.archive_digest.0.to_vec(),
        location: Some(location(backup)),
        status: backup.status.as_str().to_owned(),
        searchable: backup.searchable == Searchable::Searchable,
        searchable_reason: backup.searchable_reason.clone(),
        same_as: backup.same_as.map(|id| id.to_string()).unwrap_or_default(),
        checks: checks(&backup.checks),
        run_id: backup.run.to_string(),
        ordinal: backup.ordinal.get(),
        unreadable: backup.unreadable,
        changed_while_read: backup.changed_while_read,
        codec: codec(backup.codec).into(),
    }
}
