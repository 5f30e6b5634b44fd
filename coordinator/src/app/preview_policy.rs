//! What a policy file would take of a host, before it is applied: the host scans with the file's selection and tells. Nothing is
//! applied, stored or read; whether the policy selects the host does not matter.

use coord_shared::api::{self, coordinator_message::Message};
use coord_shared::fault::Fault;
use coord_shared::ids::RequestId;
use coord_shared::tls::PeerKind;
use coord_shared::wire::MAX_PREVIEW_NAMES;

use super::apply_policy::read_file;
use super::dispatch::selection_rules;
use super::policy_refusal::refusal;
use super::{App, names, relay};
use crate::catalog::NewAudit;
use crate::relays::Receiving;

/// Asks the host to scan. Who looked where is recorded, since any folder of the host can be looked at so.
///
/// # Errors
/// `invalid_policy` for a file that could not be applied; `not_found` for an unknown host; `host_not_connected`.
pub async fn open(
    app: &App,
    user: &str,
    request: &api::PreviewPolicyRequest,
) -> Result<Receiving<api::PreviewPart>, Fault> {
    let policy = read_file(app, &request.toml).await?;
    let host = names::host(app, &request.host).await?;
    let policy = policy.for_host(&host.name, &host.labels).map_err(|findings| refusal(&findings))?;
    let details = serde_json::json!({ "policy": policy.name, "sources": policy.sources });
    let subject = host.id.to_string();
    let deed = NewAudit {
        actor_kind: PeerKind::Operator,
        actor: user,
        action: "policy_previewed",
        subject: &subject,
        details,
    };
    app.catalog.record_audit(&deed).await?;
    let order = |id: RequestId| {
        Message::Preview(api::PreviewOrder {
            request_id: id.to_string(),
            sources: policy.sources.iter().map(|source| source.clone().into_bytes()).collect(),
            exclude: policy.exclude.clone(),
            rules: Some(selection_rules(&policy)),
            limit: request.limit.min(MAX_PREVIEW_NAMES),
        })
    };
    let hint = "the host itself has to look: start its agent (coord-agent run), or wait until it is back";
    relay::ask(app, &app.previews, host.id, order, hint)
}
