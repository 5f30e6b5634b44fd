//! What is surprising about a policy among those that there will be. Nothing of it refuses a change: whoever makes it is told, before.

use std::collections::BTreeMap;

use coord_shared::fault::Fault;

use super::policy_change::selected;
use super::{App, report_objectives};
use crate::catalog::Host;
use crate::domain::full_days;
use crate::domain::policy::{Finding, Policy};

/// What is surprising about a policy among those that there will be: nobody is selected, it cannot keep what it states, or another one
/// protects the same path of a host.
///
/// # Errors
/// Those of the catalog.
pub async fn warnings(
    app: &App,
    policy: &Policy,
    hosts: &[Host],
    afterwards: &BTreeMap<String, Policy>,
) -> Result<Vec<Finding>, Fault> {
    let mut warnings = policy.warnings();
    let chosen = selected(policy, hosts);
    warnings.extend(unkeepable(app, policy, &chosen).await?);
    for idle in policy.idle_overrides(chosen.iter().map(|host| (host.name.as_str(), &host.labels))) {
        warnings.push(Finding {
            key: "override".to_owned(),
            message: format!("{idle} is for none of the policy's {} hosts", chosen.len()),
            hint: "coordctl host list shows their labels".to_owned(),
        });
    }
    if chosen.is_empty() {
        warnings.push(Finding {
            key: "hosts".to_owned(),
            message: format!("'{}' selects none of the {} hosts there are", policy.hosts, hosts.len()),
            hint: "coordctl host list shows their labels; hosts that join later are selected then".to_owned(),
        });
    }
    for other in afterwards.values().filter(|other| other.name != policy.name) {
        let both = chosen.iter().filter(|host| other.hosts.matches(&host.labels)).count();
        let shared = policy.sources.iter().find(|source| other.sources.iter().any(|theirs| overlap(source, theirs)));
        if let Some(source) = shared.filter(|_| both > 0) {
            warnings.push(Finding {
                key: "sources".to_owned(),
                message: format!(
                    "policy {} protects '{}' too, on {both} of the hosts",
                    other.name,
                    source.escape_debug()
                ),
                hint: "a restore takes the newer backup; --policy chooses".to_owned(),
            });
        }
    }
    Ok(warnings)
}

/// What the policy states and cannot keep, and with its overrides for some host.
async fn unkeepable(app: &App, policy: &Policy, chosen: &[&Host]) -> Result<Vec<Finding>, Fault> {
    let now = app.catalog.now().await?;
    let mut found: Vec<Finding> = full_days::finding(policy, now).into_iter().collect();
    found.extend(report_objectives::warnings(app, policy).await?);
    let mut known = vec![policy.clone()];
    for host in chosen.iter().filter(|_| policy.has_overrides()) {
        let Ok(there) = policy.for_host(&host.name, &host.labels) else { continue };
        if known.contains(&there) {
            continue;
        }
        let mut more: Vec<Finding> = full_days::finding(&there, now).into_iter().collect();
        more.extend(report_objectives::warnings(app, &there).await?);
        more.retain(|finding| !found.contains(finding));
        found.extend(more.into_iter().map(|finding| Finding {
            message: format!("with its overrides on {}: {}", host.name, finding.message),
            ..finding
        }));
        known.push(there);
    }
    Ok(found)
}

/// Whether one path is the other, or lies below it.
fn overlap(one: &str, other: &str) -> bool {
    let below = |inner: &str, outer: &str| {
        inner.strip_prefix(outer.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(one, other) || below(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_overlap_when_one_is_the_other_or_lies_below_it() {
        for (one, other) in [("/srv", "/srv"), ("/srv/www", "/srv"), ("/", "/etc")] {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        assert!(!overlap("/srv", "/srvx") && !overlap("/srv/a", "/srv/b"));
    }
}
