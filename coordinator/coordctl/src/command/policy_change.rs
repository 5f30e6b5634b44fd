//! `coordctl policy apply | diff | history | rollback | delete`: what changes policies, and what it changes.

use std::path::{Path, PathBuf};

use clap::Args;
use coord_shared::api::{
    self, AppliedPolicy, DeletePolicyRequest, GetPolicyRequest, KeyChange, LintPolicyRequest, PolicyFile, PolicyFiles,
    RollbackPolicyRequest,
};
use coord_shared::exit::Exit;

use super::policy::{read, refuse_findings, say};
use super::policy_week;
use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// Bytes of files that are sent at once.
const MAX_FOLDER_BYTES: usize = 3 << 20;

/// What to apply.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// A file, or a folder of *.toml files; - reads standard input.
    #[arg(short = 'f', long, value_name = "FILE|DIR")]
    file: PathBuf,
    /// Say what would change, change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// What to compare.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A file, or a folder of *.toml files; - reads standard input.
    #[arg(short = 'f', long, value_name = "FILE|DIR")]
    file: PathBuf,
    /// Exit with 6 when applying would change anything.
    #[arg(long)]
    exit_code: bool,
}

/// What to go back to.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The policy's name; one that was deleted too.
    #[arg(add = completer(complete::policies))]
    policy: String,
    /// The version, as coordctl policy history lists it.
    #[arg(long, value_name = "VERSION")]
    to: u64,
    /// Say what would change, change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// What to end.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The policy's name.
    #[arg(add = completer(complete::policies))]
    policy: String,
    /// The policy's name, instead of typing it.
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// Say what would become of its backups, change nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// The files that a path means, by name. A folder means its *.toml files, those of its folders not.
fn files(path: &Path) -> Result<Vec<PolicyFile>, Failure> {
    if !path.is_dir() {
        return Ok(vec![PolicyFile { path: path.display().to_string(), toml: read(path)?, if_version: 0 }]);
    }
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("cannot read {}: {error}", path.display()), "name a folder of policy files")
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let found = entry.map_err(unreadable)?.path();
        let hidden = found.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && found.extension().is_some_and(|extension| extension == "toml") && found.is_file() {
            paths.push(found);
        }
    }
    paths.sort();
    let mut files = Vec::with_capacity(paths.len());
    let mut bytes = 0;
    for path in paths {
        let toml = read(&path)?;
        bytes += toml.len();
        files.push(PolicyFile { path: path.display().to_string(), toml, if_version: 0 });
    }
    if files.is_empty() {
        let message = format!("there is no *.toml file in {}", path.display());
        return Err(Failure::usage(message, "coordctl policy init prints a file to start from"));
    }
    if bytes > MAX_FOLDER_BYTES {
        let message = format!("the policy files of {} have {}", path.display(), shown::size(bytes as u64));
        return Err(Failure::usage(message, format!("at most {}", shown::size(MAX_FOLDER_BYTES as u64))));
    }
    Ok(files)
}

/// Applies a file or a folder. What becomes of the backups of hosts that leave is said before.
pub async fn apply(session: &mut Session, args: &ApplyArgs) -> Result<(), Failure> {
    let files = files(&args.file)?;
    let one = !args.file.is_dir();
    if one && let Some(file) = files.first() {
        let lint = LintPolicyRequest { toml: file.toml.clone() };
        let lint = answer(session.client.lint_policy(request(lint)).await)?;
        refuse_findings(session, &lint)?;
    }
    let files = PolicyFiles { files, ..PolicyFiles::default() };
    let told = answer(session.client.diff_policies(request(files.clone())).await)?;
    if args.dry_run {
        return applied(session, &told, one, " (dry run: nothing was changed)");
    }
    warn(session, &told.policies);
    let defaults = told.defaults.iter().map(|_| "the fleet's defaults".to_owned());
    let names: Vec<String> = defaults.chain(told.policies.iter().map(name)).collect();
    let become_it = if names.len() == 1 { "becomes" } else { "become" };
    let files_say = if one { "the file says" } else { "the files say" };
    let what = format!("{} {become_it} what {files_say}", names.join(", "));
    if differs(&told) {
        session.moderate(&what, &planned(&told))?
    } else {
        session.change(&what)?
    }
    let mut done = answer(session.client.apply_policies(request(as_shown(files, &told))).await)?;
    only_news(session, &mut done.policies, &told.policies);
    applied(session, &done, one, "")
}

