//! `coordctl restore`: brings back what was, and says what it did.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{Args, ValueEnum};
use coord_shared::api::{self, Overwrite, RestoreRequest};
use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};

use super::files::{place, say_points};
use super::job::Waiting;
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// Restores a host, folders or files as they were at a time.
///
/// With no target it goes back where it came from: what is missing is brought back, what is there and equal is left, what is there and
/// different is left and reported (exit 3) unless --overwrite says otherwise.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// HOST or HOST/PATH; several must be of one host.
    #[arg(required = true, value_name = "HOST[/PATH]", add = completer(complete::places))]
    places: Vec<OsString>,
    /// The time (coordctl help time); default: latest.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// From this policy's backups only; default: the newest that has the path.
    #[arg(long, add = completer(complete::policies))]
    policy: Option<String>,
    /// To another joined host that reaches the archives.
    #[arg(long, value_name = "HOST", add = completer(complete::hosts))]
    to: Option<String>,
    /// Into this folder there, which receives the full path.
    #[arg(long, value_name = "DIR")]
    to_dir: Option<OsString>,
    /// What to do with what is there and different.
    #[arg(long, default_value = "never")]
    overwrite: OverwriteWord,
    /// Remove what the backup's selection covers and the restore point has not.
    #[arg(long)]
    delete_extra: bool,
    /// Only names that fit; may be repeated.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// No names that fit; may be repeated.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Say what would be restored, touch nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// The same, with a digest of all that would be done.
    #[arg(long, conflicts_with_all = ["apply", "dry_run"])]
    plan: bool,
    /// Do just what --plan said with this digest; if it would be something else by now, do nothing and exit with 9.
    #[arg(long, value_name = "DIGEST", default_value = "", hide_default_value = true, conflicts_with = "dry_run")]
    apply: String,
    /// The host's name, for a restore that overwrites or removes.
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

/// What to do with what is there and different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverwriteWord {
    /// Leave it and report it.
    Never,
    /// Replace it.
    IfChanged,
    /// Replace it when the backup's is newer.
    IfNewer,
    /// Replace everything.
    Always,
}

/// Runs it.
pub async fn run(session: &mut Session, args: &RestoreArgs) -> Result<(), Failure> {
    let message = read(session, args)?;
    let plan = answer(session.client.plan_restore(request(message.clone())).await)?;
    if args.plan {
        return planned(session, &plan);
    }
    if !args.apply.is_empty() && args.apply != plan.digest {
        let text = format!("what this restore would do has changed since: its plan is {} now", plan.digest);
        return Err(Fault::new(ErrorCode::Changed, text).with_hint("coordctl restore --plan shows it").into());
    }
    if args.dry_run {
        return if session.out.is_json() { session.out.json(&json::plan(&plan)) } else { told(session, &plan) };
    }
    if !args.waiting.detach || !session.out.is_json() {
        say_points(session, &plan.points);
    }
    if args.delete_extra || args.overwrite != OverwriteWord::Never {
        let target = args.to.clone().unwrap_or_else(|| message.host.clone());
        let what = format!("this changes files on {target} that are there now ({})", amount(&plan));
        session.confirm(&target, args.confirm.as_deref(), &what)?;
    } else {
        session.change(&format!("restore {} to {}", amount(&plan), plan.to_host))?;
    }
    let started = answer(session.client.start_restore(request(message)).await)?;
    let run = started.run.ok_or(Failure::Ended(Exit::Failed))?;
    args.waiting.follow(session, run).await
}

