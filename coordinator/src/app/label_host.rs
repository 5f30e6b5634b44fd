//! Labels of a host: set, taken away; its jobs follow at once.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::PeerKind;

use super::host_policies::HostPolicies;
use super::policy_change::encode;
use super::{App, forced_fulls, hosts, jobs, names, tokens};
use crate::catalog::{Host, HostState, NewAudit};
use crate::domain::policy::Policy;

/// Sets and removes labels; with `dry_run` only says what would protect the host then.
///
/// # Errors
/// `not_found` for the host, `invalid_argument` for a label that cannot be, or for a change of nothing; `invalid_policy` where the overrides
/// that the host would have make no policy together: nothing of that would be backed up.
pub async fn label(app: &App, user: &str, request: api::LabelHostRequest) -> Result<api::Host, Fault> {
    let host = names::host(app, &request.host).await?;
    if request.set.is_empty() && request.remove.is_empty() {
        return Err(Fault::new(ErrorCode::InvalidArgument, "no label was named")
            .with_hint("role=web sets one, role- removes it"));
    }
    let mut labels = host.labels.clone();
    for key in &request.remove {
        labels.remove(key);
    }
    labels.extend(request.set);
    tokens::check_labels(&labels)?;
    let policies = HostPolicies::read(app).await?;
    let labelled = Host { labels: labels.clone(), ..host.clone() };
    possible(&policies, &labelled)?;
    let forced = forced_fulls::by_labels(app, &policies, &host, &labelled).await?;
    let warnings: Vec<api::PolicyFinding> = forced.iter().map(encode).collect();
    if request.dry_run {
        let policies = jobs::selecting(app, &labelled).await?.into_iter().map(|record| record.name).collect();
        return Ok(api::Host { warnings, ..hosts::encode(&labelled, policies) });
    }
    app.catalog.set_host_labels(host.id, &labels).await?;
    if policies.all().values().any(Policy::has_overrides) {
        app.catalog.reschedule_host(host.id).await?;
        app.nudges.full_planner.notify_one();
    }
    jobs::select_for_host(app, host.id).await?;
    app.nudges.plan_sender.notify_one();
    let subject = host.id.to_string();
    let details = serde_json::json!({ "before": host.labels, "after": labels });
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "host_labelled", subject: &subject, details };
    app.catalog.record_audit(&deed).await?;
    Ok(api::Host { warnings, ..hosts::show(app, &subject).await? })
}

/// The policies of a host with these labels can be. One that was put out has none.
fn possible(policies: &HostPolicies, labelled: &Host) -> Result<(), Fault> {
    if labelled.state == HostState::Revoked {
        return Ok(());
    }
    policies.check_on(labelled).map_err(|fault| {
        Fault::new(fault.code, format!("with these labels, {}", fault.message))
            .with_hint("change the overrides first (coordctl policy edit POLICY), or give the host other labels")
    })
}
