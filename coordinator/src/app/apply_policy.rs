//! Applies policy files, or says what applying them would do. A file that is wrong anywhere is not applied at all, and of many files
//! all are applied or none.

use std::collections::BTreeMap;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::wire::to_us;
use jiff::Timestamp;

use super::App;
use super::names::shown;
use super::policy_change::{Before, Change, encode, make, preview, selected, warnings};
use crate::domain::policy::{Finding, Policy};

/// Due times shown of a policy that is only looked at.
const SHOWN_DUE_TIMES: usize = 5;
/// Findings named in the one line of a refusal.
const SHOWN_FINDINGS: usize = 3;
/// Files that are applied at once.
const MAX_FILES: usize = 1000;

/// What is wrong with a file, what is surprising about it, and whom it would be for.
///
/// # Errors
/// Those of the catalog; a file that is wrong is an answer.
pub async fn lint(app: &App, text: &str) -> Result<api::PolicyLint, Fault> {
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(findings) => {
            return Ok(api::PolicyLint { errors: findings.iter().map(encode).collect(), ..api::PolicyLint::default() });
        }
    };
    let (now, before) = (app.catalog.now().await?, Before::read(app).await?);
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
    std::iter::successors(policy.schedule.next_after(now), |due| policy.schedule.next_after(*due))
        .take(SHOWN_DUE_TIMES)
        .collect()
}

/// Applies a file; with `dry_run` only says what would change.
///
/// # Errors
/// `invalid_policy` names what is wrong; nothing was changed then.
pub async fn apply(app: &App, user: &str, request: &api::ApplyPolicyRequest) -> Result<api::AppliedPolicy, Fault> {
    let file = api::PolicyFile { path: String::new(), toml: request.toml.clone() };
    let before = Before::read(app).await?;
    let changes = changes(&before, &[file])?;
    let mut told = if request.dry_run {
        preview(app, &before, &changes).await?
    } else {
        make(app, user, &before, &changes).await?
    };
    told.pop().ok_or_else(|| Fault::new(ErrorCode::Internal, "a file that was applied left nothing to tell"))
}

/// Applies files, all of them or none.
///
/// # Errors
/// `invalid_policy` names the file and what is wrong; nothing was changed then.
pub async fn apply_all(app: &App, user: &str, files: &[api::PolicyFile]) -> Result<api::AppliedPolicies, Fault> {
    let before = Before::read(app).await?;
    let changes = changes(&before, files)?;
    let untouched = untouched(&before, &changes);
    Ok(api::AppliedPolicies { policies: make(app, user, &before, &changes).await?, untouched })
}

/// What applying files would change.
///
/// # Errors
/// `invalid_policy` as for applying them.
pub async fn diff(app: &App, files: &[api::PolicyFile]) -> Result<api::AppliedPolicies, Fault> {
    let before = Before::read(app).await?;
    let changes = changes(&before, files)?;
    let untouched = untouched(&before, &changes);
    Ok(api::AppliedPolicies { policies: preview(app, &before, &changes).await?, untouched })
}

fn untouched(before: &Before, changes: &[Change]) -> Vec<String> {
    let live = before.records.iter().filter(|record| !record.is_deleted());
    let names = live.map(|record| record.name.clone());
    names.filter(|name| changes.iter().all(|change| change.name != *name)).collect()
}

/// The changes that files ask for.
fn changes(before: &Before, files: &[api::PolicyFile]) -> Result<Vec<Change>, Fault> {
    let wrong = |message: String| Fault::new(ErrorCode::InvalidPolicy, message);
    if files.is_empty() || files.len() > MAX_FILES {
        return Err(wrong(format!(
            "there are {} policy files, and from 1 to {MAX_FILES} are applied at once",
            files.len()
        )));
    }
    let (mut changes, mut findings) = (Vec::with_capacity(files.len()), Vec::new());
    let mut named: BTreeMap<String, &str> = BTreeMap::new();
    for file in files {
        let policy = match Policy::parse(&file.toml) {
            Ok(policy) => policy,
            Err(found) => {
                findings.extend(found.into_iter().map(|finding| in_file(&file.path, finding)));
                continue;
            }
        };
        if let Some(other) = named.insert(policy.name.to_string(), &file.path) {
            let hint = "a policy is one file: give one of them another name";
            return Err(wrong(format!("{} and {} are both named {}", shown(other), shown(&file.path), policy.name))
                .with_hint(hint));
        }
        if before.record(policy.name.as_str()).is_some_and(|record| record.is_deleted()) {
            return Err(name_of_a_deleted_one(&policy));
        }
        changes.push(Change::applying(policy, file.toml.clone())?);
    }
    if findings.is_empty() { Ok(changes) } else { Err(refusal(&findings)) }
}

fn name_of_a_deleted_one(policy: &Policy) -> Fault {
    let name = &policy.name;
    let message =
        format!("policy {name} was deleted, and its name is not given to another policy: its backups have it");
    Fault::new(ErrorCode::NameTaken, message).with_hint(format!(
        "take another name; or coordctl policy history {name}, then coordctl policy rollback {name} --to VERSION brings it back"
    ))
}

fn in_file(path: &str, finding: Finding) -> Finding {
    let key = match (path, finding.key.as_str()) {
        ("", key) => key.to_owned(),
        (path, "") => shown(path),
        (path, key) => format!("{}: {key}", shown(path)),
    };
    Finding { key, ..finding }
}

/// Why a file with these findings is not taken.
pub(super) fn refusal(findings: &[Finding]) -> Fault {
    let said = |finding: &Finding| match finding.key.as_str() {
        "" => finding.message.clone(),
        key => format!("{key}: {}", finding.message),
    };
    let mut message = findings.iter().take(SHOWN_FINDINGS).map(said).collect::<Vec<_>>().join("; ");
    if findings.len() > SHOWN_FINDINGS {
        message.push_str(&format!("; and {} more", findings.len() - SHOWN_FINDINGS));
    }
    let hint = findings.iter().map(|finding| finding.hint.as_str()).find(|hint| !hint.is_empty()).unwrap_or("");
    Fault::new(ErrorCode::InvalidPolicy, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_first_findings_and_counts_the_rest() {
        let finding =
            |key: &str| Finding { key: key.to_owned(), message: "wrong".to_owned(), hint: format!("mend {key}") };
        let fault = refusal(&[finding("a"), finding("b"), finding(""), finding("d"), finding("e")]);
        assert_eq!(fault.message, "a: wrong; b: wrong; wrong; and 2 more");
        assert_eq!(fault.hint, "mend a");
        let named = in_file("dir/web.toml", finding("full.day"));
        assert_eq!(refusal(&[named]).message, "dir/web.toml: full.day: wrong");
    }
}
