//! Every command that a day with a fleet needs, against a fleet of two hosts: each one's exit code, and one fact of its answer.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_tests::harness::fleet::Answer;
use fleet_tests::harness::wait::wait_for;
use fleet_tests::story::OneHost;
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a host to be seen to be away.
const DEADLINE: Duration = Duration::from_secs(60);

/// A fleet of `web-1`, protected by `srv`, and `db-1`, for which there is a folder of policies.
struct Day {
    fleet: OneHost,
    policies: PathBuf,
    db: PathBuf,
    /// What did not answer as it should. All of it is told at the end, since one command rarely depends on another.
    wrong: RefCell<Vec<String>>,
}

const DB_POLICY: &str = r#"
name = "db"
hosts = "role=db"
sources = ["/srv"]
schedule = { cron = "0 2 * * *" }
full = { day = "levelled" }
objectives = { rpo = "26h", rto = "2h" }
"#;

impl Day {
    fn begin() -> Day {
        let mut fleet = OneHost::start().unwrap();
        let (db, policies) = (fleet.beside("db"), fleet.beside("policies"));
        fs::create_dir_all(db.join("srv")).unwrap();
        fs::create_dir_all(&policies).unwrap();
        fs::write(db.join("srv/table"), vec![7; 200_000]).unwrap();
        fs::write(policies.join("db.toml"), DB_POLICY).unwrap();
        fs::write(policies.join("defaults.toml"), "kind = \"defaults\"\nfull = { max_age_days = 14 }\n").unwrap();
        fleet.fleet.add_host("db-1", &db, "role=db,tier=gold").unwrap();
        Day { fleet, policies, db, wrong: RefCell::default() }
    }

    /// Runs a line; a word in quotes may have blanks, and POLICIES is the folder.
    fn says(&self, line: &str, code: i32, fact: &str) -> Answer {
        let parts = line.split('"').enumerate();
        let words: Vec<String> = parts
            .flat_map(|(turn, part)| if turn % 2 == 1 { vec![part] } else { part.split_whitespace().collect() })
            .map(|word| word.replace("POLICIES", &self.policies.to_string_lossy()))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = self.fleet.coordctl(&words).unwrap();
        let said = answer.stdout.contains(fact) || answer.stderr.contains(fact);
        if answer.code != code || !said {
            let told = format!("$ coordctl {line}\n{}{}", answer.stdout, answer.stderr);
            self.wrong.borrow_mut().push(format!("{told}exit {}, not {code} with {fact:?}", answer.code));
        }
        answer
    }

    /// What a command prints, less the line break.
    fn id(&self, line: &str) -> String {
        self.says(line, 0, "").stdout.trim().to_owned()
    }
}

#[test]
fn every_command_of_a_day_ends_as_it_should_and_says_what_was_asked() {
    let mut day = Day::begin();
    policies_are_applied(&day);
    let first = backups_are_taken_and_explained(&day);
    the_schedule_is_looked_at_and_held(&day);
    the_past_is_compared_and_brought_back(&day, &first);
    a_run_is_tried_again_and_another_cancelled(&mut day);
    the_desk_itself(&day);
    a_policy_ends_and_comes_back(&day);
    let wrong = day.wrong.borrow();
    assert!(wrong.is_empty(), "{} answers:\n{}", wrong.len(), wrong.join("\n\n"));
}

