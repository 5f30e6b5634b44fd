//! The demo: the main job on real input, through the real parts, judged by a comparison that shares no code with them.
//!
//! Paths given by the user are only read. What is changed between the backups are scratch copies.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use coord_shared::exit::Exit;
use serde_json::Value;

use crate::harness::build::workspace;
use crate::harness::fleet::Fleet;
use crate::harness::postgres::Database;
use crate::tree::awkward::is_root;
use crate::tree::compare::{Difference, Tolerance, UNREADABLE, compare_trees};

mod changes;
mod report;
mod source;
mod watch;

pub use source::keep;

use report::Line;
use source::{Sources, below};

/// At most so many differences are printed.
const MAX_PRINTED: usize = 20;

/// Backs up and restores real data of two hosts on this machine, and compares.
#[derive(Debug, Parser)]
#[command(name = "demo")]
pub struct Options {
    /// Folders to protect; they are only read. Default: this checkout and a folder of the system.
    paths: Vec<PathBuf>,
    /// Leave the fleet running at the end and print commands to try.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo and says how it ended.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match Demo::play(options) {
        Ok(()) => {
            println!("\ndemo: PASS");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\ndemo: FAIL: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    fleet: Fleet,
    sources: Sources,
    /// Exact copies of the scratch trees as they were at the full backups.
    kept: PathBuf,
    /// When the demo began, seconds since the epoch: what changed in a real path later is not held against a restore.
    began_s: i64,
    folder: PathBuf,
}

/// The two hosts.
const HOSTS: [&str; 2] = ["alpha", "beta"];
/// What somebody may look at in a fleet that is kept.
const HINTS: [&str; 12] = [
    "status",
    "host list",
    "job list",
    "backup list",
    "ls alpha/ -R",
    "explain alpha/demo",
    "policy history demo",
    "schedule --days 14",
    "report rpo",
    "report rto",
    "limit list",
    "run list",
];

impl Demo {
    fn play(options: &Options) -> Result<(), String> {
        let begun = Instant::now();
        let began_s = jiff::Timestamp::now().as_second();
        let scratch = tempfile::Builder::new().prefix("coord-demo-").tempdir().map_err(|error| error.to_string())?;
        let demo = Self::start(options, scratch.path(), began_s)?;
        let lines = demo.back_up_and_restore()?;
        demo.print_end(&lines, begun)?;
        if options.keep {
            let _kept = scratch.keep();
            demo.print_hints();
            demo.fleet.leave_running();
        }
        Ok(())
    }

    fn start(options: &Options, folder: &Path, began_s: i64) -> Result<Self, String> {
        title("data");
        let sources = Sources::prepare(&options.paths, workspace(), folder)?;
        for path in &sources.paths {
            println!("  protects {} (only read)", path.display());
        }
        println!("  and scratch copies in {} (changed between the backups)", folder.display());
        for left_out in &sources.left_out {
            println!("  left out: {left_out}");
        }
        title("fleet: a private PostgreSQL, a coordinator, two agents, on loopback");
        let mut fleet = Fleet::start(&folder.join("fleet"), Database::private()?)?;
        println!("  coordinator serves, operator certificate written");
        for (host, root) in HOSTS.into_iter().zip([Path::new("/"), &sources.second_root]) {
            fleet.add_host(host, root, "demo=yes")?;
            println!("  {host} joined with a token, its root is {}", root.display());
        }
        let exclude: Vec<String> =
            source::build_output(workspace()).map(|path| format!("{}/", path.display())).into_iter().collect();
        let policy = format!(
            "name = \"demo\"\nhosts = \"demo=yes\"\nsources = {:?}\nexclude = {exclude:?}\n",
            sources.policy_sources()
        );
        println!("  policy applied by label:\n{}", indent(&policy));
        print!("{}", indent(&fleet.apply_policy(&policy)?.success()?.stdout));
        Ok(Self { fleet, sources, kept: folder.join("kept"), began_s, folder: folder.to_owned() })
    }

