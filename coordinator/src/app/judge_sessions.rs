//! Whether the hosts behind the open sessions may still be served. All are asked about in one statement, because a question for each of
//! ten thousand every four seconds would be most of what the catalog does; who falls is then judged as every caller is, and told why.

use std::sync::Arc;

use coord_shared::fault::Fault;
use coord_shared::tls::PeerIdentity;

use super::App;
use super::authorize::{authorize_again, in_date};
use crate::sessions::Session;

/// Ends the sessions whose certificate or host does not count any more.
///
/// # Errors
/// The catalog does not answer. After a minute of that, nobody is known to count.
pub async fn judge(app: &App) -> Result<(), Fault> {
    let (counting, expired): (Vec<Session>, Vec<Session>) =
        app.sessions.all().into_iter().partition(|session| in_date(app, &session.identity).is_ok());
    for session in expired {
        if let Err(fault) = in_date(app, &session.identity) {
            session.end(fault);
        }
    }
    let shown: Vec<_> = counting.iter().map(|session| (session.identity.serial.as_str(), session.host)).collect();
    let fallen = match app.catalog.fallen_certificates(&shown).await {
        Ok(fallen) => fallen,
        Err(error) => {
            let fault = Fault::from(error);
            if !app.standings.hold_without_answers() {
                counting.iter().for_each(|session| session.end(fault.clone()));
            }
            return Err(fault);
        }
    };
    app.standings.answered();
    for session in counting.iter().filter(|session| fallen.contains(&session.identity.serial)) {
        end_if_fallen(app, session, Arc::clone(&session.identity)).await;
    }
    Ok(())
}

async fn end_if_fallen(app: &App, session: &Session, identity: Arc<PeerIdentity>) {
    match authorize_again(app, &identity).await {
        Ok(_) => {}
        // The database went away in between: the next pass looks again.
        Err(fault) if fault.is_transient() => {}
        Err(fault) => session.end(fault),
    }
}