fn policies_are_applied(day: &Day) {
    day.says("policy init", 0, "name = \"web\"");
    day.says("policy lint -f POLICIES/db.toml", 0, "db-1");
    day.says("policy preview -f POLICIES/db.toml --host db-1", 0, "srv/table");
    day.says("policy diff -f POLICIES", 0, "the next seven days of db-1");
    day.says("policy diff -f POLICIES --exit-code", 6, "policy db created");
    day.says("policy apply -f POLICIES --dry-run", 0, "dry run: nothing was changed");
    day.says("policy apply -f POLICIES", 2, "repeat with --yes");
    day.says("policy apply -f POLICIES --yes", 0, "protects: db-1");
    day.says("policy diff -f POLICIES --exit-code", 0, "policy db unchanged");
    day.says("policy list --sort applied --limit 1", 0, "1 more, use --limit");
    assert_eq!(day.id("policy list -l role=db -o name"), "db");
    assert_eq!(day.id("policy list --until 2020-01-01 -o name"), "");
    day.says("policy show db --host db-1", 0, "defaults");
    day.says("policy defaults", 0, "max_age_days = 14");
    day.says("policy history db", 0, "its beginning");
    fs::write(day.policies.join("db.toml"), DB_POLICY.replace("26h", "30h")).unwrap();
    day.says("policy apply -f POLICIES/db.toml --yes", 0, "objectives.rpo");
    day.says("policy rollback db --to 1 --dry-run", 0, "version 2 -> 3");
    day.says("policy rollback db --to 1 --yes", 0, "version 2 -> 3");
    day.says("policy rollback db --to 9 --yes", 5, "hint:");
    day.says("report rpo --check", 6, "db-1/db");
}

/// The id of the first backup's run.
fn backups_are_taken_and_explained(day: &Day) -> String {
    day.says("job list", 0, "db-1/db");
    day.says("job run db-1/db --dry-run", 0, "dry run: nothing was changed");
    day.says("job run db-1/db --wait --timeout 170s", 0, "succeeded");
    let first = day.id("run list -l role=db --limit 1 -o name");
    fs::write(day.db.join("srv/table"), vec![8; 200_000]).unwrap();
    fs::write(day.db.join("srv/late"), b"late").unwrap();
    let run = day.id("job run db-1/db --key tonight --detach");
    day.says(&format!("run watch {run} --timeout 170s"), 0, "succeeded");
    assert_eq!(day.id("job run db-1/db --key tonight --detach"), run, "one wish, one run");
    day.says(&format!("run watch {run} -o jsonl"), 0, "\"event\":\"result\"");
    day.says(&format!("run show {run}"), 0, "PASS");
    day.says(&format!("run logs {run}"), 0, "decided: ");
    day.says(&format!("run warnings {run}"), 0, "no ");
    day.says("run list -l role=db --state succeeded --limit 1 --sort took", 0, "there are more, use --limit");
    day.says("job list --sort last-good --limit 1", 0, "web-1/srv");
    assert_eq!(day.id("job list --since \"1h ago\" -o name"), "db-1/db", "what has a good backup since then");
    assert_eq!(day.id("job list --until \"1h ago\" -o name"), "web-1/srv", "what has none since then");
    day.says("job show db-1/db", 0, "levelled");
    day.says("backup list --host db-1 --limit 1", 0, "there are more, use --limit");
    let backup = day.id("backup list --host db-1 --limit 1 -o name");
    day.says(&format!("backup show {backup}"), 0, "protected");
    day.says("explain db-1/db", 0, "* full");
    day.says(&format!("explain {run}"), 0, "differential");
    day.says("what-if -f POLICIES/db.toml --last 90d", 0, "would be");
    first
}

fn the_schedule_is_looked_at_and_held(day: &Day) {
    day.says("schedule --days 14", 0, "db-1/db");
    day.says("schedule --days 14", 0, "1 jobs have levelled fulls");
    day.says("report rpo --check", 0, "db-1/db");
    day.says("report rto", 0, "2h");
    day.says("report dedup", 0, "");
    day.says("limit list", 0, "each-host");
    day.says("limit set evening --fleet --runs 3 -n", 0, "there is none of this name");
    day.says("limit set evening --fleet --runs 3", 0, "limit evening: 3 over the fleet");
    day.says("limit list --sort room", 0, "each host");
    day.says("limit list --sort changed --limit 1", 0, "evening");
    day.says("limit remove evening", 0, "limit evening is gone");
    day.says("fleet pause --reason moving", 2, "repeat with --yes");
    day.says("fleet pause --reason moving --yes", 0, "paused: the fleet until it is resumed");
    day.says("job run db-1/db", 1, "coordctl fleet resume");
    day.says("fleet resume", 0, "the fleet is resumed");
    day.says("host pause db-1 --reason disks --until 2199-01-01", 0, "host db-1 until 2199-01-01");
    day.says("host show db-1", 0, "disks");
    day.says("host resume db-1", 0, "is resumed");
    day.says("policy pause db --reason review --yes", 0, "policy db");
    day.says("policy resume db", 0, "policy db is resumed");
    day.says("job pause db-1/db --reason review", 0, "job db-1/db");
    day.says("status", 0, "review");
    day.says("job resume db-1/db", 0, "job db-1/db is resumed");
    day.says("host label db-1 tier=silver -n", 0, "tier=gold -> role=db,tier=silver");
    day.says("host label db-1 role- -n", 0, "no longer protects db-1: db; its backups stay");
    day.says("host label db-1 tier=silver --yes", 0, "tier=silver");
    day.says("host list -l tier=silver --sort seen", 0, "db-1");
}

