//! What operators type for things: names, ids, and unique beginnings of ids. What is not found is answered with the nearest name,
//! and what fits more than one thing with the candidates; nothing is guessed.

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::slug::nearest;

use super::App;
use crate::catalog::{Backup, CoordinatorRecord, Host, OperatorEntry, PolicyRecord, RunRecord, TokenRecord};

/// Fewest characters that stand for an id: fewer fit too much.
const MIN_PREFIX: usize = 4;
/// Longest text of an argument that is shown back, in characters.
const MAX_SHOWN: usize = 100;

/// An argument as it is shown back: cut and escaped.
pub fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect::<String>().escape_debug().to_string()
}

/// The one thing among `found`, else a fault that lists them.
fn only<T>(what: &str, text: &str, found: Vec<T>, name: impl Fn(&T) -> String) -> Result<Option<T>, Fault> {
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(name).collect();
        return Err(Fault::new(ErrorCode::Ambiguous, format!("'{}' fits more than one {what}", shown(text)))
            .with_hint(format!("one of {}", names.join(", "))));
    }
    Ok(found.into_iter().next())
}

fn unknown(what: &str, text: &str, near: Option<&str>, list: &str) -> Fault {
    let hint = near.map_or_else(|| list.to_owned(), |near| format!("did you mean {near}? {list}"));
    Fault::new(ErrorCode::NotFound, format!("there is no {what} '{}'", shown(text))).with_hint(hint)
}

fn empty(what: &str) -> Fault {
    Fault::new(ErrorCode::InvalidArgument, format!("no {what} was named"))
}

fn is_prefix(text: &str) -> bool {
    text.len() >= MIN_PREFIX
}

/// A host by its name, its id or the beginning of its id.
///
/// # Errors
/// `not_found` with the nearest name, `ambiguous` with the candidates.
pub async fn host(app: &App, text: &str) -> Result<Host, Fault> {
    if text.is_empty() {
        return Err(empty("host"));
    }
    if let Some(host) = app.catalog.host_by_name(text).await? {
        return Ok(host);
    }
    if is_prefix(text) {
        let found = app.catalog.hosts_by_id_prefix(text).await?;
        if let Some(host) = only("host", text, found, |host| host.name.clone())? {
            return Ok(host);
        }
    }
    let hosts = app.catalog.hosts().await?;
    Err(unknown(
        "host",
        text,
        nearest(text, hosts.iter().map(|host| host.name.as_str())),
        "coordctl host list shows them",
    ))
}

/// An operator by name.
///
/// # Errors
/// `not_found` with the nearest name.
pub async fn user(app: &App, text: &str) -> Result<OperatorEntry, Fault> {
    if text.is_empty() {
        return Err(empty("user"));
    }
    let mut users = app.catalog.operators().await?;
    match users.iter().position(|entry| entry.operator.name == text) {
        Some(found) => Ok(users.swap_remove(found)),
        None => {
            let near = nearest(text, users.iter().map(|entry| entry.operator.name.as_str()));
            Err(unknown("user", text, near, "coordctl user list shows them"))
        }
    }
}

/// A policy by its name, its id or the beginning of its id; one that was deleted too, for its backups are still there.
///
/// # Errors
/// `not_found` with the nearest name, `ambiguous` with the candidates.
pub async fn policy(app: &App, text: &str) -> Result<PolicyRecord, Fault> {
    if text.is_empty() {
        return Err(empty("policy"));
    }
    let policies = app.catalog.policies_ever().await?;
    if let Some(policy) = policies.iter().find(|policy| policy.name == text) {
        return Ok(policy.clone());
    }
    if is_prefix(text) {
        let found = policies.iter().filter(|policy| policy.id.to_string().starts_with(text)).cloned().collect();
        if let Some(policy) = only("policy", text, found, |policy: &PolicyRecord| policy.name.clone())? {
            return Ok(policy);
        }
    }
    let near = nearest(text, policies.iter().map(|policy| policy.name.as_str()));
    Err(unknown("policy", text, near, "coordctl policy list shows them"))
}

/// A run by its id or the beginning of it.
///
/// # Errors
/// `not_found`, or `ambiguous` with the candidates.
pub async fn run(app: &App, text: &str) -> Result<RunRecord, Fault> {
    match find_run(app, text).await? {
        Some(run) => Ok(run),
        None => Err(unknown("run", text, None, "coordctl run list shows them")),
    }
}

/// Like [`run`], for what may be something else.
pub async fn find_run(app: &App, text: &str) -> Result<Option<RunRecord>, Fault> {
    if !is_prefix(text) {
        return Ok(None);
    }
    let found = app.catalog.runs_by_id_prefix(text).await?;
    only("run", text, found, |run| format!("{} ({} of {})", run.id, run.kind, run.host_name))
}

/// A backup by its id or the beginning of it.
///
/// # Errors
/// `not_found`, or `ambiguous` with the candidates.
pub async fn backup(app: &App, text: &str) -> Result<Backup, Fault> {
    match find_backup(app, text).await? {
        Some(backup) => Ok(backup),
        None => Err(unknown("backup", text, None, "coordctl backup list shows them")),
    }
}

/// Like [`backup`], for what may be something else.
pub async fn find_backup(app: &App, text: &str) -> Result<Option<Backup>, Fault> {
    if !is_prefix(text) {
        return Ok(None);
    }
    let found = app.catalog.backups_by_id_prefix(text).await?;
    only("backup", text, found, |backup| format!("{} ({} of {})", backup.id, backup.level, backup.host_name))
}

/// A token by its id or the beginning of it.
///
/// # Errors
/// `not_found`, or `ambiguous` with the candidates.
pub async fn token(app: &App, text: &str) -> Result<TokenRecord, Fault> {
    let found = if is_prefix(text) { app.catalog.tokens_by_id_prefix(text).await? } else { Vec::new() };
    match only("token", text, found, |token| token.id.to_string())? {
        Some(token) => Ok(token),
        None => Err(unknown("token", text, None, "coordctl token list shows them")),
    }
}

/// A coordinator by its id or the beginning of it.
///
/// # Errors
/// `not_found`, or `ambiguous` with the candidates.
pub async fn coordinator(app: &App, text: &str) -> Result<CoordinatorRecord, Fault> {
    let mut found = app.catalog.coordinators().await?;
    found.retain(|record| is_prefix(text) && record.id.to_string().starts_with(text));
    only("coordinator", text, found, |record| record.id.to_string())?.ok_or_else(|| unknown_coordinator(text))
}

/// There is no coordinator of this id.
pub fn unknown_coordinator(text: &str) -> Fault {
    unknown("coordinator", text, None, "coordctl server members shows them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_several_things_lists_them_and_guesses_none() {
        let fault = only("run", "8f3c", vec!["8f3c01", "8f3cff"], ToString::to_string);
        assert!(
            matches!(&fault, Err(fault) if fault.code == ErrorCode::Ambiguous && fault.hint == "one of 8f3c01, 8f3cff")
        );
        assert!(matches!(only("run", "8f3c", vec!["8f3c01"], ToString::to_string), Ok(Some("8f3c01"))));
        assert!(matches!(only("run", "8f3c", Vec::<&str>::new(), ToString::to_string), Ok(None)));
    }

    #[test]
    fn what_is_shown_back_is_escaped_and_short() {
        let fault = unknown(
            "host",
            &format!("we\u{1b}[2J{}", "x".repeat(10_000)),
            Some("web"),
            "coordctl host list shows them",
        );
        assert!(!fault.message.contains('\u{1b}') && fault.message.len() < 300);
        assert_eq!(fault.hint, "did you mean web? coordctl host list shows them");
    }
}
