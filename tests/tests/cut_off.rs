//! A host that is cut off goes by its plan, and the coordinator takes over what it did.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::time::Duration;

use serde_json::Value;

use fleet_tests::harness::wait::wait_for;
use fleet_tests::story::{OneHost, SRV_POLICY};
use fleet_tests::tree::compare::list;

/// The policy of the story is due every minute.
const MINUTES: Duration = Duration::from_secs(150);

/// Archives of the host.
fn archives(host: &OneHost) -> usize {
    let files = list(&host.fleet.agent("web-1").unwrap().state.join("archives")).unwrap();
    files.keys().filter(|path| path.ends_with(b".tar.zst")).count()
}

fn status(host: &OneHost) -> String {
    let state = host.fleet.agent("web-1").unwrap().state.to_string_lossy().into_owned();
    host.fleet.agent_tool(&["status", "--state", &state]).unwrap().success().unwrap().stdout
}

fn documents(host: &OneHost, arguments: &[&str], name: &str) -> Result<Vec<Value>, String> {
    let answer = host.coordctl(arguments)?.success()?.json()?;
    answer[name].as_array().cloned().ok_or_else(|| answer.to_string())
}

#[test]
fn a_host_whose_coordinator_is_away_backs_up_by_its_plan_and_each_run_is_in_the_catalog_once_afterwards() {
    let mut host = OneHost::start().unwrap();
    let state = host.fleet.agent("web-1").unwrap().state.clone();
    host.fleet.agent_process("web-1").unwrap().kill().unwrap();
    let config = fs::read_to_string(state.join("agent.toml")).unwrap();
    assert!(config.contains("cut_off_after_s = 300\n"), "{config}");
    fs::write(state.join("agent.toml"), config.replace("cut_off_after_s = 300", "cut_off_after_s = 2")).unwrap();
    host.fleet.start_agent("web-1").unwrap();
    fs::write(host.source.join("before"), "before").unwrap();
    host.back_up().unwrap();
    host.fleet.apply_policy(&SRV_POLICY.replace("0 2 1 1 *", "* * * * *")).unwrap().success().unwrap();
    let planned =
        || Some(status(&host)).filter(|text| text.contains("backups ahead, next")).ok_or_else(|| status(&host));
    wait_for("the plan to be at the host", Duration::from_secs(60), planned).unwrap();

    host.fleet.coordinator_process().unwrap().kill().unwrap();
    for name in ["first", "second"] {
        let before = archives(&host);
        fs::write(host.source.join(name), name).unwrap();
        let made = || Some(archives(&host)).filter(|count| *count > before).ok_or_else(|| status(&host));
        wait_for(&format!("the {name} backup without a coordinator"), MINUTES, made).unwrap();
    }

    host.fleet.start_coordinator().unwrap();
    let done = || {
        let runs = documents(&host, &["run", "list", "--kind", "backup", "-o", "json"], "runs")?;
        let own: Vec<Value> = runs.iter().filter(|run| !run["from_plan"].is_null()).cloned().collect();
        let succeeded = own.iter().filter(|run| run["state"] == "succeeded").count();
        if succeeded >= 2 { Ok(own) } else { Err(format!("{runs:#?}")) }
    };
    let own = wait_for("the host's own runs to be taken over", Duration::from_secs(60), done).unwrap();
    for run in &own {
        assert_eq!((run["state"].as_str(), run["attempt"].as_u64()), (Some("succeeded"), Some(1)), "{run:#}");
        assert_eq!(
            (run["level"].as_str(), run["asked_by"].as_str()),
            (Some("differential"), Some("schedule")),
            "{run:#}"
        );
        assert!(run["from_plan"]["clock_offset_us"].as_i64().unwrap().abs() < 5_000_000, "{run:#}");
    }
    let shown = host.coordctl(&["run", "show", own[0]["id"].as_str().unwrap()]).unwrap().success().unwrap().stdout;
    assert!(shown.contains("by its host at"), "{shown}");

    // Every instant has one run, and every run that succeeded one backup.
    host.fleet.apply_policy(SRV_POLICY).unwrap().success().unwrap();
    let settled = || {
        let runs = documents(&host, &["run", "list", "--kind", "backup", "--limit", "100", "-o", "json"], "runs")?;
        let is_open = |run: &&Value| !["succeeded", "failed", "missed"].iter().any(|state| run["state"] == **state);
        match runs.iter().find(is_open) {
            Some(open) => Err(open.to_string()),
            None => Ok(runs),
        }
    };
    let runs = wait_for("every run to end", Duration::from_secs(60), settled).unwrap();
    let mut instants: Vec<&str> = runs.iter().map(|run| run["due_at"].as_str().unwrap()).collect();
    instants.sort_unstable();
    let all = instants.len();
    instants.dedup();
    assert_eq!(instants.len(), all, "{runs:#?}");
    assert!(runs.iter().all(|run| run["state"] != "failed"), "{runs:#?}");
    let succeeded = runs.iter().filter(|run| run["state"] == "succeeded").count();
    let backups = documents(&host, &["backup", "list", "--limit", "100", "-o", "json"], "backups").unwrap();
    assert_eq!(backups.len(), succeeded, "{backups:#?}");
    assert_eq!(host.restored_differs_from(&host.source, None).unwrap(), vec![]);
}
