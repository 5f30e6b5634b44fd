//! What ten million names, a folder of a million and a file of any size cost: memory has to follow from the settings, not from
//! the tree. More than is allowed is a failure.
//!
//! Ten million files take longer to make than to back up. A folder of ten thousand is mounted a thousand times instead, in a mount
//! namespace of each command's own: the walker, the index and the comparison see ten million names.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::change::settle;
use super::machine::Machine;
use super::programs::Engine;
use super::stopwatch::{Invocation, Sample};
use crate::harness::build::workspace;
use crate::tree::awkward::is_root;

/// Files in the folder that is mounted again and again.
const FILES_OF_A_FOLDER: u32 = 10_000;
/// Mounts folder `$2` on every folder in `$1`, and becomes the rest of the line.
const MOUNT_AND_RUN: &str = "for at in \"$1\"/*/; do mount --bind \"$2\" \"$at\" || exit 1; done; shift 2; exec \"$@\"";
/// One stretch of data in so many bytes of the large file; the rest is holes.
const DATA_EVERY: u64 = 1 << 30;
/// Bytes of each.
const DATA_BYTES: usize = 3 << 20;

/// How large.
#[derive(Debug, clap::Args)]
pub struct SizeOptions {
    /// Names in the tree; rounded to ten thousands.
    #[arg(long, default_value_t = 10_000_000)]
    names: u32,
    /// Names in the one folder.
    #[arg(long, default_value_t = 1_000_000)]
    folder: u32,
    /// Size of the one file with holes, in GiB.
    #[arg(long, value_name = "GIB", default_value_t = 256)]
    file: u64,
    /// What any command may take, in MiB; more is a failure.
    #[arg(long, value_name = "MIB", default_value_t = 200)]
    allowed: u64,
    /// Where trees and archives go; some gigabytes, best in memory.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    scratch_dir: PathBuf,
    /// The agent to measure; it is built when none is named.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// Measures and prints. A failure when a command took more than is allowed.
///
/// # Errors
/// A command fails.
pub fn run(options: &SizeOptions) -> anyhow::Result<ExitCode> {
    let engine = super::engine(options.agent.as_ref())?;
    let scratch = tempfile::Builder::new().prefix("coord-size-").tempdir_in(&options.scratch_dir)?;
    let machine = Machine::here(workspace());
    println!("{}, {} cores, kernel {}, commit {}\n", machine.processor, machine.cores, machine.kernel, machine.commit);
    println!(
        "| tree | work | wall, s | processor, s | peak, MiB | allowed, MiB |\n| --- | --- | --- | --- | --- | --- |"
    );
    let mut table = Table { allowed_mib: options.allowed, beyond: Vec::new() };
    if is_root() {
        wide(&mut table, &engine, scratch.path(), options.names)?;
    } else {
        println!("| {} names | not measured: mounting a folder again and again needs root | | | | |", options.names);
    }
    flat(&mut table, &engine, scratch.path(), options.folder)?;
    large(&mut table, &engine, scratch.path(), options.file)?;
    for line in &table.beyond {
        eprintln!("measure: {line}");
    }
    Ok(if table.beyond.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was printed so far, as far as it matters for the end.
struct Table {
    allowed_mib: u64,
    /// What took more.
    beyond: Vec<String>,
}

impl Table {
    fn row(&mut self, tree: &str, work: &str, sample: &Sample) {
        let (peak, allowed) = (sample.peak_bytes.div_ceil(1 << 20), self.allowed_mib);
        println!("| {tree} | {work} | {:.1} | {:.1} | {peak} | {allowed} |", sample.wall_s, sample.cpu_s);
        if peak > allowed {
            self.beyond.push(format!("{work} of {tree} took {peak} MiB, where {allowed} MiB are allowed"));
        }
    }
}

/// Many folders.
fn wide(table: &mut Table, engine: &Engine, scratch: &Path, names: u32) -> anyhow::Result<()> {
    let (tree, shared) = (scratch.join("tree"), scratch.join("shared"));
    fs::create_dir(&shared)?;
    fill(&shared, FILES_OF_A_FOLDER)?;
    for number in 0..names / FILES_OF_A_FOLDER {
        fs::create_dir_all(tree.join(format!("{number:05}")))?;
    }
    fs::write(tree.join("own"), "before")?;
    settle();
    let mounted = |command: &Invocation| {
        let unshare =
            Invocation::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", MOUNT_AND_RUN, "size"]);
        unshare.arg(&tree).arg(&shared).then(command)
    };
    let (full, diff) = (scratch.join("full.tar.zst"), scratch.join("diff.tar.zst"));
    let what = format!("{names} names");
    table.row(&what, "full", &mounted(&engine.create(&tree, &full, &[])).time(None)?);
    table.row(&what, "run that finds no change", &mounted(&engine.diff(&full, &tree, &diff, &[])).time(None)?);
    fs::write(tree.join("own"), "after that")?;
    table.row(&what, "differential", &mounted(&engine.diff(&full, &tree, &diff, &[])).time(None)?);
    table.row(&what, "one file", &engine.cat(&full, Path::new("own")).time(None)?);
    table.row(&what, "verify", &engine.verify(&full, &[]).time(None)?);
    [full, diff].iter().try_for_each(fs::remove_file)?;
    Ok(())
}

/// One folder.
fn flat(table: &mut Table, engine: &Engine, scratch: &Path, names: u32) -> anyhow::Result<()> {
    let (tree, target) = (scratch.join("flat"), scratch.join("restored"));
    fs::create_dir_all(tree.join("folder"))?;
    fill(&tree.join("folder"), names)?;
    settle();
    let (full, diff) = (scratch.join("flat.tar.zst"), scratch.join("flat-diff.tar.zst"));
    let what = format!("{names} names in one folder");
    table.row(&what, "full", &engine.create(&tree, &full, &[]).time(None)?);
    fs::write(tree.join("folder/new"), "new")?;
    table.row(&what, "differential", &engine.diff(&full, &tree, &diff, &[]).time(None)?);
    table.row(&what, "restore", &engine.extract(&full, Some(&diff), &target, &[]).time(None)?);
    Ok(())
}

/// One file, most of it holes, so that it fits anywhere. It is read, hashed and restored like any other.
fn large(table: &mut Table, engine: &Engine, scratch: &Path, gibibytes: u64) -> anyhow::Result<()> {
    let (tree, target) = (scratch.join("large"), scratch.join("restored-large"));
    fs::create_dir(&tree)?;
    let file = fs::File::create_new(tree.join("file"))?;
    file.set_len(gibibytes << 30)?;
    for begin in (0..gibibytes << 30).step_by(usize::try_from(DATA_EVERY)?) {
        file.write_all_at(&vec![u8::try_from(begin % 251)?; DATA_BYTES], begin)?;
    }
    drop(file);
    settle();
    let (full, diff) = (scratch.join("large.tar.zst"), scratch.join("large-diff.tar.zst"));
    let what = format!("one file of {gibibytes} GiB, most of it holes");
    table.row(&what, "full", &engine.create(&tree, &full, &[]).time(None)?);
    table.row(&what, "run that finds no change", &engine.diff(&full, &tree, &diff, &[]).time(None)?);
    fs::OpenOptions::new().write(true).open(tree.join("file"))?.write_all_at(b"changed", 0)?;
    table.row(&what, "differential", &engine.diff(&full, &tree, &diff, &[]).time(None)?);
    table.row(&what, "restore", &engine.extract(&full, Some(&diff), &target, &[]).time(None)?);
    Ok(())
}

fn fill(folder: &Path, files: u32) -> anyhow::Result<()> {
    for number in 0..files {
        let path = folder.join(format!("file-{number:07}"));
        let mut file = fs::File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
        writeln!(file, "{number}")?;
    }
    Ok(())
}
