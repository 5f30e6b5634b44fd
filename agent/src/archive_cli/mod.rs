//! `coord-agent archive`: the engine alone, for the bad day and for measurements. It needs no coordinator, no catalog and no
//! state: folders in, archives out, and back.
//!
//! Data goes to standard output, talk and progress to standard error. How a command ends is one of the exit codes that all
//! three programs share: 3 for warnings, 5 for not found, 10 for a damaged archive, 130 for interrupted.

mod extract;
mod make;
mod reindex;
mod show;
mod verify;
mod watch;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use coord_archive::codec::Codec;
use coord_archive::file::FileError;
use coord_archive::header::escape;
use coord_archive::reader::{ArchiveReader, ReadError};
use coord_archive::rules::Rules;
use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};

use crate::chain::chain;

/// Make, read and verify archives by hand, with no coordinator.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a full archive of a folder. Nothing is excluded unless asked for.
    Create(CreateArgs),
    /// Make an archive of what differs from a full one. What the full left out is left out.
    Diff(DiffArgs),
    /// Restore a full archive, or a full with a differential, into a folder.
    Extract(ExtractArgs),
    /// List what an archive's index says.
    List(ListArgs),
    /// Read all of an archive and check every digest.
    Verify(VerifyArgs),
    /// Write the content of one file to standard output.
    Cat(CatArgs),
    /// Make a readable archive out of one whose index or footer is lost.
    #[command(long_about = REINDEX_ABOUT, after_long_help = REINDEX_HELP)]
    Reindex(ReindexArgs),
}

const REINDEX_ABOUT: &str = "Make a readable archive out of one whose index or footer is lost.\n\n\
The damaged file is only read. Every frame that is whole is found again, wherever it stands in the file, and copied into a \
new archive, which list, extract, verify and cat take like any other.\n\n\
If all of the index is still somewhere in the file, the new archive is the old one, with the same digest, and frames that \
are gone are zeros: verify names the files in them, extract restores all others. Otherwise the index is made anew, from \
what is left of it and from the tar inside; names of which something is lost are listed as unread and printed here. \
A differential without its index needs its full, given with --base.";

const REINDEX_HELP: &str = "\
Examples:
  coord-agent archive reindex full.tar.zst
  coord-agent archive extract full.rebuilt.tar.zst --target restored
  coord-agent archive reindex monday.tar.zst --base full.tar.zst --output monday-again.tar.zst

Standard output is the archive to use: the new one, or the old one when there is nothing to gain.

Exit codes:
  0   the archive as it was, with nothing lost; or nothing was wrong
  3   an archive was made; something is lost or not sure: read the warnings
  10  nothing could be made better: not one frame is left, or all that is
      damaged is content; extract restores the rest";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CodecName {
    Zstd,
    Gzip,
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::Zstd => Self::Zstd,
            CodecName::Gzip => Self::Gzip,
        }
    }
}

#[derive(Debug, Args)]
struct PackArgs {
    /// How to compress.
    #[arg(long, value_enum, default_value = "zstd")]
    codec: CodecName,
    /// Level of the codec; its default is 3 for zstd, 6 for gzip.
    #[arg(long, value_name = "N")]
    level: Option<i32>,
    /// Worker threads; 0 is one for each core.
    #[arg(long, default_value = "0", value_name = "N")]
    threads: usize,
    /// Read the sealed archive back and check every digest, as a backup run does.
    #[arg(long)]
    verify: bool,
    /// Say nothing but errors and warnings.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The folder. Names in the archive are relative to it.
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// The archive to make; an existing file is never overwritten.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    leave_out: LeaveOutArgs,
    #[command(flatten)]
    pack: PackArgs,
}

/// What not to archive; docs/SELECTION.md has the grammar.
#[derive(Debug, Args)]
struct LeaveOutArgs {
    /// Leave out what matches: a glob for a name at any depth, or with a slash for a path; ! takes in again.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Leave out what is in folders that CACHEDIR.TAG marks as caches.
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out what is in folders that hold this name; may be repeated.
    #[arg(long, value_name = "NAME")]
    exclude_if_present: Vec<String>,
    /// Leave out files and folders with the flag "no dump" (chattr +d).
    #[arg(long)]
    exclude_nodump: bool,
    /// Leave out files larger than this, such as 4GiB.
    #[arg(long, value_name = "SIZE", value_parser = coord_shared::size::parse)]
    exclude_larger_than: Option<u64>,
    /// Do not enter what is mounted below the folder.
    #[arg(long, short = 'x')]
    one_file_system: bool,
}

impl LeaveOutArgs {
    fn rules(&self) -> Rules {
        Rules {
            caches: self.exclude_caches,
            if_present: self.exclude_if_present.clone(),
            nodump: self.exclude_nodump,
            one_file_system: self.one_file_system,
            larger_than: self.exclude_larger_than,
        }
    }
}

#[derive(Debug, Args)]
struct DiffArgs {
    /// The full archive.
    #[arg(long, value_name = "FULL")]
    base: PathBuf,
    /// The folder.
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// The archive to make; an existing file is never overwritten.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    pack: PackArgs,
}

