//! Join tokens: made, listed, ended. The secret is shown once, to whoever made it, and is kept only as its digest.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::TokenId;
use coord_shared::selector::check_label;
use coord_shared::slug::HostSlug;
use coord_shared::tls::PeerKind;
use coord_shared::token::Token;
use coord_shared::wire::to_us;

use super::authorize::Role;
use super::{App, names};
use crate::catalog::{NewAudit, NewToken, OperatorRole, TokenKind, TokenRecord};
use crate::init::random_secret;

/// Life of a token when none is asked for.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);
/// Longest life of a token.
const MAX_TTL: Duration = Duration::from_secs(7 * 86_400);
/// Most uses of a token.
const MAX_USES: u32 = 1000;
/// Most labels of a token.
const MAX_LABELS: usize = 64;

/// Who makes a token.
#[derive(Debug, Clone, Copy)]
pub struct Creator<'a> {
    /// The operator's name.
    pub user: &'a str,
    /// The operator's role: nobody hands out more than they have.
    pub role: Option<Role>,
}

/// Makes a token.
///
/// # Errors
/// `invalid_argument` for a life, labels or names that cannot be; `permission_denied` for a role above the creator's own, and for
/// the name of an operator with a role above it; `name_taken` for the name of one who was put out.
pub async fn create(
    app: &App,
    creator: Creator<'_>,
    request: api::CreateTokenRequest,
) -> Result<api::CreatedToken, Fault> {
    let kind = kind(&request.kind)?;
    let operator = operator(kind, creator, &request)?;
    if let Some((name, _)) = &operator {
        speaks_for(app, creator, name).await?;
    }
    let labels: BTreeMap<String, String> = request.labels.into_iter().collect();
    check_labels(&labels)?;
    let host_name = match request.host.as_str() {
        "" => None,
        name => Some(HostSlug::new(name).map_err(|error| invalid(error.to_string()))?.to_string()),
    };
    let lives = match request.ttl_s {
        0 => DEFAULT_TTL,
        seconds => Duration::from_secs(u64::from(seconds)),
    };
    if lives > MAX_TTL {
        return Err(invalid("a token lives at most seven days").with_hint("--ttl 1h is usual"));
    }
    let uses = request.uses.max(1);
    if uses > MAX_USES || (host_name.is_some() && uses > 1) {
        return Err(invalid(format!("a token has at most {MAX_USES} uses, and one that names its host a single one")));
    }
    let secret = random_secret().map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))?;
    let id = TokenId::random();
    let new = NewToken {
        id,
        secret_sha256: secret.hash(),
        kind,
        labels,
        host_name,
        operator,
        uses,
        created_by: creator.user.to_owned(),
        lives,
    };
    let record = app.catalog.create_token(&new).await?;
    let details =
        serde_json::json!({ "kind": kind.as_str(), "uses": uses, "expires_at": record.expires_at.to_string() });
    audit(app, creator.user, "token_created", id, details).await?;
    let line = Token { id: id.uuid(), secret, ca: app.authority.pin() }.reveal();
    let endpoint = app.endpoints.enrolment.first().map_or("COORDINATOR:7444", String::as_str);
    let join_command = match kind {
        TokenKind::Agent => format!("echo {line} | coord-agent join --token-file - --endpoint {endpoint}"),
        TokenKind::Operator => format!("echo {line} | coordctl login --token-file - --endpoint {endpoint}"),
    };
    Ok(api::CreatedToken { token: Some(encode(&record)), secret_line: line, join_command })
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(ErrorCode::InvalidArgument, message)
}

fn kind(text: &str) -> Result<TokenKind, Fault> {
    if text.is_empty() {
        return Ok(TokenKind::Agent);
    }
    text.parse().map_err(|_| invalid(format!("'{}' is no kind of token: agent or operator", names::shown(text))))
}

