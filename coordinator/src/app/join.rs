//! Redeeming a token: a host's agent or an operator gets its first certificate. Repeated with the same key within ten minutes the
//! answer is the same certificate, so that an answer that was lost on the way costs nothing.

use std::time::Duration;

use coord_shared::api::{JoinRequest, JoinResponse};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{Generation, HostId, TokenId};
use coord_shared::slug::HostSlug;
use coord_shared::tls::PeerKind;
use coord_shared::token::TokenSecret;
use coord_shared::wire::to_us;
use subtle::ConstantTimeEq as _;

use super::App;
use super::authorize::Role;
use crate::catalog::{
    CertificateRecord, HostFacts, JoinOutcome, NewAudit, NewCertificate, NewHost, TokenKind, TokenRecord, TokenState,
};
use crate::pki::{CertificateOrder, IssuedCertificate, RequestedKey};

/// A join repeated with the same key within this time gets the same certificate.
const REPEATABLE: Duration = Duration::from_secs(600);
/// Longest fact (host name, system) that is kept, in characters.
const MAX_FACT: usize = 200;

/// Redeems a token.
pub async fn join(app: &App, request: JoinRequest) -> Result<JoinResponse, Fault> {
    let token = proven_token(app, &request).await?;
    let key = RequestedKey::from_pem(&request.csr_pem)
        .map_err(|error| Fault::new(ErrorCode::InvalidArgument, error.to_string()))?;
    if let Some(answer) = repeated(app, &token, &key).await? {
        return Ok(answer);
    }
    usable(token.state)?;
    match &token.operator {
        None => join_host(app, &token, &request, &key).await,
        Some((name, role)) => join_operator(app, &token, (name, *role), &key).await,
    }
}

/// The token, when the caller knows its secret. Wrong secrets are counted, and end the token soon.
async fn proven_token(app: &App, request: &JoinRequest) -> Result<TokenRecord, Fault> {
    let invalid = || {
        Fault::new(ErrorCode::TokenInvalid, "the token is not known here")
            .with_hint("get a new one: coordctl token create, or coordinator operator-token")
    };
    let id: TokenId = request.token_id.parse().map_err(|_| invalid())?;
    let secret: TokenSecret = request.token_secret.parse().map_err(|_| invalid())?;
    let token = app.catalog.token(id).await?.ok_or_else(invalid)?;
    if !bool::from(secret.hash().ct_eq(&token.secret_sha256)) {
        app.catalog.record_token_failure(id).await?;
        tracing::warn!(token = %id, "a wrong secret was shown for a token");
        return Err(invalid());
    }
    Ok(token)
}

fn usable(state: TokenState) -> Result<(), Fault> {
    let hint = "get a new one: coordctl token create, or coordinator operator-token";
    let refused = |code, message: &str| Err(Fault::new(code, message).with_hint(hint));
    match state {
        TokenState::Active => Ok(()),
        TokenState::Used => refused(ErrorCode::TokenUsed, "the token has been used"),
        TokenState::Expired => refused(ErrorCode::TokenExpired, "the token has expired"),
        TokenState::Revoked => refused(ErrorCode::TokenRevoked, "the token was revoked"),
    }
}

/// Somebody else used or ended the token between looking and redeeming.
fn lost_race(state: TokenState) -> Fault {
    match usable(state) {
        Err(fault) => fault,
        Ok(()) => Fault::new(ErrorCode::Unavailable, "another join got in the way").with_hint("try again"),
    }
}

/// The answer that this key got for this token, when that is not long ago.
async fn repeated(app: &App, token: &TokenRecord, key: &RequestedKey) -> Result<Option<JoinResponse>, Fault> {
    let Some(before) = app.catalog.redemption(token.id, key.sha256()).await? else { return Ok(None) };
    if before.age > REPEATABLE {
        usable(TokenState::Used)?;
    }
    let record = app.catalog.certificate(&before.serial).await?;
    let record = record.ok_or_else(|| Fault::new(ErrorCode::Internal, "the certificate of a join is gone"))?;
    let name = match before.kind {
        PeerKind::Agent => {
            let id: Option<HostId> = before.subject.parse().ok();
            let host = match id {
                Some(id) => app.catalog.host(id).await?,
                None => None,
            };
            host.map_or_else(|| before.subject.clone(), |host| host.name)
        }
        PeerKind::Operator | PeerKind::Coordinator => before.subject.clone(),
    };
    Ok(Some(answer(app, &record.pem, &before.subject, &name, to_us(record.not_after))))
}

fn answer(app: &App, pem: &str, subject: &str, name: &str, not_after_us: i64) -> JoinResponse {
    JoinResponse {
        certificate_pem: pem.to_owned(),
        ca_pem: app.authority.pem().to_owned(),
        fleet: app.authority.fleet().to_owned(),
        subject_id: subject.to_owned(),
        name: name.to_owned(),
        endpoints: app.endpoints.main.clone(),
        not_after_us,
    }
}

