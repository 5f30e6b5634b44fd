//! `archive create` and `archive diff`.

use std::fs::File;
use std::path::Path;

use coord_archive::codec::Codec;
use coord_archive::file::SealedFile;
use coord_archive::header::{Base, Header, Level};
use coord_archive::pack::{self, PackError, PackOptions, PackReport, Reason, Sink, Step};
use coord_archive::verify::{self, Expected, VerifyOptions};
use coord_shared::clock::{Clock as _, SystemClock};
use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::left_out::LeftOutBy;
use indicatif::{HumanBytes, HumanCount};

use super::verify::{SAMPLES, shortcomings};
use super::watch::Watch;
use super::{CreateArgs, DiffArgs, PackArgs, file_fault, open, warn};
use crate::chain::chain;
use crate::scan::{Against, Contents, Figures, Notes, RuleCount, Scan, ScanError, ScanRequest};

pub(super) fn create(args: &CreateArgs) -> Result<Exit, Fault> {
    let mut out = SealedFile::create(&args.output).map_err(|error| file_fault(&error))?;
    let mut request = ScanRequest::new(&args.source, vec![Vec::new()], SystemClock.now());
    request.excludes.clone_from(&args.leave_out.exclude);
    request.rules = args.leave_out.rules();
    let scan = begin(&request, &out)?;
    let mut header = Header::new(Level::Full, b"", request.started_at);
    scan.describe(&mut header, None).map_err(|error| scan_fault(&error))?;
    let watch = Watch::begin("packing", args.pack.quiet);
    let report = pack(scan.full(), &scan.contents(None), header, &args.pack, Sink { out: &mut out, progress: &watch })?;
    let path = out.seal().map_err(|error| file_fault(&error))?;
    read_back(&args.pack, &path, &report, &watch)?;
    let notes = scan.notes();
    watch.finish(&summary("full", &report, &notes));
    println!("{}", path.display());
    Ok(end(&notes, &report))
}

pub(super) fn diff(args: &DiffArgs) -> Result<Exit, Fault> {
    let base = open(&args.base)?;
    if base.header().level != Level::Full {
        let message = format!("{} is a differential; a differential stands on a full", args.base.display());
        return Err(Fault::new(ErrorCode::InvalidArgument, message));
    }
    let mut out = SealedFile::create(&args.output).map_err(|error| file_fault(&error))?;
    let mut request = ScanRequest::new(&args.source, base.header().sources.clone(), SystemClock.now());
    request.excludes.clone_from(&base.header().excludes);
    request.rules.clone_from(&base.header().rules);
    // The folder was named by a person, wherever it is; what was mounted below it is still expected there.
    let sources = &base.header().sources;
    let below = base.header().mounts.iter().filter(|mount| !sources.contains(&mount.path));
    request.expected_mounts = below.cloned().collect();
    let mut scan = begin(&request, &out)?;
    // An unreadable base would have failed above.
    if let Ok(file) = File::open(&args.base) {
        scan.leave_out(&file);
    }
    let watch = Watch::begin("comparing", args.pack.quiet);
    let scratch = out.folder().to_path_buf();
    let against = Against { base: &base, newest: None, cache: None, scratch: &scratch };
    let found = scan.compare(&against, &watch).map_err(|error| scan_fault(&error))?;
    let notes = scan.notes();
    if found.equals_full {
        watch.finish("nothing differs from the full: no archive was made, the full alone is the restore point");
        return Ok(if warn_of(&notes, None) { Exit::Warnings } else { Exit::Done });
    }
    let mut header = Header::new(Level::Differential, b"", request.started_at);
    scan.describe(&mut header, Some(&base)).map_err(|error| scan_fault(&error))?;
    header.base = Some(Base {
        archive_digest: base.footer().archive_digest,
        name: file_name(&args.base),
        run: base.header().run,
        ordinal: base.header().ordinal,
    });
    watch.phase("packing");
    let sink = Sink { out: &mut out, progress: &watch };
    let report = pack(found.changes.steps(), &scan.contents(Some(&base)), header, &args.pack, sink)?;
    let path = out.seal().map_err(|error| file_fault(&error))?;
    read_back(&args.pack, &path, &report, &watch)?;
    watch.finish(&format!("{}\n{}", summary("differential", &report, &notes), figures(&found.figures)));
    println!("{}", path.display());
    Ok(end(&notes, &report))
}

/// Begins a scan that leaves out the archive it feeds.
fn begin(request: &ScanRequest, out: &SealedFile) -> Result<Scan, Fault> {
    let mut scan = Scan::begin(request).map_err(|error| scan_fault(&error))?;
    scan.leave_out(&out.reader().map_err(|error| file_fault(&error))?);
    Ok(scan)
}

fn pack(
    steps: impl Iterator<Item = Result<Step, ScanError>> + Send,
    contents: &Contents<'_>,
    header: Header,
    args: &PackArgs,
    sink: Sink<'_>,
) -> Result<PackReport, Fault> {
    let codec = Codec::from(args.codec);
    let mut options = PackOptions::new(codec);
    options.level = args.level.unwrap_or_else(|| codec.default_level());
    options.threads = args.threads;
    pack::pack(steps, contents, header, &options, sink).map_err(|error| pack_fault(&error))
}

