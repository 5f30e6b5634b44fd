//! Renews the coordinator's own certificate at two thirds of its life and swaps it under both listeners. Connections that are open
//! go on; new ones see the new certificate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::lifecycle::Lifecycle;
use coord_shared::tls::{PeerKind, ServerTls};
use jiff::Timestamp;

use super::{Pass, Rhythm};
use crate::app::App;
use crate::pki::CertificateOrder;

const EVERY: Duration = Duration::from_secs(60);

/// Starts the reconciler for the certificates of `listeners`, to be renewed for the first time at `due`.
pub fn start(app: &Arc<App>, listeners: &[Arc<ServerTls>], due: Timestamp, life: &Lifecycle) {
    let listeners = Arc::new(listeners.to_vec());
    let due = Arc::new(Mutex::new(due));
    let rhythm = Rhythm::new("certificate renewer", EVERY).until_the_end();
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let (app, listeners, due) = (Arc::clone(&owned), Arc::clone(&listeners), Arc::clone(&due));
        async move {
            let mut due = due.lock().unwrap_or_else(PoisonError::into_inner);
            if app.clock.now() >= *due {
                *due = renew(&app, &listeners)?;
            }
            Ok(Pass::Settled)
        }
    });
}

/// Issues and swaps; answers when the next renewal is due.
fn renew(app: &App, listeners: &[Arc<ServerTls>]) -> Result<Timestamp, Fault> {
    let id = app.coordinator.to_string();
    let order = CertificateOrder { kind: PeerKind::Coordinator, id: &id, now: app.clock.now() };
    let internal = |error: &dyn std::error::Error| Fault::new(ErrorCode::Internal, error.to_string());
    let (certificate, key) = app.authority.issue_with_key(order).map_err(|error| internal(&error))?;
    for listener in listeners {
        listener.replace(&certificate.pem, &key).map_err(|error| internal(&error))?;
    }
    app.certificate_ends.send_replace(certificate.identity.not_after);
    tracing::info!(serial = %certificate.identity.serial, "renewed our own certificate");
    Ok(certificate.identity.life_at(2, 3))
}