fn operator(
    kind: TokenKind,
    creator: Creator<'_>,
    request: &api::CreateTokenRequest,
) -> Result<Option<(String, OperatorRole)>, Fault> {
    match kind {
        TokenKind::Agent if request.user.is_empty() && request.role.is_empty() => Ok(None),
        TokenKind::Agent => Err(invalid("a token for an agent has neither user nor role").with_hint("--kind operator")),
        TokenKind::Operator => {
            let user = HostSlug::new(request.user.clone()).map_err(|_| {
                invalid("the name of an operator is made of a-z, 0-9, '-' and '.'").with_hint("--user ada")
            })?;
            let role: OperatorRole = request.role.parse().map_err(|_| {
                invalid(format!("'{}' is no role: viewer, restorer, operator or admin", names::shown(&request.role)))
            })?;
            if creator.role.is_none_or(|own| role > own) {
                let message = format!("nobody hands out a role above their own, and {} is not {role}", creator.user);
                return Err(Fault::new(ErrorCode::PermissionDenied, message).with_hint("ask an admin of the fleet"));
            }
            Ok(Some((user.to_string(), role)))
        }
    }
}

/// A login with an operator's name is that operator, whatever role the token says: who could not be them anyway does not get it.
/// Judged again when the token is redeemed.
async fn speaks_for(app: &App, creator: Creator<'_>, name: &str) -> Result<(), Fault> {
    let Some(operator) = app.catalog.operator(name).await? else { return Ok(()) };
    if !operator.active {
        return Err(operator_taken(name));
    }
    if creator.user != name && creator.role.is_none_or(|own| operator.role > own) {
        let message = format!("{name} is {}, and a login with that name is theirs", operator.role);
        return Err(Fault::new(ErrorCode::PermissionDenied, message)
            .with_hint(format!("choose another name, or ask {name} or an admin of the fleet")));
    }
    Ok(())
}

/// The name belongs to an operator who was put out, or who is more than the token's maker.
pub(super) fn operator_taken(name: &str) -> Fault {
    Fault::new(ErrorCode::NameTaken, format!("the name {name} belongs to another operator, and names are never reused"))
        .with_hint("get a token with another name: coordctl token create --kind operator --user NAME")
}

/// Checks labels that hosts are to get.
///
/// # Errors
/// `invalid_argument` names the label.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Fault> {
    if labels.len() > MAX_LABELS {
        return Err(invalid(format!("a host has at most {MAX_LABELS} labels")));
    }
    for (key, value) in labels {
        check_label(key, value).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(())
}

/// The newest tokens.
///
/// # Errors
/// Those of the catalog.
pub async fn list(app: &App) -> Result<api::TokenList, Fault> {
    let tokens = app.catalog.tokens().await?;
    Ok(api::TokenList { tokens: tokens.iter().map(encode).collect() })
}

/// Ends a token.
///
/// # Errors
/// `not_found` and `ambiguous` as for every name.
pub async fn revoke(app: &App, user: &str, text: &str) -> Result<api::Token, Fault> {
    let token = names::token(app, text).await?;
    let revoked = app.catalog.revoke_token(token.id).await?;
    audit(app, user, "token_revoked", token.id, serde_json::json!({})).await?;
    Ok(encode(&revoked))
}

async fn audit(app: &App, user: &str, action: &str, token: TokenId, details: serde_json::Value) -> Result<(), Fault> {
    let subject = token.to_string();
    let deed = NewAudit { actor_kind: PeerKind::Operator, actor: user, action, subject: &subject, details };
    Ok(app.catalog.record_audit(&deed).await?)
}

fn encode(token: &TokenRecord) -> api::Token {
    api::Token {
        id: token.id.to_string(),
        kind: token.kind.as_str().to_owned(),
        uses_left: token.uses_left,
        expires_at_us: to_us(token.expires_at),
        created_at_us: to_us(token.created_at),
        created_by: token.created_by.clone(),
        labels: token.labels.clone().into_iter().collect(),
        state: token.state.as_str().to_owned(),
    }
}
