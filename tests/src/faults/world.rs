//! A fleet to do harm to: a database, coordinators side by side, and agents, each a [`Host`].
//!
//! Every tree that is backed up is recorded when it changes, so that at the end every restore point can be held against what was
//! there at its time. A story changes a tree only while no backup of it runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use coord_shared::failpoint;
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use super::host::{Host, Program};
use super::proxy::Proxy;
use super::reached::Reached;
use super::world_of_containers::Network;
use crate::checker::{self, Checked, Ground, Recorded};
use crate::harness::build::{Binaries, binaries};
use crate::harness::fleet::Answer;
use crate::harness::postgres::execute;
use crate::harness::wait::wait_for;
use crate::random::Random;

/// How long anything may take that a story waits for.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Files of a tree that is protected.
const FILES: usize = 12;
/// The largest of them, in words of 8 bytes.
const MOST_WORDS: usize = 1000;
/// The file that stays, in words of 8 bytes.
const BULK_WORDS: usize = 200_000;

/// How large a fleet is, and how patient.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Coordinators side by side.
    pub coordinators: usize,
    /// Names of the hosts.
    pub hosts: Vec<String>,
    /// `lease_s` of the coordinators, in seconds.
    pub lease_s: u32,
    /// `heartbeat_s` of the coordinators, in seconds.
    pub heartbeat_s: u32,
    /// The database has a standby that confirms every commit; of processes only.
    pub standby: bool,
}

impl Setup {
    /// One coordinator and hosts `host-1`, `host-2`, ...; leases short enough for a story.
    #[must_use]
    pub fn of(hosts: usize) -> Setup {
        let hosts = (1..=hosts).map(|number| format!("host-{number}")).collect();
        Setup { coordinators: 1, hosts, lease_s: 6, heartbeat_s: 1, standby: false }
    }

    /// The same with that many coordinators.
    #[must_use]
    pub fn coordinators(self, coordinators: usize) -> Setup {
        Setup { coordinators, ..self }
    }

    /// The same with a standby of the database.
    #[must_use]
    pub fn standby(self) -> Setup {
        Setup { standby: true, ..self }
    }
}

/// See the module. Agents end first, the folder goes last.
pub struct World {
    /// The agents, by host.
    pub agents: BTreeMap<String, Box<dyn Host>>,
    /// The coordinators.
    pub coordinators: Vec<Box<dyn Host>>,
    /// Their database.
    pub database: Box<dyn Host>,
    /// The database's standby, and the catalog's address there.
    pub(super) standby: Option<(Box<dyn Host>, String)>,
    /// Relays from one host to another, by both names; none between containers.
    pub ways: BTreeMap<(String, String), Proxy>,
    /// Points that were passed.
    pub reached: Reached,
    pub(super) url: String,
    pub(super) states: Vec<Recorded>,
    /// Of containers; goes when they are gone.
    pub(super) _network: Option<Network>,
    pub(super) scratch: TempDir,
}

impl World {
    /// The catalog's address for this program; no fault is in its way.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database's machine is gone as by a power cut, and its standby takes over.
    ///
    /// # Errors
    /// There is no standby, or it was not promoted.
    pub fn fail_over(&mut self) -> Result<(), String> {
        let (standby, url) = self.standby.take().ok_or("the database has no standby")?;
        self.database.kill()?;
        execute(&url, "SELECT pg_promote(true, 60)")?;
        (self.database, self.url) = (standby, url);
        Ok(())
    }

    /// A host's agent.
    ///
    /// # Errors
    /// There is no such host.
    pub fn agent(&mut self, name: &str) -> Result<&mut Box<dyn Host>, String> {
        self.agents.get_mut(name).ok_or_else(|| format!("no host {name}"))
    }

    /// The relay that leads from one host to another.
    ///
    /// # Errors
    /// There is none.
    pub fn way(&self, from: &str, to: &str) -> Result<&Proxy, String> {
        self.ways.get(&(from.to_owned(), to.to_owned())).ok_or_else(|| format!("no way from {from} to {to}"))
    }