async fn join_host(
    app: &App,
    token: &TokenRecord,
    request: &JoinRequest,
    key: &RequestedKey,
) -> Result<JoinResponse, Fault> {
    let name = wanted_name(token, request)?;
    let id = HostId::random();
    let issued = issue(app, PeerKind::Agent, &id.to_string(), key)?;
    let host = NewHost {
        id,
        name: name.as_str().to_owned(),
        labels: token.labels.clone(),
        facts: HostFacts {
            hostname: fact(&request.hostname),
            operating_system: fact(&request.operating_system),
            version: fact(&request.version),
        },
    };
    let certificate = new_certificate(&issued, Generation(1));
    match app.catalog.join_host(token.id, &host, &certificate).await? {
        JoinOutcome::Joined => {}
        JoinOutcome::Refused(state) => return Err(lost_race(state)),
        JoinOutcome::NameTaken => return Err(name_taken(&name)),
    }
    record(app, PeerKind::Agent, &id.to_string(), "host_joined", name.as_str()).await;
    super::jobs::select_for_host(app, id).await?;
    Ok(answer(app, &issued.pem, &id.to_string(), name.as_str(), to_us(issued.identity.not_after)))
}

fn name_taken(name: &HostSlug) -> Fault {
    Fault::new(ErrorCode::NameTaken, format!("the name {name} belongs to another host, and names are never reused"))
        .with_hint("choose another with --name; a host that lost its state joins under a new name")
}

/// The token's own name for the host, else the one wanted, else what the host calls itself.
fn wanted_name(token: &TokenRecord, request: &JoinRequest) -> Result<HostSlug, Fault> {
    let wanted = request.wanted_name.as_str();
    let (name, own_choice) = match &token.host_name {
        Some(fixed) if !wanted.is_empty() && wanted != fixed => {
            let message = format!("the token is for the host {fixed}, not for {}", wanted.escape_debug());
            return Err(Fault::new(ErrorCode::InvalidArgument, message).with_hint("leave --name out"));
        }
        Some(fixed) => (fixed.clone(), true),
        None if !wanted.is_empty() => (wanted.to_owned(), true),
        None => (request.hostname.to_lowercase(), false),
    };
    HostSlug::new(name).map_err(|error| {
        let hint =
            if own_choice { "choose another with --name" } else { "the machine's own name does not do: use --name" };
        Fault::new(ErrorCode::InvalidArgument, error.to_string()).with_hint(hint)
    })
}

async fn join_operator(
    app: &App,
    token: &TokenRecord,
    operator: (&str, Role),
    key: &RequestedKey,
) -> Result<JoinResponse, Fault> {
    debug_assert_eq!(token.kind, TokenKind::Operator);
    let (name, role) = operator;
    let newest = app.catalog.newest_certificate(PeerKind::Operator, name).await?;
    let generation = newest.map_or(Generation(1), |newest: CertificateRecord| newest.generation.next());
    let issued = issue(app, PeerKind::Operator, name, key)?;
    let certificate = new_certificate(&issued, generation);
    match app.catalog.join_operator(token, (name, role), &certificate).await? {
        JoinOutcome::Joined => {}
        JoinOutcome::Refused(state) => return Err(lost_race(state)),
        JoinOutcome::NameTaken => return Err(super::tokens::operator_taken(name)),
    }
    record(app, PeerKind::Operator, name, "operator_logged_in", role.as_str()).await;
    Ok(answer(app, &issued.pem, name, name, to_us(issued.identity.not_after)))
}

/// Issues a certificate of `kind` for `id`.
pub(super) fn issue(app: &App, kind: PeerKind, id: &str, key: &RequestedKey) -> Result<IssuedCertificate, Fault> {
    app.authority.issue(CertificateOrder { kind, id, now: app.clock.now() }, key).map_err(|error| {
        tracing::error!(cause = %super::fault::chain(&error), "cannot issue a certificate");
        Fault::new(ErrorCode::Internal, "the coordinator cannot issue a certificate; its log says more")
    })
}

/// A certificate's row.
pub(super) fn new_certificate(issued: &IssuedCertificate, generation: Generation) -> NewCertificate {
    NewCertificate {
        serial: issued.identity.serial.clone(),
        kind: issued.identity.kind,
        subject: issued.identity.id.clone(),
        generation,
        public_key_sha256: issued.identity.public_key_sha256,
        pem: issued.pem.clone(),
        not_after: issued.identity.not_after,
    }
}

/// What a host says of itself, bounded and printable.
pub(super) fn fact(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_FACT).collect()
}

/// Records a deed; that it cannot be recorded does not undo what is done.
async fn record(app: &App, actor_kind: PeerKind, actor: &str, action: &str, subject: &str) {
    let deed = NewAudit { actor_kind, actor, action, subject, details: serde_json::json!({}) };
    if let Err(error) = app.catalog.record_audit(&deed).await {
        tracing::warn!(%error, action, "cannot record a deed");
    }
}
