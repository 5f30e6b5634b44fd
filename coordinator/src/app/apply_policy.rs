//! Applies policy files, or says what applying them would do. A file that is wrong anywhere is not applied at all, and of many files
//! all are applied or none.

use std::collections::BTreeMap;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::PolicyVersion;
use coord_shared::tls::PeerKind;
use coord_shared::wire::to_us;
use jiff::Timestamp;

use super::names::shown;
use super::policy_change::{
    Before, Change, Plan, defaults_of, encode, encode_key, impossible_hosts, make, make_one, preview, selected,
};
use super::policy_refusal::{in_file, refusal};
use super::policy_warnings::warnings;
use super::{App, policy_weeks};
use crate::catalog::{NewAudit, NewDefaults};
use crate::domain::policy::{Defaults, Finding, Policy, differing};
use crate::domain::timing::Due;

/// Due times shown of a policy that is only looked at.
const SHOWN_DUE_TIMES: usize = 5;
/// Files that are applied at once.
const MAX_FILES: usize = 1000;

/// What is wrong with a file, what is surprising about it, and whom it would be for.
///
/// # Errors
/// Those of the catalog; a file that is wrong is an answer.
pub async fn lint(app: &App, text: &str) -> Result<api::PolicyLint, Fault> {
    let (now, before) = (app.catalog.now().await?, Before::read(app).await?);
    let wrong = |findings: Vec<Finding>| api::PolicyLint {
        errors: findings.iter().map(encode).collect(),
        ..api::PolicyLint::default()
    };
    if Defaults::is_meant(text) {
        return Ok(Defaults::parse(text)
            .err()
            .map_or_else(|| api::PolicyLint { name: "defaults".to_owned(), ..api::PolicyLint::default() }, wrong));
    }
    let policy = match Policy::parse_over(text, &before.defaults()?) {
        Ok(policy) => policy,
        Err(findings) => return Ok(wrong(findings)),
    };
    let change = Change::applying(policy.clone(), text.to_owned())?;
    let afterwards = before.afterwards(app, std::slice::from_ref(&change));
    let warnings = warnings(app, &policy, &before.hosts, &afterwards).await?;
    Ok(api::PolicyLint {
        errors: Vec::new(),
        warnings: warnings.iter().map(encode).collect(),
        hosts: selected(&policy, &before.hosts).iter().map(|host| host.name.clone()).collect(),
        name: policy.name.to_string(),
        next_due_at_us: due_times(&policy, now).into_iter().map(to_us).collect(),
    })
}

fn due_times(policy: &Policy, now: Timestamp) -> Vec<Timestamp> {
    let due = Due::of_policy(policy);
    std::iter::successors(due.next_run_after(now), |before| due.next_run_after(*before)).take(SHOWN_DUE_TIMES).collect()
}

/// A policy file, over the fleet's defaults.
///
/// # Errors
/// `invalid_policy` names what is wrong.
pub async fn read_file(app: &App, text: &str) -> Result<Policy, Fault> {
    let defaults = defaults_of(app.catalog.policy_defaults().await?.as_ref())?;
    Policy::parse_over(text, &defaults).map_err(|findings| refusal(&findings))
}

/// Applies a file; with `dry_run` only says what would change.
///
/// # Errors
/// `invalid_policy` names what is wrong; nothing was changed then.
pub async fn apply(app: &App, user: &str, request: &api::ApplyPolicyRequest) -> Result<api::AppliedPolicy, Fault> {
    if Defaults::is_meant(&request.toml) {
        let message = "the fleet's defaults are no policy: this call applies one policy";
        return Err(
            Fault::new(ErrorCode::InvalidPolicy, message).with_hint("coordctl policy apply -f FILE applies both")
        );
    }
    let file = api::PolicyFile { toml: request.toml.clone(), ..api::PolicyFile::default() };
    let before = Before::read(app).await?;
    let Wanted { changes, .. } = wanted(app, &before, &[file])?;
    let plan = Plan { before: &before, changes: &changes, defaults: None };
    make_one(app, user, &plan, (request.dry_run, &request.plan_digest)).await
}