#[derive(Debug, Args)]
struct ExtractArgs {
    /// The full archive.
    archive: PathBuf,
    /// A differential that stands on it.
    differential: Option<PathBuf>,
    /// The folder to restore into; it is made if it does not exist. What is there and different is left and reported.
    #[arg(long, value_name = "DIR")]
    target: PathBuf,
    /// Only this path with everything below it; may be repeated.
    #[arg(long, value_name = "PATH")]
    path: Vec<OsString>,
    /// Replace what is there and different.
    #[arg(long)]
    overwrite: bool,
    /// Worker threads; 0 is one for each core.
    #[arg(long, default_value = "0", value_name = "N")]
    threads: usize,
    /// Say nothing but errors and warnings.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The archive.
    archive: PathBuf,
    /// Shape of the output; json is one object a line.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The archive.
    archive: PathBuf,
    /// Shape of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Worker threads; 0 is one for each core.
    #[arg(long, default_value = "0", value_name = "N")]
    threads: usize,
    /// Say nothing but the result.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LevelName {
    Full,
    Differential,
}

#[derive(Debug, Args)]
struct ReindexArgs {
    /// The damaged archive; it is never changed.
    archive: PathBuf,
    /// The archive to make; by default beside the damaged one, with .rebuilt in its name. Never overwritten.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The full that a differential stands on; needed when the differential's index is lost.
    #[arg(long, value_name = "FULL")]
    base: Option<PathBuf>,
    /// What the archive is, if nothing that is left says so.
    #[arg(long, value_enum)]
    level: Option<LevelName>,
    /// Say nothing but errors and warnings.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct CatArgs {
    /// The archive.
    archive: PathBuf,
    /// The file, relative to the archive's root.
    path: OsString,
}

/// Runs one command to its end. Errors and warnings are said on standard error.
#[must_use]
pub fn run(args: ArchiveArgs) -> Exit {
    let is_json = match &args.command {
        Command::List(ListArgs { output, .. }) | Command::Verify(VerifyArgs { output, .. }) => *output == Format::Json,
        Command::Create(_) | Command::Diff(_) | Command::Extract(_) | Command::Cat(_) | Command::Reindex(_) => false,
    };
    let ended = match args.command {
        Command::Create(args) => make::create(&args),
        Command::Diff(args) => make::diff(&args),
        Command::Extract(args) => extract::extract(&args),
        Command::List(args) => show::list(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Cat(args) => show::cat(&args),
        Command::Reindex(args) => reindex::reindex(&args),
    };
    match ended {
        Ok(exit) => exit,
        Err(fault) => report(&fault, is_json),
    }
}

fn report(fault: &Fault, is_json: bool) -> Exit {
    let exit = if fault.code == ErrorCode::Cancelled { Exit::Interrupted } else { fault.exit() };
    if is_json {
        let object = serde_json::json!({
            "code": fault.code.as_str(),
            "exit": exit.code(),
            "message": fault.message,
            "hint": fault.hint,
            "trace": fault.trace,
        });
        eprintln!("{object}");
        return exit;
    }
    eprintln!("error: {}", fault.message);
    if !fault.hint.is_empty() {
        eprintln!("hint: {}", fault.hint);
    }
    exit
}

/// Opens an archive, saying which one when that fails.
fn open(path: &Path) -> Result<ArchiveReader, Fault> {
    ArchiveReader::open_path(path).map_err(|error| read_fault(path, &error))
}

fn read_fault(path: &Path, error: &ReadError) -> Fault {
    let message = format!("{}: {}", path.display(), chain(error));
    match error {
        ReadError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Fault::new(ErrorCode::ArchiveMissing, message)
        }
        _ if error.is_damage() => Fault::new(ErrorCode::ArchiveDamaged, message).with_hint(reindex_hint(path)),
        _ => Fault::new(ErrorCode::Io, message),
    }
}

/// What to do about an archive that cannot be opened, or whose index cannot be read.
fn reindex_hint(path: &Path) -> String {
    format!("coord-agent archive reindex {} makes a readable archive of what is left", path.display())
}

fn file_fault(error: &FileError) -> Fault {
    let code = match error {
        FileError::Exists { .. } => ErrorCode::AlreadyExists,
        FileError::NotAName { .. } => ErrorCode::InvalidArgument,
        FileError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => ErrorCode::DiskFull,
        FileError::Io { .. } => ErrorCode::Io,
    };
    Fault::new(code, chain(error))
}

/// A path as typed, as the archive has it: relative, without `./` and doubled slashes.
fn archive_path(typed: &OsString) -> Vec<u8> {
    let bytes = typed.clone().into_vec();
    let parts = bytes.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

/// A path on a terminal or in JSON: printable, and exact when read back.
fn shown(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { escape(path) }
}

/// Says what went wrong with single names. True when there was anything.
fn warn<'a>(warnings: impl Iterator<Item = (&'a [u8], String)>, count: u64) -> bool {
    /// Most that is worth reading on a terminal.
    const MAX_SHOWN: usize = 20;
    let mut shown_count = 0;
    for (path, reason) in warnings.take(MAX_SHOWN) {
        eprintln!("warning: {}: {reason}", shown(path));
        shown_count += 1;
    }
    if count > shown_count {
        eprintln!("warning: and {} more", count - shown_count);
    }
    count > 0
}
