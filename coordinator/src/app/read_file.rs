//! One file of a restore point, read by the host that has the archive and handed through to the operator.

use coord_shared::api::{self, coordinator_message::Message};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RequestId;
use coord_shared::tls::PeerKind;

use super::backups::location;
use super::plan_restore::{instant, planned};
use super::{App, files, names, relay};
use crate::catalog::{NewAudit, VersionKind};
use crate::domain::restore_plan::shown;
use crate::relays::Receiving;

/// Asks the host that has the archive for the file. Who read what is recorded.
///
/// # Errors
/// Those of planning; `not_found` when there was no such file; `invalid_argument` for what has no content;
/// `host_not_connected` when the archive cannot be reached.
pub async fn open(app: &App, user: &str, request: &api::ReadFileRequest) -> Result<Receiving<api::FileChunk>, Fault> {
    let host = names::host(app, &request.host).await?;
    let at = instant(app, request.at.as_ref()).await?;
    let (plan, points) = planned(app, &host, std::slice::from_ref(&request.path), &request.policy, at).await?;
    let path = request.path.as_slice();
    // A path has one giver; parts that give only something below it are of no use here.
    let part = plan.parts.iter().find(|part| files::gives(part, path)).ok_or_else(|| is_folder(path))?;
    let row = points.row(part.backup)?;
    if let Some(entry) = files::entry(app, row, path).await? {
        match entry.kind {
            VersionKind::File => {}
            VersionKind::Folder => return Err(is_folder(path)),
            VersionKind::Symlink | VersionKind::Fifo | VersionKind::CharDevice | VersionKind::BlockDevice => {
                return Err(Fault::new(ErrorCode::InvalidArgument, format!("{} has no content", shown(path)))
                    .with_hint("coordctl ls -l shows what it is"));
            }
        }
    }
    let differential = match part.differential {
        Some(id) => Some(location(points.row(id)?)),
        None => None,
    };
    let order = api::ReadFileOrder {
        request_id: String::new(),
        path: request.path.clone(),
        full: Some(location(points.row(part.full)?)),
        differential,
    };
    let details = serde_json::json!({ "path": shown(path), "backup": part.backup });
    let subject = host.id.to_string();
    let deed =
        NewAudit { actor_kind: PeerKind::Operator, actor: user, action: "file_read", subject: &subject, details };
    app.catalog.record_audit(&deed).await?;
    let order = |id: RequestId| Message::ReadFile(api::ReadFileOrder { request_id: id.to_string(), ..order });
    let hint = "its archives lie on the host itself: start its agent (coord-agent run), or wait until it is back";
    relay::ask(app, &app.relays, host.id, order, hint)
}

fn is_folder(path: &[u8]) -> Fault {
    Fault::new(ErrorCode::InvalidArgument, format!("{} is a folder", shown(path)))
        .with_hint("coordctl ls shows what is in it, coordctl restore brings it back")
}
