//! `archive reindex`.

use std::fs::File;
use std::path::{Path, PathBuf};

use coord_archive::file::SealedFile;
use coord_archive::header::Level;
use coord_archive::reader::{ArchiveReader, ReadError};
use coord_archive::rebuild::{RebuildError, RebuildOptions, RebuildReport, rebuild};
use coord_archive::verify::{self, VerifyOptions};
use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};
use indicatif::{HumanBytes, HumanCount};

use super::watch::Watch;
use super::{LevelName, ReindexArgs, file_fault, open, read_fault, warn};
use crate::chain::chain;

/// Most unusable parts of the file that are worth naming.
const MAX_PARTS: usize = 10;

pub(super) fn reindex(args: &ReindexArgs) -> Result<Exit, Fault> {
    let file =
        File::open(&args.archive).map_err(|source| read_fault(&args.archive, &ReadError::Io { offset: 0, source }))?;
    let watch = Watch::begin("verifying", args.quiet);
    let damaged_frames = damaged_frames(&args.archive, &watch)?;
    if damaged_frames == Some(0) {
        watch.finish("nothing is wrong with this archive: no copy was made");
        println!("{}", args.archive.display());
        return Ok(Exit::Done);
    }
    let base = args.base.as_deref().map(open).transpose()?;
    let level = args.level.map(|level| match level {
        LevelName::Full => Level::Full,
        LevelName::Differential => Level::Differential,
    });
    let output = args.output.clone().unwrap_or_else(|| beside(&args.archive));
    let mut out = SealedFile::create(&output).map_err(|error| file_fault(&error))?;
    watch.phase("reading frames");
    let options = RebuildOptions { base: base.as_ref(), level };
    let report = rebuild(&file, &options, &mut out, &watch).map_err(|error| fault(args, &error))?;
    if report.is_same && damaged_frames == report.lost_frames {
        drop(out);
        watch.finish("the index is whole, and what is damaged is nowhere else in the file: no copy was made");
        tell(&report);
        eprintln!("hint: coord-agent archive extract restores everything that is not damaged");
        println!("{}", args.archive.display());
        return Ok(Exit::Damaged);
    }
    let path = out.seal().map_err(|error| file_fault(&error))?;
    watch.finish(&summary(&report));
    println!("{}", path.display());
    Ok(tell(&report))
}

/// How many frames of an archive are damaged whose index is whole; `None` when the index is not.
fn damaged_frames(path: &Path, watch: &Watch) -> Result<Option<u64>, Fault> {
    let reader = match ArchiveReader::open_path(path) {
        Ok(reader) => reader,
        Err(error) if error.is_damage() => return Ok(None),
        Err(error) => return Err(read_fault(path, &error)),
    };
    if reader.check_index().is_err() {
        return Ok(None);
    }
    let found = verify::verify_reader(&reader, &VerifyOptions::default(), watch)
        .map_err(|error| Fault::new(ErrorCode::Cancelled, error.to_string()))?;
    Ok(Some(found.damaged_frames))
}

/// The damaged archive's name with `.rebuilt` before what says its kind.
fn beside(archive: &Path) -> PathBuf {
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.find(".tar").map_or(name.len(), |at| at);
    archive.with_file_name(format!("{}.rebuilt{}", &name[..stem], &name[stem..]))
}

fn summary(report: &RebuildReport) -> String {
    let what = if report.is_same { "the archive as it was" } else { "an archive with an index made anew" };
    format!(
        "{what}: {} names, {} files with {} in {}",
        HumanCount(report.footer.entries),
        HumanCount(report.footer.files),
        HumanBytes(report.footer.bytes),
        HumanBytes(report.footer.stored_bytes),
    )
}

/// Says what is lost or not sure.
fn tell(report: &RebuildReport) -> Exit {
    let is_all_there = report.is_same && report.lost_frames == Some(0);
    if is_all_there {
        return Exit::Done;
    }
    if !report.is_same {
        eprintln!(
            "warning: the new archive has another digest than the damaged one had; what names that one names it no more"
        );
    }
    for part in report.unusable.iter().take(MAX_PARTS) {
        eprintln!("warning: bytes {} to {} of the file hold nothing that can be used", part.start, part.end);
    }
    if let Some(more) = report.unusable.len().checked_sub(MAX_PARTS).filter(|more| *more > 0) {
        eprintln!("warning: and {more} more such parts");
    }
    if let Some(frames) = report.lost_frames.filter(|frames| *frames > 0) {
        eprintln!("warning: frames of content that are lost: {}", HumanCount(frames));
    }
    if report.from_members > 0 {
        eprintln!(
            "warning: names that are known from the tar alone, which does not say whether a file was read to its end: {}",
            HumanCount(report.from_members)
        );
    }
    if report.names_unknown {
        eprintln!(
            "warning: names may be lost that nothing is left of; with a differential, they come back as its full has them"
        );
    }
    report.notes.iter().for_each(|note| eprintln!("warning: {note}"));
    let names = report.lost.listed.iter().map(|(path, what)| (path.as_slice(), (*what).to_owned()));
    warn(names, report.lost.count);
    Exit::Warnings
}

fn fault(args: &ReindexArgs, error: &RebuildError) -> Fault {
    let message = format!("{}: {}", args.archive.display(), chain(error));
    let again = |more: &str| format!("coord-agent archive reindex {} {more}", args.archive.display());
    match error {
        RebuildError::Read { .. } => Fault::new(ErrorCode::Io, message)
            .with_hint("copy what can be read of a failing disk first, with a tool such as ddrescue"),
        RebuildError::Changing => Fault::new(ErrorCode::Changed, message),
        RebuildError::Nothing => Fault::new(ErrorCode::ArchiveDamaged, message),
        RebuildError::NoLevel => {
            Fault::new(ErrorCode::InvalidArgument, message).with_hint(again("--level full, or --level differential"))
        }
        RebuildError::NeedsBase | RebuildError::WrongBase => {
            Fault::new(ErrorCode::InvalidArgument, message).with_hint(again("--base FULL"))
        }
        RebuildError::Base(_) => {
            Fault::new(ErrorCode::ArchiveDamaged, message).with_hint("coord-agent archive reindex FULL first")
        }
        RebuildError::TooManyParts => Fault::new(ErrorCode::LimitExceeded, message),
        RebuildError::Sink(source) | RebuildError::Spool(source)
            if source.kind() == std::io::ErrorKind::StorageFull =>
        {
            Fault::new(ErrorCode::DiskFull, message).with_hint("free space beside the output, or name another one")
        }
        RebuildError::Sink(_) | RebuildError::Spool(_) => Fault::new(ErrorCode::Io, message),
        RebuildError::Codec(_) | RebuildError::Unreadable(_) => Fault::new(ErrorCode::Internal, message),
        RebuildError::Cancelled => Fault::new(ErrorCode::Cancelled, message),
    }
}