/// What somebody should know before the question whether to: what is surprising, and what becomes of the backups of hosts that leave.
pub(super) fn warn(session: &Session, told: &[AppliedPolicy]) {
    if session.out.is_json() && session.yes {
        // The document says it, and nobody is asked.
        return;
    }
    for policy in told {
        say(session, "warning", &policy.warnings);
        leavings(policy).iter().for_each(|line| session.out.talk(&format!("warning: {line}")));
    }
}

/// What was said before the question is not said again; a document says all.
pub(super) fn only_news(session: &Session, done: &mut [AppliedPolicy], told: &[AppliedPolicy]) {
    for policy in done.iter_mut().filter(|_| !session.out.is_json()) {
        policy.warnings.retain(|warning| told.iter().all(|told| !told.warnings.contains(warning)));
    }
}

pub(super) fn applied(session: &Session, all: &api::AppliedPolicies, one: bool, note: &str) -> Result<(), Failure> {
    if session.out.is_json() {
        return match all.policies.as_slice() {
            [policy] if one && all.defaults.is_none() => session.out.json(&json::applied(policy)),
            _ => session.out.list(&json::all_applied(all), "policies"),
        };
    }
    all_told(session, all, note)?;
    if !one {
        untouched(session, all)?;
    }
    let alone = one && all.defaults.is_none();
    for policy in all.policies.iter().filter_map(|applied| applied.policy.as_ref()).filter(|_| alone) {
        match policy.hosts.first() {
            None => session.out.talk("it selects no host yet; coordctl host label HOST KEY=VALUE"),
            Some(host) => session.out.talk(&format!(
                "next run {}; coordctl job run {host}/{} takes a backup now",
                shown::instant(policy.next_due_at_us),
                policy.name
            )),
        }
    }
    Ok(())
}

pub(super) fn all_told(session: &Session, all: &api::AppliedPolicies, note: &str) -> Result<(), Failure> {
    if let Some(defaults) = &all.defaults {
        session.out.print(&defaults_told(defaults, note))?;
    }
    for policy in &all.policies {
        say(session, "warning", &policy.warnings);
        session.out.print(&told(policy, note))?;
        for week in &policy.weeks {
            session.out.print(&shown::safe(&policy_week::told(week, session.now.time_zone())))?;
        }
        if policy.weeks_left_out > 0 {
            session.out.talk(&format!("and the days of {} more hosts are not told", policy.weeks_left_out));
        }
    }
    Ok(())
}

/// What the fleet's defaults become, in lines.
fn defaults_told(defaults: &api::DefaultsChange, note: &str) -> String {
    let mut text = format!("defaults {}: version {}{note}\n", defaults.change, defaults.version);
    text.extend(defaults.keys.iter().map(|change| format!("  {}\n", key(change))));
    shown::safe(&text)
}

fn untouched(session: &Session, all: &api::AppliedPolicies) -> Result<(), Failure> {
    if all.untouched.is_empty() {
        return Ok(());
    }
    session.out.print(&format!("no file names {}: left as they are\n", all.untouched.join(", ")))
}

/// Says what applying would change.
pub async fn diff(session: &mut Session, args: &DiffArgs) -> Result<(), Failure> {
    let files = PolicyFiles { files: files(&args.file)?, ..PolicyFiles::default() };
    let all = answer(session.client.diff_policies(request(files)).await)?;
    if session.out.is_json() {
        session.out.list(&json::all_applied(&all), "policies")?;
    } else {
        all_told(session, &all, "")?;
        if args.file.is_dir() {
            untouched(session, &all)?;
        }
    }
    if args.exit_code && differs(&all) { Err(Failure::Ended(Exit::CheckFailed)) } else { Ok(()) }
}

/// The files, to be applied only while their policies are what they were when it was shown what changes, and while that is what changes.
fn as_shown(mut files: PolicyFiles, told: &api::AppliedPolicies) -> PolicyFiles {
    files.plan_digest.clone_from(&told.plan_digest);
    for file in &mut files.files {
        let table: toml::Table = toml::from_str(&file.toml).unwrap_or_default();
        let named = table.get("name").and_then(toml::Value::as_str);
        let shown = told.policies.iter().find(|policy| named == Some(name(policy).as_str()));
        file.if_version = shown.map_or(0, |policy| policy.from_version);
    }
    files
}

/// Whether applying the files would change anything.
pub(super) fn differs(all: &api::AppliedPolicies) -> bool {
    all.policies.iter().any(changes_anything)
        || all.defaults.as_ref().is_some_and(|defaults| defaults.change != "unchanged")
}

/// What applying would do, in lines, for the question whether to.
pub(super) fn planned(all: &api::AppliedPolicies) -> String {
    let defaults = all.defaults.iter().map(|defaults| defaults_told(defaults, ""));
    defaults
        .chain(all.policies.iter().filter(|policy| changes_anything(policy)).map(|policy| told(policy, "")))
        .collect()
}

