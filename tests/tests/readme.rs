//! The commands of the README's long way, in its order and as they stand there, in a shell. Only what belongs to a machine is replaced:
//! addresses, folders, the host's name, and times at which this fleet was not there yet.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use fleet_tests::harness::build::{binaries, workspace};
use fleet_tests::harness::postgres::Database;
use fleet_tests::harness::process::Process;
use fleet_tests::harness::wait::wait_for;

/// What a line of the long way begins with that is no command of ours to run.
const LEFT_OUT: [&str; 1] = ["cargo "];

/// The commands below the heading of the long way: the lines of its blocks, and what the text has between backquotes with a redirection.
fn commands(readme: &str) -> Vec<String> {
    let (_, long_way) = readme.split_once("## The long way\n").unwrap();
    let (long_way, _) = long_way.split_once("## How it compares\n").unwrap();
    let (mut commands, mut fenced) = (Vec::new(), None);
    for line in long_way.replace(" \\\n", " ").lines() {
        match (line.strip_prefix("```"), fenced) {
            (Some(language), None) => fenced = Some(language.is_empty()),
            (Some(_), Some(_)) => fenced = None,
            (None, Some(true)) => commands.push(line.to_owned()),
            (None, Some(false)) => {}
            (None, None) => {
                let quoted = line.split('`').skip(1).step_by(2).filter(|text| text.contains(" > "));
                commands.extend(quoted.map(str::to_owned));
            }
        }
    }
    commands.retain(|command| !command.is_empty() && !LEFT_OUT.iter().any(|word| command.starts_with(word)));
    commands
}

/// A machine of its own for the README: folders, ports, and what runs on it.
struct Machine {
    scratch: tempfile::TempDir,
    programs: PathBuf,
    database: Database,
    ports: [String; 2],
    running: Vec<Process>,
}

impl Machine {
    fn new() -> Machine {
        let free = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = free.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        for (name, content) in
            [("etc/hosts", "127.0.0.1"), ("etc/nginx/nginx.conf", "server {}"), ("srv/page", "hello")]
        {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), content).unwrap();
        }
        let programs = binaries().unwrap().coordctl.parent().unwrap().to_owned();
        Machine { scratch, programs, database: Database::obtain().unwrap(), ports, running: Vec::new() }
    }

    fn at(&self, path: &str) -> String {
        self.scratch.path().join(path).display().to_string()
    }

    /// The command as this machine needs it.
    fn fitted(&self, command: &str) -> String {
        let mut command = command
            .replace("/var/lib/coordinator", &self.at("coordinator"))
            .replace("backup.example.net:7443", &self.ports[0])
            .replace("backup.example.net:7444", &self.ports[1]);
        for time in ["2026-11-20", "\"2h ago\"", "\"yesterday 14:00\""] {
            command = command.replace(&format!("--at {time}"), "--at latest");
            command = command.replace(&format!("--from {time}"), "--from latest");
        }
        if command.starts_with("coordinator init") {
            command += &format!(" --listen {} --enrol-listen {}", self.ports[0], self.ports[1]);
        }
        if command.starts_with("coord-agent join") {
            command += &format!(" --name web-17 --root {}", self.at("root"));
        }
        if command.starts_with("coord-agent archive") {
            command = command.replace("/srv", &self.at("root/srv"));
        }
        if command.starts_with("tar ") {
            let full = newest_archive(&self.scratch.path().join("agent"));
            command = command.replace("20261120T020000Z-full-….tar.zst", &full.display().to_string());
        }
        command
    }

    fn shell(&self, command: &str) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(self.programs.clone()).chain(std::env::split_paths(&path)));
        let mut shell = Command::new("sh");
        shell.args(["-ec", command]).current_dir(self.scratch.path());
        shell.env("PATH", path.unwrap()).env("XDG_CONFIG_HOME", self.at("operator")).env("NO_COLOR", "1");
        shell.env("COORD_AGENT_STATE", self.at("agent")).env("COORDCTL_NO_INPUT", "true");
        if let Some(url) = self.database.url() {
            shell.env("COORDINATOR_DATABASE", url);
        }
        shell
    }

    fn run(&self, command: &str) -> Output {
        let output = self.shell(command).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "$ {command}\n{out}{err}{}", output.status);
        output
    }

    /// Starts what serves until it is ended, and waits until it does.
    fn serve(&mut self, command: &str, ready: impl Fn(&Machine) -> bool) {
        let log = self.scratch.path().join("log");
        let process = Process::start(command, &mut self.shell(&format!("exec {command}")), &log).unwrap();
        self.running.push(process);
        wait_for(command, Duration::from_secs(60), || {
            if ready(self) { Ok(()) } else { Err(fs::read_to_string(&log).unwrap_or_default()) }
        })
        .unwrap();
    }

    fn joins(&mut self, name: &str) {
        let token = self.run("coordctl token create --label role=spare").stdout;
        fs::write(self.at("spare-token"), token).unwrap();
        let state = self.at(name);
        let join = format!("coord-agent join --endpoint {} --token-file spare-token --name {name}", self.ports[1]);
        self.run(&format!("{join} --state {state} --root {}", self.at("spare-root")));
        self.serve(&format!("coord-agent run --state {state}"), |machine| machine.is_connected(name));
    }

    fn is_connected(&self, host: &str) -> bool {
        let shown = self.shell(&format!("coordctl host show {host} -o json")).output().unwrap().stdout;
        serde_json::from_slice::<serde_json::Value>(&shown).is_ok_and(|shown| shown["connected"] == true)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The last that was started ends first: agents before their coordinator.
        while self.running.pop().is_some() {}
    }
}

