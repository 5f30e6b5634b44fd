//! Whether a certificate counts, now: its row in the allow-list, its owner's state, its dates. Asked on every call and every five
//! seconds of an open stream (of all sessions together: `judge_sessions`); a good answer is remembered for that long, a bad one is not remembered. While the database is away
//! the last good answer holds for a minute, so that an outage does not throw out every agent.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::HostId;
use coord_shared::tls::{PeerIdentity, PeerKind};

use super::App;
use crate::catalog::{CertificateRecord, CertificateState, HostState, OlderGenerations};

pub use crate::catalog::OperatorRole as Role;

/// A good answer is asked for again after this long.
const FRESH: Duration = Duration::from_secs(5);
/// And holds for this long while the database does not answer.
const HOLDS: Duration = Duration::from_secs(60);
/// Answers remembered; beyond it the old ones are dropped.
const MAX_REMEMBERED: usize = 20_000;

/// What a certificate's holder may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// An operator's role.
    pub role: Option<Role>,
}

/// Recent good answers, by the certificate's SHA-256.
#[derive(Debug, Default)]
pub struct Standings {
    recent: Mutex<HashMap<[u8; 32], (Instant, Standing)>>,
    /// When the catalog last answered for all open sessions together.
    answered: Mutex<Option<Instant>>,
}

impl Standings {
    /// Nothing is remembered.
    pub fn new() -> Standings {
        Standings::default()
    }

    fn recall(&self, certificate: &[u8; 32], age: Duration) -> Option<Standing> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(certificate).filter(|(at, _)| at.elapsed() < age).map(|(_, standing)| *standing)
    }

    fn remember(&self, certificate: [u8; 32], standing: Standing) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= MAX_REMEMBERED {
            recent.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        recent.insert(certificate, (Instant::now(), standing));
    }

    /// Somebody was put out: nobody's good answer counts any more here.
    pub fn forget_all(&self) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The catalog answered for all open sessions.
    pub fn answered(&self) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether open sessions may go on while the catalog does not answer for them: for a minute.
    pub fn hold_without_answers(&self) -> bool {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.get_or_insert_with(Instant::now).elapsed() < HOLDS
    }

    fn forget(&self, certificate: &[u8; 32]) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).remove(certificate);
    }
}

/// Judges the holder of a certificate that the handshake found to be of our authority.
pub async fn authorize(app: &App, identity: &PeerIdentity) -> Result<Standing, Fault> {
    in_date(app, identity)?;
    match app.standings.recall(&identity.sha256, FRESH) {
        Some(standing) => Ok(standing),
        None => ask(app, identity).await,
    }
}

/// Judges the holder of an open stream again, past what is remembered: a revocation is seen by the next look.
pub async fn authorize_again(app: &App, identity: &PeerIdentity) -> Result<Standing, Fault> {
    in_date(app, identity)?;
    ask(app, identity).await
}

/// Whether a certificate's time is not over.
pub(super) fn in_date(app: &App, identity: &PeerIdentity) -> Result<(), Fault> {
    if identity.not_after < app.clock.now() {
        return Err(Fault::new(ErrorCode::CertificateExpired, "the certificate has expired").with_hint("renew it"));
    }
    Ok(())
}

async fn ask(app: &App, identity: &PeerIdentity) -> Result<Standing, Fault> {
    match look_up(app, identity).await {
        Ok(standing) => {
            app.standings.remember(identity.sha256, standing);
            Ok(standing)
        }
        Err(fault) if fault.is_transient() => app.standings.recall(&identity.sha256, HOLDS).ok_or(fault),
        Err(fault) => {
            app.standings.forget(&identity.sha256);
            Err(fault)
        }
    }
}

async fn look_up(app: &App, identity: &PeerIdentity) -> Result<Standing, Fault> {
    let record = allowed(app, identity).await?;
    let role = owner(app, identity).await?;
    if record.first_used_at.is_none() {
        app.catalog.record_certificate_use(&record.serial, older(identity.kind)).await?;
    }
    Ok(Standing { role })
}

/// The first call with a certificate ends the older ones of an agent. An operator may have several machines.
const fn older(kind: PeerKind) -> OlderGenerations {
    match kind {
        PeerKind::Agent | PeerKind::Coordinator => OlderGenerations::End,
        PeerKind::Operator => OlderGenerations::Keep,
    }
}

/// The certificate's row, if it counts.
pub(super) async fn allowed(app: &App, identity: &PeerIdentity) -> Result<CertificateRecord, Fault> {
    let unknown = || {
        Fault::new(ErrorCode::Unauthenticated, "the certificate is not known to this fleet")
            .with_hint("join again with a token, or log in again")
    };
    if identity.fleet != app.authority.fleet() {
        return Err(unknown());
    }
    let record = app.catalog.certificate(&identity.serial).await?.ok_or_else(unknown)?;
    if record.kind != identity.kind
        || record.subject != identity.id
        || record.public_key_sha256 != identity.public_key_sha256
    {
        return Err(unknown());
    }
    match record.state {
        CertificateState::Active => Ok(record),
        CertificateState::Revoked => Err(revoked(identity)),
        CertificateState::Replaced => Err(replaced(identity)),
    }
}

fn revoked(identity: &PeerIdentity) -> Fault {
    Fault::new(ErrorCode::Revoked, format!("the {} {} was revoked", identity.kind, identity.id))
        .with_hint("ask an admin of the fleet")
}

/// What the holder of an outrun certificate hears: either a copy of the key is in use, or an old state folder came back.
pub(super) fn replaced(identity: &PeerIdentity) -> Fault {
    Fault::new(ErrorCode::CertificateReplaced, "the certificate was replaced by a later one that has been used")
        .with_hint(format!(
            "if nothing was restored or cloned, a copy of the key of {} is in use: revoke it",
            identity.id
        ))
}

/// Whether the certificate's owner may do anything, and as what.
pub(super) async fn owner(app: &App, identity: &PeerIdentity) -> Result<Option<Role>, Fault> {
    match identity.kind {
        PeerKind::Agent => {
            let id: Option<HostId> = identity.id.parse().ok();
            let host = match id {
                Some(id) => app.catalog.host(id).await?,
                None => None,
            };
            match host.map(|host| host.state) {
                Some(HostState::Active) => Ok(None),
                Some(HostState::Revoked) | None => Err(revoked(identity)),
            }
        }
        PeerKind::Operator => {
            let operator = app.catalog.operator(&identity.id).await?;
            operator
                .filter(|operator| operator.active)
                .map(|operator| Some(operator.role))
                .ok_or_else(|| revoked(identity))
        }
        PeerKind::Coordinator => Ok(None),
    }
}
