//! Limits on how many runs go on at once, as operators see and set them.

use std::collections::HashMap;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::selector::Selector;
use coord_shared::slug::nearest;
use coord_shared::tls::PeerKind;
use coord_shared::wire::to_us;

use super::{App, names};
use crate::catalog::{HeldRuns, Host, HostState, LimitRecord, LimitScope, NewAudit};
use crate::domain::queue::{Bound, Scope, Target};

/// Longest name of a limit.
const MAX_NAME: usize = 63;

/// Every limit, with how much of it is in use.
///
/// # Errors
/// Those of the catalog.
pub async fn list(app: &App) -> Result<api::LimitList, Fault> {
    let limits = app.catalog.limits().await?;
    let (hosts, held) = (app.catalog.hosts().await?, app.catalog.held_runs().await?);
    Ok(api::LimitList { limits: limits.iter().map(|limit| encode(limit, &hosts, &held)).collect() })
}

/// Sets a limit, or changes the one of this name.
///
/// # Errors
/// `invalid_argument` for a limit of nothing, for its name, its scope or its selector.
pub async fn set(app: &App, user: &str, request: &api::SetLimitRequest) -> Result<api::Limit, Fault> {
    check_name(&request.name)?;
    let bound = Bound { scope: scope(request)?, runs: runs(request.runs)? };
    let limit = app.catalog.set_limit(&request.name, &bound, user).await?;
    let details =
        serde_json::json!({ "scope": limit.scope().as_str(), "selector": limit.selector(), "runs": request.runs });
    audit(app, user, "limit_set", &limit.name, details).await?;
    // A higher limit lets waiting runs begin at once.
    app.nudges.dispatcher.notify_one();
    shown(app, &limit).await
}

/// Takes a limit away.
///
/// # Errors
/// `not_found` with the nearest name.
pub async fn remove(app: &App, user: &str, name: &str) -> Result<api::Limit, Fault> {
    let Some(limit) = app.catalog.remove_limit(name).await? else {
        let known = app.catalog.limits().await?;
        let near = nearest(name, known.iter().map(|limit| limit.name.as_str()));
        let hint = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
        return Err(Fault::new(ErrorCode::NotFound, format!("there is no limit '{}'", names::shown(name)))
            .with_hint(format!("{hint}coordctl limit list")));
    };
    let details =
        serde_json::json!({ "scope": limit.scope().as_str(), "selector": limit.selector(), "runs": limit.bound.runs });
    audit(app, user, "limit_removed", name, details).await?;
    app.nudges.dispatcher.notify_one();
    shown(app, &limit).await
}

fn invalid(message: String) -> Fault {
    Fault::new(ErrorCode::InvalidArgument, message)
}

fn check_name(name: &str) -> Result<(), Fault> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if name.is_empty() || name.len() > MAX_NAME || !plain {
        let message =
            format!("'{}' cannot be the name of a limit: a-z, 0-9 and '-', at most {MAX_NAME}", names::shown(name));
        return Err(invalid(message).with_hint("coordctl limit set nightly --fleet --runs 50"));
    }
    Ok(())
}

fn runs(wanted: u32) -> Result<u32, Fault> {
    if wanted == 0 {
        return Err(invalid("a limit of 0 runs would stop every backup that it means".to_owned())
            .with_hint("set at least 1; coordctl limit remove takes a limit away"));
    }
    if i32::try_from(wanted).is_err() {
        return Err(invalid(format!("{wanted} runs are more than any fleet has")).with_hint("leave the limit out"));
    }
    Ok(wanted)
}

fn scope(request: &api::SetLimitRequest) -> Result<Scope, Fault> {
    let no_scope =
        |_| invalid(format!("'{}' is no scope of a limit: fleet, host, target or group", names::shown(&request.scope)));
    let scope: LimitScope = request.scope.parse().map_err(no_scope)?;
    match scope {
        LimitScope::Fleet | LimitScope::Host | LimitScope::Target if !request.selector.is_empty() => {
            Err(invalid(format!("a limit of the scope {scope} has no selector"))
                .with_hint("one of --fleet, --each-host, --each-target, -l"))
        }
        LimitScope::Fleet => Ok(Scope::Fleet),
        LimitScope::Host => Ok(Scope::EachHost),
        LimitScope::Target => Ok(Scope::EachTarget),
        LimitScope::Group => {
            let selector: Selector = request.selector.parse().map_err(|error| {
                invalid(format!("the selector does not read: {error}")).with_hint("coordctl help selectors")
            })?;
            if selector.is_everything() {
                return Err(invalid("the selector is empty: that means the whole fleet".to_owned())
                    .with_hint("--fleet says so"));
            }
            Ok(Scope::Group(selector))
        }
    }
}

async fn audit(app: &App, user: &str, action: &str, name: &str, details: serde_json::Value) -> Result<(), Fault> {
    let deed = NewAudit { actor_kind: PeerKind::Operator, actor: user, action, subject: name, details };
    Ok(app.catalog.record_audit(&deed).await?)
}

async fn shown(app: &App, limit: &LimitRecord) -> Result<api::Limit, Fault> {
    let (hosts, held) = (app.catalog.hosts().await?, app.catalog.held_runs().await?);
    Ok(encode(limit, &hosts, &held))
}

fn encode(limit: &LimitRecord, hosts: &[Host], held: &[HeldRuns]) -> api::Limit {
    let means = |labels| match &limit.bound.scope {
        Scope::Fleet | Scope::EachHost | Scope::EachTarget => true,
        Scope::Group(selector) => selector.matches(labels),
    };
    let active = hosts.iter().filter(|host| host.state == HostState::Active && means(&host.labels)).count();
    let meant = held.iter().filter(|held| means(&held.labels)).map(|held| held.runs);
    let running = match &limit.bound.scope {
        Scope::EachHost => meant.max().unwrap_or(0),
        Scope::EachTarget => {
            let mut targets: HashMap<Target, u64> = HashMap::new();
            for held in held {
                *targets.entry(held.target()).or_default() += held.runs;
            }
            targets.into_values().max().unwrap_or(0)
        }
        Scope::Fleet | Scope::Group(_) => meant.sum(),
    };
    api::Limit {
        name: limit.name.clone(),
        scope: limit.scope().as_str().to_owned(),
        selector: limit.selector(),
        runs: limit.bound.runs,
        hosts: active as u64,
        running,
        changed_by: limit.changed_by.clone(),
        changed_at_us: to_us(limit.changed_at),
    }
}
