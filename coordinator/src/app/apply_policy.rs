//! Applies a policy file, or says what applying it would do. A file that is wrong anywhere is not applied at all.

use std::collections::BTreeSet;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::JobId;
use coord_shared::tls::PeerKind;
use coord_shared::wire::to_us;
use jiff::Timestamp;

use super::jobs::readable;
use super::{App, policies, report_objectives};
use crate::catalog::{Host, HostState, JobFilter, JobState, NewAudit, NewPolicyVersion, PolicyChange, PolicyRecord};
use crate::domain::policy::{Finding, Policy};

/// Due times shown of a policy that is only looked at.
const SHOWN_DUE_TIMES: usize = 5;
/// Findings named in the one line of a refusal.
const SHOWN_FINDINGS: usize = 3;

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
    let (now, hosts) = (app.catalog.now().await?, app.catalog.hosts().await?);
    let warnings = warnings(app, &policy, &hosts).await?;
    Ok(api::PolicyLint {
        errors: Vec::new(),
        warnings: warnings.iter().map(encode).collect(),
        hosts: selected(&policy, &hosts).iter().map(|host| host.name.clone()).collect(),
        name: policy.name.to_string(),
        next_due_at_us: due_times(&policy, now).into_iter().map(to_us).collect(),
    })
}

/// The hosts that a policy is for.
fn selected<'a>(policy: &Policy, hosts: &'a [Host]) -> Vec<&'a Host> {
    hosts.iter().filter(|host| host.state == HostState::Active && policy.hosts.matches(&host.labels)).collect()
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
    let policy = Policy::parse(&request.toml).map_err(|findings| refusal(&findings))?;
    let hosts = app.catalog.hosts().await?;
    let warnings = warnings(app, &policy, &hosts).await?.iter().map(encode).collect();
    if request.dry_run {
        return preview(app, &policy, &request.toml, &hosts, warnings).await;
    }
    let spec = serde_json::to_value(&policy).map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))?;
    let chosen: Vec<_> = selected(&policy, &hosts).iter().map(|host| host.id).collect();
    let new = NewPolicyVersion {
        name: policy.name.to_string(),
        toml: request.toml.clone(),
        spec,
        applied_by: user.to_owned(),
        new_job_ids: chosen.iter().map(|_| JobId::random()).collect(),
        hosts: chosen,
    };
    let applied = app.catalog.apply_policy(&new).await?;
    app.nudges.scheduler.notify_one();
    app.nudges.full_planner.notify_one();
    let subject = applied.policy.id.to_string();
    let details = serde_json::json!({
        "name": applied.policy.name,
        "version": applied.policy.version,
        "hosts_added": applied.hosts_added,
        "hosts_removed": applied.hosts_removed,
    });
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "policy_applied", subject: &subject, details };
    app.catalog.record_audit(&deed).await?;
    Ok(api::AppliedPolicy {
        policy: Some(policies::with_hosts(app, &applied.policy).await?),
        change: word(applied.change).to_owned(),
        hosts_added: applied.hosts_added,
        hosts_removed: applied.hosts_removed,
        warnings,
    })
}

const fn word(change: PolicyChange) -> &'static str {
    match change {
        PolicyChange::Created => "created",
        PolicyChange::Updated => "updated",
        PolicyChange::Unchanged => "unchanged",
    }
}

async fn preview(
    app: &App,
    policy: &Policy,
    toml: &str,
    hosts: &[Host],
    warnings: Vec<api::PolicyFinding>,
) -> Result<api::AppliedPolicy, Fault> {
    let wanted: BTreeSet<String> = selected(policy, hosts).iter().map(|host| host.name.clone()).collect();
    let existing = app.catalog.policy_by_name(policy.name.as_str()).await?;
    let had: BTreeSet<String> = match &existing {
        None => BTreeSet::new(),
        Some(record) => {
            let filter = JobFilter { policy: Some(record.id), state: Some(JobState::Active), ..JobFilter::default() };
            app.catalog.jobs(filter).await?.into_iter().map(|job| job.host_name).collect()
        }
    };
    let change = match &existing {
        None => PolicyChange::Created,
        Some(record) if record.toml == toml => PolicyChange::Unchanged,
        Some(_) => PolicyChange::Updated,
    };
    let version =
        |record: &PolicyRecord| if change == PolicyChange::Unchanged { record.version } else { record.version.next() };
    Ok(api::AppliedPolicy {
        policy: Some(api::Policy {
            id: existing.as_ref().map(|record| record.id.to_string()).unwrap_or_default(),
            name: policy.name.to_string(),
            version: existing.as_ref().map_or(1, |record| version(record).get()),
            toml: toml.to_owned(),
            hosts: wanted.iter().cloned().collect(),
            next_due_at_us: due_times(policy, app.catalog.now().await?).first().copied().map_or(0, to_us),
            ..api::Policy::default()
        }),
        change: word(change).to_owned(),
        hosts_added: wanted.difference(&had).cloned().collect(),
        hosts_removed: had.difference(&wanted).cloned().collect(),
        warnings,
    })
}

/// What is surprising about a policy in this fleet: nobody is selected, or another policy protects the same path of a host.
async fn warnings(app: &App, policy: &Policy, hosts: &[Host]) -> Result<Vec<Finding>, Fault> {
    let mut warnings = policy.warnings();
    warnings.extend(report_objectives::warnings(app, policy).await?);
    let chosen = selected(policy, hosts);
    if chosen.is_empty() {
        warnings.push(Finding {
            key: "hosts".to_owned(),
            message: format!("'{}' selects none of the {} hosts there are", policy.hosts, hosts.len()),
            hint: "coordctl host list shows their labels; hosts that join later are selected then".to_owned(),
        });
    }
    for record in app.catalog.policies().await? {
        // The passes over all policies have reported it by name.
        let Some(other) = readable(app, &record) else { continue };
        if other.name == policy.name {
            continue;
        }
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

/// Whether one path is the other, or lies below it.
fn overlap(one: &str, other: &str) -> bool {
    let below = |inner: &str, outer: &str| {
        inner.strip_prefix(outer.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(one, other) || below(other, one)
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

fn encode(finding: &Finding) -> api::PolicyFinding {
    api::PolicyFinding { key: finding.key.clone(), message: finding.message.clone(), hint: finding.hint.clone() }
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

    #[test]
    fn a_refusal_names_the_first_findings_and_counts_the_rest() {
        let finding =
            |key: &str| Finding { key: key.to_owned(), message: "wrong".to_owned(), hint: format!("mend {key}") };
        let fault = refusal(&[finding("a"), finding("b"), finding(""), finding("d"), finding("e")]);
        assert_eq!(fault.message, "a: wrong; b: wrong; wrong; and 2 more");
        assert_eq!(fault.hint, "mend a");
    }
}
