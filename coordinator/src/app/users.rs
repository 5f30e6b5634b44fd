//! Operators as operators see them, and putting one out.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::PeerKind;
use coord_shared::wire::{optional_us, to_us};

use super::{App, names};
use crate::catalog::{HostState, NewAudit, OperatorEntry, Revoked};

/// Every operator, by name.
///
/// # Errors
/// Those of the catalog.
pub async fn list(app: &App) -> Result<api::UserList, Fault> {
    let operators = app.catalog.operators().await?;
    Ok(api::UserList { users: operators.iter().map(encode).collect() })
}

/// Puts an operator out: certificates and tokens of theirs, and tokens they made, count for nothing from the next call on. Repeated, it
/// changes nothing.
///
/// # Errors
/// `not_found` with the nearest name; `not_now` for the last admin.
pub async fn disable(app: &App, user: &str, text: &str) -> Result<api::User, Fault> {
    let name = names::user(app, text).await?.operator.name;
    let details = serde_json::json!({});
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "user_disabled", subject: &name, details };
    match app.catalog.revoke_operator(&name, &deed).await? {
        Revoked::Now => {
            tracing::warn!(name, user, "operator disabled");
            app.standings.forget_all();
        }
        Revoked::Before => {}
        Revoked::LastAdmin => {
            return Err(Fault::new(ErrorCode::NotNow, format!("{name} is the last admin of the fleet"))
                .with_hint("make another first: coordctl token create --kind operator --user NAME --role admin"));
        }
    }
    Ok(encode(&names::user(app, &name).await?))
}

fn encode(entry: &OperatorEntry) -> api::User {
    let operator = &entry.operator;
    let state = if operator.active { HostState::Active } else { HostState::Revoked };
    api::User {
        name: operator.name.clone(),
        role: operator.role.as_str().to_owned(),
        state: state.as_str().to_owned(),
        created_at_us: to_us(entry.created_at),
        certificate_not_after_us: optional_us(entry.certificate_ends),
    }
}
