//! The guide to policies, done as it says: its files are written, its commands are run in their order.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use fleet_tests::story::OneHost;

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
        for line in text.lines() {
            let words = words(line);
            assert_eq!(words[0], "coordctl", "{line}");
            let arguments: Vec<String> = words[1..].iter().map(|word| here(word)).collect();
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let answer = host.coordctl(&arguments).unwrap();
            assert_eq!(answer.code, 0, "{line}: {answer:?}");
            for form in ["json", "jsonl", "yaml"] {
                // What only tells something tells it in every form.
                if ["diff", "show", "history", "defaults", "list"].contains(&words[2]) {
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
    host.coordctl(&["policy", "apply", "-f", &path]).unwrap().success().unwrap();
    assert_eq!(host.coordctl(&["policy", "diff", "-f", &path, "--exit-code"]).unwrap().code, 0);

    fs::write(folder.join("web.toml"), "name = \"web\"\nhosts = \"role=db\"\nsources = [\"/etc\"]\n").unwrap();
    let leaving = host.coordctl(&["policy", "apply", "-f", &path]).unwrap().success().unwrap();
    assert!(leaving.stderr.contains("warning: web-1 leaves web: there is no backup of it"), "{}", leaving.stderr);
    let listed = host.coordctl(&["job", "list", "--policy", "web"]).unwrap().success().unwrap();
    assert!(listed.stdout.contains("ended (not selected)"), "{}", listed.stdout);
    let unconfirmed = host.coordctl(&["policy", "delete", "srv"]).unwrap();
    assert_eq!(unconfirmed.code, 2, "{unconfirmed:?}");
    assert!(unconfirmed.stderr.contains("repeat with --confirm=srv"), "{}", unconfirmed.stderr);
}
