//! Labels of a host: set, taken away; its jobs follow at once.

use std::collections::BTreeMap;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::JobId;
use coord_shared::tls::PeerKind;

use super::host_policies::HostPolicies;
use super::policy_change::encode;
use super::{App, forced_fulls, hosts, jobs, names, tokens};
use crate::catalog::{Host, HostState, NewAudit, Relabelled, Relabelling};
use crate::domain::policy::Policy;

/// Times that labels are worked out, where others change them in between.
const MAX_TRIES: u32 = 20;

/// Sets and removes labels; with `dry_run` only says what would protect the host then.
///
/// # Errors
/// `not_found` for the host, `invalid_argument` for a label that cannot be, or for a change of nothing; `invalid_policy` where the overrides
/// that the host would have make no policy together: nothing of that would be backed up. `changed` where others change its labels all the
/// time.
pub async fn label(app: &App, user: &str, request: api::LabelHostRequest) -> Result<api::Host, Fault> {
    for _ in 0..MAX_TRIES {
        let host = names::host(app, &request.host).await?;
        if let Some(labelled) = try_to(app, user, &request, host).await? {
            return Ok(labelled);
        }
    }
    let message =
        format!("the labels of {} are changed by others all the time: nothing was done", names::shown(&request.host));
    Err(Fault::new(ErrorCode::Changed, message).with_hint("try again"))
}

/// `None`: the host has other labels meanwhile, and nothing was done.
async fn try_to(
    app: &App,
    user: &str,
    request: &api::LabelHostRequest,
    host: Host,
) -> Result<Option<api::Host>, Fault> {
    let labelled = Host { labels: wanted(request, &host)?, ..host.clone() };
    let policies = HostPolicies::read(app).await?;
    possible(&policies, &labelled)?;
    let forced = forced_fulls::by_labels(app, &policies, &host, &labelled).await?;
    let warnings: Vec<api::PolicyFinding> = forced.iter().map(encode).collect();
    let selecting = jobs::selecting(app, &labelled).await?;
    if request.dry_run {
        let policies = selecting.into_iter().map(|record| record.name).collect();
        return Ok(Some(api::Host { warnings, ..hosts::encode(&labelled, policies) }));
    }
    let new = Relabelling {
        host: host.id,
        before: host.labels,
        after: labelled.labels,
        jobs: selecting.iter().map(|record| (record.id, JobId::random())).collect(),
        reschedules: policies.all().values().any(Policy::has_overrides),
    };
    match app.catalog.relabel_host(&new).await? {
        Relabelled::Done => {}
        Relabelled::Changed => return Ok(None),
    }
    app.nudges.scheduler.notify_one();
    app.nudges.full_planner.notify_one();
    app.nudges.plan_sender.notify_one();
    let subject = host.id.to_string();
    let details = serde_json::json!({ "before": new.before, "after": new.after });
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "host_labelled", subject: &subject, details };
    app.catalog.record_audit(&deed).await?;
    Ok(Some(api::Host { warnings, ..hosts::show(app, &subject).await? }))
}

/// The labels that the host has then.
fn wanted(request: &api::LabelHostRequest, host: &Host) -> Result<BTreeMap<String, String>, Fault> {
    if request.set.is_empty() && request.remove.is_empty() {
        return Err(Fault::new(ErrorCode::InvalidArgument, "no label was named")
            .with_hint("role=web sets one, role- removes it"));
    }
    let mut labels = host.labels.clone();
    for key in &request.remove {
        labels.remove(key);
    }
    labels.extend(request.set.clone());
    tokens::check_labels(&labels)?;
    Ok(labels)
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
