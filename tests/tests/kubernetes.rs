//! A Kubernetes CronJob as the schedule (deploy/kubernetes): its own command line, run against a real fleet as Kubernetes would run it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use coord_shared::exit::Exit;
use fleet_tests::harness::fleet::{Answer, Fleet};
use fleet_tests::harness::postgres::Database;
use fleet_tests::harness::process::Process;
use fleet_tests::harness::wait::wait_for;
use rustix::process::Signal;
use serde_json::Value;

/// The documents of a manifest.
fn manifest(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes").join(name);
    let program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let read = Command::new("python3").args(["-c", program]).arg(&path).output().unwrap();
    assert!(read.status.success(), "python3-yaml is needed: {}", String::from_utf8_lossy(&read.stderr));
    serde_json::from_slice(&read.stdout).unwrap()
}

fn cron_job() -> Value {
    let mut documents = manifest("cronjob.yaml");
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

fn pod(job: &Value) -> &Value {
    &job["spec"]["template"]["spec"]
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// A fleet of the host and the policy that the manifest names.
struct Cluster {
    fleet: Fleet,
    source: PathBuf,
    arguments: Vec<String>,
    _scratch: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        let source = root.join("srv");
        fs::create_dir_all(&source).unwrap();
        let mut fleet = Fleet::start(&scratch.path().join("fleet"), Database::obtain().unwrap()).unwrap();
        fleet.add_host("web-17", &root, "role=web").unwrap();
        let policy =
            "name = \"web\"\nhosts = \"role=web\"\nsources = [\"/srv\"]\nschedule = { cron = \"0 2 1 1 *\" }\n";
        fleet.apply_policy(policy).unwrap().success().unwrap();
        let job = cron_job();
        let arguments = texts(&pod(&job["spec"]["jobTemplate"])["containers"][0]["args"]);
        Cluster { fleet, source, arguments, _scratch: scratch }
    }

    /// What a pod runs at the time of the schedule that Kubernetes calls `job_name`.
    fn arguments(&self, job_name: &str) -> Vec<String> {
        self.arguments.iter().map(|argument| argument.replace("$(JOB_NAME)", job_name)).collect()
    }

    fn pod(&self, job_name: &str) -> Answer {
        let arguments = self.arguments(job_name);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).filter(|x| *x != "--no-input").collect();
        self.fleet.coordctl(&arguments).unwrap()
    }

    fn runs(&self) -> Vec<Value> {
        let list = self.fleet.coordctl(&["run", "list", "-o", "json"]).unwrap().success().unwrap().json().unwrap();
        list["runs"].as_array().unwrap().clone()
    }
}

