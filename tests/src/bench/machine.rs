//! What was measured where: the machine, the system, the programs and our commit.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::stopwatch::Invocation;

/// What stands above every table of figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model name of the processor.
    pub processor: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Name and version of the system.
    pub system: String,
    /// Our commit, with `+` when files differ from it.
    pub commit: String,
    /// When.
    pub taken_at: String,
    /// First line of what each program says of its version.
    pub programs: Vec<String>,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here(checkout: &Path) -> Self {
        let git = |arguments: &[&str]| {
            let said = Invocation::new("git").args(arguments.iter().copied()).in_folder(checkout).output();
            said.unwrap_or_default().trim().to_owned()
        };
        let changed = if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { "+" };
        Self {
            processor: value_of("/proc/cpuinfo", "model name", ':').unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_mib().unwrap_or(0),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            system: value_of("/etc/os-release", "PRETTY_NAME", '=').unwrap_or_else(|| "unknown".to_owned()),
            commit: format!("{}{changed}", git(&["rev-parse", "--short=9", "HEAD"])),
            taken_at: Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            programs: programs(),
        }
    }
}

/// The value of the first line that begins with a name.
fn value_of(file: &str, name: &str, separator: char) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(separator)?.1.trim().trim_matches('"').to_owned())
}

fn memory_mib() -> Option<u64> {
    let kib: u64 = value_of("/proc/meminfo", "MemTotal", ':')?.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

fn programs() -> Vec<String> {
    let asked = [
        ("rustc", "--version"),
        ("tar", "--version"),
        ("zstd", "--version"),
        ("pigz", "--version"),
        ("find", "--version"),
        ("restic", "version"),
        ("rustic", "--version"),
    ];
    let line = |(program, argument): (&str, &str)| match Invocation::new(program).arg(argument).output() {
        None => format!("{program}: not installed"),
        Some(said) => said.lines().next().unwrap_or(program).trim_matches(['*', ' ']).to_owned(),
    };
    asked.into_iter().map(line).collect()
}
