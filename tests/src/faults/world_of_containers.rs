//! A fleet of containers on a private network: a coordinator, PostgreSQL and agents, each its own host, of an image built here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::container_host::{ContainerHost, GROUND, Making, Ready, STATE, engine};
use super::host::{Host, Program};
use super::reached::Reached;
use super::server;
use super::world::{Setup, World};
use super::world_of_processes::{DATABASE, coordinator_name, edit_settings};
use crate::harness::build::{binaries, workspace};
use crate::harness::fleet::run;
use crate::harness::postgres::execute;

/// The ports of the listeners in every container.
const MAIN: u16 = 7443;
const ENROL: u16 = 7444;
const POSTGRES: u16 = 5432;

/// A network of the engine; gone when dropped.
#[derive(Debug)]
pub struct Network {
    name: String,
}

impl Network {
    fn make() -> Result<Network, String> {
        let name = format!("coord-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        engine(&["network", "create", &name])?;
        Ok(Network { name })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // With a container left on it, it stays: the engine says which.
        if let Err(error) = engine(&["network", "rm", &self.name]) {
            eprintln!("containers: the network {} is still there: {error}", self.name);
        }
    }
}

/// Builds the image out of the programs as they are now.
fn build_image() -> Result<(), String> {
    let built = binaries().map_err(|error| error.to_string())?;
    let mut script = Command::new(workspace().join("tests/images/build-fleet-image"));
    run(script.args([&built.coordinator, &built.coordctl, &built.agent]))?.success().map(drop)
}

impl World {
    /// Starts a fleet of containers with one coordinator.
    ///
    /// # Errors
    /// What could not be built, started or joined.
    pub fn of_containers(setup: &Setup) -> Result<World, String> {
        build_image()?;
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        let folder = scratch.path().to_owned();
        fs::create_dir_all(folder.join("operator")).map_err(|error| error.to_string())?;
        let network = Network::make()?;
        let making = |command: &[&str], ready, publishes| Making {
            network: network.name.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ready,
            folder: folder.clone(),
            publishes,
        };
        let ready = ["psql", "-h", "127.0.0.1", "-U", "postgres", "-c", "SELECT 1"].map(str::to_owned).to_vec();
        let mut database =
            ContainerHost::new(DATABASE, making(&["coord-postgres"], Ready::Command(ready), Some(POSTGRES)))?;
        database.start()?;
        let published = database.published()?;
        execute(&server::url(&published, "postgres"), &format!("CREATE DATABASE {}", server::DATABASE))?;
        let url = server::url(&format!("{DATABASE}:{POSTGRES}"), server::DATABASE);
        let serve = ["coordinator", "serve", "--state", STATE, "--database", &url];
        let mut coordinator =
            ContainerHost::new(&coordinator_name(1), making(&serve, Ready::StateFile("endpoints.json"), None))?;
        initialise(setup, &coordinator)?;
        coordinator.start()?;
        let mut agents: BTreeMap<String, Box<dyn Host>> = BTreeMap::new();
        for name in &setup.hosts {
            let run = ["coord-agent", "run", "--state", STATE];
            let mut agent = ContainerHost::new(name, making(&run, Ready::AtOnce, None))?;
            join(&coordinator, &agent)?;
            agent.start()?;
            agents.insert(name.clone(), Box::new(agent));
        }
        let world = World {
            agents,
            coordinators: vec![Box::new(coordinator)],
            database: Box::new(database),
            standby: None,
            ways: BTreeMap::new(),
            reached: Reached::below(&folder),
            url: server::url(&published, server::DATABASE),
            states: Vec::new(),
            _network: Some(network),
            scratch,
        };
        for host in &setup.hosts {
            world.await_connected(host)?;
        }
        Ok(world)
    }
}

fn initialise(setup: &Setup, coordinator: &ContainerHost) -> Result<(), String> {
    let (main, enrol) = (format!("{}:{MAIN}", coordinator.name()), format!("{}:{ENROL}", coordinator.name()));
    let (listen, enrol_listen) = (format!("0.0.0.0:{MAIN}"), format!("0.0.0.0:{ENROL}"));
    let init = [
        ["coordinator", "init", "--fleet", "faults", "--state", STATE].as_slice(),
        &["--listen", &listen, "--enrol-listen", &enrol_listen, "--advertise", &main, "--advertise-enrol", &enrol],
    ];
    coordinator.prepare(&init.concat())?.success()?;
    edit_settings(&state_of(coordinator), setup)
}

/// The state folder of a container as this program reaches it.
fn state_of(host: &ContainerHost) -> PathBuf {
    host.file(STATE.as_ref())
}

fn join(coordinator: &ContainerHost, agent: &ContainerHost) -> Result<(), String> {
    fs::create_dir_all(agent.source("/srv")).map_err(|error| error.to_string())?;
    let token = coordinator.run(Program::Coordctl, &["token", "create", "--label", "env=test", "-o", "json"])?;
    let token = token.success()?.json()?;
    let line = token["secret_line"].as_str().ok_or("no secret_line")?;
    fs::write(state_of(agent).join("join-token"), line).map_err(|error| error.to_string())?;
    let (enrol, file) = (format!("{}:{ENROL}", coordinator.name()), format!("{STATE}/join-token"));
    let join = ["coord-agent", "join", "--endpoint", &enrol, "--name", agent.name(), "--token-file", &file];
    let place = ["--state", STATE, "--root", GROUND];
    agent.prepare(&[join.as_slice(), &place].concat())?.success().map(drop)
}