fn the_past_is_compared_and_brought_back(day: &Day, first: &str) {
    let before = day.says(&format!("run show {first} -o json"), 0, "").json().unwrap();
    let early = before["ended_at"].as_str().unwrap().to_owned();
    day.says("ls db-1/srv", 0, "late");
    day.says(&format!("cat db-1/srv/late --at \"{early}\""), 5, "hint:");
    day.says("cat db-1/srv/late", 0, "late");
    day.says("history db-1/srv/table", 0, "changed");
    day.says(&format!("diff db-1/srv --from \"{early}\""), 0, "+ srv/late");
    day.says(&format!("diff db-1 --from \"{early}\" --stat --exit-code"), 6, "1 added");
    day.says("catalog status", 0, "db-1/db");
    fs::remove_file(day.db.join("srv/late")).unwrap();
    let plan = day.says("restore db-1/srv/late --plan -o json", 0, "digest").json().unwrap();
    let digest = plan["digest"].as_str().unwrap().to_owned();
    day.says("restore db-1/srv --apply 0123456789abcdef", 9, "coordctl restore --plan");
    day.says("restore db-1/srv/late --dry-run", 0, "dry run: nothing was touched");
    day.says(&format!("restore db-1/srv/late --apply {digest}"), 0, "succeeded");
    assert_eq!(fs::read(day.db.join("srv/late")).unwrap(), b"late");
    fs::write(day.db.join("srv/late"), b"later still").unwrap();
    day.says("restore db-1/srv/late --overwrite always", 2, "repeat with --confirm=db-1");
    day.says("restore db-1/srv/late --overwrite always --confirm=db-1", 0, "succeeded");
    assert_eq!(fs::read(day.db.join("srv/late")).unwrap(), b"late");
}

fn a_run_is_tried_again_and_another_cancelled(day: &mut Day) {
    let (there, away) = (day.db.join("srv"), day.db.join("away"));
    fs::rename(&there, &away).unwrap();
    day.says("job run db-1/db", 1, "error:");
    let failed = day.id("run list --host db-1 --state failed --limit 1 -o name");
    fs::rename(&away, &there).unwrap();
    day.says(&format!("run retry {failed} --dry-run"), 0, "which is failed");
    day.says(&format!("run retry {failed}"), 0, "succeeded");
    // With its host away, a run waits to be cancelled.
    day.fleet.fleet.agent_process("db-1").unwrap().kill().unwrap();
    wait_for("db-1 to be away", DEADLINE, || {
        let shown = day.fleet.coordctl(&["host", "show", "db-1", "-o", "json"])?.success()?.json()?;
        if shown["connected"] == false { Ok(()) } else { Err(shown.to_string()) }
    })
    .unwrap();
    let waiting = day.id("job run db-1/db --detach");
    day.says(&format!("run watch {waiting} --timeout 1s"), 7, "");
    day.says(&format!("run cancel {waiting} -n"), 0, "stop run");
    day.says(&format!("run cancel {waiting}"), 0, "is asked to stop");
    day.says(&format!("run show {waiting}"), 0, "cancelled");
    day.fleet.fleet.start_agent("db-1").unwrap();
    day.says("catalog rebuild db-1/db --timeout 60s --yes", 0, "db-1/db");
}