/// Applies files, all of them or none.
///
/// # Errors
/// `invalid_policy` names the file and what is wrong, `changed` what somebody else has changed meanwhile; nothing was changed then.
pub async fn apply_all(app: &App, user: &str, files: &api::PolicyFiles) -> Result<api::AppliedPolicies, Fault> {
    let before = Before::read(app).await?;
    let wanted = wanted(app, &before, &files.files)?;
    let new = wanted.new_defaults(&before, user);
    let plan = Plan { before: &before, changes: &wanted.changes, defaults: new.as_ref() };
    let policies = make(app, user, &plan, &files.plan_digest).await?;
    if let Some(new) = &new {
        let details = serde_json::json!({ "version": new.version });
        let (actor_kind, action, subject) = (PeerKind::Operator, "policy_defaults_applied", "defaults");
        app.catalog.record_audit(&NewAudit { actor_kind, actor: user, action, subject, details }).await?;
    }
    Ok(wanted.tell(&before, policies))
}

/// What applying files would change.
///
/// # Errors
/// `invalid_policy` as for applying them.
pub async fn diff(app: &App, files: &[api::PolicyFile]) -> Result<api::AppliedPolicies, Fault> {
    let before = Before::read(app).await?;
    let wanted = wanted(app, &before, files)?;
    let new = wanted.new_defaults(&before, "");
    let plan = Plan { before: &before, changes: &wanted.changes, defaults: new.as_ref() };
    let (mut policies, plan_digest) = preview(app, &plan).await?;
    policy_weeks::tell(app, &before, &wanted.changes, &mut policies).await?;
    Ok(api::AppliedPolicies { plan_digest, ..wanted.tell(&before, policies) })
}

/// What files ask for.
struct Wanted {
    /// Of the policies that they name, and of those that become something else by new defaults.
    changes: Vec<Change>,
    /// The document of defaults among them, and what it says.
    defaults: Option<(String, Defaults)>,
}

impl Wanted {
    /// The document, if it is another one than before.
    fn new_defaults(&self, before: &Before, user: &str) -> Option<NewDefaults> {
        let (toml, _) = self.defaults.as_ref()?;
        let version = match &before.defaults {
            Some(record) if record.toml == *toml => return None,
            Some(record) => record.version.next(),
            None => PolicyVersion(1),
        };
        Some(NewDefaults { version, toml: toml.clone(), applied_by: user.to_owned() })
    }

    fn tell(&self, before: &Before, policies: Vec<api::AppliedPolicy>) -> api::AppliedPolicies {
        let live = before.records.iter().filter(|record| !record.is_deleted());
        let names = live.map(|record| record.name.clone());
        let untouched = names.filter(|name| self.changes.iter().all(|change| change.name != *name)).collect();
        let defaults = self.defaults.as_ref().map(|(_, defaults)| {
            let from_version = before.defaults.as_ref().map_or(0, |record| record.version.get());
            let new = self.new_defaults(before, "");
            let was = before.defaults().map(|defaults| defaults.keys()).unwrap_or_default();
            api::DefaultsChange {
                from_version,
                version: new.as_ref().map_or(from_version, |new| new.version.get()),
                change: match (&new, from_version) {
                    (None, _) => "unchanged",
                    (Some(_), 0) => "created",
                    (Some(_), _) => "updated",
                }
                .to_owned(),
                keys: differing(&was, &defaults.keys()).into_iter().map(encode_key).collect(),
            }
        });
        api::AppliedPolicies { policies, untouched, defaults, plan_digest: String::new() }
    }
}

