//! One file of a restore point, read by the host that has the archive and handed through to the operator.

use std::time::Duration;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::PeerKind;

use super::backups::location;
use super::plan_restore::{instant, planned};
use super::{App, files, names, relay};
use crate::catalog::{NewAudit, VersionKind};
use crate::domain::restore_plan::shown;
use crate::relays::Receiving;

/// Longest silence of the host that reads the file.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the host that has the archive for the file. Who read what is recorded.
///
/// # Errors
/// Those of planning; `not_found` when there was no such file; `invalid_argument` for what has no content;
/// `host_not_connected` when the archive cannot be reached.
pub async fn open(app: &App, user: &str, request: &api::ReadFileRequest) -> Result<Receiving, Fault> {
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
    relay::ask(app, host.id, order)
}

fn is_folder(path: &[u8]) -> Fault {
    Fault::new(ErrorCode::InvalidArgument, format!("{} is a folder", shown(path)))
        .with_hint("coordctl ls shows what is in it, coordctl restore brings it back")
}

/// Hands the chunks to `take` until the file has ended or nobody takes them any more (`take` says no).
///
/// # Errors
/// What the host says is wrong; `host_not_connected` when it goes away in the middle.
pub async fn relay<T, F>(receiving: &mut Receiving, take: T) -> Result<(), Fault>
where
    T: Fn(api::FileChunk) -> F,
    F: Future<Output = bool>,
{
    loop {
        let chunk = tokio::time::timeout(PATIENCE, receiving.next()).await.map_err(|_| {
            Fault::new(ErrorCode::TimedOut, "the host did not send the file in time").with_hint("try again")
        })?;
        let Some(chunk) = chunk else {
            return Err(Fault::new(ErrorCode::HostNotConnected, "the host went away in the middle of the file")
                .with_hint("try again"));
        };
        if let Some(api::file_chunk::Part::Fault(fault)) = &chunk.part {
            return Err(Fault::from_api(fault));
        }
        let last = matches!(chunk.part, Some(api::file_chunk::Part::End(_)));
        if !take(chunk).await || last {
            return Ok(());
        }
    }
}
