//! One hostile archive put through every command that reads archives, as a full and as a differential on an honest full.
//!
//! The programs are the real ones, with a limit to their time and memory. What is looked at: how each ended, whether it said why, and
//! whether anything beside its target is not as it was.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::{Case, Expect, Place, honest_full};
use crate::harness::build::binaries;
use crate::tree::compare;

/// Most memory that a command may take, in bytes (256 MiB): it ends when it asks for more.
const MAX_MEMORY: &str = "--data=268435456";
/// Longest time that a command may take, in seconds. What takes longest is checking a hole of 1 GiB.
const MAX_SECONDS: &str = "60";
/// Most that all restores of one case may leave on disk, in KiB.
const MAX_DISK_KIB: u64 = 300 << 10;

/// Where cases are tried, one after the other.
pub struct Ground {
    scratch: tempfile::TempDir,
    agent: PathBuf,
    full: Vec<u8>,
    full_digest: [u8; 32],
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    /// Exit code; -1 for a signal.
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

/// What there is to say against a case.
type Complaints = Vec<String>;

impl Ground {
    /// A ground with an honest full.
    ///
    /// # Errors
    /// The programs cannot be built, or there is no room.
    pub fn new() -> anyhow::Result<Self> {
        let scratch = crate::scratch::in_memory()?;
        let full = honest_full()?;
        let footer = full.len().checked_sub(168).context("an archive has a footer")?;
        let full_digest = full[footer + 8 + 72..footer + 8 + 104].try_into()?;
        Ok(Self { scratch, agent: binaries()?.agent, full, full_digest })
    }

    /// Tries one case. Gives what there is to say against it.
    ///
    /// # Errors
    /// The case could not be tried.
    pub fn try_case(&self, case: &Case) -> anyhow::Result<Complaints> {
        let trial = Trial::set_up(self, case)?;
        let mut said = trial.as_full()?;
        said.extend(trial.as_differential()?);
        said.extend(trial.nothing_else_changed()?);
        trial.clear()?;
        Ok(said.into_iter().map(|complaint| format!("{}: {complaint}", case.name)).collect())
    }
}

struct Trial<'a> {
    ground: &'a Ground,
    case: &'a Case,
    folder: PathBuf,
    outside: BTreeMap<Vec<u8>, String>,
}

