//! Puts a host out for good: its certificates count for nothing from the next call on, its open streams end, nothing is due for it
//! any more. Its backups stay, and its name is not given again.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::PeerKind;

use super::{App, hosts, names};
use crate::catalog::{NewAudit, Revoked};

/// Revokes a host; revoking it again changes nothing.
///
/// # Errors
/// `not_found` with the nearest name.
pub async fn revoke(app: &App, user: &str, text: &str) -> Result<api::Host, Fault> {
    let host = names::host(app, text).await?;
    let subject = host.id.to_string();
    let details = serde_json::json!({ "name": host.name });
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "host_revoked", subject: &subject, details };
    match app.catalog.revoke_host(host.id, &deed).await? {
        Revoked::Now => {
            tracing::warn!(host = %host.name, user, "host revoked");
            app.standings.forget_all();
            // Another coordinator's sessions and calls are looked at again within five seconds.
            if let Some(session) = app.sessions.get(host.id) {
                let reason = Fault::new(ErrorCode::Revoked, format!("the host {} was revoked", host.name));
                session.end(reason.with_hint("ask an admin of the fleet"));
            }
        }
        Revoked::Before | Revoked::LastAdmin => {}
    }
    hosts::show(app, &subject).await
}
