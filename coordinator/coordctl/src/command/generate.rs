//! `coordctl completion` and `coordctl man`: what is made out of the definitions of the commands.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use clap_complete::env::Shells;
use clap_mangen::Man;

use crate::failure::Failure;
use crate::output::Output;

/// Asks for an offer instead of running a command: the shell sets it.
pub const VARIABLE: &str = "COORDCTL_COMPLETE";

/// What to print.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell.
    shell: ShellWord,
}

/// The shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShellWord {
    /// GNU bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// Where to.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder, such as /usr/local/share/man/man1; it is made where it is missing.
    folder: PathBuf,
}

/// Runs `completion`.
pub fn completion(args: &CompletionArgs, out: &Output) -> Result<(), Failure> {
    let shell = match args.shell {
        ShellWord::Bash => "bash",
        ShellWord::Zsh => "zsh",
        ShellWord::Fish => "fish",
    };
    let mut script = Vec::new();
    if let Some(shell) = Shells::builtins().completer(shell) {
        shell.write_registration(VARIABLE, "coordctl", "coordctl", "coordctl", &mut script)?;
    }
    out.print(&String::from_utf8_lossy(&script))
}

/// Runs `man`.
pub fn man(args: &ManArgs, command: clap::Command, out: &Output) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::usage(format!("cannot write {}: {error}", path.display()), "name a folder of yours")
    };
    fs::create_dir_all(&args.folder).map_err(|error| failed(&args.folder, error))?;
    let pages = pages(command)?;
    for (name, text) in &pages {
        let path = args.folder.join(name);
        fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    out.talk(&format!(
        "{} pages in {}; next: man -l {}",
        pages.len(),
        args.folder.display(),
        args.folder.join("coordctl.1").display()
    ));
    Ok(())
}

/// The pages of a command and of all below it: file name and text.
fn pages(mut command: clap::Command) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    command.build();
    let mut all = Vec::new();
    let mut waiting = vec![command];
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().cloned());
        let page = Man::new(command).source(format!("coordctl {}", env!("CARGO_PKG_VERSION")));
        let mut text = Vec::new();
        page.render(&mut text)?;
        all.push((page.get_filename(), text));
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use super::{CompletionArgs, ShellWord, completion, pages};
    use crate::output::{Format, Output};

    /// The words of each command.
    fn commands(command: &clap::Command) -> Vec<Vec<String>> {
        let name = command.get_name().to_owned();
        let below = command.get_subcommands().flat_map(commands).map(|path| [vec![name.clone()], path].concat());
        std::iter::once(vec![name.clone()]).chain(below).collect()
    }

    #[test]
    fn every_command_has_a_man_page_of_its_own() {
        let pages = pages(crate::command()).unwrap();
        let names: BTreeSet<&String> = pages.iter().map(|(name, _)| name).collect();
        let commands = commands(&crate::command());
        assert_eq!((names.len(), pages.len()), (commands.len(), commands.len()));
        for path in commands {
            assert!(names.contains(&format!("{}.1", path.join("-"))), "{path:?} has no page");
        }
        let watch = pages.iter().find(|(name, _)| name == "coordctl-run-watch.1").unwrap();
        let text = String::from_utf8(watch.1.clone()).unwrap();
        assert!(text.contains(".TH") && text.contains("Follow a run") && text.contains("\\-\\-timeout"), "{text}");
    }

    #[test]
    fn each_shell_is_told_to_ask_this_program() {
        for shell in [ShellWord::Bash, ShellWord::Zsh, ShellWord::Fish] {
            let mut out = Output::new(Format::Table);
            out.capture();
            completion(&CompletionArgs { shell }, &out).unwrap();
            let script = out.captured().text;
            assert!(script.contains("COORDCTL_COMPLETE") && script.contains("coordctl"), "{shell:?}: {script}");
        }
    }
}
