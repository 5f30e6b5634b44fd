//! What ten million names and a folder of a million cost: memory has to follow from the settings, not from the tree.
//!
//! Ten million files take longer to make than to back up. A folder of ten thousand is mounted a thousand times instead, in a mount
//! namespace of each command's own: the walker, the index and the comparison see ten million names.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::change::settle;
use super::machine::Machine;
use super::programs::Engine;
use super::stopwatch::{Invocation, Sample};
use crate::harness::build::workspace;

/// Files in the folder that is mounted again and again.
const FILES_OF_A_FOLDER: u32 = 10_000;
/// Mounts folder `$2` on every folder in `$1`, and becomes the rest of the line.
const MOUNT_AND_RUN: &str = "for at in \"$1\"/*/; do mount --bind \"$2\" \"$at\" || exit 1; done; shift 2; exec \"$@\"";
/// What a differential may take, in MiB.
const REQUIRED_MIB: u64 = 200;

/// How large.
#[derive(Debug, clap::Args)]
pub struct SizeOptions {
    /// Names in the tree; rounded to ten thousands.
    #[arg(long, default_value_t = 10_000_000)]
    names: u32,
    /// Names in the one folder.
    #[arg(long, default_value_t = 1_000_000)]
    folder: u32,
    /// Where trees and archives go; some gigabytes, best in memory.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    scratch_dir: PathBuf,
    /// The agent to measure; it is built when none is named.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// Not root, or a command fails.
pub fn run(options: &SizeOptions) -> anyhow::Result<()> {
    let engine = super::engine(options.agent.as_ref())?;
    let scratch = tempfile::Builder::new().prefix("coord-size-").tempdir_in(&options.scratch_dir)?;
    let machine = Machine::here(workspace());
    println!("{}, {} cores, kernel {}, commit {}\n", machine.processor, machine.cores, machine.kernel, machine.commit);
    println!(
        "| tree | work | wall, s | processor, s | peak, MiB | allowed, MiB |\n| --- | --- | --- | --- | --- | --- |"
    );
    wide(&engine, scratch.path(), options.names)?;
    flat(&engine, scratch.path(), options.folder)
}

/// Many folders.
fn wide(engine: &Engine, scratch: &Path, names: u32) -> anyhow::Result<()> {
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
    say(&what, "full", &mounted(&engine.create(&tree, &full, &[])).time(None)?);
    say(&what, "run that finds no change", &mounted(&engine.diff(&full, &tree, &diff, &[])).time(None)?);
    fs::write(tree.join("own"), "after that")?;
    say(&what, "differential", &mounted(&engine.diff(&full, &tree, &diff, &[])).time(None)?);
    say(&what, "one file", &engine.cat(&full, Path::new("own")).time(None)?);
    say(&what, "verify", &engine.verify(&full, &[]).time(None)?);
    [full, diff].iter().try_for_each(fs::remove_file)?;
    Ok(())
}

/// One folder.
fn flat(engine: &Engine, scratch: &Path, names: u32) -> anyhow::Result<()> {
    let (tree, target) = (scratch.join("flat"), scratch.join("restored"));
    fs::create_dir_all(tree.join("folder"))?;
    fill(&tree.join("folder"), names)?;
    settle();
    let (full, diff) = (scratch.join("flat.tar.zst"), scratch.join("flat-diff.tar.zst"));
    let what = format!("{names} names in one folder");
    say(&what, "full", &engine.create(&tree, &full, &[]).time(None)?);
    fs::write(tree.join("folder/new"), "new")?;
    say(&what, "differential", &engine.diff(&full, &tree, &diff, &[]).time(None)?);
    say(&what, "restore", &engine.extract(&full, Some(&diff), &target, &[]).time(None)?);
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

fn say(tree: &str, work: &str, sample: &Sample) {
    let peak = sample.peak_bytes.div_ceil(1 << 20);
    println!("| {tree} | {work} | {:.1} | {:.1} | {peak} | {REQUIRED_MIB} |", sample.wall_s, sample.cpu_s);
}
