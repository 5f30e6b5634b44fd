//! A host that is a process of this machine, in a process group of its own; its network are relays of ours.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::host::{Host, Program};
use super::proxy::{Proxy, Traffic};
use crate::harness::build::Binaries;
use crate::harness::fleet::{Answer, run};
use crate::harness::process::Process;
use crate::harness::wait::wait_for;

/// How long a program may take until it serves.
const SERVE_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// What to start, and how to know that it serves.
#[derive(Debug, Clone)]
pub struct Service {
    /// The program with its arguments.
    pub command: Vec<String>,
    /// User and group that it runs as; `None`: ours.
    pub user: Option<(u32, u32)>,
    /// What asks it to end.
    pub stop_signal: Signal,
    /// Serves when this exists or says so.
    pub ready: Ready,
}

/// How a program shows that it serves.
#[derive(Debug, Clone)]
pub enum Ready {
    /// At once, or not by itself.
    AtOnce,
    /// It writes this file, which is removed before it starts.
    File(PathBuf),
    /// A database that answers at this URL.
    Database(String),
}

/// See the module.
#[derive(Debug)]
pub struct ProcessHost {
    name: String,
    service: Service,
    process: Option<Process>,
    variables: BTreeMap<String, String>,
    /// Every way between it and others.
    ways: Vec<Proxy>,
    root: PathBuf,
    log: PathBuf,
    binaries: Binaries,
    config_home: PathBuf,
}

/// Where a host's things are.
#[derive(Debug, Clone)]
pub struct Place {
    /// What its policies call `/`.
    pub root: PathBuf,
    /// File of its program's output.
    pub log: PathBuf,
    /// Folder with the operator's context.
    pub config_home: PathBuf,
}

impl ProcessHost {
    /// A host that has not started.
    #[must_use]
    pub fn new(name: &str, service: Service, place: Place, binaries: &Binaries) -> ProcessHost {
        ProcessHost {
            name: name.to_owned(),
            service,
            process: None,
            variables: BTreeMap::new(),
            ways: Vec::new(),
            root: place.root,
            log: place.log,
            binaries: binaries.clone(),
            config_home: place.config_home,
        }
    }

    /// What to start, when it is known later than the host itself.
    pub fn set_command(&mut self, command: Vec<String>) {
        self.service.command = command;
    }

    /// A way between it and another: what [`Host::cut`] cuts.
    pub fn add_way(&mut self, proxy: &Proxy) {
        self.ways.push(proxy.clone());
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let Some(pid) = self.process.as_ref().and_then(|process| Pid::from_raw(i32::try_from(process.id()).ok()?))
        else {
            return Err(format!("{} does not run", self.name));
        };
        match kill_process_group(pid, signal) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.to_string()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn set_ways(&self, traffic: Traffic) {
        for way in &self.ways {
            way.set(traffic);
        }
    }

    fn is_ready(&self) -> Result<(), String> {
        match &self.service.ready {
            Ready::AtOnce => Ok(()),
            Ready::File(path) if path.exists() => Ok(()),
            Ready::File(_) => Err(self.last_lines()),
            Ready::Database(url) => crate::harness::postgres::execute(url, "SELECT 1"),
        }
    }
}

impl Host for ProcessHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self) -> Result<(), String> {
        if let Ready::File(path) = &self.service.ready {
            let _absent = fs::remove_file(path);
        }
        let (program, arguments) = self.service.command.split_first().ok_or("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/").process_group(0).env("NO_COLOR", "1").envs(&self.variables);
        if let Some((user, group)) = self.service.user {
            command.uid(user).gid(group);
        }
        let process = Process::start(&self.name, &mut command, &self.log);
        self.process = Some(process.map_err(|error| format!("{}: {program}: {error}", self.name))?);
        wait_for(&format!("{} to serve", self.name), SERVE_DEADLINE, || {
            let ended = self.process.as_mut().and_then(Process::ended);
            match ended {
                // A point at which it was to be killed came first.
                Some(status) if status.signal() == Some(Signal::KILL.as_raw()) => Ok(Ok(())),
                Some(status) => Ok(Err(format!("{} ended with {status}:\n{}", self.name, self.last_lines()))),
                None => self.is_ready().map(Ok),
            }
        })?
    }

    fn stop(&mut self) -> Result<(), String> {
        if self.is_running() {
            self.signal(self.service.stop_signal)?;
            let name = self.name.clone();
            wait_for(&format!("{name} to end"), STOP_DEADLINE, || {
                if self.is_running() { Err(self.last_lines()) } else { Ok(()) }
            })?;
        }
        self.process = None;
        Ok(())
    }

    fn kill(&mut self) -> Result<(), String> {
        self.signal(Signal::KILL)?;
        if let Some(mut process) = self.process.take() {
            process.kill().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), String> {
        self.signal(Signal::STOP)
    }

    fn resume(&mut self) -> Result<(), String> {
        self.signal(Signal::CONT)
    }

    fn cut(&mut self) -> Result<(), String> {
        self.set_ways(Traffic::Held);
        Ok(())
    }

    fn mend(&mut self) -> Result<(), String> {
        self.set_ways(Traffic::Flows);
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    fn run(&self, program: Program, arguments: &[&str]) -> Result<Answer, String> {
        let path = match program {
            Program::Coordinator => &self.binaries.coordinator,
            Program::Coordctl => &self.binaries.coordctl,
            Program::Agent => &self.binaries.agent,
        };
        let mut command = Command::new(path);
        command.env("XDG_CONFIG_HOME", &self.config_home).env("NO_COLOR", "1");
        if program == Program::Coordctl {
            command.arg("--no-input");
        }
        run(command.args(arguments))
    }

    fn set_variable(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => drop(self.variables.insert(name.to_owned(), value.to_owned())),
            None => drop(self.variables.remove(name)),
        }
    }

    fn source(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn named(&self, path: &str) -> String {
        self.source(path).to_string_lossy().into_owned()
    }

    fn file(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn last_lines(&self) -> String {
        self.process.as_ref().map_or_else(|| fs::read_to_string(&self.log).unwrap_or_default(), Process::last_lines)
    }
}

impl Drop for ProcessHost {
    fn drop(&mut self) {
        // Everything it wrote goes with the story: there is nothing to save by asking.
        if self.is_running() {
            drop(self.kill());
        }
    }
}
