//! The guide to policies, done as it says: its files are written, its commands are run in their order.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::time::Duration;

use fleet_tests::harness::wait::wait_for;
use fleet_tests::story::OneHost;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(30);

const GUIDE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/POLICY.md"));

/// Blocks of the guide with what stands behind their fence, in order.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let inside = GUIDE.split("```").skip(1).step_by(2);
    inside.filter_map(|block| block.split_once('\n')).collect()
}

/// A command's words, without the comment behind it.
fn words(line: &str) -> Vec<&str> {
    line.split(" #").next().unwrap().split_whitespace().collect()
}

#[test]
fn every_command_of_the_policy_guide_does_what_it_says() {
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), b"content").unwrap();
    let folder = host.beside("policies");
    fs::create_dir_all(&folder).unwrap();
    let here = |word: &str| match word.strip_prefix("policies/") {
        Some(rest) => folder.join(rest).to_string_lossy().into_owned(),
        None => word.to_owned(),
    };
    let mut commands = 0;
    for (fence, text) in blocks() {
        if let Some(path) = fence.strip_prefix("file ") {
            fs::write(here(path), text).unwrap();
        }
        if fence != "commands" {
            continue;
        }
        if text.contains("coordctl explain") {
            // There is something to explain once a backup was taken.
            host.fleet.backup("web-1", "web", None).unwrap();
        }
        for line in text.lines() {
            let words = words(line);
            assert_eq!(words[0], "coordctl", "{line}");
            let arguments: Vec<String> = words[1..].iter().map(|word| here(word)).collect();
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let answer = host.coordctl(&arguments).unwrap();
            assert_eq!(answer.code, 0, "{line}: {answer:?}");
            if words[1] == "explain" {
                for fact in ["web-1/web", "full", "differential", "why"] {
                    assert!(answer.stdout.contains(fact), "{fact}: {}", answer.stdout);
                }
            }
            for form in ["json", "jsonl", "yaml"] {
                // What only tells something tells it in every form.
                if ["diff", "show", "history", "defaults", "list"].contains(words.get(2).unwrap_or(&"")) {
                    let again = host.coordctl(&[&arguments[..], &["-o", form]].concat()).unwrap();
                    assert_eq!((again.code, again.stdout.is_empty()), (0, false), "{line} -o {form}: {again:?}");
                }
            }
            commands += 1;
        }
    }
    assert!(commands > 10, "{commands}");
    let shown = host.coordctl(&["policy", "show", "web", "--host", "web-1", "-o", "json"]).unwrap().success().unwrap();
    let shown = shown.json().unwrap();
    assert_eq!((shown["state"].as_str(), shown["version"].as_u64()), (Some("active"), Some(5)), "{shown}");
}

#[test]
fn a_diff_ends_with_6_only_when_the_fleet_differs_from_the_folder() {
    let host = OneHost::start().unwrap();
    let folder = host.beside("policies");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.to_string_lossy().into_owned();
    let empty = host.coordctl(&["policy", "apply", "-f", &path]).unwrap();
    assert_eq!(empty.code, 2, "a folder without policies: {empty:?}");
    fs::write(folder.join("web.toml"), "name = \"web\"\nhosts = \"role=web\"\nsources = [\"/etc\"]\n").unwrap();
    fs::write(folder.join("README.md"), "no policy").unwrap();
    let differs = host.coordctl(&["policy", "diff", "-f", &path, "--exit-code"]).unwrap();
    assert_eq!(differs.code, 6, "{differs:?}");
    assert!(differs.stdout.contains("the next seven days of web-1:"), "{}", differs.stdout);
    let asked = host.coordctl(&["policy", "apply", "-f", &path]).unwrap();
    assert_eq!(asked.code, 2, "nobody is there to be asked: {asked:?}");
    assert!(asked.stderr.contains("web becomes what the files say must be confirmed"), "{}", asked.stderr);
    assert!(asked.stderr.contains("repeat with --yes"), "{}", asked.stderr);
    host.coordctl(&["policy", "apply", "-f", &path, "--yes"]).unwrap().success().unwrap();
    let same = host.coordctl(&["policy", "apply", "-f", &path]).unwrap();
    assert_eq!(same.code, 0, "what changes nothing is not asked about: {same:?}");
    assert_eq!(host.coordctl(&["policy", "diff", "-f", &path, "--exit-code"]).unwrap().code, 0);

    fs::write(folder.join("web.toml"), "name = \"web\"\nhosts = \"role=db\"\nsources = [\"/etc\"]\n").unwrap();
    let leaving = host.coordctl(&["policy", "apply", "-f", &path, "--yes"]).unwrap().success().unwrap();
    assert!(leaving.stderr.contains("warning: web-1 leaves web: there is no backup of it"), "{}", leaving.stderr);
    let listed = host.coordctl(&["job", "list", "--policy", "web"]).unwrap().success().unwrap();
    assert!(listed.stdout.contains("ended (not selected)"), "{}", listed.stdout);
    let unconfirmed = host.coordctl(&["policy", "delete", "srv"]).unwrap();
    assert_eq!(unconfirmed.code, 2, "{unconfirmed:?}");
    assert!(unconfirmed.stderr.contains("repeat with --confirm=srv"), "{}", unconfirmed.stderr);
}

#[test]
fn a_label_that_brings_an_override_moves_the_next_run_and_makes_the_next_backup_a_full() {
    const POLICY: &str = r#"
name = "srv"
hosts = "role=web"
sources = ["/srv"]
exclude = []
schedule = { cron = "0 2 1 1 *" }
full = { day = "levelled", max_age_days = 3650 }

[[override]]
hosts = "tier=gold"
exclude = ["*.log"]
schedule = { cron = "0 2 1 7 *" }
"#;
    let host = OneHost::start().unwrap();
    fs::write(host.source.join("file"), vec![7; 10_000]).unwrap();
    fs::write(host.source.join("noise.log"), b"noise").unwrap();
    host.fleet.apply_policy(POLICY).unwrap().success().unwrap();
    let next_run = |month: &str| {
        wait_for("the next run to be worked out", DEADLINE, || {
            let shown = host.coordctl(&["job", "show", "web-1/srv", "-o", "json"])?.success()?.json()?;
            let due = shown["next_due_at"].as_str().and_then(|due| due.get(5..7)).map(str::to_owned);
            if due.as_deref() == Some(month) { Ok(()) } else { Err(format!("{due:?}")) }
        })
        .unwrap();
    };
    assert_eq!(host.back_up().unwrap()["level"], "full");
    fs::write(host.source.join("small"), b"small").unwrap();
    assert_eq!(host.back_up().unwrap()["level"], "differential");
    next_run("01");

    host.coordctl(&["host", "label", "web-1", "tier=gold", "--yes"]).unwrap().success().unwrap();
    next_run("07");
    fs::write(host.source.join("small"), b"smaller").unwrap();
    let run = host.back_up().unwrap();
    assert_eq!(run["level"], "full", "a differential cannot leave out what its full has: {run}");
    let listed = host.coordctl(&["ls", "web-1/srv"]).unwrap().success().unwrap().stdout;
    assert!(listed.contains("small") && !listed.contains("noise.log"), "{listed}");
}
