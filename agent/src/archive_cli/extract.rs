//! `archive extract`.

use std::os::fd::OwnedFd;
use std::path::Path;

use coord_archive::overlay::Origin;
use coord_archive::reader::ArchiveReader;
use coord_archive::unpack::{Listing, Overwrite, Selection, UnpackError, UnpackOptions, UnpackReport, unpack};
use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};
use indicatif::{HumanBytes, HumanCount};
use rustix::fs::{Mode, OFlags};

use super::watch::Watch;
use super::{ExtractArgs, archive_path, open, read_fault, warn};
use crate::chain::chain;

pub(super) fn extract(args: &ExtractArgs) -> Result<Exit, Fault> {
    let full = open(&args.archive)?;
    let differential = args.differential.as_deref().map(open).transpose()?;
    note_rebuilt(&args.archive, &full);
    if let Some((path, differential)) = args.differential.as_deref().zip(differential.as_ref()) {
        note_rebuilt(path, differential);
    }
    let paths = args.path.iter().map(archive_path);
    let selection =
        Selection::of_paths(paths).map_err(|error| Fault::new(ErrorCode::InvalidArgument, chain(&error)))?;
    let target = open_target(args)?;
    let overwrite = if args.overwrite { Overwrite::IfChanged } else { Overwrite::Never };
    let options = UnpackOptions { selection, overwrite, threads: args.threads, ..UnpackOptions::default() };
    let watch = Watch::begin("restoring", args.quiet);
    let report = unpack(&full, differential.as_ref(), target, &options, &watch).map_err(|error| fault(args, &error))?;
    let counts = &report.counts;
    let names = counts.files + counts.folders + counts.symlinks + counts.specials + counts.links;
    watch.finish(&format!(
        "{} names restored, {} of files, {} digests checked; {} were there and equal",
        HumanCount(names),
        HumanBytes(counts.bytes),
        HumanCount(counts.digests_verified),
        HumanCount(counts.equal),
    ));
    Ok(tell(&report))
}

/// Opens the target, making its last folder if need be.
fn open_target(args: &ExtractArgs) -> Result<OwnedFd, Fault> {
    let failed = |error: std::io::Error| {
        Fault::new(ErrorCode::TargetUnusable, format!("cannot restore into {}: {error}", args.target.display()))
    };
    match std::fs::create_dir(&args.target) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&args.target, flags, Mode::empty()).map_err(|error| failed(error.into()))
}

fn fault(args: &ExtractArgs, error: &UnpackError) -> Fault {
    let message = chain(error);
    match error {
        UnpackError::WrongBase { needed, .. } => Fault::new(ErrorCode::InvalidArgument, message)
            .with_hint(format!("coord-agent archive extract {needed} DIFFERENTIAL --target DIR")),
        UnpackError::WrongLevel(_) => {
            Fault::new(ErrorCode::InvalidArgument, message).with_hint("name the full first, then its differential")
        }
        UnpackError::NothingThere { .. } => Fault::new(ErrorCode::NothingToRestore, message)
            .with_hint("coord-agent archive list shows what is there; names are relative to the archive's root"),
        UnpackError::Archive { origin, source } => read_fault(of_origin(args, *origin), source),
        UnpackError::Index { .. } => Fault::new(ErrorCode::ArchiveDamaged, message),
        UnpackError::Target { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Fault::new(ErrorCode::DiskFull, message).with_hint("free space and repeat: what is in place stays")
        }
        UnpackError::Target { .. } => Fault::new(ErrorCode::TargetUnusable, message),
        UnpackError::Cancelled => {
            Fault::new(ErrorCode::Cancelled, message).with_hint("repeat the command to go on: what is in place stays")
        }
    }
}

/// Whoever restores from what was left of an archive should know it.
fn note_rebuilt(path: &Path, reader: &ArchiveReader) {
    if let Some(rebuilt) = &reader.header().rebuilt {
        let lost = HumanCount(rebuilt.lost);
        eprintln!("note: {} was rebuilt out of a damaged archive; something of {lost} names was lost", path.display());
    }
}

/// The archive that an error is about.
fn of_origin(args: &ExtractArgs, origin: Origin) -> &Path {
    match (origin, &args.differential) {
        (Origin::Differential, Some(differential)) => differential,
        (Origin::Full, _) | (Origin::Differential, None) => &args.archive,
    }
}

fn tell(report: &UnpackReport) -> Exit {
    let listings: [(&Listing, &str); 8] = [
        (&report.damaged, "damaged in the archive, not restored: "),
        (&report.failed, ""),
        (&report.unread, "not restored: "),
        (&report.stale, ""),
        (&report.changed_while_read, ""),
        (&report.not_found, ""),
        (&report.different, "left: "),
        (&report.not_settable, "cannot set "),
    ];
    for (listing, what) in listings {
        let notes = listing.listed.iter().map(|note| (note.path.as_slice(), format!("{what}{}", note.why)));
        warn(notes, listing.total);
    }
    if !report.damaged.is_empty() {
        Exit::Damaged
    } else if report.is_clean() {
        Exit::Done
    } else {
        Exit::Warnings
    }
}