fn read(session: &Session, args: &RestoreArgs) -> Result<RestoreRequest, Failure> {
    let mut host = String::new();
    let mut paths = Vec::new();
    for argument in &args.places {
        let place = place(argument)?;
        if host.is_empty() {
            host.clone_from(&place.host);
        } else if host != place.host {
            let text = format!("{host} and {} are two hosts", place.host);
            return Err(Failure::usage(text, "restore one host at a time"));
        }
        paths.push(place.path);
    }
    // A whole host swallows its parts.
    if paths.iter().any(Vec::is_empty) {
        paths.clear();
    }
    let overwrite = match args.overwrite {
        OverwriteWord::Never => Overwrite::Never,
        OverwriteWord::IfChanged => Overwrite::IfChanged,
        OverwriteWord::IfNewer => Overwrite::IfNewer,
        OverwriteWord::Always => Overwrite::Always,
    };
    Ok(RestoreRequest {
        host,
        paths,
        at: Some(session.at(args.at.as_deref())?.to_api()),
        policy: args.policy.clone().unwrap_or_default(),
        to_host: args.to.clone().unwrap_or_default(),
        to_folder: folder(args.to_dir.as_deref())?,
        overwrite: overwrite.into(),
        delete_extra: args.delete_extra,
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        plan_digest: args.apply.clone(),
    })
}

fn folder(to_dir: Option<&OsStr>) -> Result<Vec<u8>, Failure> {
    let bytes = to_dir.map(OsStr::as_bytes).unwrap_or_default();
    if bytes.is_empty() || bytes.starts_with(b"/") {
        return Ok(bytes.to_vec());
    }
    let text = format!("--to-dir {:?} is not absolute", shown::path(bytes));
    Err(Failure::usage(text, "name the folder as the target host sees it, from its root"))
}

/// How much comes back, as far as the catalog could count it.
fn amount(plan: &api::RestorePlan) -> String {
    if plan.at_least && plan.files == 0 {
        return "how many files is not known".to_owned();
    }
    let least = if plan.at_least { "at least " } else { "" };
    format!("{least}{} files, {}", plan.files, shown::size(plan.bytes))
}

fn counted(plan: &api::RestorePlan, number: String) -> String {
    match (plan.at_least, plan.files) {
        (false, _) => number,
        (true, 0) => "not known".to_owned(),
        (true, _) => format!("at least {number}"),
    }
}

/// Says what would be done, and how to have just that.
fn planned(session: &Session, plan: &api::RestorePlan) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(&json::plan(plan));
    }
    told(session, plan)?;
    session.out.print(&format!("plan      {}\n", plan.digest))?;
    session.out.talk(&format!("next: the same command with --apply {}", plan.digest));
    Ok(())
}

fn told(session: &Session, plan: &api::RestorePlan) -> Result<(), Failure> {
    say_points(session, &plan.points);
    session.out.facts(&[
        ("to host", plan.to_host.clone()),
        (
            "into",
            if plan.to_folder.is_empty() { "where it came from".to_owned() } else { shown::path(&plan.to_folder) },
        ),
        ("files", counted(plan, plan.files.to_string())),
        ("bytes", counted(plan, shown::size(plan.bytes))),
        ("archives", plan.archives.to_string()),
    ])?;
    for note in &plan.notes {
        session.out.talk(&format!("note: {note}"));
    }
    session.out.talk("dry run: nothing was touched");
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{amount, counted, folder};
    use coord_shared::api::RestorePlan;
    use std::ffi::OsStr;

    #[test]
    fn what_could_not_be_counted_is_not_called_none() {
        let plan = |files, at_least| RestorePlan { files, bytes: 2048, at_least, ..RestorePlan::default() };
        assert_eq!(amount(&plan(3, false)), "3 files, 2.0 KiB");
        assert_eq!(amount(&plan(3, true)), "at least 3 files, 2.0 KiB");
        assert_eq!(amount(&plan(0, true)), "how many files is not known");
        assert_eq!(counted(&plan(0, true), "0".into()), "not known");
        assert_eq!(counted(&plan(0, false), "0".into()), "0");
    }

    #[test]
    fn a_target_folder_is_absolute() {
        assert_eq!(folder(None).unwrap(), b"");
        assert_eq!(folder(Some(OsStr::new("/srv/rescue"))).unwrap(), b"/srv/rescue");
        assert_eq!(folder(Some(OsStr::new("rescue"))).unwrap_err().exit().code(), 2);
    }
}
