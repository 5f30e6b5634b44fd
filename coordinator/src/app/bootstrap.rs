//! Taking grants of this machine's administrator into the catalog: the first operator's certificate, operator tokens.

use std::path::Path;
use std::time::Duration;

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::hex;
use coord_shared::ids::{Generation, TokenId};
use coord_shared::tls::{PeerIdentity, PeerKind};

use super::App;
use super::authorize::Role;
use crate::bootstrap::{Grant, PendingGrant, pending};
use crate::catalog::{CatalogError, MADE_LOCALLY, NewCertificate, NewToken, TokenKind};

/// Takes every waiting grant in. One that makes no sense is reported and left.
pub async fn take_grants(app: &App, state: &Path) -> Result<(), Fault> {
    let unreadable = |error: std::io::Error| Fault::new(ErrorCode::Io, format!("cannot read grants: {error}"));
    let state = state.to_owned();
    let waiting = tokio::task::spawn_blocking(move || pending(&state)).await;
    let waiting = waiting.map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))?.map_err(unreadable)?;
    for grant in waiting {
        match take(app, &grant).await {
            Ok(()) => grant.taken().map_err(unreadable)?,
            Err(fault) if fault.is_transient() => return Err(fault),
            Err(fault) => tracing::warn!(why = %fault.message, "a grant cannot be taken: left alone"),
        }
    }
    Ok(())
}

async fn take(app: &App, pending: &PendingGrant) -> Result<(), Fault> {
    let nonsense = |what: &str| Fault::new(ErrorCode::InvalidConfiguration, format!("the grant's {what} is wrong"));
    match &pending.grant {
        Grant::Operator { user, role, certificate_pem } => {
            let identity = PeerIdentity::from_pem(certificate_pem).map_err(|_| nonsense("certificate"))?;
            if identity.kind != PeerKind::Operator || identity.id != *user {
                return Err(nonsense("user"));
            }
            app.catalog.grant_operator(user, role.parse::<Role>().map_err(|_| nonsense("role"))?).await?;
            allow(app, &identity, certificate_pem).await?;
            tracing::info!(user, role, "operator's certificate taken in");
        }
        Grant::Token { id, secret_sha256, user, role, expires_at } => {
            let lives = expires_at.duration_since(app.clock.now());
            let Ok(lives) = Duration::try_from(lives) else { return Ok(()) };
            let token = NewToken {
                id: TokenId::from_uuid(*id),
                secret_sha256: hex::decode_array(secret_sha256).ok_or_else(|| nonsense("secret"))?,
                kind: TokenKind::Operator,
                labels: Default::default(),
                host_name: None,
                operator: Some((user.clone(), role.parse().map_err(|_| nonsense("role"))?)),
                uses: 1,
                created_by: MADE_LOCALLY.to_owned(),
                lives,
            };
            app.catalog.create_token(&token).await?;
            tracing::info!(user, role, "operator token taken in");
        }
    }
    Ok(())
}

/// Puts a certificate into the allow-list with the next free generation of its subject. Repeated, it changes nothing.
async fn allow(app: &App, identity: &PeerIdentity, pem: &str) -> Result<(), Fault> {
    const TRIES: usize = 3;
    for _ in 0..TRIES {
        let newest = app.catalog.newest_certificate(identity.kind, &identity.id).await?;
        let certificate = NewCertificate {
            serial: identity.serial.clone(),
            kind: identity.kind,
            subject: identity.id.clone(),
            generation: newest.map_or(Generation(1), |newest| newest.generation.next()),
            public_key_sha256: identity.public_key_sha256,
            pem: pem.to_owned(),
            not_after: identity.not_after,
        };
        match app.catalog.insert_certificate(&certificate).await {
            Ok(()) => return Ok(()),
            Err(CatalogError::Taken { .. }) => {
                if app.catalog.certificate(&identity.serial).await?.is_some() {
                    return Ok(());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Fault::new(ErrorCode::Unavailable, "another change got in the way"))
}