fn the_desk_itself(day: &Day) {
    let run = day.id("run list --limit 1 -o name");
    let backup = day.id("backup list --limit 1 -o name");
    let known = [("job", "db-1"), ("policy", "db"), ("host", "db-1"), ("run", &run[..8]), ("backup", &backup[..8])];
    for (noun, fact) in known.into_iter().chain([("limit", "each-host"), ("user", "admin")]) {
        for form in ["wide", "json", "jsonl", "yaml", "name"] {
            day.says(&format!("{noun} list -o {form}"), 0, fact);
        }
    }
    day.says("job list --fields", 0, "last_good_at");
    day.says("job list -o jsonl --fields host,policy", 0, "{\"host\":\"db-1\",\"policy\":\"db\"}");
    day.says("token create --label role=web --ttl 30m", 0, "coord-agent join");
    day.says("token list --sort ends --since \"1h ago\" --limit 1", 0, "more, use --limit");
    let token = day.id("token list --limit 1 -o name");
    day.says(&format!("token revoke {token} -n"), 0, "dry run: nothing was changed");
    day.says(&format!("token revoke {token}"), 0, "revoked");
    day.says("user list --sort role", 0, "admin");
    assert_eq!(day.id("user list --until 2020-01-01 -o name"), "");
    day.says("whoami", 0, "admin");
    day.says("version", 0, "coordctl");
    day.says("context list", 0, "current");
    day.says("context show", 0, "protected");
    day.says("context use default --dry-run", 0, "dry run: nothing was changed");
    day.says("login --endpoint 127.0.0.1:1 --token-file /dev/null -n", 2, "holds no token");
    day.says("logout -n", 0, "remove certificate and key");
    for (topic, fact) in [
        ("exit-codes", "  9  "),
        ("time", "yesterday"),
        ("selectors", "role in (web, db)"),
        ("output", "--limit 0 lists all"),
        ("environment", "VISUAL, EDITOR"),
    ] {
        day.says(&format!("help {topic}"), 0, fact);
    }
    for shell in ["bash", "zsh", "fish"] {
        day.says(&format!("completion {shell}"), 0, "coordctl");
    }
    let pages = day.fleet.beside("man");
    fs::create_dir_all(&pages).unwrap();
    day.says(&format!("man {}", pages.display()), 0, "");
    for page in ["coordctl.1", "coordctl-policy-edit.1", "coordctl-job-list.1", "coordctl-fleet-pause.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
    watched(day, &["job", "list", "--watch", "-o", "jsonl"]);
}

/// Watches until Ctrl-C: what is there comes at once, and the last line is the result.
fn watched(day: &Day, words: &[&str]) {
    let mut watch = Command::new(day.fleet.fleet.coordctl_path());
    watch.args(words).env("XDG_CONFIG_HOME", day.fleet.fleet.config_home());
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let read = |line: String| serde_json::from_str::<serde_json::Value>(&line).unwrap();
    let first = read(lines.next().unwrap().unwrap());
    assert_eq!((&first["event"], &first["row"]["host"]), (&"added".into(), &"db-1".into()), "{first}");
    kill_process(Pid::from_child(&watch), Signal::INT).unwrap();
    let last = lines.map(|line| read(line.unwrap())).last().unwrap();
    assert_eq!((&last["event"], last["document"]["jobs"].as_array().map(Vec::len)), (&"result".into(), Some(2)));
    assert_eq!(watch.wait().unwrap().code(), Some(130));
}

fn a_policy_ends_and_comes_back(day: &Day) {
    day.says("policy delete db --dry-run", 0, "db-1 leaves db: its");
    day.says("policy delete db", 2, "repeat with --confirm=db");
    day.says("policy delete db --yes", 2, "repeat with --confirm=db");
    day.says("policy delete db --confirm=db", 0, "its backups are listed and restored as before");
    day.says("job list --policy db", 0, "ended (policy deleted)");
    day.says("backup list --policy db", 0, "protected");
    day.says("job run db-1/db", 1, "hint:");
    day.says("policy rollback db --to 3 --yes", 0, "version 4 -> 5");
    day.says("job list --policy db --sort state", 0, "active");
    day.says("host revoke db-1 -n", 0, "is put out for good");
    day.says("user disable nobody --confirm=nobody", 5, "coordctl user list");
}