impl<'a> Trial<'a> {
    fn set_up(ground: &'a Ground, case: &'a Case) -> anyhow::Result<Self> {
        let folder = ground.scratch.path().join("case");
        for name in ["outside/folder", "cwd"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::write(folder.join("outside/canary"), "alive")?;
        fs::write(folder.join("outside/folder/x"), "alive")?;
        symlink("canary", folder.join("outside/link"))?;
        fs::write(folder.join("honest.tar.zst"), &ground.full)?;
        let place = |base| Place { outside: folder.join("outside").as_os_str().as_bytes().to_vec(), base };
        fs::write(folder.join("full.tar.zst"), case.build(&place(None))?)?;
        fs::write(folder.join("differential.tar.zst"), case.build(&place(Some(ground.full_digest)))?)?;
        let outside = facts(&folder.join("outside"))?;
        Ok(Self { ground, case, folder, outside })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs a command of the engine in an empty folder, with an end to its time and its memory.
    fn run(&self, words: &[&OsStr], keep_output: bool) -> anyhow::Result<Ended> {
        let (out, err) = (self.at("stdout"), self.at("stderr"));
        let stdout = if keep_output { Stdio::from(File::create(&out)?) } else { Stdio::null() };
        let mut command = Command::new("timeout");
        command
            .args(["-s", "KILL", MAX_SECONDS, "prlimit", MAX_MEMORY])
            .arg(&self.ground.agent)
            .arg("archive")
            .args(words);
        command.current_dir(self.at("cwd")).stdin(Stdio::null()).stdout(stdout).stderr(File::create(&err)?);
        let ended = command.status().context("install coreutils and util-linux")?;
        let stdout = if keep_output { fs::read(&out)? } else { Vec::new() };
        let stderr = String::from_utf8_lossy(&fs::read(&err)?).into_owned();
        Ok(Ended { code: ended.code().unwrap_or(-1), stdout, stderr })
    }

    /// Runs a command and says what is wrong with how it ended, whatever the case.
    fn checked(&self, words: &[&OsStr], keep_output: bool, said: &mut Complaints) -> anyhow::Result<Ended> {
        let ended = self.run(words, keep_output)?;
        let what = words.iter().take(1).map(|word| word.to_string_lossy()).collect::<String>();
        let mut complain = |text: String| said.push(format!("{what}: {text}"));
        if !matches!(ended.code, 0 | 1 | 2 | 3 | 5 | 10) || ended.stderr.contains("panicked") {
            complain(format!("ended with {}: {}", ended.code, cut(&ended.stderr)));
        }
        if ended.code != 0 && !["error: ", "warning: ", "failed", "\"message\""].iter().any(|word| says(&ended, word)) {
            complain(format!("ended with {} and did not say why", ended.code));
        }
        if ended.stdout.contains(&0x1b) || ended.stderr.contains('\u{1b}') {
            complain("wrote a control character".to_owned());
        }
        Ok(ended)
    }

    fn as_full(&self) -> anyhow::Result<Complaints> {
        let mut said = Vec::new();
        let archive = self.at("full.tar.zst");
        let archive = archive.as_os_str();
        let listed = self.checked(&[word("list"), archive, word("-o"), word("json")], true, &mut said)?;
        let verified = self.checked(&[word("verify"), word("-q"), archive], true, &mut said)?;
        let extracted = self.extract(&[archive], "fresh", &mut said)?;
        self.lay_traps()?;
        self.checked(
            &[
                word("extract"),
                word("-q"),
                word("--overwrite"),
                archive,
                word("--target"),
                self.at("traps").as_os_str(),
            ],
            true,
            &mut said,
        )?;
        for path in paths(&listed.stdout).iter().take(3) {
            self.checked(&[word("cat"), archive, OsStr::from_bytes(path)], false, &mut said)?;
        }
        self.reindex(archive, None, &mut said)?;
        let codes = (listed.code, verified.code, extracted.code);
        if !self.is_expected(codes) {
            let told = cut(&verified.stderr);
            said.push(format!("{:?}, but list, verify, extract ended with {codes:?} ({told})", self.case.expect));
        }
        Ok(said)
    }

    fn as_differential(&self) -> anyhow::Result<Complaints> {
        let mut said = Vec::new();
        let (full, differential) = (self.at("honest.tar.zst"), self.at("differential.tar.zst"));
        let (full, differential) = (full.as_os_str(), differential.as_os_str());
        let listed = self.checked(&[word("list"), differential], true, &mut said)?;
        let verified = self.checked(&[word("verify"), word("-q"), differential], true, &mut said)?;
        let extracted = self.extract(&[full, differential], "both", &mut said)?;
        self.reindex(differential, Some(full), &mut said)?;
        let codes = (listed.code, verified.code, extracted.code);
        if !self.is_expected(codes) {
            said.push(format!(
                "{:?}, but as a differential list, verify, extract ended with {codes:?}",
                self.case.expect
            ));
        }
        Ok(said)
    }

    fn is_expected(&self, (listed, verified, extracted): (i32, i32, i32)) -> bool {
        match self.case.expect {
            Expect::Clean => (listed, verified, extracted) == (0, 0, 0),
            Expect::Refused => verified == 10 && listed != 0 && !matches!(extracted, 0 | 3),
            Expect::Found => verified == 10,
            Expect::Contained => true,
        }
    }

    fn extract(&self, archives: &[&OsStr], target: &str, said: &mut Complaints) -> anyhow::Result<Ended> {
        let target = self.at(target);
        let words = [&[word("extract"), word("-q")], archives, &[word("--target"), target.as_os_str()]].concat();
        let ended = self.checked(&words, true, said)?;
        Ok(ended)
    }

    /// A target in which the names that cases use are links that lead outside.
    fn lay_traps(&self) -> io::Result<()> {
        let traps = self.at("traps");
        fs::create_dir_all(traps.join("link"))?;
        symlink("../outside", traps.join("a"))?;
        symlink("../outside/canary", traps.join("b"))?;
        symlink(self.at("outside"), traps.join("dir"))
    }

    fn reindex(&self, archive: &OsStr, base: Option<&OsStr>, said: &mut Complaints) -> anyhow::Result<()> {
        let output = self.at(if base.is_some() { "rebuilt-differential" } else { "rebuilt" });
        let mut words = vec![word("reindex"), word("-q"), archive, word("-o"), output.as_os_str()];
        words.extend(base.iter().flat_map(|base| [word("--base"), *base]));
        self.checked(&words, true, said)?;
        if output.exists() {
            let mut archives: Vec<&OsStr> = base.into_iter().collect();
            archives.push(output.as_os_str());
            self.extract(&archives, if base.is_some() { "again-both" } else { "again" }, said)?;
        }
        Ok(())
    }

    fn nothing_else_changed(&self) -> anyhow::Result<Complaints> {
        let mut said = Vec::new();
        let after = facts(&self.at("outside"))?;
        if after != self.outside {
            said.push(format!("what lies outside has changed: {:?} is now {after:?}", self.outside));
        }
        if fs::read_dir(self.at("cwd"))?.next().is_some() {
            said.push("something was written into the working folder".to_owned());
        }
        let known = [
            "again",
            "again-both",
            "both",
            "cwd",
            "differential.tar.zst",
            "fresh",
            "full.tar.zst",
            "honest.tar.zst",
            "outside",
            "rebuilt",
            "rebuilt-differential",
            "stderr",
            "stdout",
            "traps",
        ];
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if !known.iter().any(|known| *known == name) {
                said.push(format!("{} was written beside the target", name.display()));
            }
        }
        let used = Command::new("du").arg("-sk").arg(&self.folder).output()?;
        let used: u64 = String::from_utf8_lossy(&used.stdout).split_whitespace().next().unwrap_or("0").parse()?;
        if used > MAX_DISK_KIB {
            said.push(format!("{used} KiB were written"));
        }
        Ok(said)
    }

    /// Removes everything; the standard library holds a descriptor for each level of a deep folder.
    fn clear(&self) -> anyhow::Result<()> {
        let removed = Command::new("rm").arg("-rf").arg(&self.folder).status()?;
        anyhow::ensure!(removed.success(), "{} cannot be removed", self.folder.display());
        Ok(())
    }
}

fn word(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn says(ended: &Ended, text: &str) -> bool {
    ended.stderr.contains(text) || String::from_utf8_lossy(&ended.stdout).contains(text)
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}

/// The first paths of a listing in JSON; escapes are left as they are, which are names as good as any.
fn paths(listing: &[u8]) -> Vec<Vec<u8>> {
    let lines = listing.split(|byte| *byte == b'\n').take(5);
    let parsed = lines.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let paths = parsed.filter_map(|entry| entry["path"].as_str().map(|path| path.as_bytes().to_vec()));
    // Longer ones are no argument of any program.
    paths.filter(|path| path.len() < 64 << 10).skip(1).collect()
}

/// Everything that can change about the names below a folder.
fn facts(folder: &Path) -> io::Result<BTreeMap<Vec<u8>, String>> {
    let mut facts = BTreeMap::new();
    for (path, found) in compare::list(folder)? {
        let full = folder.join(OsStr::from_bytes(&path));
        let content = if found.is_file() { fs::read(&full)? } else { Vec::new() };
        let text = format!(
            "{:o} {}:{} {}.{} {}.{} {} {} {:?}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
            found.ino(),
            found.nlink(),
            content
        );
        facts.insert(path, text);
    }
    Ok(facts)
}
