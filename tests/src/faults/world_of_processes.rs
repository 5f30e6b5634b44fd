//! A fleet of processes on loopback, every connection through a relay of ours.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use coord_shared::failpoint;
use rustix::process::Signal;

use super::host::{Host, Program};
use super::process_host::{Place, ProcessHost, Ready, Service};
use super::proxy::Proxy;
use super::reached::Reached;
use super::server::{self, Server};
use super::world::{Setup, World};
use crate::harness::build::{Binaries, binaries};
use crate::harness::fleet::free_endpoints;
use crate::harness::postgres::execute;

/// The name of the database's host.
pub const DATABASE: &str = "database";

/// The name of the host of its standby.
pub const STANDBY: &str = "standby";

/// The name of a coordinator's host, counted from 1.
#[must_use]
pub fn coordinator_name(number: usize) -> String {
    format!("coordinator-{number}")
}

/// What building a world goes through.
struct Building {
    binaries: Binaries,
    folder: PathBuf,
    reached: Reached,
    ways: BTreeMap<(String, String), Proxy>,
    /// Main and enrolment listener of each coordinator.
    endpoints: Vec<(String, String)>,
}

impl World {
    /// Starts a fleet of processes.
    ///
    /// # Errors
    /// What could not be built, started or joined.
    pub fn of_processes(setup: &Setup) -> Result<World, String> {
        let binaries = binaries().map_err(|error| error.to_string())?;
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        // PostgreSQL's user has to get through.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        let folder = scratch.path().to_owned();
        fs::create_dir(folder.join("logs")).map_err(|error| error.to_string())?;
        let endpoints = (0..setup.coordinators).map(|_| free_endpoints()).collect::<Result<_, _>>()?;
        let reached = Reached::below(&folder);
        let mut building = Building { binaries, folder, reached, ways: BTreeMap::new(), endpoints };
        let server = Server::prepare(&building.folder.join("postgres"))?;
        let mut database = building.host(DATABASE, server.service.clone());
        database.start()?;
        execute(&server::url(&server.address, "postgres"), &format!("CREATE DATABASE {}", server::DATABASE))?;
        let standby = if setup.standby { Some(building.standby(&server)?) } else { None };
        let servers: Vec<&Server> =
            std::iter::once(&server).chain(standby.as_ref().map(|(_, standby)| standby)).collect();
        let mut coordinators = building.coordinators(setup, &servers)?;
        for coordinator in &mut coordinators {
            coordinator.start()?;
        }
        let mut agents = BTreeMap::new();
        for name in &setup.hosts {
            let mut agent = building.agent(name, &mut coordinators)?;
            agent.start()?;
            agents.insert(name.clone(), boxed(agent));
        }
        let Building { reached, ways, .. } = building;
        let world = World {
            agents,
            coordinators: coordinators.into_iter().map(boxed).collect(),
            database: boxed(database),
            standby: standby.map(|(host, server)| (boxed(host), server::url(&server.address, server::DATABASE))),
            ways,
            reached,
            url: server::url(&server.address, server::DATABASE),
            states: Vec::new(),
            _network: None,
            scratch,
        };
        for host in &setup.hosts {
            world.await_connected(host)?;
        }
        Ok(world)
    }
}

fn boxed(host: ProcessHost) -> Box<dyn Host> {
    Box::new(host)
}

impl Building {
    fn host(&self, name: &str, service: Service) -> ProcessHost {
        let place = Place {
            root: self.folder.join("roots").join(name),
            log: self.folder.join("logs").join(format!("{name}.log")),
            config_home: self.folder.join("operator"),
        };
        let mut host = ProcessHost::new(name, service, place, &self.binaries);
        host.set_variable(failpoint::REACHED_VARIABLE, Some(&self.reached.file().to_string_lossy()));
        host
    }

    fn add_way(&mut self, from: &mut ProcessHost, to: &str, address: &str) -> Result<Proxy, String> {
        let proxy = Proxy::start(address)?;
        from.add_way(&proxy);
        self.ways.insert((from.name().to_owned(), to.to_owned()), proxy.clone());
        Ok(proxy)
    }

    /// Starts a standby of the running database, whose commits wait for it from now on.
    fn standby(&self, primary: &Server) -> Result<(ProcessHost, Server), String> {
        let server = Server::standby_of(primary, &self.folder.join("postgres-standby"))?;
        let mut host = self.host(STANDBY, server.service.clone());
        host.start()?;
        let admin = server::url(&primary.address, "postgres");
        execute(&admin, "ALTER SYSTEM SET synchronous_standby_names = '*'")?;
        execute(&admin, "SELECT pg_reload_conf()")?;
        Ok((host, server))
    }