    /// Runs coordctl on the first coordinator's host.
    ///
    /// # Errors
    /// It could not be started.
    pub fn coordctl(&self, arguments: &[&str]) -> Result<Answer, String> {
        let host = self.coordinators.first().ok_or("no coordinator")?;
        host.run(Program::Coordctl, arguments)
    }

    /// What coordctl says, as JSON.
    ///
    /// # Errors
    /// It did not succeed.
    pub fn ask(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        self.coordctl(&all)?.success()?.json()
    }

    /// The same, asked until it is answered: a coordinator may be away for a moment.
    ///
    /// # Errors
    /// The last answer, when there is no other in time.
    pub fn ask_until_answered(&self, arguments: &[&str]) -> Result<Value, String> {
        wait_for(&format!("an answer to {arguments:?}"), DEADLINE, || self.ask(arguments))
    }

    /// Protects `/srv` of every host under a policy with this name and schedule.
    ///
    /// # Errors
    /// As `coordctl policy apply`.
    pub fn protect(&self, policy: &str, cron: &str) -> Result<(), String> {
        let text = format!(
            "name = \"{policy}\"\nhosts = \"env=test\"\nsources = [\"/srv\"]\nexclude = []\n\
             schedule = {{ cron = \"{cron}\", zone = \"UTC\" }}\n"
        );
        let host = self.coordinators.first().ok_or("no coordinator")?;
        let file = host.source(&format!("/{policy}.toml"));
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        let named = host.named(&format!("/{policy}.toml"));
        self.coordctl(&["policy", "apply", "--yes", "-f", &named])?.success().map(drop)
    }

    /// Changes a host's tree and records it. No backup of it may be running.
    ///
    /// # Errors
    /// The tree cannot be written or copied.
    pub fn change(&mut self, host: &str, random: &mut Random) -> Result<(), String> {
        let source = self.agent(host)?.source("/srv");
        // Nothing reads the tree until it is changed and recorded: hosts' clocks may be off by as much as that takes.
        let since = Timestamp::now();
        mutate(&source, random).map_err(|error| format!("{}: {error}", source.display()))?;
        let tree = self.scratch.path().join("kept").join(format!("{host}-{}", self.states.len()));
        fs::create_dir_all(self.scratch.path().join("kept")).map_err(|error| error.to_string())?;
        crate::demo::keep(&source, &tree)?;
        self.states.push(Recorded { host: host.to_owned(), since, tree });
        Ok(())
    }

    /// Asks for a backup of a job and gives the run's id. The same request, by its key, is repeated until it is answered.
    ///
    /// # Errors
    /// No coordinator takes the request in time.
    pub fn begin_backup(&self, job: &str, level: Option<&str>) -> Result<String, String> {
        let key = uuid::Uuid::new_v4().to_string();
        wait_for(&format!("a run of {job}"), DEADLINE, || self.try_begin_backup(job, &key, level))
    }

    /// The same, asked once: a key gives one run, however often it is used.
    ///
    /// # Errors
    /// No coordinator takes the request now.
    pub fn try_begin_backup(&self, job: &str, key: &str, level: Option<&str>) -> Result<String, String> {
        let mut arguments = vec!["job", "run", job, "--detach", "--key", key];
        arguments.extend(level.iter().flat_map(|level| ["--level", *level]));
        let run = self.ask(&arguments)?;
        run["id"].as_str().map(str::to_owned).ok_or_else(|| format!("no id in {run}"))
    }

    /// The trees that were recorded, oldest first.
    #[must_use]
    pub fn states(&self) -> &[Recorded] {
        &self.states
    }

    /// Waits until a run is in one of these states.
    ///
    /// # Errors
    /// It is not, in time; with what it is.
    pub fn await_run(&self, run: &str, states: &[&str]) -> Result<Value, String> {
        wait_for(&format!("run {run} to be {states:?}"), DEADLINE, || {
            let shown = self.ask(&["run", "show", run])?;
            if states.iter().any(|state| shown["state"] == **state) { Ok(shown) } else { Err(shown.to_string()) }
        })
    }