fn changes_anything(policy: &AppliedPolicy) -> bool {
    policy.change != "unchanged" || !policy.hosts_added.is_empty() || !policy.hosts_removed.is_empty()
}

pub(super) fn name(applied: &AppliedPolicy) -> String {
    applied.policy.as_ref().map(|policy| policy.name.clone()).unwrap_or_default()
}

/// What one policy becomes, in lines.
fn told(applied: &AppliedPolicy, note: &str) -> String {
    let policy = applied.policy.clone().unwrap_or_default();
    let version = match applied.from_version {
        from if from == policy.version || from == 0 => format!("version {}", policy.version),
        from => format!("version {from} -> {}", policy.version),
    };
    let mut text = format!("policy {} {}: {version}{note}\n", policy.name, applied.change);
    // Every key of a new policy is new: the file says them.
    if applied.change == "updated" {
        text.extend(applied.keys.iter().map(|change| format!("  {}\n", key(change))));
    }
    for (word, hosts) in [
        ("protects", &policy.hosts),
        ("newly selects", &applied.hosts_added),
        ("no longer selects", &applied.hosts_removed),
    ] {
        if !hosts.is_empty() {
            text.push_str(&format!("  {word}: {}\n", hosts.join(", ")));
        }
    }
    text.extend(leavings(applied).iter().map(|line| format!("  {line}\n")));
    shown::safe(&text)
}

fn key(change: &KeyChange) -> String {
    let value = |text: &str| if text.is_empty() { "(not set)".to_owned() } else { text.to_owned() };
    format!("{}: {} -> {}", change.key, value(&change.was), value(&change.becomes))
}

/// What becomes of the backups of each host that leaves.
fn leavings(applied: &AppliedPolicy) -> Vec<String> {
    let line = |host: &api::LeavingHost| {
        let backups = match host.backups {
            0 => "there is no backup of it".to_owned(),
            1 => format!("its backup ({}) stays, listed and restorable", shown::size(host.stored_bytes)),
            n => format!("its {n} backups ({}) stay, listed and restorable", shown::size(host.stored_bytes)),
        };
        let others = match host.other_policies.as_slice() {
            [] => "no other policy protects it".to_owned(),
            others => format!("{} still protects it", others.join(", ")),
        };
        format!("{} leaves {}: {backups}; nothing new is taken; {others}", host.host, name(applied))
    };
    applied.leaving.iter().map(line).collect()
}

/// Lists the versions.
pub async fn history(session: &mut Session, policy: &str) -> Result<(), Failure> {
    let message = GetPolicyRequest { policy: policy.to_owned(), ..GetPolicyRequest::default() };
    let history = answer(session.client.get_policy_history(request(message)).await)?;
    if session.out.is_json() {
        return session.out.list(&json::history(&history), "versions");
    }
    let columns = [("version", Right), ("made", Left), ("by", Left), ("how", Left), ("changed", Left)];
    let rows = history.versions.iter().map(version).collect();
    session.out.wide_table(&columns, &[("from what to what", Left)], rows, "it has no version")
}

fn version(v: &api::PolicyVersion) -> Vec<String> {
    let how = if v.equals > 0 { format!("back to {}", v.equals) } else { v.change.clone() };
    let keys: Vec<&str> = v.keys.iter().map(|change| change.key.as_str()).collect();
    // A first version has every key, and so has the one that brings a deleted policy back; a deletion takes all away.
    let begins = v.keys.iter().all(|change| change.was.is_empty());
    let changed = match (v.change.as_str(), begins) {
        ("deleted", _) => "its end".to_owned(),
        (_, true) if !keys.is_empty() => "its beginning".to_owned(),
        (_, _) => keys.join(", "),
    };
    let values: Vec<String> = v.keys.iter().map(key).collect();
    vec![v.version.to_string(), shown::instant(v.applied_at_us), v.applied_by.clone(), how, changed, values.join("; ")]
}

/// Goes back to an older version.
pub async fn rollback(session: &mut Session, args: &RollbackArgs) -> Result<(), Failure> {
    let message = RollbackPolicyRequest {
        policy: args.policy.clone(),
        version: args.to,
        dry_run: true,
        ..RollbackPolicyRequest::default()
    };
    let told = answer(session.client.rollback_policy(request(message.clone())).await)?;
    let note = " (dry run: nothing was changed)";
    if args.dry_run {
        return one(session, &told, note);
    }
    warn(session, std::slice::from_ref(&told));
    let what = format!("policy {} says again what version {} said", name(&told), args.to);
    session.moderate(&what, &self::told(&told, ""))?;
    let message = RollbackPolicyRequest { dry_run: false, plan_digest: told.plan_digest.clone(), ..message };
    let mut done = answer(session.client.rollback_policy(request(message)).await)?;
    only_news(session, std::slice::from_mut(&mut done), &[told]);
    one(session, &done, "")?;
    session.out.talk("the file under version control may say something else: applying it changes the policy again");
    Ok(())
}