/// With `--verify`, an archive that cannot be read back is a failure; it stays where it is, to be looked at.
fn read_back(args: &PackArgs, path: &Path, report: &PackReport, watch: &Watch) -> Result<(), Fault> {
    if !args.verify {
        return Ok(());
    }
    watch.phase("verifying");
    let expected = Expected { stored_bytes: report.footer.stored_bytes, archive_digest: report.footer.archive_digest };
    let options = VerifyOptions { threads: args.threads, samples: SAMPLES, expected: Some(expected) };
    let found = verify::verify(path, &options, watch)
        .map_err(|error| Fault::new(ErrorCode::Cancelled, format!("{}: {error}", path.display())))?;
    if found.is_ok() {
        return Ok(());
    }
    let message = format!("{} does not read back as it was written: {}", path.display(), shortcomings(&found));
    Err(Fault::new(ErrorCode::ArchiveDamaged, message)
        .with_hint("do not count on it: make it again, on another disk if this repeats"))
}

fn scan_fault(error: &ScanError) -> Fault {
    Fault::new(error.code(), chain(error)).with_hint(error.hint())
}

fn pack_fault(error: &PackError<ScanError>) -> Fault {
    let message = chain(error);
    match error {
        PackError::Steps(error) => scan_fault(error),
        PackError::Sink(source) | PackError::Spool(source) if source.kind() == std::io::ErrorKind::StorageFull => {
            Fault::new(ErrorCode::DiskFull, message).with_hint("free space beside the output, or name another one")
        }
        PackError::Sink(_) | PackError::Spool(_) => Fault::new(ErrorCode::Io, message),
        PackError::Codec(_) => Fault::new(ErrorCode::InvalidArgument, message),
        PackError::Contract { .. } => Fault::new(ErrorCode::Internal, message),
        PackError::Cancelled => Fault::new(ErrorCode::Cancelled, message),
    }
}

/// The base's name as the recipe will print it.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn summary(level: &str, report: &PackReport, notes: &Notes) -> String {
    format!(
        "{level}: {} names and {} seen; {} files, {} packed into {}",
        HumanCount(notes.source_entries),
        HumanBytes(notes.source_bytes),
        HumanCount(report.files),
        HumanBytes(report.bytes),
        HumanBytes(report.footer.stored_bytes),
    )
}

fn figures(figures: &Figures) -> String {
    format!(
        "{} files changed or new, {} names with other attributes only, {} removed",
        HumanCount(figures.changed_files),
        HumanCount(figures.metadata_only),
        HumanCount(figures.removed),
    )
}

fn end(notes: &Notes, report: &PackReport) -> Exit {
    if warn_of(notes, Some(report)) { Exit::Warnings } else { Exit::Done }
}

fn warn_of(notes: &Notes, report: Option<&PackReport>) -> bool {
    for (path, by) in &notes.left_out {
        eprintln!("note: {} left out: {}", super::shown(path), by.as_phrase());
    }
    for count in notes.counts() {
        eprintln!("note: {}", left_out(count));
    }
    let of_scan = notes.warnings.iter().map(|warning| (warning.path.as_slice(), warning.reason.clone()));
    let packed = report.map_or(&[][..], |report| &report.warnings);
    let of_pack = packed.iter().map(|warning| (warning.path.as_slice(), reason(&warning.reason)));
    let count = notes.warning_count + report.map_or(0, |report| report.warning_count);
    warn(of_scan.chain(of_pack), count)
}

/// What one rule left out, in a line. What is in folders was not looked at, so it is not counted.
fn left_out(count: &RuleCount) -> String {
    let rule = match count.by {
        LeftOutBy::Pattern => count.text.escape_debug().to_string(),
        LeftOutBy::IfPresent => format!("folders with {}", count.text.escape_debug()),
        LeftOutBy::LargerThan => {
            let most = count.text.parse().map_or_else(|_| count.text.clone(), |bytes| HumanBytes(bytes).to_string());
            format!("files larger than {most}")
        }
        LeftOutBy::Cache
        | LeftOutBy::Nodump
        | LeftOutBy::OtherFileSystem
        | LeftOutBy::KernelFileSystem
        | LeftOutBy::Own
        | LeftOutBy::Socket => count.by.as_phrase().to_owned(),
    };
    let (files, folders) = (HumanCount(count.files), HumanCount(count.folders));
    format!("{rule}: {files} files ({}) and {folders} folders left out", HumanBytes(count.bytes))
}

fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Vanished => "vanished before it could be read; left out".to_owned(),
        Reason::Unreadable(why) => format!("cannot be read: {why}"),
        Reason::ChangedWhileRead => "changed while it was read, twice".to_owned(),
        Reason::TooLarge => "is too large to be stored".to_owned(),
    }
}