    fn back_up_and_restore(&self) -> Result<Vec<Line>, String> {
        title("full backups");
        let fulls = self.back_up()?;
        let between = jiff::Timestamp::now();
        for (tree, name) in self.changed_trees() {
            source::keep(&tree, &self.kept.join(name))?;
        }
        title("changes, in the scratch copies only");
        self.change()?;
        title("differential backups");
        let differentials = self.back_up()?;
        title("what was decided, and why");
        report::print_decisions(&self.fleet, &fulls)?;
        report::print_decisions(&self.fleet, &differentials)?;
        title("backups");
        let lines: Vec<Line> =
            fulls.iter().chain(&differentials).map(|run| Line::of(&self.fleet, run)).collect::<Result<_, _>>()?;
        report::print_table(&lines);
        if let Some(line) = lines.iter().find(|line| !line.verified()) {
            return Err(format!("verification did not pass: {line:?}"));
        }
        title(&format!("restore at {between}, between the two"));
        self.restore_and_compare(Some(&between.to_string()), "between")?;
        title("restore of the latest");
        self.restore_and_compare(None, "latest")?;
        title("one single file");
        self.restore_one()?;
        Ok(lines)
    }

    /// The trees that change between the backups, with a name for the copy that is kept of each.
    fn changed_trees(&self) -> Vec<(PathBuf, &'static str)> {
        vec![(self.sources.scratch.clone(), "data"), (self.sources.second_root.clone(), "second-root")]
    }

    fn back_up(&self) -> Result<Vec<Value>, String> {
        let starts: Vec<_> = HOSTS
            .map(|host| (format!("backup of {host}"), vec!["job".to_owned(), "run".to_owned(), format!("{host}/demo")]))
            .into();
        let begun = Instant::now();
        let runs = watch::run_all(&self.fleet, &starts)?;
        println!("  both succeeded after {:.1} s", begun.elapsed().as_secs_f64());
        Ok(runs)
    }

    fn change(&self) -> Result<(), String> {
        let second_scratch = below(&self.sources.second_root, &self.sources.scratch);
        let copies: Vec<_> = self.sources.paths.iter().map(|path| below(&self.sources.second_root, path)).collect();
        let first = changes::apply(&self.sources.scratch, &[]).map_err(|error| format!("changing: {error}"))?;
        let second = changes::apply(&second_scratch, &copies).map_err(|error| format!("changing: {error}"))?;
        println!("  on alpha: {}", first.join("; "));
        println!("  on beta, besides: {}", second.last().map_or("nothing", String::as_str));
        Ok(())
    }

    fn restore_and_compare(&self, at: Option<&str>, name: &str) -> Result<(), String> {
        let target = |host: &str| self.folder.join("restored").join(name).join(host);
        let starts: Vec<_> = HOSTS
            .map(|host| {
                let mut arguments = vec!["restore".to_owned(), host.to_owned(), "--to-dir".to_owned()];
                // A host's own folder is named as that host sees it.
                let folder = target(host);
                std::fs::create_dir_all(self.seen_at(host, &folder)).map_err(|error| error.to_string())?;
                arguments.push(folder.to_string_lossy().into_owned());
                if let Some(at) = at {
                    arguments.extend(["--at".to_owned(), at.to_owned()]);
                }
                Ok((format!("restore of {host}"), arguments))
            })
            .into_iter()
            .collect::<Result<Vec<_>, String>>()?;
        let runs = watch::run_all(&self.fleet, &starts)?;
        for (host, run) in HOSTS.into_iter().zip(&runs) {
            let result = &run["restore"];
            println!("  {host}: {} restored, {} digests checked", result["restored"], result["verified"]);
            self.compare(host, &self.seen_at(host, &target(host)), at.is_some())?;
        }
        Ok(())
    }

    /// Where on this machine a host's folder really is.
    fn seen_at(&self, host: &str, folder: &Path) -> PathBuf {
        if host == HOSTS[0] { folder.to_owned() } else { below(&self.sources.second_root, folder) }
    }

    fn compare(&self, host: &str, restored: &Path, earlier: bool) -> Result<(), String> {
        let tolerance = Tolerance { ignore_owners: !is_root(), ..Tolerance::default() };
        let root = if host == HOSTS[0] { Path::new("/") } else { &self.sources.second_root };
        for path in self.sources.paths.iter().chain([&self.sources.scratch]) {
            let changes = host != HOSTS[0] || path == &self.sources.scratch;
            let expected = match (changes, earlier) {
                (false, _) | (true, false) => below(root, path),
                (true, true) if host == HOSTS[0] => self.kept.join("data"),
                (true, true) => below(&self.kept.join("second-root"), path),
            };
            let differences = compare_trees(&expected, &below(restored, path), tolerance)
                .map_err(|error| format!("comparing {}: {error}", path.display()))?;
            let differences = self.left_out_on_purpose(path, differences);
            let (unreadable, differences): (Vec<_>, Vec<_>) =
                differences.into_iter().partition(|difference| difference.what == UNREADABLE);
            if let Some(first) = unreadable.first() {
                println!(
                    "  {host}: left out, this user may not read them: {} names, {first} the first",
                    unreadable.len()
                );
            }
            if changes || differences.is_empty() {
                verdict(host, path, &differences)?;
            } else {
                self.report_live_changes(host, path, &differences)?;
            }
        }
        Ok(())
    }