fn newest_archive(folder: &Path) -> PathBuf {
    let names = fleet_tests::tree::compare::list(folder).unwrap().into_keys();
    let names = names.filter_map(|path| String::from_utf8(path).ok()).filter(|path| path.ends_with(".tar.zst"));
    folder.join(names.max().unwrap())
}

#[test]
fn every_command_of_the_long_way_works_in_its_order() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let mut machine = Machine::new();
    fs::create_dir(machine.at("spare-root")).unwrap();
    let (root, lost) = (PathBuf::from(machine.at("root")), "etc/nginx/nginx.conf");
    let commands = commands(&readme);
    for command in &commands {
        let fitted = machine.fitted(command);
        eprintln!("$ {fitted}");
        match command.as_str() {
            text if text.starts_with("coordinator serve") => {
                let ready = machine.at("coordinator/endpoints.json");
                machine.serve(&fitted, |_| Path::new(&ready).exists());
            }
            "coord-agent run" => machine.serve(&fitted, |machine| machine.is_connected("web-17")),
            text if text.starts_with("coordctl token create") => {
                let token = machine.run(&fitted).stdout;
                fs::write(machine.at("token"), token).unwrap();
            }
            text if text.starts_with("coordctl restore") && !text.contains("--dry-run") => {
                if text.contains("--to web-18") {
                    machine.joins("web-18");
                    machine.run(&fitted);
                    assert_eq!(fs::read(machine.at("spare-root/srv/rescue/etc/hosts")).unwrap(), b"127.0.0.1");
                } else {
                    fs::remove_file(root.join(lost)).unwrap();
                    machine.run(&fitted);
                    assert_eq!(fs::read(root.join(lost)).unwrap(), b"server {}");
                }
            }
            text => {
                if text.starts_with("coord-agent archive diff") {
                    fs::write(root.join("srv/page"), "changed").unwrap();
                }
                if text.starts_with("coord-agent archive reindex") {
                    let cut = fs::OpenOptions::new().write(true).open(machine.at("full.tar.zst")).unwrap();
                    cut.set_len(cut.metadata().unwrap().len() - 10).unwrap();
                }
                machine.run(&fitted);
            }
        }
    }
    assert_eq!(fs::read(root.join("srv/restored/page")).unwrap(), b"changed");
    assert!(Path::new(&machine.at("full.rebuilt.tar.zst")).exists());
    // What was run is what there is to run: a renamed heading must not empty this test.
    for named in
        ["coordinator init", "coord-agent join", "policy init >", "policy preview", "job run", "explain", "tar -xOf"]
    {
        assert!(commands.iter().any(|command| command.contains(named)), "{named}: {commands:#?}");
    }
}
