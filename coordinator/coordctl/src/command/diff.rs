//! `coordctl diff`: what differs between two times.

use std::ffi::OsString;

use clap::Args;
use coord_shared::api::{self, DiffFilesRequest};
use coord_shared::exit::Exit;
use coord_shared::fault::Fault;
use serde_json::{Value, json};

use super::files::{place, say_points};
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Format;
use crate::output::color::Paint;
use crate::output::document::Fields;
use crate::session::Session;
use crate::{complete, completer, json as form, shown};

/// Which path, and between which times.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// HOST or HOST/PATH.
    #[arg(value_name = "HOST[/PATH]", add = completer(complete::places))]
    place: OsString,
    /// The earlier time.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// The later time; default: latest.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Of this policy only.
    #[arg(long, add = completer(complete::policies))]
    policy: Option<String>,
    /// Only how much was added, removed and changed.
    #[arg(long)]
    stat: bool,
    /// Exit with 6 when anything differs.
    #[arg(long)]
    exit_code: bool,
}

/// Runs it.
pub async fn run(session: &mut Session, args: &DiffArgs) -> Result<(), Failure> {
    let place = place(&args.place)?;
    let message = DiffFilesRequest {
        host: place.host,
        path: place.path,
        from: Some(session.at(Some(&args.from))?.to_api()),
        to: Some(session.at(args.to.as_deref())?.to_api()),
        policy: args.policy.clone().unwrap_or_default(),
        only_totals: args.stat,
    };
    let mut stream = answer(session.client.diff_files(request(message)).await)?;
    // Text is printed as it comes, and so are lines of JSON; a document is one.
    let by_row = session.out.format == Format::Jsonl && session.out.fields != Some(Fields::Names);
    let (mut points, mut changes, mut totals) = ((Vec::new(), Vec::new()), Vec::new(), api::DiffTotals::default());
    while let Some(batch) = stream.message().await.map_err(|status| Fault::from(&status))? {
        if !batch.from_points.is_empty() {
            say_points(session, &batch.from_points);
            say_points(session, &batch.to_points);
            points = (batch.from_points, batch.to_points);
        }
        if by_row {
            batch.changes.iter().try_for_each(|change| session.out.row(&form::change(change)))?;
        } else if session.out.is_json() {
            changes.extend(batch.changes.iter().map(form::change));
        } else {
            print(session, &batch.changes)?;
        }
        totals = batch.totals.unwrap_or(totals);
    }
    if session.out.is_json() && (!by_row || args.stat) {
        document(session, args.stat, (points, changes), &totals)?;
    } else if args.stat {
        session.out.print(&format!("{}\n", summary(&totals)))?;
    } else {
        session.out.talk(&summary(&totals));
    }
    let differs = totals.added + totals.removed + totals.changed > 0;
    if args.exit_code && differs { Err(Failure::Ended(Exit::CheckFailed)) } else { Ok(()) }
}

type Points = (Vec<api::RestorePoint>, Vec<api::RestorePoint>);

fn document(
    session: &Session,
    only_totals: bool,
    (points, changes): (Points, Vec<Value>),
    totals: &api::DiffTotals,
) -> Result<(), Failure> {
    let (from, to): (Value, Value) =
        (points.0.iter().map(form::point).collect(), points.1.iter().map(form::point).collect());
    let totals = form::diff_totals(totals);
    if only_totals {
        return session.out.json(&json!({ "from_points": from, "to_points": to, "totals": totals }));
    }
    let all = json!({ "from_points": from, "to_points": to, "totals": totals, "changes": changes });
    session.out.list(&all, "changes")
}

fn print(session: &Session, changes: &[api::FileChange]) -> Result<(), Failure> {
    let text: String = changes
        .iter()
        .map(|change| {
            let paint = match change.change.as_str() {
                "added" => Paint::Good,
                "removed" => Paint::Bad,
                _ => Paint::Header,
            };
            format!("{}\n", session.out.paint(paint, &line(change, session.out.format == Format::Wide)))
        })
        .collect();
    session.out.print(&text)
}

/// `+` added, `-` removed, `~` changed, and in what.
fn line(change: &api::FileChange, wide: bool) -> String {
    let file = change.after.as_ref().or(change.before.as_ref());
    let (path, slash) = file
        .map_or((String::new(), ""), |file| (shown::path(&file.path), if file.kind == "folder" { "/" } else { "" }));
    let sign = match change.change.as_str() {
        "added" => '+',
        "removed" => '-',
        _ => '~',
    };
    let what = if change.what.is_empty() { String::new() } else { format!("  ({})", change.what.join(", ")) };
    let size =
        |file: &Option<api::File>| file.as_ref().map_or_else(|| "-".to_owned(), |file| shown::size(file.size_bytes));
    let sizes =
        if wide { format!("{:>10} {:>10}  ", size(&change.before), size(&change.after)) } else { String::new() };
    format!("{sign} {sizes}{path}{slash}{what}")
}

fn summary(totals: &api::DiffTotals) -> String {
    format!(
        "{} added ({}), {} removed ({}), {} changed ({} of changed content)",
        totals.added,
        shown::size(totals.added_bytes),
        totals.removed,
        shown::size(totals.removed_bytes),
        totals.changed,
        shown::size(totals.changed_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::{line, summary};
    use coord_shared::api::{DiffTotals, File, FileChange};

    #[test]
    fn a_change_is_a_line_that_cannot_speak_to_the_terminal() {
        let file =
            |size_bytes| Some(File { path: b"etc/a\n".to_vec(), kind: "file".into(), size_bytes, ..File::default() });
        let what = vec!["content".to_owned(), "mode".to_owned()];
        let change = FileChange { change: "changed".into(), before: file(10), after: file(2048), what };
        assert_eq!(line(&change, false), "~ etc/a\\n  (content, mode)");
        assert_eq!(line(&change, true), "~       10 B    2.0 KiB  etc/a\\n  (content, mode)");
        let gone = FileChange { change: "removed".into(), before: file(1), ..FileChange::default() };
        assert_eq!(line(&gone, false), "- etc/a\\n");
        let totals = DiffTotals { added: 1, added_bytes: 1024, changed: 2, ..DiffTotals::default() };
        assert_eq!(summary(&totals), "1 added (1.0 KiB), 0 removed (0 B), 2 changed (0 B of changed content)");
    }
}
