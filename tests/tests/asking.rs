//! What coordctl asks and shows at a terminal, on a real one: questions before changes, the editor, the pager.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fleet_tests::story::{OneHost, SRV_POLICY};

/// An answer at a terminal: its exit code and all that the screen showed.
struct Screen {
    code: Option<i32>,
    text: String,
}

/// Runs a line of shell on a terminal of its own, with `$CTL` for coordctl, and types into it.
fn at_a_terminal(host: &OneHost, line: &str, typed: &str, environment: &[(&str, &Path)]) -> Screen {
    let mut terminal = terminal(host, line, environment);
    terminal.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = terminal.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    Screen { code: output.status.code(), text }
}

fn terminal(host: &OneHost, line: &str, environment: &[(&str, &Path)]) -> Child {
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--flush", "--command", line, "/dev/null"]);
    terminal.env("CTL", host.fleet.coordctl_path()).env("XDG_CONFIG_HOME", host.fleet.config_home());
    terminal.env("NO_COLOR", "1").env("SHELL", "/bin/sh").env_remove("PAGER").env_remove("VISUAL").env_remove("EDITOR");
    terminal.envs(environment.iter().copied());
    let terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    terminal.unwrap_or_else(|error| panic!("script, of the Debian package bsdutils: {error}"))
}

/// The same, where somebody else does something while the question stands.
fn meanwhile_at_a_terminal(
    host: &OneHost,
    (line, environment): (&str, &[(&str, &Path)]),
    (asks, typed): (&str, &str),
    meanwhile: impl FnOnce(),
) -> Screen {
    let mut asked = terminal(host, line, environment);
    let (mut screen, mut byte, mut shown) = (asked.stdout.take().unwrap(), [0], Vec::new());
    while !shown.ends_with(asks.as_bytes()) {
        screen.read_exact(&mut byte).unwrap();
        shown.extend(byte);
    }
    meanwhile();
    asked.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
    let mut text = String::new();
    screen.read_to_string(&mut text).unwrap();
    Screen { code: asked.wait().unwrap().code(), text }
}

fn version_of(host: &OneHost) -> u64 {
    let shown = host.coordctl(&["policy", "show", "srv", "-o", "json"]).unwrap().success().unwrap().json().unwrap();
    shown["version"].as_u64().unwrap()
}

