//! Agent, coordinators and database as processes of their own: started in the wrong order, restarted, and asked to leave.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use coordinator::postgres::Private;
use fleet_tests::harness::build::{Binaries, binaries};
use fleet_tests::harness::process::Process;
use fleet_tests::harness::wait::wait_for;
use rustix::process::Signal;

/// Longest wait for anything here: agents wait up to half a minute between two tries.
const PATIENCE: Duration = Duration::from_secs(90);
const POLICY: &str =
    "name = \"srv\"\nhosts = \"role=web\"\nsources = [\"/srv\"]\nschedule = { cron = \"0 2 1 1 *\", zone = \"UTC\" }\n";

/// Everything of a fleet that outlives its processes.
struct Ground {
    folder: tempfile::TempDir,
    programs: Binaries,
    members: [Place; 2],
    database: String,
}

/// Where a coordinator is.
struct Place {
    state: PathBuf,
    main: String,
    enrol: String,
    health: String,
}

impl Ground {
    fn new(database: String, folder: tempfile::TempDir) -> Ground {
        // All are held until each is another.
        let held: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut free = held.iter().map(|one| one.local_addr().unwrap().to_string());
        let mut next = || free.next().unwrap();
        let members = ["state", "second"].map(|name| Place {
            state: folder.path().join(name),
            main: next(),
            enrol: next(),
            health: next(),
        });
        Ground { folder, programs: binaries().unwrap(), members, database }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("COORDCTL_CONFIG", self.path("operator/config.toml")).env("COORDCTL_NO_INPUT", "true");
        command
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Result<String, String> {
        let done = self.program(program).args(arguments).output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if done.status.success() { Ok(text) } else { Err(format!("{text}{}", String::from_utf8_lossy(&done.stderr))) }
    }

    fn coordctl(&self, arguments: &[&str]) -> Result<String, String> {
        self.run(&self.programs.coordctl, arguments)
    }

    fn start(&self, name: &str, command: &mut Command) -> Process {
        Process::start(name, command, &self.path(&format!("{name}.log"))).unwrap()
    }

    fn start_coordinator(&self) -> Process {
        self.start_member(0)
    }

    fn start_member(&self, number: usize) -> Process {
        let place = &self.members[number];
        let mut command = self.program(&self.programs.coordinator);
        command.args(["serve", "--database", &self.database, "--health-listen", &place.health, "--state"]);
        self.start(&format!("coordinator-{number}"), command.arg(&place.state))
    }

    /// What another coordinator of the fleet needs: the authority, and settings with its own listeners.
    fn make_second(&self) {
        let [first, second] = &self.members;
        std::fs::create_dir(&second.state).unwrap();
        for name in ["ca.pem", "ca.key"] {
            std::fs::copy(first.state.join(name), second.state.join(name)).unwrap();
        }
        let settings = std::fs::read_to_string(first.state.join("coordinator.toml")).unwrap();
        let settings = settings.replace(&first.main, &second.main).replace(&first.enrol, &second.enrol);
        std::fs::write(second.state.join("coordinator.toml"), settings).unwrap();
    }

    /// Whether `coord-agent status --check` is content, and what it prints.
    fn host_is_well(&self) -> (bool, String) {
        let done =
            self.program(&self.programs.agent).args(["status", "--check", "--state"]).arg(self.path("host")).output();
        let done = done.unwrap();
        assert!(matches!(done.status.code(), Some(0 | 6)), "{done:?}");
        let text = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn start_agent(&self) -> Process {
        let mut command = self.program(&self.programs.agent);
        self.start("agent", command.args(["run", "--state"]).arg(self.path("host")))
    }

    /// Status and text of an answer about the coordinator's health.
    fn health(&self, number: usize, path: &str) -> Result<(u16, String), String> {
        let said = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(&self.members[number].health).map_err(said)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(said)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").map_err(said)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(said)?;
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(|| text.clone())?;
        Ok((status, text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned()))
    }

    fn wait_until_ready(&self) {
        self.wait_until_member_is_ready(0);
    }

    fn wait_until_member_is_ready(&self, number: usize) {
        wait_for("the coordinator to be ready", PATIENCE, || match self.health(number, "/readyz")? {
            (200, text) => Ok(text),
            (_, text) => Err(text),
        })
        .unwrap();
    }

    fn wait_until_unready_but_live(&self, failed: &str) {
        wait_for("the coordinator not to be ready", PATIENCE, || match self.health(0, "/readyz")? {
            (503, text) if text.starts_with(&format!("FAILED {failed}:")) => Ok(()),
            (_, text) => Err(text),
        })
        .unwrap();
        let (status, text) = self.health(0, "/livez").unwrap();
        assert_eq!(status, 200, "nobody restarts a coordinator for what is not its fault: {text}");
    }

    fn wait_until_connected(&self) {
        wait_for("the host to be connected", PATIENCE, || {
            let shown = self.coordctl(&["host", "show", "web-1", "-o", "json"])?;
            if shown.contains("\"connected\": true") { Ok(()) } else { Err(shown) }
        })
        .unwrap();
    }

    fn back_up(&self) {
        let shown = self.coordctl(&["job", "run", "web-1/srv", "--level", "full", "--wait", "-o", "json"]).unwrap();
        assert!(shown.contains("\"attempt\": 1"), "{shown}");
    }

    /// A fleet of one host and one policy.
    fn found(&self) {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let place = &self.members[0];
        let state = text(place.state.clone());
        let listen = ["--listen", &place.main, "--enrol-listen", &place.enrol];
        self.run(&self.programs.coordinator, &[&["init", "--state", &state][..], &listen].concat()).unwrap();
        let _serving = self.start_coordinator();
        self.wait_until_ready();
        let token = wait_for("the first operator", PATIENCE, || {
            self.coordctl(&["token", "create", "--label", "role=web", "-o", "json"])
        });
        let token: serde_json::Value = serde_json::from_str(&token.unwrap()).unwrap();
        let (file, host, root) = (text(self.path("token")), text(self.path("host")), text(self.path("root")));
        std::fs::write(&file, token["secret_line"].as_str().unwrap()).unwrap();
        std::fs::create_dir_all(self.path("root/srv")).unwrap();
        std::fs::write(self.path("root/srv/file"), "content").unwrap();
        let join = ["join", "--endpoint", &place.enrol, "--name", "web-1", "--token-file", &file];
        self.run(&self.programs.agent, &[&join[..], &["--state", &host, "--root", &root]].concat()).unwrap();
        let policy = text(self.path("policy.toml"));
        std::fs::write(&policy, POLICY).unwrap();
        self.coordctl(&["policy", "apply", "-f", &policy, "--yes"]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_coordinator_and_database_may_be_started_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let place = folder.path().join("postgres");
    let database = Private::start(&place).await.unwrap();
    let ground = Ground::new(database.url(), folder);
    tokio::task::block_in_place(|| ground.found());
    database.stop().await.unwrap();

    // The host is there first, then the coordinator, and the database last.
    let mut agent = ground.start_agent();
    let mut coordinator = ground.start_coordinator();
    tokio::task::block_in_place(|| ground.wait_until_unready_but_live("catalog"));
    assert!(agent.ended().is_none() && coordinator.ended().is_none(), "{}", coordinator.last_lines());
    let database = Private::start(&place).await.unwrap();
    tokio::task::block_in_place(|| {
        ground.wait_until_ready();
        ground.wait_until_connected();
        ground.back_up();
    });

    // The database is restarted under both.
    database.stop().await.unwrap();
    tokio::task::block_in_place(|| ground.wait_until_unready_but_live("catalog"));
    let database = Private::start(&place).await.unwrap();
    tokio::task::block_in_place(|| {
        ground.wait_until_ready();
        ground.back_up();

        // And the coordinator is asked to leave while the agent runs, and comes back.
        coordinator.signal(Signal::TERM).unwrap();
        let ended = coordinator.stop().unwrap();
        assert_eq!(ended.code(), Some(0), "{}", coordinator.last_lines());
        coordinator = ground.start_coordinator();
        ground.wait_until_ready();
        ground.wait_until_connected();
        ground.back_up();
        assert!(agent.ended().is_none(), "{}", agent.last_lines());
        let (well, said) = ground.host_is_well();
        assert!(well && said.contains("connected to"), "{said}");
        agent.stop().unwrap();
        let (well, said) = ground.host_is_well();
        assert!(!well && said.contains("no agent runs"), "{said}");
        coordinator.stop().unwrap();
    });
    database.stop().await.unwrap();
}

/// Bytes that take a while to pack, so that the run can be met in the middle.
const LARGE_BYTES: usize = 192 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_backup_goes_over_to_a_coordinator_that_its_host_was_only_told_of() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let database = Private::start(&folder.path().join("postgres")).await.unwrap();
    let ground = Ground::new(database.url(), folder);
    tokio::task::block_in_place(|| {
        ground.found();
        ground.make_second();
        let mut state = 7_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        });
        let noise: Vec<u8> = noise.take(LARGE_BYTES / 4).flat_map(u32::to_le_bytes).collect();
        std::fs::write(ground.path("root/srv/large"), noise).unwrap();
        let (mut first, mut second) = (ground.start_member(0), ground.start_member(1));
        ground.wait_until_ready();
        ground.wait_until_member_is_ready(1);
        let told = |number: usize| ground.members[number].main.clone();
        // A coordinator looks for the others whenever it beats: after two beats more it has seen the second.
        let mut beats = std::collections::BTreeSet::new();
        wait_for("the first to know of the second", PATIENCE, || {
            let members = ground.coordctl(&["server", "members", "-o", "json"])?;
            let list: serde_json::Value = serde_json::from_str(&members).map_err(|error| error.to_string())?;
            let list = list["coordinators"].as_array().cloned().unwrap_or_default();
            let of = |number: usize| list.iter().find(|one| one["endpoints"][0] == told(number).as_str());
            if let (Some(first), Some(_)) = (of(0), of(1)) {
                beats.insert(first["last_beat_at"].as_str().unwrap_or_default().to_owned());
            }
            if beats.len() > 2 { Ok(()) } else { Err(members) }
        })
        .unwrap();
        let mut agent = ground.start_agent();
        ground.wait_until_connected();
        let contact = ground.path("host/contact.json");
        wait_for("the host to be told of the second", PATIENCE, || {
            let kept = std::fs::read_to_string(&contact).map_err(|error| error.to_string())?;
            if kept.contains(&told(1)) { Ok(()) } else { Err(kept) }
        })
        .unwrap();

        let run = ground.coordctl(&["job", "run", "web-1/srv", "--level", "full", "--detach", "-o", "json"]).unwrap();
        let run: serde_json::Value = serde_json::from_str(&run).unwrap();
        let id = run["id"].as_str().unwrap();
        let show = |number: usize| -> Result<serde_json::Value, String> {
            let shown = ground.coordctl(&["--endpoint", &told(number), "run", "show", id, "-o", "json"])?;
            serde_json::from_str(&shown).map_err(|error| error.to_string())
        };
        wait_for("the backup to be running", PATIENCE, || {
            let run = show(0)?;
            if run["state"] == "running" { Ok(()) } else { Err(run.to_string()) }
        })
        .unwrap();
        let left = ground.coordctl(&["server", "drain", "-o", "json"]).unwrap();
        assert!(left.contains("\"draining\""), "{left}");
        let ended = wait_for("the first to have ended", PATIENCE, || first.ended().ok_or_else(|| "runs".to_owned()));
        assert_eq!(ended.unwrap().code(), Some(0), "{}", first.last_lines());
        let run = wait_for("the backup to have ended", PATIENCE, || {
            let run = show(1)?;
            if run["ended_at"].is_null() { Err(run.to_string()) } else { Ok(run) }
        });
        let run = run.unwrap();
        assert_eq!((&run["state"], &run["attempt"]), (&"succeeded".into(), &1.into()), "{run}");
        agent.stop().unwrap();
        second.stop().unwrap();
    });
    database.stop().await.unwrap();
}