    /// Waits until a run has ended, well or badly.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn await_end(&self, run: &str) -> Result<Value, String> {
        self.await_run(run, &["succeeded", "failed", "cancelled", "missed"])
    }

    /// Waits until a coordinator sees the host's agent.
    ///
    /// # Errors
    /// None does, in time.
    pub fn await_connected(&self, host: &str) -> Result<(), String> {
        wait_for(&format!("{host} to be connected"), DEADLINE, || {
            let shown = self.ask(&["host", "show", host])?;
            if shown["connected"] == Value::Bool(true) { Ok(()) } else { Err(shown.to_string()) }
        })
    }

    /// Starts a host's agent, to be killed at the nth passage of a point.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start_agent_to_die(&mut self, host: &str, plan: &str) -> Result<(), String> {
        let agent = self.agent(host)?;
        agent.set_variable(failpoint::PLAN_VARIABLE, Some(plan));
        agent.start()?;
        agent.set_variable(failpoint::PLAN_VARIABLE, None);
        Ok(())
    }

    /// Waits until everything that was begun has an end: no open run, nothing on its way into the catalog, every host connected.
    ///
    /// # Errors
    /// What is still open, after a while.
    pub fn settle(&self) -> Result<(), String> {
        for host in self.agents.keys() {
            self.await_connected(host)?;
        }
        wait_for("every run to end and every index to arrive", DEADLINE, || match checker::unfinished(&self.url)? {
            unfinished if unfinished.is_empty() => Ok(()),
            unfinished => Err(unfinished.join("; ")),
        })
    }

    /// Settles, and holds the catalog, the archives and restores against each other and against what was recorded.
    ///
    /// # Errors
    /// Every violation, one a line.
    pub fn check(&self) -> Result<Checked, String> {
        self.settle()?;
        let checked = checker::check(&self.ground()?)?;
        println!("checked: {checked}");
        Ok(checked)
    }

    /// What the checker looks at.
    ///
    /// # Errors
    /// The programs cannot be built.
    pub fn ground(&self) -> Result<Ground<'_>, String> {
        let Binaries { agent, .. } = binaries().map_err(|error| error.to_string())?;
        Ok(Ground {
            url: &self.url,
            agent_program: agent,
            hosts: self.agents.iter().map(|(name, host)| (name.as_str(), host.as_ref())).collect(),
            states: &self.states,
            scratch: self.scratch.path(),
        })
    }

    /// Restores the newest point of a host through the fleet and gives what differs from the tree as it is recorded.
    ///
    /// # Errors
    /// The restore did not succeed.
    pub fn restored_newest_differs(&self, host: &str) -> Result<Vec<String>, String> {
        let name = format!("/restored/{}", uuid::Uuid::new_v4().simple());
        let agent = self.agents.get(host).ok_or_else(|| format!("no host {host}"))?;
        let target = agent.source(&name);
        fs::create_dir_all(&target).map_err(|error| error.to_string())?;
        self.coordctl(&["restore", host, "--to-dir", &name, "--wait"])?.success()?;
        let newest = self.states.iter().rev().find(|state| state.host == host).ok_or("nothing is recorded")?;
        checker::differences(&newest.tree, &target.join("srv"))
    }

    /// The folder of everything this fleet writes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }
}

/// Makes, changes and removes a few files beside one that stays and is larger than all of them, so that differentials are worth it.
fn mutate(root: &Path, random: &mut Random) -> std::io::Result<()> {
    fs::create_dir_all(root)?;
    let bulk = root.join("bulk");
    if !bulk.exists() {
        fs::write(&bulk, (0..BULK_WORDS).flat_map(|_| random.bits().to_le_bytes()).collect::<Vec<u8>>())?;
    }
    for _ in 0..3 {
        let number = random.below(FILES);
        let folder = root.join(format!("folder-{}", number % 3));
        let path = folder.join(format!("file-{number}"));
        if random.below(4) == 0 && path.exists() {
            fs::remove_file(&path)?;
            continue;
        }
        fs::create_dir_all(&folder)?;
        let words = 1 + random.below(MOST_WORDS);
        let content: Vec<u8> = (0..words).flat_map(|_| random.bits().to_le_bytes()).collect();
        fs::write(&path, content)?;
    }
    // Never the same as before: every state is told from every other.
    fs::write(root.join("state"), random.bits().to_string())
}
