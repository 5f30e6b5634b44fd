//! The part of a backup run that writes: name, header, content, seal.

use std::path::Path;
use std::time::{Duration, Instant};

use coord_archive::codec::Codec;
use coord_archive::file::{FileError, SealedFile};
use coord_archive::header::{Base, Header, Level as ArchiveLevel, Named};
use coord_archive::pack::{self, PackError, PackOptions, PackReport, Reason, Sink, Timings};
use coord_archive::reader::ArchiveReader;
use coord_shared::api;
use coord_shared::failpoint;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::level::Level;
use uuid::Uuid;

use super::archive::of_read;
use super::backup::{Backup, invalid, milliseconds, of_scan};
use super::{Failure, notes};
use crate::scan::{Comparison, Scan, ScanError};
use crate::store::ArchiveName;

/// What is packed.
pub(super) struct Parts<'a> {
    /// The tree.
    pub(super) scan: &'a Scan,
    /// Full or differential.
    pub(super) level: Level,
    /// Of a differential: its base, and what differs.
    pub(super) changes: Option<(&'a ArchiveReader, &'a Comparison)>,
}

/// A sealed archive, not verified yet.
pub(super) struct Packed {
    /// As it is reported.
    pub(super) sealed: api::Sealed,
    /// Warnings of scan and packer.
    pub(super) notes: Vec<api::PathNote>,
    /// How many warnings there were.
    pub(super) warnings: u64,
}

/// Packs and seals. After an error there is no archive.
pub(super) fn pack(backup: &Backup<'_>, parts: &Parts<'_>) -> Result<Packed, Failure> {
    let context = backup.context;
    let (codec, level) = compression(backup.task, parts.level)?;
    let ordinal = context.next_ordinal(&backup.task.policy_id, backup.task.ordinal_floor)?;
    let header = header(backup, parts, ordinal)?;
    let name = ArchiveName {
        host: &backup.task.host_name,
        policy: &backup.task.policy_name,
        at: backup.started_at,
        level: header.level,
        run: &context.key.run_id,
        attempt: context.key.attempt,
        codec,
    };
    let key = name.key();
    let scan_ms = u64::try_from(context.clock.now().duration_since(backup.started_at).as_millis()).unwrap_or(0);
    let mut file = backup.work.store.create(&key).map_err(|error| Failure::of_store(&error))?;
    failpoint::reach("agent.pack.begun");
    let (files, bytes) =
        parts.changes.map_or((0, 0), |(_, found)| (found.figures.changed_files, found.figures.changed_bytes));
    context.control.enter(api::Phase::Packing, files, bytes);
    let options = PackOptions { level, threads: backup.work.threads, ..PackOptions::new(codec) };
    let began = Instant::now();
    let report = write(parts, header, &options, Sink { out: &mut file, progress: context.control.as_ref() })?;
    let pack_time = began.elapsed();
    context.check_stop()?;
    context.control.enter(api::Phase::Sealing, 0, 0);
    let began = Instant::now();
    failpoint::reach("agent.pack.done");
    let path = seal(file)?;
    failpoint::reach("agent.seal.done");
    let times = Times { scan_ms, pack: pack_time, seal: began.elapsed() };
    let sealed = sealed(backup, parts, &report, Facts { key, codec, ordinal, path: &path, times })?;
    let found = parts.scan.notes();
    let mut all = notes::of_scan(&found);
    all.extend(notes::of_pack(&report.warnings));
    Ok(Packed { sealed, notes: all, warnings: found.warning_count + report.warning_count })
}

fn compression(task: &api::BackupTask, level: Level) -> Result<(Codec, i32), Failure> {
    let raised = level == Level::Full && task.level() == api::Level::Differential;
    let wanted = if raised { task.full_compression.or(task.compression) } else { task.compression };
    let Some(wanted) = wanted else { return Ok((Codec::Zstd, Codec::Zstd.default_level())) };
    let codec = match wanted.codec() {
        api::Codec::Zstd => Codec::Zstd,
        api::Codec::Gzip => Codec::Gzip,
        api::Codec::Unspecified => return Err(invalid("the order names a codec that this agent does not know")),
    };
    Ok((codec, if wanted.level == 0 { codec.default_level() } else { wanted.level }))
}

fn header(backup: &Backup<'_>, parts: &Parts<'_>, ordinal: u64) -> Result<Header, Failure> {
    let (task, key) = (backup.task, &backup.context.key);
    let level = match parts.level {
        Level::Full => ArchiveLevel::Full,
        Level::Differential => ArchiveLevel::Differential,
    };
    let id = |text: &str, what: &str| Uuid::try_parse(text).map_err(|_| invalid(&format!("the order names no {what}")));
    let mut header = Header::new(level, b"", backup.started_at);
    let base = parts.changes.map(|(base, _)| base);
    parts.scan.describe(&mut header, base).map_err(|error| of_scan(&error))?;
    // A fleet has a name and no id.
    header.fleet = Some(Named { id: Uuid::nil(), name: task.fleet.clone() });
    header.host = Some(Named { id: id(&backup.work.host_id, "host")?, name: task.host_name.clone() });
    header.policy = Some(Named { id: id(&task.policy_id, "policy")?, name: task.policy_name.clone() });
    header.policy_version = task.policy_version;
    header.run = Some(id(&key.run_id, "run")?);
    header.attempt = key.attempt;
    header.ordinal = ordinal;
    header.clock_offset_ms = backup.offset_us / 1000;
    header.base = base.map(|base| Base {
        archive_digest: base.footer().archive_digest,
        name: task.base.as_ref().map(|location| file_name(&location.key)).unwrap_or_default(),
        run: base.header().run,
        ordinal: base.header().ordinal,
    });
    Ok(header)
}

