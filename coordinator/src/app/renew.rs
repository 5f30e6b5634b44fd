//! Renewing a certificate for a new key. The rule of generations: generation g counts until the first call with a later one; renewing
//! again with the same new key gives the same certificate. A copied key shows itself: the copy that renews first outruns the
//! other, whose next call or renewal is refused by name.

use coord_shared::api::RenewResponse;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::{PeerIdentity, PeerKind};
use coord_shared::wire::to_us;

use super::App;
use super::authorize::{allowed, owner, replaced};
use super::join::{issue, new_certificate};
use crate::catalog::{CatalogError, CertificateRecord, CertificateState};
use crate::pki::RequestedKey;

/// Renewals of one subject that may meet.
const TRIES: usize = 3;

/// Renews the certificate that was shown in the handshake, which may have expired: the listener saw to how long ago.
pub async fn renew(app: &App, identity: &PeerIdentity, csr_pem: &str) -> Result<RenewResponse, Fault> {
    if identity.kind == PeerKind::Coordinator {
        return Err(Fault::new(ErrorCode::PermissionDenied, "coordinators renew by themselves"));
    }
    in_grace(app, identity)?;
    let record = allowed(app, identity).await?;
    owner(app, identity).await?;
    let key =
        RequestedKey::from_pem(csr_pem).map_err(|error| Fault::new(ErrorCode::InvalidArgument, error.to_string()))?;
    if *key.sha256() == record.public_key_sha256 {
        return Err(Fault::new(ErrorCode::InvalidArgument, "a renewal needs a new key"));
    }
    for _ in 0..TRIES {
        if let Some(before) = app.catalog.certificate_for_key(identity.kind, &identity.id, key.sha256()).await? {
            return repeated(app, identity, &before);
        }
        newest_used_or_later(app, identity, &record).await?;
        let newest = app.catalog.newest_certificate(identity.kind, &identity.id).await?;
        let generation = newest.map_or(record.generation, |newest| newest.generation).next();
        let issued = issue(app, identity.kind, &identity.id, &key)?;
        match app.catalog.insert_certificate(&new_certificate(&issued, generation)).await {
            Ok(()) => {
                tracing::info!(kind = %identity.kind, id = %identity.id, %generation, "certificate renewed");
                return Ok(answer(app, &issued.pem, to_us(issued.identity.not_after)));
            }
            // Somebody renewed meanwhile: look again.
            Err(CatalogError::Taken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Fault::new(ErrorCode::Unavailable, "another renewal got in the way").with_hint("try again"))
}

/// The listener overlooks how long ago a certificate ended, within its grace, because a coordinator that was away must not lock out
/// its hosts. A person whose certificate has ended logs in again: what lies on a disk for a month is nobody's key any more.
fn in_grace(app: &App, identity: &PeerIdentity) -> Result<(), Fault> {
    if identity.kind != PeerKind::Operator || identity.not_after >= app.clock.now() {
        return Ok(());
    }
    Err(Fault::new(ErrorCode::CertificateExpired, format!("the certificate of {} has expired", identity.id))
        .with_hint("log in again: coordctl login, with a token of an admin or of coordinator operator-token"))
}

fn repeated(app: &App, identity: &PeerIdentity, before: &CertificateRecord) -> Result<RenewResponse, Fault> {
    match before.state {
        CertificateState::Active => Ok(answer(app, &before.pem, to_us(before.not_after))),
        CertificateState::Replaced | CertificateState::Revoked => Err(replaced(identity)),
    }
}

/// An agent renews from the newest generation that was ever used, or from a later one that was not used yet.
async fn newest_used_or_later(app: &App, identity: &PeerIdentity, record: &CertificateRecord) -> Result<(), Fault> {
    if identity.kind == PeerKind::Operator {
        return Ok(());
    }
    let used = app.catalog.newest_used_certificate(identity.kind, &identity.id).await?;
    if used.is_some_and(|used| used.generation > record.generation) {
        tracing::warn!(id = %identity.id, generation = %record.generation, "renewal from an outrun certificate refused");
        return Err(replaced(identity));
    }
    Ok(())
}

fn answer(app: &App, pem: &str, not_after_us: i64) -> RenewResponse {
    RenewResponse { certificate_pem: pem.to_owned(), ca_pem: app.authority.pem().to_owned(), not_after_us }
}