#[test]
fn the_manifest_forbids_two_at_once_and_replaces_pods_only_while_the_run_goes_on() {
    let job = cron_job();
    assert_eq!((job["kind"].as_str(), job["apiVersion"].as_str()), (Some("CronJob"), Some("batch/v1")));
    assert_eq!(job["spec"]["concurrencyPolicy"], "Forbid");
    let template = &job["spec"]["jobTemplate"];
    let container = &pod(template)["containers"][0];
    assert_eq!(texts(&container["command"]), ["coordctl"]);
    let rules = template["spec"]["podFailurePolicy"]["rules"].as_array().unwrap();
    let final_codes = rules.iter().find(|rule| rule["action"] == "FailJob").unwrap();
    assert_eq!(final_codes["onExitCodes"]["containerName"], container["name"]);
    let named: BTreeSet<u64> =
        final_codes["onExitCodes"]["values"].as_array().unwrap().iter().map(|code| code.as_u64().unwrap()).collect();
    // Another pod may see more where the run goes on, or nobody was there to be asked.
    let again = [Exit::Done, Exit::TimedOut, Exit::Unreachable, Exit::Interrupted];
    let ended = Exit::ALL.into_iter().filter(|exit| !again.contains(exit)).map(|exit| u64::from(exit.code()));
    assert_eq!(named, ended.collect::<BTreeSet<u64>>());
    let key = container["env"].as_array().unwrap().iter().find(|entry| entry["name"] == "JOB_NAME").unwrap();
    let field = key["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap();
    assert_eq!(field, "metadata.labels['batch.kubernetes.io/job-name']", "one name for each time of the schedule");
    for document in manifest("login.yaml").iter().filter(|document| document["kind"] == "Job") {
        let volumes =
            |pod: &Value| texts(&pod["volumes"].as_array().unwrap().iter().map(|v| v["name"].clone()).collect());
        assert!(volumes(pod(document)).contains(&"context".to_owned()));
        let config = |pod: &Value| {
            let env = pod["containers"][0]["env"].as_array().unwrap().clone();
            env.into_iter().find(|entry| entry["name"] == "COORDCTL_CONFIG").unwrap()["value"].clone()
        };
        assert_eq!(config(pod(document)), config(pod(template)), "both use one context");
    }
}

#[test]
fn a_time_of_the_schedule_is_one_run_and_its_result_is_the_exit_code() {
    let cluster = Cluster::start();
    fs::write(cluster.source.join("file"), b"content").unwrap();
    let first = cluster.pod("coord-web-17-web-29401080");
    assert_eq!(first.code, 0, "{first:?}");
    let replaced = cluster.pod("coord-web-17-web-29401080");
    assert_eq!(replaced.code, 0, "{replaced:?}");
    assert_eq!(cluster.runs().len(), 1, "the second pod of the same time is answered with the same run");
    let next = cluster.pod("coord-web-17-web-29402520");
    assert_eq!((next.code, cluster.runs().len()), (0, 2), "{next:?}");

    // What was protected is gone: the run fails, and so does every pod of that time.
    fs::rename(&cluster.source, cluster.source.with_extension("away")).unwrap();
    for _ in 0..2 {
        let failed = cluster.pod("coord-web-17-web-29403960");
        assert_eq!(failed.code, i32::from(Exit::Failed.code()), "{failed:?}");
        assert!(failed.stderr.contains("error:"), "{failed:?}");
    }
    assert_eq!(cluster.runs().len(), 3);
}

#[test]
fn a_pod_that_times_out_is_interrupted_or_finds_nobody_says_so_and_the_run_goes_on() {
    let mut cluster = Cluster::start();
    fs::write(cluster.source.join("file"), b"content").unwrap();
    cluster.fleet.agent_process("web-17").unwrap().stop().unwrap();
    let place = cluster.arguments.iter().position(|argument| argument == "--timeout").unwrap() + 1;
    let patience = std::mem::replace(&mut cluster.arguments[place], "1s".to_owned());
    let timed_out = cluster.pod("coord-web-17-web-1");
    assert_eq!(timed_out.code, i32::from(Exit::TimedOut.code()), "{timed_out:?}");
    assert!(timed_out.stderr.contains("run continues"), "{timed_out:?}");
    cluster.arguments[place] = patience;

    // Kubernetes ends the next pod.
    let log = cluster.fleet.log("pod");
    let mut command = Command::new(cluster.fleet.coordctl_path());
    command.env("XDG_CONFIG_HOME", cluster.fleet.config_home()).args(cluster.arguments("coord-web-17-web-1"));
    let mut pod = Process::start("pod", &mut command, &log).unwrap();
    let waits = "nothing new is asked for";
    wait_for("the pod to wait", Duration::from_secs(30), || {
        let said = pod.output();
        // It has printed the run that it waits for, after it was told that it is there.
        if said.contains(waits) && said.contains("queued,") { Ok(()) } else { Err(said) }
    })
    .unwrap();
    pod.signal(Signal::TERM).unwrap();
    let status =
        wait_for("the pod to end", Duration::from_secs(30), || pod.ended().ok_or_else(|| "it waits".to_owned()))
            .unwrap();
    assert_eq!(status.code(), Some(i32::from(Exit::Interrupted.code())), "{}", pod.output());
    assert!(pod.output().contains("run continues"), "{}", pod.output());

    cluster.fleet.coordinator_process().unwrap().stop().unwrap();
    let nobody = cluster.pod("coord-web-17-web-1");
    assert_eq!(nobody.code, i32::from(Exit::Unreachable.code()), "{nobody:?}");

    cluster.fleet.start_coordinator().unwrap();
    cluster.fleet.start_agent("web-17").unwrap();
    let done = cluster.pod("coord-web-17-web-1");
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(cluster.runs().len(), 1, "four pods, one run");
}