    /// What the policy excludes is missing on purpose: the checkout's build output, nothing else.
    fn left_out_on_purpose(&self, path: &Path, differences: Vec<Difference>) -> Vec<Difference> {
        let Some(output) = source::build_output(workspace()) else { return differences };
        let excluded = |difference: &Difference| {
            path.join(OsStr::from_bytes(&difference.path)).starts_with(&output) && difference.what == "only_left"
        };
        differences.into_iter().filter(|difference| !excluded(difference)).collect()
    }

    /// A real path may have changed since it was read: only what did not is held against the restore.
    fn report_live_changes(&self, host: &str, path: &Path, differences: &[Difference]) -> Result<(), String> {
        let (live, real): (Vec<_>, Vec<_>) =
            differences.iter().cloned().partition(|difference| self.changed_meanwhile(path, &difference.path));
        for difference in live.iter().take(MAX_PRINTED) {
            println!("  {host}: changed on this machine meanwhile, not held against the restore: {difference}");
        }
        verdict(host, path, &real)
    }

    /// Whether the name, or (where it is gone) the nearest folder that is left of its way, was changed since the demo began.
    fn changed_meanwhile(&self, root: &Path, name: &[u8]) -> bool {
        let name = root.join(OsStr::from_bytes(name));
        let left = name.ancestors().find_map(|ancestor| std::fs::symlink_metadata(ancestor).ok());
        left.is_some_and(|metadata| metadata.ctime() >= self.began_s)
    }

    fn restore_one(&self) -> Result<(), String> {
        let file = self.sources.scratch.join("files/several-pieces");
        let named = format!("alpha{}", file.display());
        let target = self.folder.join("restored/one");
        std::fs::create_dir_all(&target).map_err(|error| error.to_string())?;
        let begun = Instant::now();
        let answer = self.fleet.coordctl(&["restore", &named, "--to-dir", &target.to_string_lossy(), "-o", "json"])?;
        if answer.code == i32::from(Exit::Warnings.code()) && !is_root() {
            let left = answer.json()?["restore"]["not_settable"].as_u64().unwrap_or(0);
            println!("  {left} attributes of folders on the way were not set: their owner is another user");
        } else {
            answer.success()?;
        }
        let restored = std::fs::read(below(&target, &file)).map_err(|error| format!("{named}: {error}"))?;
        let expected = std::fs::read(&file).map_err(|error| error.to_string())?;
        if restored != expected {
            return Err(format!("{named}: the restored file differs"));
        }
        println!("  {named} restored in {:.2} s, equal", begun.elapsed().as_secs_f64());
        let shown = self.fleet.coordctl(&["cat", &named])?.success()?;
        if shown.bytes != expected {
            return Err(format!("{named}: `coordctl cat` gave other bytes"));
        }
        println!("  coordctl cat {named} gives the same {} bytes", shown.bytes.len());
        Ok(())
    }

    fn print_end(&self, lines: &[Line], begun: Instant) -> Result<(), String> {
        title("the same archives with stock tools");
        if let (Some(full), Some(differential)) = (lines.first(), lines.get(HOSTS.len())) {
            report::print_stock_commands(&full.archive, &differential.archive)?;
        }
        println!("\nall of it took {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn print_hints(&self) {
        title("the fleet goes on running; try");
        println!("  export XDG_CONFIG_HOME={}", self.fleet.config_home().display());
        for line in HINTS {
            println!("  {} {line}", self.fleet.coordctl_path().display());
        }
        println!("  to end it: kill {}", self.fleet.process_ids().join(" "));
    }
}

fn verdict(host: &str, path: &Path, differences: &[Difference]) -> Result<(), String> {
    if differences.is_empty() {
        println!("  {host}: {} equals the source, byte for byte and attribute for attribute", path.display());
        return Ok(());
    }
    for difference in differences.iter().take(MAX_PRINTED) {
        eprintln!("  {host}: {}: {difference}", path.display());
    }
    Err(format!("{host}: {} differs in {} respects after the restore", path.display(), differences.len()))
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
