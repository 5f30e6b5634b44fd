//! A fleet of real processes: one coordinator, its database, and agents, each with a state folder and a root of its own.
//!
//! Everything listens on loopback at ports of this run. Dropping the fleet ends its processes; its folder goes with `TempDir`.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use super::build::{Binaries, binaries};
use super::postgres::Database;
use super::process::Process;
use super::wait::wait_for;

/// How long a coordinator may take until it serves (the first start makes a database).
const SERVE_DEADLINE: Duration = Duration::from_secs(60);
/// How long an agent may take until the coordinator sees it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// How long a run of the tests may take.
pub const RUN_DEADLINE: Duration = Duration::from_secs(180);

/// A running fleet.
#[derive(Debug)]
pub struct Fleet {
    binaries: Binaries,
    folder: PathBuf,
    database: Database,
    main: String,
    enrol: String,
    coordinator: Option<Process>,
    agents: BTreeMap<String, Agent>,
}

/// One host of the fleet.
#[derive(Debug)]
pub struct Agent {
    /// Its state folder, with its archives.
    pub state: PathBuf,
    /// What it takes for `/`.
    pub root: PathBuf,
    process: Option<Process>,
}

/// What a command of the product printed and how it ended.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
    /// Standard output, as bytes.
    pub bytes: Vec<u8>,
}

impl Answer {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            bytes: output.stdout,
        }
    }

    /// Its standard output as JSON.
    ///
    /// # Errors
    /// It is not JSON; the text holds what it is.
    pub fn json(&self) -> Result<Value, String> {
        serde_json::from_str(&self.stdout)
            .map_err(|error| format!("not JSON ({error}): {}\n{}", self.stdout, self.stderr))
    }

    /// The answer, if it ended with 0.
    ///
    /// # Errors
    /// Any other exit code; the text holds both streams.
    pub fn success(self) -> Result<Self, String> {
        if self.code == 0 { Ok(self) } else { Err(format!("exit {}\n{}{}", self.code, self.stdout, self.stderr)) }
    }
}

impl Fleet {
    /// Initialises and starts a coordinator in `folder`.
    ///
    /// # Errors
    /// What could not be built, started, or did not answer in time, with the last lines it printed.
    pub fn start(folder: &Path, database: Database) -> Result<Self, String> {
        let binaries = binaries().map_err(|error| error.to_string())?;
        let (main, enrol) = free_endpoints()?;
        fs::create_dir_all(folder.join("logs")).map_err(|error| error.to_string())?;
        let mut fleet = Self {
            binaries,
            folder: folder.to_owned(),
            database,
            main,
            enrol,
            coordinator: None,
            agents: BTreeMap::new(),
        };
        let mut init = fleet.program(&fleet.binaries.coordinator);
        init.args(["init", "--fleet", "demo", "--listen", &fleet.main, "--enrol-listen", &fleet.enrol, "--state"]);
        init.arg(fleet.coordinator_state());
        run(&mut init)?.success().map_err(|text| format!("coordinator init: {text}"))?;
        fleet.start_coordinator()?;
        Ok(fleet)
    }

    /// Starts the coordinator (again) and waits until it serves.
    ///
    /// # Errors
    /// It ended or did not serve in time.
    pub fn start_coordinator(&mut self) -> Result<(), String> {
        let state = self.coordinator_state();
        let mut command = self.program(&self.binaries.coordinator);
        command.arg("serve").arg("--state").arg(&state);
        if let Some(url) = self.database.url() {
            command.args(["--database", url]);
        }
        let ready = state.join("endpoints.json");
        let _absent = fs::remove_file(&ready);
        let mut process = Process::start("coordinator", &mut command, &self.log("coordinator"))
            .map_err(|error| format!("coordinator serve: {error}"))?;
        wait_for("the coordinator to serve", SERVE_DEADLINE, || {
            if let Some(status) = process.ended() {
                return Ok(Err(format!("coordinator ended with {status}:\n{}", process.last_lines())));
            }
            if ready.exists() { Ok(Ok(())) } else { Err(process.last_lines()) }
        })??;
        self.coordinator = Some(process);
        Ok(())
    }

    /// Joins a host and starts its agent, with the labels given (`role=web,env=prod`).
    ///
    /// # Errors
    /// Any step's own words.
    pub fn add_host(&mut self, name: &str, root: &Path, labels: &str) -> Result<(), String> {
        let state = self.folder.join("hosts").join(name).join("state");
        fs::create_dir_all(&state).map_err(|error| error.to_string())?;
        let token = self.token(labels)?;
        let file = state.join("join-token");
        fs::write(&file, token).map_err(|error| error.to_string())?;
        let mut join = self.program(&self.binaries.agent);
        join.args(["join", "--endpoint", &self.enrol, "--name", name, "--token-file"]).arg(&file);
        join.arg("--state").arg(&state).arg("--root").arg(root);
        run(&mut join)?.success().map_err(|text| format!("coord-agent join of {name}: {text}"))?;
        self.agents.insert(name.to_owned(), Agent { state, root: root.to_owned(), process: None });
        self.start_agent(name)
    }

