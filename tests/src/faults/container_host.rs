//! A host that is a container with its own network address; its files are folders of this machine, mounted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::host::{Host, Program};
use crate::harness::fleet::{Answer, run};
use crate::harness::wait::wait_for;

/// The image of tests/images/build-fleet-image.
pub const IMAGE: &str = "coord-test-fleet:latest";
/// Where a host's policies look, in the container.
pub const GROUND: &str = "/ground";
/// Where its program keeps what it knows, in the container.
pub const STATE: &str = "/state";
/// How long a program may take until it serves.
const SERVE_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to end before it is killed, in seconds.
const STOP_S: &str = "20";

/// How a container shows that its program serves.
#[derive(Debug, Clone)]
pub enum Ready {
    /// At once, or not by itself.
    AtOnce,
    /// This file is in its state folder; it is removed before the start.
    StateFile(&'static str),
    /// This command ends with 0 in it.
    Command(Vec<String>),
}

/// See the module. Dropping it removes the container.
#[derive(Debug)]
pub struct ContainerHost {
    name: String,
    /// Unique on this machine's engine.
    container: String,
    network: String,
    command: Vec<String>,
    ready: Ready,
    variables: BTreeMap<String, String>,
    ground: PathBuf,
    state: PathBuf,
    operator: PathBuf,
    publishes: Option<u16>,
}

/// What a container is made of.
#[derive(Debug, Clone)]
pub struct Making {
    /// The network, which is also the prefix of its name on this machine.
    pub network: String,
    /// The program with its arguments.
    pub command: Vec<String>,
    /// How it shows that it serves.
    pub ready: Ready,
    /// The fleet's folder on this machine.
    pub folder: PathBuf,
    /// A port that this machine can reach as well.
    pub publishes: Option<u16>,
}

/// Runs the engine's command line.
///
/// # Errors
/// What it said, when it did not end with 0.
pub fn engine(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("docker");
    Ok(run(command.args(arguments))?.success()?.stdout.trim().to_owned())
}

/// Whether a container engine answers.
#[must_use]
pub fn engine_answers() -> bool {
    let mut command = Command::new("docker");
    command.arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl ContainerHost {
    /// A host whose container does not exist yet.
    ///
    /// # Errors
    /// Its folders cannot be made.
    pub fn new(name: &str, making: Making) -> Result<ContainerHost, String> {
        let Making { network, command, ready, folder, publishes } = making;
        let (ground, state) = (folder.join("grounds").join(name), folder.join("states").join(name));
        for path in [&ground, &state] {
            fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let container = format!("{network}-{name}");
        let operator = folder.join("operator");
        Ok(ContainerHost {
            name: name.to_owned(),
            container,
            network,
            command,
            ready,
            variables: BTreeMap::new(),
            ground,
            state,
            operator,
            publishes,
        })
    }

    /// Arguments of `docker run` for a container of this host.
    fn arguments(&self) -> Vec<String> {
        let mount = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let mut all = vec!["--network".to_owned(), self.network.clone(), "--hostname".to_owned(), self.name.clone()];
        for (from, to) in [(&self.ground, GROUND), (&self.state, STATE), (&self.operator, "/operator")] {
            all.extend(["--volume".to_owned(), mount(from, to)]);
        }
        for (name, value) in &self.variables {
            all.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        all
    }

    /// Runs a program in a container of its own that sees this host's files, while the host itself does not run.
    ///
    /// # Errors
    /// The engine's words.
    pub fn prepare(&self, command: &[&str]) -> Result<Answer, String> {
        let mut docker = Command::new("docker");
        docker.args(["run", "--rm"]).args(self.arguments()).arg(IMAGE).args(command);
        run(&mut docker)
    }

    /// The address at which this machine reaches the published port, `host:port`.
    ///
    /// # Errors
    /// It publishes none, or does not run.
    pub fn published(&self) -> Result<String, String> {
        let port = self.publishes.ok_or("no port is published")?;
        let said = engine(&["port", &self.container, &port.to_string()])?;
        said.lines().next().map(str::to_owned).ok_or_else(|| "the engine names no port".to_owned())
    }

    fn exists(&self) -> bool {
        engine(&["inspect", "--format", "{{.Id}}", &self.container]).is_ok()
    }

    fn is_ready(&self) -> Result<(), String> {
        match &self.ready {
            Ready::AtOnce => Ok(()),
            Ready::StateFile(name) if self.state.join(name).exists() => Ok(()),
            Ready::StateFile(_) => Err(self.last_lines()),
            Ready::Command(command) => {
                let mut arguments = vec!["exec", self.container.as_str()];
                arguments.extend(command.iter().map(String::as_str));
                engine(&arguments).map(drop)
            }
        }
    }
}

impl Host for ContainerHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self) -> Result<(), String> {
        if let Ready::StateFile(name) = &self.ready {
            let _absent = fs::remove_file(self.state.join(name));
        }
        if self.exists() {
            engine(&["start", &self.container])?;
        } else {
            let mut docker = Command::new("docker");
            docker.args(["run", "--detach", "--name", &self.container, "--network-alias", &self.name]);
            if let Some(port) = self.publishes {
                docker.arg("--publish").arg(format!("127.0.0.1::{port}"));
            }
            run(docker.args(self.arguments()).arg(IMAGE).args(&self.command))?.success()?;
        }
        wait_for(&format!("{} to serve", self.name), SERVE_DEADLINE, || {
            if !self.is_running() {
                return Ok(Err(format!("{} ended:\n{}", self.name, self.last_lines())));
            }
            self.is_ready().map(Ok)
        })?
    }

    fn stop(&mut self) -> Result<(), String> {
        engine(&["stop", "--time", STOP_S, &self.container]).map(drop)
    }

    fn kill(&mut self) -> Result<(), String> {
        engine(&["kill", &self.container]).map(drop)
    }

    fn pause(&mut self) -> Result<(), String> {
        engine(&["pause", &self.container]).map(drop)
    }

    fn resume(&mut self) -> Result<(), String> {
        engine(&["unpause", &self.container]).map(drop)
    }

    fn cut(&mut self) -> Result<(), String> {
        engine(&["network", "disconnect", &self.network, &self.container]).map(drop)
    }

    fn mend(&mut self) -> Result<(), String> {
        engine(&["network", "connect", "--alias", &self.name, &self.network, &self.container]).map(drop)
    }

    fn is_running(&mut self) -> bool {
        engine(&["inspect", "--format", "{{.State.Running}}", &self.container]).is_ok_and(|said| said == "true")
    }

    fn run(&self, program: Program, arguments: &[&str]) -> Result<Answer, String> {
        let mut command = Command::new("docker");
        command.args(["exec", &self.container]);
        match program {
            Program::Coordinator => command.arg("coordinator"),
            Program::Coordctl => command.args(["coordctl", "--no-input"]),
            Program::Agent => command.arg("coord-agent"),
        };
        run(command.args(arguments))
    }

    fn set_variable(&mut self, name: &str, value: Option<&str>) {
        // A container keeps its environment: the next start makes another one, over the same folders.
        if self.exists() {
            drop(engine(&["rm", "--force", &self.container]));
        }
        match value {
            Some(value) => drop(self.variables.insert(name.to_owned(), value.to_owned())),
            None => drop(self.variables.remove(name)),
        }
    }

    fn source(&self, path: &str) -> PathBuf {
        self.ground.join(path.trim_start_matches('/'))
    }

    fn named(&self, path: &str) -> String {
        format!("{GROUND}/{}", path.trim_start_matches('/'))
    }

    fn file(&self, path: &Path) -> PathBuf {
        let in_state = path.strip_prefix(STATE).map(|rest| self.state.join(rest));
        in_state
            .or_else(|_| path.strip_prefix(GROUND).map(|rest| self.ground.join(rest)))
            .unwrap_or_else(|_| path.to_owned())
    }

    fn last_lines(&self) -> String {
        let mut command = Command::new("docker");
        let said = run(command.args(["logs", "--tail", "15", &self.container]));
        said.map_or_else(|error| error, |answer| answer.stdout + &answer.stderr)
    }
}

impl Drop for ContainerHost {
    fn drop(&mut self) {
        // One that never came to be is no loss.
        drop(engine(&["rm", "--force", "--volumes", &self.container]));
    }
}
