//! The programs that make and restore archives: the engine alone, and the commands of an archive's own RESTORE.txt.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::harness::build::binaries;

/// What stands in RESTORE.txt before the names that have to be edited.
const PLACE: &str = "/PATH/TO/";

/// Exit code for "nothing of what was asked for is in the backup".
const NOTHING_THERE: i32 = 5;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    agent: PathBuf,
    codec: &'static str,
}

/// A name in the index of an archive.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Listed {
    path: String,
    /// What it is; `deleted` for a name that is gone.
    pub kind: String,
    /// Bytes of a file.
    pub size_bytes: u64,
    /// The owner's name.
    pub user: String,
    /// The group's name.
    pub group: String,
    /// Whether there is content, in this archive or the base.
    digest: Option<String>,
    flags: Vec<String>,
}

impl Listed {
    /// The name relative to the source.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        if self.path == "." { Vec::new() } else { unescape(&self.path) }
    }

    /// Whether the archive itself has the name's bytes.
    #[must_use]
    pub fn has_own_content(&self) -> bool {
        self.size_bytes > 0 && self.digest.is_some() && !self.flags.iter().any(|flag| flag == "content_in_base")
    }
}

impl Programs {
    /// Builds the engine. Archives are made with `codec`, as the command line names it.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn find(codec: &'static str) -> anyhow::Result<Self> {
        Ok(Self { agent: binaries()?.agent, codec })
    }

    fn agent(&self, arguments: &[&OsStr]) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.agent);
        command.arg("archive").args(arguments).env("LC_ALL", "C");
        Ok(command)
    }

    /// Makes an archive of `source`, against `base` where there is one. Gives what was said.
    ///
    /// # Errors
    /// It fails or warns.
    pub fn pack(&self, source: &Path, base: Option<&Path>, output: &Path) -> anyhow::Result<String> {
        let words = ["--source", "--output"].map(OsStr::new);
        let mut command = self.agent(&[OsStr::new(if base.is_some() { "diff" } else { "create" })])?;
        command
            .args([words[0], source.as_os_str(), words[1], output.as_os_str()])
            .args(["--verify", "--codec", self.codec]);
        if let Some(base) = base {
            command.arg("--base").arg(base);
        }
        success(&mut command)
    }

    /// The index of an archive.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn list(&self, archive: &Path) -> anyhow::Result<Vec<Listed>> {
        let output = self.agent(&[OsStr::new("list"), archive.as_os_str()])?.args(["-o", "json"]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).context("a line of archive list")).collect()
    }

    /// Restores archives into `target`, everything or `one` path alone. `false`: the path is not in the backup.
    ///
    /// # Errors
    /// It fails or warns.
    pub fn extract(&self, archives: &[&Path], target: &Path, one: Option<&[u8]>) -> anyhow::Result<bool> {
        let mut command = self.agent(&[OsStr::new("extract")])?;
        command.args(archives).arg("--target").arg(target);
        if let Some(one) = one {
            command.arg("--path").arg(OsStr::from_bytes(one));
        }
        let output = command.output()?;
        if one.is_some() && output.status.code() == Some(NOTHING_THERE) {
            return Ok(false);
        }
        ensure!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(true)
    }
}

/// The commands that an archive's RESTORE.txt gives for restoring it, with the places filled in.
///
/// # Errors
/// Stock tar cannot read the archive.
pub fn recipe(archive: &Path, target: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new("tar");
    command.arg("-xOf").arg(archive).arg("./.coord/RESTORE.txt");
    let output = command.output().context("install tar and zstd")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let (Some(folder), Some(target)) = (archive.parent().and_then(Path::to_str), target.to_str()) else {
        bail!("the scratch folder's name is no text")
    };
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let place =
        |line: &str| line.replace(&format!("{PLACE}an/empty/folder"), target).replace(PLACE, &format!("{folder}/"));
    Ok(lines.map(place).collect())
}

/// Runs lines of shell. The error is what was said last on standard error.
///
/// # Errors
/// There is no shell.
pub fn shell(lines: &[String], folder: &Path) -> anyhow::Result<Result<(), String>> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(lines.join("\n")).current_dir(folder).env("LC_ALL", "C");
    let output = command.output().context("sh")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(if output.status.success() { Ok(()) } else { Err(said) })
}

fn success(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && !said.contains("warning: "), "{command:?}\n{said}");
    Ok(said)
}

/// `%XX` back to bytes.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn names_are_read_back_as_the_listing_writes_them() {
        assert_eq!(unescape("a%0Ab%FF%25%41"), b"a\nb\xff%A");
        assert_eq!(unescape("%"), b"%");
    }
}
