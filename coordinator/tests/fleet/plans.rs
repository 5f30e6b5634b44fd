//! What a host is given for the time it may be cut off, and what becomes of it afterwards.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use coord_shared::api;
use coord_shared::api::coordinator_message::Message as ToAgent;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::ids::{Generation, InstanceId};
use coord_shared::run::RunState;
use coord_shared::tls::{PeerIdentity, PeerKind};
use coordinator::catalog::{NewCertificate, RunFilter};
use coordinator::pki::{Authority, CertificateOrder};
use fleet_tests::harness::build::binaries;
use fleet_tests::harness::process::Process;
use fleet_tests::harness::wait::wait_for;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::KeyPair;

use super::pauses::{pause, resume};
use super::runs::{Script, apply, dial, hello};
use super::support::Fleet;

const DAILY: &str = "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = { cron = \"0 3 * * *\", zone = \"UTC\", max_duration = \"6h\" }\n";

async fn plan(agent: &mut Script) -> api::Plan {
    agent.wait(|message| if let ToAgent::Plan(plan) = message { Some(plan) } else { None }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_promised_the_backups_of_a_week_and_told_when_something_holds_them_back() {
    let fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    apply(&admin, DAILY).await;
    let instance = InstanceId::random();
    let mut agent = dial(&fleet, &member, hello(instance)).await.unwrap();
    let first = plan(&mut agent).await;
    let [job] = &first.jobs[..] else { panic!("{first:?}") };
    let task = job.task.clone().unwrap();
    assert_eq!((task.sources, task.host_name.as_str(), task.ordinal_floor), (vec![b"/etc".to_vec()], "one", 1));
    assert_eq!((job.held.as_str(), first.runs.len()), ("", 7), "{first:?}");
    assert_eq!(first.runs[0].level(), api::Level::Full, "there is none yet");
    for run in &first.runs[1..] {
        let due = Timestamp::from_microsecond(run.due_at_us).unwrap().to_zoned(TimeZone::UTC);
        let is_day_of_the_full = due.weekday() == Weekday::Sunday;
        assert_eq!(run.level() == api::Level::Full, is_day_of_the_full, "{due}");
    }
    for (run, next) in first.runs.iter().zip(&first.runs[1..]) {
        assert_eq!((run.begin_before_us, run.policy_id.as_str()), (next.due_at_us, task.policy_id.as_str()));
        assert_eq!(run.max_duration_s, 6 * 3600);
    }

    let ids = |plan: &api::Plan| plan.runs.iter().map(|run| run.run_id.clone()).collect::<Vec<_>>();
    let mut agent = dial(&fleet, &member, hello(instance)).await.unwrap();
    let second = plan(&mut agent).await;
    assert_eq!(ids(&second), ids(&first), "a promise is kept");

    let mut operator = OperatorServiceClient::new(admin);
    pause(&mut operator, "one", "", 0).await.unwrap();
    let held = plan(&mut agent).await;
    assert_eq!((held.runs.len(), held.jobs.len()), (0, 1), "{held:?}");
    assert!(held.jobs[0].held.starts_with("host one is paused"), "{held:?}");
    resume(&mut operator, "one", "").await.unwrap();
    assert_eq!(ids(&plan(&mut agent).await), ids(&first));
    fleet.stop().await;
}

const EVERY_MINUTE: &str = "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = { cron = \"* * * * *\", zone = \"UTC\" }\n";

/// A real agent over folders of its own.
struct Agent {
    folder: tempfile::TempDir,
    process: Option<Process>,
}

impl Agent {
    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn write(&self, name: &str, document: &serde_json::Value) {
        std::fs::create_dir_all(self.state()).unwrap();
        std::fs::write(self.state().join(name), toml::to_string(document).unwrap()).unwrap();
    }

    fn identify(&self, fleet: &Fleet, host: &str, generation: u32, certificate: &str, key: &str) {
        let identity = serde_json::json!({
            "fleet": "test", "host_id": host, "host_name": "one", "generation": generation,
            "ca_pem": fleet.ca_pem, "certificate_pem": certificate, "key_pem": key,
        });
        self.write("identity.toml", &identity);
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
        }
    }

    /// The agent (again), with a coordinator at these listeners.
    fn start(&mut self, main: &str, enrolment: &str) {
        self.end();
        let root = self.folder.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/hosts"), "127.0.0.1 localhost").unwrap();
        let config = serde_json::json!({
            "root": root, "endpoints": [main], "enrol_endpoints": [enrolment], "cut_off_after_s": 1,
        });
        self.write("agent.toml", &config);
        let mut command = Command::new(binaries().unwrap().agent);
        command.arg("run").arg("--state").arg(self.state());
        let log = self.folder.path().join("log");
        self.process = Some(Process::start("agent", &mut command, &log).unwrap());
    }

    fn log(&self) -> String {
        self.process.as_ref().unwrap().last_lines()
    }
}

fn generation(state: &Path) -> i64 {
    let identity: toml::Value = toml::from_str(&std::fs::read_to_string(state.join("identity.toml")).unwrap()).unwrap();
    identity["generation"].as_integer().unwrap()
}

/// A certificate of the host that ended three days ago, and its key.
async fn ended_certificate(fleet: &Fleet, host: &str, number: u32) -> (String, String) {
    let authority = Authority::load(&fleet.state(), "test").unwrap();
    let now = Timestamp::now() - SignedDuration::from_hours(4 * 24);
    let (issued, key) = authority.issue_with_key(CertificateOrder { kind: PeerKind::Agent, id: host, now }).unwrap();
    let ended = PeerIdentity::from_pem(&issued.pem).unwrap().not_after;
    assert!(Timestamp::now() - SignedDuration::from_hours(3 * 24 - 1) > ended, "{ended}");
    let row = NewCertificate {
        serial: issued.identity.serial.clone(),
        kind: PeerKind::Agent,
        subject: host.to_owned(),
        generation: Generation(number),
        public_key_sha256: issued.identity.public_key_sha256,
        pem: issued.pem.clone(),
        not_after: issued.identity.not_after,
    };
    fleet.catalog.insert_certificate(&row).await.unwrap();
    (issued.pem, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_back_after_three_days_renews_what_has_ended_and_tells_what_it_did_by_its_plan() {
    const PATIENCE: Duration = Duration::from_secs(100);
    let fleet = Fleet::start().await;
    let admin = fleet.admin().await;
    apply(&admin, EVERY_MINUTE).await;
    let (token, key) = (fleet.agent_token(1, Duration::from_secs(60)).await, KeyPair::generate().unwrap());
    let joined = fleet.join(&token, "one", &key).await.unwrap();
    let host = joined.subject_id.as_str();
    let mut agent = Agent { folder: tempfile::tempdir().unwrap(), process: None };
    agent.identify(&fleet, host, 1, &joined.certificate_pem, &key.serialize_pem());
    agent.start(&fleet.main, &fleet.enrolment);
    let agent = tokio::task::spawn_blocking(move || {
        let plan = || agent.state().join("plan").exists().then_some(()).ok_or_else(|| agent.log());
        wait_for("the plan to be at the host", PATIENCE, plan).unwrap();
        agent
    });
    let mut agent = agent.await.unwrap();

    // No coordinator answers, and when one does, the certificate has ended.
    let (certificate, key) = ended_certificate(&fleet, host, 2).await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    agent.identify(&fleet, host, 2, &certificate, &key);
    // It has learnt of the coordinator; where it is told of nobody else, nobody answers.
    agent.end();
    std::fs::remove_file(agent.state().join("contact.json")).unwrap();
    agent.start(&nobody, &nobody);
    let agent = tokio::task::spawn_blocking(move || {
        let begun = || {
            let log = agent.process.as_ref().unwrap().output();
            let (_, rest) = log.split_once("began a run of the plan").unwrap_or_default();
            rest.contains("run succeeded").then_some(()).ok_or_else(|| agent.log())
        };
        wait_for("a backup by the plan", PATIENCE, begun).unwrap();
        agent
    });
    let mut agent = agent.await.unwrap();
    agent.start(&fleet.main, &fleet.enrolment);
    let taken_over = async || {
        let runs = fleet.catalog.runs(RunFilter::default()).await.unwrap();
        let own = runs.into_iter().filter(|run| run.spec.get("from_plan").is_some());
        own.map(|run| run.machine.state).collect::<Vec<_>>()
    };
    let began = std::time::Instant::now();
    while !taken_over().await.contains(&RunState::Succeeded) {
        assert!(began.elapsed() < PATIENCE, "{:?}\n{}", taken_over().await, agent.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(generation(&agent.state()), 3, "a certificate that has ended was renewed");
    drop(tokio::task::spawn_blocking(move || drop(agent)).await);
    fleet.stop().await;
}