fn file_name(key: &str) -> String {
    key.rsplit('/').next().unwrap_or(key).to_owned()
}

fn write(parts: &Parts<'_>, header: Header, options: &PackOptions, sink: Sink<'_>) -> Result<PackReport, Failure> {
    let contents = parts.scan.contents(parts.changes.map(|(base, _)| base));
    let packed = match parts.changes {
        None => pack::pack(parts.scan.full(), &contents, header, options, sink),
        Some((_, comparison)) => pack::pack(comparison.changes.steps(), &contents, header, options, sink),
    };
    packed.map_err(|error| of_pack(&error))
}

fn of_pack(error: &PackError<ScanError>) -> Failure {
    match error {
        PackError::Steps(scan) => of_scan(scan),
        PackError::Cancelled => Failure::cancelled(),
        PackError::Sink(_) | PackError::Spool(_) => Failure::of_error(error),
        PackError::Codec(_) => Failure::lasting(Fault::new(ErrorCode::InvalidArgument, crate::chain::chain(error))),
        PackError::Contract { .. } => Failure::lasting(Fault::new(ErrorCode::Internal, crate::chain::chain(error))),
    }
}

fn seal(file: SealedFile) -> Result<std::path::PathBuf, Failure> {
    file.seal().map_err(|error| match &error {
        FileError::Io { .. } => Failure::of_error(&error),
        FileError::Exists { .. } | FileError::NotAName { .. } => {
            Failure::retryable(Fault::new(ErrorCode::AlreadyExists, error.to_string()))
        }
    })
}

struct Times {
    scan_ms: u64,
    pack: Duration,
    seal: Duration,
}

struct Facts<'a> {
    key: String,
    codec: Codec,
    ordinal: u64,
    path: &'a Path,
    times: Times,
}

fn sealed(
    backup: &Backup<'_>,
    parts: &Parts<'_>,
    report: &PackReport,
    facts: Facts<'_>,
) -> Result<api::Sealed, Failure> {
    let (task, found) = (backup.task, parts.scan.notes());
    let reader = ArchiveReader::open_path(facts.path).map_err(|error| of_read(&facts.key, &error))?;
    let unread = |reason: &Reason| matches!(reason, Reason::Unreadable(_) | Reason::TooLarge);
    let unreadable = report.warnings.iter().filter(|warning| unread(&warning.reason)).count() as u64;
    let codec = match facts.codec {
        Codec::Zstd => api::Codec::Zstd,
        Codec::Gzip => api::Codec::Gzip,
    };
    let figures = parts.changes.map(|(_, comparison)| comparison.figures);
    let base = task.base.as_ref().filter(|_| parts.changes.is_some());
    let location = api::ArchiveLocation {
        folder: std::os::unix::ffi::OsStrExt::as_bytes(backup.work.store.folder().as_os_str()).to_vec(),
        key: facts.key,
        archive_digest: report.footer.archive_digest.0.to_vec(),
        stored_bytes: report.footer.stored_bytes,
        backup_id: task.backup_id.clone(),
        level: parts.level.to_api().into(),
        codec: codec.into(),
    };
    Ok(api::Sealed {
        level: location.level,
        location: Some(location),
        ordinal: facts.ordinal,
        backup_id: task.backup_id.clone(),
        base_backup_id: base.map(|base| base.backup_id.clone()).unwrap_or_default(),
        selection_digest: reader.header().selection.0.to_vec(),
        started_at_us: backup.corrected_us(backup.started_at),
        captured_at_us: backup.corrected_us(report.captured_at),
        clock_offset_us: backup.offset_us,
        entries: report.footer.entries,
        files: report.footer.files,
        content_bytes: report.footer.bytes,
        source_files: found.source_files,
        source_bytes: found.source_bytes,
        changed_files: figures.map_or(report.files, |figures| figures.changed_files),
        changed_bytes: figures.map_or(report.bytes, |figures| figures.changed_bytes),
        removed: figures.map_or(0, |figures| figures.removed),
        index_blocks: reader.block_count() as u64,
        unreadable: found.warning_count + unreadable,
        changed_while_read: report.changed_while_read,
        scan_ms: facts.times.scan_ms,
        pack_ms: milliseconds(facts.times.pack),
        seal_ms: milliseconds(facts.times.seal),
        effort: Some(effort(&report.timings)),
        left_out: notes::left_out(&found),
        // Said by who asked for the archive.
        level_reason: String::new(),
    })
}

fn effort(timings: &Timings) -> api::Effort {
    let us = |ns: u64| ns / 1000;
    api::Effort {
        threads: timings.threads,
        scan_us: us(timings.steps),
        read_us: us(timings.read),
        hash_us: us(timings.hash),
        compress_us: us(timings.compress),
        write_us: us(timings.write),
        wait_us: us(timings.wait),
    }
}