/// An editor that does what a line of shell says with the file `"$1"`.
fn editor(host: &OneHost, name: &str, line: &str) -> PathBuf {
    let path = host.beside(name);
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_change_is_shown_and_asked_about_before_it_is_made() {
    let host = OneHost::start().unwrap();
    let file = host.beside("srv.toml");
    fs::write(&file, SRV_POLICY.replace("0 2 1 1 *", "0 3 1 1 *")).unwrap();
    let line = "\"$CTL\" policy apply -f \"$FILE\"";
    let no = at_a_terminal(&host, line, "n\n", &[("FILE", &file)]);
    assert_eq!(no.code, Some(2), "{}", no.text);
    for shown in ["schedule.cron: \"0 2 1 1 *\" -> \"0 3 1 1 *\"", "[context default] go on? [y/N]", "nothing was done"]
    {
        assert!(no.text.contains(shown), "{shown}: {}", no.text);
    }
    assert_eq!(version_of(&host), 1);
    let yes = at_a_terminal(&host, line, "y\n", &[("FILE", &file)]);
    assert_eq!((yes.code, version_of(&host)), (Some(0), 2), "{}", yes.text);

    // What is surprising is said before the question, and not again after it.
    fs::write(
        &file,
        SRV_POLICY.replace("0 2 1 1 *", "0 3 1 1 *") + "[[override]]\nhosts = \"no=body\"\npriority = 9\n",
    )
    .unwrap();
    let warned = at_a_terminal(&host, line, "y\n", &[("FILE", &file)]);
    let (before, after) = warned.text.split_once("go on? [y/N]").unwrap();
    let idle = "warning: override: override[1] (no=body) is for none of the policy's 1 hosts";
    assert!(before.contains(idle) && !after.contains("warning"), "{}", warned.text);
    assert_eq!((warned.code, version_of(&host)), (Some(0), 3));

    // Somebody else applies a version while the question stands.
    let theirs = SRV_POLICY.replace("0 2 1 1 *", "0 4 1 1 *");
    fs::write(&file, SRV_POLICY.replace("0 2 1 1 *", "0 5 1 1 *")).unwrap();
    let meanwhile = || drop(host.fleet.apply_policy(&theirs).unwrap().success().unwrap());
    let late = meanwhile_at_a_terminal(&host, (line, &[("FILE", &file)]), ("go on? [y/N]", "y\n"), meanwhile);
    assert_eq!((late.code, version_of(&host)), (Some(9), 4), "{}", late.text);
    assert!(late.text.contains("it is version 4, no longer 3"), "{}", late.text);
    for (line, asks, typed, version) in [
        ("\"$CTL\" policy rollback srv --to 1", "go on? [y/N]", "y\n", 5),
        ("\"$CTL\" policy delete srv", "type srv to go on:", "srv\n", 6),
    ] {
        let theirs = SRV_POLICY.replace("0 2 1 1 *", &format!("{version} 4 1 1 *"));
        let meanwhile = || drop(host.fleet.apply_policy(&theirs).unwrap().success().unwrap());
        let late = meanwhile_at_a_terminal(&host, (line, &[]), (asks, typed), meanwhile);
        assert_eq!((late.code, version_of(&host)), (Some(9), version), "{}", late.text);
        assert!(late.text.contains("since it was shown what this would do"), "{}", late.text);
    }

    let config = host.fleet.config_home().join("coordctl/config.toml");
    let open = fs::read_to_string(&config).unwrap();
    fs::write(&config, open.replace("protected = false", "protected = true")).unwrap();
    let protected = at_a_terminal(&host, "\"$CTL\" job pause web-1/srv --reason disks", "\n", &[]);
    assert!(protected.text.contains("[context default, protected] go on? [y/N]"), "{}", protected.text);
    assert_eq!(protected.code, Some(2), "an empty line is no yes: {}", protected.text);
    let severe = at_a_terminal(&host, "\"$CTL\" policy delete srv", "serv\n", &[]);
    assert!(severe.text.contains("[context default, protected] type srv to go on:"), "{}", severe.text);
    assert_eq!((severe.code, version_of(&host)), (Some(2), 6));
}

#[test]
fn an_edited_policy_is_applied_once_it_was_shown_and_what_went_wrong_keeps_the_text() {
    let host = OneHost::start().unwrap();
    let drafts = host.beside("drafts");
    fs::create_dir_all(&drafts).unwrap();
    let kept = || fs::read_dir(&drafts).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
    let edit = |line: &str, typed: &str, editor: &Path| {
        at_a_terminal(&host, line, typed, &[("EDITOR", editor), ("TMPDIR", &drafts)])
    };
    let edits = "\"$CTL\" policy edit srv";
    let later = editor(&host, "later", "sed -i 's/0 2 1 1/0 4 1 1/' \"$1\"");
    let no = edit(edits, "n\n", &later);
    assert_eq!((no.code, version_of(&host)), (Some(2), 1), "{}", no.text);
    let [draft] = kept().try_into().unwrap();
    assert!(
        no.text.contains(&format!("your text is kept: coordctl policy apply -f {}", draft.display())),
        "{}",
        no.text
    );
    assert!(fs::read_to_string(&draft).unwrap().contains("0 4 1 1"));
    assert_eq!(fs::metadata(&draft).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(draft).unwrap();
    let dry = edit("\"$CTL\" policy edit srv -n", "", &later);
    assert!(dry.text.contains("-> \"0 4 1 1 *\"") && dry.text.contains("dry run"), "{}", dry.text);
    let yes = edit(edits, "y\n", &later);
    assert_eq!((yes.code, version_of(&host), kept()), (Some(0), 2, vec![]), "{}", yes.text);
    let none = edit(edits, "", &editor(&host, "none", ":"));
    assert!(none.code == Some(0) && none.text.contains("the text is as it was"), "{}", none.text);

    // A text that is wrong is edited again; the second time it is right.
    let twice = "if grep -q sourcs \"$1\"; then sed -i 's/sourcs/sources/; s/0 4 1 1/0 5 1 1/' \"$1\"; else sed -i 's/sources/sourcs/' \"$1\"; fi";
    let again = edit(edits, "y\ny\n", &editor(&host, "twice", twice));
    assert_eq!((again.code, version_of(&host)), (Some(0), 3), "{}", again.text);
    assert!(again.text.contains("sourcs") && again.text.contains("edit it again?"), "{}", again.text);

    // Somebody else applies a version while the text is open.
    let theirs = host.beside("theirs.toml");
    fs::write(&theirs, SRV_POLICY.replace("0 2 1 1", "0 7 1 1")).unwrap();
    let race = format!("\"$CTL\" policy apply --yes -f {} && sed -i 's/0 5 1 1/0 6 1 1/' \"$1\"", theirs.display());
    let late = edit("\"$CTL\" policy edit srv --yes", "", &editor(&host, "race", &race));
    assert_eq!((late.code, version_of(&host)), (Some(9), 4), "{}", late.text);
    assert!(late.text.contains("it is version 4, no longer 3"), "{}", late.text);
    let [draft] = kept().try_into().unwrap();
    assert!(fs::read_to_string(draft).unwrap().contains("0 6 1 1"), "what was written is kept");
    let renamed = edit(edits, "", &editor(&host, "renamed", "sed -i 's/\"srv\"/\"other\"/' \"$1\""));
    let nobody = host.coordctl(&["policy", "edit", "srv"]).unwrap();
    assert!(nobody.code == 2 && nobody.stderr.contains("--no-input opens no editor"), "{nobody:?}");
    assert!(renamed.code == Some(2) && renamed.text.contains("a policy keeps its name"), "{}", renamed.text);
}

#[test]
fn long_text_goes_through_the_pager_and_tables_never_do() {
    let host = OneHost::start().unwrap();
    for number in 0..40 {
        fs::write(host.source.join(format!("file-{number:02}")), [number]).unwrap();
    }
    let early = host.back_up().unwrap()["ended_at"].as_str().unwrap().to_owned();
    for number in 0..40 {
        fs::remove_file(host.source.join(format!("file-{number:02}"))).unwrap();
    }
    host.back_up().unwrap();
    host.coordctl(&["ls", "web-1/srv"]).unwrap().success().unwrap();
    let pager = Path::new("sed s/^/paged:/");
    let paged = |line: &str| at_a_terminal(&host, line, "", &[("PAGER", pager)]);
    let diff = paged(&format!("\"$CTL\" diff web-1/srv --from {early}"));
    assert_eq!(diff.text.matches("paged:- srv/file-").count(), 40, "{}", diff.text);
    assert!(diff.text.contains("\n0 added (0 B), 40 removed"), "what is said is said afterwards: {}", diff.text);
    let short = paged("\"$CTL\" help selectors");
    assert!(short.text.contains("canary") && !short.text.contains("paged:"), "it fits the screen: {}", short.text);
    let table = paged("for _ in $(seq 30); do \"$CTL\" job list; done; \"$CTL\" ls web-1/srv");
    assert!(table.text.contains("web-1/srv") && !table.text.contains("paged:"), "{}", table.text);
    let piped = paged(&format!("\"$CTL\" diff web-1/srv --from {early} | cat"));
    assert!(piped.text.contains("- srv/file-39") && !piped.text.contains("paged:"), "{}", piped.text);
}