    fn coordinators(&mut self, setup: &Setup, servers: &[&Server]) -> Result<Vec<ProcessHost>, String> {
        let first = self.state(1);
        self.initialise(setup, &first)?;
        let mut made = Vec::new();
        for number in 1..=setup.coordinators {
            let state = self.state(number);
            if number > 1 {
                copy_coordinator(&first, &state, &self.endpoints[number - 1])?;
            }
            let service = Service {
                command: Vec::new(),
                user: None,
                stop_signal: Signal::TERM,
                ready: Ready::File(state.join("endpoints.json")),
            };
            let mut host = self.host(&coordinator_name(number), service);
            fs::create_dir_all(host.source("/")).map_err(|error| error.to_string())?;
            let mut addresses = Vec::new();
            for (name, server) in [DATABASE, STANDBY].into_iter().zip(servers) {
                addresses.push(self.add_way(&mut host, name, &server.address)?.address().to_string());
            }
            let url = server::url_of_any(&addresses, server::DATABASE);
            let program = self.binaries.coordinator.to_string_lossy().into_owned();
            let state = state.to_string_lossy().into_owned();
            host.set_command(vec![program, "serve".into(), "--state".into(), state, "--database".into(), url]);
            made.push(host);
        }
        Ok(made)
    }

    fn state(&self, number: usize) -> PathBuf {
        self.folder.join(coordinator_name(number))
    }

    fn initialise(&self, setup: &Setup, state: &Path) -> Result<(), String> {
        let (main, enrol) = &self.endpoints[0];
        let folder = state.to_string_lossy();
        let mut arguments =
            vec!["init", "--fleet", "faults", "--listen", main, "--enrol-listen", enrol, "--state", &folder];
        for (main, enrol) in &self.endpoints {
            arguments.extend(["--advertise", main, "--advertise-enrol", enrol]);
        }
        let nobody = Service { command: Vec::new(), user: None, stop_signal: Signal::TERM, ready: Ready::AtOnce };
        self.host("init", nobody).run(Program::Coordinator, &arguments)?.success()?;
        edit_settings(state, setup)
    }

    fn agent(&mut self, name: &str, coordinators: &mut [ProcessHost]) -> Result<ProcessHost, String> {
        let state = self.folder.join("hosts").join(name);
        fs::create_dir_all(&state).map_err(|error| error.to_string())?;
        let service = Service { command: Vec::new(), user: None, stop_signal: Signal::TERM, ready: Ready::AtOnce };
        let mut host = self.host(name, service);
        fs::create_dir_all(host.source("/srv")).map_err(|error| error.to_string())?;
        let operator = coordinators.first().ok_or("no coordinator")?;
        let token = operator.run(Program::Coordctl, &["token", "create", "--label", "env=test", "-o", "json"])?;
        let token = token.success()?.json()?;
        let file = state.join("join-token");
        fs::write(&file, token["secret_line"].as_str().ok_or("no secret_line")?).map_err(|error| error.to_string())?;
        let root = host.source("/").to_string_lossy().into_owned();
        let (file, folder) = (file.to_string_lossy().into_owned(), state.to_string_lossy().into_owned());
        let enrol = self.endpoints[0].1.clone();
        let join =
            ["join", "--endpoint", &enrol, "--name", name, "--token-file", &file, "--state", &folder, "--root", &root];
        host.run(Program::Agent, &join)?.success()?;
        let program = self.binaries.agent.to_string_lossy().into_owned();
        let mut command = vec![program, "run".to_owned(), "--state".to_owned(), folder];
        for (coordinator, (main, _)) in coordinators.iter_mut().zip(self.endpoints.clone()) {
            let way = self.add_way(&mut host, coordinator.name(), &main)?;
            coordinator.add_way(&way);
            command.extend(["--endpoint".to_owned(), way.address().to_string()]);
        }
        host.set_command(command);
        Ok(host)
    }
}

/// Another coordinator of the same fleet: the authority and the settings, with listeners of its own.
fn copy_coordinator(from: &Path, to: &Path, (main, enrol): &(String, String)) -> Result<(), String> {
    fs::create_dir(to).map_err(|error| error.to_string())?;
    for name in ["ca.pem", "ca.key", "coordinator.toml"] {
        fs::copy(from.join(name), to.join(name)).map_err(|error| format!("{name}: {error}"))?;
    }
    edit(to, |settings| {
        settings.insert("listen".to_owned(), main.as_str().into());
        settings.insert("enrol_listen".to_owned(), enrol.as_str().into());
    })
}

/// Gives a coordinator the patience of the story.
pub(super) fn edit_settings(state: &Path, setup: &Setup) -> Result<(), String> {
    edit(state, |settings| {
        settings.insert("lease_s".to_owned(), i64::from(setup.lease_s).into());
        settings.insert("heartbeat_s".to_owned(), i64::from(setup.heartbeat_s).into());
    })
}

fn edit(state: &Path, change: impl FnOnce(&mut toml::Table)) -> Result<(), String> {
    let path = state.join("coordinator.toml");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut settings: toml::Table = text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
    change(&mut settings);
    fs::write(&path, settings.to_string()).map_err(|error| format!("{}: {error}", path.display()))
}