fn one(session: &Session, applied: &AppliedPolicy, note: &str) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(&json::applied(applied));
    }
    say(session, "warning", &applied.warnings);
    session.out.print(&told(applied, note))
}

/// Ends a policy, once its name was typed or given.
pub async fn delete(session: &mut Session, args: &DeleteArgs) -> Result<(), Failure> {
    let message = DeletePolicyRequest { policy: args.policy.clone(), dry_run: true, ..DeletePolicyRequest::default() };
    let would = answer(session.client.delete_policy(request(message.clone())).await)?;
    if args.dry_run {
        return one(session, &would, " (dry run: nothing was changed)");
    }
    let name = name(&would);
    warn(session, std::slice::from_ref(&would));
    let hosts = would.leaving.len();
    let what = format!("policy {name} ends: nothing of it is backed up any more on {hosts} hosts; its backups stay");
    session.confirm(&name, args.confirm.as_deref(), &what)?;
    let message = DeletePolicyRequest { dry_run: false, plan_digest: would.plan_digest.clone(), ..message };
    let done = answer(session.client.delete_policy(request(message)).await)?;
    one(session, &done, "")?;
    session.out.talk(&format!(
        "its backups are listed and restored as before: coordctl backup list --policy {name}; coordctl policy rollback \
         {name} --to {} brings it back",
        done.from_version
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{as_shown, key, leavings, told};
    use coord_shared::api::{AppliedPolicies, AppliedPolicy, KeyChange, LeavingHost, Policy, PolicyFile, PolicyFiles};

    fn change(was: &str, becomes: &str) -> KeyChange {
        KeyChange { key: "full.day".into(), was: was.into(), becomes: becomes.into() }
    }

    #[test]
    fn a_change_is_told_key_by_key_and_by_host() {
        let applied = AppliedPolicy {
            policy: Some(Policy { name: "web".into(), version: 4, hosts: vec!["a".into()], ..Policy::default() }),
            change: "updated".into(),
            from_version: 3,
            keys: vec![change("\"sunday\"", "\"monday\"")],
            hosts_removed: vec!["b".into()],
            leaving: vec![LeavingHost { host: "b".into(), backups: 2, stored_bytes: 2048, ..Default::default() }],
            ..AppliedPolicy::default()
        };
        assert_eq!(
            told(&applied, ""),
            "policy web updated: version 3 -> 4\n  full.day: \"sunday\" -> \"monday\"\n  protects: a\n  no longer selects: b\n  \
             b leaves web: its 2 backups (2.0 KiB) stay, listed and restorable; nothing new is taken; no other policy protects it\n"
        );
        assert_eq!(key(&change("", "1")), "full.day: (not set) -> 1");
    }

    #[test]
    fn a_file_is_applied_only_to_the_version_that_was_shown() {
        let file = |name: &str| PolicyFile { toml: format!("name = \"{name}\""), ..PolicyFile::default() };
        let policy = |name: &str, from_version| AppliedPolicy {
            policy: Some(Policy { name: name.into(), ..Policy::default() }),
            from_version,
            ..AppliedPolicy::default()
        };
        let told = AppliedPolicies { policies: vec![policy("db", 0), policy("web", 3)], ..AppliedPolicies::default() };
        let told = AppliedPolicies { plan_digest: "d1".into(), ..told };
        let files = vec![file("web"), file("db"), file("other")];
        let files = as_shown(PolicyFiles { files, ..PolicyFiles::default() }, &told);
        assert_eq!(files.plan_digest, "d1");
        assert_eq!(files.files.iter().map(|file| file.if_version).collect::<Vec<_>>(), [3, 0, 0]);
    }

    #[test]
    fn a_host_that_another_policy_goes_on_protecting_is_said_to() {
        let host = LeavingHost { host: "b".into(), other_policies: vec!["etc".into()], ..Default::default() };
        let applied = AppliedPolicy { leaving: vec![host], ..AppliedPolicy::default() };
        assert!(
            leavings(&applied)[0].ends_with("there is no backup of it; nothing new is taken; etc still protects it")
        );
    }
}