    /// A fresh join token whose hosts get `labels`.
    ///
    /// # Errors
    /// As `coordctl token create`.
    pub fn token(&self, labels: &str) -> Result<String, String> {
        let mut arguments = vec!["token", "create", "-o", "json"];
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            arguments.extend(["--label", label]);
        }
        let answer = self.coordctl(&arguments)?.success()?;
        let token = answer.json()?;
        token["secret_line"].as_str().map(str::to_owned).ok_or_else(|| format!("no secret_line in {token}"))
    }

    /// Starts a joined host's agent (again) and waits until the coordinator sees it.
    ///
    /// # Errors
    /// It ended, or the coordinator does not see it in time.
    pub fn start_agent(&mut self, name: &str) -> Result<(), String> {
        let log = self.log(name);
        let agent_program = self.program(&self.binaries.agent);
        let agent = self.agents.get_mut(name).ok_or_else(|| format!("no host {name}"))?;
        let mut command = agent_program;
        command.arg("run").arg("--state").arg(&agent.state);
        let process = Process::start(name, &mut command, &log).map_err(|error| error.to_string())?;
        agent.process = Some(process);
        wait_for(&format!("{name} to be connected"), CONNECT_DEADLINE, || {
            if let Some(process) = self.agents.get_mut(name).and_then(|agent| agent.process.as_mut())
                && let Some(status) = process.ended()
            {
                return Ok(Err(format!("agent of {name} ended with {status}:\n{}", process.last_lines())));
            }
            let answer = self.coordctl(&["host", "show", name, "-o", "json"])?;
            match answer.json() {
                Ok(host) if host["connected"] == Value::Bool(true) => Ok(Ok(())),
                Ok(host) => Err(host.to_string()),
                Err(error) => Err(error),
            }
        })?
    }

    /// Runs `coordctl` with these arguments as the fleet's first operator.
    ///
    /// # Errors
    /// It could not be started.
    pub fn coordctl(&self, arguments: &[&str]) -> Result<Answer, String> {
        run(self.program(&self.binaries.coordctl).arg("--no-input").args(arguments))
    }

    /// Runs `coord-agent` with these arguments, apart from any daemon.
    ///
    /// # Errors
    /// It could not be started.
    pub fn agent_tool(&self, arguments: &[&str]) -> Result<Answer, String> {
        run(self.program(&self.binaries.agent).args(arguments))
    }

    /// Writes a policy file and applies it.
    ///
    /// # Errors
    /// As `coordctl policy apply`.
    pub fn apply_policy(&self, toml: &str) -> Result<Answer, String> {
        let file = self.folder.join(format!("policy-{}.toml", uuid::Uuid::new_v4().simple()));
        fs::write(&file, toml).map_err(|error| error.to_string())?;
        self.coordctl(&["policy", "apply", "--yes", "-f", &file.to_string_lossy()])
    }

    /// Runs a backup of one job and waits for its end; the run as JSON.
    ///
    /// # Errors
    /// It did not succeed; the text holds what `coordctl` printed.
    pub fn backup(&self, host: &str, policy: &str, level: Option<&str>) -> Result<Value, String> {
        let job = format!("{host}/{policy}");
        let mut arguments = vec!["job", "run", &job, "--wait", "--timeout", "170s", "-o", "json"];
        if let Some(level) = level {
            arguments.extend(["--level", level]);
        }
        let answer = self.coordctl(&arguments)?;
        if answer.code != 0 && answer.code != 3 {
            return Err(format!("backup of {job}: exit {}\n{}{}", answer.code, answer.stdout, answer.stderr));
        }
        answer.json()
    }

    /// The built `coordctl`.
    #[must_use]
    pub fn coordctl_path(&self) -> &Path {
        &self.binaries.coordctl
    }

    /// The process ids of agents and coordinator, agents first.
    #[must_use]
    pub fn process_ids(&self) -> Vec<String> {
        let agents = self.agents.values().filter_map(|agent| agent.process.as_ref());
        agents.chain(&self.coordinator).map(|process| process.id().to_string()).collect()
    }

    /// The folder of everything this fleet writes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The coordinator's state folder.
    #[must_use]
    pub fn coordinator_state(&self) -> PathBuf {
        self.folder.join("coordinator")
    }

    /// The enrolment listener, `host:port`.
    #[must_use]
    pub fn enrol_endpoint(&self) -> &str {
        &self.enrol
    }

    /// The coordinator's process, to kill or stop.
    pub fn coordinator_process(&mut self) -> Option<&mut Process> {
        self.coordinator.as_mut()
    }

    /// A host of the fleet.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<&Agent> {
        self.agents.get(name)
    }

    /// A host's process, to kill or stop.
    pub fn agent_process(&mut self, name: &str) -> Option<&mut Process> {
        self.agents.get_mut(name).and_then(|agent| agent.process.as_mut())
    }

    /// Where a process' output goes.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// The environment that makes `coordctl` speak to this fleet, for printing.
    #[must_use]
    pub fn config_home(&self) -> PathBuf {
        self.folder.join("operator")
    }

    /// Lets every process go on after this program's end.
    pub fn leave_running(mut self) {
        for agent in std::mem::take(&mut self.agents).into_values() {
            std::mem::forget(agent.process);
        }
        std::mem::forget(self.coordinator.take());
        std::mem::forget(self.database.clone());
    }

    fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command.env("XDG_CONFIG_HOME", self.config_home()).env("NO_COLOR", "1");
        command
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Agents first, so that none of them spends its last second complaining about a lost coordinator.
        self.agents.clear();
        self.coordinator = None;
    }
}

pub(crate) fn run(command: &mut Command) -> Result<Answer, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(std::process::Stdio::null()).output().map(Answer::of).map_err(|error| format!("{program}: {error}"))
}

/// Two ports that are free now. Another process may take them before the coordinator does; then it says so and ends.
pub(crate) fn free_endpoints() -> Result<(String, String), String> {
    let listener = || TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string());
    let (a, b) = (listener()?, listener()?);
    let text = |l: &TcpListener| l.local_addr().map(|address| address.to_string()).map_err(|error| error.to_string());
    Ok((text(&a)?, text(&b)?))
}
