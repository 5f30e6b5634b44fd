//! `--watch`: a list or a status again and again, printed when it has changed, until Ctrl-C.

use std::time::{Duration, Instant};

use clap::ArgMatches;
use coord_shared::exit::Exit;
use jiff::Timestamp;
use serde_json::Value;

use crate::failure::Failure;
use crate::output::document::{name, only_list};
use crate::output::{Captured, Format};
use crate::session::Session;
use crate::{Command, dispatch};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a coordinator may be away.
const AWAY_PATIENCE: Duration = Duration::from_secs(60);
/// What can be looked at again and again: commands that ask once, and change nothing.
const WATCHED: [&str; 3] = ["status", "list", "show"];

/// Refuses `--watch` on what is no list, show or status.
pub fn refuse_others(matches: &ArgMatches) -> Result<(), Failure> {
    let mut last = ("coordctl", matches);
    while let Some(inner) = last.1.subcommand() {
        last = inner;
    }
    if WATCHED.contains(&last.0) {
        return Ok(());
    }
    let text = format!("--watch goes with lists, shows and status, not with {}", last.0);
    Err(Failure::usage(text, "coordctl run watch RUN follows a run"))
}

/// Runs the command until Ctrl-C. Lines of JSON are events: what is there and changes, by row; the last is the result.
pub async fn follow(session: &mut Session, command: &Command) -> Result<(), Failure> {
    let mut seen: Option<Captured> = None;
    let mut away_since: Option<Instant> = None;
    loop {
        session.out.capture();
        let looked = tokio::select! {
            looked = dispatch(session, command) => looked,
            _ = tokio::signal::ctrl_c() => break,
        };
        let now = session.out.captured();
        match looked {
            // `status --check` has said no; it may say yes soon.
            Ok(()) | Err(Failure::Ended(_)) => {
                away_since = None;
                if seen.as_ref().is_none_or(|before| differs(before, &now)) {
                    print(session, seen.as_ref(), &now)?;
                    seen = Some(now);
                }
            }
            Err(Failure::Fault(fault)) if fault.is_transient() => {
                if away_since.is_none() {
                    session.out.talk(&format!("warning: {}", fault.message));
                }
                if away_since.get_or_insert_with(Instant::now).elapsed() >= AWAY_PATIENCE {
                    return Err(fault.into());
                }
            }
            Err(failure) => return Err(failure),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    // Ctrl-C may have come in the middle of a look.
    session.out.captured();
    if let Some(document) = seen.and_then(|seen| seen.document).filter(|_| session.out.format == Format::Jsonl) {
        session.out.event("result", "document", &document)?;
    }
    Err(Failure::Ended(Exit::Interrupted))
}

/// What the clock alone changes is no change.
fn differs(before: &Captured, now: &Captured) -> bool {
    before.text != now.text || before.talk != now.talk || timeless(before) != timeless(now)
}

fn timeless(captured: &Captured) -> Option<Value> {
    let mut document = captured.document.clone()?;
    if let Value::Object(fields) = &mut document {
        fields.remove("now");
    }
    Some(document)
}

fn print(session: &Session, before: Option<&Captured>, now: &Captured) -> Result<(), Failure> {
    if session.out.format == Format::Jsonl {
        let before = before.and_then(|before| before.document.as_ref());
        for (event, row) in events(before, now.document.as_ref()) {
            session.out.event(event, "row", row)?;
        }
        return Ok(());
    }
    if before.is_some() {
        session.out.talk(&format!("changed at {}", Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ")));
    }
    match &now.document {
        Some(document) => session.out.json(document)?,
        None => session.out.print(&now.text)?,
    }
    now.talk.iter().for_each(|line| session.out.talk(line));
    Ok(())
}

/// What has been added, changed and removed between two looks at a list; of anything else, the whole.
fn events<'a>(before: Option<&'a Value>, now: Option<&'a Value>) -> Vec<(&'static str, &'a Value)> {
    let Some(now) = now else { return Vec::new() };
    let Some(rows) = only_list(now) else { return vec![("changed", now)] };
    let known = before.and_then(only_list).unwrap_or_default();
    let find = |list: &'a [Value], row: &Value| list.iter().find(|other| name(other) == name(row));
    let mut all = Vec::new();
    for row in rows {
        match find(known, row) {
            None => all.push(("added", row)),
            Some(same) if same == row => {}
            Some(_) => all.push(("changed", row)),
        }
    }
    all.extend(known.iter().filter(|row| find(rows, row).is_none()).map(|row| ("removed", row)));
    all
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::CommandFactory;
    use serde_json::json;

    use super::{Captured, differs, events, refuse_others};

    #[test]
    fn a_list_is_told_by_what_became_of_its_rows() {
        let before = json!({ "hosts": [{ "name": "a", "state": "up" }, { "name": "b" }, { "name": "c" }] });
        let now = json!({ "hosts": [{ "name": "a", "state": "away" }, { "name": "c" }, { "name": "d" }] });
        let told: Vec<(&str, &str)> = events(Some(&before), Some(&now))
            .iter()
            .map(|(event, row)| (*event, row["name"].as_str().unwrap()))
            .collect();
        assert_eq!(told, [("changed", "a"), ("added", "d"), ("removed", "b")]);
        assert_eq!(events(None, Some(&now)).len(), 3);
        assert_eq!(events(None, Some(&json!({ "hosts_connected": 1 }))).len(), 1);
    }

    #[test]
    fn the_clock_alone_changes_nothing() {
        let look = |now: &str, runs: u32| Captured {
            document: Some(json!({ "now": now, "runs_open": runs })),
            ..Captured::default()
        };
        assert!(!differs(&look("12:00", 1), &look("12:01", 1)));
        assert!(differs(&look("12:00", 1), &look("12:00", 2)));
    }

    #[test]
    fn only_lists_shows_and_status_are_watched() {
        let read = |words: &[&str]| crate::Arguments::command().try_get_matches_from(words).unwrap();
        assert!(refuse_others(&read(&["coordctl", "run", "list", "--watch"])).is_ok());
        assert!(refuse_others(&read(&["coordctl", "status", "--watch"])).is_ok());
        let error = refuse_others(&read(&["coordctl", "job", "run", "web-1/srv", "--watch"])).unwrap_err();
        assert_eq!(error.exit().code(), 2);
    }
}