/// The changes that files ask for.
fn wanted(app: &App, before: &Before, files: &[api::PolicyFile]) -> Result<Wanted, Fault> {
    let wrong = |message: String| Fault::new(ErrorCode::InvalidPolicy, message);
    if files.is_empty() || files.len() > MAX_FILES {
        return Err(wrong(format!(
            "there are {} policy files, and from 1 to {MAX_FILES} are applied at once",
            files.len()
        )));
    }
    let (documents, files): (Vec<_>, Vec<_>) = files.iter().partition(|file| Defaults::is_meant(&file.toml));
    let document = match documents.as_slice() {
        [] => None,
        [file] => {
            let read = Defaults::parse(&file.toml);
            Some((file.toml.clone(), read.map_err(|findings| refusal(&in_file(&file.path, findings)))?))
        }
        [one, other, ..] => {
            return Err(wrong(format!(
                "{} and {} are both the fleet's defaults",
                shown(&one.path),
                shown(&other.path)
            )));
        }
    };
    let defaults = match &document {
        Some((_, defaults)) => defaults.clone(),
        None => before.defaults()?,
    };
    let (mut changes, mut findings) = read_all(before, &files, &defaults)?;
    if document.is_some() {
        findings.extend(read_anew(app, before, &defaults, &mut changes)?);
    }
    findings.extend(impossible_hosts(before, &changes));
    if findings.is_empty() { Ok(Wanted { changes, defaults: document }) } else { Err(refusal(&findings)) }
}

/// The policies of the files, and what is wrong with them.
fn read_all(
    before: &Before,
    files: &[&api::PolicyFile],
    defaults: &Defaults,
) -> Result<(Vec<Change>, Vec<Finding>), Fault> {
    let (mut changes, mut findings) = (Vec::with_capacity(files.len()), Vec::new());
    let mut named: BTreeMap<String, &str> = BTreeMap::new();
    for file in files {
        let policy = match Policy::parse_over(&file.toml, defaults) {
            Ok(policy) => policy,
            Err(found) => {
                findings.extend(in_file(&file.path, found));
                continue;
            }
        };
        if let Some(other) = named.insert(policy.name.to_string(), &file.path) {
            let message = format!("{} and {} are both named {}", shown(other), shown(&file.path), policy.name);
            return Err(Fault::new(ErrorCode::InvalidPolicy, message)
                .with_hint("a policy is one file: give one of them another name"));
        }
        if before.record(policy.name.as_str()).is_some_and(|record| record.is_deleted()) {
            return Err(name_of_a_deleted_one(&policy));
        }
        let expected = Some(PolicyVersion(file.if_version)).filter(|version| version.get() > 0);
        changes.push(Change { expected, ..Change::applying(policy, file.toml.clone())? });
    }
    Ok((changes, findings))
}

/// Adds the policies that no file names and that new defaults make something else; answers what is wrong with those.
fn read_anew(
    app: &App,
    before: &Before,
    defaults: &Defaults,
    changes: &mut Vec<Change>,
) -> Result<Vec<Finding>, Fault> {
    let mut findings = Vec::new();
    for record in before.records.iter().filter(|record| !record.is_deleted()) {
        if changes.iter().any(|change| change.name == record.name) {
            continue;
        }
        match Policy::parse_over(&record.toml, defaults) {
            Ok(policy) => {
                let change = Change::applying(policy, record.toml.clone())?;
                if before.renews(app, &change) {
                    changes.push(change);
                }
            }
            Err(found) => findings.extend(in_file(&format!("with these defaults, policy {}", record.name), found)),
        }
    }
    Ok(findings)
}

fn name_of_a_deleted_one(policy: &Policy) -> Fault {
    let name = &policy.name;
    let message =
        format!("policy {name} was deleted, and its name is not given to another policy: its backups have it");
    Fault::new(ErrorCode::NameTaken, message).with_hint(format!(
        "take another name; or coordctl policy history {name}, then coordctl policy rollback {name} --to VERSION brings it back"
    ))
}
