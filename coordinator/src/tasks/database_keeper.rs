//! Starts the private database server again when it has died. A database that was given by its address is somebody else's to keep.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, chain, housekeeping};
use crate::postgres::Private;

const EVERY: Duration = Duration::from_secs(2);

/// Starts the reconciler for the private server in `folder`.
pub fn start(app: &Arc<App>, folder: &Path, life: &Lifecycle) {
    let (owned, folder) = (Arc::clone(app), folder.to_owned());
    let rhythm = Rhythm::new("database keeper", EVERY).until_the_end();
    super::start(app, life, rhythm, move || {
        let (app, folder) = (Arc::clone(&owned), folder.clone());
        async move {
            if housekeeping::database_answers(&app).await {
                return Ok(Pass::Settled);
            }
            // Starting a server that runs changes nothing.
            match Private::start(&folder).await {
                Ok(_) => tracing::warn!("the private database was started again"),
                Err(error) => return Err(Fault::new(ErrorCode::Unavailable, chain(&error))),
            }
            Ok(Pass::Settled)
        }
    });
}
